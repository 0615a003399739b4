"""Captioners by name: the table; and the captioner of a bundle, an image in, a description out.

Knows which captioners there are, how to find a bundle with its encoder and its tag scorer, and how pictures become its
descriptions, one or many. Refuses to know HTTP, files of results and metrics.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcm.captioning.blip import BLIP_CHECKPOINT, BlipCaptioner
from lcm.captioning.bundle import MANIFEST, Bundle
from lcm.captioning.confidence import Calibration
from lcm.captioning.describing import BaseCaptioner, Captioner, Description, SeenImage, Source
from lcm.captioning.nearest import NearestCaptioner
from lcm.captioning.scorers import load_chooser, load_tag_scorer
from lcm.captioning.tagging import Photo, rank, tag_candidates
from lcm.captioning.writing import Written, add_samples, best_captions
from lcm.data.images import read_image
from lcm.encoding.encoders import find_encoder
from lcm.encoding.parallel import map_in_order
from lcm.errors import BadImageError, BundleError, ConfigError
from lcm.folders import resource

SHIPPED_BUNDLE = "data/models/flickr8k"
PART = 16  # images that a thread describes at once


@dataclass(frozen=True)
class _Seen:
    """One image after encoding: its features and its vector for tags, or why it could not be read."""

    source: Source
    features: np.ndarray | None  # [D] or [N, D]
    tag_vector: np.ndarray | None
    error: BadImageError | None = None


class BundleCaptioner(BaseCaptioner):
    """A bundle with its encoder: the whole way from a picture to its description, in ONNX Runtime alone.

    Its `describe` takes a SeenImage too, which `see` gives.
    """

    def __init__(self, folder: Path, tagger: str | None = None, threads: int = 0):
        """Load both; `tagger` is as load_captioner takes it, `threads` the cores that encoding one image uses.

        Raises BundleError when the bundle is damaged or the encoder is not the one it knows.
        """
        self._bundle = Bundle(folder)
        self._encoder = find_encoder(self._bundle.manifest.encoder, threads)
        self.name, self.encoder = self._bundle.manifest.name, self._encoder.identity
        self.feature_kinds = tuple({"pooled": None, self._bundle.manifest.feature_kind: None})
        self.tag_scorer = load_tag_scorer(tagger, folder, self._bundle.manifest)
        self._chooser = load_chooser(folder, self._bundle.manifest, self.tag_scorer)
        self._calibration = _load_calibration(folder, self._bundle.manifest.calibration)

    def _describe_all(
        self, images: Iterable[Source], samples: int, labels: Sequence[str] | None, workers: int
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        def work(part: Sequence[Source | SeenImage]) -> list[tuple[Source, Description | BadImageError]]:
            return list(self._describe(list(map(self._see, part)), samples, labels))

        for part in map_in_order(work, images, PART, workers):
            yield from part

    def see(self, image: Source) -> SeenImage:
        """Read and encode an image by itself: in a batch, its features would have other last digits."""
        pixels = read_image(image, self._encoder.spec.size)
        encoded = self._encoder.encode(pixels[None], self.feature_kinds)
        return SeenImage(image, pixels, {kind: features[0] for kind, features in encoded.items()})

    def _see(self, image: Source | SeenImage) -> _Seen:
        """Return what captions and tags are made from; the pixels are let go, for many images wait here."""
        source = image.source if isinstance(image, SeenImage) else image
        try:
            seen = image if isinstance(image, SeenImage) else self.see(image)
            photo = Photo(source, seen.features)
            vector = self.tag_scorer.image_vector(photo) if self.tag_scorer else None  # it may read the image anew
        except BadImageError as error:
            return _Seen(source, None, None, error)
        return _Seen(source, photo.features[self._bundle.manifest.feature_kind], vector)

    def _describe(
        self, part: Sequence[_Seen], samples: int, labels: Sequence[str] | None
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image of a part with its description or its error."""
        good = [one for one in part if one.error is None]
        written = iter(self._write(np.stack([one.features for one in good]), samples) if good else ())
        for one in part:
            yield one.source, one.error or self._description(*next(written), one.tag_vector, labels)

    def _write(self, features: np.ndarray, samples: int) -> Iterator[tuple[Written, list[str]]]:
        """Yield each image's best caption and all its captions, from its features [B, D] or [B, N, D]."""
        manifest = self._bundle.manifest
        best = best_captions(self._bundle, features, manifest.beam_width, manifest.max_words, self._chooser)
        texts = [one.text for one in best]
        yield from zip(best, add_samples(self._bundle, features, texts, samples, manifest.max_words), strict=True)

    def _description(
        self, best: Written, captions: Sequence[str], tag_vector: np.ndarray | None, labels: Sequence[str] | None
    ) -> Description:
        tags = rank(self.tag_scorer, tag_vector, tag_candidates(captions, labels)) if self.tag_scorer else ()
        confidence = self._calibration.confidence(best.mean_log_prob) if self._calibration else None
        return Description(best.text, tuple(captions), tags, self.name, confidence)


