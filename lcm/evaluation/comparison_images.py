"""A comparison image by image: where captioners disagree, who is best how often, a table for one's own analysis.

Knows what a disagreement is: the range of an image's CIDEr from its worst captioner to its best, so that the images
come first on which the choice of captioner matters. Refuses to know how it is shown. What it gives holds captions and
paths of the data set: it stays out of git where the data set may not be published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lcm.data.captions import LabelledImage
from lcm.errors import DataError, require
from lcm.evaluation.captioner_result import smaller_is_better
from lcm.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Said:
    """What a captioner said of an image, and how it scored."""

    name: str
    caption: str
    score: float


@dataclass(frozen=True)
class Disagreement:
    """An image with what each captioner said of it, in the order compared."""

    image: Path
    said: tuple[Said, ...]
    references: tuple[str, ...]
    spread: float  # the highest score less the lowest


def image_metric(comparison: Comparison) -> str:
    """Return what images are told apart by: CIDEr, or WER where CIDEr could not be measured."""
    return "cider" if all("cider" in result.scores.per_image for result in comparison.results) else "wer"


def disagreements(comparison: Comparison, images: Sequence[LabelledImage], count: int) -> list[Disagreement]:
    """Return the `count` images with the widest range of scores, the widest first; none where all score the same.

    Raises DataError when `images` are not as many as were compared.
    """
    _check(comparison, images)
    metric = image_metric(comparison)
    found = []
    for place, image in enumerate(images):
        scores = [result.scores.per_image.get(metric, [None] * len(images))[place] for result in comparison.results]
        if None not in scores and max(scores) > min(scores):
            said = tuple(
                Said(result.name, result.output.captions[place], its)
                for result, its in zip(comparison.results, scores, strict=True)
            )
            references = tuple(comparison.references[place])
            found.append(Disagreement(image.path, said, references, max(scores) - min(scores)))
    return sorted(found, key=lambda one: -one.spread)[:count]


def shares_best(comparison: Comparison) -> dict[str, float]:
    """Return the share of the images on which each captioner has the best score; equals all count, empty of none."""
    metric = image_metric(comparison)
    lists = {result.name: result.scores.per_image.get(metric, []) for result in comparison.results}
    rows = [row for row in zip(*lists.values(), strict=True) if None not in row]
    if not rows:
        return {}
    best = min if smaller_is_better(metric) else max
    return {name: sum(row[place] == best(row) for row in rows) / len(rows) for place, name in enumerate(lists)}


def save_per_image(comparison: Comparison, images: Sequence[LabelledImage], path: Path) -> Path:
    """Write a parquet file with a row for each image and captioner; returns the path.

    Columns: image_id, path, captioner, caption, references (a list), and every score of an image that any captioner
    has: null where the image has no usable reference.
    Raises DataError when `images` are not as many as were compared, ConfigError when pyarrow is missing.
    """
    _check(comparison, images)
    arrow = require("pyarrow", "evaluate")
    names = list(dict.fromkeys(name for result in comparison.results for name in result.scores.per_image))
    rows = [
        {
            "image_id": image.image_id,
            "path": str(image.path),
            "captioner": result.name,
            "caption": result.output.captions[place],
            "references": list(comparison.references[place]),
            **{
                name: result.scores.per_image[name][place] if name in result.scores.per_image else None
                for name in names
            },
        }
        for result in comparison.results
        for place, image in enumerate(images)
    ]
    texts = dict.fromkeys(("image_id", "path", "captioner", "caption"), arrow.string())
    kinds = texts | {"references": arrow.list_(arrow.string())} | dict.fromkeys(names, arrow.float64())
    path.parent.mkdir(parents=True, exist_ok=True)
    table = arrow.Table.from_pylist(rows, arrow.schema(kinds.items()))
    require("pyarrow.parquet", "evaluate").write_table(table, path)
    return path


def _check(comparison: Comparison, images: Sequence[LabelledImage]) -> None:
    if len(images) != len(comparison.references):
        raise DataError(f"{len(images)} images for a comparison of {len(comparison.references)}; give those compared")
