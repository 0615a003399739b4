"""The mirror: whatever the target does, requests go on, and in the end the copy equals the store (H12, H13, H17)."""

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from lcm.contributions.layout import check, image_name, read_image_file, record_bytes, record_name
from lcm.contributions.mirror import COMPLAIN_EVERY_S, LONGEST_PAUSE_S, Mirror, backoff, open_mirror
from lcm.contributions.target import MARKER, READ_BACK_BYTES, Target
from lcm.data.remote import Address
from lcm.errors import ConfigError
from tests.fakes import mirror_fakes as fakes
from tests.fakes.mirror_fakes import Clock, FaultyMemory, Store, assert_equal, make_mirror, make_target, picture

FAULTS = ("down", "forbidden", "broken", "no_bucket", "reset", "cut")
SECRET = "Zm9vYmFyLXNlY3JldC1rZXk="


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    fakes.skip_flushes(monkeypatch.setattr)
    return Store(tmp_path / "store")


@pytest.fixture(params=["memory", "disk"])
def target(request, tmp_path) -> Target:
    """An empty target whose file system, `target.fs`, has a place for a fault."""
    return make_target(tmp_path / "remote", request.param)


def add_some(store: Store) -> list[int]:
    """Three contributions, two of the same image; the second image is too large to be read back from a bucket."""
    small, large = picture(98), picture(99, 160)
    assert len(small) < READ_BACK_BYTES < len(large)
    return [store.keep(small, "a dog"), store.keep(small, "un chien à côté"), store.keep(large, "a cat")]


def run(mirror: Mirror, clock: Clock, store: Store, turns: int) -> list[float]:
    """Let the mirror take turns until nothing waits; returns the pauses."""
    pauses = []
    while store.waiting() and len(pauses) < turns:
        pauses.append(mirror.copy_due())
        clock.now += pauses[-1]
    return pauses


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


# The copy


def test_the_copy_holds_each_image_once_and_each_record(store, target):
    first, _, third = add_some(store)
    assert make_mirror(store, target).copy_due() == 0.05
    assert store.waiting() == []
    small, large = store.get(1).image_sha256, store.get(3).image_sha256
    assert set(target.sizes()) == {
        MARKER,
        f"images/{small[:3]}/{small}.png",
        f"images/{large[:3]}/{large}.png",
        *(f"contributions/{number}.json" for number in range(first, third + 1)),
    }
    record = target.read("contributions/2.json").decode()
    assert '"caption": "un chien à côté"' in record
    assert json.loads(record) == store.get(2).as_record()
    assert target.read(json.loads(record)["image_file"]) == picture(98)
    assert_equal(target, store)


def test_the_image_is_written_before_its_record(store, target):
    add_some(store)
    make_mirror(store, target).copy_due()
    write = "pipe_file" if target.fs.protocol == "memory" else "mv"
    written = [path for name, path in target.fs.calls if name == write and MARKER not in path]
    assert [path.split("/")[-1][:6] for path in written] == [
        *(store.puts()[0].image_sha256[:6], "1.json", "2.json", store.puts()[2].image_sha256[:6], "3.json")
    ]


def test_what_is_there_already_is_not_sent_again(store, target):
    add_some(store)
    make_mirror(store, target).copy_due()
    target.fs.calls.clear()
    for entry in store.puts():
        target.put(image_name(entry), read_image_file(entry))
        target.put(record_name(entry), record_bytes(entry))
    assert not [call for call in target.fs.calls if call[0] in ("pipe_file", "mv")]


def test_a_damaged_image_is_not_copied_and_holds_nothing_up(store, target, caplog):
    add_some(store)
    clock, damaged = Clock(), store.path_of(store.get(1))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"rotten")
    mirror = make_mirror(store, target, clock)
    assert mirror.copy_due() == 5
    assert [(entry.contribution_id, entry.attempts) for entry in store.waiting()] == [(1, 1), (2, 1)]
    assert "contribution 1, put: its image is not what was contributed" in caplog.text
    damaged.unlink()
    clock.now += COMPLAIN_EVERY_S
    mirror.copy_due()
    assert "its image cannot be read: No such file" in caplog.text
    damaged.write_bytes(whole)
    clock.now += 10
    mirror.copy_due()
    assert_equal(target, store)


# H12: the target fails


