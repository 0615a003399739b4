"""Contributions out of the store and back, as a folder of images with a captions file. Rows F06, F13, H16 and H17."""

import csv
import html
import itertools
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest

from lcm.contributions.store import ContributionStore
from lcm.contributions.transfer import export_contributions, import_contributions
from lcm.data.dataset import read_dataset
from lcm.data.files import from_cell, to_cell
from lcm.data.text import standardise
from lcm.errors import ConfigError, DataError
from tests.fakes.contributed import files_of, picture, sha256

NAUGHTY = [
    *("=1+1", "+1", "-1 dog", "@SUM(1)", "'=1", "''@x", "＝1", "'s dog", "'' dog", "\t=1", "\x00=1"),
    *("a;=1", "a, +1", 'a ;"@b"', "a &amp; b", "R&D", "&lt", "&amp;amp;"),
    *('"quoted', '" dog', '"a" dog', "a\tb", "a\nb", "a\u2028b\x85c\rd", "一只狗", "می‌خواهم", "👩🏽‍❤️‍👨"),
    *("'); DROP TABLE x;--", "<b>a</b>", "::set-output a", "image\tcaption"),
]


@pytest.fixture
def filled(store) -> ContributionStore:
    for number in range(6):
        store.add(picture(number, "JPEG" if number % 2 else "PNG"), f"number {number}")
    store.add(picture(0), "another")
    store.add(picture(2), "Ein Hund", "de")
    store.revoke(2, "wrong")
    return store


def pairs(store: ContributionStore) -> set[tuple[bytes, str, str]]:
    return {(store.read_image(one), one.caption, one.language) for one in store.contributions()}


# Cells


def test_f13_no_cell_begins_like_a_formula_and_reading_it_gives_back_the_caption():
    for caption in ("=1", "+1", "-1", "@x", "'=1", "''=x", "＝1", "＋1", "－1", "＠x"):
        assert to_cell(caption) == f"'{caption}"
        for before in ("a;", "a,", "a; ", ',"', "a;b,\n"):
            assert to_cell(before + caption) == f"{before}'{caption}"
    assert [to_cell(plain) for plain in ("'s dog", "a-b=c", "a; b", "")] == ["'s dog", "a-b=c", "a; b", ""]
    parts = ["", "'", "=", '"', "a", "＠", " ", ";", ","]
    captions = ["".join(each) for each in itertools.product(parts, repeat=5)]
    assert [from_cell(to_cell(caption)) for caption in captions] == captions


# Exports


def test_an_export_is_a_data_set(filled, tmp_path):
    exported = export_contributions(filled, tmp_path / "export")
    assert (exported.images, exported.captions, exported.left_out) == (5, 7, ())
    dataset = read_dataset(tmp_path / "export")
    expected = {(image.image_sha256, *its) for image in filled.training_images() for its in image.captions.items()}
    found = {(sha256(image.path.read_bytes()), image.language, image.captions) for image in dataset.images}
    assert found == expected
    assert dataset.report.captions_file == "captions.tsv"
    assert dataset.report.unreadable_rows == len(dataset.report.missing_images) == 0
    assert list(dict.fromkeys(image.image_id for image in dataset.images)) == [
        filled.get(image.contributions[0].id).image_file for image in filled.training_images()
    ]


def test_f06_f13_each_pair_is_one_line_of_as_many_columns_as_the_header(store, tmp_path):
    for number, caption in enumerate(NAUGHTY):
        store.add(picture(number), caption, "en" if number % 2 else "fa")
    export_contributions(store, tmp_path / "export")
    text = (tmp_path / "export" / "captions.tsv").read_bytes().decode()
    lines = text.split("\n")[1:-1]
    assert len(lines) == len(text.splitlines()) - 1
    rows = list(csv.reader(lines, csv.excel_tab))
    assert len(rows) == len(lines)
    assert {len(row) for row in rows} == {3}
    pieces = [piece for line in lines for piece in re.split("[\t,;]", line)]
    assert not [piece for piece in pieces if re.match(r'[\s"]*[=+@＝＋－＠-]', piece)]
    found = {(html.unescape(from_cell(caption)), language) for _, language, caption in rows}
    assert found == {(one.caption, one.language) for one in store.contributions()}
    for image in read_dataset(tmp_path / "export").images:  # the apostrophe is nothing to a model
        for caption in image.captions:
            assert standardise(caption) == standardise(from_cell(caption))


