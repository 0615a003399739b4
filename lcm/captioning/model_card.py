"""The model card: manifest and metrics as a page, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lcm.captioning.bundle import MODEL_CARD, VOCABULARY, Manifest, seal, verify
from lcm.captioning.description import PlattScaler
from lcm.config import DECODING, SAMPLE
from lcm.data.text import Vocabulary
from lcm.errors import require

METRIC_LABELS = {
    "verdict": "verdict",
    "cider": "CIDEr",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "wer": "WER, mean over references (smaller is better)",
    "wer_best": "WER, best reference",
    "length_ratio": "length ratio",
    "distinct_captions": "distinct captions",
    "copied_from_train": "copied from training",
    "vocabulary_used": "share of the vocabulary used",
    "bad_endings": "captions that break off",
    "bad_endings_people": "people's captions that break off",
    "repeated_words": "captions that repeat words",
    "repeated_words_people": "people's captions that repeat words",
    "most_frequent_caption": "share of the one most frequent caption",
    "most_frequent_caption_people": "share of people's most frequent caption",
    "cider_started_from": "CIDEr of the model that it started from, or of the shipped one",
    "cider_nearest": "CIDEr of the nearest training image's caption",
    "cider_constant": "CIDEr of one caption for all images",
    "cider_shuffled": "CIDEr with the images shuffled",
    "wer_best_shuffled": "WER, best reference, with the images shuffled",
    "tag_map": "tags, mean average precision",
    "tag_map_caption_order": "the same words in the order of the captions",
    "tag_map_upper_bound": "the same words in the best order",
    "tag_precision_5": "tags, precision at 5",
    "tag_words_ece": "probabilities of the captions' words, calibration error",
    "tag_labels_ece": "probabilities of labels, calibration error",
    "tag_says_none": "of four labels that do not fit, none is a tag",
    "tag_finds_one": "of four labels, the one that fits is a tag",
    "recall_10_image_to_text": "retrieval, recall@10, image to text",
    "recall_10_text_to_image": "retrieval, recall@10, text to image",
    "captions_right": "captions of which people used every content word",
    "confidence_auc": "confidence, AUC of right against wrong captions",
    "confidence_ece": "confidence, calibration error",
    "cider_low": "CIDEr, lower end of the 95 % interval over images",
    "cider_high": "CIDEr, upper end",
}


# What the hub calls metrics, and the key here; the headline of each.
HUB_METRICS = {"cider": "cider", "bleu": "bleu_4", "meteor": "meteor", "rouge": "rouge_l", "wer": "wer"}
HUB_DATASET = re.compile(r"([\w-]+/)?[\w.-]+")  # the name of a data set as the hub takes it
NOT_COMMERCIAL = {"license": "other", "license_name": "research-and-education-only"}
LICENCES = {SAMPLE: {"license": "mit"}, "flickr8k": NOT_COMMERCIAL, "flickr30k": NOT_COMMERCIAL}  # by what it learned


def front_matter(manifest: Manifest, languages: Sequence[str]) -> str:
    """Return the YAML block that model hubs read at the head of a card: github.com/huggingface/hub-docs, modelcard.md.

    A licence is named where that of the training data is known.
    """
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
    tags = f"{tagger.get('name')} over {tagger.get('word_embedding', manifest.encoder.name)}" if tagger else "none"
    weight, power = manifest.rerank_weight, manifest.length_power
    choice = f", chosen by log-probability / length^{power:g} + {weight:g} x the tag scorer's cosine" if weight else ""
    notes = f"\n## Notes\n\n{manifest.notes.strip()}\n" if manifest.notes.strip() else ""
    learned = "; ".join(f"{source}: {size}" for source, size in data.get("learned_before", {}).items())
    name, version = data.get("started_from"), data.get("start_version") or "a bundle"
    parent = f"\n- started from: {name} ({version}), which had learned from {learned}" if learned else ""
    facts = manifest.encoder.checkpoint
    licence = f", licence: {facts.licence}, revision: {facts.revision or 'a folder'}" if facts else ""
    known = "; its confidence tells them apart in part, on images like those of the data set"
    return f"""{front_matter(manifest, languages)}
# {manifest.name}

An image captioner of lcm. It writes one sentence about a picture ({", ".join(languages)}), in the words of the
captions it was trained on, and scores key words against the picture.

- model: {manifest.model}, vocabulary of {manifest.vocabulary_size} words
- image encoder: {manifest.encoder.name}, frozen, {manifest.encoder.weights} weights{licence}
- data: {data.get("source")}: {data.get("train_images")} train images, {data.get("train_captions")} captions{parent}
- tags: {tags}
- decoding: beam search of width {manifest.beam_width}, at most {manifest.max_words} words{choice}

## Measured on the {metrics.get("split", "held-out")} split ({metrics.get("images", 0)} images)

{metrics_table(metrics)}

## Training parameters

{settings}
{notes}
## Limits

It only knows what its training captions speak of, repeats their habits and biases (of whom and what they
name, and how), and words wrong things like right ones{known if manifest.calibration else ""}. It cannot read text
or recognise persons. Do not use it to decide about people. The licence of the training images and captions may limit
what it is used for.
"""


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Return the main metrics as a Markdown table."""
    rows = [f"| {label} | {_number(metrics[name])} |" for name, label in METRIC_LABELS.items() if name in metrics]
    return "\n".join(["| metric | value |", "|---|---|", *rows])


def add_evaluation(
    folder: Path, metrics: Mapping, calibration: PlattScaler | None = None, notes: str = "", curves: dict | None = None
) -> None:
    """Write the metrics of 03_evaluate into a bundle: its manifest and its model card.

    `beam_width`, `max_words`, `rerank_weight` and `length_power` among them become the bundle's own: it captions as it
    was measured, and with the confidence and tagging.Curves that were fitted. `notes` (Markdown), where there are
    any, take the place of those that it has. Raises BundleError when a file of the bundle is not what was exported:
    sealing it would make that good.
    """
    manifest = Manifest.load(folder)
    decoding = {name: metrics[name] for name in DECODING if name in metrics}
    record = asdict(calibration) if calibration else manifest.calibration
    notes = notes or manifest.notes
    tagger = manifest.tagger | ({"curves": curves} if curves else {})
    manifest = replace(manifest, metrics=dict(metrics), calibration=record, notes=notes, tagger=tagger, **decoding)
    verify(folder, manifest)
    languages = [*Vocabulary.load(folder / VOCABULARY).starts]
    (folder / MODEL_CARD).write_text(model_card(manifest, languages), encoding="utf-8")
    seal(folder, manifest)


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "not measured" if value is None else str(value)
