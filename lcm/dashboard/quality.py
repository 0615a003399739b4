"""The page of quality: the comparison, the runs with their curves, and the versions with the gate's decisions.

Knows which files tell of it and how they read. Refuses to measure anything; a file that is not there, or is no such
file, is said to be so. Every text is escaped.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lcm.dashboard.desk import Desk
from lcm.dashboard.parts import note, words_for
from lcm.evaluation.report import Cell, Table
from lcm.paths import GATE, newest_first
from lcm.registry import Version, all_versions

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
    return [path.parent for path in newest_first(runs.glob("*/metrics.json"))]


def comparison_part(reports: Path) -> str:
    """Return the newest comparison: a run's, or the one that is kept in the reports."""
    files = newest_first([reports / "comparison.json", *reports.glob("runs/*/comparison.json")])
    record = read_record(files[0]) if files else {}
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


def versions_part(versions: Sequence[Version], desk: Desk) -> str:
    """Return the versions, the newest first, with why each was published and what the gate found.

    Which one answers is asked of the desk: with LCM_BUNDLE, or elsewhere, it need not be the current one.
    """
    rows, answering = [], desk.version()
    for one in reversed(versions):
        record = one.as_record()
        states = {"answers now": one.digest == answering != "", "current": one.is_current, "before it": one.is_before}
        state = one.fault or next((words for words, holds in states.items() if holds), "kept")
        gate = record["decision"]
        passed = "" if "publish" not in gate else "passed" if gate["publish"] else "refused"
        rows.append(
            [
                Cell(one.name, one.digest),
                Cell(state),
                Cell(str(record["published"] or "with lcm"), str(record["by"] or "")),
                Cell(passed or "not asked", str(record["reason"] or "")),
                Cell(f"{one.metrics['cider']:.3f}" if _is_number(one.metrics.get("cider")) else "not measured"),
            ]
        )
    table = Table(["version", "state", "published", "gate", "CIDEr"], rows).as_html()
    if answering and answering not in [one.digest for one in versions]:
        return note(f"Answers come from version {answering}, which is none of these.", "bad") + table
    return table


def gate_part(runs: Path) -> str:
    """Return the decision of the newest retraining, whether it was published or not."""
    files = newest_first(runs.glob(f"*/{GATE}"))
    record = read_record(files[0]) if files else {}
    if "publish" not in record:
        return "<p>No retraining has come to the gate yet.</p>"
    verdict = "passed" if record["publish"] else "refused"
    checks = [one for one in record.get("checks") or [] if isinstance(one, dict)]
    rows = [
        [Cell(str(one.get("name"))), Cell(str(one.get("rule"))), Cell("yes" if one.get("passed") else "no")]
        for one in checks
    ]
    said = f"<p><b>{verdict}</b>: {escape(str(record.get('reason', '')))} ({escape(files[0].parent.name)})</p>"
    return said + (Table(["check", "rule", "holds"], rows).as_html() if rows else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


class QualityPage:
    """The widgets of quality, in `view`; nothing is read before `draw`."""

    def __init__(self, desk: Callable[[], Desk], reports: Path):
        """Take how to find who answers, and the folder of the reports, which need not be there."""
        self._desk, self._reports = desk, reports
        self.comparison, self.run_part, self.versions = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.run = widgets.Dropdown(description="Run")
        self.run.observe(lambda _: self._draw_run(), "value")
        self.view = widgets.VBox(
            [
                widgets.HTML("<h2>Which captioner is better</h2>"),
                self.comparison,
                widgets.HTML("<h2>A training run and its curves</h2>"),
                self.run,
                self.run_part,
                widgets.HTML("<h2>Versions and the gate</h2>"),
                self.versions,
            ]
        )

    def draw(self) -> None:
        """Read the reports and the versions, and show them."""
        self._fill(self.comparison, lambda: comparison_part(self._reports))
        runs = self._reports / "runs"
        found, chosen = find_runs(runs), self.run.value
        self.run.options = [(path.name, path) for path in found]
        if found:
            trained = [path for path in found if (path / "figures" / "learning_curves.png").is_file()]
            self.run.value = chosen if chosen in found else [*trained, *found][0]
        self.run.layout.display = None if found else "none"
        self._draw_run()
        self._fill(self.versions, lambda: versions_part(all_versions(), self._desk()) + gate_part(runs))

    def _draw_run(self) -> None:
        run = self.run.value
        nothing = "<p>No run yet: <code>lcm run --params sample</code> makes one.</p>"
        self._fill(self.run_part, lambda: run_part(run) if run else nothing)

    @staticmethod
    def _fill(part: widgets.HTML, read: Callable[[], str]) -> None:
        try:
            part.value = read()
        except Exception as error:  # whatever it is, the other parts are shown
            part.value = note(words_for(error), "bad")
