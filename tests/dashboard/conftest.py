"""A service with a tiny captioner of English and French, as the dashboard's tests ask it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcm.captioning.captioner import BundleCaptioner
from lcm.contributions.store import ContributionStore
from lcm.dashboard.language import PAGE
from serve import create_app
from tests.fakes.service_client import settings_for
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import save_bilingual


@pytest.fixture(scope="session")
def captioner(tmp_path_factory) -> BundleCaptioner:
    with pytest.MonkeyPatch.context() as monkeypatch:
        unsure = {"slope": 2.0, "intercept": -3.0}
        folder = tmp_path_factory.mktemp("captioner")
        encoder = use_tiny_encoder(folder, monkeypatch)
        return BundleCaptioner(save_bilingual(folder / "bundle", encoder, calibration=unsure))


@pytest.fixture(scope="session")
def run_service(captioner) -> Callable:
    """Run a service on a free port of this machine, as a context: `run_service(folder, store, **settings)`."""
    make_server = pytest.importorskip("werkzeug.serving", reason="needs the extra serve").make_server

    @contextmanager
    def run(folder: Path, store: ContributionStore, **settings) -> Iterator[str]:
        app = create_app(settings_for(folder, **{"memory": True} | settings), captioner=captioner, store=store)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

    return run


@pytest.fixture(autouse=True)
def english(monkeypatch) -> None:
    """Each test begins with a page in English."""
    monkeypatch.setattr(PAGE, "language", "en")


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "home" / "contributions")


@pytest.fixture
def address(run_service, tmp_path, store) -> Iterator[str]:
    """The address of a service that keeps contributions in `store`."""
    with run_service(tmp_path, store) as address:
        yield address
