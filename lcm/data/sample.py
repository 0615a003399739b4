"""The generated data set: scenes with five captions each, drawn with Pillow, which nobody has to download.

Dev and test hold things in places where the train split never shows them (a boat in the desert, say), so that the data
set measures whether a model has learned what a boat and what a desert look like, not which pictures it has seen.

Things are lists of (kind, coordinates, tone): coordinates from -1 to 1 around the middle; a tone is a factor of the
thing's own colour, or a name in MATERIALS.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw

WIDE = 512  # pixels a side while drawing; the finished picture is half as wide, which smooths the edges

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw


def shade(colour: Colour, tone: float) -> Colour:
    """Return the colour darker (tone below 1) or lighter (above 1)."""
    target = 0 if tone <= 1 else 255
    share = tone if tone <= 1 else 2 - tone
    return tuple(round(value * share + target * (1 - share)) for value in colour)


def _dots(draw: Draw, random: Random, count: int, top: int, colour: Colour, size: float) -> None:
    """Strew dots below `top`."""
    for _ in range(count):
        x, y, radius = random.uniform(0, WIDE), random.uniform(top, WIDE), random.uniform(0.4, 1) * size
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade(colour, random.uniform(0.85, 1.1)))


def _meadow(draw: Draw, horizon: int, random: Random) -> None:
    draw.ellipse((-0.3 * WIDE, horizon - 50, 0.6 * WIDE, horizon + 150), fill=(146, 172, 126))
    draw.ellipse((0.4 * WIDE, horizon - 36, 1.4 * WIDE, horizon + 150), fill=(132, 160, 114))
    for _ in range(160):
        x, y = random.uniform(0, WIDE), random.uniform(horizon + 20, WIDE)
        draw.line(
            (x, y, x + random.uniform(-4, 4), y - 14), fill=shade((95, 130, 85), random.uniform(0.8, 1.2)), width=2
        )


def _desert(draw: Draw, horizon: int, random: Random) -> None:
    for _ in range(3):
        x = random.uniform(-0.1, 0.9) * WIDE
        draw.ellipse(
            (x - 200, horizon - 30, x + 200, horizon + 150), fill=shade((214, 182, 136), random.uniform(0.92, 1.1))
        )
    for _ in range(9):
        x, y = random.uniform(-100, 400), random.uniform(horizon + 40, WIDE)
        draw.arc((x, y, x + 200, y + 26), 180, 360, fill=(200, 166, 122), width=3)


def _snow(draw: Draw, horizon: int, random: Random) -> None:
    draw.ellipse((-150, horizon - 30, 400, horizon + 160), fill=(244, 247, 250))
    _dots(draw, random, 120, 0, (250, 252, 255), 5)


def _sea(draw: Draw, horizon: int, random: Random) -> None:
    for _ in range(40):
        x, depth = random.uniform(-30, WIDE), random.random()
        y, width = horizon + depth * (WIDE - horizon), 10 + 50 * depth
        draw.arc((x, y, x + width, y + 6 + 8 * depth), 180, 360, fill=(150, 175, 195), width=3)


def _night(draw: Draw, horizon: int, random: Random) -> None:
    for _ in range(70):
        x, y, radius = random.uniform(0, WIDE), random.uniform(0, horizon), random.uniform(0.7, 2.6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(250, 248, 220))


def _forest(draw: Draw, horizon: int, random: Random) -> None:
    for _ in range(22):
        x, height = random.uniform(0, WIDE), random.uniform(130, 250)
        green = shade((52, 86, 64), random.uniform(0.7, 1.25))
        for level in range(3):
            half, base = 0.28 * height * (1 - 0.22 * level), horizon + 8 - 0.28 * height * level
            draw.polygon((x - half, base, x, horizon - height * (0.5 + 0.25 * level), x + half, base), fill=green)
    _dots(draw, random, 50, horizon, (95, 105, 75), 6)


def _city(draw: Draw, horizon: int, random: Random) -> None:
    left = 0.0
    while left < WIDE:
        width, height = random.uniform(40, 85), random.uniform(100, 260)
        draw.rectangle(
            (left, horizon - height, left + width, horizon), fill=shade((132, 136, 146), random.uniform(0.75, 1.15))
        )
        for y in range(int(horizon - height + 8), horizon - 8, 18):
            for x in range(int(left + 6), int(left + width - 8), 14):
                draw.rectangle((x, y, x + 6, y + 9), fill=random.choice([(225, 220, 190), (95, 100, 115)]))
        left += width
    middle = (horizon + WIDE) / 2
    for x in range(0, WIDE, 128):
        draw.rectangle((x, middle, x + 60, middle + 8), fill=(228, 228, 220))


def _mountains(draw: Draw, horizon: int, random: Random) -> None:
    for _ in range(5):
        x, height = random.uniform(0, WIDE), random.uniform(100, 200)
        half = 0.8 * height
        draw.polygon(
            (x - half, horizon, x, horizon - height, x + half, horizon),
            fill=shade((122, 126, 140), random.uniform(0.8, 1.2)),
        )
        draw.polygon(
            (x - 0.3 * half, horizon - 0.7 * height, x, horizon - height, x + 0.3 * half, horizon - 0.7 * height),
            fill=(245, 248, 252),
        )
    _dots(draw, random, 30, horizon, (140, 135, 128), 9)


# Sky above and at the horizon, ground at the horizon and in front, decoration; muted, so that the things stand out.
PLACES: dict[str, tuple[Colour, Colour, Colour, Colour, Callable[[Draw, int, Random], None]]] = {
    "meadow": ((130, 165, 200), (212, 226, 236), (140, 165, 118), (100, 128, 88), _meadow),
    "desert": ((225, 196, 160), (243, 230, 208), (214, 184, 140), (188, 152, 112), _desert),
    "snow": ((165, 182, 196), (226, 232, 238), (240, 244, 249), (212, 222, 232), _snow),
    "sea": ((150, 180, 205), (232, 240, 246), (72, 108, 138), (48, 76, 108), _sea),
    "night": ((16, 18, 40), (50, 54, 84), (44, 46, 62), (28, 29, 40), _night),
    "forest": ((178, 196, 184), (214, 226, 214), (86, 98, 74), (62, 72, 54), _forest),
    "city": ((174, 180, 190), (224, 222, 220), (126, 126, 130), (92, 92, 97), _city),
    "mountains": ((158, 186, 212), (234, 239, 243), (148, 143, 134), (114, 108, 102), _mountains),
}


def _rainbow(draw: Draw, horizon: int, random: Random) -> None:
    x, radius = random.uniform(0.4, 0.6) * WIDE, random.uniform(0.42, 0.48) * WIDE
    for colour in ((225, 60, 60), (245, 150, 50), (250, 225, 80), (80, 180, 90), (70, 120, 220), (140, 80, 190)):
        draw.arc(
            (x - radius, horizon - 0.85 * radius, x + radius, horizon + 0.85 * radius), 180, 360, fill=colour, width=12
        )
        radius -= 11


def _tree(draw: Draw, horizon: int, random: Random) -> None:
    x, foot = random.choice((0.1, 0.9)) * WIDE, horizon + 0.12 * WIDE
    draw.polygon((x - 16, foot, x - 9, horizon - 100, x + 9, horizon - 100, x + 16, foot), fill=(105, 72, 45))
    for across, up, size in ((-40, 100, 46), (40, 100, 46), (0, 150, 52), (-24, 135, 42), (26, 132, 42)):
        middle = (x + across, horizon - up)
        box = (middle[0] - size, middle[1] - size, middle[0] + size, middle[1] + size)
        draw.ellipse(box, fill=shade((70, 125, 66), random.uniform(0.85, 1.15)))


def _fence(draw: Draw, random: Random) -> None:
    top = 0.86 * WIDE
    for rail in (top, top + 30):
        draw.rectangle((0, rail, WIDE, rail + 9), fill=(178, 132, 88))
    for post in range(9):
        x = (post + 0.5) * WIDE / 9 + random.uniform(-3, 3)
        outline = (x - 13, WIDE, x - 13, top - 20, x, top - 34, x + 13, top - 20, x + 13, WIDE)
        draw.polygon(outline, fill=shade((190, 142, 96), random.uniform(0.9, 1.1)))


COMPANIONS = ("", "rainbow", "tree", "fence")


def _paint_place(place: str, random: Random) -> tuple[Image.Image, int]:
    """Return a picture of a place, RGB, WIDE pixels square, and how far down its horizon lies."""
    above, far_sky, far_ground, near_ground, decorate = PLACES[place]
    horizon = round((0.55 + random.uniform(-0.04, 0.04)) * WIDE)
    image = Image.new("RGB", (WIDE, WIDE))
    image.paste(_slope(above, far_sky, horizon), (0, 0))
    image.paste(_slope(far_ground, near_ground, WIDE - horizon), (0, horizon))
    decorate(ImageDraw.Draw(image), horizon, random)
    return image, horizon


def _slope(top: Colour, bottom: Colour, height: int) -> Image.Image:
    """Return a strip as wide as the picture, its colour going from `top` to `bottom`."""
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(column.astype(np.uint8)).resize((WIDE, height))


COLOURS: dict[str, Colour] = {
    "red": (214, 38, 40),
    "yellow": (252, 214, 40),
    "green": (40, 165, 70),
    "blue": (40, 90, 215),
    "purple": (135, 55, 185),
    "black": (34, 34, 38),
}
MATERIALS: dict[str, Colour] = {
    "wood": (120, 80, 50),
    "dark": (45, 45, 55),
    "cream": (248, 238, 215),
    "glass": (205, 230, 245),
    "gold": (250, 205, 80),
}


def _star() -> tuple[float, ...]:
    points = ((1.0, 0.42)[k % 2] * np.array([math.sin(math.pi * k / 5), -math.cos(math.pi * k / 5)]) for k in range(10))
    return tuple(float(value) for point in points for value in point)


def _heart() -> tuple[float, ...]:
    turns = [2 * math.pi * k / 60 for k in range(60)]
    curve = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    return tuple(value for t, y in zip(turns, curve, strict=True) for value in (math.sin(t) ** 3, -y / 16))


Shape = tuple[str, tuple[float, ...], float | str]
THINGS: dict[str, tuple[Shape, ...]] = {
    "balloon": (
        ("line", (-0.45, 0.2, -0.15, 0.75), "dark"),
        ("line", (0.45, 0.2, 0.15, 0.75), "dark"),
        ("ellipse", (-0.75, -1, 0.75, 0.45), 1),
        ("ellipse", (-0.42, -1, 0.42, 0.45), 0.8),
        ("ellipse", (-0.14, -1, 0.14, 0.45), 1.15),
        ("rectangle", (-0.2, 0.7, 0.2, 1), "wood"),
    ),
    "boat": (
        ("line", (0, -1, 0, 0.4), "wood"),
        ("polygon", (-0.08, -0.95, -0.08, 0.3, -0.75, 0.3), 1.2),
        ("polygon", (0.08, -0.8, 0.08, 0.3, 0.7, 0.3), 0.9),
        ("polygon", (-1, 0.4, 1, 0.4, 0.65, 0.9, -0.65, 0.9), 1),
    ),
    "car": (
        ("polygon", (-0.6, 0, -0.35, -0.5, 0.35, -0.5, 0.65, 0), 0.9),
        ("polygon", (-0.42, -0.02, -0.25, -0.38, -0.04, -0.38, -0.04, -0.02), "glass"),
        ("polygon", (0.06, -0.02, 0.06, -0.38, 0.27, -0.38, 0.48, -0.02), "glass"),
        ("rectangle", (-1, -0.02, 1, 0.45), 1),
        ("ellipse", (-0.75, 0.2, -0.25, 0.7), "dark"),
        ("ellipse", (0.25, 0.2, 0.75, 0.7), "dark"),
        ("ellipse", (-0.6, 0.35, -0.4, 0.55), "cream"),
        ("ellipse", (0.4, 0.35, 0.6, 0.55), "cream"),
        ("ellipse", (0.85, 0.08, 1, 0.25), "gold"),
    ),
    "heart": (("polygon", _heart(), 1), ("ellipse", (-0.65, -0.55, -0.3, -0.2), 1.4)),
    "house": (
        ("rectangle", (-0.75, -0.15, 0.75, 1), 1),
        ("polygon", (-1, -0.1, 0, -1, 1, -0.1), 0.65),
        ("rectangle", (-0.15, 0.4, 0.2, 1), "wood"),
        ("rectangle", (-0.58, 0.1, -0.28, 0.42), "glass"),
        ("rectangle", (0.33, 0.1, 0.6, 0.42), "glass"),
    ),
    "mushroom": (
        ("polygon", (-0.25, 0.1, 0.25, 0.1, 0.36, 1, -0.36, 1), "cream"),
        ("chord", (-1, -0.95, 1, 1.1, 180, 360), 1),
        ("ellipse", (-0.6, -0.4, -0.25, -0.1), "cream"),
        ("ellipse", (-0.1, -0.8, 0.2, -0.5), "cream"),
        ("ellipse", (0.3, -0.4, 0.65, -0.1), "cream"),
    ),
    "star": (("polygon", _star(), 1), ("polygon", (*_star()[:4], 0, 0, *_star()[-2:]), 1.25)),
    "umbrella": (
        ("line", (0, -0.1, 0, 0.8, 0.1, 0.95, 0.28, 0.85), "wood"),
        ("chord", (-1, -1, 1, 0.9, 180, 360), 1),
        ("polygon", (-0.35, -0.05, -0.2, -0.7, 0, -1, 0.2, -0.7, 0.35, -0.05), 0.78),
        ("polygon", (-0.05, -0.9, 0, -1.1, 0.05, -0.9), "dark"),
    ),
}


# Amount -> height of a thing as a share of the picture, and where across it the things stand.
AMOUNTS: dict[str, tuple[float, tuple[float, ...]]] = {
    "small": (0.26, (0.5,)),
    "big": (0.64, (0.5,)),
    "two": (0.44, (0.27, 0.73)),
    "three": (0.33, (0.18, 0.5, 0.82)),
}


def draw_scene(thing: str, colour: str, amount: str, place: str, companion: str, random: Random) -> Image.Image:
    """Return the picture of a scene, RGB, half of WIDE square; `companion` may be empty.

    The same arguments and the same state of `random` give the same picture.
    """
    image, horizon = _paint_place(place, random)
    draw = ImageDraw.Draw(image)
    if behind := {"rainbow": _rainbow, "tree": _tree}.get(companion):
        behind(draw, horizon, random)
    share, across = AMOUNTS[amount]
    height = round(share * random.uniform(0.95, 1.05) * WIDE)
    rgb = tuple(min(255, max(0, value + random.randint(-8, 8))) for value in COLOURS[colour])
    for middle in across:
        patch = _patch(THINGS[thing], rgb, height, random.uniform(-7, 7))
        left = (middle + random.uniform(-0.02, 0.02)) * WIDE - height / 2
        image.paste(patch, (round(left), round(0.9 * WIDE - height - random.uniform(0, 0.03) * WIDE)), patch)
    if companion == "fence":  # in front of the things
        _fence(draw, random)
    return image.reduce(2)


def _patch(shapes: tuple[Shape, ...], colour: Colour, height: int, tilt: float) -> Image.Image:
    """Return one thing on a transparent square, lit from the upper left, turned by `tilt` degrees."""
    image = Image.new("RGBA", (height, height), (*colour, 0))
    draw = ImageDraw.Draw(image)
    half = height / 2
    for kind, numbers, tone in shapes:
        fill = MATERIALS[tone] if isinstance(tone, str) else shade(colour, tone)
        numbers, angles = (numbers[:4], numbers[4:]) if kind == "chord" else (numbers, ())
        points = [half + 0.92 * half * value for value in numbers]
        if kind == "line":
            draw.line(points, fill=fill, width=max(3, height // 26), joint="curve")
        else:
            getattr(draw, kind)(points, *angles, fill=fill)
    pixels = np.asarray(image).astype(np.float32)
    down, right = np.mgrid[0:height, 0:height] / height
    pixels[..., :3] *= (1.12 - 0.3 * (0.7 * down + 0.3 * right))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).rotate(tilt, Image.Resampling.BICUBIC)


IMAGES = 1200
VERSION = 1  # of drawing and wording: another one makes the data set anew
MANIFEST = "sample.json"

# What the families of captions call things and places: two people, two words.
OTHER_NAMES = {
    "balloon": "hot air balloon",
    "boat": "sailing ship",
    "car": "vehicle",
    "heart": "love symbol",
    "house": "cottage",
    "mushroom": "toadstool",
    "star": "pointed star",
    "umbrella": "parasol",
}
WHERE = {  # place -> (after a thing, at the beginning of a caption, as the scene itself)
    "meadow": ("in a green meadow", "on the grass", "a grassy field"),
    "desert": ("in the desert", "on the sand", "a sandy landscape"),
    "snow": ("in the snow", "on a winter day", "a snowy plain"),
    "sea": ("on the sea", "at the water", "a blue ocean"),
    "night": ("at night", "under the stars", "a dark sky full of stars"),
    "forest": ("in the forest", "among the fir trees", "a thick wood"),
    "city": ("in the city", "on the street", "a town with tall buildings"),
    "mountains": ("in the mountains", "below the white peaks", "a rocky landscape with high mountains"),
}
BESIDE = {
    "": "",
    "rainbow": "under a rainbow",
    "tree": "next to a tree",
    "fence": "behind a wooden fence",
}


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    thing: str
    colour: str
    amount: str  # "small" or "big": one of that size; "two", "three"
    place: str
    companion: str  # or empty

    @property
    def split(self) -> str:
        """Each thing is held out in one place for dev and in another for test."""
        turn = (list(THINGS).index(self.thing) + list(PLACES).index(self.place)) % len(PLACES)
        return {0: "dev", 1: "test"}.get(turn, "train")

    @property
    def is_one(self) -> bool:
        return self.amount in ("small", "big")


def _named(name: str, scene: Scene) -> str:
    """Return the noun, in the plural where there are several."""
    ending = "es" if name.endswith("s") else "s"
    return name if scene.is_one else name + ending


def _whole(scene: Scene) -> str:
    count = f"a {scene.amount}" if scene.is_one else scene.amount
    words = (count, scene.colour, _named(scene.thing, scene), BESIDE[scene.companion], WHERE[scene.place][0])
    return " ".join(filter(None, words))


def _plain(scene: Scene) -> str:
    count = "there is a" if scene.is_one else f"there are {scene.amount}"
    return f"{count} {scene.colour} {_named(scene.thing, scene)} {WHERE[scene.place][0]}"


def _place_first(scene: Scene) -> str:
    count = f"one {scene.amount}" if scene.is_one else {"two": "a pair of", "three": "a row of"}[scene.amount]
    return f"{WHERE[scene.place][1]} we see {count} {_named(OTHER_NAMES[scene.thing], scene)}"


def _picture(scene: Scene) -> str:
    beside = f" {BESIDE[scene.companion]}" if scene.companion else ""
    count = {"two": "a couple of", "three": "several"}.get(scene.amount, "a single")
    return f"{count} {_named(scene.thing, scene)}{beside} {WHERE[scene.place][0]}"


def _scenery(scene: Scene) -> str:
    count = f"a {scene.amount}" if scene.is_one else scene.amount
    return f"{WHERE[scene.place][2]} with {count} {_named(scene.thing, scene)}"


FAMILIES: tuple[Callable[[Scene], str], ...] = (_whole, _plain, _place_first, _picture, _scenery)


def plan_scenes(images: int = IMAGES, seed: int = 0) -> list[Scene]:
    """Return different scenes, the same for the same arguments, every thing in every place about equally often."""
    random = Random(seed)
    scenes = [
        Scene(thing, colour, amount, place, companion)
        for thing in THINGS
        for colour in COLOURS
        for amount in AMOUNTS
        for place in PLACES
        for companion in COMPANIONS
    ]
    return random.sample(scenes, images)


def write_captions(scene: Scene) -> list[str]:
    """Return the five captions of a scene, one of each family."""
    return [family(scene) for family in FAMILIES]


def generate(folder: Path, *, images: int = IMAGES, seed: int = 0) -> Path:
    """Write images, captions.tsv and split lists into `folder`, unless they are there, and return it.

    The folder is there whole or not at all. The same arguments give the same captions and, with the same Pillow, the
    same pixels. Takes some seconds.
    """
    recipe = json.dumps({"version": VERSION, "images": images, "seed": seed}) + "\n"
    manifest = folder / MANIFEST
    if manifest.exists() and manifest.read_text() == recipe:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"lcm-{place}.lock"):  # or processes would replace each other's
        if not (manifest.exists() and manifest.read_text() == recipe):
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
            try:
                _write(temporary, plan_scenes(images, seed))
                (temporary / MANIFEST).write_text(recipe)
                temporary.chmod(0o755)
                shutil.rmtree(folder, ignore_errors=True)
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(folder: Path, scenes: list[Scene]) -> None:
    (folder / "images").mkdir()
    names = [f"{number:04}.jpg" for number in range(len(scenes))]
    lines = ["image\tcaption"]
    for number, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        draw_scene(**asdict(scene), random=Random(number)).save(folder / "images" / name, quality=90)
        lines += [f"{name}\t{caption}" for caption in write_captions(scene)]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    for split in ("train", "dev", "test"):
        members = [name for name, scene in zip(names, scenes, strict=True) if scene.split == split]
        (folder / f"{split}Images.txt").write_text("\n".join(members) + "\n")
