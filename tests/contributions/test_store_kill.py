"""Rows H01 and H02: the store when its processes are killed. LCM_KILL_ROUNDS=300 makes the long run."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lcm.contributions.store import ContributionStore
from tests.fakes.contributed import picture, sha256
from tests.fakes.mirror_targets import due

ROUNDS = int(os.environ.get("LCM_KILL_ROUNDS", "10"))
CLIENTS = 4

# Processes are forked from a server that has imported all that is slow, and has no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lcm.contributions.store", "tests.contributions.test_store_kill"])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "contributions"


def start(target, *arguments) -> multiprocessing.Process:
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def assert_whole(store: ContributionStore) -> None:
    """No row without its image, no image without a row, each image what was sent, and SQLite agrees."""
    rows = list(store.contributions())
    for one in rows:
        assert sha256(store.read_image(one)) == one.image_sha256
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        images = {digest for (digest,) in connection.execute("SELECT image_sha256 FROM images")}
    assert images == {one.image_sha256 for one in rows}


def change_until(folder: Path, change: str, statement: str, after: bool) -> None:
    """Add or revoke, and be killed before or after a statement."""

    class Killing(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if sql.startswith(statement) and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = super().execute(sql, *arguments)
            if sql.startswith(statement):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    store, connect = ContributionStore(folder), sqlite3.connect
    sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Killing, **options)
    if change == "add":
        store.add(picture(1, side=1000), "A dog")  # 3 MB: pages are written before the commit
    else:
        store.revoke(1, "asked")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("change", "statement"),
    [
        *(("add", one) for one in ("BEGIN", "INSERT OR IGNORE INTO images", "INSERT INTO contributions", "COMMIT")),
        *(("revoke", one) for one in ("INSERT INTO contributions", "DELETE FROM images", "COMMIT")),
    ],
)
def test_h02_killed_at_each_statement(change, statement, after, folder):
    ContributionStore(folder).add(picture(0), "the first")
    process = start(change_until, folder, change, statement, after)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    is_committed = statement == "COMMIT" and after
    store = ContributionStore(folder)
    assert_whole(store)
    if change == "add":
        assert [one.id for one in store.contributions()] == ([1, 2] if is_committed else [1])
        again = store.add(picture(1, side=1000), "A dog")
        assert (again.id, again.known) == (2, is_committed)
    else:
        assert [one.id for one in store.revoked()] == ([1] if is_committed else [])
        assert len(list(store.contributions())) == 1 - is_committed


def client(folder: Path, log: Path, seed: int) -> None:
    """Add, add again, revoke and approve for ever; writes down what is about to be revoked, and what was answered."""
    chance, ids = random.Random(seed), []
    store = ContributionStore(folder)
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
            data, caption = picture(image, side=chance.choice([4, 40, 120, 400])), f"client {seed} step {step}"
            added = store.add(data, caption)
            ids.append(added.id)
            lines.write(json.dumps(["added", added.id, sha256(data), caption]) + "\n")


def test_h01_kill_9_at_random_moments(folder, tmp_path):
    chance = random.Random(0)
    added, revoked, maybe_revoked = {}, set(), set()
    for round_ in range(ROUNDS):
        log = tmp_path / f"{round_}.log"
        processes = [start(client, folder, log, round_ * CLIENTS + number + 1) for number in range(CLIENTS)]
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.12))  # the random moment itself
        chance.shuffle(processes)
        for process in processes[: chance.randrange(CLIENTS)]:  # some first: the others keep working, a store is opened
            process.kill()
        if chance.random() < 0.3:
            ContributionStore(folder)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL  # none ended by an error
        for line in log.read_text().splitlines():
            what, number, *pair = json.loads(line)
            if what == "added":
                added[number] = pair
            else:
                {"revoking": maybe_revoked, "revoked": revoked}[what].add(number)
        assert_nothing_is_lost(ContributionStore(folder), added, revoked, maybe_revoked)
    assert_whole(ContributionStore(folder))
    print(f"{ROUNDS} rounds: {len(added)} answered, {len(revoked)} revoked, 0 lost, 0 torn")


def assert_nothing_is_lost(store: ContributionStore, added: dict, revoked: set[int], maybe_revoked: set[int]) -> None:
    there = {one.id: [one.image_sha256, one.caption] for one in store.contributions()}
    gone = {one.id for one in store.revoked()}
    for number, pair in added.items():
        assert there.get(number) == pair or number in maybe_revoked
    assert revoked <= gone <= maybe_revoked
    assert not gone & set(there)
    assert set(due(store)) == gone | there.keys()
