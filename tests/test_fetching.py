"""Fetching: a copy elsewhere becomes a store here, with the same numbers, whatever is damaged there."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from fsspec.asyn import AsyncFileSystem

from lcm.cli import main
from lcm.contributions.approvals import APPROVED
from lcm.contributions.fetching import GONE, ORIGIN, fetch, fetch_contributions
from lcm.contributions.store import ContributionStore
from lcm.contributions.target import MARKER, Target, TargetError
from lcm.data.remote import Address
from lcm.errors import ConfigError, DataError
from tests.fakes.contributed import files_of, picture
from tests.fakes.mirror_fakes import Store, down, make_mirror, make_target, skip_flushes

REMOTE_JSON = "contributions/{}.json"


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """Five contributions of four images; the second is revoked already."""
    skip_flushes(monkeypatch.setattr)
    store = Store(tmp_path / "service")
    for number, caption in enumerate(("a dog", "a cat", "a boat", "ein Boot")):
        store.add(picture(number), caption, language="de" if number == 3 else "en", source="http:ann")
    store.add(picture(0), "a brown dog\n")
    store.take_back(2)
    return store


@pytest.fixture(params=["memory", "disk"])
def target(request, tmp_path, store) -> Target:
    """The copy of that store."""
    target = make_target(tmp_path / "remote", request.param)
    make_mirror(store, target).copy_due()
    return target


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runner"


def put(target: Target, name: str, data: bytes) -> None:
    target.put(name, data)


def change(target: Target, number: int, **values) -> None:
    name = REMOTE_JSON.format(number)
    put(target, name, json.dumps(json.loads(target.read(name)) | values).encode())


def records(store: ContributionStore) -> list[dict]:
    return [one.as_record() for one in store.contributions()]


def test_what_was_copied_is_here_with_its_numbers(store, target, folder):
    before = {name: target.read(name) for name in target.sizes()}
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked, done.damaged) == (4, 4, 0, {})
    here = ContributionStore(folder)
    assert records(here) == records(store)
    assert here.revocations()[0].id == 2
    assert here.check().sound
    assert [one.captions for one in here.training_images()] == [one.captions for one in store.training_images()]
    assert {name: target.read(name) for name in target.sizes()} == before, "nothing changes there"


def test_again_it_changes_nothing_and_reads_no_image(target, folder):
    fetch(target, folder)
    before = files_of(folder)
    target.fs.calls.clear()
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked) == (4, 0, 0)
    assert files_of(folder) == before
    assert not [path for name, path in target.fs.calls if name == "cat_file" and not path.endswith((MARKER, APPROVED))]


def test_later_it_brings_what_is_new_and_takes_what_is_revoked(store, target, folder):
    fetch(target, folder)
    store.keep(picture(9), "a tree")
    store.take_back(3)
    make_mirror(store, target).copy_due()
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked) == (4, 1, 1)
    here = ContributionStore(folder)
    assert records(here) == records(store)
    assert here.revocations() == store.revocations(), "with their images' hashes: their places stay free"
    assert len(here.check().missing) == 0


def test_what_goes_without_a_line_is_revoked_as_well(target, folder):
    fetch(target, folder)
    target.delete(REMOTE_JSON.format(3))
    put(target, "revocations/1.json", b"{")
    done = fetch(target, folder)
    assert (done.revoked, list(done.damaged)) == (2, ["revocations/1.json"])
    here = ContributionStore(folder)
    assert [one.id for one in here.contributions()] == [4, 5]
    assert {line.id: line.reason for line in here.revocations()} == {1: GONE, 2: "asked for", 3: GONE}


def test_a_revocation_whose_record_is_still_there_counts(store, target, folder):
    record = target.read(REMOTE_JSON.format(1))
    store.take_back(1)
    make_mirror(store, target).copy_due()
    put(target, REMOTE_JSON.format(1), record)
    fetch(target, folder)
    assert ContributionStore(folder).get(1) is None


@pytest.mark.parametrize(
    "values",
    [
        {"id": 3},
        {"id": "1"},
        {"caption": "a\ndog"},
        {"caption": ["a dog"]},
        {"language": "::error::"},
        {"source": ""},
        {"usable": False},
        {"width": 5},
        {"received": "yesterday"},
        {"image_sha256": "0" * 64},
        {"image_file": "../../etc/passwd"},
        {"image_format": ["png"]},
        {"caption_sent": None},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_record_that_is_not_what_was_written_is_left_out(target, folder, values):
    change(target, 1, **values)
    done = fetch(target, folder)
    assert list(done.damaged) == ["contributions/1.json"]
    assert [one.id for one in ContributionStore(folder).contributions()] == [3, 4, 5]
    assert not done.is_damaged, "one is an accident"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"id": 1}', b"[" * 100_000, b"\xff"])
def test_a_record_that_is_none_is_left_out(target, folder, data):
    put(target, REMOTE_JSON.format(1), data)
    assert list(fetch(target, folder).damaged) == ["contributions/1.json"]


def test_a_damaged_image_is_left_out_with_all_its_captions_until_it_is_whole_again(store, target, folder):
    image = store.get(1).image_file
    put(target, image, b"rotten")
    assert set(fetch(target, folder).damaged) == {"contributions/1.json", "contributions/5.json"}
    target.delete(image)
    done = fetch(target, folder)
    assert set(done.damaged.values()) == {"its image is not there"}
    assert done.is_damaged
    put(target, image, picture(0))
    assert (fetch(target, folder).new, ContributionStore(folder).check().sound) == (2, True)


def test_an_image_that_others_wrote_there_passes_the_same_door(target, folder):
    """Record and hash fit, but the file is no image."""
    import hashlib

    digest = hashlib.sha256(b"GIF89a, not").hexdigest()
    where = f"images/{digest[:3]}/{digest}.gif"
    put(target, where, b"GIF89a, not")
    change(target, 1, image_sha256=digest, image_format="gif", image_file=where, image_bytes=11)
    assert list(fetch(target, folder).damaged) == ["contributions/1.json"]


def test_the_same_pair_under_two_numbers_is_kept_once(store, target, folder):
    put(target, REMOTE_JSON.format(7), json.dumps(store.get(1).as_record() | {"id": 7}).encode())
    assert list(fetch(target, folder).damaged) == ["contributions/7.json"]


def test_other_names_are_passed_over(target, folder):
    for name in ("0.json", "01.json", "1.json.part", "::error::.json", f"{'9' * 30}.json"):
        put(target, f"contributions/{name}", b"{")
    assert fetch(target, folder).damaged == {}


def test_a_place_without_a_copy_is_no_empty_copy(target, folder):
    fetch(target, folder)
    target.delete(MARKER)
    with pytest.raises(DataError, match="holds no copy of contributions"):
        fetch(target, folder)
    assert len(records(ContributionStore(folder))) == 4


@pytest.mark.parametrize("method", ["ls", "cat_file"])
def test_a_place_that_fails_revokes_nothing(target, folder, method):
    fetch(target, folder)

    def fault(_fs, name, path, _value) -> None:
        if name == method and MARKER not in path:
            down()

    target.fs.fault = fault
    put_later = folder.with_name("later")
    with pytest.raises(TargetError):
        fetch(target, folder if method == "ls" else put_later)
    assert len(records(ContributionStore(folder))) == 4


def test_a_store_of_its_own_is_left_alone(target, folder, tmp_path):
    own = ContributionStore(folder)
    own.add(picture(50), "my own")
    with pytest.raises(ConfigError, match="holds contributions of its own"):
        fetch(target, folder)
    assert records(own)[0]["caption"] == "my own"
    fetch(target, tmp_path / "other")
    (tmp_path / "other" / ORIGIN).write_text("s3://elsewhere")
    with pytest.raises(ConfigError, match="holds a copy of s3://elsewhere"):
        fetch(target, tmp_path / "other")


def test_an_empty_store_may_become_a_copy(target, folder):
    ContributionStore(folder)
    assert fetch(target, folder).new == 4


def test_the_copy_must_not_lie_in_the_store(tmp_path):
    target = make_target(tmp_path / "remote", "disk")
    with pytest.raises(ConfigError, match="name another folder"):
        fetch(target, tmp_path / "remote" / "inside")


class _Asynchronous(AsyncFileSystem):
    """As buckets' drivers are; counts how many objects are read at once."""

    protocol = "memory"
    cachable = False

    def __init__(self, inner):
        super().__init__()
        self.inner, self.reading, self.most = inner, 0, 0

    async def _cat_file(self, path, start=None, end=None, **_options):
        self.reading += 1
        self.most = max(self.most, self.reading)
        await asyncio.sleep(0.001)
        self.reading -= 1
        return self.inner.cat_file(path, start, end)

    async def _ls(self, path, detail=True, **_options):
        return self.inner.ls(path, detail=detail)

    async def _info(self, path, **_options):
        return self.inner.info(path)


