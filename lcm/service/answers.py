"""Answers: a description as POST /learning-model gives it.

Knows the keys of the body, the X-LCM-… headers, and that an answer which is no strict JSON or breaks the contract
never leaves. Refuses to know captioners and Flask.
"""

from typing import Any
from urllib.parse import quote

from lcm.captioning.captioner import fault_of
from lcm.captioning.description import Description
from lcm.service.refusals import BrokenAnswerError

CONTRIBUTION = "contribution"  # X-LCM-Source of an answer whose caption was contributed


def as_body(description: Description) -> dict[str, Any]:
    """Return the three keys of the answer; `captions` holds the caption in the service's language, English for now.

    A contributed caption stays in its own language; `english_captions` are English whatever it is.

    Raises BrokenAnswerError when the description is none, as fault_of says.
    """
    if fault := fault_of(description):
        raise BrokenAnswerError(fault)
    return {
        "tags": [[word, score] for word, score in description.tags],
        "captions": [description.caption],
        "english_captions": list(description.english_captions),
    }


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
