"""The captioner of a bundle, captioners by name, and which bundle answers.

Published bundles ("versions") lie side by side in the folder `models` of the state folder; the file `current` there,
which lcm.registry writes, names one of them. Without it the shipped bundle is current, as the version `shipped`.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from lcm.captioning.bundle import Bundle
from lcm.captioning.decoding import write_captions
from lcm.captioning.description import Captioner, Description, PlattScaler
from lcm.captioning.peers import BLIP_CHECKPOINT, BlipCaptioner, NearestCaptioner
from lcm.captioning.taggers import load_reranker, load_tag_scorer
from lcm.captioning.tagging import SHARE, SeenImage
from lcm.data.images import Source
from lcm.data.remote import fetch
from lcm.data.text import ENGLISH
from lcm.errors import BundleError, ConfigError, LcmError
from lcm.paths import home, packaged_file

SHIPPED_BUNDLE = "data/models/flickr8k"
CURRENT, SHIPPED = "current", "shipped"  # versions that are always there; `current` is the pointer's file name too
PART = 16  # images that a thread describes at once


class BundleCaptioner(Captioner):
    """A bundle: the whole way from a picture to its description, in ONNX Runtime alone."""

    part = PART

    def __init__(self, folder: Path, tagger: str | None = None, threads: int = 0):
        """Load it; `tagger` is as load_captioner takes it, `threads` the cores that encoding one image uses.

        Raises BundleError when the bundle is damaged or its encoder gives other features here.
        """
        self._bundle = Bundle(folder)
        manifest = self._bundle.manifest
        self._encoder = self._bundle.encoder(threads)
        self.name, self.encoder = manifest.name, self._encoder.identity
        self.runs_on = self._encoder.provider
        self.languages = tuple(self._bundle.vocabulary.starts)
        self.feature_kinds = tuple({"pooled": None, manifest.feature_kind: None})
        self.tag_scorer = load_tag_scorer(tagger, folder, manifest)
        self._reranker = load_reranker(folder, manifest, self.tag_scorer, manifest.rerank_weight, manifest.length_power)
        self._calibration = PlattScaler(**manifest.calibration) if manifest.calibration else None

    def see(self, image: Source) -> SeenImage:
        """Read and encode an image by itself: in a batch, its features would have other last digits."""
        pixels = self._encoder.read(image)
        encoded = self._encoder.encode(pixels[None], self.feature_kinds)
        return SeenImage(image, pixels, {kind: features[0] for kind, features in encoded.items()})

    def write(self, images: Sequence[SeenImage], samples: int, language: str) -> list[tuple[list[str], float | None]]:
        manifest = self._bundle.manifest
        features, pooled = (
            np.stack([one.features[kind] for one in images]) for kind in (manifest.feature_kind, "pooled")
        )
        width, most, scaler = manifest.beam_width, manifest.max_words, self._calibration
        captions, mean_log_probs = write_captions(
            self._bundle, features, language, width, most, samples, self._reranker, pooled
        )
        return [
            (texts, scaler.confidence_in(texts[0], mean_log_prob, most, language) if scaler else None)
            for texts, mean_log_prob in zip(captions, mean_log_probs, strict=True)
        ]


CAPTIONERS: dict[str, Callable[[str, str | None, int], Captioner]] = {
    "bundle": lambda named, tagger, threads: BundleCaptioner(find_bundle(named), tagger, threads),
    "blip": lambda checkpoint, tagger, _threads: BlipCaptioner(checkpoint or BLIP_CHECKPOINT, tagger),
    "nearest": NearestCaptioner,
}


def load_captioner(captioner: str | Path | None = None, tagger: str | None = None, threads: int = 0) -> Captioner:
    """Return the captioner that is asked for: KIND or KIND:ARGUMENT, a kind being in CAPTIONERS, or a bundle.

    A bundle is what find_bundle takes, alone or after "bundle:". blip:CHECKPOINT is a name on the model hub or a folder
    (default: BLIP_CHECKPOINT), nearest:RUN_DIR a run's folder that 01_prepare has filled. `tagger` is a name in
    taggers.TAG_SCORERS, or the name or the folder of a CLIP or SigLIP 2; without one, a bundle's own is used. `threads`
    is the number of cores one call uses (0: all). Raises ConfigError for an unknown kind, version or tagger,
    BundleError when there is no whole bundle or checkpoint, DataError when a run is not prepared.
    """
    kind, _, argument = str(captioner or "bundle").partition(":")
    if isinstance(captioner, Path) or kind not in CAPTIONERS:
        kind, argument = "bundle", captioner
    elif argument.startswith("~"):  # a shell leaves it as it is behind a colon
        argument = str(Path(argument).expanduser())
    loaded = CAPTIONERS[kind](argument, tagger, threads)
    loaded.translator_names = os.environ.get("LCM_TRANSLATOR", "")
    return loaded


def find_bundle(explicit: str | Path | None = None, models: Path | None = None) -> Path:
    """Return the folder of the bundle that answers: `explicit`, else LCM_BUNDLE, else the current version.

    The first two are a version's name, "current" and "shipped" among them, a folder, or an address such as
    hf://OWNER/NAME, from which a process fetches it once. `models` is the folder of the versions (default: that of
    LCM_HOME). Raises ConfigError for an unknown version, BundleError when `current` cannot be read.
    """
    named = explicit or os.environ.get("LCM_BUNDLE", "").strip() or CURRENT
    models = models or models_folder()
    if named == CURRENT:
        try:
            return version_folder(models, current_version(models))
        except OSError as error:
            raise BundleError(f"{models / CURRENT} cannot be read ({error.strerror}); check who owns it") from error
    if isinstance(named, str) and "://" in named:
        return _fetch_once(named, "captioner" if explicit else "LCM_BUNDLE")
    if isinstance(named, str) and os.sep not in named:
        if named == SHIPPED or (models / named).is_dir():
            return version_folder(models, named)
        if not Path(named).is_dir():
            choices = ", ".join([*CAPTIONERS, CURRENT]) if explicit else CURRENT
            raise ConfigError(
                f"unknown {'captioner' if explicit else 'LCM_BUNDLE'} {named!r}; choose from {choices} and {SHIPPED}, "
                "or give the name of a version (lcm models list shows them) or the folder of a bundle"
            )
    return Path(named).expanduser().resolve()


_fetch_once = cache(fetch)  # a service asks twice a second


def models_folder() -> Path:
    """Return the folder of the versions, which need not be there."""
    return home() / "models"


def version_folder(models: Path, version: str) -> Path:
    """Return the folder that a version has or would have."""
    return packaged_file(SHIPPED_BUNDLE) if version == SHIPPED else models / version


def current_version(models: Path) -> str:
    """Return the name of the current version, which may be gone; raises OSError when `current` cannot be read.

    Where the file holds a path, only its last part counts.
    """
    if not (models / CURRENT).exists():
        return SHIPPED
    return Path((models / CURRENT).read_text(encoding="utf-8", errors="replace").strip()).name or "none"


def fault_of(description: Description) -> str:
    """Return what makes it no answer, empty when it is one: no caption, or numbers that are no shares, as NaN is.

    An empty caption is allowed: there is nothing to say of some pictures.
    """
    scores = [score for _, score in description.tags if description.scores == SHARE]
    if not description.english_captions and description.language == ENGLISH:
        return "the captioner gave no captions"
    if description.confidence is not None and not 0 <= description.confidence <= 1:
        return "the confidence is no number from 0 to 1"
    if scores and not (min(scores) >= 0 and abs(sum(scores) - 1) < 1e-6):  # float64 is off by far less
        return "the tags' scores are no shares: they do not sum to 1"
    return ""


def load_tested(folder: Path, tagger: str | None = None, threads: int = 0) -> Captioner:
    """Load a bundle as load_captioner does and let it describe two drawn images twice each; it is warm then.

    Raises LcmError for whatever goes wrong: files that have their hashes may still hold anything.
    """
    try:
        captioner = load_captioner(folder, tagger, threads)
        fractal = Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 50)
        for name, picture in {"gradient": Image.linear_gradient("L"), "fractal": fractal}.items():
            first, second = (captioner.describe(picture) for _ in range(2))
            silent = not all(text.strip() for text in (first.caption, *first.english_captions))
            other = "it is described otherwise the second time" if first != second else ""
            if fault := fault_of(first) or ("a caption is empty" if silent else other):
                raise BundleError(
                    f"{captioner.name} fails its self-test on the {name}: {fault}; train or export it again"
                )
    except LcmError:
        raise
    except Exception as error:  # numpy, ONNX Runtime and others have no common class for what they raise
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise BundleError(
            f"the bundle {folder} does not work ({type(error).__name__}: {reason}); train or export it again"
        ) from error
    return captioner
