"""Where things lie: what lcm ships, its state, and what can be made again.

Knows how a clone, an installed wheel and the environment variables decide that. Refuses to know what is in the folders.
"""

import os
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent


def resource(relative: str) -> Path:
    """Return a file or folder that lcm ships, such as "notebooks" or "data/models/flickr8k".

    An installed wheel carries it inside the package (beside it lie other packages, that may well be called
    "notebooks"); a clone has it beside the package.
    """
    in_wheel = PACKAGE_DIR / "shipped" / relative
    return in_wheel if in_wheel.exists() else PACKAGE_DIR.parent / relative


def home() -> Path:
    """Return the state folder: LCM_HOME, else `data/` of the clone, else the user's data folder."""
    if os.environ.get("LCM_HOME"):
        return Path(os.environ["LCM_HOME"]).expanduser().resolve()
    clone = PACKAGE_DIR.parent
    if (clone / "pyproject.toml").exists():
        return clone / "data"
    import platformdirs

    return Path(platformdirs.user_data_dir("lcm"))


def cache_dir() -> Path:
    """Return the folder of what can be made again, encoders and features: LCM_CACHE, else `cache` in home()."""
    if os.environ.get("LCM_CACHE"):
        return Path(os.environ["LCM_CACHE"]).expanduser().resolve()
    return home() / "cache"
