"""Scores of captions against what people wrote: CIDEr, BLEU, METEOR, ROUGE-L, WER, how varied the captions are, and
how often they degenerate.

All texts pass through `lcm.data.text.standardise` before anything is compared. Published numbers use the Penn Treebank
tokeniser of coco-caption instead; on human captions of Flickr8k dev that moves CIDEr and METEOR by less than 0.001,
BLEU-4 and ROUGE-L by less than 0.0001.

Edge cases: a reference that is empty once standardised is dropped; an image that has no reference then is skipped and
counted; an empty hypothesis is scored, as the worst there is (WER 1, the others 0); a score that cannot be computed is
None, and `Scores.reasons` says why.

Shapes: B images, S captions of each, 10 BLEU counts: four of agreeing n-grams, four of all n-grams, words of the
hypothesis, words of the reference nearest in length.
"""

import math
import shutil
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from sys import intern

import numpy as np

from lcm.data.dataset import LabelledImage
from lcm.data.text import ENGLISH, breaks_off, comparison_form, is_broken, join_words, repeats, standardise
from lcm.errors import require

Captions = dict[int, list[str]]  # an image's place among all -> its standardised captions, as pycocoevalcap has it

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
    length_ratio: float | None = None  # words of all hypotheses / mean words of their references; 1 is best
    distinct_captions: float | None = None  # different hypotheses / hypotheses
    copied_from_train: float | None = None  # hypotheses that are also a train caption; neither good nor bad alone
    vocabulary_used: float | None = None  # words of the run's vocabulary that any hypothesis holds / all of it
    reasons: dict[str, str] = field(default_factory=dict)  # why a metric is None
    # cider, bleu_4, meteor, wer and wer_best, each a list along the images as given with None at a skipped one; a
    # metric that is None has no list.
    per_image: dict[str, list[float | None]] = field(default_factory=dict)
    bleu_counts: np.ndarray | None = field(default=None, compare=False)  # [images, 10]: what BLEU is made of

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json: every metric, both counts, `<metric>_reason` where it is None."""
        flat: dict[str, float | str | None] = {name: getattr(self, name) for name in METRICS}
        flat |= {"images": self.images, "skipped_images": self.skipped_images}
        return flat | {f"{name}_reason": reason for name, reason in self.reasons.items()}


METRICS = tuple(each.name for each in fields(Scores) if each.default is None and each.compare)


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]], **options) -> Scores:
    """Score the model's caption of each image, `hypotheses[i]`, against its human ones; options as in score_several."""
    return score_several([hypotheses], references, **options)[0]


def score_languages(hypotheses: Sequence[str], images: Sequence[LabelledImage], **options) -> dict[str, Scores]:
    """Score the captions of images in several languages, each language by itself; options are those of `score`."""
    pairs: dict[str, list] = {}
    for text, image in zip(hypotheses, images, strict=True):
        pairs.setdefault(image.language, []).append((text, image.captions))
    return {code: score(*zip(*its, strict=True), language=code, **options) for code, its in pairs.items()}


def score_several(
    captioners: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    train_captions: Collection[str] = (),
    vocabulary: Collection[str] = (),
    meteor: bool = True,
    language: str = ENGLISH,
) -> list[Scores]:
    """Score several captioners on the same images, each as `score` does.

    `vocabulary` are the words that a model of this run can write. `meteor=False` saves the ten seconds that its Java
    process takes to start; it knows English only.
    """
    assert all(len(its) == len(references) for its in captioners), "a captioner has one caption an image"
    joined = ([text for text in map(_standard, each) if text] for each in references)
    usable = {place: texts for place, texts in enumerate(joined) if texts}
    skipped = len(references) - len(usable)
    if not usable:
        why = f"no image has a usable reference ({skipped} skipped)" if skipped else "there are no images"
        return [Scores(images=0, skipped_images=skipped, reasons=dict.fromkeys(METRICS, why)) for _ in captioners]
    several = [{place: [_standard(its[place])] for place in usable} for its in captioners]
    why = "not asked for" if not meteor else f"its synonyms and paraphrases are English, not {language}"
    meteors = score_meteor(usable, several) if meteor and language == ENGLISH else [why] * len(several)
    known = {_standard(caption) for caption in train_captions} - {""}
    return [
        _score(usable, ours, its_meteor, known, set(map(comparison_form, vocabulary)), skipped)
        for ours, its_meteor in zip(several, meteors, strict=True)
    ]


