"""Where an answer's time goes: reading the photo, encoding it, searching for captions, choosing one, tags.

Knows the parts that a shipped captioner's answer is made of, in their order. Refuses to know how each works.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lcm.captioning.bundle import Bundle
from lcm.captioning.captioner import SHIPPED_BUNDLE
from lcm.captioning.decoding import Hypothesis, decode_beam
from lcm.captioning.taggers import DualEncoder, load_reranker
from lcm.captioning.tagging import rank, tag_candidates
from lcm.data.images import read_image
from lcm.features.encoders import find_encoder
from lcm.paths import packaged_file

READING, ENCODING, STARTING, SEARCHING, CHOOSING, TAGS = (
    "reading the photo",
    "encoding it",
    "reading the grid",
    "beam search",
    "choosing a caption",
    "tags",
)


class Parts:
    """The shipped captioner in its parts."""

    def __init__(self):
        """Load them, as captioners.BundleCaptioner does."""
        folder = packaged_file(SHIPPED_BUNDLE)
        self._bundle = Bundle(folder)
        self._encoder = find_encoder(self._bundle.manifest.encoder)
        self._scorer = DualEncoder(folder, self._bundle.manifest.tagger)
        self._chooser = load_reranker(folder, self._bundle.manifest, self._scorer)

    def time(self, photo: Path) -> dict[str, float]:
        """Return the seconds of each part, for a caption without samples; raises BadImageError for no photo."""
        seconds: dict[str, float] = {}

        def timed(part: str, work: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            done = work()
            seconds[part] = time.perf_counter() - started
            return done

        manifest = self._bundle.manifest
        pixels = timed(READING, lambda: read_image(photo, self._encoder.spec.size))
        features = timed(ENCODING, lambda: self._encoder.encode(pixels[None], ("pooled", "grid")))
        state = timed(STARTING, lambda: self._bundle.start(features[manifest.feature_kind]))
        search = (self._bundle.step, state, manifest.max_words, manifest.beam_width)
        (found,) = timed(SEARCHING, lambda: decode_beam(*search))
        caption = timed(CHOOSING, lambda: self._choose(features["pooled"], found))
        timed(TAGS, lambda: self._tags(features["pooled"], caption))
        return seconds

    def _choose(self, pooled, found: Sequence[Hypothesis]) -> str:
        texts = [self._bundle.vocabulary.decode(one.token_ids) for one in found]
        scores = [one.score_at(self._chooser.length_power) for one in found]
        (place,) = self._chooser.choose(pooled, [texts], [scores])
        return texts[place]

    def _tags(self, pooled, caption: str) -> None:
        (vector,) = self._scorer.image_vectors(pooled)
        rank(self._scorer, vector, tag_candidates([caption], None))


def measure(photos: Sequence[Path]) -> dict[str, list[float]]:
    """Return the seconds of each part, one a photo; the first photo warms up and does not count."""
    parts = Parts()
    each = [parts.time(photo) for photo in photos][1:]
    return {name: [one[name] for one in each] for name in (each[0] if each else ())}