def _load_calibration(folder: Path, record: Mapping[str, Any]) -> Calibration | None:
    """Return the curve that a manifest's `calibration` holds, None for an empty one; raises BundleError for another."""
    try:
        return Calibration.from_record(record) if record else None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(
            f"{folder / MANIFEST} holds a calibration that is damaged ({type(error).__name__}: {error}); export or "
            "evaluate the bundle again"
        ) from error


CAPTIONERS: dict[str, Callable[[str, str | None, int], Captioner]] = {
    "bundle": lambda folder, tagger, threads: BundleCaptioner(_folder_or_shipped(folder), tagger, threads),
    "blip": lambda checkpoint, tagger, _threads: BlipCaptioner(checkpoint or BLIP_CHECKPOINT, tagger),
    "nearest": NearestCaptioner,
}


def load_captioner(captioner: str | Path | None = None, tagger: str | None = None, threads: int = 0) -> Captioner:
    """Return the captioner that is asked for: KIND or KIND:ARGUMENT, a kind being in CAPTIONERS, or a bundle's folder.

    bundle:FOLDER, as FOLDER alone; `bundle`, as nothing at all, is the bundle that lcm ships. blip:CHECKPOINT, a name
    on the model hub or a folder; `blip` is BLIP_CHECKPOINT. nearest:RUN_DIR, a run's folder that 01_prepare has filled.

    `tagger` is a name in scorers.TAG_SCORERS, or the name or the folder of a CLIP checkpoint; without one, a bundle's
    own tag scorer is used, where it has one. `threads` is the number of cores one call uses (0: all), where that can be
    chosen. Raises ConfigError for an unknown kind or tagger, BundleError when there is no whole bundle or checkpoint,
    DataError when a run is not prepared.
    """
    kind, argument = _parse(captioner)
    return CAPTIONERS[kind](argument, tagger, threads)


def bundle_folder(captioner: str | Path | None = None) -> Path | None:
    """Return the folder of the bundle that load_captioner would load; None for other kinds of captioners.

    Raises ConfigError for an unknown kind.
    """
    kind, argument = _parse(captioner)
    return _folder_or_shipped(argument) if kind == "bundle" else None


def _folder_or_shipped(folder: str) -> Path:
    return Path(folder) if folder else resource(SHIPPED_BUNDLE)


def _parse(captioner: str | Path | None) -> tuple[str, str]:
    """Return kind and argument of a captioner; raises ConfigError for an unknown kind."""
    kind, _, argument = str(captioner or "bundle").partition(":")
    if isinstance(captioner, Path) or kind not in CAPTIONERS:
        if isinstance(captioner, str) and "/" not in captioner and not Path(captioner).is_dir():
            raise ConfigError(
                f"unknown captioner {captioner!r}; choose from {', '.join(CAPTIONERS)}, or give the folder of a bundle"
            )
        kind, argument = "bundle", str(captioner)
    if argument.startswith("~"):  # a shell leaves it be behind a colon
        argument = str(Path(argument).expanduser())
    return kind, argument
