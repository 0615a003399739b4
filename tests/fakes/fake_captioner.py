"""A captioner that needs no model: what it says tells which images it saw together.

Run as a module it is `lcm caption` with that captioner, which says "waiting" once it has described a number of images
and then waits: python -m tests.fakes.fake_captioner IMAGES FILE_LIMIT ARGUMENTS…, with FILE_LIMIT bytes at most a file.
"""

import hashlib
import signal
import sys
from pathlib import Path

import numpy as np

from lcm.captioning import captioner as captioner_module
from lcm.captioning.captioner import PART
from lcm.captioning.description import SAMPLES, Captioner, Description
from lcm.captioning.tagging import SHARE, rank, tag_request
from lcm.errors import BadImageError

KNOWN = ("dog", "grass", "=1+1")


class FakeScorer:
    """Knows three words; its scores for an image are all others when one bit of the features is."""

    name, scale = "fake", 3.0
    curves = dict.fromkeys(("words", "labels"), (1.0, 0.0, -1.5)) | {"mean_image": (0.0, 0.0, 0.0)}

    def image_vector(self, photo) -> np.ndarray:
        digest = hashlib.sha256(photo.features["pooled"].tobytes()).digest()
        vector = np.frombuffer(digest[:3], np.uint8).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def text_vectors(self, texts) -> np.ndarray:
        return np.array([[text == word for word in KNOWN] for text in texts], np.float32).reshape(len(texts), 3)


class FakeCaptioner:
    """Takes a file that begins with "bad" for a bad image; a caption names the images that were seen together."""

    def __init__(self, waits_after: int | None = None):
        self.name, self.tag_scorer = "fake-1", FakeScorer()
        self.asked, self.confidence, self.waits_after = [], None, waits_after

    languages = offered = ("en", "fr")
    translated_from, terms = "en", None
    checked_language = Captioner.checked_language

    def unknown_labels(self, labels) -> tuple[str, ...]:
        return tuple(label for label in labels if label not in KNOWN)

    def describe_many(self, images, samples=SAMPLES, labels=None, workers=1, language="", scores=SHARE, min_score=None):  # noqa: ARG002
        images, wanted = list(images), tag_request(self.tag_scorer, labels, scores, min_score)
        for place, image in enumerate(images):
            if self.waits_after is not None and len(self.asked) == self.waits_after:
                print("waiting", flush=True)
                sys.stdin.read()
            self.asked.append(image)
            try:
                content = Path(image).read_bytes()
            except OSError:
                yield image, BadImageError(f"{Path(image).name!r}: no such file")
                continue
            if content.startswith(b"bad"):
                yield image, BadImageError(f"{Path(image).name!r}: it is bad")
                continue
            company = images[place // PART * PART]
            captions = (f"picture {len(content)}, in it a “dog”", *(f"{company!r} {n}" for n in range(samples)))
            vector = np.frombuffer((content * 3)[:3], np.uint8) / 255
            tags = rank(self.tag_scorer, vector, labels or KNOWN[:2], wanted) if self.tag_scorer else ()
            options = {"language": language or "en", "scores": scores}
            yield image, Description(captions[0], captions, tags, self.name, self.confidence, **options)


def main(waits_after: int, file_limit: int, *arguments: str) -> int:
    from lcm.cli import main

    if file_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    # Tests that run in the background inherit an ignored SIGINT, which Python then leaves ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    captioner_module.load_captioner = lambda *_: FakeCaptioner(waits_after)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
