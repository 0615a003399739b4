"""Tag scorers by name: the table.

Knows which tag scorers there are, which one a captioner gets, and which one helps to choose captions. Refuses to know
how they score.
"""

from collections.abc import Callable
from pathlib import Path

from lcm.captioning import clip
from lcm.captioning.bundle import Manifest
from lcm.captioning.choosing import Chooser
from lcm.captioning.dual_encoder import DualEncoder
from lcm.captioning.tagging import TagScorer
from lcm.errors import BundleError, ConfigError

BUNDLED, NONE = "dual_encoder", "none"


def _bundled(folder: Path | None, manifest: Manifest | None) -> DualEncoder:
    """Return the tag scorer that the bundle carries.

    Raises BundleError when it was trained without one, ConfigError when there is no bundle.
    """
    if manifest is None:
        raise ConfigError(
            f"the tagger {BUNDLED} is a part of a bundle, which this captioner does without; give clip, or the name "
            "(owner/name) or the folder of a CLIP checkpoint"
        )
    if not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer; train with -p tagger {BUNDLED}, or give the name or the "
            "folder of a CLIP checkpoint"
        )
    return DualEncoder(folder, manifest.tagger)


TAG_SCORERS: dict[str, Callable[[Path | None, Manifest | None], TagScorer | None]] = {
    BUNDLED: _bundled,
    "clip": lambda _folder, _manifest: clip.ClipScorer(),
    NONE: lambda _folder, _manifest: None,
}


def load_tag_scorer(
    tagger: str | None, folder: Path | None = None, manifest: Manifest | None = None
) -> TagScorer | None:
    """Return the tag scorer of a name in TAG_SCORERS, or of a CLIP checkpoint's name ("owner/name") or folder.

    Without a name it is that of the bundle in `folder`; None where it has none or there is no bundle, and for "none".
    Raises ConfigError for an unknown name, BundleError when there is nothing to load.
    """
    if not tagger:
        return _bundled(folder, manifest) if manifest and manifest.tagger else None
    if tagger in TAG_SCORERS:
        return TAG_SCORERS[tagger](folder, manifest)
    if "/" in tagger or Path(tagger).is_dir():
        return clip.ClipScorer(tagger)
    raise ConfigError(
        f"unknown tagger {tagger!r}; choose from {', '.join(TAG_SCORERS)}, or give the name (owner/name) or the "
        "folder of a CLIP checkpoint"
    )


def load_chooser(
    folder: Path,
    manifest: Manifest,
    loaded: TagScorer | None = None,
    weight: float | None = None,
    length_power: float | None = None,
) -> Chooser | None:
    """Return what chooses among the beam's captions: the bundle's own tag scorer, whichever one scores the tags.

    `loaded` saves loading it twice where it is the one; `weight` and `length_power` stand in for the manifest's. None
    for weight 0. Raises BundleError when the bundle carries no tag scorer.
    """
    weight = manifest.match_weight if weight is None else weight
    if not weight:
        return None
    if not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer, which match_weight {weight:g} asks; train with -p tagger "
            f"{BUNDLED}, or evaluate with -p match_weight 0"
        )
    power = manifest.length_power if length_power is None else length_power
    return Chooser(loaded if isinstance(loaded, DualEncoder) else _bundled(folder, manifest), weight, power)
