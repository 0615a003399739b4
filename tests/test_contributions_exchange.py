"""Contributions out of the store and back: exports, imports, backups, restores. F06, F13, H11, H16, H17."""

import csv
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from lcm.contributions import backup as backup_module
from lcm.contributions import copying
from lcm.contributions.backup import back_up, restore
from lcm.contributions.exchange import Refusal, export_contributions, from_cell, import_contributions, to_cell
from lcm.contributions.reader import StoreReader
from lcm.contributions.store import ContributionStore
from lcm.data.dataset import read_dataset
from lcm.data.text import standardise
from lcm.errors import ConfigError, DataError, StoreBusyError, StoreDamagedError, StoreError, StoreFullError
from tests.fakes.contributed import files_of, image_files, picture, sha256

NAUGHTY = [
    *("=1+1", "+1", "-1 dog", "@SUM(1)", "'=1", "''@x", "＝1", "'s dog", "'' dog", "\t=1", "\x00=1"),
    *('"quoted', '" dog', '"a" dog', "a\tb", "a\nb", "a\u2028b\x85c\rd", "一只狗", "می‌خواهم", "👩🏽‍❤️‍👨"),
    *("'); DROP TABLE x;--", "<b>a</b>", "::set-output a", "image\tcaption"),
]


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "contributions")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    store = ContributionStore(tmp_path_factory.mktemp("template") / "contributions")
    for number in range(6):
        store.add(picture(number, "JPEG" if number % 2 else "PNG"), f"number {number}")
    store.add(picture(0), "another")
    store.add(picture(2), "Ein Hund", "de")
    store.revoke(2, "wrong")
    return store.folder


@pytest.fixture
def filled(template, tmp_path) -> ContributionStore:
    shutil.copytree(template, tmp_path / "contributions")
    return ContributionStore(tmp_path / "contributions")


def rows_of(store: StoreReader) -> set[tuple[str, str, str]]:
    return {(one.image_sha256, one.caption, one.language) for one in store.contributions()}


# Cells


@pytest.mark.parametrize("caption", ["=1", "+1", "-1", "@x", '"x', "'=1", "''\"x", "＝1", "＋1", "－1", "＠x"])
def test_f13_no_cell_begins_like_a_formula(caption):
    assert to_cell(caption) == f"'{caption}"


@pytest.mark.parametrize("caption", ["a dog", "'s", "'a", "1=1", "''", "a@b", "<b>"])
def test_f13_other_cells_are_what_they_were(caption):
    assert to_cell(caption) == from_cell(caption) == caption


def test_f13_reading_a_cell_gives_back_the_caption():
    parts = ["'", "=", '"', "a", "＠", " "]
    captions = [a + b + c + d for a in ["", *parts] for b in ["", *parts] for c in ["", *parts] for d in parts]
    assert [from_cell(to_cell(caption)) for caption in captions] == captions
    assert len({to_cell(caption) for caption in captions}) == len(set(captions))


# Exports


def test_an_export_is_a_data_set(filled, tmp_path):
    exported = export_contributions(filled, tmp_path / "export")
    assert (exported.images, exported.captions, exported.waiting, exported.left_out) == (5, 6, 1, ())
    dataset = read_dataset(tmp_path / "export")
    expected = {(image.image_sha256, image.captions) for image in filled.training_images()}
    assert {(sha256(image.path.read_bytes()), image.captions) for image in dataset.images} == expected
    assert dataset.report.captions_file == "captions.tsv"
    assert dataset.report.unreadable_rows == len(dataset.report.missing_images) == 0
    assert [image.image_id for image in dataset.images] == [
        filled.get(image.first_id).image_file for image in filled.training_images()
    ]


