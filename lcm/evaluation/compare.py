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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from lcm.captioning.captioner import bundle_folder, current_folder, load_captioner, models_folder
from lcm.captioning.description import Captioner, SeeingCaptioner, SeenImage
from lcm.captioning.model_card import add_comparison
from lcm.data.dataset import Dataset, LabelledImage
from lcm.errors import BadImageError, ConfigError, DataError, LcmError
from lcm.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_mean, bootstrap_statistic
from lcm.evaluation.gallery import evenly
from lcm.evaluation.metrics import Degeneration, Scores, bleu_4, measure_degeneration, score_several
from lcm.features.cache import find_features, open_store
from lcm.paths import RunDir

# What has an interval -> its list in Scores.per_image; None: counts of the whole set. The first is the headline.
MEASURES = {"wer": "wer", "cider": "cider", "bleu_4": None, "wer_best": "wer_best"}


def smaller_is_better(metric: str) -> bool:
    """Return whether less of a metric is better: of the word error rates."""
    return metric.startswith("wer")


@dataclass(frozen=True)
class CaptionerOutput:
    """What a captioner wrote, and what it cost."""

    name: str  # as reports call it, unlike any other's
    captions: Sequence[str]  # the best of each image, in the order of the references
    seconds: Sequence[float] = ()  # time of one photo alone, of some photos
    peak_memory_mb: float | None = None  # of the process that captioned
    note: str = ""  # what one should know of it


