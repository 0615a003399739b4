"""The quality of models: the comparison, the runs with their curves, and the versions with the gate's decisions.

Knows which files tell of it and how they read as HTML. Refuses to measure anything; a file that is not there, or is no
such file, is said to be so. Every text is escaped.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lcm.evaluation.tables import Cell, Table
from lcm.operations.catalogue import Version

SCORES = {"cider": "CIDEr", "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "wer": "WER"}
SMALLER_IS_BETTER = ("wer",)
FIGURES = {  # of a run: what each shows, for those who cannot see it
    "learning_curves.png": "Learning curves: loss or reward, CIDEr on dev, learning rate and speed of each epoch",
    "reinforce_curves.png": "Learning curves of the second, self-critical stage",
    "reliability.png": "Confidence: how many captions are right against how many should be",
    "caption_lengths.png": "How long the captions of the data set are",
}
MAX_FIGURE = 2_000_000  # bytes of a picture that is shown


def read_record(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file holds, empty when there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find_runs(runs: Path) -> list[Path]:
    """Return the folders of the runs that were measured or compared, the newest first."""
    found = [path.parent for path in runs.glob("*/metrics.json")]
    return sorted(found, key=lambda path: (path / "metrics.json").stat().st_mtime, reverse=True)


def comparison_part(reports: Path) -> str:
    """Return the newest comparison: a run's, or the one that is kept in the reports."""
    files = [path for path in (reports / "comparison.json", *reports.glob("runs/*/comparison.json")) if path.is_file()]
    path = max(files, key=lambda one: one.stat().st_mtime, default=None)
    record = read_record(path) if path else {}
    models = {str(name): its for name, its in dict(record.get("models") or {}).items() if isinstance(its, dict)}
    if not models:
        return "<p>No comparison yet: <code>lcm run --params compare</code> makes one.</p>"
    about = f"{record.get('data')}, {record.get('split')}, {record.get('images')} images; 95 % intervals over images."
    rows = [[Cell(name), *(_score(models, name, metric) for metric in SCORES)] for name in models]
    table = Table(["captioner", *SCORES.values()], rows).as_html()
    return f"<p class='quiet'>{escape(about)} Best of each column in bold.</p>{table}{_forest(models, 'cider')}"


def _score(models: Mapping[str, Mapping], name: str, metric: str) -> Cell:
    values = {each: its[metric] for each, its in models.items() if _is_number(its.get(metric))}
    if name not in values:
        return Cell("not measured")
    best = (min if metric in SMALLER_IS_BETTER else max)(values.values())
    low, high = (models[name].get(f"{metric}_{end}") for end in ("low", "high"))
    ends = f"{low:.3f} to {high:.3f}" if _is_number(low) and _is_number(high) else ""
    return Cell(f"{values[name]:.3f}", ends, values[name] == best)


def _forest(models: Mapping[str, Mapping], metric: str) -> str:
    """Return bars of a score with their intervals; the table above says the same in numbers."""
    found = {name: its for name, its in models.items() if _is_number(its.get(metric))}
    most = max((max(its[metric], its.get(f"{metric}_high") or 0) for its in found.values()), default=0)
    rows = ""
    for name, its in found.items() if most > 0 else ():
        low, high = (its.get(f"{metric}_{end}") for end in ("low", "high"))
        ends = (
            f'<b style="left: {low / most:.1%}; width: {(high - low) / most:.1%}"></b>'
            if _is_number(low) and _is_number(high)
            else ""
        )
        bar = f'<span class="range"><i style="width: {its[metric] / most:.1%}"></i>{ends}</span>'
        rows += f'<div><span>{escape(name)}</span>{bar}<span class="score">{its[metric]:.3f}</span></div>'
    label = f"{SCORES[metric]} of each captioner as bars, with intervals; the numbers are in the table"
    return f'<h3>{SCORES[metric]}</h3><div class="forest" role="img" aria-label="{label}">{rows}</div>' if rows else ""


def run_part(run: Path) -> str:
    """Return the scores of a run and its curves."""
    metrics = read_record(run / "metrics.json")
    rows = [
        [Cell(label), Cell(f"{metrics[name]:.3f}")] for name, label in SCORES.items() if _is_number(metrics.get(name))
    ]
    table = Table(["score", "held-out images"], rows).as_html() if rows else "<p>This run was not evaluated.</p>"
    figures = "".join(_figure(run / "figures" / name, said) for name, said in FIGURES.items())
    return f'{table}<div class="figures">{figures}</div>'


def _figure(path: Path, said: str) -> str:
    """Return a picture of a run, empty when it is not there."""
    if not path.is_file() or path.stat().st_size > MAX_FIGURE:
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img class="drawn" alt="{escape(said)}" src="data:image/png;base64,{data}"></figure>'


def versions_part(versions: Sequence[Version]) -> str:
    """Return the versions, the newest first, with why each was published and what the gate found."""
    rows = []
    for one in reversed(versions):
        record = one.as_record()
        state = one.fault or ("answers now" if one.is_current else "before this one" if one.is_before else "")
        gate = record["decision"]
        passed = "" if "publish" not in gate else "passed" if gate["publish"] else "refused"
        rows.append(
            [
                Cell(one.name, one.digest),
                Cell(state or "kept"),
                Cell(str(record["published"] or "with lcm"), str(record["by"] or "")),
                Cell(passed or "not asked", str(record["reason"] or "")),
                Cell(f"{one.metrics['cider']:.3f}" if _is_number(one.metrics.get("cider")) else "not measured"),
            ]
        )
    return Table(["version", "state", "published", "gate", "CIDEr"], rows).as_html()


def gate_part(runs: Path) -> str:
    """Return the decision of the newest retraining, whether it was published or not."""
    files = sorted(runs.glob("*/gate.json"), key=lambda path: path.stat().st_mtime)
    record = read_record(files[-1]) if files else {}
    if "publish" not in record:
        return "<p>No retraining has come to the gate yet.</p>"
    verdict = "passed" if record["publish"] else "refused"
    checks = [one for one in record.get("checks") or [] if isinstance(one, dict)]
    rows = [
        [Cell(str(one.get("name"))), Cell(str(one.get("rule"))), Cell("yes" if one.get("passed") else "no")]
        for one in checks
    ]
    said = f"<p><b>{verdict}</b>: {escape(str(record.get('reason', '')))} ({escape(files[-1].parent.name)})</p>"
    return said + (Table(["check", "rule", "holds"], rows).as_html() if rows else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
