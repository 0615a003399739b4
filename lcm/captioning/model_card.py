"""The model card: manifest and metrics as a page, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lcm.captioning.bundle import MODEL_CARD, VOCABULARY, Manifest, seal, verify
from lcm.captioning.description import PlattScaler
from lcm.config import DECODING, SAMPLE
from lcm.data.text import Vocabulary
from lcm.errors import require

CARD, LABELS = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("model_card.md", "metric_labels.tsv")
)
METRIC_LABELS = dict(line.split("\t") for line in LABELS.splitlines())  # key of metrics.json -> what it is

# What the hub calls metrics, and the key here; the headline of each.
HUB_METRICS = {"cider": "cider", "bleu": "bleu_4", "meteor": "meteor", "rouge": "rouge_l", "wer": "wer"}
HUB_DATASET = re.compile(r"([\w-]+/)?[\w.-]+")  # the name of a data set as the hub takes it
NOT_COMMERCIAL = {"license": "other", "license_name": "research-and-education-only"}
LICENCES = {SAMPLE: {"license": "mit"}, "flickr8k": NOT_COMMERCIAL, "flickr30k": NOT_COMMERCIAL}  # by what it learned


def front_matter(manifest: Manifest, languages: Sequence[str]) -> str:
    """Return the YAML block that model hubs read at a card's head: github.com/huggingface/hub-docs, modelcard.md."""
    source, metrics = str(manifest.training_data.get("source") or ""), manifest.metrics
    measured = {hub: metrics[name] for hub, name in HUB_METRICS.items() if isinstance(metrics.get(name), float)}
    record = {"language": [*languages], **LICENCES.get(source, {}), "library_name": "lcm"}
    record |= {"pipeline_tag": "image-to-text", "tags": ["image-captioning", "image-tagging", "onnx"]}
    if HUB_DATASET.fullmatch(source):
        record["datasets"] = [source]
    if measured:
        values = [
            {"type": hub, "name": METRIC_LABELS[HUB_METRICS[hub]], "value": value} for hub, value in measured.items()
        ]
        dataset = {"type": source or "unknown", "name": source or "unknown", "split": metrics.get("split", "dev")}
        result = {"task": {"type": "image-to-text"}, "dataset": dataset, "metrics": values}
        record |= {"metrics": [*measured], "model-index": [{"name": manifest.name, "results": [result]}]}
    return f"---\n{require('yaml', 'notebooks').safe_dump(record, sort_keys=False, allow_unicode=True)}---\n"


def model_card(manifest: Manifest, languages: Sequence[str]) -> str:
    """Return the card as Markdown; `languages` are those that it writes."""
    data, metrics, tagger = manifest.training_data, manifest.metrics, manifest.tagger
    settings = "\n".join(f"- {name}: {value}" for name, value in manifest.training.items())
    weight, power = manifest.rerank_weight, manifest.length_power
    choice = f", chosen by log-probability / length^{power:g} + {weight:g} x the tag scorer's cosine" if weight else ""
    learned = "; ".join(f"{source}: {size}" for source, size in data.get("learned_before", {}).items())
    name, version = data.get("started_from"), data.get("start_version") or "a bundle"
    facts = manifest.encoder.checkpoint
    known = "; its confidence tells them apart in part, on images like those of the data set"
    return CARD.format(
        front_matter=front_matter(manifest, languages),
        manifest=manifest,
        languages=", ".join(languages),
        licence=f", licence: {facts.licence}, revision: {facts.revision or 'a folder'}" if facts else "",
        data=defaultdict(lambda: None, data),
        parent=f"\n- started from: {name} ({version}), which had learned from {learned}" if learned else "",
        tags=f"{tagger.get('name')} over {tagger.get('word_embedding', manifest.encoder.name)}" if tagger else "none",
        choice=choice,
        metrics={"split": "held-out", "images": 0, **metrics},
        table=metrics_table(metrics),
        settings=settings,
        notes=f"\n## Notes\n\n{manifest.notes.strip()}\n" if manifest.notes.strip() else "",
        known=known if manifest.calibration else "",
    )


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Return the main metrics as a Markdown table."""
    rows = [f"| {label} | {_number(metrics[name])} |" for name, label in METRIC_LABELS.items() if name in metrics]
    return "\n".join(["| metric | value |", "|---|---|", *rows])


def add_evaluation(
    folder: Path, metrics: Mapping, calibration: PlattScaler | None = None, notes: str = "", curves: dict | None = None
) -> None:
    """Write the metrics of 03_evaluate into a bundle: its manifest and its model card.

    The DECODING among them becomes the bundle's own: it captions as it was measured, and with the confidence and the
    tagging.Curves that were fitted, or those that it has, as it keeps its `notes` (Markdown) where none are given.
    Raises BundleError when a file of the bundle is not what was exported: sealing it would make that good.
    """
    manifest = Manifest.load(folder)
    verify(folder, manifest)
    changes = {name: metrics[name] for name in DECODING if name in metrics} | {"metrics": dict(metrics)}
    if calibration:
        changes["calibration"] = asdict(calibration)
    if curves:
        changes["tagger"] = manifest.tagger | {"curves": curves}
    manifest = replace(manifest, notes=notes or manifest.notes, **changes)
    languages = [*Vocabulary.load(folder / VOCABULARY).starts]
    (folder / MODEL_CARD).write_text(model_card(manifest, languages), encoding="utf-8")
    seal(folder, manifest)


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "not measured" if value is None else str(value)
