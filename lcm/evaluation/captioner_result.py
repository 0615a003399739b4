"""One captioner of a comparison: what it wrote, what that cost, how good it is.

Knows which scores have an interval, and how all numbers become one flat object. Refuses to know other captioners.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.evaluation.habits import Habits
from lcm.evaluation.metrics import Scores
from lcm.evaluation.resampling import Interval

# What has an interval -> its list in Scores.per_image; None: counts of the whole set. The first is the headline.
MEASURES = {"wer": "wer", "cider": "cider", "bleu_4": None, "meteor_mean": "meteor", "wer_best": "wer_best"}
FEW = "fewer than two images were scored, of which no interval follows"


def smaller_is_better(metric: str) -> bool:
    """Return whether less of a metric is better: of the word error rates."""
    return metric.startswith("wer")


@dataclass(frozen=True)
class CaptionerOutput:
    """What a captioner wrote, and what it cost."""

    name: str  # as reports call it, each its own
    captions: Sequence[str]  # the best of each image, in the order of the references
    seconds: Sequence[float] = ()  # time of one photo alone, of some photos
    peak_memory_mb: float | None = None  # of the process that captioned
    note: str = ""  # what one should know of it


@dataclass(frozen=True)
class CaptionerResult:
    """How good a captioner's output is."""

    output: CaptionerOutput
    scores: Scores
    habits: Habits
    intervals: Mapping[str, Interval]  # by the names of MEASURES; one that could not be measured is missing

    @property
    def name(self) -> str:
        """The captioner's name."""
        return self.output.name

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return every number, no caption, as a flat object: `<measure>_low` and `_high` are the interval's ends.

        A number that was not measured is None, and `<name>_reason` says why.
        """
        flat = self.scores.as_metrics() | self.habits.as_metrics() | {"meteor_mean": None} | self.costs()
        for name in MEASURES:
            if its := self.intervals.get(name):
                flat |= {name: its.value, f"{name}_low": its.low, f"{name}_high": its.high}
            else:
                flat |= {f"{name}_low": None, f"{name}_high": None}
                why = self.scores.reasons.get(name.removesuffix("_mean"), FEW)
                flat |= {f"{key}_reason": why for key in (name, f"{name}_low", f"{name}_high") if flat[key] is None}
        return flat

    def costs(self) -> dict[str, float | str | None]:
        """Return `seconds_median`, `seconds_p95`, `seconds_photos` that were timed, and `peak_memory_mb`."""
        times = np.asarray(self.output.seconds, np.float64)
        median, p95 = np.quantile(times, (0.5, 0.95)).tolist() if len(times) else (None, None)
        known = {"seconds_median": median, "seconds_p95": p95, "peak_memory_mb": self.output.peak_memory_mb}
        reasons = {f"{name}_reason": "not measured" for name, value in known.items() if value is None}
        return known | {"seconds_photos": len(times)} | reasons
