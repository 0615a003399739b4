"""The store of contributions when its processes are killed, and when many work at once. G01, G02, G14, H01, H02.

Kills are random; LCM_KILL_ROUNDS=300 makes the long run.
"""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from lcm.contributions.files import POINTS
from lcm.contributions.store import ContributionStore
from lcm.errors import StoreBusyError
from tests.fakes.contributed import files_of, image_files, picture, sha256

ROUNDS = int(os.environ.get("LCM_KILL_ROUNDS", "20"))
CLIENTS = 4

# Processes are forked from a server that has imported all that is slow, and has no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lcm.contributions.store", "contributed", "test_contributions_kill"])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "contributions"


def start(target, *arguments) -> multiprocessing.Process:
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def assert_whole(store: ContributionStore) -> None:
    """No row without its file, no file without its row, nothing half written, and SQLite agrees."""
    checked = store.check()
    assert checked.sound
    assert image_files(store) == sorted({Path(one.image_file).name for one in store.contributions()})
    with sqlite3.connect(store.folder / "contributions.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# H02: killed at each point


def add_until(folder: Path, point: str) -> None:
    def kill(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    ContributionStore(folder, outbox=True, reached=kill).add(picture(1), "A dog")


@pytest.mark.parametrize("point", POINTS)
def test_h02_killed_at(point, folder):
    store = ContributionStore(folder, outbox=True)
    store.add(picture(0), "the first")
    process = start(add_until, folder, point)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(image_files(store)) == 2  # whole or half written
    committed = [1, 2] if point == "after_commit" else [1]
    for opened in (store, ContributionStore(folder, outbox=True)):
        assert [one.id for one in opened.contributions()] == committed
        assert [entry.contribution_id for entry in opened.pending(10, 0.0)] == committed
    assert_whole(opened)
    again = store.add(picture(1), "A dog")
    assert (again.id, again.known) == (2, point == "after_commit")


@pytest.mark.parametrize("point", POINTS[:4])
def test_h02_the_same_picture_again_needs_no_new_start(point, folder):
    store = ContributionStore(folder)
    start(add_until, folder, point).join()
    added = store.add(picture(1), "A dog")
    assert store.path_of(added).read_bytes() == picture(1)
    assert_whole(ContributionStore(folder))


def revoke_until_committed(folder: Path) -> None:
    store = ContributionStore(folder)
    store._remove_unused = lambda _path: os.kill(os.getpid(), signal.SIGKILL)
    store.revoke(1, "asked")


def test_h02_h17_killed_between_a_revocation_and_its_image(folder):
    store = ContributionStore(folder)
    store.add(picture(1), "A dog")
    start(revoke_until_committed, folder).join()
    assert store.get(1) is None
    assert len(image_files(store)) == 1
    assert image_files(ContributionStore(folder)) == []


# Sweeping while others write


def add_slowly(folder: Path, point: str, ready, go) -> None:
    def wait(reached: str) -> None:
        if reached == point:
            ready.set()
            go.wait()

    ContributionStore(folder, reached=wait).add(picture(1), "A dog")


@pytest.mark.parametrize("point", POINTS[:4])
def test_a_start_sweeps_nothing_that_a_live_process_is_writing(point, folder):
    """The sweeper finds the other's file, waits for the lock and sees, when it has it, that the file has its row."""
    ContributionStore(folder).add(picture(0), "the first")
    ready, go = PROCESSES.Event(), PROCESSES.Event()
    writer = start(add_slowly, folder, point, ready, go)
    assert ready.wait(60)
    opener = start(ContributionStore, folder)
    opener.join(0.3)
    assert opener.is_alive()
    go.set()
    opener.join()
    writer.join()
    assert (opener.exitcode, writer.exitcode) == (0, 0)
    store = ContributionStore(folder)
    assert [one.caption for one in store.contributions()] == ["the first", "A dog"]
    assert_whole(store)


def test_a_start_gives_up_sweeping_when_others_are_at_it_for_too_long(folder, monkeypatch):
    monkeypatch.setattr("lcm.contributions.database.BUSY_TIMEOUT_S", 0.2)
    ContributionStore(folder).add(picture(0), "the first")
    ready, go = PROCESSES.Event(), PROCESSES.Event()
    writer = start(add_slowly, folder, "renamed", ready, go)
    assert ready.wait(60)
    before = files_of(folder / "images")
    assert ContributionStore(folder).get(1)
    assert files_of(folder / "images") == before
    go.set()
    writer.join()
    assert_whole(ContributionStore(folder))


def test_starts_at_the_same_moment_make_one_store(folder):
    for round_ in range(3):
        place = folder / str(round_)
        processes = [start(add_many, place, client, 2, 1) for client in range(CLIENTS)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * CLIENTS
        assert len(list(ContributionStore(place).contributions())) == 2 * CLIENTS


# G01, G02: many at once


def add_many(folder: Path, client: int, count: int, distinct: int) -> None:
    """Add from ten threads; a busy store is asked again, as a client that got 503 does."""
    from concurrent.futures import ThreadPoolExecutor

    store = ContributionStore(folder)

    def add(number: int) -> None:
        number = client * count + number if distinct else 0
        for _ in range(5):
            try:
                return store.add(picture(number), f"number {number}")
            except StoreBusyError:
                continue
        raise AssertionError("busy for 25 seconds")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(add, range(count)))


@pytest.mark.parametrize(("distinct", "rows"), [(1, 200), (0, 1)])
def test_g01_g02_g14_200_at_once_from_4_processes(distinct, rows, folder):
    processes = [start(add_many, folder, client, 50, distinct) for client in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    store = ContributionStore(folder)
    found = list(store.contributions())
    assert [one.id for one in found] == list(range(1, rows + 1))
    assert {one.caption for one in found} == {f"number {number}" for number in range(rows)}
    assert_whole(store)


# H01: killed at random


def client(folder: Path, log: Path, seed: int) -> None:
    """Add, add again and revoke for ever; writes down what is about to be revoked, and what was answered."""
    chance, ids = random.Random(seed), []
    store = ContributionStore(folder, outbox=True)
    with log.open("a", buffering=1) as lines:
        for step in range(10**9):
            action = chance.random()
            if action < 0.15 and ids:
                number = ids.pop(chance.randrange(len(ids)))
                lines.write(json.dumps(["revoking", number]) + "\n")
                store.revoke(number, "asked")
                lines.write(json.dumps(["revoked", number]) + "\n")
                continue
            image = chance.randrange(50) if action < 0.3 else seed * 100_000 + step  # some that others send, too
            data, caption = picture(image, side=chance.choice([4, 40, 120])), f"client {seed} step {step}"
            added = store.add(data, caption)
            ids.append(added.id)
            lines.write(json.dumps(["added", added.id, sha256(data), caption]) + "\n")


def test_h01_kill_9_at_random_moments(folder, tmp_path):
    chance = random.Random(0)
    added, revoked, maybe_revoked, swept = {}, set(), set(), 0
    for round_ in range(ROUNDS):
        log = tmp_path / f"{round_}.log"
        processes = [start(client, folder, log, round_ * CLIENTS + number + 1) for number in range(CLIENTS)]
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.12))
        chance.shuffle(processes)
        for process in processes[: chance.randrange(CLIENTS)]:  # some first: the others go on, and a store is opened
            process.kill()
        if chance.random() < 0.3:
            ContributionStore(folder)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL  # none ended by an error
        before = len(list((folder / "images").rglob("*.*")))
        store = ContributionStore(folder, outbox=True)
        swept += before - len(list((folder / "images").rglob("*.*")))
        for line in log.read_text().splitlines():
            what, number, *pair = json.loads(line)
            if what == "added":
                added[number] = pair
            else:
                {"revoking": maybe_revoked, "revoked": revoked}[what].add(number)
        assert_nothing_is_lost(store, added, revoked, maybe_revoked)
    assert_whole(store)
    print(f"{ROUNDS} rounds: {len(added)} answered, {len(revoked)} revoked, {swept} files swept, 0 lost")


def assert_nothing_is_lost(store: ContributionStore, added: dict, revoked: set[int], maybe_revoked: set[int]) -> None:
    there = {one.id: [one.image_sha256, one.caption] for one in store.contributions()}
    gone = {one.id for one in store.revocations()}
    for number, pair in added.items():
        assert there.get(number) == pair or number in maybe_revoked
    assert revoked <= gone <= maybe_revoked
    assert not gone & set(there)
    names = {one.image_file for one in store.contributions()}
    assert {f"images/{name[:3]}/{name}" for name in image_files(store)} == names
    told = {(entry.kind, entry.contribution_id) for entry in store.pending(10**9, 1e12)}
    assert told == {("put", number) for number in there} | {("delete", number) for number in gone}
