"""The generated data set: scenes with five captions each, which nobody has to download.

Knows what a scene holds, how five people would put it, and which scenes are held out. Refuses to know how it is drawn;
that is drawing.py's.

Dev and test hold things in places where the train split never shows them (a boat in the desert, say), so that the data
set measures whether a model has learned what a boat and what a desert look like, not which pictures it has seen.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from filelock import FileLock

from lcm.data.drawing import AMOUNTS, COLOURS, THINGS, draw_scene
from lcm.data.scenery import PLACES

IMAGES = 1200
COMPANIONS = ("", "rainbow", "tree", "fence")
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
WHERE = {  # place -> (after a thing, at the beginning of a caption, as a scene of its own)
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
    recipe = {"version": VERSION, "images": images, "seed": seed}
    manifest = folder / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) == recipe:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"lcm-{place}.lock"):  # or processes would replace each other's
        if not (manifest.exists() and json.loads(manifest.read_text()) == recipe):
            _draw(folder, plan_scenes(images, seed), recipe)
    return folder


def _draw(folder: Path, scenes: list[Scene], recipe: dict[str, int]) -> None:
    """Put the data set in the folder's place, whole."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(temporary, scenes)
        (temporary / MANIFEST).write_text(json.dumps(recipe) + "\n")
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