def _standard(caption: str) -> str:
    return " ".join(standardise(caption))


def _score(
    references: Captions,
    hypotheses: Captions,
    meteor: tuple[float, list[float]] | str,
    known: Collection[str],
    vocabulary: set[str],
    skipped: int,
) -> Scores:
    """Score one captioner; `meteor` is METEOR of the set and of each image, or why it is missing."""
    texts = [text for (text,) in hypotheses.values()]
    words = [text.split() for text in texts]
    values: dict[str, float] = {}
    per_image: dict[str, Sequence[float]] = {}
    reasons: dict[str, str] = {}
    if len(references) < 2:
        reasons["cider"] = "needs two images: over one alone every n-gram weighs log 1 = 0"
    else:
        # Interned, each word is kept once and not at every place where it stands.
        scorer = CiderD([[[*map(intern, text.split())] for text in usable] for usable in references.values()])
        per_image["cider"] = scorer.score(range(len(texts)), [[each] for each in words])[:, 0]
        values["cider"] = per_image["cider"].mean()
    counts = count_ngrams(references, hypotheses)
    values |= dict(zip(BLEU, bleu(counts.sum(axis=0)), strict=True))
    per_image["bleu_4"] = bleu(counts)[:, -1]
    if isinstance(meteor, str):
        reasons["meteor"] = meteor
    else:
        values["meteor"], per_image["meteor"] = meteor
    rouge = require("pycocoevalcap.rouge.rouge", "evaluate").Rouge()
    values["rouge_l"], _ = rouge.compute_score(references, hypotheses)
    wer = require("jiwer", "evaluate").wer  # of a pair: words changed, added or missing, by the words of the reference
    rates = [[wer(one, text) for one in usable] for usable, text in zip(references.values(), texts, strict=True)]
    per_image |= {"wer": [fmean(each) for each in rates], "wer_best": [min(each) for each in rates]}
    values |= {name: fmean(per_image[name]) for name in ("wer", "wer_best")}

    expected = [fmean(len(one.split()) for one in usable) for usable in references.values()]
    values["length_ratio"] = sum(map(len, words)) / sum(expected)
    values["distinct_captions"] = len(set(texts)) / len(texts)
    if known:
        values["copied_from_train"] = fmean(text in known for text in texts)
    if vocabulary:
        values["vocabulary_used"] = len({word for each in words for word in each} & vocabulary) / len(vocabulary)
    given = {"copied_from_train": "train captions were", "vocabulary_used": "vocabulary was"}
    reasons |= {name: f"no {what} given" for name, what in given.items() if name not in values}
    by_place = {name: dict(zip(references, map(float, each), strict=True)) for name, each in per_image.items()}
    return Scores(
        images=len(texts),
        skipped_images=skipped,
        **{name: float(value) for name, value in values.items()},
        reasons=reasons,
        per_image={name: [its.get(place) for place in range(len(texts) + skipped)] for name, its in by_place.items()},
        bleu_counts=counts,
    )


def score_meteor(references: Captions, several: Sequence[Captions]) -> list[tuple[float, list[float]] | str]:
    """Return METEOR 1.5 (Denkowski and Lavie 2014) of the set and of each image, or why not, for several captioners."""
    if shutil.which("java") is None:
        return ["Java is missing; METEOR is a Java program: install a Java runtime"] * len(several)
    meteor = require("pycocoevalcap.meteor.meteor", "evaluate").Meteor()
    try:
        return [meteor.compute_score(references, hypotheses) for hypotheses in several]
    except (OSError, ValueError) as error:
        meteor.lock.release()  # or its end would wait for it forever
        why = str(error)
    finally:
        meteor.meteor_p.kill()  # it holds 2 GB, and takes a second to end by itself
        _, complaints = meteor.meteor_p.communicate()
    last_line = complaints.decode(errors="replace").strip().rpartition("\n")[2]
    return [f"METEOR's Java program failed: {last_line or why}"] * len(several)


