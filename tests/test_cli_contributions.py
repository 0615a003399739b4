"""`lcm contributions`: each action as a user would type it."""

import json
from pathlib import Path

import pytest

from lcm.cli import main
from lcm.contributions.store import ContributionStore
from lcm.data.dataset import read_dataset

PHOTOS = sorted((Path(__file__).parent.parent / "reports" / "examples").glob("*.jpg"))


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    """Two images with an English caption each, and one of them with a German one."""
    store = ContributionStore(tmp_path / "store")
    for photo, caption in zip(PHOTOS, ("an astronaut", "a cat"), strict=False):
        store.add(photo.read_bytes(), caption)
    store.add(PHOTOS[0].read_bytes(), "eine Astronautin", language="de")
    return store


@pytest.fixture
def lcm(store, capsys):
    """Run an action on the store; returns exit code, what was printed, and what was complained of."""

    def run(*arguments, folder=store.folder) -> tuple[int, str, str]:
        code = main(["contributions", "--store", str(folder), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_list_shows_them_in_order(lcm):
    code, printed, _ = lcm("list")
    assert code == 0
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [
        ("1", "an astronaut"),
        ("2", "a cat"),
        ("3", "eine Astronautin (waits: de)"),
    ]


def test_list_as_json_holds_everything(lcm):
    records = [json.loads(line) for line in lcm("list", "--json")[1].splitlines()]
    assert [record["caption"] for record in records] == ["an astronaut", "a cat", "eine Astronautin"]
    assert records[0]["image_format"] == "jpeg"


def test_an_export_is_a_data_set_and_comes_back_by_import(lcm, tmp_path):
    code, printed, _ = lcm("export", tmp_path / "out")
    assert (code, printed) == (0, f"{tmp_path / 'out'}: 2 images, 2 captions, 1 in other languages\n")
    assert {image.captions for image in read_dataset(tmp_path / "out").images} == {("an astronaut",), ("a cat",)}
    code, printed, _ = lcm("import", tmp_path / "out" / "captions.tsv", folder=tmp_path / "other")
    assert (code, printed) == (0, "2 added, 0 there already, 0 refused\n")
    assert lcm("import", tmp_path / "out" / "captions.tsv", folder=tmp_path / "other")[1].startswith("0 added, 2 there")


def test_an_import_names_what_it_refuses(lcm, tmp_path):
    (tmp_path / "captions.tsv").write_text("missing.jpg\ta dog\n")
    code, printed, _ = lcm("import", tmp_path / "captions.tsv")
    assert code == 1
    assert printed.startswith("line 1, missing.jpg: ")
    assert printed.endswith("0 added, 0 there already, 1 refused\n")


def test_what_is_revoked_is_gone_and_a_line_stays(lcm, store):
    code, printed, _ = lcm("revoke", "2", "--reason", "asked to")
    assert code == 0
    assert printed.endswith(": asked to\n")
    assert [one.id for one in store.contributions()] == [1, 3]
    code, _, complained = lcm("revoke", "99", "--reason", "asked to")
    assert code == 1
    assert complained.startswith("lcm: ")


def test_check_finds_a_missing_image(lcm, store):
    assert lcm("check") == (0, "3 contributions with 2 images\n", "")
    store.path_of(store.get(2)).unlink()
    code, printed, _ = lcm("check")
    assert code == 1
    assert "the image of 2 is missing" in printed
    assert lcm("export", store.folder.parent / "out")[0] == 1


def test_a_backup_can_be_put_back(lcm, store, tmp_path):
    assert lcm("backup", tmp_path / "backup")[1].endswith("3 contributions with 2 images\n")
    assert lcm("restore", tmp_path / "backup", folder=tmp_path / "new")[1].startswith("3 contributions with 2 images")
    code, _, complained = lcm("restore", tmp_path / "backup")
    assert code == 1
    assert "--replace" in complained or "replace" in complained
    assert lcm("restore", tmp_path / "backup", "--replace")[0] == 0
    assert [one.caption for one in ContributionStore(store.folder).contributions()][:2] == ["an astronaut", "a cat"]


def test_what_was_revoked_after_the_backup_stays_revoked(lcm, store, tmp_path):
    lcm("backup", tmp_path / "backup")
    lcm("revoke", "2", "--reason", "asked to")
    code, printed, _ = lcm("restore", tmp_path / "backup", "--replace")
    assert code == 0
    assert "2 was revoked after the backup and is so again" in printed
    assert str(store.folder / "replaced-1") in printed
    assert [one.id for one in ContributionStore(store.folder).contributions()] == [1, 3]


def test_the_folder_of_an_export_is_taken_in_whole(lcm, tmp_path):
    lcm("export", tmp_path / "out")
    assert lcm("import", tmp_path / "out", folder=tmp_path / "other")[1] == "3 added, 0 there already, 0 refused\n"


def test_what_is_done_here_is_mirrored_where_the_service_mirrors(lcm, store, monkeypatch):
    monkeypatch.setenv("LCM_STORE_URL", "memory://mirror")
    assert lcm("list")[0] == 0
    assert len(store.pending(10, now=0)) == 3
