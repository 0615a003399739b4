"""Captioners side by side: run on the same images, each in its own process, scored, and every pair compared.

CIDEr and both WER are means over images; BLEU-4 is of the set, its images drawn anew; METEOR of a set cannot be had
from its images and has no interval. An image without a usable reference is skipped for all, an empty caption is the
worst there is; below two scored images there are no intervals. comparison.jsonl holds captions and paths of the data
set, and stays out of git where that may not be published; metrics.json and comparison.json hold numbers alone.
"""

import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import combinations
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import Captioner, SeenImage
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import ENGLISH
from lcm.errors import BadImageError, ConfigError
from lcm.evaluation.bootstrap import Interval, bootstrap
from lcm.evaluation.gallery import evenly
from lcm.evaluation.metrics import Scores, bleu, firsts, measure_degeneration, score_several, signs_of_degeneration
from lcm.features.cache import find_features, open_store
from lcm.paths import RunDir

MEASURES = ("wer", "cider", "bleu_4", "wer_best")  # have an interval; the first is the headline
SMALLER_IS_BETTER = ("wer", "wer_best")


@dataclass(frozen=True)
class CaptionerOutput:
    """What a captioner wrote, and what it cost."""

    name: str  # as reports call it, unlike any other's
    captions: Sequence[str]  # the best of each image, in the order of the images
    note: str = ""  # what one should know of it
    # `peak_memory_mb` of its process, `seconds_median` and `seconds_p95` of one photo alone, of `seconds_photos`
    costs: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """How much the first captioner's value exceeds the second's, over the same images."""

    measure: str
    first: str
    second: str

    @property
    def better(self) -> str | None:
        """The captioner of the better score; None where the interval does not tell the two apart."""
        if not self.tells_apart:
            return None
        return self.first if (self.value < 0) == (self.measure in SMALLER_IS_BETTER) else self.second


@dataclass(frozen=True)
class Comparison:
    """All captioners on the same images."""

    record: Mapping[str, Any]  # all numbers, as comparison.json has them: no caption, no image and no path is in it
    rows: Sequence[Mapping[str, Any]]  # of each image, as comparison.jsonl has it: what people and captioners wrote
    differences: Sequence[Difference]  # every pair, in the order given, of every measure that both have
    signs: Mapping[str, Sequence[str]]  # of each captioner in words, that its output is degenerate; none: it is not

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """Each captioner's numbers, flat as in metrics.json, in the order given."""
        return self.record["models"]

    def ranked(self, metric: str, degenerate_last: bool = True) -> list[str]:
        """Return the captioners, the best by a metric first; those without a value and degenerate ones last."""

        def key(name: str) -> tuple[bool, float]:
            value = self.models[name][metric]
            place = inf if value is None else value if metric in SMALLER_IS_BETTER else -value
            return degenerate_last and bool(self.signs[name]), place

        return sorted(self.models, key=key)

    def difference(self, measure: str, one: str, other: str) -> Difference | None:
        """Return how two captioners differ by a measure; None where it could not be measured."""
        pair = {one, other}
        return next((it for it in self.differences if it.measure == measure and {it.first, it.second} == pair), None)

    def as_metrics(self) -> dict[str, float | str]:
        """Return what metrics.json gets: who was compared, and who is best; the numbers are in comparison.json."""
        flat = {"compared": ", ".join(self.models), "not_run": ", ".join(self.record["not_run"])}
        flat["compared_images"] = self.record["images"]
        for metric in ("wer", "cider"):
            best = self.ranked(metric)[0]
            is_one = self.models[best][metric] is not None and not self.signs[best]
            flat[f"best_by_{metric}"] = best if is_one else ""
        return flat


