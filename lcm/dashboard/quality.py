"""The page of quality: the current model, the comparison, the runs with their curves, the versions and the gate.

It only reads bundles and reports; a file that is missing or damaged is said to be so.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lcm.captioning.bundle import Manifest
from lcm.captioning.captioner import find_bundle
from lcm.captioning.description import percent
from lcm.dashboard.client import ServiceClient
from lcm.dashboard.language import name_of, number, say
from lcm.dashboard.widgets import cell, fill, note, table
from lcm.paths import GATE, newest_first
from lcm.registry import Version, all_versions

SCORES = {"cider": "CIDEr", "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "wer": "WER"}
MORE_IMAGES = re.compile(r"images_([a-z]{2,3})")  # tells of what further languages there are scores: "cider_fr"
VERDICTS = {True: "passed", False: "refused", None: "not asked"}  # of the gate
FIGURES = {  # of a run: what each shows, for those who cannot see it
    "learning_curves.png": "Learning curves: loss or reward, and CIDEr on dev, of each epoch",
    "reinforce_curves.png": "Learning curves of the second, self-critical stage",
    "reliability.png": "Confidence: how many captions are right against how many should be",
    "caption_lengths.png": "How long the captions of the data set are",
}


def read_record(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file holds, empty when it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def model_part(manifest: Manifest) -> str:
    """Return what a model was measured on, its scores, and how far its confidence can be trusted."""
    metrics, data = manifest.metrics, manifest.training_data
    images, source = number(data.get("train_images", 0)), data.get("source") or "?"
    about = escape(say("It learned from {images} images of {source}.", images=images, source=source))
    if not metrics:
        return f"<p>{about} {say('It was not measured: <code>03_evaluate</code> does that.')}</p>"
    measured = say("It was measured on {images} others ({split}), with 95 % intervals; of WER, less is better.")
    about += " " + escape(measured.format(images=number(metrics.get("images", 0)), split=metrics.get("split")))
    right, error, auc = (metrics.get(name) for name in ("captions_right", "confidence_ece", "confidence_auc"))
    shown = f"<p class='quiet'>{about}</p>{scores_table({manifest.name: metrics})}"
    if None in (right, error, auc):
        return shown
    trust = say(
        "People used every content word of {right} of its captions. Its confidence is off by {error} points on "
        "average; of a right and a wrong caption, it is surer of the right one in {pairs} of the pairs.",
        right=say(percent(right)),
        error=number(100 * error, 1),
        pairs=say(percent(auc)),
    )
    return f"{shown}<p>{trust}</p>"


def comparison_part(reports: Path) -> str:
    """Return the newest comparison: a run's, or the one that is kept in the reports."""
    files = newest_first([reports / "comparison.json", *reports.glob("runs/*/comparison.json")])
    record = read_record(files[0]) if files else {}
    models = record.get("models")
    if not models:
        return f"<p>{say('No comparison yet: <code>lcm run --params compare</code> makes one.')}</p>"
    about = say(
        "{data}, {split}, {images} images; 95 % intervals over images. Best of each column in bold.",
        **{"data": record.get("data"), "split": record.get("split"), "images": number(record.get("images", 0))},
    )
    return f"<p class='quiet'>{escape(about)}</p>{scores_table(models)}"


def scores_table(models: Mapping[str, Mapping]) -> str:
    """Return the scores of captioners, with their intervals, the best of several in bold; a row for each language."""
    rows = []
    for name, metrics in models.items():
        rows.append([cell(name), *(_score(models, name, metric) for metric in SCORES)])
        for code in (found[1] for found in map(MORE_IMAGES.fullmatch, metrics) if found):
            images = number(metrics[f"images_{code}"])
            where = say("in {language}, {images} images", language=name_of(code), images=images)
            rows.append([cell(name, where), *(_score(models, name, f"{metric}_{code}") for metric in SCORES)])
    return table([say("captioner"), *SCORES.values()], rows)


def _score(models: Mapping[str, Mapping], name: str, metric: str) -> str:
    values = {each: its[metric] for each, its in models.items() if its.get(metric) is not None}
    if name not in values:
        return cell(say("not measured"))
    best = (min if metric.partition("_")[0] == "wer" else max)(values.values())
    low, high = (models[name].get(f"{metric}_{end}") for end in ("low", "high"))
    ends = "" if low is None else say("{low} to {high}", low=number(low, 3), high=number(high, 3))
    return cell(number(values[name], 3), ends, len(models) > 1 and values[name] == best)