def test_f06_f13_each_pair_is_one_line_of_as_many_columns_as_the_header(store, tmp_path):
    for number, caption in enumerate(NAUGHTY):
        store.add(picture(number), caption, "en" if number % 2 else "fa")
    export_contributions(store, tmp_path / "export")
    found = set()
    for name, width in (("captions.tsv", 2), ("captions_waiting.tsv", 3)):
        text = (tmp_path / "export" / name).read_bytes().decode()
        lines = text.split("\n")[1:-1]
        assert len(lines) == len(text.splitlines()) - 1
        for dialect in (csv.excel_tab, None):  # what spreadsheets do with quotation marks, and what lcm does
            rows = list(csv.reader(lines, dialect)) if dialect else [line.split("\t") for line in lines]
            assert len(rows) == len(lines)
            assert {len(row) for row in rows} == {width}
            found |= {(from_cell(row[-1]), name) for row in rows}
    kept = {(one.caption, "captions.tsv" if one.usable else "captions_waiting.tsv") for one in store.contributions()}
    assert found == kept
    for image in read_dataset(tmp_path / "export").images:  # the apostrophe is nothing to a model
        for caption in image.captions:
            assert standardise(caption) == standardise(from_cell(caption))


def test_h16_an_export_again_is_the_same_to_the_byte(filled, tmp_path):
    for folder in ("one", "two", "one"):
        export_contributions(filled, tmp_path / folder)
    before = files_of(tmp_path / "one")
    assert before == files_of(tmp_path / "two")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    export_contributions(ContributionStore(filled.folder), tmp_path / "one")
    assert files_of(tmp_path / "one") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")} == times


@pytest.mark.parametrize("steps", range(1, 14, 2))
def test_h16_an_export_that_was_cut_short_is_completed(steps, filled, tmp_path, monkeypatch):
    export_contributions(filled, tmp_path / "whole")
    left = [steps]

    def fail(*_arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KeyboardInterrupt):
            export_contributions(filled, tmp_path / "export")
    (tmp_path / "export" / ".captions.tsv.0123456789abcdef.tmp").write_bytes(b"left by a kill")
    export_contributions(filled, tmp_path / "export")
    (tmp_path / "export" / ".captions.tsv.0123456789abcdef.tmp").unlink()
    assert files_of(tmp_path / "export") == files_of(tmp_path / "whole")


def test_h17_what_was_revoked_leaves_the_export_too(filled, tmp_path):
    export_contributions(filled, tmp_path / "export")
    gone = filled.get(3)
    for contribution in filled.of_image(gone.image_sha256):
        filled.revoke(contribution.id, "asked")
    exported = export_contributions(filled, tmp_path / "export")
    assert (exported.images, exported.captions, exported.waiting) == (4, 5, 0)
    assert not (tmp_path / "export" / gone.image_file).exists()
    assert gone.caption not in (tmp_path / "export" / "captions.tsv").read_text()


def test_an_export_leaves_out_what_is_damaged_and_says_so(filled, tmp_path):
    filled.path_of(filled.get(3)).unlink()
    filled.path_of(filled.get(5)).write_bytes(b"x")
    exported = export_contributions(filled, tmp_path / "export")
    assert exported.left_out == (3, 5, 8)
    assert exported.images == 3
    assert len(read_dataset(tmp_path / "export").images) == 3


def test_an_empty_store_gives_an_empty_export(store, tmp_path):
    assert export_contributions(store, tmp_path / "export").captions == 0
    assert (tmp_path / "export" / "captions.tsv").read_text() == "image\tcaption\n"


