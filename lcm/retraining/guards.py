"""Guards: contributions that a person should look at before a model learns from them.

Knows four signs: one caption text, or one contributor, has too large a share of what is new; a caption fits its image
worse than nearly all other captions would; all of them together fit their images hardly better than any others. What is
found is kept out of this training and stays in the store. Refuses to know how a person decides: what is approved is
let through.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import numpy as np

from lcm.contributions.records import ContributedImage, Contribution
from lcm.data.text import standardise
from lcm.errors import ConfigError
from lcm.evaluation.gallery import evenly
from lcm.retraining.contributed import image_id

FEW = 10  # contributions that one text or one contributor may always have: of three, a share says nothing
NAMED = ":"  # a source without it names no contributor: "http", "import"; with it, "http:ann"
ENOUGH_TEXTS = 100  # other captions that an image can be asked about; where the new ones are fewer, base ones join
MOST_TEXTS = 1000
# A batch's mean share of captions that fit worse than their own: of 50 pairs or more, honest photos had 0.955 at least,
# honest pictures of a kind that the scorer had never seen 0.659, and captions sent with other images 0.589 at most.
ENOUGH_TEXTS_OF_BATCH, LEAST_FIT = 50, 0.62


class SentenceScorer(Protocol):
    """What says how well texts fit images: the tag scorer of a bundle."""

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        """Return unit vectors [B, D] of pooled features [B, F]."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors [K, D] of texts."""
        ...


@dataclass(frozen=True)
class Limits:
    """What may train without a person's look."""

    text_share: float  # of the new contributions that one caption text may have
    contributor_share: float  # of the new contributions that one named contributor may have
    misfit_share: float  # a caption that fits its image worse than all but this share of other captions is a misfit


@dataclass(frozen=True)
class Suspect:
    """A contribution that a person should look at."""

    contribution: Contribution
    reason: str


def find_suspects(
    images: Sequence[ContributedImage],
    limits: Limits,
    scorer: SentenceScorer | None,
    features: Mapping[str, np.ndarray],
    base_captions: Sequence[str],
) -> list[Suspect]:
    """Return those of the new contributions, each once, that a person should look at, in the order of arrival.

    `features` are pooled, by image_id; without `scorer`, or with a misfit share of 0, nothing is asked about fit.
    """
    asked = scorer and limits.misfit_share
    pairs = sorted(((one, image) for image in images for one in image.contributions), key=lambda pair: pair[0].id)
    found: dict[int, Suspect] = {}
    for suspect in (
        *_frequent_texts([one for one, _ in pairs], limits.text_share),
        *_frequent_contributors([one for one, _ in pairs], limits.contributor_share),
        *(_misfits(pairs, scorer, features, base_captions, limits.misfit_share) if asked and pairs else ()),
    ):
        found.setdefault(suspect.contribution.id, suspect)
    return sorted(found.values(), key=lambda one: one.contribution.id)


def _frequent_texts(new: Sequence[Contribution], share: float) -> Iterator[Suspect]:
    """Yield all contributions of a text that has too many."""
    most = max(FEW, int(share * len(new)))
    counts = Counter(_same(one) for one in new)
    for one in new:
        if (count := counts[_same(one)]) > most:
            yield Suspect(one, f"{count} of {len(new)} new contributions have this caption; at most {most} may")


def _frequent_contributors(new: Sequence[Contribution], share: float) -> Iterator[Suspect]:
    """Yield what a contributor sent beyond the most, the latest."""
    most = max(FEW, int(share * len(new)))
    counts = Counter(one.source for one in new if NAMED in one.source)
    so_far: Counter[str] = Counter()
    for one in new:
        so_far[one.source] += 1
        if counts[one.source] > most and so_far[one.source] > most:
            yield Suspect(
                one,
                f"{counts[one.source]} of {len(new)} new contributions are from {one.source}; the first {most} train",
            )


def _same(one: Contribution) -> str:
    return " ".join(standardise(one.caption))


def _misfits(
    pairs: Sequence[tuple[Contribution, ContributedImage]],
    scorer: SentenceScorer,
    features: Mapping[str, np.ndarray],
    base_captions: Sequence[str],
    share: float,
) -> Iterator[Suspect]:
    """Yield the contributions whose caption fits its image worse than nearly all others, or all, if they seem mixed up.

    The others are the new captions themselves: a new kind of image may be one that the scorer knows little about, and
    its own captions are then judged by one another.
    """
    texts = list(dict.fromkeys(one.caption for one, _ in pairs))
    others = [texts[place] for place in evenly(MOST_TEXTS, len(texts))]
    if len(others) < ENOUGH_TEXTS:
        others += [base_captions[place] for place in evenly(ENOUGH_TEXTS - len(others), len(base_captions))]
    worse = _shares_worse(pairs, scorer, features, others)
    by_text = {one.caption: its for (one, _), its in zip(pairs, worse, strict=True)}  # each text counts once
    mean = fmean(by_text.values())
    shuffled = len(by_text) >= ENOUGH_TEXTS_OF_BATCH and mean < LEAST_FIT
    for (one, _), its in zip(pairs, worse, strict=True):
        if shuffled:
            reason = f"{len(by_text)} new captions fit their images better than {mean:.0%} of others, on average"
            yield Suspect(one, f"{reason}: were they sent with the wrong images?")
        elif its < share:
            yield Suspect(one, f"it fits its image worse than {1 - its:.0%} of {len(others)} other captions")


def _shares_worse(
    pairs: Sequence[tuple[Contribution, ContributedImage]],
    scorer: SentenceScorer,
    features: Mapping[str, np.ndarray],
    others: Sequence[str],
) -> list[float]:
    """Return of each pair the share of other captions that fit its image worse than its own; half of them by chance."""
    names = list(dict.fromkeys(image_id(image) for _, image in pairs))
    places = {name: place for place, name in enumerate(names)}
    seen = scorer.image_vectors(np.stack([features[name] for name in names]))
    own, other = scorer.text_vectors([one.caption for one, _ in pairs]), scorer.text_vectors(others)
    cosines = ((seen[places[image_id(image)]], vector) for (_, image), vector in zip(pairs, own, strict=True))
    return [float((other @ image < vector @ image - 1e-6).mean()) for image, vector in cosines]


def check_limits(limits: Limits) -> None:
    """Raise ConfigError unless every share is one."""
    for name, value in vars(limits).items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value!r}; it must be 0 to 1")
