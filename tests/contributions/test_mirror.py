"""The mirror: whatever the target does, requests are answered, and in the end the copy equals the store.

Rows H12, H13 and H17.
"""

import logging
import os
import sqlite3
import threading

import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from lcm.contributions import mirror as mirror_module
from lcm.contributions.mirror import LONGEST_PAUSE_S, MARKER, Mirror, Target, TargetError, fetch, open_target
from lcm.contributions.store import ContributionStore
from lcm.data.remote import Address
from lcm.errors import ConfigError, StoreBusyError
from tests.fakes.contributed import picture
from tests.fakes.mirror_targets import (
    FAULTS,
    FaultyMemory,
    assert_equal,
    down,
    due,
    make_target,
    objects,
    records,
    reset,
    run,
)
from tests.fakes.service_process import wait_until

SECRET = "Zm9vYmFyLXNlY3JldC1rZXk="


@pytest.fixture
def store(store) -> ContributionStore:
    """Three contributions, two of the same image."""
    for image, caption in ((98, "a dog"), (98, "un chien à côté"), (99, "a cat")):
        store.add(picture(image), caption)
    return store


@pytest.fixture(params=["memory", "disk", "remote"])
def target(request, tmp_path) -> Target:
    return make_target(tmp_path / "remote", request.param)


@pytest.fixture
def mirror(store, target) -> Mirror:
    return Mirror(store, target)


# The copy


def test_the_copy_holds_each_image_once_and_a_record_of_each_contribution(store, target, mirror):
    assert mirror.copy_due() == 5
    assert due(store) == []
    images = {store.get(1).image_file, store.get(3).image_file}
    assert set(objects(target)) == {MARKER, *images, "contributions/0000000.jsonl"}
    assert_equal(target, store)
    store.approve([1, 3])
    store.set_language([2], "fr")
    assert due(store) == [1, 2, 3]
    mirror.copy_due()
    assert_equal(target, store)


def test_pages_hold_some_contributions_each_and_only_those_that_changed_are_written(store, target, mirror, monkeypatch):
    monkeypatch.setattr("lcm.contributions.store.MIRROR_PAGE", 2)
    monkeypatch.setattr(mirror_module, "MIRROR_PAGE", 2)
    mirror.copy_due()
    assert len([name for name in objects(target) if name.startswith("contributions/")]) == 2
    store.add(picture(100), "a bird")
    target.fs.calls.clear()
    mirror.copy_due()
    written = {path.rpartition("/")[2] for name, path in target.fs.calls if path.endswith("jsonl")}
    assert written == {"0000002.jsonl"}
    assert_equal(target, store)


def test_an_image_is_never_there_in_part_and_its_record_comes_after_it(store, tmp_path):
    target, seen = make_target(tmp_path / "remote", "disk"), []

    def look(*_):
        there = {name: data for name, data in objects(target).items() if not name.endswith(".tmp")}
        seen.append(there)
        for one in store.contributions():
            assert there.get(one.image_file) in (None, store.read_image(one))
            assert one.image_file in there or one.id not in records(target)

    target.fs.fault = look
    Mirror(store, target).copy_due()
    assert len(seen) > 6


def test_a_damaged_image_is_not_copied_and_holds_nothing_up(store, target, mirror, caplog):
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE images SET data = x'00' WHERE image_sha256 = ?", (store.get(1).image_sha256,))
    assert (mirror.copy_due(), mirror.copy_due()) == (5, 5)
    assert (due(store), list(records(target))) == ([1, 2], [3])
    assert caplog.text.count("contribution 1 is not mirrored: the contribution store") == 1
    for number in (1, 2):
        store.revoke(number, "damaged")
    mirror.copy_due()
    assert_equal(target, store)


# The target fails


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("from_the_start", [False, True])
def test_h12_after_any_fault_the_copy_equals_the_store(fault, from_the_start, store, target, mirror):
    if not from_the_start:
        mirror.copy_due()
        store.add(picture(101), "a bird")
        store.revoke(1, "asked for")
    waiting = due(store)
    target.fs.fault = fault
    run(mirror, store, turns=8)
    assert due(store) == waiting, "nothing is taken for copied"
    target.fs.fault = None
    if from_the_start:
        mirror = Mirror(store, target)  # as after a restart
    run(mirror, store, turns=8)
    assert_equal(target, store)


