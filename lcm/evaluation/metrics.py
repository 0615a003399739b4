"""Scores of captions against what people wrote: WER, BLEU, METEOR, ROUGE-L, CIDEr, and how varied they are.

Knows how several references become one number, and what each score is where there is little to score. Refuses
to know images, models and how the captions came about.

Hypotheses, references and train captions all pass through `lcm.data.vocabulary.standardise` before anything is
compared. Published numbers use the Penn Treebank tokeniser of coco-caption instead, which keeps "d.c." one word
where ours has two; on human captions of Flickr8k dev that moves CIDEr and METEOR by less than 0.001 and BLEU-4
and ROUGE-L by less than 0.0001.

Edge cases, everywhere the same: a reference that is empty once standardised is dropped; an image left without
references is skipped and counted; an empty hypothesis is scored, as the worst there is (WER 1, the others 0);
a score that cannot be computed is None, and `Scores.reasons` says why.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean
from sys import intern

import numpy as np

from lcm.data.vocabulary import standardise
from lcm.errors import DataError, require
from lcm.evaluation import meteor as meteors
from lcm.evaluation.bleu import bleu, count_ngrams
from lcm.evaluation.cider import CiderD
from lcm.evaluation.meteor import Captions
from lcm.evaluation.word_errors import count_edits

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")


@dataclass(frozen=True)
class Scores:
    """What one set of captions is worth. Fractions, higher is better, unless a comment says otherwise."""

    images: int  # images scored
    skipped_images: int  # images without a usable reference
    cider: float | None = None  # CIDEr-D as coco-caption reports it, 0 to 10: the field's 0.50 is 0.50 here
    bleu_1: float | None = None  # of the whole set, single words, with brevity penalty
    bleu_2: float | None = None  # ... words and pairs
    bleu_3: float | None = None  # ... up to three words
    bleu_4: float | None = None  # ... up to four words
    meteor: float | None = None  # METEOR 1.5 of the whole set; knows English stems, synonyms and paraphrases
    rouge_l: float | None = None  # longest common subsequence, beta 1.2, mean over images
    wer: float | None = None  # lower is better, can pass 1; mean over references, then images: the headline
    wer_best: float | None = None  # the same against each image's nearest reference
    wer_first: float | None = None  # the same against each image's first reference
    wer_pooled: float | None = None  # edits over all references of all images / words of all references
    length_ratio: float | None = None  # words of all hypotheses / mean words of their references; 1 is best
    distinct_captions: float | None = None  # different hypotheses / hypotheses
    copied_from_train: float | None = None  # hypotheses that are also a train caption; neither good nor bad alone
    vocabulary_used: float | None = None  # different words in hypotheses / words of the vocabulary
    reasons: dict[str, str] = field(default_factory=dict)  # why a metric is None
    # cider, bleu_4, meteor, wer, wer_best and words (length of the hypothesis), each a list along the images as
    # given with None at a skipped one; a metric that is None has no list.
    per_image: dict[str, list[float | None]] = field(default_factory=dict)
    bleu_counts: np.ndarray | None = field(default=None, compare=False)  # [images, 10]: what BLEU is made of

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json: every metric, both counts, `<metric>_reason` where it is None."""
        flat: dict[str, float | str | None] = {name: getattr(self, name) for name in METRICS}
        flat |= {"images": self.images, "skipped_images": self.skipped_images}
        return flat | {f"{name}_reason": reason for name, reason in self.reasons.items()}


METRICS = tuple(each.name for each in fields(Scores) if each.default is None and each.compare)