@pytest.mark.parametrize("fault", FAULTS)
def test_h12_after_any_fault_the_copy_equals_the_store(store, target, fault):
    clock = Clock()
    mirror = make_mirror(store, target, clock)
    add_some(store)
    mirror.copy_due()
    store.keep(picture(101), "a bird")
    store.take_back(1)
    target.fs.fault = getattr(fakes, fault)
    pauses = run(mirror, clock, store, turns=12)
    assert len(pauses) == 12, "all attempts failed"
    store.keep(picture(102), "a fish")  # a request meanwhile
    target.fs.fault = None
    run(mirror, clock, store, turns=400)
    assert store.waiting() == []
    assert_equal(target, store)
    assert "contributions/1.json" not in target.sizes()


@pytest.mark.parametrize("fault", FAULTS)
def test_h12_a_target_that_fails_from_the_start(store, target, fault):
    clock = Clock()
    mirror = make_mirror(store, target, clock)
    add_some(store)
    target.fs.fault = getattr(fakes, fault)
    assert len(run(mirror, clock, store, turns=8)) == 8
    target.fs.fault = None
    run(mirror, clock, store, turns=100)
    assert_equal(target, store)


def test_h12_pauses_double_up_to_the_longest(store):
    clock, target = Clock(), make_target(Path())
    mirror = make_mirror(store, target, clock)
    for number in range(12):  # enough that one is always due
        store.keep(picture(number), "a dog")
    target.fs.fault = fakes.down
    assert run(mirror, clock, store, turns=11) == [*(1.0, 2, 4, 8, 16, 32, 64, 128, 256), *[LONGEST_PAUSE_S] * 2]
    assert sum(entry.attempts for entry in store.waiting()) == 11, "one attempt a turn: none hammers the target"
    assert [backoff(attempts, 0.0) for attempts in (0, 1, 2, 50, 10**6)] == [0.5, 1, 2, 150, 150]


def test_h12_an_entry_that_always_fails_does_not_stop_the_others(store, target):
    clock = Clock()
    mirror = make_mirror(store, target, clock)
    add_some(store)

    def refuse_one(_fs, _name, path, _value):
        if "/contributions/1.json" in str(path):
            raise PermissionError("403")

    target.fs.fault = refuse_one
    run(mirror, clock, store, turns=20)
    assert [entry.contribution_id for entry in store.waiting()] == [1]
    assert check(target, store.all_puts()).missing == ("contributions/1.json",)


def test_h12_a_hanging_target_slows_neither_requests_nor_stop(store, tmp_path):
    answer = threading.Event()
    target = make_target(tmp_path, limit_s=30)
    target.fs.fault = lambda *_: answer.wait(60)
    mirror = make_mirror(store, target)
    add_some(store)
    mirror.start()
    wait_until(lambda: target.fs.calls)
    start = time.monotonic()
    for number in range(20):
        store.keep(picture(number), "a dog")
        mirror.wake()
    assert time.monotonic() - start < 15, "twenty commits"
    assert not mirror.stop(0.1)
    assert time.monotonic() - start < 20
    answer.set()
    wait_until(lambda: not mirror._thread.is_alive())
    assert store.waiting(), "it stopped before the next entry"


def test_h12_a_target_that_hangs_beyond_the_limit_is_tried_again_when_it_answers(store, tmp_path, caplog):
    answer, clock = threading.Event(), Clock()
    target = make_target(tmp_path, limit_s=0.05)
    target.fs.fault = lambda *_: answer.wait(60)
    mirror = make_mirror(store, target, clock)
    add_some(store)
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


def test_a_mirror_outlives_a_store_that_fails(store, target):
    mirror, calls = make_mirror(store, target), []
    pending = store.pending

    def busy(*args):
        calls.append(args)
        if len(calls) < 3:
            raise OSError("database is locked")
        return pending(*args)

    store.pending = busy
    add_some(store)
    mirror.start()
    wait_until(lambda: len(calls) >= 4)
    assert mirror.stop()
    store.pending = pending
    assert_equal(target, store)


# The thread


def test_a_new_contribution_is_copied_when_the_mirror_is_woken(store, target):
    mirror = Mirror(store, target, store.folder, look_every_s=60)
    mirror.start()
    wait_until(lambda: mirror._lock.is_locked)
    add_some(store)
    mirror.wake()
    wait_until(lambda: not store.waiting())
    assert mirror.stop()
    assert not mirror._lock.is_locked
    assert_equal(target, store)


