"""Captioners side by side: run on the same images, each in its own process, scored, and every pair compared.

Intervals are 95 % bootstrap intervals over images (`lcm.evaluation.bootstrap`). CIDEr and both WER are means over
images; BLEU-4 is of the set, its images drawn anew; METEOR of a set cannot be had from its images and has no interval.
Differences are paired: both captioners on the same drawn images. They say nothing of another training run.

Edge cases: an image without a usable reference is skipped for all; an empty caption counts, as the worst there is;
below two scored images there are scores and no intervals.

comparison.jsonl holds captions and paths of the data set, and stays out of git where that may not be published;
metrics.json and comparison.json hold numbers alone.
"""

import json
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import Captioner, SeeingCaptioner, SeenImage
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import ENGLISH
from lcm.errors import BadImageError, ConfigError, LcmError
from lcm.evaluation.bootstrap import Interval, bootstrap
from lcm.evaluation.gallery import evenly
from lcm.evaluation.metrics import (
    Scores,
    bleu,
    firsts,
    measure_degeneration,
    score_several,
    signs_of_degeneration,
)
from lcm.features.cache import find_features, open_store
from lcm.paths import RunDir

MEASURES = ("wer", "cider", "bleu_4", "wer_best")  # have an interval; the first is the headline
SMALLER_IS_BETTER = ("wer", "wer_best")


@dataclass(frozen=True)
class CaptionerOutput:
    """What a captioner wrote, and what it cost."""

    name: str  # as reports call it, unlike any other's
    captions: Sequence[str]  # the best of each image, in the order of the images
    seconds: Sequence[float] = ()  # time of one photo alone, of some photos
    peak_memory_mb: float | None = None  # of the process that captioned
    note: str = ""  # what one should know of it


