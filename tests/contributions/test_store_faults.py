"""The store when the disk, the folder, the file or a lock fails: rows H03 to H10 and H15.

After every fault nothing of what was refused is left, what was kept is there, and the same store works again.
"""

import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lcm.contributions import store as store_module
from lcm.contributions.store import COLUMNS, DATABASE, PRAGMAS, ContributionStore
from lcm.errors import StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from tests.fakes.contributed import files_of, picture

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def store(store) -> ContributionStore:
    store.add(picture(0), "the first")
    return store


def content(store: ContributionStore) -> tuple:
    """Return all that the store holds."""
    rows = list(store.contributions())
    return rows, [store.read_image(one) for one in rows], store.revoked()


@contextmanager
def unchanged(store: ContributionStore, error: type[StoreError], match: str = ".") -> Iterator[None]:
    """Expect an error that leaves nothing."""
    before = content(store)
    with pytest.raises(error, match=match) as raised:
        yield
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert content(store) == before


# No space


@pytest.mark.parametrize("room", [20_000, 400_000])
def test_h05_no_room_on_the_disk(room, store):
    """A limit on the size of files stands for a full disk; SQLite calls that an error of the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = picture(5, side=400)
    assert len(data) > 400_000
    with unchanged(store, StoreError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room + store.path.stat().st_size, hard))
        try:
            store.add(data, "A large picture")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.add(data, "A large picture").id == 2


def test_h05_h06_no_room_in_the_database(store, monkeypatch):
    """What SQLite says of a full file system: SQLITE_FULL."""
    pages = store.path.stat().st_size // 4096
    with unchanged(store, StoreFullError, "no space is left"), monkeypatch.context() as patch:
        patch.setattr(store_module, "PRAGMAS", (*PRAGMAS, f"max_page_count = {pages + 5}"))
        store.add(picture(5, side=100), "A picture of 30 kB")
    assert store.add(picture(5, side=100), "A picture of 30 kB").id == 2


# Not allowed to write


@pytest.mark.skipif(not IS_ROOT, reason="changes the user, which only root may")
@pytest.mark.parametrize("part", ["folder", "file"])
def test_h07_a_store_that_is_read_only(part, store):
    place = Path(tempfile.mkdtemp(dir="/tmp")) / "contributions"  # pytest's own folders are closed to others
    shutil.copytree(store.folder, place)
    for path in [place.parent, place, *place.iterdir()]:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        store = ContributionStore(place)
        changed = place if part == "folder" else store.path
        changed.chmod(0o500 if part == "folder" else 0o400)
        with pytest.raises(StoreError, match=r"cannot be written.*; check who owns it"):
            ContributionStore(place)
        if part == "file":
            with unchanged(store, StoreError, "cannot be written"):
                store.add(picture(3), "A dog")
        changed.chmod(0o700)
        assert store.add(picture(3), "A dog").id == 2
    finally:
        os.seteuid(0)
        shutil.rmtree(place.parent)


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_h07_a_folder_that_cannot_be_one(place, tmp_path):
    (tmp_path / "a file").write_bytes(b"x")
    with pytest.raises(StoreError, match="cannot be used"):
        ContributionStore(tmp_path / place)


# The folder goes away


@pytest.mark.parametrize("part", ["", DATABASE])
@pytest.mark.parametrize("link", [False, True])
def test_h08_a_part_that_is_moved_away_or_a_link_to_nothing_of_ours_while_running(part, link, store, tmp_path):
    place, away, outside = store.folder / part, tmp_path / "away", tmp_path / "outside"
    outside.mkdir()
    before = content(store)
    place.rename(away)
    if link:
        place.symlink_to(outside)
    with pytest.raises(StoreError):
        store.add(picture(3), "A dog")
    assert link or not place.exists()
    assert files_of(outside) == {}
    if link:
        place.unlink()
    away.rename(place)
    assert content(store) == before
    assert store.add(picture(3), "A dog").id == 2


# A damaged file


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A store whose file has inner pages, overflow pages and free pages."""
    store = ContributionStore(tmp_path_factory.mktemp("template") / "contributions")
    for number in range(60):
        store.add(picture(number, side=60), f"{number} {'a long caption of many words ' * (number % 10)}")
    for number in range(20, 40):
        store.revoke(number, "so that there are free pages")
    return store.folder


