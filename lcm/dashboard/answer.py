"""An answer: what is said of a photo, as the page needs it, and the receipt of a correction.

Knows how a reply of the service becomes one or the other. Refuses to know who gave it and how it reads on the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from lcm.errors import LcmError
from lcm.service.answers import CONTRIBUTION


class DeskError(LcmError):
    """A service that does not answer, or refuses; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What is said of a photo."""

    caption: str
    others: tuple[str, ...]  # other captions, the best first
    tags: tuple[tuple[str, float], ...]  # best first
    model: str
    version: str  # first digits of the hash of the bundle's manifest; empty: unknown
    contributed: bool  # whether a person wrote the caption
    confidence: float | None  # of the caption; None: not calibrated, or contributed

    @classmethod
    def of(cls, body: Mapping[str, Any], headers: Mapping[str, str]) -> Self:
        """Build from a reply of POST /learning-model; raises DeskError when it is none."""
        try:
            caption, english = str(body["captions"][0]), [str(one) for one in body["english_captions"]]
            tags = tuple((str(word), float(score)) for word, score in body["tags"])
            confidence = headers.get("X-LCM-Confidence")
            return cls(
                caption,
                tuple(one for one in english if one != caption),
                tags,
                unquote(headers.get("X-LCM-Model", "")),
                headers.get("X-LCM-Model-Version", ""),
                headers.get("X-LCM-Source") == CONTRIBUTION,
                float(confidence) if confidence else None,
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DeskError("the service answered with something that is no description; is it lcm?") from error


@dataclass(frozen=True)
class Receipt:
    """That a contribution is kept."""

    number: int
    known: bool  # the same photo with the same caption was there before

    @classmethod
    def of(cls, body: Mapping[str, Any], headers: Mapping[str, str]) -> Self:
        """Build from a reply of POST /caption; raises DeskError when it is none, so that nothing is called kept."""
        number = body.get("id")
        if type(number) is not int:
            raise DeskError("the service did not say that it keeps the caption; is it lcm?")
        return cls(number, headers.get("X-LCM-Known") == "true")