@dataclass(frozen=True)
class CaptionerResult:
    """How good a captioner's output is."""

    output: CaptionerOutput
    scores: Scores
    degeneration: Degeneration
    intervals: Mapping[str, Interval]  # by the names of MEASURES; one that could not be measured is missing

    @property
    def name(self) -> str:
        """The captioner's name."""
        return self.output.name

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return every number, no caption: `<measure>_low` and `_high` are the ends of an interval, where there is one.

        A score that was not measured is None, and `<name>_reason` says why.
        """
        flat = self.scores.as_metrics() | self.degeneration.as_metrics() | self.costs()
        for name, its in self.intervals.items():
            flat |= {name: its.value, f"{name}_low": its.low, f"{name}_high": its.high}
        return flat

    def costs(self) -> dict[str, float | None]:
        """Return `seconds_median`, `seconds_p95`, `seconds_photos` that were timed, and `peak_memory_mb`."""
        times = np.asarray(self.output.seconds, np.float64)
        median, p95 = np.quantile(times, (0.5, 0.95)).tolist() if len(times) else (None, None)
        peak = self.output.peak_memory_mb
        return {"seconds_median": median, "seconds_p95": p95, "seconds_photos": len(times), "peak_memory_mb": peak}


@dataclass(frozen=True)
class Difference:
    """How much the first captioner's value exceeds the second's, over the same images."""

    measure: str
    first: str
    second: str
    interval: Interval  # first minus second

    @property
    def better(self) -> str | None:
        """The better captioner; None where the interval holds zero: it may be an accident of the images."""
        if self.interval.holds_zero:
            return None
        return self.first if (self.interval.value < 0) == smaller_is_better(self.measure) else self.second


@dataclass(frozen=True)
class Comparison:
    """All captioners on the same images."""

    results: tuple[CaptionerResult, ...]  # in the order given
    references: Sequence[Sequence[str]]
    differences: tuple[Difference, ...]  # every pair, in the order given, of every measure that both have
    people: Degeneration  # of the first reference of each image: the yardstick
    not_run: Mapping[str, str] = field(default_factory=dict)  # name -> why it could not be run

    @property
    def images(self) -> int:
        """Images scored."""
        return self.results[0].scores.images

    @property
    def skipped_images(self) -> int:
        """Images without a usable reference."""
        return self.results[0].scores.skipped_images

    def ranked(self, metric: str) -> list[CaptionerResult]:
        """Return the results, the best by a metric of Scores first; those without a value come last."""
        sign = 1 if smaller_is_better(metric) else -1
        values = {result.name: getattr(result.scores, metric) for result in self.results}
        worst = float("inf")
        return sorted(self.results, key=lambda one: worst if values[one.name] is None else sign * values[one.name])

    def best(self, metric: str) -> list[str]:
        """Return who is best by a metric of Scores: several where they are equal, none where nobody has a value."""
        best = getattr(self.ranked(metric)[0].scores, metric)
        values = {result.name: getattr(result.scores, metric) for result in self.results}
        return [name for name, value in values.items() if value is not None and abs(value - best) <= 1e-12]

    def difference(self, measure: str, first: str, second: str) -> Interval | None:
        """Return how much `first` exceeds `second` by a measure; None where it could not be measured."""
        for one in self.differences:
            its = one.interval
            if (one.measure, one.first, one.second) == (measure, first, second):
                return its
            if (one.measure, one.first, one.second) == (measure, second, first):
                return Interval(-its.value, -its.high, -its.low)
        return None

    def as_metrics(self) -> dict[str, float | str]:
        """Return what metrics.json gets: who was compared, and who is best; the numbers are in comparison.json."""
        flat = {"compared": ", ".join(result.name for result in self.results), "not_run": ", ".join(self.not_run)}
        flat |= {"compared_images": self.images, "compared_skipped_images": self.skipped_images}
        return flat | {f"best_by_{metric}": ", ".join(self.best(metric)) for metric in ("wer", "cider")}

    def as_record(self) -> dict[str, Any]:
        """Return all numbers for a JSON file that may be published: no caption, no image and no path is in it."""
        return {
            "images": self.images,
            "skipped_images": self.skipped_images,
            "models": {r.name: {"note": r.output.note} | r.as_metrics() for r in self.results},
            "differences": [
                {"measure": one.measure, "first": one.first, "second": one.second, **asdict(one.interval)}
                for one in self.differences
            ],
            "people": self.people.as_metrics(),
            "not_run": dict(self.not_run),
        }


def compare(
    outputs: Sequence[CaptionerOutput],
    references: Sequence[Sequence[str]],
    *,
    train_captions: Collection[str] = (),
    vocabulary_size: int | None = None,
    not_run: Mapping[str, str] = MappingProxyType({}),
    meteor: bool = True,
) -> Comparison:
    """Score every captioner's output against the human captions of each image, `references[i]`, and all pairs.

    `train_captions` and `vocabulary_size` are those of `lcm.evaluation.metrics.score`, the same for all; `meteor=False`
    saves ten seconds. `not_run` names captioners that could not be run, with the reason.
    Raises DataError when there is no output, or one has not a caption an image.
    """
    if not outputs:
        reasons = "; ".join(f"{name}: {why}" for name, why in not_run.items())
        raise DataError(f"no captioner to compare; {reasons or 'give at least one'}")
    for one in outputs:
        if len(one.captions) != len(references):
            raise DataError(
                f"{one.name} has {len(one.captions)} captions for {len(references)} images; "
                "give one an image, empty where it wrote none"
            )
    options = {"train_captions": train_captions, "vocabulary_size": vocabulary_size, "meteor": meteor}
    scored = score_several([one.captions for one in outputs], references, **options)
    samples = [_samples(scores) for scores in scored]
    return Comparison(
        results=tuple(
            CaptionerResult(one, scores, measure_degeneration(one.captions), _intervals(its))
            for one, scores, its in zip(outputs, scored, samples, strict=True)
        ),
        references=references,
        differences=tuple(_differences([one.name for one in outputs], samples)),
        people=measure_degeneration([first for first, *_ in filter(None, references)]),
        not_run=dict(not_run),
    )


def _samples(scores: Scores) -> dict[str, np.ndarray]:
    """Return, by measure, values [B] of the scored images, or counts [B, 10] of the set's BLEU; none of too few."""
    if scores.images < 2:
        return {}
    lists = {name: scores.per_image.get(key) for name, key in MEASURES.items()}
    values = {name: np.array([one for one in each if one is not None]) for name, each in lists.items() if each}
    values["bleu_4"] = scores.bleu_counts
    return {name: values[name] for name in MEASURES if name in values}


