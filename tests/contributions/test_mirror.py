"""The mirror: whatever the target does, requests are answered, and in the end the copy equals the store.

Rows H12, H13 and H17.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from lcm.contributions.mirror import (
    APPROVED,
    COMPLAIN_EVERY_S,
    LONGEST_PAUSE_S,
    MARKER,
    READ_BACK_BYTES,
    Mirror,
    Target,
    TargetError,
    backoff,
    open_mirror,
)
from lcm.contributions.store import ContributionStore
from lcm.data.remote import Address
from lcm.errors import ConfigError, StoreBusyError
from tests.fakes.contributed import picture
from tests.fakes.mirror_targets import (
    FAULTS,
    Clock,
    FaultyMemory,
    assert_equal,
    down,
    make_mirror,
    make_target,
    objects,
    reset,
    run,
)

ROOT = Path(__file__).parents[2]
SECRET = "Zm9vYmFyLXNlY3JldC1rZXk="


@pytest.fixture
def store(store) -> ContributionStore:
    """Three contributions, two of the same image; the second image is too large to be read back from a bucket."""
    small, large = picture(98), picture(99, side=160)
    assert len(small) < READ_BACK_BYTES < len(large)
    for image, caption in ((small, "a dog"), (small, "un chien à côté"), (large, "a cat")):
        store.add(image, caption)
    return store


@pytest.fixture(params=["memory", "disk"])
def target(request, tmp_path) -> Target:
    return make_target(tmp_path / "remote", request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror(store, target, clock) -> Mirror:
    return make_mirror(store, target, clock)


def wait_until(condition: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


# The copy


def test_the_copy_holds_each_image_once_each_record_and_what_is_approved(store, target, mirror):
    assert mirror.copy_due() == 5
    assert list(store.to_mirror()) == []
    images = {store.get(1).image_file, store.get(3).image_file}
    there = objects(target)
    assert set(there) == {MARKER, APPROVED, *images, *(f"contributions/{number}.json" for number in (1, 2, 3))}
    record = there["contributions/2.json"].decode()
    assert '"caption": "un chien à côté"' in record
    assert json.loads(record) == store.get(2).as_record()
    assert there[json.loads(record)["image_file"]] == picture(98)
    store.approve([1, 3])
    mirror.copy_due()
    assert objects(target)[APPROVED] == b"1,3\n"
    store.approve([1, 3], approved=False)
    mirror.copy_due()
    assert objects(target)[APPROVED] == b"\n"


def test_h12_what_is_there_already_is_not_sent_again(store, target, mirror):
    mirror.copy_due()
    target.fs.calls.clear()
    for one in store.contributions():
        target.put(one.image_file, store.read_image(one))
    assert not [call for call in target.fs.calls if call[0] in ("pipe_file", "mv")]


def test_an_image_is_never_there_in_part_and_its_record_comes_after_it(store, target, mirror):
    seen = []

    def look(*_):
        there = objects(target)
        seen.append({name for name in there if not name.endswith(".part")})
        assert all(
            there[one.image_file] == store.read_image(one) for one in store.contributions() if one.image_file in there
        )

    target.fs.fault = look
    mirror.copy_due()
    for there in seen:
        assert all(store.get(n).image_file in there for n in (1, 2, 3) if f"contributions/{n}.json" in there)
    assert len(seen) > 10


def test_a_damaged_image_is_not_copied_and_holds_nothing_up(store, target, mirror, clock, caplog):
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE images SET data = x'00' WHERE image_sha256 = ?", (store.get(1).image_sha256,))
    assert mirror.copy_due() == 5
    assert [one.id for one in store.to_mirror()] == [1, 2]
    assert "contribution 1: the contribution store" in caplog.text
    assert "the image of contribution 1 is not what was sent" in caplog.text
    store.revoke(1, "damaged")
    store.revoke(2, "damaged")
    run(mirror, clock, store, turns=3)
    assert_equal(target, store)


# The target fails


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("from_the_start", [False, True])
def test_h12_after_any_fault_the_copy_equals_the_store(fault, from_the_start, store, target, mirror, clock):
    if not from_the_start:
        mirror.copy_due()
        store.add(picture(101), "a bird")
        store.revoke(1, "asked for")
    target.fs.fault = fault
    assert len(run(mirror, clock, store, turns=12)) == 12, "all attempts failed"
    store.add(picture(102), "a fish")  # a request meanwhile
    target.fs.fault = None
    if from_the_start:
        mirror = make_mirror(store, target, clock)  # as after a restart: what has failed is not known any more
    run(mirror, clock, store, turns=400)
    assert list(store.to_mirror()) == []
    assert_equal(target, store)


def test_h12_pauses_double_up_to_the_longest_and_no_attempt_is_made_meanwhile(tmp_path, clock):
    store, target = ContributionStore(tmp_path / "many"), make_target(tmp_path)
    for number in range(12):  # enough that one is always due
        store.add(picture(number), "a dog")
    target.fs.fault = down
    pauses = run(make_mirror(store, target, clock), clock, store, turns=11)
    assert pauses == [*(1.0, 2, 4, 8, 16, 32, 64, 128, 256), *[LONGEST_PAUSE_S] * 2]
    assert len(target.fs.calls) == 11, "one attempt a turn: none hammers the target"
    assert [backoff(attempts, 0.0) for attempts in (0, 1, 2, 50, 10**6)] == [0.5, 1, 2, 150, 150]


def test_h12_an_entry_that_always_fails_does_not_stop_the_others(store, target, mirror, clock):
    def refuse_one(_fs, _name, path, _value):
        if "/contributions/1.json" in str(path):
            raise PermissionError("403")

    target.fs.fault = refuse_one
    run(mirror, clock, store, turns=20)
    assert [one.id for one in store.to_mirror()] == [1]
    assert {"contributions/2.json", "contributions/3.json"} < set(objects(target))


def test_h12_a_hanging_target_slows_neither_requests_nor_stop(store, tmp_path):
    answer = threading.Event()
    target = make_target(tmp_path, limit_s=60)
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
    assert len(list(store.to_mirror())) >= 20, "it stopped before the next entry"


def test_h12_a_target_that_hangs_beyond_the_limit_is_tried_again_when_it_answers(store, tmp_path, clock, caplog):
    answer = threading.Event()
    target = make_target(tmp_path, limit_s=0.05)
    target.fs.fault = lambda *_: answer.wait(60)
    mirror = make_mirror(store, target, clock)
    run(mirror, clock, store, turns=1)
    assert target.hangs
    clock.now += COMPLAIN_EVERY_S
    calls = len(target.fs.calls)
    run(mirror, clock, store, turns=3)
    assert len(target.fs.calls) == calls, "a write that hangs could come after a later delete"
    assert "no answer within 0.05 s" in caplog.text
    assert "an earlier operation has not come back yet" in caplog.text
    answer.set()
    wait_until(lambda: not target.hangs)
    target.limit_s = 10
    run(mirror, clock, store, turns=100)
    assert_equal(target, store)


def test_a_mirror_outlives_a_store_that_fails(store, target, monkeypatch, caplog):
    calls, to_mirror = [], store.to_mirror

    def busy():
        calls.append(1)
        if len(calls) < 3:
            raise StoreBusyError("others hold it") if len(calls) == 1 else OSError(SECRET)
        return to_mirror()

    monkeypatch.setattr(store, "to_mirror", busy)
    mirror = Mirror(store, target, look_every_s=0.01)
    mirror.start()
    wait_until(lambda: not any(to_mirror()))
    assert mirror.stop()
    assert "others hold it; next attempt" in caplog.text
    assert SECRET not in caplog.text
    assert_equal(target, store)


def test_a_new_contribution_is_copied_when_the_mirror_is_woken_and_its_lock_goes_with_it(store, target):
    mirror = Mirror(store, target, look_every_s=600)
    mirror.start()
    wait_until(lambda: not any(store.to_mirror()))
    store.add(picture(5), "a bird")
    mirror.wake()
    wait_until(lambda: not any(store.to_mirror()))
    other = Mirror(store, target, look_every_s=0.01)
    other.start()
    store.add(picture(6), "a fish")  # nobody wakes the first, and the second waits for its turn
    assert mirror.stop()
    wait_until(lambda: not any(store.to_mirror()))
    assert other.stop()
    assert_equal(target, store)
    assert Mirror(store, target).stop(0), "one that never started stops"


# Revocations


def test_h17_a_revoked_contribution_is_gone_and_its_image_with_the_last_one(store, target, mirror):
    mirror.copy_due()
    image = store.get(1).image_file
    store.revoke(1, "asked for")
    mirror.copy_due()
    assert "contributions/1.json" not in objects(target)
    assert image in objects(target), "the second contribution uses it"
    seen = []
    target.fs.fault = lambda *_: seen.append(set(objects(target)))
    store.revoke(2, "asked for")
    mirror.copy_due()
    target.fs.fault = None
    assert all("revocations/2.json" in there for there in seen if "contributions/2.json" not in there)
    assert_equal(target, store)
    lines = [json.loads(objects(target)[f"revocations/{number}.json"]) for number in (1, 2)]
    assert lines == [gone.as_record() for gone in store.revocations()]


def test_h17_an_image_that_comes_again_before_its_delete_stays(store, target, mirror):
    mirror.copy_due()
    store.revoke(3, "asked for")
    store.add(picture(99, side=160), "a cat again")
    mirror.copy_due()
    assert_equal(target, store)


def test_h17_a_contribution_revoked_before_it_was_copied_whole_never_appears(store, target, mirror, clock):
    target.fs.fault = reset
    run(mirror, clock, store, turns=3)
    for number in (1, 2, 3):
        store.revoke(number, "asked for")
    target.fs.fault = None
    run(mirror, clock, store, turns=100)
    lines = {f"revocations/{number}.json" for number in (1, 2, 3)}
    assert set(objects(target)) - {APPROVED} == {MARKER, *lines}, "not even half an image"


def test_h12_a_disk_that_is_unmounted_is_not_written_to(store, tmp_path, clock):
    root = tmp_path / "remote"
    mirror = make_mirror(store, make_target(root, "disk"), clock)
    mirror.copy_due()
    root.rename(tmp_path / "unmounted")
    store.add(picture(101), "a bird")
    store.revoke(1, "asked for")
    run(mirror, clock, store, turns=4)
    assert not root.exists()
    assert len(list(store.to_mirror())) == 2
    (tmp_path / "unmounted").rename(root)
    run(mirror, clock, store, turns=20)
    assert_equal(make_target(root, "disk"), store)


# Logs and settings


def test_h13_credentials_are_in_no_log(store, clock, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    connection = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={SECRET};EndpointSuffix=core.windows.net"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    fs = FaultyMemory(global_store=False, skip_instance_cache=True)
    address = Address.parse("ftp://minioadmin:hunter2/pass@host/folder", "LCM_STORE_URL")

    def leak(*_):
        raise PermissionError(
            f"403 Forbidden for https://minioadmin:hunter2/pass@host/bucket?sv=1&sig=abc%2Fdef, {connection}\n"
            f'bucket "minioadmin:hunter2/pass@bucket" Authorization: SharedKey acc:{SECRET}'
        )

    fs.fault = leak
    mirror = Mirror(store, Target(address, connect=lambda: (fs, "/b")), clock=clock)
    run(mirror, clock, store, turns=30)
    assert (
        "ftp://host/folder: contribution 1: PermissionError (check the credentials and what they allow)" in caplog.text
    )
    for secret in (SECRET, "hunter2", "minioadmin", "abc%2Fdef", "pass@"):
        assert secret not in caplog.text
        assert secret not in repr(address)
    assert all("\n" not in record.getMessage() and record.exc_info is None for record in caplog.records)


def test_h13_the_service_starts_with_bad_credentials(store, monkeypatch, caplog):
    monkeypatch.setattr("lcm.contributions.mirror.Target.put", lambda *_: (_ for _ in ()).throw(TargetError("403")))
    mirror = open_mirror("memory://bucket", store)
    mirror.start()
    wait_until(lambda: "memory://bucket: contribution 1: 403" in caplog.text)
    assert mirror.stop()


def test_failures_are_one_line_a_minute_and_recovery_is_told(tmp_path, store, clock, caplog):
    caplog.set_level(logging.INFO)
    for number in range(8):
        store.add(picture(number), "a dog")
    target = make_target(tmp_path)
    mirror = make_mirror(store, target, clock)
    target.fs.fault = down
    run(mirror, clock, store, turns=8)  # at 0, 1, 3, 7, 15, 31, 63 and 127 s
    hint = "ConnectionError" if "check the network" not in caplog.text else "ConnectionError (check the network"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert told[0].startswith(f"memory://bucket: contribution 1: {hint}")
    assert told[0].endswith("; next attempt in 2 s")
    assert told[1].endswith("(5 more failures since the last such line)")
    caplog.clear()
    target.fs.fault = None
    run(mirror, clock, store, turns=20)
    assert [record.getMessage() for record in caplog.records] == ["memory://bucket answers again"]


def test_no_address_is_no_mirror_and_a_target_may_not_lie_in_the_store_nor_around_it(store):
    assert open_mirror("", store) is None
    for folder in (store.folder, store.folder / "mirror", store.folder.parent):
        with pytest.raises(ConfigError, match="name another folder"):
            open_mirror(f"file://{folder}", store)
    assert open_mirror(f"file://{store.folder}-copy", store)


# The target


def test_an_asynchronous_driver_as_those_of_buckets_does_the_same(store, clock):
    inner = FaultyMemory(global_store=False, skip_instance_cache=True)
    fs = AsyncFileSystemWrapper(inner, asynchronous=False)
    target = Target(Address.parse("memory://bucket", "LCM_STORE_URL"), connect=lambda: (fs, "/bucket"))
    mirror = make_mirror(store, target, clock)
    mirror.copy_due()
    store.revoke(3, "asked for")
    mirror.copy_due()
    target.fs, target.place = inner, "/bucket"
    assert_equal(target, store)
    assert not {name for name, _ in inner.calls} & {"makedirs", "mv"}, "the one may make a bucket, the other copies"
    assert target.read_all(["nothing", MARKER]) == [None, objects(target)[MARKER]]


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
    assert target.names("") == [MARKER, "one", "two.part"]
