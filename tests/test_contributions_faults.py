"""The store of contributions when something fails: the disk, the folder, the database, the lock. H05 to H10, H03, H15.

After every fault nothing of what was refused is left, what was kept is there, and the same store works again.
"""

import errno
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcm.contributions import database
from lcm.contributions import store as store_module
from lcm.contributions.files import POINTS
from lcm.contributions.records import COLUMNS, Contribution, checksum
from lcm.contributions.store import ContributionStore
from lcm.errors import StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from tests.fakes.contributed import files_of, image_files, picture, sha256

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    store = ContributionStore(tmp_path / "contributions", outbox=True)
    store.add(picture(0), "the first")
    return store


def content(store: ContributionStore) -> tuple:
    """Return all that the store holds: rows, outbox and image files."""
    return list(store.contributions()), store.pending(1000, 1e12), image_files(store)


@contextmanager
def unchanged(store: ContributionStore, error: type[StoreError]) -> Iterator[None]:
    """Expect an error that leaves nothing, and that the same store works once the cause is gone."""
    before = content(store)
    with pytest.raises(error) as raised:
        yield
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert content(store) == before
    again = store.add(picture(1), "afterwards")
    assert not again.known
    assert store.path_of(again).read_bytes() == picture(1)
    store.revoke(again.id, "only to try")
    assert image_files(store) == before[2]


# H05, H06: no space