@dataclass(frozen=True)
class _Part:
    """What one scorer found: values of the whole set, lists along the scored images, why a value is missing."""

    values: dict[str, float] = field(default_factory=dict)
    per_image: dict[str, Sequence[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def score(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    train_captions: Collection[str] = (),
    vocabulary_size: int | None = None,
    meteor: bool = True,
) -> Scores:
    """Score the model's caption of each image, `hypotheses[i]`, against its human ones, `references[i]`.

    The headline WER is the mean over references, then over images: every reference counts, no caption gains by
    one reference that happens to be near, and it is the number this project has always compared by.
    `vocabulary_size` is in words, reserved ones left out; a captioner with words of its own can use more than all.
    `meteor=False` saves the ten seconds that its Java process takes to start.
    Raises DataError when the two do not have the same length.
    """
    options = {"train_captions": train_captions, "vocabulary_size": vocabulary_size, "meteor": meteor}
    return score_several([hypotheses], references, **options)[0]


def score_several(
    captioners: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    train_captions: Collection[str] = (),
    vocabulary_size: int | None = None,
    meteor: bool = True,
) -> list[Scores]:
    """Score several captioners on the same images, each as `score` does; METEOR's program is started once for all."""
    for hypotheses in captioners:
        if len(hypotheses) != len(references):
            raise DataError(
                f"{len(hypotheses)} hypotheses for {len(references)} images with references; give one an image"
            )
    theirs = usable_references(references)
    skipped = len(references) - len(theirs)
    if not theirs:
        why = f"no image has a usable reference ({skipped} skipped)" if skipped else "there are no images"
        return [Scores(images=0, skipped_images=skipped, reasons=dict.fromkeys(METRICS, why)) for _ in captioners]
    several = [{place: [_words_joined(hypotheses[place])] for place in theirs} for hypotheses in captioners]
    asked = _meteors(theirs, several) if meteor else [_Part(reasons={"meteor": "not asked for"})] * len(several)
    scored = []
    for ours, part in zip(several, asked, strict=True):
        counts = count_ngrams(theirs, ours)
        parts = [_cider(theirs, ours), _bleu(counts), part, _rouge_l(theirs, ours), _wer(theirs, ours)]
        parts.append(_variety(theirs, ours, train_captions, vocabulary_size))
        scored.append(replace(_joined(parts, list(theirs), len(references)), bleu_counts=counts))
    return scored


def _joined(parts: Sequence[_Part], places: Sequence[int], images: int) -> Scores:
    """Return what all scorers found of the images at `places`, among `images` in all."""
    return Scores(
        images=len(places),
        skipped_images=images - len(places),
        **{name: float(value) for part in parts for name, value in part.values.items()},
        reasons={name: why for part in parts for name, why in part.reasons.items()},
        per_image={
            name: _spread(dict(zip(places, values, strict=True)), images)
            for part in parts
            for name, values in part.per_image.items()
        },
    )


def usable_references(references: Sequence[Sequence[str]]) -> Captions:
    """Return the standardised references that hold a word, of the images that have any, by an image's place."""
    joined = ([text for text in map(_words_joined, each) if text] for each in references)
    return {place: usable for place, usable in enumerate(joined) if usable}


def _words_joined(caption: str) -> str:
    return " ".join(standardise(caption))


def _spread(by_place: dict[int, float], images: int) -> list[float | None]:
    return [float(by_place[place]) if place in by_place else None for place in range(images)]


def _cider(references: Captions, hypotheses: Captions) -> _Part:
    """CIDEr-D (Vedantam et al. 2015): n-grams weighted by how few images' references hold them, times 10."""
    if len(references) < 2:
        return _Part(reasons={"cider": "needs two images: over one alone every n-gram weighs log 1 = 0"})
    # Interned, each word is kept once and not at every place where it stands.
    scorer = CiderD([[[*map(intern, text.split())] for text in usable] for usable in references.values()])
    each = scorer.score(range(len(references)), [[hypotheses[place][0].split()] for place in references])[:, 0]
    return _Part({"cider": each.mean()}, {"cider": each})


def _bleu(counts: np.ndarray) -> _Part:
    """BLEU (Papineni et al. 2002) of the whole set, closest reference length; an image's own only as bleu_4."""
    values = bleu(counts.sum(axis=0)[None])[0]
    return _Part(dict(zip(BLEU, values, strict=True)), {"bleu_4": bleu(counts)[:, -1]})


def _rouge_l(references: Captions, hypotheses: Captions) -> _Part:
    """ROUGE-L (Lin 2004) with the best precision and the best recall over the references."""
    value, _ = require("pycocoevalcap.rouge.rouge", "evaluate").Rouge().compute_score(references, hypotheses)
    return _Part({"rouge_l": value})


def _wer(references: Captions, hypotheses: Captions) -> _Part:
    """Word error rate of every hypothesis against every one of its references."""
    pairs = [(text, *hypotheses[place]) for place, usable in references.items() for text in usable]
    edits, words = count_edits(pairs), [len(text.split()) for text, _ in pairs]
    rates = iter(edit / count for edit, count in zip(edits, words, strict=True))
    by_image = [[next(rates) for _ in usable] for usable in references.values()]
    means, bests = [fmean(each) for each in by_image], [min(each) for each in by_image]
    first = fmean(each[0] for each in by_image)
    values = {"wer": fmean(means), "wer_best": fmean(bests), "wer_first": first, "wer_pooled": sum(edits) / sum(words)}
    return _Part(values, {"wer": means, "wer_best": bests})


def _variety(
    references: Captions, hypotheses: Captions, train_captions: Collection[str], vocabulary_size: int | None
) -> _Part:
    """How long the captions are, how many differ, how many are train captions, how many words they use."""
    texts = [text for (text,) in hypotheses.values()]
    lengths = [len(text.split()) for text in texts]
    expected = [fmean(len(text.split()) for text in usable) for usable in references.values()]
    values = {"length_ratio": sum(lengths) / sum(expected), "distinct_captions": len(set(texts)) / len(texts)}
    reasons = {}
    if train_captions:
        known = {_words_joined(caption) for caption in train_captions} - {""}
        values["copied_from_train"] = fmean(text in known for text in texts)
    else:
        reasons["copied_from_train"] = "no train captions were given"
    if vocabulary_size:
        values["vocabulary_used"] = len({word for text in texts for word in text.split()}) / vocabulary_size
    else:
        reasons["vocabulary_used"] = "no vocabulary was given"
    return _Part(values, {"words": lengths}, reasons)


def _meteors(references: Captions, several: Sequence[Captions]) -> list[_Part]:
    """METEOR of each captioner, by one process for all."""
    try:
        return [_Part({"meteor": value}, {"meteor": each}) for value, each in meteors.meteor(references, several)]
    except meteors.NoMeteorError as error:
        return [_Part(reasons={"meteor": str(error)})] * len(several)