ORDERS = 4  # words of the longest n-gram
TINY, SMALL = 1e-15, 1e-9  # what pycocoevalcap's bleu_scorer.py adds above and below, so that nothing is divided by 0


def count_ngrams(references: Captions, hypotheses: Captions) -> np.ndarray:
    """Return the BLEU counts [B, 10] of images, in the order of `references`.

    BLEU of a set is no mean over images, most of which have a BLEU-4 of 0 by themselves: its interval comes from
    drawing images, adding up their counts and taking BLEU of the sums.
    """
    scorer = require("pycocoevalcap.bleu.bleu_scorer", "evaluate")
    rows = []
    for place, usable in references.items():
        cooked = scorer.cook_test(hypotheses[place][0], scorer.cook_refs(usable), eff="closest")
        rows.append([*cooked["correct"], *cooked["guess"], cooked["testlen"], cooked["reflen"]])
    return np.array(rows, np.float64)


def bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-1 to BLEU-4 [..., 4] (Papineni et al. 2002) of sums [..., 10] of such counts."""
    correct, every = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]  # [..., 4] each
    precision = np.cumprod((correct + TINY) / (every + SMALL), axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (sums[..., -2:-1] + TINY) / (sums[..., -1:] + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


# Of pycocoevalcap.cider.cider_scorer.
SIZES = (1, 2, 3, 4)  # n; the score is the mean over them
SIGMA = 6.0  # words of difference in length that cost e**-0.5
SCALE = 10.0

Words = Sequence[Hashable]  # of a caption
NGram = tuple[Hashable, ...]
Vector = tuple[dict[NGram, float], float]  # how often each n-gram of a caption occurs, times its idf; Euclidean norm


class CiderD:
    """CIDEr-D against the captions of images, n-grams weighted by how few of the images' captions hold them.

    After Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation" (2015), details as in pycocoevalcap's
    cider_scorer.py, which takes 180 MB at 10,000 images, and no ids: self-critical training rewards these, END among
    them. A word may be anything hashable.
    """

    def __init__(self, references: Sequence[Sequence[Words]]):
        """`references`: for each image, its captions as words; those to be scored that end on END need it here too."""
        self._references = references
        self._rarest = math.log(max(1, len(references)))  # idf of what one image's captions hold, or none's
        self._idf = {ngram: self._rarest - math.log(images) for ngram, images in _shared_ngrams(references).items()}

    def score(self, places: Sequence[int], captions: Sequence[Sequence[Words]]) -> np.ndarray:
        """Return the CIDEr-D [B, S] of S captions for each of the images at `places`; 0 to 10.

        Empty captions and those of an image without references earn 0; of a single image, all do.
        """
        scores = []
        for place, candidates in zip(places, captions, strict=True):
            # Anew for each batch: of 30,000 captions these would fill 160 MB, to save 2 of 7 ms.
            references = [(len(one), self._vectors(one)) for one in self._references[place]]
            scores.append([_mean_similarity(len(one), self._vectors(one), references) for one in candidates])
        return SCALE * np.array(scores, dtype=np.float64)

    def _vectors(self, caption: Words) -> list[Vector]:
        """Return the vector of each n."""
        vectors = []
        for n in SIZES:
            counts = Counter(_ngrams(caption, n))
            weights = {ngram: count * self._idf.get(ngram, self._rarest) for ngram, count in counts.items()}
            vectors.append((weights, math.sqrt(sum(weight * weight for weight in weights.values()))))
        return vectors


def _ngrams(caption: Words, n: int) -> Iterator[NGram]:
    return zip(*(caption[start:] for start in range(n)), strict=False)


def _shared_ngrams(references: Sequence[Sequence[Words]]) -> dict[NGram, int]:
    """Return how many images' captions hold each n-gram that those of two or more do: one in five of all.

    One is counted only if both of its parts that are a word shorter are shared, which keeps memory small.
    """
    shared: dict[NGram, int] = {(): len(references)}
    for n in SIZES:
        counts: Counter[NGram] = Counter()
        for captions in references:
            found = {ngram for caption in captions for ngram in _ngrams(caption, n)}
            counts.update(ngram for ngram in found if ngram[1:] in shared and ngram[:-1] in shared)
        shared |= {ngram: images for ngram, images in counts.items() if images > 1}
    return shared


def _mean_similarity(length: int, vectors: list[Vector], references: list[tuple[int, list[Vector]]]) -> float:
    """Return the mean over references and n of the cosine, clipped and less for another length; 0 to 1."""
    total = 0.0
    for their_length, their_vectors in references:
        penalty = math.exp(-((length - their_length) ** 2) / (2 * SIGMA**2))
        for (ours, our_norm), (theirs, their_norm) in zip(vectors, their_vectors, strict=True):
            product = 0.0
            for ngram, weight in ours.items():
                if their_weight := theirs.get(ngram):
                    product += min(weight, their_weight) * their_weight  # what is said too often earns nothing
            if product:
                total += penalty * product / (our_norm * their_norm)
    return total / (len(SIZES) * max(1, len(references)))


DEGENERATION = ("bad_endings", "repeated_words", "most_frequent_caption")


def measure_degeneration(
    captions: Sequence[str], language: str = ENGLISH, suffix: str = ""
) -> dict[str, float | str | None]:
    """Return how often captions, one an image, break off, repeat themselves or are the one most frequent caption.

    Keys are those of metrics.json, `suffix` after each; shares, lower is better. Training for a score (Rennie et al.
    2017) can bring all three about, and CIDEr hardly shows it. An empty caption can only be the most frequent one.
    """
    names = [f"{name}{suffix}" for name in DEGENERATION]
    if not captions:
        return dict.fromkeys(names) | {f"{name}_reason": "there are no captions" for name in names}
    texts = [tuple(standardise(caption)) for caption in captions]
    shares = [fmean(sign(text, language) for text in texts) for sign in (breaks_off, repeats)]
    return dict(zip(names, [*shares, max(Counter(texts).values()) / len(texts)], strict=True))


def firsts(references: Sequence[Sequence[str]]) -> list[str]:
    """Return people's first caption of each image that has one: the yardstick, as many as a captioner writes."""
    return [first for first, *_ in filter(None, references)]


