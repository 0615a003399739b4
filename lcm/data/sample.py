"""The generated data set: scenes with five captions each, drawn with Pillow, which nobody has to download.

Dev and test hold things in places where the train split never shows them (a boat in the desert, say), so that the data
set measures whether a model has learned what a boat and what a desert look like, not which pictures it has seen.

sample_scenes.json holds what there is to draw and to say. A thing's shapes are (kind, coordinates, tone): coordinates
from -1 to 1 around the middle, or the name of a polygon that is worked out here; a tone is a factor of the thing's own
colour, or the name of a material.
"""

import hashlib
import itertools
import json
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw

IMAGES = 1200
VERSION = 1  # of drawing and wording: another one makes the data set anew
MANIFEST = "sample.json"
WIDE = 512  # pixels a side while drawing; the finished picture is half as wide, which smooths the edges

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

_SCENES: dict[str, Any] = json.loads(Path(__file__).with_name("sample_scenes.json").read_text(encoding="utf-8"))
COLOURS, MATERIALS, AMOUNTS = _SCENES["colours"], _SCENES["materials"], _SCENES["amounts"]
THINGS, PLACES, COMPANIONS = _SCENES["things"], _SCENES["places"], _SCENES["companions"]


def shade(colour: Colour, tone: float) -> Colour:
    """Return the colour darker (tone below 1) or lighter (above 1)."""
    target = 0 if tone <= 1 else 255
    share = tone if tone <= 1 else 2 - tone
    return tuple(round(value * share + target * (1 - share)) for value in colour)


# What makes a place, in muted colours, so that the things stand out


def _dots(draw: Draw, random: Random, count: int, top: int, colour: Colour, size: float) -> None:
    """Strew dots below `top`."""
    for _ in range(count):
        x, y, radius = random.uniform(0, WIDE), random.uniform(top, WIDE), random.uniform(0.4, 1) * size
        draw.circle((x, y), radius, fill=shade(colour, random.uniform(0.85, 1.1)))


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
        draw.circle((x, y), radius, fill=(250, 248, 220))


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


