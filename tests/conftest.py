"""What several test modules share."""

import os
import sqlite3  # noqa: F401 - before TensorFlow, which brings another SQLite along, without full text search
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# On GitHub Actions, make says one line more, and a summary goes to the step's; tests are the same everywhere.
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
    os.environ.pop(name, None)

os.environ["no_proxy"] = "127.0.0.1,localhost"  # where the tests' own servers are

# Workers of pytest-xdist share the cores already: threads of each, in what they start as well, would only wait for
# each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """The folder of the real Flickr8k; skips where it is not, for its images may not be copied into the project."""
    folder = Path(os.environ.get("LCM_FLICKR8K") or ROOT.parent / "shared" / "flickr8k")
    if not folder.is_dir():
        pytest.skip(f"needs the Flickr8k data set, and {folder} is not a folder; set LCM_FLICKR8K to where it is")
    return folder


@pytest.fixture(scope="session")
def marian(tmp_path_factory) -> Path:
    """A checkpoint that translates a few English captions into French."""
    from tests.fakes.tiny_marian import make_marian

    return make_marian(tmp_path_factory.mktemp("marian") / "opus-mt-en-fr")


LONGEST = ("test_pipeline", "test_sample", "test_loop", "test_workflows", "test_docs", "test_server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take minutes first: at the end, one worker would wait for the other."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