def test_h12_pauses_double_up_to_the_longest_with_two_attempts_each(store, tmp_path):
    target = make_target(tmp_path)
    target.fs.fault = down
    assert run(Mirror(store, target), store, turns=11) == [1.0, 2, 4, 8, 16, 32, 64, 128, 256, *[LONGEST_PAUSE_S] * 2]
    assert len(target.fs.calls) == 22, "none hammers the target"


def test_h12_an_image_that_always_fails_does_not_stop_the_others(store, target, mirror):
    refused = store.get(3).image_sha256

    def refuse_one(_fs, _name, path, _value):
        if refused in str(path):
            raise PermissionError("403")

    target.fs.fault = refuse_one
    assert mirror.copy_due() == 1
    assert (due(store), list(records(target))) == ([3], [1, 2])


def test_h12_a_hanging_target_slows_neither_requests_nor_stop(store, tmp_path):
    answer, target = threading.Event(), make_target(tmp_path)
    target.fs.fault = lambda *_: answer.wait(60)
    mirror = Mirror(store, target)
    mirror.start()
    wait_until(lambda: target.fs.calls)
    for number in range(20):
        store.add(picture(number), "a dog")
        mirror.wake()
    assert not mirror.stop(0.05)
    answer.set()
    wait_until(lambda: mirror.stop(0.05))
    assert len(due(store)) >= 20, "it stopped before the next entry"


def test_a_mirror_outlives_a_store_that_fails(store, target, mirror, monkeypatch, caplog):
    errors, to_mirror = [StoreBusyError("others hold it"), OSError(SECRET)], store.to_mirror

    def busy():
        if errors:
            raise errors.pop(0)
        return to_mirror()

    monkeypatch.setattr(store, "to_mirror", busy)
    for _ in range(2):
        assert mirror.copy_due() > 0
    mirror.copy_due()
    assert "mirroring contributions: others hold it; next attempt" in caplog.text
    assert SECRET not in caplog.text
    assert_equal(target, store)


def test_a_new_contribution_is_copied_when_the_mirror_is_woken_and_two_take_turns(store, target, mirror, monkeypatch):
    monkeypatch.setattr(mirror_module, "LOOK_EVERY_S", 0.01)
    other = Mirror(store, target)
    mirror.start(), other.start()
    for number in range(5, 10):
        store.add(picture(number), "a bird")
        mirror.wake()
    wait_until(lambda: not due(store))
    assert mirror.stop()
    assert other.stop()
    assert_equal(target, store)


# Revocations


def test_h17_a_revoked_contribution_is_gone_and_its_image_with_the_last_one(store, target, mirror):
    mirror.copy_due()
    image = store.get(1).image_file
    store.revoke(1, "asked for")
    mirror.copy_due()
    assert_equal(target, store)
    assert image in objects(target), "the second contribution uses it"
    seen = []
    target.fs.fault = lambda *_: seen.append((image in objects(target), records(target)[2]["reason"]))
    store.revoke(2, "asked for")
    mirror.copy_due()
    target.fs.fault = None
    assert all(is_there or reason for is_there, reason in seen), "the line comes before the image goes"
    assert_equal(target, store)
    store.revoke(3, "asked for")
    store.add(picture(99), "a cat again")
    mirror.copy_due()
    assert_equal(target, store), "an image that comes again before its delete stays"


def test_h17_a_contribution_revoked_before_it_was_copied_whole_never_appears(store, target, mirror):
    target.fs.fault = reset
    run(mirror, store, turns=3)
    for number in (1, 2, 3):
        store.revoke(number, "asked for")
    target.fs.fault = None
    run(mirror, store, turns=10)
    assert_equal(target, store), "not even half an image"