@pytest.mark.parametrize("steps", range(2, 12, 3))
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
    for _ in range(2):  # and once more, which changes nothing
        assert files_of(tmp_path / "export") == files_of(tmp_path / "whole")
        export_contributions(filled, tmp_path / "export")


def test_h17_what_was_revoked_leaves_the_export_too(filled, tmp_path):
    export_contributions(filled, tmp_path / "export")
    gone = filled.get(3)
    for contribution in filled.of_image(gone.image_sha256):
        filled.revoke(contribution.id, "asked")
    exported = export_contributions(filled, tmp_path / "export")
    assert (exported.images, exported.captions) == (4, 5)
    assert not (tmp_path / "export" / gone.image_file).exists()
    assert gone.caption not in (tmp_path / "export" / "captions.tsv").read_text()


def test_an_export_leaves_out_what_is_damaged_and_says_so(filled, tmp_path):
    with sqlite3.connect(filled.path) as connection:
        for number in (3, 5):
            digest = filled.get(number).image_sha256
            connection.execute("UPDATE images SET data = x'00' WHERE image_sha256 = ?", (digest,))
    exported = export_contributions(filled, tmp_path / "export")
    assert exported.left_out == (3, 5, 8)
    assert exported.images == 3
    assert len(read_dataset(tmp_path / "export").images) == 3