_DECORATIONS = {
    draw.__name__.strip("_"): draw for draw in (_meadow, _desert, _snow, _sea, _night, _forest, _city, _mountains)
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
        draw.circle((x + across, horizon - up), size, fill=shade((70, 125, 66), random.uniform(0.85, 1.15)))


def _fence(draw: Draw, random: Random) -> None:
    top = 0.86 * WIDE
    for rail in (top, top + 30):
        draw.rectangle((0, rail, WIDE, rail + 9), fill=(178, 132, 88))
    for post in range(9):
        x = (post + 0.5) * WIDE / 9 + random.uniform(-3, 3)
        outline = (x - 13, WIDE, x - 13, top - 20, x, top - 34, x + 13, top - 20, x + 13, WIDE)
        draw.polygon(outline, fill=shade((190, 142, 96), random.uniform(0.9, 1.1)))


def _paint_place(place: str, random: Random) -> tuple[Image.Image, int]:
    """Return a picture of a place, RGB, WIDE pixels square, and how far down its horizon lies."""
    horizon = round((0.55 + random.uniform(-0.04, 0.04)) * WIDE)
    image = Image.new("RGB", (WIDE, WIDE))
    image.paste(_slope(*PLACES[place]["sky"], horizon), (0, 0))
    image.paste(_slope(*PLACES[place]["ground"], WIDE - horizon), (0, horizon))
    _DECORATIONS[place](ImageDraw.Draw(image), horizon, random)
    return image, horizon


def _slope(top: Colour, bottom: Colour, height: int) -> Image.Image:
    """Return a strip as wide as the picture, its colour going from `top` to `bottom`."""
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(column.astype(np.uint8)).resize((WIDE, height))


def _star() -> tuple[float, ...]:
    points = ((1.0, 0.42)[k % 2] * np.array([math.sin(math.pi * k / 5), -math.cos(math.pi * k / 5)]) for k in range(10))
    return tuple(float(value) for point in points for value in point)


def _heart() -> tuple[float, ...]:
    turns = [2 * math.pi * k / 60 for k in range(60)]
    curve = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    return tuple(value for t, y in zip(turns, curve, strict=True) for value in (math.sin(t) ** 3, -y / 16))


_POLYGONS = {"star": _star(), "heart": _heart(), "ray": (*_star()[:4], 0, 0, *_star()[-2:])}


def draw_scene(thing: str, colour: str, amount: str, place: str, companion: str, random: Random) -> Image.Image:
    """Return the picture of a scene, RGB, half of WIDE square; `companion` may be empty.

    The same arguments and the same state of `random` give the same picture.
    """
    image, horizon = _paint_place(place, random)
    draw = ImageDraw.Draw(image)
    if behind := {"rainbow": _rainbow, "tree": _tree}.get(companion):
        behind(draw, horizon, random)
    height = round(AMOUNTS[amount]["height"] * random.uniform(0.95, 1.05) * WIDE)
    rgb = tuple(min(255, max(0, value + random.randint(-8, 8))) for value in COLOURS[colour])
    for middle in AMOUNTS[amount]["across"]:
        patch = _patch(THINGS[thing]["shapes"], rgb, height, random.uniform(-7, 7))
        left = (middle + random.uniform(-0.02, 0.02)) * WIDE - height / 2
        image.paste(patch, (round(left), round(0.9 * WIDE - height - random.uniform(0, 0.03) * WIDE)), patch)
    if companion == "fence":  # in front of the things
        _fence(draw, random)
    return image.reduce(2)


def _patch(
    shapes: list[tuple[str, list[float] | str, float | str]], colour: Colour, height: int, tilt: float
) -> Image.Image:
    """Return one thing on a transparent square, lit from the upper left, turned by `tilt` degrees."""
    image = Image.new("RGBA", (height, height), (*colour, 0))
    draw = ImageDraw.Draw(image)
    half = height / 2
    for kind, numbers, tone in shapes:
        fill = tuple(MATERIALS[tone]) if isinstance(tone, str) else shade(colour, tone)
        values = _POLYGONS[numbers] if isinstance(numbers, str) else numbers
        values, angles = (values[:4], values[4:]) if kind == "chord" else (values, ())
        points = [half + 0.92 * half * value for value in values]
        if kind == "line":
            draw.line(points, fill=fill, width=max(3, height // 26), joint="curve")
        else:
            getattr(draw, kind)(points, *angles, fill=fill)
    pixels = np.asarray(image).astype(np.float32)
    down, right = np.mgrid[0:height, 0:height] / height
    pixels[..., :3] *= (1.12 - 0.3 * (0.7 * down + 0.3 * right))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).rotate(tilt, Image.Resampling.BICUBIC)


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


def plan_scenes(images: int = IMAGES, seed: int = 0) -> list[Scene]:
    """Return different scenes, the same for the same arguments, every thing in every place about equally often."""
    every = itertools.product(THINGS, COLOURS, AMOUNTS, PLACES, COMPANIONS)
    return Random(seed).sample([Scene(*one) for one in every], images)


def write_captions(scene: Scene) -> list[str]:
    """Return the five captions of a scene: as five people would put it, in other words for things and places."""
    nouns = {"thing": scene.thing, "other_name": THINGS[scene.thing]["other_name"]}
    if scene.amount in ("two", "three"):
        nouns = {key: name + ("es" if name.endswith("s") else "s") for key, name in nouns.items()}
    words = nouns | AMOUNTS[scene.amount]["words"] | PLACES[scene.place]["words"]
    words |= {"colour": scene.colour, "beside": COMPANIONS[scene.companion]}
    return [" ".join(sentence.format_map(words).split()) for sentence in _SCENES["captions"]]


def generate(folder: Path, *, images: int = IMAGES, seed: int = 0) -> Path:
    """Write images, captions.tsv and split lists into `folder`, unless they are there, and return it.

    The folder is there whole or not at all. The same arguments give the same captions and, with the same Pillow, the
    same pixels. Takes some seconds.
    """
    recipe = json.dumps({"version": VERSION, "images": images, "seed": seed}) + "\n"
    manifest = folder / MANIFEST
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"lcm-{place}.lock"):  # or processes would replace each other's
        if not (manifest.exists() and manifest.read_text() == recipe):
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
                new = Path(temporary) / folder.name
                _write(new, plan_scenes(images, seed))
                (new / MANIFEST).write_text(recipe)
                shutil.rmtree(folder, ignore_errors=True)
                new.replace(folder)
    return folder


def _write(folder: Path, scenes: list[Scene]) -> None:
    (folder / "images").mkdir(parents=True)
    names = [f"{number:04}.jpg" for number in range(len(scenes))]
    lines = ["image\tcaption"]
    for number, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        draw_scene(**asdict(scene), random=Random(number)).save(folder / "images" / name, quality=90)
        lines += [f"{name}\t{caption}" for caption in write_captions(scene)]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    for split in ("train", "dev", "test"):
        members = [name for name, scene in zip(names, scenes, strict=True) if scene.split == split]
        (folder / f"{split}Images.txt").write_text("\n".join(members) + "\n")