def test_h17_what_is_revoked_while_it_is_copied_is_due_again(store, target, mirror):
    target.fs.fault = lambda _fs, _name, path, _value: store.revoke(3, "asked for") if "jsonl" in path else None
    mirror.copy_due()
    target.fs.fault = None
    assert due(store) == [3]
    mirror.copy_due()
    assert_equal(target, store)


def test_h12_a_disk_that_is_unmounted_is_not_written_to(store, tmp_path):
    root = tmp_path / "remote"
    mirror = Mirror(store, make_target(root, "disk"))
    mirror.copy_due()
    root.rename(tmp_path / "unmounted")
    store.revoke(1, "asked for")
    for is_left in (False, True):  # nothing, and then an empty folder
        if is_left:
            root.mkdir()
        run(mirror, store, turns=4)
        assert not list(root.glob("*"))
        assert due(store) == [1]
    root.rmdir()
    (tmp_path / "unmounted").rename(root)
    run(mirror, store, turns=4)
    assert_equal(make_target(root, "disk"), store)


# Logs and settings


def test_h13_bad_credentials_stop_no_service_and_are_in_no_log(store, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    connection = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={SECRET};EndpointSuffix=core.windows.net"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    fs = FaultyMemory(global_store=False, skip_instance_cache=True)
    address = Address.parse("ftp://minioadmin:hunter2/pass@host/folder", "LCM_STORE_URL")

    def leak(*_):
        raise PermissionError(f"403 Forbidden for https://minioadmin:hunter2/pass@host/b?sig=abc%2Fdef, {connection}\n")

    fs.fault = leak
    mirror = Mirror(store, Target(address, connect=lambda: (fs, "/b")))
    mirror.start()
    reason = "PermissionError (check the credentials and what they allow)"
    wait_until(lambda: f"mirroring contribution 1: ftp://host/folder: {reason}; next attempt in 1 s" in caplog.text)
    assert mirror.stop()
    for secret in (SECRET, "hunter2", "minioadmin", "abc%2Fdef", "pass@"):
        assert secret not in caplog.text
        assert secret not in repr(address)
    assert all("\n" not in record.getMessage() and record.exc_info is None for record in caplog.records)


def test_recovery_is_told(target, mirror, caplog):
    caplog.set_level(logging.INFO)
    target.fs.fault = down
    mirror.copy_due()
    target.fs.fault = None
    assert mirror.copy_due() == mirror_module.LOOK_EVERY_S
    failure, recovered = [record.getMessage() for record in caplog.records]
    assert "ConnectionError (check the network" in failure
    assert recovered == f"{target.address.name} answers again"


def test_a_target_may_not_lie_in_the_store_nor_around_it(store):
    for folder in (store.folder, store.folder / "mirror", store.folder.parent):
        with pytest.raises(ConfigError, match="name another folder"):
            Mirror(store, open_target(f"file://{folder}"))
    assert Mirror(store, open_target(f"file://{store.folder}-copy"))


# The target


def test_an_asynchronous_driver_as_those_of_buckets_does_the_same_there_and_back(store, tmp_path):
    inner = FaultyMemory(global_store=False, skip_instance_cache=True)
    fs = AsyncFileSystemWrapper(inner, asynchronous=False)
    target = Target(Address.parse("memory://bucket", "LCM_STORE_URL"), connect=lambda: (fs, "/bucket"))
    mirror = Mirror(store, target)
    mirror.copy_due()
    store.revoke(3, "asked for")
    mirror.copy_due()
    assert "makedirs" not in {name for name, _ in inner.calls}, "it may make a bucket"
    assert fetch(target, tmp_path / "fetched").new == 2
    target.fs, target.place = inner, "/bucket"
    assert_equal(target, store)


def test_a_disk_that_is_full_is_an_error_and_its_own_words_are_told(tmp_path, monkeypatch):
    target = make_target(tmp_path / "re[1]mote", "disk")
    target.put("one", b"1")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TargetError, match="No space left on device"):
            target.put("two", b"2")
    assert target.read_all(["one", "two"]) == [b"1", None]
    assert set(objects(target)) == {"one", MARKER}
