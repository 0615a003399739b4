"""The service with the tiny captioner, as the acceptance tests call it."""

import pytest

from lcm.captioning.captioner import BundleCaptioner
from tests.fakes.service_client import Caller, make_tiny_bundle, service_in


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return BundleCaptioner(make_tiny_bundle(folder, monkeypatch))


@pytest.fixture
def service(tmp_path, captioner):
    """Make a caller of a service with some settings; another captioner may be given."""

    def make(captioner=captioner, **changes) -> Caller:
        return service_in(tmp_path, captioner, **changes)

    return make


@pytest.fixture
def caller(service) -> Caller:
    return service()