@dataclass(frozen=True, kw_only=True)
class CaptionerResult(CaptionerOutput):
    """And how good it is."""

    scores: Scores
    degeneration: Mapping[str, float | str | None]  # see measure_degeneration
    signs: Sequence[str]  # in words, that its output is degenerate; none: it is not
    intervals: Mapping[str, Interval]  # of MEASURES; one that could not be measured is missing

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return every number, no caption: `<measure>_low` and `_high` are the ends of an interval, where there is one.

        A score that was not measured is None, and `<name>_reason` says why.
        """
        flat = self.scores.as_metrics() | self.degeneration | self.costs()
        flat["degenerate"] = int(bool(self.signs))
        for name, its in self.intervals.items():
            flat |= its.as_metrics(name)
        return flat

    def costs(self) -> dict[str, float | None]:
        """Return `seconds_median`, `seconds_p95`, `seconds_photos` that were timed, and `peak_memory_mb`."""
        median, p95 = np.quantile(self.seconds, (0.5, 0.95)).tolist() if len(self.seconds) else (None, None)
        times = {"seconds_median": median, "seconds_p95": p95, "seconds_photos": len(self.seconds)}
        return times | {"peak_memory_mb": self.peak_memory_mb}


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

    results: tuple[CaptionerResult, ...]  # in the order given
    images: Sequence[LabelledImage]
    differences: tuple[Difference, ...]  # every pair, in the order given, of every measure that both have
    people: Mapping[str, float | str | None]  # degeneration of the first reference of each image: the yardstick
    not_run: Mapping[str, str]  # name -> why it could not be run

    @property
    def scored_images(self) -> int:
        """Images that have a usable reference; the others are skipped."""
        return self.results[0].scores.images

    def ranked(self, metric: str, degenerate_last: bool = True) -> list[CaptionerResult]:
        """Return the results, the best by a metric of Scores first; those without a value and degenerate ones last."""

        def key(result: CaptionerResult) -> tuple[bool, float]:
            value = getattr(result.scores, metric)
            place = inf if value is None else value if metric in SMALLER_IS_BETTER else -value
            return degenerate_last and bool(result.signs), place

        return sorted(self.results, key=key)

    def best(self, metric: str) -> list[str]:
        """Return who is best by a metric of Scores: several where they are equal; none of degenerate output."""
        best = getattr(self.ranked(metric)[0].scores, metric)
        values = {result.name: getattr(result.scores, metric) for result in self.results if not result.signs}
        return [name for name, value in values.items() if value is not None and abs(value - best) <= 1e-12]

    def difference(self, measure: str, one: str, other: str) -> Difference | None:
        """Return how two captioners differ by a measure; None where it could not be measured."""
        pair = {one, other}
        return next((it for it in self.differences if it.measure == measure and {it.first, it.second} == pair), None)

    def as_metrics(self) -> dict[str, float | str]:
        """Return what metrics.json gets: who was compared, and who is best; the numbers are in comparison.json."""
        flat = {"compared": ", ".join(result.name for result in self.results), "not_run": ", ".join(self.not_run)}
        flat["compared_images"] = self.scored_images
        return flat | {f"best_by_{metric}": ", ".join(self.best(metric)) for metric in ("wer", "cider")}

    def as_record(self) -> dict[str, Any]:
        """Return all numbers for a JSON file that may be published: no caption, no image and no path is in it."""
        return {
            "images": self.scored_images,
            "skipped_images": len(self.images) - self.scored_images,
            "models": {r.name: {"note": r.note} | r.as_metrics() for r in self.results},
            "differences": [
                {name: getattr(one, name) for name in ("measure", "first", "second", "value", "low", "high")}
                for one in self.differences
            ],
            "people": self.people,
            "not_run": self.not_run,
        }


def compare(
    outputs: Sequence[CaptionerOutput],
    images: Sequence[LabelledImage],
    *,
    not_run: Mapping[str, str] | None = None,
    **options,
) -> Comparison:
    """Score every captioner's output against the human captions of each image, and compare all pairs.

    `not_run` names captioners that could not be run, with the reason; options are those of `score_several`. Raises
    DataError where one has not a caption an image.
    """
    references, language = [image.captions for image in images], images[0].language if images else ENGLISH
    scored = score_several([one.captions for one in outputs], references, language=language, **options)
    drawn = [_scores_of_drawn(scores) for scores in scored]
    results = [
        CaptionerResult(
            **vars(one),
            scores=scores,
            degeneration=measure_degeneration(one.captions, language),
            signs=signs_of_degeneration(one.captions, references, language=language),
            intervals={measure: bootstrap(its[measure], scores.images) for measure in MEASURES if measure in its},
        )
        for one, scores, its in zip(outputs, scored, drawn, strict=True)
    ]
    differences = _differences([one.name for one in outputs], drawn, scored[0].images)
    people = measure_degeneration(firsts(references), language)
    return Comparison(tuple(results), images, tuple(differences), people, not_run or {})


Score = Callable[[np.ndarray], np.ndarray]  # as bootstrap takes it: places [..., B] of images drawn -> scores [...]


def _scores_of_drawn(scores: Scores) -> dict[str, Score]:
    """Return, by measure, what a captioner scores on images drawn from those scored; nothing of too few images."""
    if scores.images < 2:
        return {}

    def mean_of(name: str) -> Score:
        values = np.array([value for value in scores.per_image[name] if value is not None])
        return lambda places: values[places].mean(axis=-1)

    found = {name: mean_of(name) for name in MEASURES if name in scores.per_image}
    return found | {"bleu_4": lambda places: bleu(scores.bleu_counts[places].sum(axis=-2))[..., -1]}


def _differences(names: Sequence[str], drawn: Sequence[Mapping[str, Score]], images: int) -> Iterator[Difference]:
    for measure in MEASURES:
        having = [(name, its[measure]) for name, its in zip(names, drawn, strict=True) if measure in its]
        for (first, ours), (second, theirs) in combinations(having, 2):
            interval = bootstrap(lambda places, a=ours, b=theirs: a(places) - b(places), images)
            yield Difference(**vars(interval), measure=measure, first=first, second=second)


def caption_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield what comparison.jsonl has of each image: people's captions, and each captioner's with its scores."""
    for place, image in enumerate(comparison.images):
        said = {
            result.name: {"caption": result.captions[place]}
            | {name: its[place] for name, its in result.scores.per_image.items()}
            for result in comparison.results
        }
        known = {"image_id": image.image_id, "path": str(image.path), "references": image.captions}
        yield known | {"captioners": said}


