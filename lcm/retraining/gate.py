"""The gate: whether a new model may take the place of the current one.

Knows what must hold on held-out images, and says with numbers what did not. Refuses to know how captions come about,
and what publishing is.

Both models caption the same images, so that differences are paired: intervals are 95 % bootstrap intervals over images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lcm.evaluation.bootstrap import Interval, bootstrap_difference
from lcm.evaluation.metrics import Scores, score

MARGIN = 0.01  # of CIDEr and of WER that the new model may be worse by on the base, at the interval's end
FEW = 20  # held-out contributions; with fewer, the base alone decides


@dataclass(frozen=True)
class Part:
    """Some held-out images: what people wrote of each, and what both models did."""

    references: Sequence[Sequence[str]]
    new: Sequence[str]
    current: Sequence[str]

    def __len__(self) -> int:
        return len(self.references)


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    passed: bool
    rule: str  # in words
    found: Interval | None = None  # what it was judged by; None: it is no number

    def as_row(self) -> str:
        """Return a row of a Markdown table."""
        one = self.found
        found = f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})" if one else ""
        return f"| {self.name} | {found} | {self.rule} | {'yes' if self.passed else '**no**'} |"


@dataclass(frozen=True)
class Decision:
    """What the gate says."""

    checks: tuple[Check, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)  # CIDEr and WER of both models on each part
    notes: tuple[str, ...] = ()

    @property
    def publish(self) -> bool:
        """Whether the new model may be published."""
        return all(one.passed for one in self.checks)

    @property
    def reason(self) -> str:
        """The decision in words."""
        failed = [f"{one.name}: {one.rule}" for one in self.checks if not one.passed]
        said = "refused, for this does not hold: " + "; ".join(failed) if failed else "all checks passed"
        return ". ".join([said, *self.notes])

    @property
    def _measured(self) -> list[str]:
        """What both models were measured by, such as base_cider."""
        return [name.removesuffix("_new") for name in self.numbers if name.endswith("_new")]

    def _number_row(self, name: str) -> str:
        current, new = self.numbers[f"{name}_current"], self.numbers[f"{name}_new"]
        return f"| {name.replace('_', ' ')} | {current:.3f} | {new:.3f} |"

    def as_record(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "publish": self.publish,
            "reason": self.reason,
            "numbers": dict(self.numbers),
            "checks": [asdict(one) for one in self.checks],
        }

    def as_markdown(self) -> str:
        """Return the decision as a table and a sentence."""
        head = "| check | found (95 %) | rule | holds |\n|---|---|---|---|"
        rows = [one.as_row() for one in self.checks]
        numbers = ["| | current | new |\n|---|---|---|", *map(self._number_row, self._measured)]
        verdict = f"**{'Passed' if self.publish else 'Refused'}**: {self.reason}"
        return "\n".join([head, *rows]) + "\n\n" + "\n".join(numbers) + "\n\n" + verdict


def judge(base: Part, contributed: Part, stand_in: bool = False) -> Decision:
    """Judge the new model on the base's held-out images and on the contributions'.

    `stand_in`: the base is the generated sample, for there was none; nothing that was trained on it is published.
    Raises DataError when the base has fewer than two images that can be scored.
    """
    checks, numbers = [], {}
    notes: list[str] = []
    new, current = _scores(base.new, base.references), _scores(base.current, base.references)
    numbers |= _numbers("base", new, current)
    checks += _no_worse(new, current)
    if len(contributed) < FEW:
        notes.append(f"{len(contributed)} held-out contributions are fewer than {FEW}: the base alone decided")
    else:
        new, current = (_scores(each, contributed.references) for each in (contributed.new, contributed.current))
        numbers |= _numbers("contributed", new, current)
        checks += _better(new, current)
        checks.append(_fits(contributed, new))
    if stand_in:
        rule = "name the data set that the current model knows with -p data_dir or LCM_DATASET_URL"
        checks.append(Check("base data", False, f"the generated sample stands in for it; {rule}"))
    return Decision(tuple(checks), numbers, tuple(notes))


def _scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    return score(captions, references, meteor=False)


def _numbers(part: str, new: Scores, current: Scores) -> dict[str, float]:
    models = {"current": current, "new": new}
    return {
        f"{part}_{metric}_{model}": value
        for metric in ("cider", "wer")
        for model, scores in models.items()
        if (value := getattr(scores, metric)) is not None
    }


def _paired(metric: str, new: Scores, other: Scores) -> Interval:
    pairs = zip(new.per_image.get(metric, ()), other.per_image.get(metric, ()), strict=True)
    both = [pair for pair in pairs if None not in pair]
    return bootstrap_difference([ours for ours, _ in both], [theirs for _, theirs in both])


def _no_worse(new: Scores, current: Scores) -> list[Check]:
    cider, wer = _paired("cider", new, current), _paired("wer", new, current)
    return [
        Check("CIDEr on the base", cider.low > -MARGIN, f"the lower bound is above −{MARGIN}", cider),
        Check("WER on the base", wer.high < MARGIN, f"the upper bound is below +{MARGIN}", wer),
    ]


def _better(new: Scores, current: Scores) -> list[Check]:
    cider, wer = _paired("cider", new, current), _paired("wer", new, current)
    return [
        Check("CIDEr on contributions", cider.value > 0, "it rises", cider),
        Check("WER on contributions", wer.value <= 0, "it does not rise", wer),
    ]


def _fits(part: Part, new: Scores) -> Check:
    """Return whether captions fit their own images better than other ones.

    Contributions whose captions belong to other images teach a model to write like them whatever it sees; that raises
    every score on them but this one.
    """
    turned = [*part.new[1:], *part.new[:1]]
    interval = _paired("cider", new, _scores(turned, part.references))
    rule = "captions fit their own images better than their neighbours', the lower bound is above 0"
    return Check("captions look at the image", interval.low > 0, rule, interval)
