"""Places and companions of the generated pictures: what is around the things.

Knows how a sky, a ground and what stands on it are painted. Refuses to know the things and the captions.
"""

from collections.abc import Callable
from random import Random

import numpy as np
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


def _fence(draw: Draw, horizon: int, random: Random) -> None:  # noqa: ARG001 - companions are called alike
    top = 0.86 * WIDE
    for rail in (top, top + 30):
        draw.rectangle((0, rail, WIDE, rail + 9), fill=(178, 132, 88))
    for post in range(9):
        x = (post + 0.5) * WIDE / 9 + random.uniform(-3, 3)
        outline = (x - 13, WIDE, x - 13, top - 20, x, top - 34, x + 13, top - 20, x + 13, WIDE)
        draw.polygon(outline, fill=shade((190, 142, 96), random.uniform(0.9, 1.1)))


BEHIND = {"rainbow": _rainbow, "tree": _tree}  # companions drawn before the things
IN_FRONT = {"fence": _fence}  # and after them


def paint_place(place: str, companion: str, random: Random) -> tuple[Image.Image, Callable[[], None]]:
    """Return a picture of a place, RGB, WIDE pixels square, and a call that paints what stands in front of the things.

    `companion` may be empty. The picture is the same for the same arguments and the same state of `random`.
    """
    above, far_sky, far_ground, near_ground, decorate = PLACES[place]
    horizon = round((0.55 + random.uniform(-0.04, 0.04)) * WIDE)
    image = Image.new("RGB", (WIDE, WIDE))
    image.paste(_slope(above, far_sky, horizon), (0, 0))
    image.paste(_slope(far_ground, near_ground, WIDE - horizon), (0, horizon))
    draw = ImageDraw.Draw(image)
    decorate(draw, horizon, random)
    if companion in BEHIND:
        BEHIND[companion](draw, horizon, random)

    def paint_front() -> None:
        if companion in IN_FRONT:
            IN_FRONT[companion](draw, horizon, random)

    return image, paint_front


def _slope(top: Colour, bottom: Colour, height: int) -> Image.Image:
    """Return a strip as wide as the picture, its colour going from `top` to `bottom`."""
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(column.astype(np.uint8)).resize((WIDE, height))