def compare(
    outputs: Sequence[CaptionerOutput],
    images: Sequence[LabelledImage],
    *,
    not_run: Mapping[str, str] | None = None,
    **options,
) -> Comparison:
    """Score every captioner's output against the human captions of each image, and compare all pairs.

    `not_run` names captioners that could not be run, with the reason; options and errors are those of `score_several`.
    """
    references, language = [image.captions for image in images], images[0].language if images else ENGLISH
    scored = score_several([one.captions for one in outputs], references, language=language, **options)
    drawn = [_scores_of_drawn(scores) for scores in scored]
    signs = {one.name: signs_of_degeneration(one.captions, references, language=language) for one in outputs}
    models: dict[str, dict] = {}
    for one, scores, its in zip(outputs, scored, drawn, strict=True):
        flat = {"note": one.note} | scores.as_metrics() | measure_degeneration(one.captions, language) | one.costs
        flat["degenerate"] = int(bool(signs[one.name]))
        for measure in filter(its.__contains__, MEASURES):
            flat |= bootstrap(its[measure], scores.images).as_metrics(measure)
        models[one.name] = flat
    rows = [
        {"image_id": image.image_id, "path": str(image.path), "references": image.captions, "captioners": {}}
        for image in images
    ]
    for one, scores in zip(outputs, scored, strict=True):
        for place, row in enumerate(rows):
            its = {name: values[place] for name, values in scores.per_image.items()}
            row["captioners"][one.name] = {"caption": one.captions[place]} | its
    differences = list(_differences([*models], drawn, scored[0].images))
    fields = ("measure", "first", "second", "value", "low", "high")
    record = {
        "images": scored[0].images,
        "skipped_images": scored[0].skipped_images,
        "models": models,
        "differences": [{name: getattr(one, name) for name in fields} for one in differences],
        "people": measure_degeneration(firsts(references), language),  # the yardstick
        "not_run": not_run or {},
    }
    return Comparison(record, rows, differences, signs)


Score = Callable[[np.ndarray], np.ndarray]  # as bootstrap takes it: places [..., B] of images drawn -> scores [...]


def _scores_of_drawn(scores: Scores) -> dict[str, Score]:
    """Return, by measure, what a captioner scores on images drawn from those scored; nothing of too few images."""
    if scores.images < 2:
        return {}
    found = {name: np.array([value for value in its if value is not None]) for name, its in scores.per_image.items()}
    means = {name: lambda places, its=its: its[places].mean(axis=-1) for name, its in found.items()}
    return means | {"bleu_4": lambda places: bleu(scores.bleu_counts[places].sum(axis=-2))[..., -1]}


def _differences(names: Sequence[str], drawn: Sequence[Mapping[str, Score]], images: int) -> Iterator[Difference]:
    for measure in MEASURES:
        having = [(name, its[measure]) for name, its in zip(names, drawn, strict=True) if measure in its]
        for (first, ours), (second, theirs) in combinations(having, 2):
            interval = bootstrap(lambda places, a=ours, b=theirs: a(places) - b(places), images)
            yield Difference(**vars(interval), measure=measure, first=first, second=second)


def save_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSON object a line; it holds the data set's captions, so it stays out of git."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def save_record(comparison: Comparison, data: str, split: str, path: Path) -> None:
    """Write all numbers, no caption and no image, as JSON that may be published."""
    record = {"data": data, "split": split} | comparison.record
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


DIED = "its process ended before its time, mostly for want of memory; what it said last is in the run's notebook"


def held_out_images(dataset: Dataset, split: str, language: str, count: int = 0) -> list[LabelledImage]:
    """Return the images of a split with captions in `language`, and the contributed ones that test, whatever the split.

    With a count, only so many of them, evenly spaced.
    """
    contributed = [image for image in dataset.of("test", language) if image.is_contributed]
    images = [image for image in dataset.of(split, language) if not image.is_contributed] + contributed
    return [images[place] for place in evenly(count or len(images), len(images))]


def languages_left_out(dataset: Dataset, split: str, language: str) -> str:
    """Return the other languages that images like `held_out_images` have captions in, as "fr 934, de 1000"."""
    others = dict.fromkeys(image.language for image in dataset.images if image.language != language)
    counts = {code: len(held_out_images(dataset, split, code)) for code in others}
    return ", ".join(f"{code} {count}" for code, count in counts.items() if count)


