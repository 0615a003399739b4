"""Pictures of the generated data set: things in places, drawn with Pillow.

Knows how every thing looks, in a table of shapes, and how a picture is put together. Refuses to know captions and
splits; places are scenery.py's.

Things are lists of (kind, coordinates, tone): coordinates from -1 to 1 around the middle; a tone is a factor of the
thing's own colour, or a name in MATERIALS.
"""

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from lcm.data.scenery import WIDE, Colour, paint_place, shade

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
    image, paint_front = paint_place(place, companion, random)
    share, across = AMOUNTS[amount]
    height = round(share * random.uniform(0.95, 1.05) * WIDE)
    rgb = tuple(min(255, max(0, value + random.randint(-8, 8))) for value in COLOURS[colour])
    for middle in across:
        patch = _patch(THINGS[thing], rgb, height, random.uniform(-7, 7))
        left = (middle + random.uniform(-0.02, 0.02)) * WIDE - height / 2
        image.paste(patch, (round(left), round(0.9 * WIDE - height - random.uniform(0, 0.03) * WIDE)), patch)
    paint_front()
    return image.reduce(2)


def _patch(shapes: tuple[Shape, ...], colour: Colour, height: int, tilt: float) -> Image.Image:
    """Return one thing on a transparent square, lit from the upper left, turned by `tilt` degrees."""
    image = Image.new("RGBA", (height, height), (*colour, 0))
    draw = ImageDraw.Draw(image)
    half = height / 2
    for kind, numbers, tone in shapes:
        fill = MATERIALS[tone] if isinstance(tone, str) else shade(colour, tone)
        if kind == "chord":
            box, angles = numbers[:4], numbers[4:]
            draw.chord([half + 0.92 * half * value for value in box], *angles, fill=fill)
            continue
        points = [half + 0.92 * half * value for value in numbers]
        if kind == "line":
            draw.line(points, fill=fill, width=max(3, height // 26), joint="curve")
        else:
            getattr(draw, kind)(points, fill=fill)
    pixels = np.asarray(image).astype(np.float32)
    down, right = np.mgrid[0:height, 0:height] / height
    pixels[..., :3] *= (1.12 - 0.3 * (0.7 * down + 0.3 * right))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).rotate(tilt, Image.Resampling.BICUBIC)
