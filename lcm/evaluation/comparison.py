"""Captioners side by side: the same images, the same references, every score with what is sure of it.

Knows which scores have an interval, which differences between captioners are more than an accident of the images, and
who ranks where. Refuses to know how captions were made, and how a comparison is shown.

Intervals are 95 % bootstrap intervals over images (`lcm.evaluation.resampling`). CIDEr and both WER are means over
images; BLEU-4 is of the set, its images drawn anew; METEOR of a set cannot be had from its images, so that its interval
is that of the mean over images, `meteor_mean`, a number of its own near `meteor`. Differences are paired: both
captioners on the same drawn images. They say nothing of another training run of the same captioner.

Edge cases: an image without a usable reference is skipped for all; an empty caption counts, as the worst there is;
below two scored images there are scores and no intervals.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np

from lcm.errors import DataError
from lcm.evaluation.bleu import bleu_4, bleu_4_difference
from lcm.evaluation.captioner_result import MEASURES, CaptionerOutput, CaptionerResult, smaller_is_better
from lcm.evaluation.habits import Habits, habits_of
from lcm.evaluation.metrics import Scores, score_several
from lcm.evaluation.resampling import Interval, bootstrap_difference, bootstrap_mean, bootstrap_statistic

# How several references become one WER: see the fields of Scores; the headline first.
WER_DEFINITIONS = ("wer", "wer_best", "wer_first", "wer_pooled")


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
    people: Habits  # of the first reference of each image: the yardstick for habits
    not_run: Mapping[str, str] = field(default_factory=dict)  # name -> why it could not be run

    @property
    def images(self) -> int:
        """Images scored."""
        return self.results[0].scores.images

    @property
    def skipped_images(self) -> int:
        """Images without a usable reference."""
        return self.results[0].scores.skipped_images

    def ranks(self, metric: str) -> dict[str, int | None]:
        """Return each captioner's rank by a metric of Scores, 1 the best; equals share one, None has no value."""
        values = {result.name: getattr(result.scores, metric) for result in self.results}
        sign = 1 if smaller_is_better(metric) else -1
        known = [sign * value for value in values.values() if value is not None]
        return {
            name: None if value is None else 1 + sum(other < sign * value - 1e-12 for other in known)
            for name, value in values.items()
        }

    def ranked(self, metric: str) -> list[CaptionerResult]:
        """Return the results, the best by a metric first; those without a value come last."""
        ranks = self.ranks(metric)
        return sorted(self.results, key=lambda result: ranks[result.name] or len(self.results) + 1)

    def difference(self, measure: str, first: str, second: str) -> Interval | None:
        """Return how much `first` exceeds `second` by a measure; None where it could not be measured."""
        for one in self.differences:
            its = one.interval
            if (one.measure, one.first, one.second) == (measure, first, second):
                return its
            if (one.measure, one.first, one.second) == (measure, second, first):
                return Interval(-its.value, -its.high, -its.low)
        return None

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json: of each captioner `<metric>_<its name, letters and digits>`."""
        flat = {"compared": ", ".join(result.name for result in self.results), "not_run": ", ".join(self.not_run)}
        flat |= {"compared_images": self.images, "compared_skipped_images": self.skipped_images}
        flat |= {f"best_by_{metric}": self.best(metric) for metric in ("wer", "cider")}
        for result, suffix in zip(self.results, suffixes([result.name for result in self.results]), strict=True):
            its = {key: each for key, each in result.as_metrics().items() if key not in ("images", "skipped_images")}
            flat |= {
                f"{key.removesuffix('_reason')}_{suffix}{'_reason' if key.endswith('_reason') else ''}": value
                for key, value in its.items()
            }
        return flat

    def best(self, metric: str) -> str:
        """Return who is best by a metric, with a comma between equals; empty where nobody has a value."""
        return ", ".join(name for name, rank in self.ranks(metric).items() if rank == 1)

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
            "ranks": {metric: self.ranks(metric) for metric in (*WER_DEFINITIONS, "cider", "bleu_4", "meteor")},
            "people": self.people.as_metrics(),
            "not_run": dict(self.not_run),
        }


def suffixes(names: Sequence[str]) -> list[str]:
    """Return the names in small letters, digits and underscores, with a number where two would be the same."""
    plain = [re.sub(r"\W+", "_", name.lower()).strip("_") for name in names]
    return [f"{one}_{place}" if plain.count(one) > 1 else one for place, one in enumerate(plain, 1)]


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
    Raises DataError when there is no output, two have the same name, or one has not a caption an image.
    """
    _check(outputs, references, not_run)
    options = {"train_captions": train_captions, "vocabulary_size": vocabulary_size, "meteor": meteor}
    scored = score_several([one.captions for one in outputs], references, **options)
    samples = [_samples(scores) for scores in scored]
    return Comparison(
        results=tuple(
            CaptionerResult(one, scores, habits_of(one.captions), _intervals(its))
            for one, scores, its in zip(outputs, scored, samples, strict=True)
        ),
        references=references,
        differences=tuple(_differences([one.name for one in outputs], samples)),
        people=habits_of([first for first, *_ in filter(None, references)]),
        not_run=dict(not_run),
    )


def _check(outputs: Sequence[CaptionerOutput], references: Sequence, not_run: Mapping[str, str]) -> None:
    names = [one.name for one in outputs]
    if not names:
        raise DataError(
            "no captioner to compare; " + ("; ".join(map(": ".join, not_run.items())) or "give at least one")
        )
    if len(every := [*names, *not_run]) != len(set(every)):
        twice = sorted({name for name in every if every.count(name) > 1})
        raise DataError(f"more than one captioner is called {', '.join(twice)}; give each a name of its own")
    for one in outputs:
        if len(one.captions) != len(references):
            raise DataError(
                f"{one.name} has {len(one.captions)} captions for {len(references)} images; "
                "give one an image, empty where it wrote none"
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
                interval = bootstrap_statistic(np.hstack([ours, theirs]), bleu_4_difference)
            else:
                interval = bootstrap_difference(ours, theirs)
            yield Difference(measure, first, second, interval)
