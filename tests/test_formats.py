"""Caption files: every format recognised and read, in every encoding, broken lines included."""

import pytest

from lcm.data import formats
from lcm.data.formats import FORMATS, Row
from lcm.errors import DataError


def write(folder, text: str, name="captions.txt", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


# One file of each format, with the rows it holds. The broken row of Kaggle's Flickr30k is as Kaggle has it.
FILES = {
    "flickr8k_csv": (
        "image,caption\n"
        "1.jpg,A dog runs .\n"
        '1.jpg,"A dog , a cat and a ""bird"" ."\n'
        '2.jpg,"""Stop"" , says the sign ."\n'
        '2.jpg,A sign reads "Stop" .\n'
        "2.jpg,Not quoted , but with a comma .\n",
        [
            Row("1.jpg", "A dog runs ."),
            Row("1.jpg", 'A dog , a cat and a "bird" .'),
            Row("2.jpg", '"Stop" , says the sign .'),
            Row("2.jpg", 'A sign reads "Stop" .'),
            Row("2.jpg", "Not quoted , but with a comma ."),
        ],
    ),
    "flickr30k_pipes": (
        "image_name| comment_number| comment\n"
        "1.jpg| 0| A dog , or a cat .\n"
        "1.jpg| 1| A sign with a | on it .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n",
        [
            Row("1.jpg", "A dog , or a cat ."),
            Row("1.jpg", "A sign with a | on it ."),
            Row("2199200615.jpg", "A dog runs across the grass .", repaired=True),
        ],
    ),
    "token": (
        "1.jpg#0\tA dog , or a cat .\n1.jpg#1\tA #1 fan .\n2#b.jpg#0\tA name with a number sign .\n",
        [
            Row("1.jpg", "A dog , or a cat ."),
            Row("1.jpg", "A #1 fan ."),
            Row("2#b.jpg", "A name with a number sign ."),
        ],
    ),
    "tsv": (
        "1.jpg\tA dog , or a cat .\n2.PNG\tA | sign .\n",
        [Row("1.jpg", "A dog , or a cat ."), Row("2.PNG", "A | sign .")],
    ),
}


def test_every_format_is_tested():
    assert FILES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FILES)
def test_format_is_detected_and_read(tmp_path, name):
    text, rows = FILES[name]
    assert formats.parse(write(tmp_path, text)) == (name, rows)


@pytest.mark.parametrize("header", ["image\tcaption", "Image\tCaption", "file_name\ttext"])
def test_tsv_with_header(tmp_path, header):
    path = write(tmp_path, f"{header}\n1.jpg\tA dog .\n")
    assert formats.parse(path) == ("tsv", [Row("1.jpg", "A dog .")])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "cp1252"])
@pytest.mark.parametrize("name", FILES)
def test_encodings_and_line_ends(tmp_path, name, encoding, newline):
    text, rows = FILES[name]
    text, last_row = text.replace("A dog", "Là-bas, un œuf", 1), rows[-1]
    text = text.replace("\n", newline)
    if encoding == "utf-16-be-bom":
        text, encoding = "\ufeff" + text, "utf-16-be"
    found, read = formats.parse(write(tmp_path, text, encoding=encoding))
    assert found == name
    assert len(read) == len(rows)
    assert read[0].caption.startswith("Là-bas, un œuf")
    assert read[-1] == last_row


def test_one_line_in_another_encoding_does_not_spoil_the_rest(tmp_path):
    path = tmp_path / "captions.tsv"
    path.write_bytes("1.jpg\tUn été .\n".encode() + "2.jpg\tDéjà vu .\n".encode("cp1252") + "3.jpg\tÇa va .\n".encode())
    assert [row.caption for row in formats.parse(path)[1]] == ["Un été .", "Déjà vu .", "Ça va ."]


def test_rare_line_separators_stay_inside_a_caption(tmp_path):
    path = write(tmp_path, "1.jpg\tA dog\u2028runs\x85off\x0b.\n\n \n2.jpg\tA cat .")
    assert formats.parse(path)[1] == [Row("1.jpg", "A dog\u2028runs\x85off\x0b."), Row("2.jpg", "A cat .")]


# Broken lines: each costs only itself