def test_an_export_goes_into_no_folder_with_anything_else(filled, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds other files \(letter.txt\); choose an empty folder"):
        export_contributions(filled, tmp_path / "home")
    for folder in (filled.folder, filled.folder / "images", filled.folder.parent):
        with pytest.raises(ConfigError, match="the store's own folder, inside it or around it"):
            export_contributions(filled, folder)
    other = ContributionStore(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"contributions\.sqlite"):
        export_contributions(filled, other.folder)


def test_no_room_for_an_export(filled, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreFullError, match=r"no space is left for .*export"):
            export_contributions(filled, tmp_path / "export")
    assert export_contributions(filled, tmp_path / "export").captions == 6


# Imports


def write_folder(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(picture(number, "PNG" if number else "JPEG"))  # suffixes may lie
    (folder / "captions.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "captions.tsv"


def test_an_import_goes_through_the_same_door(store, tmp_path):
    lines = [
        "0.jpg\tA dog",
        "1.jpg\t A  cat ",
        "",
        "1.jpg\tA cat",
        "2.jpg\t'=1",
        "3.jpg\t\u200b",
        "4.jpg\t" + "a" * 1001,
    ]
    lines += [
        "5.jpg\tmissing",
        "../captions.tsv\tx",
        "/etc/passwd\tx",
        "1.jpg",
        "1.jpg\ta\tb",
        "captions.tsv\tx",
        "\tx",
        "a\x00.jpg\tx",
    ]
    found = import_contributions(store, write_folder(tmp_path / "plain", lines))
    assert (found.added, found.known) == (3, 1)
    assert [(one.image_format, one.caption, one.source) for one in store.contributions()] == [
        ("jpeg", "A dog", "import"),
        ("png", "A cat", "import"),
        ("png", "=1", "import"),
    ]
    reasons = {refusal.line: (refusal.image, refusal.reason) for refusal in found.refused}
    assert {line: image for line, (image, _) in reasons.items()} == {
        **{5: "3.jpg", 6: "4.jpg", 7: "5.jpg", 8: "../captions.tsv", 9: "/etc/passwd", 10: "1.jpg", 11: "1.jpg"},
        **{12: "captions.tsv", 13: "", 14: "a\x00.jpg"},
    }
    assert "no letter, digit or symbol" in reasons[5][1]
    assert "1,001 characters" in reasons[6][1]
    for line in (7, 8, 9, 13):
        assert reasons[line][1] == "there is no such image in the folder"
    assert reasons[10][1] == "the line has 1 columns; it needs 2: image, caption"
    assert "(unknown kind)" in reasons[12][1]
    assert "cannot be read" in reasons[14][1]
    assert isinstance(found.refused[0], Refusal)
    again = import_contributions(store, tmp_path / "plain" / "captions.tsv")
    assert (again.added, again.known, again.refused) == (0, 4, found.refused)


def test_an_import_of_an_export_gives_the_same_contributions(store, tmp_path):
    for number, caption in enumerate(NAUGHTY):
        store.add(picture(number // 2), caption, "en" if number % 3 else "fa")
    export_contributions(store, tmp_path / "export")
    other = ContributionStore(tmp_path / "other")
    for name in ("captions.tsv", "captions_waiting.tsv"):
        assert import_contributions(other, tmp_path / "export" / name).refused == ()
    assert rows_of(other) == rows_of(store)
    assert image_files(other) == image_files(store)


def test_an_import_may_name_another_folder_and_has_a_header_or_none(store, tmp_path):
    captions = write_folder(tmp_path / "images", [])
    elsewhere = tmp_path / "list.tsv"
    elsewhere.write_bytes("\ufeffCaption\tImage\tLanguage\r\nEin Hund\t1.jpg\tde\r\nA dog\t2.jpg\tEN\r\n".encode())
    found = import_contributions(store, elsewhere, captions.parent)
    assert (found.added, found.refused) == (2, ())
    assert [(one.caption, one.language) for one in store.contributions()] == [("Ein Hund", "de"), ("A dog", "en")]


def test_an_import_reads_nothing_through_a_link_out_of_the_folder(store, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    captions = write_folder(tmp_path / "plain", ["link.jpg\tx"])
    (captions.parent / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    assert import_contributions(store, captions).added == 0


def test_a_captions_file_that_cannot_be_read(store, tmp_path):
    with pytest.raises(DataError, match=r"gone.tsv cannot be read \(No such file or directory\)"):
        import_contributions(store, tmp_path / "gone.tsv")
    (tmp_path / "empty.tsv").write_bytes(b"")
    assert import_contributions(store, tmp_path / "empty.tsv").added == 0


def test_a_store_error_stops_an_import_and_the_rest_comes_with_the_next(store, tmp_path, monkeypatch):
    captions = write_folder(tmp_path / "plain", [f"{number}.jpg\tnumber {number}" for number in range(5)])
    real = store.add

    def add(image, caption, *arguments, **options):
        if caption == "number 3":
            raise StoreBusyError("busy")
        return real(image, caption, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store, "add", add)
        with pytest.raises(StoreBusyError):
            import_contributions(store, captions)
    found = import_contributions(store, captions)
    assert (found.added, found.known) == (2, 3)


# Backups


def assert_equal(backup: Path, store: StoreReader) -> None:
    copy = StoreReader(backup, "backup.sqlite")
    copy.database.verify()
    assert copy.check().sound
    assert list(copy.contributions()) == list(store.contributions())
    assert copy.revocations() == store.revocations()
    images = {name: data for name, data in files_of(store.folder / "images").items() if name != "store_id"}
    assert files_of(backup / "images") == images
    assert {path.name for path in backup.iterdir()} == {"backup.sqlite", "images"}


def test_h11_a_backup_holds_all_and_is_brought_up_to_date(filled, tmp_path):
    found = back_up(filled, tmp_path / "backup")
    assert (found.contributions, found.images, found.left_out) == (7, 5, ())
    assert_equal(tmp_path / "backup", filled)
    filled.add(picture(9), "new")
    filled.revoke(5, "wrong")
    back_up(filled, tmp_path / "backup")
    assert_equal(tmp_path / "backup", filled)


def test_h11_a_backup_while_others_write(filled, tmp_path):
    stop = threading.Event()
    errors = []

    def work(client: int) -> None:
        store, mine = ContributionStore(filled.folder), []
        try:
            for step in range(10_000):
                if stop.is_set():
                    return
                mine.append(store.add(picture(1000 * client + step), f"client {client} step {step}").id)
                if step % 3 == 2:
                    store.revoke(mine.pop(step % len(mine)), "wrong")
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(client,)) for client in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            found = back_up(filled, tmp_path / f"backup{number % 2}")
            copy = StoreReader(tmp_path / f"backup{number % 2}", "backup.sqlite")
            copy.database.verify()
            assert copy.check().sound
            assert found.left_out == ()
            names = {one.image_file for one in copy.contributions()}
            assert {f"images/{name}" for name in files_of(copy.folder / "images")} == names
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert restore(tmp_path / "backup1", tmp_path / "restored").contributions == found.contributions
    assert rows_of(ContributionStore(tmp_path / "restored")) <= rows_of(filled) | rows_of(copy)


def test_h11_what_is_revoked_during_a_backup_is_not_in_it(filled, tmp_path, monkeypatch):
    real, victims = copying._copy, [3, 5]

    def copy(store, contribution, folder):
        if victims:
            filled.revoke(victims.pop(), "just now")
        return real(store, contribution, folder)

    monkeypatch.setattr(copying, "_copy", copy)
    assert back_up(filled, tmp_path / "backup").left_out == ()
    monkeypatch.undo()
    assert_equal(tmp_path / "backup", filled)


def test_a_backup_that_never_settles_gives_up(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_copy", lambda *_: False)
    monkeypatch.setattr(filled, "get", lambda _number: None)
    with pytest.raises(StoreBusyError, match="revoked all the while"):
        back_up(filled, tmp_path / "backup")


def test_a_backup_of_a_damaged_store_says_what_it_lacks(filled, tmp_path):
    filled.path_of(filled.get(4)).unlink()
    assert back_up(filled, tmp_path / "backup").left_out == (4,)
    with pytest.raises(StoreDamagedError, match="the images of contributions 4 are missing or altered"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_backup_never_overwrites_a_store(filled, tmp_path):
    other = ContributionStore(tmp_path / "other")
    other.add(picture(1), "A dog")
    before = files_of(other.folder)
    with pytest.raises(ConfigError, match="holds other files"):
        back_up(filled, other.folder)
    assert files_of(other.folder) == before


def test_a_backup_waits_for_a_lock_but_not_for_ever(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("lcm.contributions.database.BUSY_TIMEOUT_S", 0.2)
    connection = sqlite3.connect(filled.folder / "contributions.sqlite", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreBusyError):
        back_up(filled, tmp_path / "backup")
    connection.close()
    back_up(filled, tmp_path / "backup")
    assert_equal(tmp_path / "backup", filled)


# Restores


def test_h11_a_restore_gives_the_same_store(filled, tmp_path):
    back_up(filled, tmp_path / "backup")
    found = restore(tmp_path / "backup", tmp_path / "new" / "contributions")
    restored = ContributionStore(tmp_path / "new" / "contributions")
    assert (found.contributions, found.images) == (7, 5)
    assert list(restored.contributions()) == list(filled.contributions())
    assert restored.revocations() == filled.revocations()
    assert restored.check().sound
    assert image_files(restored) == image_files(filled)
    assert {path.name for path in restored.folder.iterdir()} - {"contributions.sqlite-journal"} == {
        "contributions.sqlite",
        "images",
    }


def test_numbers_given_after_the_backup_are_not_given_again(filled, tmp_path):
    back_up(filled, tmp_path / "backup")
    lost = filled.add(picture(50), "after the backup").id
    restore(tmp_path / "backup", filled.folder, replace=True)
    assert ContributionStore(filled.folder).add(picture(51), "after the restore").id == 1_000_000 + lost


def test_a_restore_needs_to_be_told_to_replace_and_deletes_nothing(filled, tmp_path):
    back_up(filled, tmp_path / "backup")
    filled.add(picture(60), "after the backup")
    before = files_of(filled.folder)
    with pytest.raises(ConfigError, match="is not empty; say --replace"):
        restore(tmp_path / "backup", filled.folder)
    assert files_of(filled.folder) == before
    restore(tmp_path / "backup", filled.folder, replace=True)
    assert files_of(filled.folder / "replaced-1") == before
    assert len(list(filled.contributions())) == 7
    restore(tmp_path / "backup", filled.folder, replace=True)
    assert (filled.folder / "replaced-2" / "contributions.sqlite").exists()
    assert filled.check().sound


@pytest.mark.parametrize("damage", ["database", "images"])
def test_h09_a_restore_heals_a_damaged_store(damage, filled, tmp_path):
    back_up(filled, tmp_path / "backup")
    expected = list(filled.contributions())
    if damage == "database":
        os.truncate(filled.folder / "contributions.sqlite", 5000)
    else:
        shutil.rmtree(filled.folder / "images")
    with pytest.raises(StoreDamagedError, match="restore a backup with `lcm contributions restore BACKUP --replace`"):
        ContributionStore(filled.folder)
    restore(tmp_path / "backup", filled.folder, replace=True)
    assert list(filled.contributions()) == expected
    assert ContributionStore(filled.folder).check().sound


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("backup.sqlite", lambda data: data[: len(data) // 2]),
        ("backup.sqlite", lambda data: data.replace(b"another", b"An other"[:7])),
        ("image", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ],
)
def test_a_damaged_backup_is_not_restored(name, damage, filled, tmp_path):
    back_up(filled, tmp_path / "backup")
    path = tmp_path / "backup" / (filled.get(1).image_file if name == "image" else name)
    path.write_bytes(damage(path.read_bytes()))
    before = files_of(filled.folder)
    with pytest.raises(StoreDamagedError):
        restore(tmp_path / "backup", filled.folder, replace=True)
    assert files_of(filled.folder) == before


def test_what_is_no_backup_is_not_restored(filled, tmp_path):
    for folder in (tmp_path, tmp_path / "gone", filled.folder):
        with pytest.raises(ConfigError, match=r"is no backup: it has no backup.sqlite"):
            restore(folder, tmp_path / "new")


def test_a_restore_that_was_cut_short_is_no_store(filled, tmp_path, monkeypatch):
    back_up(filled, tmp_path / "backup")

    def fail(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_place_database", fail)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(StoreError):
        ContributionStore(tmp_path / "new")
    restore(tmp_path / "backup", tmp_path / "new", replace=True)
    assert ContributionStore(tmp_path / "new").check().contributions == 7