def _intervals(samples: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    return {
        name: bootstrap_statistic(its, bleu_4) if name == "bleu_4" else bootstrap_mean(its)
        for name, its in samples.items()
    }


def _differences(names: Sequence[str], samples: Sequence[Mapping[str, np.ndarray]]) -> Iterator[Difference]:
    for measure in MEASURES:
        having = [(name, its[measure]) for name, its in zip(names, samples, strict=True) if measure in its]
        for (first, ours), (second, theirs) in combinations(having, 2):
            if measure == "bleu_4":
                interval = bootstrap_statistic(np.hstack([ours, theirs]), _bleu_4_difference)
            else:
                interval = bootstrap_difference(ours, theirs)
            yield Difference(measure, first, second, interval)


def _bleu_4_difference(sums: np.ndarray) -> np.ndarray:
    """Return how much BLEU-4 of the first ten counts exceeds that of the last ten [R], of sums [R, 20]."""
    first, second = np.split(sums, 2, axis=1)
    return bleu_4(first) - bleu_4(second)


def save_captions(comparison: Comparison, images: Sequence[LabelledImage], path: Path) -> None:
    """Write a JSON object a line for each image: people's captions, and each captioner's with its scores."""
    with path.open("w", encoding="utf-8") as lines:
        for place, image in enumerate(images):
            said = {
                result.name: {"caption": result.output.captions[place]}
                | {name: its[place] for name, its in result.scores.per_image.items()}
                for result in comparison.results
            }
            known = {"image_id": image.image_id, "path": str(image.path), "references": image.captions}
            lines.write(json.dumps(known | {"captioners": said}, ensure_ascii=False) + "\n")


def save_record(comparison: Comparison, data: str, split: str, path: Path) -> None:
    """Write all numbers, no caption and no image, as JSON that may be published."""
    record = {"data": data, "split": split} | comparison.as_record()
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


TANTI = "Tanti, Gatt, Camilleri: Where to put the image in an image caption generator (2018)"
XU = "Xu et al.: Show, Attend and Tell (2015)"
ZHOU = "Zhou et al.: Unified Vision-Language Pre-Training for Image Captioning and VQA (2020)"
UNNAMED = "paper not known; its captions are longer than people's"


@dataclass(frozen=True)
class ReportedResult:
    """One row of somebody else's table: BLEU-4, METEOR and CIDEr as fractions; papers print them times 100.

    Nothing of it was run here, and a quoted number can differ from one's own by the images, the split, the tokeniser
    and the encoder, not only by the model. The numbers were copied by hand: check them against their source before they
    are quoted further.
    """

    model: str
    images: str  # the data set and its split
    source: str
    link: str  # of the source; empty: none is known
    bleu_4: float
    meteor: float | None = None  # None: not reported, or not quoted
    cider: float | None = None


FLICKR8K, FLICKR30K = "Flickr8k, test", "Flickr30k, test"
REPORTED_RESULTS = (
    ReportedResult("merge", FLICKR8K, TANTI, "https://doi.org/10.1017/S1351324918000098", 0.178, 0.193, 0.469),
    ReportedResult("soft attention", FLICKR8K, XU, "https://arxiv.org/abs/1502.03044", 0.195, 0.189),
    ReportedResult("hard attention", FLICKR8K, XU, "https://arxiv.org/abs/1502.03044", 0.213, 0.203),
    ReportedResult("a 7B instruction-tuned model, zero-shot", FLICKR8K, UNNAMED, "", 0.156, None, 0.367),
    ReportedResult("merge", FLICKR30K, TANTI, "https://doi.org/10.1017/S1351324918000098", 0.187, None, 0.385),
    ReportedResult("Unified VLP, fine-tuned", FLICKR30K, ZHOU, "https://arxiv.org/abs/1909.11059", 0.301, None, 0.674),
)


WARM_UP = 3  # photos before the clock counts
DIED = "its process ended before its time, mostly for want of memory; what it said last is in the run's notebook"


@dataclass(frozen=True)
class CaptionerRuns:
    """What came of running captioners."""

    images: Sequence[LabelledImage]  # that were captioned
    outputs: Sequence[CaptionerOutput]  # in the order asked
    not_run: Mapping[str, str] = field(default_factory=dict)  # name -> why it has no output

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]