def test_h05_no_room_for_the_image(store):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = picture(5, side=400)
    assert len(data) > 400_000
    before = content(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(StoreFullError, match="no space is left"):
            store.add(data, "A large picture")
        assert content(store) == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.add(data, "A large picture").id == 2


def test_h05_no_room_for_the_row_s_journal(store):
    """A limit above the image's size and below the database's: SQLite calls that an error of the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = content(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError):
            store.add(picture(5), "A small picture")
        assert image_files(store) == before[2]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(store) == before
    assert store.add(picture(5), "A small picture").id == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "open"])
def test_h05_every_step_of_writing_may_find_the_disk_full(call, code, store, monkeypatch):
    real = getattr(os, call)

    def fail(*arguments, **options):
        if call == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **options)
        raise OSError(code, os.strerror(code))

    with unchanged(store, StoreFullError), monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        store.add(picture(3), "A dog")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM, errno.EMFILE])
def test_other_errors_of_the_disk_are_store_errors(code, store, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    with unchanged(store, StoreError), monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        store.add(picture(3), "A dog")


@pytest.mark.skipif(not IS_ROOT, reason="only root may mount a file system")
def test_h05_a_full_file_system(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", mount], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = ContributionStore(mount / "contributions", outbox=True)
        kept = []
        with pytest.raises(StoreFullError):  # whichever finds no room, the image or SQLite
            kept.extend(store.add(picture(number, side=30), f"number {number}") for number in range(1000))
        assert len(kept) > 20
        for _ in range(3):
            with pytest.raises(StoreFullError):
                store.add(picture(5000, side=300), "too large")
        assert list(store.contributions()) == kept
        assert store.check().sound
        assert len(image_files(store)) == len(kept)
        with pytest.raises(StoreFullError):
            store.revoke(kept[0].id, "to make room")  # needs some itself
        subprocess.run(["mount", "-o", "remount,size=6m", mount], check=True)
        assert store.add(picture(5000, side=300), "not too large").id > kept[-1].id
        assert ContributionStore(store.folder).check().sound
    finally:
        subprocess.run(["umount", mount], check=True)


def test_h06_no_room_for_the_row(store, monkeypatch):
    with unchanged(store, StoreFullError):
        (pages,) = sqlite3.connect(store.folder / "contributions.sqlite").execute("PRAGMA page_count").fetchone()
        with monkeypatch.context() as patch:
            patch.setattr(database, "PRAGMAS", (*database.PRAGMAS, f"max_page_count = {pages}"))
            for number in range(10, 400):
                data, caption = picture(number), f"{number} {'long ' * 190}"
                files = image_files(store)
                try:
                    store.add(data, caption)
                except StoreFullError:
                    assert image_files(store) == files
                    for added in range(2, number - 8):
                        store.revoke(added, "only to fill the pages")
                    raise


# H07: not allowed to write


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not IS_ROOT, reason="changes the user, which only root may")
@pytest.mark.parametrize("part", ["everything", "images", "contributions.sqlite", "shard"])
def test_h07_a_part_that_is_read_only(part, store):
    data = picture(3)
    shard = f"images/{sha256(data)[:3]}"
    place = Path("/tmp") / f"lcm-h07-{os.getpid()}"  # pytest's own folders are closed to others
    shutil.copytree(store.folder, place)
    try:
        if part == "shard":
            (place / shard).mkdir()
        for path in [place, *place.rglob("*")]:
            os.chown(path, 65534, 65534)
        changed = [place, *place.rglob("*")] if part == "everything" else [place / (shard if part == "shard" else part)]
        with as_nobody():
            store = ContributionStore(place, outbox=True)
            before = content(store)
            for path in changed:
                path.chmod(0o500 if path.is_dir() else 0o400)
            with pytest.raises(StoreError, match="cannot be written"):
                store.add(data, "A dog")
            assert content(store) == before
            if part != "shard":  # it is one of 4,096
                with pytest.raises(StoreError, match="cannot be written; check who owns it"):
                    ContributionStore(place)
            for path in changed:
                path.chmod(0o700)
            assert store.add(data, "A dog").id == 2
            assert ContributionStore(place).check().sound
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_h07_a_file_system_that_became_read_only(code, store, monkeypatch):
    real = os.open

    def open_(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *arguments, **options)

    with unchanged(store, StoreError), monkeypatch.context() as patch:
        patch.setattr(os, "open", open_)
        store.add(picture(3), "A dog")


# H08: the folder goes away


def test_h08_the_folder_is_deleted(store):
    shutil.rmtree(store.folder)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be used"):
            store.add(picture(3), "A dog")
        with pytest.raises(StoreError):
            list(store.contributions())
    assert not store.folder.exists()


@pytest.mark.parametrize("part", ["", "images", "contributions.sqlite", "above"])
def test_h08_a_part_is_moved_away_and_back(part, store):
    before = content(store)
    place = store.folder.parent if part == "above" else store.folder / part
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(StoreError):
        store.add(picture(3), "A dog")
    assert not place.exists()
    place.with_name("elsewhere").rename(place)
    assert content(store) == before
    assert store.add(picture(3), "A dog").id == 2


@pytest.mark.parametrize("part", ["", "images", "contributions.sqlite", "shard", "above"])
def test_h08_nothing_is_written_through_a_link(part, store, tmp_path):
    """The link leads to a copy, in which all would be there that is needed."""
    data = picture(0) + b"another file in the same shard"
    shard = "images/" + sha256(data)[:3]
    (store.folder / shard).mkdir(exist_ok=True)
    place = {"above": store.folder.parent, "shard": store.folder / shard}.get(part, store.folder / part)
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    (shutil.copytree if place.is_dir() else shutil.copy2)(place, outside)
    away = place.with_name(f"{place.name}-away")
    before, before_outside = content(store), files_of(outside) if outside.is_dir() else outside.read_bytes()
    place.rename(away)
    place.symlink_to(outside)
    with pytest.raises(StoreError):
        store.add(data, "A dog")
    assert (files_of(outside) if outside.is_dir() else outside.read_bytes()) == before_outside
    place.unlink()
    away.rename(place)
    assert content(store) == before
    assert store.add(data, "A dog").id == 2


@pytest.mark.parametrize("point", POINTS[:4])
def test_h08_a_link_that_appears_in_the_middle(point, store, tmp_path):
    outside, away = tmp_path / "outside", tmp_path / "away"
    shutil.copytree(store.folder, outside)
    before = files_of(outside)

    def replace_folder(reached):
        if reached == point:
            store.folder.rename(away)
            store.folder.symlink_to(outside)

    racing = ContributionStore(store.folder, reached=replace_folder)
    with pytest.raises(StoreError):
        racing.add(picture(3), "A dog")
    assert files_of(outside) == before
    store.folder.unlink()
    away.rename(store.folder)
    opened = ContributionStore(store.folder)  # sweeps, for the rest could not be tidied up
    assert [one.id for one in opened.contributions()] == [1]
    assert len(image_files(opened)) == 1
    assert store.add(picture(3), "A dog").id == 2


def test_a_store_may_be_configured_through_a_link(store, tmp_path):
    (tmp_path / "link").symlink_to(store.folder)
    assert ContributionStore(tmp_path / "link").add(picture(3), "A dog").id == 2
    assert store.get(2)


# H09: a damaged database


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A store whose database has inner pages, overflow pages and free pages."""
    store = ContributionStore(tmp_path_factory.mktemp("template") / "contributions", outbox=True)
    store.add(picture(0), "the first")
    for number in range(1, 60):
        store.add(picture(number), f"{number} {'a long caption of many words ' * (number % 10)}")
    for number in range(20, 40):
        store.revoke(number, "so that there are free pages")
    return store.folder


@pytest.fixture
def filled(template, tmp_path) -> ContributionStore:
    shutil.copytree(template, tmp_path / "contributions")
    return ContributionStore(tmp_path / "contributions", outbox=True)


def assert_refused(store: ContributionStore) -> None:
    """Opening must refuse in one line that says what to do, and leave every file as it is."""
    before = files_of(store.folder)
    for _ in range(2):
        with pytest.raises(
            StoreDamagedError, match=r"is damaged \(.+\); nothing in it was deleted: restore a backup"
        ) as error:
            ContributionStore(store.folder, outbox=True)
        assert "\n" not in str(error.value)
    after = files_of(store.folder)
    after.pop("contributions.sqlite-journal", None), before.pop("contributions.sqlite-journal", None)
    assert after == before


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 4096, 8192, -4096, -100, "half"])
def test_h09_a_truncated_database(size, filled):
    path = filled.folder / "contributions.sqlite"
    whole = path.stat().st_size
    os.truncate(path, whole // 2 if size == "half" else size + (whole if size < 0 else 0))
    assert_refused(filled)


def test_h09_a_zeroed_database(filled):
    path = filled.folder / "contributions.sqlite"
    path.write_bytes(bytes(path.stat().st_size))
    assert_refused(filled)


def test_h09_a_missing_database(filled):
    (filled.folder / "contributions.sqlite").unlink()
    assert_refused(filled)


@pytest.mark.parametrize("change", ["flipped", "zeroed", "random"])
def test_h09_a_damaged_page_wherever_it_is(change, filled):
    path = filled.folder / "contributions.sqlite"
    whole = path.read_bytes()
    free = free_pages(path)
    damage = {"flipped": lambda page: bytes(byte ^ 0xFF for byte in page), "zeroed": lambda page: bytes(len(page))}
    damage["random"] = lambda page: random.Random(0).randbytes(len(page))
    for page in set(range(len(whole) // 4096)) - free:
        start = 4096 * page
        path.write_bytes(whole[:start] + damage[change](whole[start : start + 4096]) + whole[start + 4096 :])
        with pytest.raises(StoreDamagedError):
            ContributionStore(filled.folder)
    path.write_bytes(whole)
    assert ContributionStore(filled.folder).check().sound


def free_pages(path: Path) -> set[int]:
    """Return the pages, from 0, whose content does not matter: the leaves of the free list (file format 1.5)."""
    data = path.read_bytes()
    free, trunk = set(), int.from_bytes(data[32:36], "big")
    while trunk:
        start = 4096 * (trunk - 1)
        trunk, count = (int.from_bytes(data[at : at + 4], "big") for at in (start, start + 4))
        free |= {int.from_bytes(data[at : at + 4], "big") - 1 for at in range(start + 8, start + 8 + 4 * count, 4)}
    return free


def test_h09_a_bit_in_a_caption(filled):
    path = filled.folder / "contributions.sqlite"
    path.write_bytes(path.read_bytes().replace(b"a long caption", b"a lung caption", 1))
    assert_refused(filled)


def test_h09_a_row_that_someone_changed(filled):
    with sqlite3.connect(filled.folder / "contributions.sqlite") as connection:
        connection.execute("UPDATE contributions SET usable = 0 WHERE number = 5")
    assert_refused(filled)


def test_h09_the_database_of_another_store(filled, tmp_path):
    other = ContributionStore(tmp_path / "other")
    other.add(picture(0), "the first")
    shutil.copy(other.folder / "contributions.sqlite", filled.folder / "contributions.sqlite")
    assert_refused(filled)


def test_h09_another_program_s_database(filled):
    path = filled.folder / "contributions.sqlite"
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE contributions (number)")
    assert_refused(filled)


def test_h09_the_images_of_another_store_or_none(filled, tmp_path):
    other = ContributionStore(tmp_path / "other")
    other.add(picture(0), "the first")
    shutil.move(filled.folder / "images", tmp_path / "images")
    assert_refused(filled)
    shutil.copytree(other.folder / "images", filled.folder / "images")
    assert_refused(filled)


def test_h09_an_old_database_under_newer_images(store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_STRAYS", 3)
    shutil.copy(store.folder / "contributions.sqlite", store.folder.parent / "old")
    for number in range(1, 5):
        store.add(picture(number), "A dog")
    shutil.copy(store.folder.parent / "old", store.folder / "contributions.sqlite")
    assert_refused(store)


@pytest.mark.parametrize(("rows", "harmful"), [(10, False), (80, True)])
def test_h09_a_journal_of_another_store_is_told_when_it_did_harm(rows, harmful, filled, tmp_path):
    """SQLite cannot tell whose journal it is, and puts the other store's pages back; ignores one that is not whole."""
    other = ContributionStore(tmp_path / "other")
    for number in range(rows):
        other.add(picture(number), f"{number} another store's long, long caption")
    (filled.folder / "contributions.sqlite-journal").write_bytes(hot_journal(other))
    before = image_files(filled) if not harmful else None
    if harmful:
        with pytest.raises(StoreDamagedError):
            ContributionStore(filled.folder)
    else:
        assert ContributionStore(filled.folder).check().sound
        assert image_files(filled) == before


def hot_journal(store: ContributionStore) -> bytes:
    """Return the journal of a transaction that is just being written."""
    with sqlite3.connect(store.folder / "contributions.sqlite", isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE contributions SET caption = caption || ' changed'")
        journal = (store.folder / "contributions.sqlite-journal").read_bytes()
        assert len(journal) > 4096
        connection.execute("ROLLBACK")
    return journal


def test_h09_a_journal_that_was_deleted_after_a_kill(filled):
    """Half of a transaction's pages are in the database, and what would undo them is gone."""
    path = filled.folder / "contributions.sqlite"
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM contributions WHERE number > 5")
        torn, journal = path.read_bytes(), path.with_name(f"{path.name}-journal").read_bytes()
        connection.execute("ROLLBACK")
    whole = path.read_bytes()
    assert torn != whole
    path.write_bytes(torn)
    path.with_name(f"{path.name}-journal").write_bytes(journal)
    assert ContributionStore(filled.folder).check().sound  # with the journal nothing is lost
    assert len(list(filled.contributions())) == 40
    path.write_bytes(torn)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    assert_refused(filled)


def test_damage_at_run_time_is_told_too(filled):
    path = filled.folder / "contributions.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(StoreDamagedError):
        filled.add(picture(99), "A dog")
    path.write_bytes(b"")
    with pytest.raises(StoreDamagedError):
        filled.add(picture(99), "A dog")
    path.write_bytes(whole)
    assert filled.add(picture(99), "A dog").id == 61
    assert len(image_files(filled)) == 41


def test_a_newer_store_is_refused_and_left_alone(store):
    with sqlite3.connect(store.folder / "contributions.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    before = files_of(store.folder)
    with pytest.raises(
        StoreError, match=r"made by a newer lcm \(version 2 of its tables; this one knows 1\); update lcm"
    ):
        ContributionStore(store.folder)
    assert files_of(store.folder) == before


def test_a_creation_that_was_cut_short_is_begun_anew(tmp_path):
    for left in (["images"], ["images/store_id"], ["images/store_id", "contributions.sqlite"]):
        folder = tmp_path / str(len(left[-1]))
        (folder / "images").mkdir(parents=True)
        for name in left:
            if not (folder / name).exists():
                (folder / name).write_bytes(b"")
        assert ContributionStore(folder).add(picture(1), "A dog").id == 1
        assert ContributionStore(folder).check().sound


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_a_folder_that_cannot_be_one(place, tmp_path):
    (tmp_path / "a file").write_bytes(b"x")
    with pytest.raises(StoreError):
        ContributionStore(tmp_path / place)


# H10: a lock that others hold


@contextmanager
def held(store: ContributionStore, kind: str) -> Iterator[None]:
    """Hold the lock as another process would."""
    connection = sqlite3.connect(store.folder / "contributions.sqlite", isolation_level=None)
    connection.execute(
        "BEGIN " + ("IMMEDIATE" if kind == "IMMEDIATE" else "EXCLUSIVE" if kind == "EXCLUSIVE" else "DEFERRED")
    )
    connection.execute("SELECT count(*) FROM contributions").fetchone()
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE", "READING"])
def test_h10_a_lock_that_is_held_for_long(kind, store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.4)
    before = content(store)
    with held(store, kind):
        start = time.monotonic()
        with pytest.raises(StoreBusyError, match="try again a little later"):
            store.add(picture(3), "A dog")
        assert 0.3 < time.monotonic() - start < 4
        if kind != "EXCLUSIVE":
            assert list(store.contributions()) == before[0]
    assert content(store)[:2] == before[:2]
    assert store.add(picture(3), "A dog").id == 2
    assert len(image_files(store)) == 2


def test_h10_the_default_is_five_seconds():
    assert database.BUSY_TIMEOUT_S == 5.0


def test_h10_a_lock_that_is_held_for_a_moment(store):
    lock, added = held(store, "EXCLUSIVE"), []
    with lock:
        thread = threading.Thread(target=lambda: added.append(store.add(picture(3), "A dog")))
        thread.start()
        time.sleep(0.3)
        assert added == []
    thread.join()
    assert added[0].id == 2


def test_h10_threads_wait_together_no_longer_than_one(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 1.5)
    errors = []

    def add(number: int) -> None:
        try:
            store.add(picture(number), "A dog")
        except StoreBusyError as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 9)]
    with held(store, "IMMEDIATE"):
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < 9, "one after the other they take 12 s"
    assert len(errors) == 8
    assert len(image_files(store)) == 1


def test_h10_opening_waits_for_no_writer_unless_there_is_something_to_sweep(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 90)
    with held(store, "IMMEDIATE"):
        start = time.monotonic()
        assert ContributionStore(store.folder).get(1)
        assert time.monotonic() - start < 45


def test_a_store_is_busy_not_damaged_when_it_cannot_be_opened(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    with held(store, "EXCLUSIVE"), pytest.raises(StoreBusyError):
        ContributionStore(store.folder)


# H03: the order in which things get to the disk


def test_h03_the_image_is_on_the_disk_before_its_name_and_its_name_before_its_row(tmp_path):
    """As strace sees it: sync of the file, rename, sync of the folder, then all that SQLite does to commit."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    script = f"""
import os, sys
from tests.fakes.contributed import picture
from lcm.contributions.store import ContributionStore
store = ContributionStore({str(tmp_path / "contributions")!r})
store.add(picture(0), "the first")
os.write(2, b"BEGIN")
store.add(picture(1), "A dog")
os.write(2, b"END")
"""
    command = [
        "strace",
        "-y",
        "-e",
        "trace=/^(rename|write|pwrite|fsync|fdatasync|ftruncate|mkdir)",
        "-o",
        tmp_path / "log",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    log = log[log.index('"BEGIN"') : log.index('"END"')]
    name = f"{sha256(picture(1))}.png"
    parts = {"contributions": "folder", "images": "images", name[:3]: "shard", f".{name}": "half-written image"}
    parts |= {"contributions.sqlite": "database", "contributions.sqlite-journal": "journal"}
    steps = []
    for call, path in re.findall(r"^(\w+?)(?:at2?|64)?\(\d+<([^>]+)>.* = \d+$", log, re.MULTILINE):
        step = (call.removesuffix("at"), parts[re.sub(r"\.[0-9a-f]{16}\.tmp$", "", path.rpartition("/")[2])])
        if step not in steps[-1:]:
            steps.append(step)
    assert steps == [
        ("mkdir", "images"),
        ("fsync", "images"),
        ("write", "half-written image"),
        ("fsync", "half-written image"),
        ("rename", "shard"),
        ("fsync", "shard"),
        ("pwrite", "journal"),
        ("fdatasync", "journal"),
        ("fdatasync", "folder"),
        ("pwrite", "journal"),  # its header, which makes it valid
        ("fdatasync", "journal"),
        ("pwrite", "database"),
        ("fdatasync", "database"),
        ("ftruncate", "journal"),  # the commit
        ("fdatasync", "journal"),
    ]


@pytest.mark.parametrize("pragma", [("journal_mode", "truncate"), ("synchronous", 2), ("secure_delete", 1)])
def test_h04_connections_keep_a_rollback_journal_and_sync_fully(pragma, store):
    name, value = pragma
    with store.database.writing() as session:
        assert session.connection.execute(f"PRAGMA {name}").fetchone() == (value,)
    assert not (store.folder / "contributions.sqlite-wal").exists()


def test_h04_a_database_that_someone_turned_to_wal_is_turned_back(store):
    with sqlite3.connect(store.folder / "contributions.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    connection.close()
    assert store.add(picture(3), "A dog").id == 2
    assert not (store.folder / "contributions.sqlite-wal").exists()


# H15: many


def test_h15_many_contributions(tmp_path):
    """Made by SQL: 20,000 here; 100,000 take five times as long to open, about a second."""
    store = ContributionStore(tmp_path / "contributions")
    rows, shards = [], {}
    with store.database.writing() as session:
        for number in range(1, 20_001):
            digest = sha256(str(number).encode())
            shards[digest[:3]] = shards.get(digest[:3], 0) + 1
            values = (digest, 50_000, "jpeg", 500, 375, f"a dog runs {number}", f"a dog runs {number}")
            row = Contribution(number, *values, "en", "http", "2026-01-01T00:00:00+00:00", True).as_row()
            rows.append((*row, checksum(session.store_id, row)))
        session.connection.executemany(
            f"INSERT INTO contributions VALUES ({', '.join('?' * (len(COLUMNS) + 1))})", rows
        )
    assert max(shards.values()) * 50 * 10 < 10_000  # ten million
    start = time.monotonic()
    store = ContributionStore(store.folder, outbox=True)
    assert time.monotonic() - start < 30, "a square law"
    plans = (
        "SELECT 1 FROM contributions WHERE image_sha256 = 'a' AND caption = 'b'",
        "SELECT 1 FROM contributions WHERE image_sha256 = 'a'",
        "SELECT 1 FROM contributions WHERE number > 5 ORDER BY number LIMIT 10",
        "SELECT 1 FROM outbox o WHERE o.settled = 0 AND o.due <= 5 ORDER BY o.entry_id LIMIT 10",
    )
    with store.database.reading() as session:
        for plan in plans:
            steps = [row[3] for row in session.connection.execute(f"EXPLAIN QUERY PLAN {plan}")]
            assert all("USING" in step for step in steps), (plan, steps)
    for number in range(100):
        assert store.add(picture(number), "A dog").id == 20_001 + number
    assert len(store.pending(50, 0.0)) == 50
