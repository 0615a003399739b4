"""The example photos: where the shipped model is right and where not, and what learning a few photos changes.

    python -m benchmarks.examples

A caption is right here when a person used each of its content words (lcm.evaluation.calibration), which is strict.
"""

import csv
from pathlib import Path

from benchmarks import adapting
from lcm.captioning.captioner import SHIPPED, load_captioner
from lcm.evaluation.calibration import is_right

EXAMPLES = Path(__file__).parent.parent / "reports" / "examples"


def judge(folder: Path = EXAMPLES) -> dict[str, list[str]]:
    """Return the lines to show, under "right" and "wrong": the photo, the model's caption and a person's."""
    captioner, judged = load_captioner(SHIPPED), {"right": [], "wrong": []}
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            caption = captioner.describe(folder / row["image"], samples=0).caption
            outcome = "right" if is_right(caption, [row["caption"]]) else "wrong"
            judged[outcome].append(f"{row['image']}: {caption}. A person: {row['caption']}")
    return judged


if __name__ == "__main__":
    print("\nThe shipped model has seen 6,000 photos, mostly of people and dogs. Of the photos above:")
    for outcome, lines in judge().items():
        print(*(f"  {outcome}  {line}" for line in lines), sep="\n")
    print(*adapting.in_words(adapting.read()), sep="\n")
    print("Yours, in a folder with a file of their captions: lcm run --params adapt -p data_dir photos")
