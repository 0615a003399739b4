"""Answers: a description as POST /learning-model gives it.

Knows the keys of the body, the X-LCM-… headers, and that an answer which is no strict JSON or breaks the contract
never leaves. Refuses to know captioners and Flask.
"""

import math
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from lcm.captioning.describing import Description
from lcm.service.refusals import BrokenAnswerError

CONTRIBUTION = "contribution"  # X-LCM-Source of an answer whose caption was contributed
SUM_TOLERANCE = 1e-6  # of the scores' sum; float64 is off by far less


def as_body(description: Description) -> dict[str, Any]:
    """Return the three keys of the answer; `captions` holds the caption in the service's language, English for now.

    A contributed caption stays in its own language; `english_captions` are English whatever it is.

    Raises BrokenAnswerError when the description is none: tags out of order, no number, not summing to 1, no caption.
    """
    _check_tags(description.tags)
    captions = description.english_captions
    contributed = description.contribution is not None
    is_first = bool(captions) and (contributed or captions[0] == description.caption)
    if not is_first or not all(isinstance(text, str) for text in captions):
        raise BrokenAnswerError("the captioner gave no captions, or not its caption first")
    return {
        "tags": [[word, score] for word, score in description.tags],
        "captions": [description.caption],
        "english_captions": list(captions),
    }


def _check_tags(tags: tuple[tuple[str, float], ...]) -> None:
    words, scores = [word for word, _ in tags], [score for _, score in tags]
    if not all(isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1 for score in scores):
        raise BrokenAnswerError("a tag's score is no number from 0 to 1")
    if any(first < second for first, second in pairwise(scores)) or len(set(words)) < len(words):
        raise BrokenAnswerError("the tags are out of order, or one is there twice")
    if tags and abs(sum(scores) - 1) > SUM_TOLERANCE:
        raise BrokenAnswerError("the tags' scores do not sum to 1")


def as_headers(description: Description, version: str, source: str) -> dict[str, str]:
    """Return the X-LCM-… headers of a description.

    `source` says which kind of captioner answers; CONTRIBUTION takes its place where the caption was contributed.
    Confidence is the calibrated probability of `Description.confidence`; it is left out where there is none.
    """
    source = source if description.contribution is None else CONTRIBUTION
    headers = {"X-LCM-Model": plain(description.model), "X-LCM-Model-Version": version, "X-LCM-Source": source}
    if description.confidence is not None:
        headers["X-LCM-Confidence"] = f"{description.confidence:.4f}"
    return headers


def plain(text: str) -> str:
    """Return a text as a header can carry it: what is not ASCII, and line breaks, as %XX."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~", errors="replace")