def save_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSON object a line; it holds the data set's captions, so it stays out of git."""
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def save_record(comparison: Comparison, data: str, split: str, path: Path) -> None:
    """Write all numbers, no caption and no image, as JSON that may be published."""
    record = {"data": data, "split": split} | comparison.as_record()
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


WARM_UP = 3  # photos before the clock counts
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

    One that cannot be loaded, or dies, is left out: its name -> the reason. A photo that a captioner cannot read has
    an empty caption. Raises ConfigError when no captioner is left.
    """
    photos, outputs, not_run = [image.path for image in images], [], {}
    for name, spec in captioners.items():
        try:
            outputs.append(_run(name, spec, photos, timed, images[0].language if images else ""))
        except LcmError as error:
            not_run[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not outputs:
        reasons = "\n".join(f"{name}: {why}" for name, why in not_run.items())
        raise ConfigError(f"none of the captioners could be run:\n{reasons}")
    return outputs, not_run


def _run(name: str, spec: str, photos: list[Path], timed: int, language: str) -> CaptionerOutput:
    """Run one captioner in its own process; raises LcmError with what it said when it could not."""
    context = multiprocessing.get_context("spawn")  # a forked copy would hold this process's memory, and its threads
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=caption_and_time, args=(theirs, name, spec, photos, timed, language), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:  # the other process has ended
        answer = LcmError(DIED)
    process.join()
    if isinstance(answer, LcmError):
        raise answer
    return answer


def caption_and_time(
    connection: Connection, name: str, spec: str, photos: list[Path], timed: int, language: str = ""
) -> None:
    """Caption all photos, time some, and send the output, or the error that a captioner could not be loaded by."""
    try:
        captioner = load_captioner(spec)
        seconds = []
        for photo in [*photos[:WARM_UP], *photos[:timed]]:
            started = time.perf_counter()
            next(captioner.describe_many([photo], samples=0))
            seconds.append(time.perf_counter() - started)
        captions = caption_photos(captioner, photos, name, language)
        note = "" if captioner.name == name else captioner.name
        answer = CaptionerOutput(name, captions, seconds[len(photos[:WARM_UP]) :], _peak_memory_mb(), note)
    except LcmError as error:
        answer = error
    connection.send(answer)


def caption_photos(captioner: Captioner, photos: Sequence[Path], name: str, language: str = "") -> list[str]:
    """Return the caption of each photo, empty where it cannot be read, under a progress bar of this name.

    In its first language where the captioner does not write `language`.
    """
    language = language if language in captioner.languages else ""
    seen = with_known_features(captioner, photos)
    answers = captioner.describe_many(seen, samples=0, workers=0, language=language)
    shown = tqdm(answers, name, len(photos), unit=" photos")
    return ["" if isinstance(answer, BadImageError) else answer.caption for _, answer in shown]


def with_known_features(captioner: Captioner, photos: Sequence[Path]) -> Iterator[Path | SeenImage]:
    """Yield the photos, each with the features that 01_prepare has encoded for this captioner, if it has."""
    stores = {}
    if isinstance(captioner, SeeingCaptioner):
        stores = {kind: open_store(captioner.encoder, kind) for kind in captioner.feature_kinds}
    for photo in photos:
        features = find_features(photo, stores) if stores else None
        yield photo if features is None else SeenImage(photo, None, features)


def _peak_memory_mb() -> float:
    """Return the most memory that this process has held, in MB of 10**6 bytes.

    Not ru_maxrss where /proc is: on Linux, a new process begins with that of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
