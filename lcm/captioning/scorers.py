"""Tag scorers by name: the table.

Knows which tag scorers there are and which one a captioner gets. Refuses to know how they score.
"""

from collections.abc import Callable
from pathlib import Path

from lcm.captioning import clip
from lcm.captioning.bundle import Manifest
from lcm.captioning.dual_encoder import DualEncoder
from lcm.captioning.tagging import TagScorer
from lcm.errors import BundleError, ConfigError

BUNDLED, NONE = "dual_encoder", "none"


def _bundled(folder: Path, manifest: Manifest) -> DualEncoder:
    """Return the tag scorer that the bundle carries; raises BundleError when it was trained without one."""
    if not manifest.tagger:
        raise BundleError(
            f"{folder} was trained without a tag scorer; train with -p tagger {BUNDLED}, or give the name or the "
            "folder of a CLIP checkpoint"
        )
    return DualEncoder(folder, manifest.tagger)


TAG_SCORERS: dict[str, Callable[[Path, Manifest], TagScorer | None]] = {
    BUNDLED: _bundled,
    "clip": lambda _folder, _manifest: clip.ClipScorer(),
    NONE: lambda _folder, _manifest: None,
}


def load_tag_scorer(tagger: str | None, folder: Path, manifest: Manifest) -> TagScorer | None:
    """Return the tag scorer of a name in TAG_SCORERS, or of a CLIP checkpoint's name ("owner/name") or folder.

    Without a name it is the bundle's own; None where it has none, and for "none".
    Raises ConfigError for an unknown name, BundleError when there is nothing to load.
    """
    if not tagger:
        return _bundled(folder, manifest) if manifest.tagger else None
    if tagger in TAG_SCORERS:
        return TAG_SCORERS[tagger](folder, manifest)
    if "/" in tagger or Path(tagger).is_dir():
        return clip.ClipScorer(tagger)
    raise ConfigError(
        f"unknown tagger {tagger!r}; choose from {', '.join(TAG_SCORERS)}, or give the name (owner/name) or the "
        "folder of a CLIP checkpoint"
    )