def test_an_export_goes_into_no_folder_with_anything_else(filled, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds other files \(letter.txt\); choose an empty folder"):
        export_contributions(filled, tmp_path / "home")
    for folder in (filled.folder, filled.folder / "inside", filled.folder.parent):
        with pytest.raises(ConfigError, match="the store's own folder, inside it or around it"):
            export_contributions(filled, folder)
    other = ContributionStore(tmp_path / "other")
    with pytest.raises(ConfigError, match="other files"):
        export_contributions(filled, other.folder)


# Imports


def write_folder(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(picture(number, "PNG" if number else "JPEG"))  # suffixes may lie
    (folder / "captions.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "captions.tsv"


def test_an_import_goes_through_the_same_door(store, tmp_path):
    long = "a" * 1001
    lines = ["0.jpg\tA dog", "1.jpg\t A  cat ", "", "1.jpg\tA cat", "2.jpg\t'=1", "3.jpg\t\u200b", f"4.jpg\t{long}"]
    lines += ["5.jpg\tmissing", "../captions.tsv\tx", "/etc/passwd\tx", "1.jpg", "captions.tsv\tx"]
    lines += ["\tx", "a\x00.jpg\tx", "6.jpg\tx"]
    captions = write_folder(tmp_path / "plain", lines)
    (captions.parent / "6.jpg").write_text("text")
    found = import_contributions(store, captions)
    assert (found.added, found.known) == (3, 1)
    assert [(one.image_format, one.caption, one.source, one.file_name) for one in store.contributions()] == [
        ("jpeg", "A dog", "import", "0.jpg"),
        ("png", "A cat", "import", "1.jpg"),
        ("png", "=1", "import", "2.jpg"),
    ]
    reasons = {refusal.row: (refusal.image, refusal.reason) for refusal in found.refused}
    assert {line: image for line, (image, _) in reasons.items()} == {
        **{5: "3.jpg", 6: "4.jpg", 7: "5.jpg", 8: "../captions.tsv", 9: "/etc/passwd", 10: "", 11: "captions.tsv"},
        **{12: "", 13: "a\x00.jpg", 14: "6.jpg"},
    }
    assert "no letter, digit or symbol" in reasons[5][1]
    assert "1,001 characters" in reasons[6][1]
    for row in (7, 8, 9, 11, 13):
        assert reasons[row][1] == "there is no such image in the folder"
    for row in (10, 12):
        assert reasons[row][1].startswith("the row cannot be read; the file is lines of image TAB caption")
    assert "(unknown kind)" in reasons[14][1]
    again = import_contributions(store, captions.parent)
    assert (again.added, again.known, again.refused) == (0, 4, found.refused)


def test_an_import_of_an_export_gives_the_same_contributions(store, tmp_path):
    for number, caption in enumerate(NAUGHTY):
        store.add(picture(number // 2), caption, "en" if number % 3 else "fa")
    export_contributions(store, tmp_path / "export")
    other = ContributionStore(tmp_path / "other")
    assert import_contributions(other, tmp_path / "export").refused == ()
    assert pairs(other) == pairs(store)


def test_an_import_may_name_another_folder_and_has_a_header_or_none(store, tmp_path):
    captions = write_folder(tmp_path / "images", [])
    elsewhere = tmp_path / "list.tsv"
    elsewhere.write_bytes("\ufeffCaption\tImage\tLanguage\r\nEin Hund\t1.jpg\tde\r\nA dog\t2.jpg\tEN\r\n".encode())
    found = import_contributions(store, elsewhere, captions.parent)
    assert (found.added, found.refused) == (2, ())
    assert [(one.caption, one.language) for one in store.contributions()] == [("Ein Hund", "de"), ("A dog", "en")]


def test_an_import_reads_what_a_run_reads(store, tmp_path):
    """Every format, in a folder, of images that are links to another folder."""
    photos, folder = write_folder(tmp_path / "photos", []).parent, tmp_path / "data"
    (folder / "val2017").mkdir(parents=True)
    for number in range(5):
        (folder / f"val2017/{number}.jpg").symlink_to(photos / f"{number}.jpg")
    annotations = [{"image_id": number, "caption": f"number {number}"} for number in range(5)]
    images = [{"id": f"{number}.0", "file_name": f"{number}.jpg"} for number in range(5)]
    captions = folder / "captions_val2017.json"
    captions.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert len(read_dataset(folder).images) == import_contributions(store, folder).added == 5
    captions = folder / "mine.csv"
    captions.write_text('image;caption;language\nval2017\\1.jpg;"Ein\nHund";de\n')
    assert import_contributions(store, captions).added == 1
    assert [(one.caption, one.language) for one in store.contributions()][4:] == [
        ("number 4", "en"),
        ("Ein Hund", "de"),
    ]


def test_an_import_keeps_the_language_of_a_column_of_a_files_name_or_of_its_words(store, tmp_path):
    captions = write_folder(tmp_path / "images", [])
    french = ["un chien court dans l'herbe", "deux enfants jouent au ballon", "une femme boit du café"]
    for name, text in {
        "captions.fr.tsv": "0.jpg\tun chat noir\n",
        "mine.tsv": "".join(f"{number}.jpg\t{caption}\n" for number, caption in enumerate(french, 1)),
        "column.tsv": "image\tlanguage\tcaption\n4.jpg\tpt-BR\tum gato preto\n",
    }.items():
        captions.with_name(name).write_text(text)
        import_contributions(store, captions.with_name(name))
    assert [one.language for one in store.contributions()] == ["fr", *["fr"] * 3, "pt-br"]


def test_a_captions_file_that_cannot_be_read(store, tmp_path):
    with pytest.raises(DataError, match=r"gone.tsv cannot be read \(No such file or directory\)"):
        import_contributions(store, tmp_path / "gone.tsv")
    (tmp_path / "empty.tsv").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.tsv is in no format that lcm reads"):
        import_contributions(store, tmp_path / "empty.tsv")