@pytest.fixture
def filled(template, tmp_path) -> ContributionStore:
    shutil.copytree(template, tmp_path / "filled")
    return ContributionStore(tmp_path / "filled")


def assert_refused(store: ContributionStore) -> None:
    """Opening must refuse in one line that says what to do, and leave every file as it is."""
    before = files_of(store.folder)
    with pytest.raises(StoreDamagedError, match=r"is damaged \(.+\); nothing in it was deleted\. .*a backup") as error:
        ContributionStore(store.folder)
    assert "\n" not in str(error.value)
    assert files_of(store.folder) == before


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 4096, 8192, -4096, -100, "half"])
def test_h09_a_truncated_file(size, filled):
    whole = filled.path.stat().st_size
    os.truncate(filled.path, whole // 2 if size == "half" else size + (whole if size < 0 else 0))
    assert_refused(filled)


def test_h09_a_zeroed_file_and_another_program_s(filled):
    filled.path.write_bytes(bytes(filled.path.stat().st_size))
    assert_refused(filled)
    filled.path.unlink()
    with closing(sqlite3.connect(filled.path)) as connection:
        connection.execute("CREATE TABLE contributions (number)")
    assert_refused(filled)


def test_h09_a_damaged_page_is_told_at_the_start_or_when_its_image_is_read(filled):
    whole, before, told = filled.path.read_bytes(), content(filled), 0
    for number, start in enumerate(range(0, len(whole), 4096)):
        page = whole[start : start + 4096]
        damaged = (bytes(len(page)), bytes(byte ^ 0xFF for byte in page), random.Random(0).randbytes(len(page)))
        filled.path.write_bytes(whole[:start] + damaged[number % 3] + whole[start + 4096 :])
        try:
            assert content(ContributionStore(filled.folder)) == before  # the page was free
        except StoreDamagedError:
            told += 1
    assert told > 100
    filled.path.write_bytes(whole)
    assert content(ContributionStore(filled.folder)) == before


def test_h09_a_large_file_is_checked_without_its_images(filled, monkeypatch):
    monkeypatch.setattr(store_module, "CHECKED_WHOLE_BYTES", 0)
    with closing(sqlite3.connect(filled.path)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    whole = filled.path.read_bytes()
    for table, is_checked in {"contributions": True, "images": False}.items():
        start = 4096 * (pages[table] - 1)
        filled.path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        if is_checked:
            assert_refused(filled)
        else:
            opened = ContributionStore(filled.folder)
            with pytest.raises(StoreDamagedError):
                opened.read_image(opened.get(1))


def test_h09_damage_at_run_time_is_told_too(filled):
    whole = filled.path.read_bytes()
    filled.path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(StoreDamagedError):
        filled.add(picture(99), "A dog")
    filled.path.write_bytes(b"")
    with pytest.raises(StoreError):
        filled.add(picture(99), "A dog")
    filled.path.write_bytes(whole)
    assert filled.add(picture(99), "A dog").id == 61


def test_a_store_of_another_version_is_refused_and_left_alone(store):
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    before = files_of(store.folder)
    with pytest.raises(StoreError, match=r"another version of lcm \(its tables are version 9; this one knows \d\)"):
        ContributionStore(store.folder)
    assert files_of(store.folder) == before


# A lock that others hold


@contextmanager
def held(store: ContributionStore, kind: str) -> Iterator[None]:
    """Hold a lock as another process would."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {kind}")
        connection.execute("SELECT count(*) FROM contributions").fetchone()
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE", "DEFERRED"])
def test_h10_a_lock_that_is_held_for_long(kind, store, monkeypatch):
    assert store_module.BUSY_TIMEOUT_S == 5.0
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.3)
    before = content(store)
    with held(store, kind):
        with pytest.raises(StoreBusyError, match="try again a little later"):
            store.add(picture(3), "A dog")
        if kind == "EXCLUSIVE":
            with pytest.raises(StoreBusyError):  # and not damaged
                ContributionStore(store.folder)
        else:
            assert content(ContributionStore(store.folder)) == before
    assert content(store) == before
    assert store.add(picture(3), "A dog").id == 2


def test_h10_threads_wait_for_a_lock_together(store):
    with ThreadPoolExecutor(8) as pool:
        with held(store, "IMMEDIATE"):
            adding = [pool.submit(store.add, picture(number), "A dog") for number in range(1, 9)]
            assert not any(one.done() for one in adding)
        assert sorted(one.result().id for one in adding) == list(range(2, 10))


# Power loss


def test_h03_the_journal_is_synced_before_the_file_and_the_file_before_the_reply(tmp_path):
    """As strace sees it: the journal is valid on the disk, then the file is, then the journal's end commits."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    script = f"""
import os
from tests.fakes.contributed import picture
from lcm.contributions.store import ContributionStore
store = ContributionStore({str(tmp_path / "contributions")!r})
store.add(picture(0), "the first")
os.write(2, b"BEGIN")
store.add(picture(1), "A dog")
os.write(2, b"END")
"""
    trace = ["strace", "-f", "-y", "-e", "trace=/^(write|pwrite|fsync|fdatasync|ftruncate)", "-o", tmp_path / "log"]
    done = subprocess.run([*trace, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    if "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    log = log[log.index('"BEGIN"') : log.index('"END"')]
    calls = re.findall(rf"(\w+?)(?:64)?\(\d+<[^>]*{DATABASE}(-journal)?>", log)
    steps = [f"{call.replace('fdata', 'f')} {'journal' if journal else 'file'}" for call, journal in calls]
    written, synced = steps.index("pwrite file"), len(steps) - 1 - steps[::-1].index("fsync file")
    assert "fsync journal" in steps[:written]
    assert written < synced < steps.index("ftruncate journal")
    assert steps[-1] == "fsync journal"


def test_h04_a_file_that_someone_turned_to_wal_is_turned_back(store):
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    assert store.add(picture(3), "A dog").id == 2
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() != ("wal",)


# Many


def test_h15_100_000_contributions(store):
    """Made by SQL. Lists and look-ups go by an index, and the start reads no image."""
    values = "?, ?, 'jpeg', 50000, 500, 375, ?, 'sent', 'en', 'http', '2026-01-01T00:00:00+00:00', '', 0, '', ''"
    with closing(sqlite3.connect(store.path)) as connection, connection:
        rows = ((number, f"{number:064x}", f"a dog runs {number}") for number in range(2, 100_001))
        connection.executemany(f"INSERT INTO contributions ({', '.join(COLUMNS)}) VALUES ({values})", rows)
        for query in (
            "SELECT 1 FROM contributions WHERE image_sha256 = 'a' AND caption = 'b' AND revoked = ''",
            "SELECT 1 FROM contributions WHERE image_sha256 = 'a' AND revoked = '' ORDER BY id",
            "SELECT 1 FROM contributions WHERE revoked = '' AND id > 5 ORDER BY id LIMIT 10",
            "SELECT 1 FROM contributions WHERE revoked != '' ORDER BY id",
            "SELECT id / 100 FROM contributions WHERE mirrored < revision GROUP BY 1",
            "SELECT id FROM contributions WHERE mirrored < revision AND id >= 5 AND id < 10",
            "SELECT 1 FROM images WHERE image_sha256 = 'a'",
        ):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert "USING" in plan[0], (query, plan)
    store = ContributionStore(store.folder)
    assert store.add(picture(1), "A dog").id == 100_001
    assert sum(1 for _ in store.contributions()) == 100_001