BROKEN = {
    "flickr8k_csv": ("image,caption\n", ["no comma at all", ",A caption without a name", "1.jpg," + "x" * 200_000]),
    "flickr30k_pipes": (
        "image_name| comment_number| comment\n",
        ["no separator", "1.jpg| no number", "1.jpg| 4", "| 0| A caption without a name", "|"],
    ),
    "token": (
        "",
        ["no tab", "1.jpg\tno number", "1.jpg#x\tnot a number", "#0\tA caption without a name", " #0\tA blank name"],
    ),
    "tsv": ("", ["no tab", "\tA caption without a name"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_lines_are_none_and_the_others_read(tmp_path, name):
    header, broken = BROKEN[name]
    text, rows = FILES[name]
    good = text.removeprefix(header)
    lines = header + good + good + good + "\n".join(broken) + "\n" + good
    found, read = formats.parse(write(tmp_path, lines))
    assert found == name
    assert read == rows * 3 + [None] * len(broken) + rows


@pytest.mark.parametrize("name", ["token", "tsv"])
def test_a_broken_first_line_does_not_hide_the_format(tmp_path, name):
    text, rows = FILES[name]
    assert formats.parse(write(tmp_path, "broken\n" + text)) == (name, [None, *rows])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("flickr8k_csv", "1.jpg,"),
        ("flickr8k_csv", '1.jpg,""'),
        ("flickr30k_pipes", "1.jpg| 0|"),
        ("flickr30k_pipes", "1.jpg| 0|  "),
        ("token", "1.jpg#0\t"),
        ("tsv", "1.jpg\t "),
    ],
)
def test_an_empty_caption_is_a_row(tmp_path, name, line):
    found, read = formats.parse(write(tmp_path, FILES[name][0] + line))
    assert found == name
    assert read[-1] == Row("1.jpg", "")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("flickr8k_csv", " 1.jpg , A dog . "),
        ("flickr30k_pipes", " 1.jpg | 0 |  A dog . "),
        ("flickr30k_pipes", " 1.jpg |  4   A dog . "),
        ("token", " 1.jpg #0\t A dog . "),
        ("tsv", " 1.jpg \t A dog . "),
    ],
)
def test_blanks_around_names_and_captions(tmp_path, name, line):
    row = formats.parse(write(tmp_path, FILES[name][0] + line))[1][-1]
    assert (row.name, row.caption) == ("1.jpg", "A dog .")


def test_an_open_quote_costs_only_its_line(tmp_path):
    path = write(tmp_path, 'image,caption\n1.jpg,"A dog\n2.jpg,A cat\n')
    assert formats.parse(path)[1] == [Row("1.jpg", "A dog"), Row("2.jpg", "A cat")]


# No format


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        "Just some prose, with a comma.\n",
        "1.jpg\n2.jpg\n",  # a list of names
        "1.jpg,A CSV without header\n",
        "name,age\nAnn,7\n",
        "1.jpg\t2.jpg#2\t1\t1\t2\n" * 3,  # Flickr8k's ExpertAnnotations.txt
        "1.jpg\t2.jpg#2\t0.5\t1\t2\n" * 3,  # Flickr8k's CrowdFlowerAnnotations.txt
        "Some notes\n1.jpg\tA dog .\nand more\n",
        "Some notes\n1.jpg#0\tA dog .\nand more\n",
        "\x00\x05\x16\x07\x00\x02Mac OS X\x00",
    ],
)
def test_a_file_in_no_format_gets_an_error_that_lists_them(tmp_path, text):
    with pytest.raises(DataError) as error:
        formats.parse(write(tmp_path, text, name="strange.csv"))
    assert "strange.csv" in str(error.value)
    assert all(known.description in str(error.value) for known in FORMATS.values())


def test_the_error_shows_how_the_file_begins(tmp_path):
    with pytest.raises(DataError, match="it begins with 'Dear diary'"):
        formats.parse(write(tmp_path, "Dear diary"))
    with pytest.raises(DataError, match="it is empty"):
        formats.parse(write(tmp_path, ""))


def test_find_files_leaves_hidden_ones_out(tmp_path):
    for name in ("b/1.JPG", "2.jpg", "a.txt", ".3.jpg", "__MACOSX/b/._1.jpg", ".cache/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert formats.find_files(tmp_path, (".jpg",)) == [tmp_path / "2.jpg", tmp_path / "b/1.JPG"]
    hidden_parent = tmp_path / ".cache"
    assert formats.find_files(hidden_parent, (".jpg",)) == [hidden_parent / "4.jpg"]
