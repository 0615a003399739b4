"""The summary of a retraining run: what a person reads first, as Markdown.

Knows which numbers of metrics.json and gate.json matter, and that no text may become markup. Refuses to know where it
is shown, and never shows a caption.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from lcm.errors import DataError
from lcm.paths import RunDir
from lcm.registry import NAME

SCORES = ("cider", "bleu_4", "meteor", "rouge_l", "wer", "images")  # of the new model, by 03_evaluate
COUNTS = (
    *("contributions_new", "contributed_train_images", "contributed_test_images", "contributions_suspected"),
    *("contributed_copies", "contributed_copies_of_held_out"),
)
_MARKUP = re.compile(r"[^\w\s.,;:+−%()=/'-]|_|:(?=[:/])|(?<=:):")  # "::", too: logs take it for a command
MAX_CHARS = 500  # of a text


def published_version(run: RunDir) -> str:
    """Return the version that the run has published, empty where it has not: refused, cut short, or not asked to."""
    version = run.read_metrics().get("published_version")
    passed = _read_gate(run).get("publish") is True
    return version if passed and isinstance(version, str) and NAME.fullmatch(version) else ""


def as_markdown(run: RunDir) -> str:
    """Return the decision, the numbers that it rests on, and what became of the contributions.

    Raises DataError for a folder that is no run's.
    """
    if not run.metrics.is_file() and not list(run.path.glob("*.ipynb")):
        raise DataError(f"{run.path} holds no run; give the folder of one, such as reports/runs/retrain")
    metrics, gate = run.read_metrics(), _read_gate(run)
    parts = ["## Retraining", _verdict(run, gate)]
    if gate:
        parts.append(_table(("check", "found (95 %)", "rule", "holds"), map(_check_row, gate["checks"])))
        parts.append(_table(("", "current", "new"), _compared(gate["numbers"])))
    for title, names in (("held-out images, new model", SCORES), ("contributions", COUNTS)):
        rows = [(_text(name.replace("_", " ")), _number(metrics[name])) for name in names if name in metrics]
        parts += [_table((title, ""), rows)] if rows else []
    if "data_source" in metrics:
        parts.append(f"Base data set: {_text(metrics['data_source'])}")
    return "\n\n".join(parts) + "\n"


def _read_gate(run: RunDir) -> dict[str, Any]:
    path = run.path / "gate.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _verdict(run: RunDir, gate: dict[str, Any]) -> str:
    if not gate:
        return "**Nothing is published**: the run ended before the gate. Its last notebook says why."
    version = published_version(run)
    if version:
        return f"**Published** as {_text(version)}: {_text(gate['reason'])}"
    return f"**{'Passed, not published' if gate['publish'] else 'Refused'}**: {_text(gate['reason'])}"


def _check_row(check: dict[str, Any]) -> tuple[str, ...]:
    one = check["found"]
    found = f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" if one else ""
    return _text(check["name"]), found, _text(check["rule"]), "yes" if check["passed"] else "**no**"


def _compared(numbers: dict[str, float]) -> list[tuple[str, ...]]:
    measured = [name.removesuffix("_new") for name in numbers if name.endswith("_new")]
    return [
        (_text(name.replace("_", " ")), _number(numbers.get(f"{name}_current")), _number(numbers[f"{name}_new"]))
        for name in measured
    ]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else "none"


def _text(value: Any) -> str:
    """Return a text as one line in which nothing is markup, for Markdown, HTML or a log."""
    line = " ".join(str(value).split())[:MAX_CHARS]
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)