def parse_captioners(text: str, run_dir: str) -> dict[str, str]:
    """Return name -> captioner as load_captioner takes it, from "NAME=CAPTIONER, CAPTIONER, …".

    Without a name, a captioner is its own. In the run of `run_dir`, `trained` is the bundle that it has trained, and
    `nearest` alone searches its train images. Raises ConfigError for an empty list, or two captioners of one name.
    """
    own = {"trained": f"bundle:{RunDir(Path(run_dir)).bundle}", "nearest": f"nearest:{run_dir}"}
    named: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, spec = (side.strip() for side in (part.partition("=") if "=" in part else (part, "", part)))
        if not (name and spec):
            raise ConfigError(f"captioners holds {part!r}; write NAME=CAPTIONER, such as mine=reports/runs/mine/bundle")
        if name in named:
            raise ConfigError(f"captioners holds {name!r} twice; give each another name: NAME=CAPTIONER")
        named[name] = own.get(spec, spec)
    if not named:
        raise ConfigError("captioners is empty; name at least one, such as trained, nearest or blip")
    return named


def run_captioners(
    captioners: Mapping[str, str], images: Sequence[LabelledImage], timed: int
) -> tuple[list[CaptionerOutput], dict[str, str]]:
    """Caption the images with each captioner, and time each on the first `timed`; returns outputs, and who has none.

    One that cannot be loaded, or dies, is left out: its name -> the reason. Raises ConfigError when none is left.
    """
    photos, language = [image.path for image in images], images[0].language if images else ""
    outputs, not_run = [], {}
    for name, spec in captioners.items():
        try:
            # Not a forked process, which would hold this one's memory, and its threads.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                outputs.append(pool.submit(caption_and_time, name, spec, photos, timed, language).result())
        except Exception as error:  # whatever it is, the others are compared
            not_run[name] = DIED if isinstance(error, BrokenProcessPool) else str(error) or repr(error)
            print(f"{name} is left out: {not_run[name]}", file=sys.stderr)
    if not outputs:
        reasons = "\n".join(f"{name}: {why}" for name, why in not_run.items())
        raise ConfigError(f"none of the captioners could be run:\n{reasons}")
    return outputs, not_run


def caption_and_time(name: str, spec: str, photos: list[Path], timed: int, language: str = "") -> CaptionerOutput:
    """Caption all photos, and time some; raises LcmError where the captioner cannot be loaded."""
    captioner = load_captioner(spec)
    captions, seconds = caption_photos(captioner, photos, name, language), []
    for photo in photos[:timed]:  # warm by now
        started = time.perf_counter()
        next(captioner.describe_many([photo], samples=0))
        seconds.append(time.perf_counter() - started)
    median, p95 = np.quantile(seconds, (0.5, 0.95)).tolist() if seconds else (None, None)
    costs = {"seconds_median": median, "seconds_p95": p95, "seconds_photos": len(seconds)}
    note = "" if captioner.name == name else captioner.name
    return CaptionerOutput(name, captions, note, costs | {"peak_memory_mb": _peak_memory_mb()})


def caption_photos(captioner: Captioner, photos: Sequence[Path], name: str, language: str = "") -> list[str]:
    """Return the caption of each photo in `language` or the captioner's first; empty where it cannot be read."""
    # 01_prepare may have encoded the photos for it
    stores = {kind: open_store(captioner.encoder, kind) for kind in captioner.feature_kinds}
    features = (find_features(photo, stores) if stores else None for photo in photos)
    seen = (SeenImage(photo, None, known) if known else photo for photo, known in zip(photos, features, strict=True))
    language = language if language in captioner.languages else ""
    answers = captioner.describe_many(seen, samples=0, workers=0, language=language)
    shown = tqdm(answers, name, len(photos), unit=" photos")
    return ["" if isinstance(answer, BadImageError) else answer.caption for _, answer in shown]


def _peak_memory_mb() -> float | None:
    """Return the most memory that this process has held, in MB of 10**6 bytes, where Linux tells.

    Not as `resource` has it: there, a new process begins with the memory of the one that started it.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 / 1e6 if found else None