def test_waking_does_not_shorten_the_pause_of_a_failing_target(store, target, monkeypatch):
    monkeypatch.setattr("lcm.contributions.mirror.FIRST_PAUSE_S", 120.0)
    add_some(store)
    target.fs.fault = fakes.down
    mirror = make_mirror(store, target)
    mirror.start()
    wait_until(lambda: mirror._failures == 1)
    calls = len(target.fs.calls)
    for _ in range(30):
        mirror.wake()
        time.sleep(0.005)
    assert len(target.fs.calls) == calls, "the first pause is two minutes here"
    assert mirror.stop()


def test_a_mirror_that_never_started_stops(store, target):
    assert make_mirror(store, target).stop(0)


# H17: revoked


def test_h17_a_revoked_contribution_is_gone_and_its_image_with_the_last_one(store, target):
    add_some(store)
    mirror = make_mirror(store, target)
    mirror.copy_due()
    image = store.get(1).image_file
    store.take_back(1)
    mirror.copy_due()
    assert "contributions/1.json" not in target.sizes()
    assert image in target.sizes(), "the second contribution uses it"
    store.take_back(2)
    mirror.copy_due()
    assert image not in target.sizes()
    assert_equal(target, store)
    lines = [json.loads(target.read(f"revocations/{number}.json")) for number in (1, 2)]
    assert lines == [asdict(gone) | {"image_file": gone.image_file} for gone in store.revocations()]


def test_h17_the_line_about_a_revocation_is_written_before_anything_goes(store, target):
    add_some(store)
    mirror = make_mirror(store, target)
    mirror.copy_due()
    store.take_back(3)
    target.fs.calls.clear()
    mirror.copy_due()
    changes = [
        path.rpartition("remote/")[2] for name, path in target.fs.calls if name in ("pipe_file", "mv", "rm_file")
    ]
    places = [
        next(i for i, path in enumerate(changes) if part in path) for part in ("revocations/3", "contributions/3")
    ]
    assert places == sorted(places)


def test_h17_an_image_that_comes_again_before_its_delete_stays(store, target):
    add_some(store)
    mirror = make_mirror(store, target)
    mirror.copy_due()
    store.take_back(3)
    store.keep(picture(99, 160), "a cat again")
    mirror.copy_due()
    assert_equal(target, store)


def test_h17_a_contribution_revoked_before_it_was_copied_never_appears(store, target):
    clock = Clock()
    mirror = make_mirror(store, target, clock)
    add_some(store)
    target.fs.fault = fakes.reset
    run(mirror, clock, store, turns=3)
    for number in (1, 2, 3):
        store.take_back(number)
    target.fs.fault = None
    run(mirror, clock, store, turns=100)
    lines = {f"revocations/{number}.json" for number in (1, 2, 3)}
    assert set(target.sizes()) == {MARKER, *lines}, "not even half an image"


def test_h17_nothing_counts_as_deleted_where_no_bucket_is(store, target):
    clock = Clock()
    mirror = make_mirror(store, target, clock)
    add_some(store)
    mirror.copy_due()
    store.take_back(1)
    target.fs.fault = fakes.no_bucket
    run(mirror, clock, store, turns=3)  # at 0, 1 and 6 s
    assert [(entry.kind, entry.attempts) for entry in store.waiting()] == [("delete", 2)]
    target.fs.fault = None
    run(mirror, clock, store, turns=10)
    assert "contributions/1.json" not in target.sizes()


def test_a_disk_that_is_unmounted_is_not_written_to(store, tmp_path):
    clock, root = Clock(), tmp_path / "remote"
    mirror = make_mirror(store, make_target(root, "disk"), clock)
    add_some(store)
    mirror.copy_due()
    root.rename(tmp_path / "unmounted")
    store.keep(picture(101), "a bird")
    store.take_back(1)
    run(mirror, clock, store, turns=4)
    assert not root.exists()
    assert len(store.waiting()) == 2
    (tmp_path / "unmounted").rename(root)
    run(mirror, clock, store, turns=20)
    assert_equal(make_target(root, "disk"), store)


# H13: logs


