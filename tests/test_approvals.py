"""Approvals: what a person lets pass on the dashboard passes the guards of the next retraining."""

import pytest
from test_retraining import desk, numbers, spam  # noqa: F401 - desk is a fixture

from lcm.errors import ConfigError, NothingToDo, StoreError
from lcm.retraining.approvals import APPROVED, approve, read_approved
from lcm.retraining.contributed import QUARANTINED


def test_nothing_is_approved_at_first(tmp_path):
    assert read_approved(tmp_path) == set()


def test_approvals_add_up_and_can_be_taken_back(tmp_path):
    approve(tmp_path, [3, 7, 8])
    assert approve(tmp_path, [9]) == {3, 7, 8, 9}
    assert (tmp_path / APPROVED).read_text() == "3,7-9\n"
    assert approve(tmp_path, [8, 100], approved=False) == read_approved(tmp_path) == {3, 7, 9}


def test_a_file_that_holds_something_else_is_told(tmp_path):
    (tmp_path / APPROVED).write_text("all of them\n")
    with pytest.raises(ConfigError, match="write 3,7-9"):
        approve(tmp_path, [1])
    assert (tmp_path / APPROVED).read_text() == "all of them\n"


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        approve(tmp_path / "store", [1])


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