def test_a_bucket_is_read_many_objects_at_once(store, tmp_path, folder):
    inner = make_target(tmp_path, "memory")
    make_mirror(store, inner).copy_due()
    fs = _Asynchronous(inner.fs)
    target = Target(Address.parse("memory://bucket", "LCM_STORE_URL"), limit_s=10, connect=lambda: (fs, "/bucket"))
    assert fetch(target, folder).new == 4
    assert fs.most > 1
    assert target.read_all(["nothing", MARKER]) == [None, inner.read(MARKER)]


# The command


def test_the_command_says_what_it_did(store, tmp_path, folder, monkeypatch, capsys):
    target = make_target(tmp_path / "remote", "disk")
    make_mirror(store, target).copy_due()
    put(target, REMOTE_JSON.format(1), b"{")
    monkeypatch.setenv("LCM_STORE_URL", f"file://{tmp_path / 'remote'}")
    assert main(["contributions", "--store", str(folder), "fetch"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "left out contributions/1.json: it is not there or not whole",
        "3 contributions are here, 3 of them new; 0 were revoked, 1 left out",
    ]
    for number in (3, 4):
        put(target, REMOTE_JSON.format(number), b"{")
    assert main(["contributions", "--store", f"{folder}-2", "fetch"]) == 1
    assert "more is damaged" in capsys.readouterr().out


def test_without_an_address_it_says_which_setting(folder, monkeypatch, capsys):
    monkeypatch.delenv("LCM_STORE_URL", raising=False)
    assert main(["contributions", "--store", str(folder), "fetch"]) == 1
    assert capsys.readouterr().err.startswith("lcm: LCM_STORE_URL is not set")
    assert not folder.exists()


def test_lines_hold_all_that_is_known(store, target, folder):
    fetch(target, folder)
    assert [asdict(one) for one in ContributionStore(folder).revocations()] == [
        asdict(one) for one in store.revocations()
    ]


def test_the_address_is_that_of_the_service(folder):
    with pytest.raises(ConfigError, match="LCM_STORE_URL must be one address"):
        fetch_contributions("no address", folder)
