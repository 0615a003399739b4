"""Bad habits of captions that scores reward or miss: breaking off, repeating themselves, always saying the same.

Knows which faults a caption can have by itself, and how often people have them. Refuses to know images and models.

Training for a score (self-critical training, Rennie et al. 2017) can bring all three about: word sequences that pay are
written twice, sentences are left open, one caption that suits many images is preferred to one for each. CIDEr hardly
shows it. `lcm.evaluation.metrics` has more signs of it: distinct_captions, copied_from_train, vocabulary_used.

Edge cases: an empty caption neither breaks off nor repeats anything, but can be the most frequent one; without captions
all shares are None. Captions are compared as `lcm.data.vocabulary.standardise` gives them. English only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from statistics import fmean

from lcm.data.keywords import is_content_word
from lcm.data.vocabulary import standardise

# Articles, possessives, prepositions, conjunctions and auxiliaries after which something must follow, more of them than
# ruotianluo/self-critical.pytorch counts (eval_utils.py, "bad_endings"). Not "her", "outside", "down", "by", "behind":
# people end captions well with these. Of Flickr8k's 35,455 captions 0.6 % end with a word of the list, and 0.1 % with
# another than "on" ("as people look on").
# fmt: off
BAD_ENDINGS = frozenset({
    "a", "an", "the", "his", "its", "my", "our", "their", "your", "'s",
    "against", "at", "beside", "between", "for", "from", "in", "into", "of", "on", "onto", "through", "to", "toward",
    "towards", "upon", "with", "without",
    "and", "as", "but", "or", "than", "while",
    "am", "are", "be", "is", "was", "were",
})
# fmt: on
NO_CAPTIONS = "there are no captions"


@dataclass(frozen=True)
class Habits:
    """How often captions have bad habits: shares of the captions, lower is better; None where there are none."""

    bad_endings: float | None  # end with a word after which something must follow
    repeated_words: float | None  # hold a word twice running, or two neighbouring words twice, one a content word
    most_frequent_caption: float | None  # are the one caption that most of them are

    def as_metrics(self, suffix: str = "") -> dict[str, float | str | None]:
        """Return the flat object for metrics.json, `suffix` after each name; `<name>_reason` where one is None."""
        flat = {f"{each.name}{suffix}": getattr(self, each.name) for each in fields(self)}
        return flat | {f"{name}_reason": NO_CAPTIONS for name, value in flat.items() if value is None}


def habits_of(captions: Sequence[str]) -> Habits:
    """Return the habits of captions, one an image."""
    if not captions:
        return Habits(None, None, None)
    texts = [tuple(standardise(caption)) for caption in captions]
    return Habits(
        bad_endings=fmean(ends_badly(text) for text in texts),
        repeated_words=fmean(repeats(text) for text in texts),
        most_frequent_caption=max(Counter(texts).values()) / len(texts),
    )


def compare_habits(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | str | None]:
    """Return the captions' habits for metrics.json, and as a yardstick, ending in `_people`, those of the references.

    One reference an image counts, its first, so that the most frequent caption is sought among as many.
    """
    people = habits_of([first for first, *_ in filter(None, references)])
    return habits_of(captions).as_metrics() | people.as_metrics("_people")


def ends_badly(words: Sequence[str]) -> bool:
    """Return whether the last of the standardised words leaves the sentence open."""
    return bool(words) and words[-1] in BAD_ENDINGS


def repeats(words: Sequence[str]) -> bool:
    """Return whether a word stands twice running, or two neighbours come again ("a dog and a dog").

    Neighbours without a content word ("in the … in the") may come again.
    """
    pairs = list(pairwise(words))
    telling = [pair for pair in pairs if any(map(is_content_word, pair))]
    return any(first == second for first, second in pairs) or len(set(telling)) < len(telling)