def run_part(run: Path) -> str:
    """Return the scores of a run and its curves."""
    metrics = read_record(run / "metrics.json")
    is_evaluated = any(metrics.get(name) is not None for name in SCORES)
    scores = scores_table({run.name: metrics}) if is_evaluated else f"<p>{say('This run was not evaluated.')}</p>"
    figures = ""
    for path, alt in ((run / "figures" / name, escape(say(alt))) for name, alt in FIGURES.items()):
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            figures += f'<figure><img class="drawn" alt="{alt}" src="data:image/png;base64,{data}"></figure>'
    return f'{scores}<div class="figures">{figures}</div>'


def versions_part(versions: Sequence[Version], answering: str | None) -> str:
    """Return the versions, newest first, with what the gate found; the service answers with `answering`."""
    rows = []
    for one in reversed(versions):
        cider, holds = one.metrics.get("cider"), (one.digest == answering, one.current, one.before, True)
        states = zip(say("answers now, current, before it, kept").split(", "), holds, strict=True)
        state = one.fault or next(words for words, its in states if its)
        published = cell(one.published or say("with lcm"), one.by or "")
        verdict = cell(say(VERDICTS[one.decision.get("publish")]), one.reason or "")
        measured = say("not measured") if cider is None else number(cider, 3)
        rows.append([cell(one.version, one.digest), cell(state), published, verdict, measured])
    shown = table(say("version, state, published, gate, CIDEr").split(", "), rows)
    if answering and answering not in [one.digest for one in versions]:
        other = say("Answers come from version {version}, which is none of these.", version=answering)
        return note(other, "bad") + shown
    return shown


def gate_part(runs: Path) -> str:
    """Return the decision of the newest retraining, whether it was published or not."""
    files = newest_first(runs.glob(f"*/{GATE}"))
    record = read_record(files[0]) if files else {}
    if "publish" not in record:
        return f"<p>{say('No retraining has come to the gate yet.')}</p>"
    yes, no = say("yes, no").split(", ")
    rows = [[cell(one["name"]), cell(one["rule"]), yes if one["passed"] else no] for one in record["checks"]]
    reason = escape(f"{record['reason']} ({files[0].parent.name})")
    said = f"<p><b>{say(VERDICTS[record['publish']])}</b> – {reason}</p>"
    return said + (table(say("check, rule, holds").split(", "), rows) if rows else "")


class QualityPage:
    """The widgets of quality, in `view`; nothing is read before `draw`."""

    def __init__(self, client: ServiceClient, reports: Path):
        self._client, self._reports = client, reports
        self.model, self.comparison, self.run_part, self.versions = (widgets.HTML() for _ in range(4))
        self.run = widgets.Dropdown(description=say("Run"))
        self.run.observe(lambda _: self._draw_run(), "value")
        parts = {
            say("How good the current model is"): [self.model],
            say("Which captioner is better"): [self.comparison],
            say("A training run and its curves"): [self.run, self.run_part],
            say("Versions and the gate"): [self.versions],
        }
        shown = [[widgets.HTML(f"<h2>{heading}</h2>"), *its] for heading, its in parts.items()]
        self.view = widgets.VBox([widget for part in shown for widget in part])

    def draw(self) -> None:
        fill(self.model, lambda: model_part(Manifest.load(find_bundle())))
        fill(self.comparison, lambda: comparison_part(self._reports))
        runs = self._reports / "runs"
        found, chosen = [path.parent for path in newest_first(runs.glob("*/metrics.json"))], self.run.value
        self.run.options = [(path.name, path) for path in found]
        if found:
            trained = [path for path in found if (path / "figures" / "learning_curves.png").is_file()]
            self.run.value = chosen if chosen in found else [*trained, *found][0]
        self.run.layout.display = None if found else "none"
        self._draw_run()
        answering = self._client.health().get("version")
        fill(self.versions, lambda: versions_part(all_versions(), answering) + gate_part(runs))

    def _draw_run(self) -> None:
        run = self.run.value
        no_run = say("No run yet: <code>lcm run --params adapt -p data_dir photos</code> makes one.")
        fill(self.run_part, lambda: run_part(run) if run else f"<p>{no_run}</p>")
