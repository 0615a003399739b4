"""The service with the tiny captioner, as the acceptance tests call it."""

import pytest

from lcm.captioning.captioner import BundleCaptioner
from serve import create_app
from tests.fakes.service_client import Caller, DiskStore, MemoryStore, make_tiny_bundle, settings_for


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return BundleCaptioner(make_tiny_bundle(folder, monkeypatch))


@pytest.fixture
def service(tmp_path, captioner):
    """Make a caller of a service with some settings; what it is made of may be given."""

    def make(captioner=captioner, store=None, **changes) -> Caller:
        store = store or MemoryStore()
        return Caller(create_app(settings_for(tmp_path, **changes), captioner=captioner, store=store), store)

    return make


@pytest.fixture
def caller(service) -> Caller:
    return service()


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, captioner) -> Caller:
    """A caller of a service that keeps contributions in the real store, one for all tests of a module."""
    folder = tmp_path_factory.mktemp("service")
    store = DiskStore(folder / "contributions")
    return Caller(create_app(settings_for(folder), captioner=captioner, store=store), store)
