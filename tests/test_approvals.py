"""Approvals: what a person lets pass passes the guards of the next retraining, here and from any copy of the store."""

import pytest
from filelock import FileLock

from lcm.contributions import approvals
from lcm.contributions.approvals import APPROVED, approve, approved_file, read_approved
from lcm.contributions.backup import back_up, restore
from lcm.contributions.fetching import fetch
from lcm.contributions.layout import check
from lcm.errors import ConfigError, NothingToDo, StoreBusyError, StoreError
from lcm.retraining.contributed import QUARANTINED
from tests.fakes.contributed import picture
from tests.fakes.mirror_fakes import Clock, Store, down, make_mirror, make_target, skip_flushes
from tests.test_retraining import desk, numbers, spam  # noqa: F401 - desk is a fixture


def test_nothing_is_approved_at_first(tmp_path):
    assert read_approved(tmp_path) == set()


def test_approvals_add_up_and_can_be_taken_back(tmp_path):
    approve(tmp_path, [3, 7, 8])
    assert approve(tmp_path, [9]) == {3, 7, 8, 9}
    assert (tmp_path / APPROVED).read_text() == "3,7-9\n"
    assert approve(tmp_path, [8, 100], approved=False) == read_approved(tmp_path) == {3, 7, 9}


def test_a_file_that_holds_something_else_is_told(tmp_path):
    (tmp_path / APPROVED).write_text("all of them\n")
    with pytest.raises(ConfigError, match=r"approved\.txt: 'all of them' is no .* write 3,7-9; or remove the file"):
        approve(tmp_path, [1])
    assert (tmp_path / APPROVED).read_text() == "all of them\n"


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used"):
        approve(tmp_path / "store", [1])


def test_another_process_that_holds_the_lock_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(approvals, "LOCK_WAIT_S", 0.01)
    with FileLock(tmp_path / f".{APPROVED}.lock"), pytest.raises(StoreBusyError, match="try again"):
        approve(tmp_path, [1])


def test_what_is_approved_beside_the_store_passes_with_what_is_approved_by_parameter(desk):  # noqa: F811
    bad = spam(desk, 12)
    approve(desk.store.folder, [1, 2])
    assert numbers(desk.gather(approved="3-4")) == [number for number in bad if number > 4]


def test_what_an_earlier_run_kept_out_passes_once_it_is_approved(desk):  # noqa: F811
    spam(desk, 12)
    desk.publish(desk.gather().as_metrics())
    with pytest.raises(NothingToDo):
        desk.arrived()
    approve(desk.store.folder, [2, 3])
    gathered = desk.gather()
    assert gathered.as_metrics()[QUARANTINED] == "1,4-12"
    assert len(desk.contributed(gathered)) == 2


# Copies


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    skip_flushes(monkeypatch.setattr)
    store = Store(tmp_path / "store")
    for number in range(3):
        store.keep(picture(number), f"caption {number}")
    return store


def test_a_backup_holds_approvals_and_the_way_back_brings_them(store, tmp_path):
    back_up(store, tmp_path / "backup")
    approve(store.folder, [1, 2])
    back_up(store, tmp_path / "backup")
    approve(store.folder, [2], approved=False)
    back_up(store, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    assert read_approved(tmp_path / "restored") == {1}


def test_approvals_that_are_gone_stay_in_no_backup(store, tmp_path):
    """As in a store that was restored from a backup of before anything was approved."""
    approve(store.folder, [2])
    back_up(store, tmp_path / "backup")
    (store.folder / APPROVED).unlink()
    back_up(store, tmp_path / "backup")
    assert read_approved(tmp_path / "backup") == set()


def test_a_mirror_copies_approvals_and_whoever_fetches_has_them(store, tmp_path):
    target = make_target(tmp_path / "remote", "memory")
    mirror = make_mirror(store, target)
    mirror.copy_due()
    assert fetch(target, tmp_path / "runner").damaged == {}
    assert read_approved(tmp_path / "runner") == set()
    approve(store.folder, [1, 3])
    assert check(target, store.all_puts(), approved_file(store.folder)).missing == (APPROVED,)
    mirror.copy_due()
    assert check(target, store.all_puts(), approved_file(store.folder)).equal
    fetch(target, tmp_path / "runner")
    assert read_approved(tmp_path / "runner") == {1, 3}


def test_approvals_are_copied_once_the_target_answers_again(store, tmp_path, caplog):
    clock, target = Clock(), make_target(tmp_path / "remote", "memory")
    mirror = make_mirror(store, target, clock)
    mirror.copy_due()
    approve(store.folder, [2])
    target.fs.fault = down
    clock.now += mirror.copy_due()
    assert "approvals" in caplog.text
    target.fs.fault = None
    mirror.copy_due()
    assert target.read(APPROVED) == b"2\n"


@pytest.mark.parametrize("text", ["all of them", "1-999999999999", "1-9,\xff"])
def test_approvals_that_are_damaged_in_the_copy_are_left_out(store, tmp_path, text):
    target, runner = make_target(tmp_path / "remote", "memory"), tmp_path / "runner"
    approve(store.folder, [2])
    make_mirror(store, target).copy_due()
    fetch(target, runner)
    target.put(APPROVED, text.encode("latin-1"))
    assert list(fetch(target, runner).damaged) == [APPROVED]
    assert read_approved(runner) == {2}
