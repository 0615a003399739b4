"""The self-test: whether a captioner that was loaded also works.

Knows what any description must be like, and a few drawn pictures that a captioner has to describe before it answers
others. Refuses to know whether its captions are good: the gate decides that.
"""

import io
import math
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from lcm.captioning.captioners import load_captioner
from lcm.captioning.describing import Captioner, Description
from lcm.errors import BundleError, LcmError

SUM_TOLERANCE = 1e-6  # of the scores' sum; float64 is off by far less


def fault_of(description: Description) -> str:
    """Return what makes it no description, empty when it is one.

    Tags out of order, no numbers or not summing to 1; no captions, or not the caption first, unless it was contributed
    and so may be in another language; a confidence that is no probability. An empty caption is one: there is nothing to
    say of some pictures.
    """
    captions, confidence = description.english_captions, description.confidence
    is_first = bool(captions) and (description.contribution is not None or captions[0] == description.caption)
    if not is_first or not all(isinstance(text, str) for text in captions):
        return "the captioner gave no captions, or not its caption first"
    if confidence is not None and not 0 <= confidence <= 1:
        return "the confidence is no number from 0 to 1"
    return _fault_of_tags(description.tags)


def _fault_of_tags(tags: tuple[tuple[str, float], ...]) -> str:
    words, scores = [word for word, _ in tags], [score for _, score in tags]
    if not all(isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1 for score in scores):
        return "a tag's score is no number from 0 to 1"
    if any(first < second for first, second in pairwise(scores)) or len(set(words)) < len(words):
        return "the tags are out of order, or one is there twice"
    if tags and abs(sum(scores) - 1) > SUM_TOLERANCE:
        return "the tags' scores do not sum to 1"
    return ""


def load_tested(folder: Path, tagger: str | None = None, threads: int = 0) -> Captioner:
    """Load a bundle as load_captioner does and let it pass the self-test; it is warm then.

    Raises LcmError for whatever goes wrong: files that have their hashes may still hold anything.
    """
    try:
        captioner = load_captioner(folder, tagger, threads)
        self_test(captioner)
    except LcmError:
        raise
    except Exception as error:  # numpy, ONNX Runtime and others have no common class for what they raise
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise BundleError(
            f"the bundle {folder} does not work ({type(error).__name__}: {reason}); train or export it again"
        ) from error
    return captioner


def self_test(captioner: Captioner) -> None:
    """Let a captioner describe each golden picture twice.

    Raises BundleError when a description is none, has an empty caption or is another one the second time, and
    whatever else the captioner raises.
    """
    for name, picture in golden_pictures().items():
        first, second = captioner.describe(picture), captioner.describe(picture)
        fault = fault_of(first)
        if not fault and not all(text.strip() for text in first.english_captions):
            fault = "a caption is empty"
        if not fault and first != second:
            fault = "it is described otherwise the second time"
        if fault:
            raise BundleError(f"{captioner.name} fails its self-test on the {name}: {fault}; train or export it again")


def golden_pictures() -> dict[str, bytes]:
    """Return the pictures of the self-test by name: grey, a landscape, and a wide one with transparency."""
    landscape = Image.new("RGB", (320, 240), (120, 170, 230))
    draw = ImageDraw.Draw(landscape)
    draw.rectangle((0, 150, 320, 240), fill=(60, 140, 50))
    draw.ellipse((240, 20, 290, 70), fill=(250, 220, 60))
    draw.rectangle((90, 100, 150, 190), fill=(200, 40, 40))
    banner = Image.new("RGBA", (400, 60), (0, 0, 0, 0))
    ImageDraw.Draw(banner).rectangle((40, 10, 300, 50), fill=(30, 60, 200, 200))
    pictures = {"gradient": (Image.linear_gradient("L"), "PNG"), "landscape": (landscape, "JPEG")}
    return {name: _encode(*one) for name, one in (pictures | {"banner": (banner, "PNG")}).items()}


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
