"""The generated data set: scenes with five captions each, drawn with Pillow, which nobody has to download.

Dev and test hold things in places where the train split never shows them (a boat in the desert, say), so that the data
set measures whether a model has learned what a boat and what a desert look like, not which pictures it has seen.

sample_scenes.json holds what there is to draw and to say. Shapes are (kind, coordinates, tone): coordinates in halves
of the thing's height, from its middle; a tone is a factor of its colour, or the name of another one. What makes a place
or a companion is strewn from left to right: `count` copies, `across` and `down` where (shares of the width, and of the
way from the horizon to the lower edge, or the upper one below 0), of which sizes and tones.
"""

import hashlib
import itertools
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageOps

IMAGES = 1200
VERSION = 2  # of drawing and wording: another one makes the data set anew
MANIFEST = "sample.json"
WIDE = 512  # pixels a side while drawing; the finished picture is half as wide, which smooths the edges

Colour = tuple[int, int, int]

_SCENES: dict[str, Any] = json.loads(Path(__file__).with_name("sample_scenes.json").read_text(encoding="utf-8"))
COLOURS, AMOUNTS = _SCENES["colours"], _SCENES["amounts"]
THINGS, PLACES, COMPANIONS = _SCENES["things"], _SCENES["places"], _SCENES["companions"]


def shade(colour: Colour, tone: float) -> Colour:
    """Return the colour darker (tone below 1) or lighter (above 1)."""
    target = 0 if tone <= 1 else 255
    share = tone if tone <= 1 else 2 - tone
    return tuple(round(value * share + target * (1 - share)) for value in colour)


def _draw_shapes(draw: ImageDraw.ImageDraw, shapes: list, colour: Colour, middle: tuple, half: float) -> None:
    for kind, numbers, tone in shapes:
        fill = shade(colour, tone) if isinstance(tone, int | float) else tuple((COLOURS | _SCENES["materials"])[tone])
        values, angles = (numbers[:4], numbers[4:]) if kind in ("chord", "arc") else (numbers, ())
        points = [middle[at % 2] + half * value for at, value in enumerate(values)]
        width = {"width": max(2, round(half / 13))} if kind in ("line", "arc") else {}
        getattr(draw, kind)(points, *angles, fill=fill, **width)


def _strew(image: Image.Image, kinds: list[dict[str, Any]], horizon: int, random: Random) -> None:
    """Draw what makes a place or a companion, RGB, WIDE pixels square, in muted colours: the things stand out."""
    for kind in kinds:
        left, right = kind.get("across", (0, 1))
        for turn in range(kind["count"]):
            x, down = left + (right - left) * (turn + random.random()) / kind["count"], random.uniform(*kind["down"])
            y = horizon + down * (WIDE - horizon if down > 0 else horizon)
            colour = shade(kind["colour"], random.uniform(*kind.get("tones", (0.8, 1.2))))
            half = random.uniform(*kind["size"]) * WIDE
            _draw_shapes(ImageDraw.Draw(image), kind["shapes"], colour, (x * WIDE, y), half)


def _slope(top: Colour, bottom: Colour, height: int) -> Image.Image:
    """Return a strip as wide as the picture, its colour going from `top` to `bottom`."""
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(column.astype(np.uint8)).resize((WIDE, height))


def draw_scene(thing: str, colour: str, amount: str, place: str, companion: str, random: Random) -> Image.Image:
    """Return the picture of a scene, RGB, half of WIDE square; `companion` may be empty.

    The same arguments and the same state of `random` give the same picture.
    """
    horizon = round((0.55 + random.uniform(-0.04, 0.04)) * WIDE)
    image = Image.new("RGB", (WIDE, WIDE))
    image.paste(_slope(*PLACES[place]["sky"], horizon), (0, 0))
    image.paste(_slope(*PLACES[place]["ground"], WIDE - horizon), (0, horizon))
    beside = COMPANIONS[companion]
    _strew(image, PLACES[place]["strewn"] + beside["behind"], horizon, random)
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    height = round(AMOUNTS[amount]["height"] * random.uniform(0.95, 1.05) * WIDE)
    rgb = tuple(min(255, max(0, value + random.randint(-8, 8))) for value in COLOURS[colour])
    for middle in AMOUNTS[amount]["across"]:
        patch = _patch(THINGS[thing]["shapes"], rgb, height, random.uniform(-7, 7))
        left = (middle + random.uniform(-0.02, 0.02)) * WIDE - height / 2
        image.paste(patch, (round(left), round(0.9 * WIDE - height - random.uniform(0, 0.03) * WIDE)), patch)
    _strew(image, beside["before"], horizon, random)
    return image.reduce(2)


def _patch(shapes: list, colour: Colour, height: int, tilt: float) -> Image.Image:
    """Return one thing on a transparent square, lit from the upper left, turned by `tilt` degrees."""
    image = Image.new("RGBA", (height, height), (*colour, 0))
    _draw_shapes(ImageDraw.Draw(image), shapes, colour, (height / 2, height / 2), 0.46 * height)
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
    words |= {"colour": scene.colour, "beside": COMPANIONS[scene.companion]["words"]}
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