def test_h13_credentials_are_in_no_log(store, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    connection = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={SECRET};EndpointSuffix=core.windows.net"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    fs = FaultyMemory(global_store=False, skip_instance_cache=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())  # as if s3fs were installed
    address = Address.parse("s3://minioadmin:hunter2/pass@bucket/folder", "LCM_STORE_URL")
    clock, mirror = Clock(), None

    def leak(*_):
        raise PermissionError(
            f"403 Forbidden for https://minioadmin:hunter2/pass@host/bucket?sv=1&sig=abc%2Fdef, {connection}\n"
            f'bucket "minioadmin:hunter2/pass@bucket" Authorization: SharedKey acc:{SECRET}'
        )

    fs.fault = leak
    mirror = Mirror(store, Target(address, connect=lambda: (fs, "/b")), store.folder, clock=clock)
    add_some(store)
    run(mirror, clock, store, turns=30)
    assert "s3://bucket/folder: contribution 1, put: PermissionError: 403 Forbidden for https://" in caplog.text
    for secret in (SECRET, "hunter2", "minioadmin", "abc%2Fdef", "pass@"):
        assert secret not in caplog.text
        assert secret not in repr(address)
    assert all("\n" not in record.getMessage() and record.exc_info is None for record in caplog.records)


def test_h13_the_service_starts_with_bad_credentials(store, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    mirror = open_mirror(f"s3://key:{SECRET}@bucket", store, store.folder)
    add_some(store)
    mirror.start()
    wait_until(lambda: store.waiting()[0].attempts == 1)
    assert mirror.stop()


def test_failures_are_one_line_a_minute_and_recovery_is_told(store, caplog):
    caplog.set_level(logging.INFO)
    clock, target = Clock(), make_target(Path())
    mirror = make_mirror(store, target, clock)
    for number in range(8):
        store.keep(picture(number), "a dog")
    target.fs.fault = fakes.broken
    run(mirror, clock, store, turns=8)  # at 0, 1, 3, 7, 15, 31, 63 and 127 s
    assert [record.getMessage() for record in caplog.records] == [
        f"memory://bucket: contribution {number}, put: OSError: 500 Internal Server Error RequestId:42;"
        f" next attempt in 2 s{unsaid}"
        for number, unsaid in ((1, ""), (7, " (5 more failures since the last such line)"), (8, ""))
    ]
    caplog.clear()
    target.fs.fault = None
    run(mirror, clock, store, turns=20)
    assert [record.getMessage() for record in caplog.records] == ["memory://bucket answers again"]


# Comparison


def test_check_names_what_is_missing_different_and_extra(store, target):
    add_some(store)
    make_mirror(store, target).copy_due()
    image = store.get(3).image_file
    target.delete("contributions/2.json")
    target.put("contributions/1.json", target.read("contributions/1.json").replace(b"dog", b"cow"))
    target.put("contributions/99.json", b"{}")
    target.delete(image)
    target.put(image, b"x" * store.get(3).image_bytes)
    result = check(target, store.all_puts())
    assert result.compared == 5
    assert result.missing == ("contributions/2.json",)
    assert result.different == ("contributions/1.json", image)
    assert result.extra == ("contributions/99.json",)
    assert not result.equal


def test_check_of_an_empty_target_misses_all(store, target):
    add_some(store)
    assert len(check(target, store.all_puts()).missing) == 5
    assert target.sizes() == {}, "looking writes nothing"


# Opening


def test_no_address_is_no_mirror(store):
    assert open_mirror("", store, store.folder) is None


def test_the_target_may_not_lie_in_the_store_nor_around_it(store):
    for folder in (store.folder, store.folder / "mirror", store.folder.parent):
        with pytest.raises(ConfigError, match="name another folder"):
            open_mirror(f"file://{folder}", store, store.folder)
    assert open_mirror(f"file://{store.folder}-copy", store, store.folder)


# Processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to be killed at each step")
def test_h12_killed_at_every_step_the_copy_equals_the_store_after_a_restart(tmp_path):
    done = run_python("kill_at_every_step", tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert int(out) > 40, "steps"


def run_python(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, fakes.__file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills its processes")
def test_of_two_processes_one_mirrors_and_the_other_goes_on_when_it_is_killed(store, tmp_path):
    for number in range(40):
        store.keep(picture(number // 2), f"caption {number}")
    log, remote = tmp_path / "log", tmp_path / "remote"
    processes = [run_python("mirror_until_killed", store.folder, remote, log) for _ in range(2)]
    try:
        wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > 20)
        worker = int(log.read_text().split()[0])
        next(process for process in processes if process.pid == worker).kill()
        wait_until(lambda: not store.waiting())
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert_equal(make_target(remote, "disk"), store)
    lines = [line.split() for line in log.read_text().splitlines()]
    writers = [pid for pid, _ in lines]
    assert sum(before != after for before, after in itertools.pairwise(writers)) == 1, "never both at a time"
    assert len(lines) - len({path for _, path in lines}) <= 1, "at most the object of the kill was moved twice"
