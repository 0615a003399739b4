"""What learning a folder of photos changes: the measured figures (reports/adapting.csv), as tables and in plain words.

docs/training.md takes its tables from here (`make docs`), and `make run` ends with the words. A line of the file says
what `model` (shipped, adapt, scratch or nearest) that learned `photos` photos of the world `learned` has on `images`
others of the world `measured_on`: CIDEr, its 95 % interval, and the `seconds` of the whole run, which may be empty.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

MEASURED = Path(__file__).parent.parent / "reports" / "adapting.csv"
ANOTHER_WORLD, SIZES = "COCO", (20, 300, 1000)  # what the words tell of
NOTICED = 0.05  # share of the shipped model's CIDEr below which a difference is not worth a word
NONE = "–"  # not measured

Figures = Mapping[tuple[str, int, str, str], Mapping[str, str]]  # learned, photos, model, measured_on -> the line


def read(path: Path = MEASURED) -> Figures:
    """Return the lines of the file."""
    with path.open(encoding="utf-8", newline="") as lines:
        keys = ("learned", "photos", "model", "measured_on")
        found = [[*map(row.get, keys), row] for row in csv.DictReader(lines)]
    return {(learned, int(photos), model, world): row for learned, photos, model, world, row in found}


def table(figures: Figures, world: str) -> str:
    """Return as Markdown what learning photos of a world gives on others of it, and on other worlds where measured."""
    learned = {key: row for key, row in figures.items() if key[0] == world}
    worlds = [world, *sorted({key[3] for key in learned} - {world})]
    images = {each: int(figures["", 0, "shipped", each]["images"]) for each in worlds}
    headings = ["photos learned", f"`adapt`, on {images[world]:,} others of {world}", "time"]
    headings += ["from scratch", "nearest photo", *(f"`adapt`, on {images[one]:,} of {one}" for one in worlds[1:])]
    rows = [headings, ["---"] * len(headings)]
    for photos in [0, *sorted({key[1] for key in learned})]:
        key = (world, photos, "adapt") if photos else ("", 0, "shipped")
        ours, *others = (figures.get((*key, each)) for each in worlds)
        rivals = [figures.get((world, photos, model, world)) for model in ("scratch", "nearest")]
        shown = [f"{photos:,}" if photos else "none: the shipped model", _score(ours), _time(ours)]
        rows.append([*shown, *(_score(one).split(" ")[0] for one in rivals), *map(_score, others)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def in_words(figures: Figures) -> list[str]:
    """Return what it changes on photos of another world than the shipped model knows, for who never heard of CIDEr."""
    before = figures["", 0, "shipped", ANOTHER_WORLD]
    said = [
        f"It can learn others. How well its captions of {before['images']} photos of another world ({ANOTHER_WORLD}), "
        f"all new to it, agree with people's (CIDEr): {before['cider']} now, and"
    ]
    for photos in SIZES:
        after = figures[ANOTHER_WORLD, photos, "adapt", ANOTHER_WORLD]
        gain = float(after["cider"]) / float(before["cider"]) - 1
        words = f"{100 * abs(gain):.0f} % {'better' if gain > 0 else 'worse'}"
        words = words if abs(gain) >= NOTICED else "no change to notice"
        time = f", in {_time(after)}" if after["seconds"] else ""
        said.append(f"  {after['cider']}  after it learned {photos:,} of that world{time}: {words}")
    return said


def _score(row: Mapping[str, str] | None) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*(float(row[name]) for name in ("cider", "low", "high"))) if row else NONE


def _time(row: Mapping[str, str] | None) -> str:
    seconds = float(row["seconds"] or 0) if row else 0
    if not seconds:
        return NONE
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
