"""What several test modules share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """The folder of the real Flickr8k; skips where it is not, for its images may not be copied into the project."""
    folder = Path(os.environ.get("LCM_FLICKR8K") or ROOT.parent / "shared" / "flickr8k")
    if not folder.is_dir():
        pytest.skip(f"needs the Flickr8k data set, and {folder} is not a folder; set LCM_FLICKR8K to where it is")
    return folder
