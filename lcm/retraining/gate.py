"""The gate: whether a new model may take the place of the current one, and what a run tells of it.

Both models caption the same held-out images, so that differences are paired: intervals are 95 % bootstrap intervals
over images. The decision, with its numbers, goes into gate.json and the history of versions; the summary of a run is
Markdown in which no text can become markup, and shows no caption.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lcm.captioning.bundle import Manifest
from lcm.config import PublishConfig
from lcm.data.dataset import CONTRIBUTED
from lcm.errors import DataError
from lcm.evaluation.bootstrap import Interval, bootstrap_difference
from lcm.evaluation.metrics import Scores, score
from lcm.paths import GATE, RunDir, write_atomic
from lcm.registry import NAME, publish
from lcm.retraining.select import current_parent

MARGIN = 0.01  # of CIDEr and of WER that the new model may be worse by on the base, at the interval's end
FEW = 20  # held-out contributions; with fewer, the base alone decides
SHOWN = (  # metrics in the summary: of the new model, by 03_evaluate, and of the contributions
    *("cider", "bleu_4", "meteor", "rouge_l", "wer", "images"),
    *("contributions_new", "contributed_train_images", "contributed_test_images", "contributions_suspected"),
    *("contributed_copies", "contributed_copies_of_held_out"),
)
MAX_CHARS = 500  # of a text in the summary
_MARKUP = re.compile(r"[^\w\s.,;:+−%()=/'-]|_|:(?=[:/])|(?<=:):")  # "::", too: logs take it for a command


@dataclass(frozen=True)
class Part:
    """Some held-out images: what people wrote of each, and what both models did."""

    references: Sequence[Sequence[str]]
    new: Sequence[str]
    current: Sequence[str]


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    passed: bool
    rule: str  # in words
    found: Interval | None = None  # what it was judged by; None: it is no number


@dataclass(frozen=True)
class Decision:
    """What the gate says."""

    checks: tuple[Check, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)  # CIDEr and WER of both models on each part
    notes: tuple[str, ...] = ()
    version: str = ""  # that the new model was published as; empty: it was not

    @property
    def publish(self) -> bool:
        return all(one.passed for one in self.checks)

    @property
    def reason(self) -> str:
        failed = [f"{one.name}: {one.rule}" for one in self.checks if not one.passed]
        said = "refused, for this does not hold: " + "; ".join(failed) if failed else "all checks passed"
        return ". ".join([said, *self.notes])

    def as_record(self) -> dict[str, Any]:
        """Return everything but the version, for gate.json and the history."""
        return {
            "publish": self.publish,
            "reason": self.reason,
            "numbers": dict(self.numbers),
            "checks": [asdict(one) for one in self.checks],
        }

    def as_metrics(self) -> dict[str, float | str]:
        return {
            "gate": "passed" if self.publish else "refused",
            "gate_reason": self.reason,
            "published_version": self.version,
            **{f"gate_{name}": value for name, value in self.numbers.items()},
        }


def judge(base: Part, contributed: Part, stand_in: bool = False) -> Decision:
    """Judge on held-out images of the base and of contributions; with a `stand_in` for the base none passes."""
    new, current = (score(each, base.references, meteor=False) for each in (base.new, base.current))
    numbers, notes = _numbers("base", new, current), []
    cider, wer = _paired("cider", new, current), _paired("wer", new, current)
    checks = [
        Check("CIDEr on the base", cider.low > -MARGIN, f"the lower bound is above −{MARGIN}", cider),
        Check("WER on the base", wer.high < MARGIN, f"the upper bound is below +{MARGIN}", wer),
    ]
    if len(contributed.references) < FEW:
        few = f"{len(contributed.references)} held-out contributions are fewer than {FEW}"
        notes.append(f"{few}: the base alone decided")
    else:
        # Contributions whose captions belong to other images teach a model to write like them whatever it sees; that
        # raises every score on them but this one: of each image's caption against that of the next one.
        captions = contributed.new, contributed.current, [*contributed.new[1:], *contributed.new[:1]]
        new, current, turned = (score(each, contributed.references, meteor=False) for each in captions)
        numbers |= _numbers("contributed", new, current)
        cider, wer = _paired("cider", new, current), _paired("wer", new, current)
        fit = _paired("cider", new, turned)
        rule = "captions fit their own images better than their neighbours', the lower bound is above 0"
        checks += [
            Check("CIDEr on contributions", cider.value > 0, "it rises", cider),
            Check("WER on contributions", wer.value <= 0, "it does not rise", wer),
            Check("captions look at the image", fit.low > 0, rule, fit),
        ]
    if stand_in:
        rule = "name the data set that the current model knows with -p data_dir or LCM_DATASET_URL"
        checks.append(Check("base data", False, f"the generated sample stands in for it; {rule}"))
    return Decision(tuple(checks), numbers, tuple(notes))


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


# A run's decision


def _read_parts(run: RunDir, config: PublishConfig) -> tuple[Part, Part]:
    """Return the base's and the contributions' held-out images with the captions of both; DataError without any."""
    path = run.path / "comparison.jsonl"
    if not path.is_file():
        raise DataError(f"{path} is not there; run 04_compare for this run folder first")
    rows = {row["image_id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])}
    for name in (config.new, config.current):
        if not all(name in row["captioners"] for row in rows.values()):
            raise DataError(f"{path} holds no captions of {name!r}; compare with -p captioners new=trained,current")

    def part(contributed: bool) -> Part:
        its = [row for name, row in rows.items() if bool(CONTRIBUTED.fullmatch(name)) == contributed]
        new, current = ([row["captioners"][name]["caption"] for row in its] for name in (config.new, config.current))
        return Part([row["references"] for row in its], new, current)

    return part(contributed=False), part(contributed=True)


def decide(run: RunDir, config: PublishConfig) -> Decision:
    """Let the gate judge, publish the bundle where it may be, and write gate.json, whatever publishing does."""
    base, contributed = _read_parts(run, config)
    metrics = run.read_metrics()
    # Where 01_prepare has not noted what the base data are, they count as generated.
    decision = judge(base, contributed, stand_in=metrics.get("generated_data") != 0)
    if left_out := metrics.get("not_compared"):
        note = f"not compared: held-out images with captions in other languages ({left_out})"
        decision = replace(decision, notes=(*decision.notes, note))
    try:
        if decision.publish and config.publish:
            decision = replace(decision, version=_publish(run, config, decision))
    finally:
        record = decision.as_record() | {"version": decision.version}
        write_atomic(run.path / GATE, json.dumps(record, indent=1) + "\n")
    return decision


def _publish(run: RunDir, config: PublishConfig, decision: Decision) -> str:
    current, record = current_parent(), json.loads((run.path / "comparison.json").read_text(encoding="utf-8"))
    if record["split"] == "train":
        raise DataError("the models were compared on images that train; run 04_compare with -p split dev or test")
    for name, manifest, what in (
        (config.new, Manifest.load(run.bundle), "the bundle of this run is"),
        (config.current, current.manifest, "the current model is by now"),
    ):
        compared = record["models"][name]["note"] or name
        if compared != manifest.name:
            raise DataError(
                f"{compared} was compared as {name!r}, and {what} {manifest.name}; run 04_compare and 06_publish again"
            )
    options = {"make_current": config.make_current, "instead_of": current.version}
    return publish(run.bundle, decision.reason, decision.as_record(), **options).version


# The summary of a run


def published_version(run: RunDir) -> str:
    """Return the version that the run has published, empty where it has not: refused, cut short, or not asked to."""
    gate = _read_gate(run)
    return gate["version"] if gate.get("publish") is True and NAME.fullmatch(gate["version"]) else ""


def summarise(run: RunDir) -> str:
    """Return decision, numbers and counts of a run as Markdown; raises DataError for a folder that is no run's."""
    if not run.metrics.is_file() and not list(run.path.glob("*.ipynb")):
        raise DataError(f"{run.path} holds no run; give the folder of one, such as reports/runs/retrain")
    metrics, gate = run.read_metrics(), _read_gate(run)
    parts = ["## Retraining", *_verdict(gate)]
    values = gate.get("numbers", {}) | {name: metrics[name] for name in SHOWN if name in metrics}
    if lines := [f"- {_text(name.replace('_', ' '))}: {_number(value)}" for name, value in values.items()]:
        parts.append("\n".join(lines))
    if "data_source" in metrics:
        parts.append(f"Base data set: {_text(metrics['data_source'])}")
    return "\n\n".join(parts) + "\n"


def _read_gate(run: RunDir) -> dict[str, Any]:
    path = run.path / GATE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _verdict(gate: Mapping[str, Any]) -> list[str]:
    """Return what gate.json holds: a sentence, and the checks."""
    if not gate:
        return ["**Nothing is published**: the run ended before the gate. Its last notebook says why."]
    verdict = "Refused"
    if gate["publish"]:
        verdict = f"Published as {_text(gate['version'])}" if gate["version"] else "Passed, not published"
    checks = []
    for check in gate["checks"]:
        one = check["found"]
        found = f", {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" if one else ""
        holds = "holds" if check["passed"] else "**does not hold**"
        checks.append(f"- {_text(check['name'])}{found}: {_text(check['rule'])}: {holds}")
    return [f"**{verdict}**: {_text(gate['reason'])}", "\n".join(checks)]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else "none"


def _text(value: Any) -> str:
    """Return a text as one line in which nothing is markup, for Markdown, HTML or a log."""
    line = " ".join(str(value).split())[:MAX_CHARS]
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)
