"""Fetching: a mirror's copy becomes a store here, with the same ids, whatever is damaged there. Rows H12 and H17."""

import json
from pathlib import Path

import pytest

from lcm.contributions.mirror import MARKER, Mirror, Target, TargetError, fetch, open_target
from lcm.contributions.store import ContributionStore
from lcm.errors import ConfigError, DataError
from tests.fakes.contributed import files_of, picture
from tests.fakes.mirror_targets import down, make_target, objects, records

PAGE = "contributions/0000000.jsonl"


@pytest.fixture
def store(store) -> ContributionStore:
    """Five contributions of four images; the second is revoked already, the third approved."""
    for number, caption in enumerate(("a dog", "a cat", "a boat", "ein Boot")):
        store.add(picture(number), caption, language="de" if number == 3 else "en", source="http:ann")
    store.add(picture(0), "a brown dog\n")
    store.revoke(2, "asked for")
    store.approve([3])
    return store


@pytest.fixture(params=["memory", "disk"])
def target(request, tmp_path, store) -> Target:
    """The copy of that store."""
    target = make_target(tmp_path / "remote", request.param)
    copy(store, target)
    return target


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runner"


def copy(store: ContributionStore, target: Target) -> None:
    Mirror(store, target).copy_due()


def write(target: Target, changed: dict) -> None:
    """Write the page of records anew, with other ones: dictionaries, or lines of any bytes; None: it is gone."""
    lines = [json.dumps(one).encode() if isinstance(one, dict) else one for one in (records(target) | changed).values()]
    target.put(PAGE, b"\n".join(line for line in lines if line is not None) + b"\n")


def content(store: ContributionStore) -> tuple:
    rows = list(store.contributions())
    images = [store.read_image(one) for one in rows]
    return rows, images, store.revoked()


def test_what_was_copied_is_here_with_its_ids_and_nothing_changes_there(store, target, folder):
    before = objects(target)
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked, done.damaged) == (4, 4, 0, {})
    assert content(ContributionStore(folder)) == content(store)
    assert objects(target) == before


def test_again_it_changes_nothing_and_reads_no_image(target, folder):
    fetch(target, folder)
    before = content(ContributionStore(folder))
    target.fs.calls.clear()
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked) == (4, 0, 0)
    assert content(ContributionStore(folder)) == before
    read = {path.rpartition("/")[2] for name, path in target.fs.calls if name == "cat_file"}
    assert read == {MARKER, "0000000.jsonl"}


def test_h17_later_it_brings_what_is_new_and_takes_what_is_revoked(store, target, folder):
    fetch(target, folder)
    store.add(picture(9), "a tree")
    store.revoke(3, "asked for")
    store.approve([1])
    store.set_language([1, 5], "fr")
    copy(store, target)
    done = fetch(target, folder)
    assert (done.contributions, done.new, done.revoked) == (4, 1, 1)
    assert content(ContributionStore(folder)) == content(store)


def test_what_the_copy_does_not_tell_of_stays(target, folder):
    fetch(target, folder)
    write(target, {3: None})
    assert fetch(target, folder).damaged == {}
    assert [one.id for one in ContributionStore(folder).contributions()] == [1, 3, 4, 5]


NO_RECORDS = [b" ", b"{", b"[]", b'{"id": 1}', b"[" * 100_000, b"\xff"]
WRONG = [
    *({"id": "1"}, {"id": 0}, {"caption": "a\ndog"}, {"caption": ["a dog"]}, {"language": "::error::"}, {"source": ""}),
    *({"width": 5}, {"received": "yesterday"}, {"received": None}, {"image_sha256": "0" * 64}, {"image_sha256": None}),
    *({"image_format": ["png"]}, {"image_format": "bmp"}, {"caption_sent": None}, {"known": True}),
]


@pytest.mark.parametrize("wrong", [*NO_RECORDS, *WRONG], ids=lambda value: str(value)[:40])
def test_a_record_that_is_not_what_was_written_is_left_out(store, tmp_path, folder, wrong):
    target = make_target(tmp_path / "remote")
    copy(store, target)
    write(target, {1: records(target)[1] | wrong if isinstance(wrong, dict) else wrong})
    done = fetch(target, folder)
    assert len(done.damaged) == 1
    assert 1 not in [one.id for one in ContributionStore(folder).contributions()]
    assert not done.is_damaged, "one is an accident"


def test_a_damaged_image_is_left_out_with_all_its_captions_until_it_is_whole_again(store, target, folder):
    image = store.get(1).image_file
    target.put(image, b"rotten")
    assert set(fetch(target, folder).damaged) == {"contribution 1", "contribution 5"}
    target.delete(image)
    done = fetch(target, folder)
    assert set(done.damaged.values()) == {"its image is not there"}
    assert done.is_damaged
    target.put(image, picture(0))
    assert fetch(target, folder).new == 2
    assert content(ContributionStore(folder)) == content(store)


def test_the_same_pair_under_two_numbers_is_left_out_and_other_names_are_skipped(store, target, folder):
    fetch(target, folder)
    one = store.get(1).as_record()
    write(target, {7: one | {"id": 7}, 4: records(target)[4] | {"language": "what"}, 8: one | {"id": 5}})
    target.put("contributions/1.json", b"{")
    damaged = fetch(target, folder).damaged
    assert damaged.keys() == {"contribution 4", "contribution 7", f"line 7 of {PAGE}"}
    assert damaged["contribution 7"] == "its image and caption are those of another contribution"
    assert content(ContributionStore(folder)) == content(store)


def test_h12_a_place_without_a_copy_or_one_that_fails_revokes_nothing(target, folder):
    fetch(target, folder)

    def fault(_fs, name, path, _value) -> None:
        if name == "ls" and MARKER not in path:
            down()

    target.fs.fault = fault
    with pytest.raises(TargetError):
        fetch(target, folder)
    target.fs.fault = None
    target.delete(MARKER)
    with pytest.raises(DataError, match="holds no copy of contributions"):
        fetch(target, folder)
    assert len(list(ContributionStore(folder).contributions())) == 4


def test_a_store_with_its_own_contributions_is_left_alone_and_an_empty_one_may_become_a_copy(target, folder, tmp_path):
    own = ContributionStore(folder)
    assert fetch(target, folder).new == 4
    other = ContributionStore(tmp_path / "other")
    for image in (0, 50):
        other.add(picture(image), "my own")
        before = files_of(other.folder)
        with pytest.raises(ConfigError, match="contribution 1 is another one in"):
            fetch(target, other.folder)
        assert files_of(other.folder) == before
    own.revoke(1, "here alone")
    fetch(target, folder)
    assert [one.id for one in own.contributions()] == [3, 4, 5], "what was revoked here stays so"


def test_an_address_that_cannot_be_used(folder, tmp_path):
    for url, message in (
        ("no address", "must be one address"),
        ("", "is not set"),
        (f"file://{tmp_path}", "name another"),
    ):
        with pytest.raises(ConfigError, match=message):
            fetch(open_target(url), folder)
    assert not folder.exists()
