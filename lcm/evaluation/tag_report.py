"""The tag scorer on held-out images: does it find their captions, order their key words, know words it never saw?

Knows which questions are asked of a tag scorer and how the answers read. Refuses to know how it was trained.

Shapes: B images, K texts, D numbers in a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.captioning.tagging import Photo, Tag, TagScorer, rank, tag_candidates
from lcm.data.keywords import content_words
from lcm.encoding.prepared import LabelledFeatures
from lcm.evaluation.retrieval import Recall, retrieval
from lcm.evaluation.tag_quality import TagComparison, compare_tags, folded_counts

NO_SCORER = "the bundle has no tag scorer"
NO_IMAGES = "there are no images"
NO_UNSEEN_WORDS = "the scorer can read no word of the references that the train captions lack and not all images have"


@dataclass(frozen=True)
class UnseenWord:
    """A word that no train caption holds, on held-out images whose captions hold it and on all others."""

    word: str
    images: int  # whose captions hold it
    fitting: float  # mean cosine with them
    others: float  # mean cosine with all other images
    auc: float  # chance that a fitting image has a higher cosine than another; 0.5 is guessing


@dataclass(frozen=True)
class TagReport:
    """What was measured; without a tag scorer or images, nothing but empty tags."""

    tags: list[tuple[Tag, ...]]  # of each image, best first
    recall: Recall | None = None  # of people's captions
    comparison: TagComparison | None = None
    unseen: tuple[UnseenWord, ...] = ()
    reason: str = NO_SCORER  # why there is neither recall nor comparison, where there is none

    @property
    def unseen_auc(self) -> float | None:
        """The mean over the unseen words, each counting as much; None where there are none."""
        return float(np.mean([one.auc for one in self.unseen])) if self.unseen else None

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json."""
        if self.recall is None or self.comparison is None:
            return {"tag_map": None, "tag_map_reason": self.reason}
        unseen = {"unseen_words": len(self.unseen), "unseen_words_auc": self.unseen_auc}
        if not self.unseen:
            unseen |= {"unseen_words_auc_reason": NO_UNSEEN_WORDS}
        return self.recall.as_metrics() | self.comparison.as_metrics() | unseen

    def as_table(self, unseen: int = 10) -> str:
        """Return the comparison, the recall and the `unseen` words with the most images as Markdown."""
        if self.recall is None or self.comparison is None:
            return self.reason
        recall = {"image → text": self.recall.image_to_text, "text → image": self.recall.text_to_image}
        ranks = sorted(self.recall.image_to_text)
        rows = [
            f"| {title} | " + " | ".join(f"{shares[k]:.3f}" for k in ranks) + " |" for title, shares in recall.items()
        ]
        words = sorted(self.unseen, key=lambda one: -one.images)[:unseen]
        cells = [f"| {w.word} | {w.images} | {w.fitting:.2f} | {w.others:.2f} | {w.auc:.2f} |" for w in words]
        heading = "| word no train caption holds | images | cosine, fitting | cosine, others | AUC |"
        return "\n".join(
            [
                self.comparison.as_table(),
                "",
                "| retrieval | " + " | ".join(f"recall@{k}" for k in ranks) + " |",
                "|---" * (len(ranks) + 1) + "|",
                *rows,
                *(["", heading, "|---|---|---|---|---|", *cells] if cells else []),
            ]
        )


def report_tags(
    scorer: TagScorer | None,
    held_out: LabelledFeatures,
    captions: Sequence[Sequence[str]],
    train_captions: Sequence[str],
) -> TagReport:
    """Measure `scorer` on held-out images with their pooled features and their generated captions, the best first."""
    if scorer is None or not captions:
        return TagReport([() for _ in captions], reason=NO_IMAGES if scorer else NO_SCORER)
    pooled = held_out.read(slice(0, None))
    photos = [Photo(image.path, {"pooled": row}) for image, row in zip(held_out.images, pooled, strict=True)]
    vectors = np.stack([scorer.image_vector(photo) for photo in photos])  # [B, D]
    tags = [rank(scorer, vector, tag_candidates(of)) for vector, of in zip(vectors, captions, strict=True)]
    counts = folded_counts(train_captions)
    return TagReport(
        tags,
        _recall(scorer, vectors, held_out.references),
        compare_tags([[word for word, _ in one] for one in tags], captions, held_out.references, counts),
        _unseen_words(scorer, vectors, held_out.references, counts),
    )


def _recall(scorer: TagScorer, vectors: np.ndarray, references: Sequence[Sequence[str]]) -> Recall:
    texts = [text for each in references for text in each]
    owner = np.repeat(np.arange(len(references)), [len(each) for each in references])
    return retrieval(vectors, scorer.text_vectors(texts), owner)


def _unseen_words(
    scorer: TagScorer, vectors: np.ndarray, references: Sequence[Sequence[str]], train_counts: Mapping[str, int]
) -> tuple[UnseenWord, ...]:
    """Return the content words of the references that no train caption holds and that the scorer can read."""
    holding: dict[str, set[int]] = {}
    for place, each in enumerate(references):
        for word in {word for text in each for word in content_words(text)}:
            holding.setdefault(word, set()).add(place)
    words = sorted(word for word, places in holding.items() if word not in train_counts and len(places) < len(vectors))
    unknown = set(scorer.unknown(words))
    words = [word for word in words if word not in unknown]
    found = []
    for word, text_vector in zip(words, scorer.text_vectors(words), strict=True):
        cosines = vectors @ text_vector  # [B]
        fits = np.isin(np.arange(len(vectors)), list(holding[word]))
        fitting, others = cosines[fits], cosines[~fits]
        auc = np.mean(fitting[:, None] > others) + np.mean(fitting[:, None] == others) / 2
        found.append(UnseenWord(word, len(fitting), float(fitting.mean()), float(others.mean()), float(auc)))
    return tuple(found)