def held_out_images(dataset: Dataset, split: str) -> list[LabelledImage]:
    """Return the images of a split, and the contributed ones that test, whatever the split is."""
    contributed = [image for image in dataset.of("test") if image.is_contributed]
    return [image for image in dataset.of(split) if not image.is_contributed] + contributed


def choose_images(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """Return `count` of the images, evenly spaced; all with 0."""
    return [images[place] for place in evenly(count or len(images), len(images))]


def parse_captioners(text: str, run_dir: str) -> dict[str, str]:
    """Return name -> captioner as load_captioner takes it, from "NAME=CAPTIONER, CAPTIONER, …".

    Without a name, a captioner is its own. In the run of `run_dir`, `trained` is the bundle that it has trained, and
    `nearest` alone searches its train images; `current` is the published version that answers.
    Raises ConfigError for an empty list, and when two captioners have one name.
    """
    own = {
        "trained": f"bundle:{RunDir(Path(run_dir)).bundle}",
        "current": f"bundle:{current_folder(models_folder())}",
        "nearest": f"nearest:{run_dir}",
    }
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


def run_captioners(captioners: Mapping[str, str], images: Sequence[LabelledImage], timed: int) -> CaptionerRuns:
    """Caption the images with each captioner, and time each on the first `timed` of them.

    One that cannot be loaded, or dies, is left out, with the reason. A photo that a captioner cannot read has an empty
    caption. Raises ConfigError when no captioner is left.
    """
    photos, outputs, not_run = [image.path for image in images], [], {}
    for name, spec in captioners.items():
        try:
            outputs.append(_run(name, spec, photos, timed))
        except LcmError as error:
            not_run[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not outputs:
        raise ConfigError(
            "none of the captioners could be run:\n" + "\n".join(f"{n}: {why}" for n, why in not_run.items())
        )
    return CaptionerRuns(images, outputs, not_run)


def update_cards(captioners: Mapping[str, str], comparison: Comparison, split: str) -> list[Path]:
    """Write each compared bundle's own numbers into its model card; returns the bundles' folders.

    One that was measured on another split, or on none, is left as it is: its card holds for one split.
    """
    results = {result.name: result for result in comparison.results}
    folders = {name: bundle_folder(spec) for name, spec in captioners.items() if name in results}
    return [
        folder
        for name, folder in folders.items()
        if folder and add_comparison(folder, results[name].as_metrics(), split)
    ]


def _run(name: str, spec: str, photos: Sequence[Path], timed: int) -> CaptionerOutput:
    """Run one captioner in its own process; raises LcmError with what it said when it could not."""
    context = multiprocessing.get_context("spawn")  # a forked copy would hold this process's memory, and its threads
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=caption_and_time, args=(theirs, spec, list(photos), timed), daemon=True)
    process.start()
    theirs.close()
    with closing(ours), tqdm(total=len(photos), desc=name, unit=" photos", mininterval=1) as progress:
        captions, rest = [], None
        with suppress(EOFError):  # the other process has ended
            while True:
                kind, value = ours.recv()
                if kind == "caption":
                    captions.append(value)
                    progress.update()
                elif kind == "error":
                    raise LcmError(value)
                else:
                    rest = value
    process.join()
    if rest is None:
        raise LcmError(DIED)
    its_name, seconds, peak = rest
    return CaptionerOutput(name, captions, seconds, peak, "" if its_name == name else its_name)


def caption_and_time(connection: Connection, spec: str, photos: list[Path], timed: int) -> None:
    """Caption all photos and send each caption, then name, seconds of each timed photo, and peak memory in MB."""
    try:
        captioner = load_captioner(spec)
        seconds = []
        for place, photo in enumerate([*photos[:WARM_UP], *photos[:timed]]):
            started = time.perf_counter()
            next(captioner.describe_many([photo], samples=0))
            if place >= len(photos[:WARM_UP]):
                seconds.append(time.perf_counter() - started)
        for _photo, description in captioner.describe_many(
            with_known_features(captioner, photos), samples=0, workers=0
        ):
            connection.send(("caption", "" if isinstance(description, BadImageError) else description.caption))
        connection.send(("done", (captioner.name, seconds, _peak_memory_mb())))
    except LcmError as error:
        connection.send(("error", str(error)))


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
        (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        return int(peak) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