# Captions that are empty, break off or repeat words are 3.7 % of the shipped model's, of Flickr8k's dev as of COCO, and
# 1.5 to 3.5 % of people's; of models trained from scratch on 40 and 300 photos, 5 of 5 and 33 of 33.
BROKEN_MORE = 0.25  # share by which they are more than people's in degenerate output
# Of any 10 or 50 captions of the shipped model in a row at most two are the same. Photos of one event look alike, so an
# honest model may repeat itself more; what has learned nothing writes one caption for most.
SAME_MORE = 0.5  # share by which the most frequent caption is more than people's in degenerate output
LEAST_CAPTIONS = 3  # fewer of a kind are a sign only where there are no others: one may be an accident


def signs_of_degeneration(
    captions: Sequence[str], references: Sequence[Sequence[str]], images: str = "images", language: str = ENGLISH
) -> list[str]:
    """Return in words why captions, one an image, are degenerate, against the first reference of each image.

    Empty where they are not, or there are none; `images` says which they are.
    """
    ours, people = ([tuple(standardise(text)) for text in texts] for texts in (captions, firsts(references)))
    people = [text for text in people if text]
    said, signs = f"of the captions of {len(ours)} {images}", []
    broken, of_people = ([text for text in texts if is_broken(text, language)] for texts in (ours, people))
    more = len(broken) / max(1, len(ours)) - len(of_people) / max(1, len(people))
    if more > BROKEN_MORE and len(broken) >= min(LEAST_CAPTIONS, len(ours)):
        examples = [f", such as “{join_words(text)}”" for text, _ in Counter(filter(None, broken)).most_common(1)]
        its = f"{len(broken)} are empty, break off or repeat words (of people's, {len(of_people)})"
        signs.append("".join([f"{said}, {its}", *examples]))
    same_of_people = max(Counter(people).values(), default=0)
    for text, same in Counter(filter(None, ours)).most_common(1):
        more = same / len(ours) - same_of_people / max(1, len(people))
        if same >= LEAST_CAPTIONS and more > SAME_MORE:
            signs.append(f"{said}, {same} are the same (of people's, {same_of_people}): “{join_words(text)}”")
    return signs
