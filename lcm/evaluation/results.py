"""Results image by image: what was written, what people wrote, and how it scored.

Knows how results are kept and which of them show what a model can and cannot do. Refuses to know how figures are drawn.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lcm.captioning.tagging import Tag
from lcm.data.captions import LabelledImage
from lcm.evaluation.metrics import Scores, score
from lcm.evaluation.pages import PagePhoto, evenly
from lcm.evaluation.pictures import GalleryItem


@dataclass(frozen=True)
class ImageResult:
    """One held-out image."""

    image_id: str
    path: str
    caption: str
    references: tuple[str, ...]
    scores: dict[str, float | None]  # metric -> value
    english_captions: tuple[str, ...]  # the sentences that the tags were made from; the first is the caption
    tags: tuple[Tag, ...]
    confidence: float | None = None  # of the caption, where the model's is calibrated


def best_of(captions: Sequence[Sequence[str]]) -> list[str]:
    """Return the best caption of each image: its first."""
    return [best for best, *_ in captions]


def collect_results(
    images: Sequence[LabelledImage],
    captions: Sequence[Sequence[str]],
    tags: Sequence[tuple[Tag, ...]],
    scores: Scores,
    confidences: Sequence[float] | None = None,
) -> list[ImageResult]:
    """Return one result an image, in the order of `images`; `scores` and `confidences` are of the best captions."""
    sure = confidences if confidences is not None else [None] * len(images)
    return [
        ImageResult(
            image.image_id,
            str(image.path),
            written[0],
            image.captions,
            {name: values[place] for name, values in scores.per_image.items()},
            tuple(written),
            tuple(its_tags),
            confidence,
        )
        for place, (image, written, its_tags, confidence) in enumerate(zip(images, captions, tags, sure, strict=True))
    ]


def pick_page(results: Sequence[ImageResult], count: int) -> list[PagePhoto]:
    """Return `count` results, evenly spaced along the split, for a page with their tags."""
    picked = (results[place] for place in evenly(count, len(results)))
    return [PagePhoto(one.path, one.english_captions, one.tags, one.confidence) for one in picked]


def save_results(results: Sequence[ImageResult], path: Path) -> None:
    """Write one JSON object a line; it holds the data set's captions, so it stays out of git."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def pick_gallery(results: Sequence[ImageResult], metric: str, count: int) -> list[tuple[str, list[GalleryItem]]]:
    """Return the `count` best, median and worst results by a metric of which more is better, as rows of a gallery.

    Images without a value are left out; where there are few, an image can stand in more than one row.
    """
    ranked = sorted((one for one in results if one.scores.get(metric) is not None), key=lambda one: -one.scores[metric])
    middle = max(0, (len(ranked) - count) // 2)
    rows = {"Best": ranked[:count], "Median": ranked[middle : middle + count], "Worst": ranked[-count:]}
    return [
        (title, [GalleryItem(Path(one.path), one.caption, one.references, one.scores[metric]) for one in row])
        for title, row in rows.items()
    ]


def score_control(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """Score each caption against the image half the set away: what a captioner gets that ignores the image.

    Returns `cider_shuffled`, `wer_shuffled` and `wer_best_shuffled`.
    """
    half = len(captions) // 2
    scores = score([*captions[half:], *captions[:half]], references, meteor=False)
    return {
        "cider_shuffled": scores.cider,
        "wer_shuffled": scores.wer,
        "wer_best_shuffled": scores.wer_best,
    }
