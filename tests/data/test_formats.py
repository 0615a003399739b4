"""Caption files: every format recognised and read, in every encoding, broken lines included."""

import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcm.data.files import IMAGE_SUFFIXES
from lcm.data.formats import FORMATS, CaptionFile, Row, Rows
from lcm.errors import DataError


def parse(path) -> tuple[str, Rows]:
    file = CaptionFile(path)
    return file.format, file.read()


def write(folder, text: str, name="captions.txt"):
    (folder / name).write_bytes(text.encode())
    return folder / name


# One file of each format, with the rows it holds. The broken row of Kaggle's Flickr30k is as Kaggle has it.
FILES = {
    "csv": (
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
            Row("2.jpg", "Not quoted , but with a comma .", repaired=True),
        ],
    ),
    "tsv": (
        "1.jpg\tA dog , or a cat .\n2.PNG\tA | sign .\n",
        [Row("1.jpg", "A dog , or a cat ."), Row("2.PNG", "A | sign .")],
    ),
    "imagefolder_csv": (
        'id,file_name,text\n7,1.jpg,A dog runs .\n8,1.jpg,"A dog , a ""cat""\nand a bird ."\n9,sub/2.jpg,A cat .\n',
        [
            Row("1.jpg", "A dog runs ."),
            Row("1.jpg", 'A dog , a "cat"\nand a bird .'),
            Row("sub/2.jpg", "A cat ."),
        ],
    ),
    "imagefolder_jsonl": (
        '{"file_name": "1.jpg", "text": ["A dog runs .", "A dog\\nand a cat ."], "id": 7}\n'
        '{"file_name": "sub/2.jpg", "text": "A cat .", "boxes": [[1, 2]]}\n',
        [Row("1.jpg", "A dog runs ."), Row("1.jpg", "A dog\nand a cat ."), Row("sub/2.jpg", "A cat .")],
    ),
    # The examples of both name each key that the real files have.
    "coco": (
        '{"info": {"year": 2017}, "licenses": [{"id": 4}],\n'
        '"images": [{"license": 4, "file_name": "000000391895.jpg", "height": 360, "width": 640, "id": 391895},\n'
        '{"file_name": "000000522418.jpg", "id": 522418}],\n'
        '"annotations": [{"image_id": 522418, "id": 37, "caption": "A dog runs ."},\n'
        '{"image_id": 391895, "id": 38, "caption": "A man rides .\\n"},\n'
        '{"image_id": 522418, "id": 39, "caption": "A cat ."}]}',
        [
            Row("000000522418.jpg", "A dog runs ."),
            Row("000000391895.jpg", "A man rides ."),
            Row("000000522418.jpg", "A cat ."),
        ],
    ),
    "karpathy": (
        '{"images": [\n{"filepath": "val2014", "sentids": [0, 1], "filename": "1.jpg", "split": "restval",\n'
        '"sentences": [{"tokens": ["a", "dog"], "raw": "A dog runs .", "imgid": 0, "sentid": 0}, {"raw": "Dogs ."}],\n'
        '"cocoid": 1}, {"filename": "2.jpg", "split": "val", "sentences": [{"raw": "A cat ."}]},\n'
        '{"filename": "3.jpg", "split": "test", "sentences": [{"raw": "A bird ."}]}], "dataset": "coco"}',
        [
            Row("val2014/1.jpg", "A dog runs .", split="train"),
            Row("val2014/1.jpg", "Dogs .", split="train"),
            Row("2.jpg", "A cat .", split="dev"),
            Row("3.jpg", "A bird .", split="test"),
        ],
    ),
}
FILE_NAMES = {"coco": "captions.json", "karpathy": "captions.json"}  # of the others captions.txt will do


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_recognised_and_read_in_any_encoding(tmp_path, name, encoding, newline):
    text, (first, *others) = FILES[name]
    text = text.replace("A dog", "Là-bas un œuf", 1).replace("\n", newline)
    path = tmp_path / FILE_NAMES.get(name, "captions.txt")
    path.write_bytes(("\ufeff" * (encoding == "utf-16-be") + text).encode(encoding))
    expected = replace(first, caption=first.caption.replace("A dog", "Là-bas un œuf", 1))
    assert parse(path) == (name, [expected, *others])


# Broken lines: each costs only itself

BROKEN = {
    "csv": ("image,caption\n", ["no comma at all", ",A caption without a name", "1.jpg," + "x" * 200_000]),
    "tsv": ("", ["no tab", "\tA caption without a name"]),
    "imagefolder_csv": (
        "id,file_name,text\n",
        ["1,1.jpg", "1,,A caption without a name", "1,1.jpg," + "x" * 200_000],
    ),
    "imagefolder_jsonl": (
        "",
        [
            *("no JSON", '{"file_name": "1.jpg", "text": "A d', "[" * 100_000, "[]", '{"file_name": "1.jpg"}'),
            *('{"text": "A dog ."}', '{"file_name": "", "text": "A dog ."}', '{"file_name": 7, "text": "A dog ."}'),
            *('{"file_name": "1.jpg", "text": 7}', '{"file_name": "1.jpg", "text": {"en": "A dog ."}}'),
            '{"file_name": "1.jpg", "text": [["A dog ."]]}',
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_lines_are_none_and_the_others_read(tmp_path, name):
    header, broken = BROKEN[name]
    text, rows = FILES[name]
    good = text.removeprefix(header)
    lines = header + good + good + good + "\n".join(broken) + "\n" + good
    found, read = parse(write(tmp_path, lines))
    assert found == name
    assert read == rows * 3 + [None] * len(broken) + rows


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("csv", "1.jpg,"),
        ("csv", '1.jpg,""'),
        ("tsv", "1.jpg\t "),
        ("imagefolder_csv", "1,1.jpg,"),
        ("imagefolder_jsonl", '{"file_name": "1.jpg", "text": ""}'),
        ("imagefolder_jsonl", '{"file_name": "1.jpg", "text": null}'),
        ("imagefolder_jsonl", '{"file_name": "1.jpg", "text": []}'),
        ("imagefolder_jsonl", '{"file_name": "1.jpg", "text": [null]}'),
    ],
)
def test_an_empty_caption_is_a_row(tmp_path, name, line):
    found, read = parse(write(tmp_path, FILES[name][0] + line))
    assert found == name
    assert read[-1] == Row("1.jpg", "")


# What a standard writer writes

PIECES = [*"\"',;\t\n|#&:{}[]\\/ .=\u2028é狗😀", '""', "\r\n", "#0\t", *["&amp;", "&#39;", "dog", "image", "caption"]]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map("".join)
NAMES = st.builds(lambda text, suffix: f"1{' '.join(text.split())}{suffix}", TEXTS, st.sampled_from(IMAGE_SUFFIXES))
LISTS = st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=9)


def write_csv(rows, header, draw, separator=None) -> str:
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    separator, end = separator or draw(st.sampled_from(",;\t")), draw(st.sampled_from(["\n", "\r\n"]))
    table = io.StringIO()
    csv.writer(table, delimiter=separator, quoting=quoting, lineterminator=end).writerows(
        [*filter(None, [header]), *rows]
    )
    return table.getvalue()


def write_coco(rows, draw) -> str:
    number = draw(st.sampled_from([int, float, str]))
    images = [{"id": number(at), "file_name": name} for at, (name, _) in enumerate(rows)]
    return coco(images, [{"image_id": at, "caption": text} for at, (_, text) in enumerate(rows)])


def write_lines(start, line) -> Callable:
    """Return a writer of a caption a line, without quotes: what separates columns and lines is in none of them."""

    def write_them(rows, _draw):
        free = [[" ".join(re.split(r"[\s|]", text)) for text in row] for row in rows]
        return start + "".join(line.format(*row) for row in free)

    return write_them


WRITERS = {
    "captions.txt": lambda rows, draw: write_csv(rows, ("image", "caption"), draw),
    "metadata.csv": lambda rows, draw: write_csv(rows, ("file_name", "text"), draw),
    "results.csv": lambda rows, draw: write_csv(
        [(name, at, text) for at, (name, text) in enumerate(rows)], ("image_name", "comment_number", "comment"), draw
    ),
    "other.csv": lambda rows, draw: write_csv(
        [(at, text, name, text) for at, (name, text) in enumerate(rows)], ("id", "Text", "Filename", "notes"), draw
    ),
    "captions.tsv": lambda rows, draw: write_csv(rows, (), draw, "\t"),
    "metadata.jsonl": lambda rows, _: "".join(json.dumps({"file_name": row[0], "text": row[1]}) + "\n" for row in rows),
    "captions.json": write_coco,
    "dataset_x.json": lambda rows, draw: json.dumps(
        {"images": [{"filename": name, "sentences": [{"raw": text}]} for name, text in rows]},
        ensure_ascii=draw(st.booleans()),
    ),
    "x.token": write_lines("", "{0}#0\t{1}\n"),
    "pipes.csv": write_lines("image_name| comment_number| comment\n", "{0}| 0| {1}\n"),
}


@pytest.mark.parametrize("name", WRITERS)
@given(rows=LISTS, data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_what_a_standard_writer_writes_is_read_whole(tmp_path, name, rows, data):
    """Commas, quotes, tabs, pipes, line ends and rare line separators included, in any encoding that holds them."""
    text, encoding = WRITERS[name](rows, data.draw), data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    (tmp_path / name).write_bytes(text.encode(encoding))
    read = [(row.name, row.caption) for row in parse(tmp_path / name)[1]]
    has_quotes = name not in ("x.token", "pipes.csv")
    expected = [(image.replace("\\", "/"), html.unescape(caption)) for image, caption in rows]
    assert [[fold(text, has_quotes) for text in row] for row in read] == [
        [fold(text, has_quotes) for text in row] for row in expected
    ]


def fold(text: str, keeps_pipes: bool) -> str:
    """Return a text with blanks folded: a caption in quotes may lose empty lines, one without has no tabs and pipes."""
    return " ".join((text if keeps_pipes else text.replace("|", " ")).split())


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith(".json")])
@given(rows=st.lists(TEXTS, min_size=2, max_size=9), data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_a_slip_costs_the_caption_it_is_in_and_the_next_at_most(tmp_path, name, rows, data):
    """One character too many, too few or another, wherever in the file: what is lost is counted."""
    rows = [(f"{at}.jpg", f"{at} {text}") for at, text in enumerate(rows)] * 2
    text = WRITERS[name](rows, data.draw)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    whole = parse(tmp_path / name)[1]
    at, slip = data.draw(st.integers(text.index("0.jpg"), len(text))), data.draw(st.sampled_from(["", *'",;\t\n|#x']))
    (tmp_path / name).write_text(
        text[:at] + slip + text[at + data.draw(st.integers(0, 1)) :], encoding="utf-8", newline=""
    )
    try:
        read = parse(tmp_path / name)[1]
    except DataError:
        assert name == "captions.tsv"  # without header, a slip in one of few may hide the format, which is said
        return
    kept = sum((Counter(whole) & Counter(read)).values())
    assert kept >= len(whole) - 2
    assert kept == len(whole) or len(read) - kept >= 1


@given(
    text=st.lists(st.sampled_from([*PIECES, *"01", ".jpg", "image,caption\n", "file_name;text\n"]), max_size=40).map(
        "".join
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path, text):
    for name in ("captions.txt", "captions.json"):
        with suppress(DataError):
            assert parse(write(tmp_path, text, name))[1]


# Odd rows


def coco(images, annotations) -> str:
    return json.dumps({"images": images, "annotations": annotations})


DOG, ONE_IMAGE, GOOD = Row("1.jpg", "A dog ."), [{"id": 1, "file_name": "1.jpg"}], {"image_id": 1, "caption": "A dog ."}
GOOD_OF_KARPATHY = {"filename": "1.jpg", "filepath": None, "split": ["test"], "sentences": [{"raw": "A dog ."}]}
OPEN, HTML = Row("1.jpg", "A dog .", repaired=True), "A &quot;dog&quot; &amp; cat ."
ROWS = [
    *(("captions.txt", f"{head}\n1.jpg\tA dog .\n", [DOG]) for head in ("Image\tCaption", "file_name\ttext")),
    (
        "captions.txt",
        "1.jpg\tA dog\u2028runs\x85off\x0b.\n\n \n1.jpg\tA dog .",
        [Row("1.jpg", "A dog\u2028runs\x85off\x0b."), DOG],
    ),
    *(("metadata.csv", f"{head}\n1.jpg,A dog .\n", [DOG]) for head in ("File_Name, Caption ", '"file_name","caption"')),
    *(
        ("captions.csv", f"{head}\n{line}\n", [Row("1.jpg", "A dog, a cat")])
        for head, line in (
            ("image;caption", "1.jpg;A dog, a cat"),
            ("File,Caption,Author", '1.jpg,"A dog, a cat",me'),
            ("text;filename", '"A dog, a cat";1.jpg'),
        )
    ),
    ("captions.csv", "image;caption\n1.jpg;A dog; a cat\n", [Row("1.jpg", "A dog; a cat", repaired=True)]),
    # Windows' names, entities of HTML
    *(
        (file, text, [Row("a/1.jpg", 'A "dog" & cat .')])
        for file, text in (
            ("captions.txt", f"image,caption\na\\1.jpg,{HTML}\n"),
            ("metadata.csv", f'file_name;text\na\\1.jpg;"{HTML}"\n'),
            ("captions.tsv", "a\\1.jpg\tA &#34;dog&#x22; &#38; cat .\n"),
            ("x.token", f"a\\1.jpg#0\t{HTML}\n"),
            ("results.csv", f"image_name| comment_number| comment\na\\1.jpg| 0| {HTML}\n"),
            ("metadata.jsonl", json.dumps({"file_name": "a\\1.jpg", "text": HTML})),
            ("captions.json", coco([{"id": 1, "file_name": "a\\1.jpg"}], [GOOD | {"caption": HTML}])),
            ("x.json", json.dumps({"images": [{"filename": "a\\1.jpg", "sentences": [{"raw": HTML}]}]})),
        )
    ),
    # What separates columns, and which of them there are
    ("captions.csv", 'sep=;\r\n"Image";"Caption"\r\n"1.jpg";"A dog; a cat"\r\n', [Row("1.jpg", "A dog; a cat")]),
    ("x.csv", "image_name,comment_number,comment\n1.jpg,0,A dog .\n", [DOG]),
    ("x.csv", 'image_name, comment_number, comment\n1.jpg, 0, "A dog, a cat"\n', [Row("1.jpg", "A dog, a cat")]),
    (
        "results.csv",  # the last line is as Kaggle's Flickr30k has it
        'image_name| comment_number| comment\n1.jpg| 0| A dog , or a cat .\n1.jpg| 1| "Stop" , says a sign .\n'
        "1.jpg| 2| A sign with a | on it .\n1.jpg| 3|\n1.jpg| 4   A dog runs .\n",
        [
            Row("1.jpg", "A dog , or a cat ."),
            Row("1.jpg", '"Stop" , says a sign .'),
            Row("1.jpg", "A sign with a | on it .", repaired=True),
            Row("1.jpg", ""),
            None,
        ],
    ),
    (
        "x.token",
        '1.jpg#0\tA dog , or a cat .\n1.jpg#1\t"Stop"\n2#b.jpg#2\tA #1\tfan .\n #0\tA blank name\n2.jpg#0\t\n3.jpg',
        [
            Row("1.jpg", "A dog , or a cat ."),
            Row("1.jpg", '"Stop"'),
            Row("2#b.jpg", "A #1\tfan ."),
            None,
            Row("2.jpg", ""),
            None,
        ],
    ),
    ("x.tsv", "language\tcaption\timage\nen\tA dog .\t1.jpg\n", [Row("1.jpg", "A dog .", language="en")]),
    # Quotes over several lines, closed or not
    ("x.csv", 'image,caption\n1.jpg,"A\n' + "dog\n" * 40 + '."\n', [Row("1.jpg", "A\n" + "dog\n" * 40 + ".")]),
    ("x.csv", 'image,caption\n1.jpg,"A dog .\n1.jpg,A dog .\n1.jpg,5""\n', [OPEN, DOG, Row("1.jpg", '5""')]),
    ("x.csv", 'text;file;by\n"A dog .;1.jpg;me\nA dog .;1.jpg;me\n5";1.jpg;me\n', [None, DOG, Row("1.jpg", '5"')]),
    ("x.tsv", '1.jpg\t"A\ndog"\n1.jpg\t"A" dog\n', [Row("1.jpg", "A\ndog"), Row("1.jpg", '"A" dog')]),
    *(
        (
            "captions.json",
            coco([*ONE_IMAGE, {"id": known, "file_name": "7.jpg"}], [{"image_id": given, "caption": "A dog ."}]),
            [Row("7.jpg", "A dog .")],
        )
        for known, given in ((7, 7.0), (7.0, 7), ("7", 7), (7, "7.0"), ("x7", "x7"))
    ),
    # Commas without quotes are the caption's where its column is the last.
    ("metadata.csv", "file_name,text\n1.jpg,A dog, a cat\n", [Row("1.jpg", "A dog, a cat", repaired=True)]),
    ("metadata.csv", "file_name,text,id\n1.jpg,A dog, a cat,7\n1.jpg,A dog .,8\n1.jpg,A dog .\n", [None, DOG, DOG]),
    *(
        ("captions.json", coco(ONE_IMAGE, [annotation, GOOD]), [None, DOG])
        for annotation in (
            *({"image_id": image, "caption": "Of no image ."} for image in (2, "01", 1.5, [1], None)),
            *({"image_id": 1, "caption": caption} for caption in (7, ["A dog ."])),
            *({"caption": "Of nothing ."}, {"image_id": 1}, "no object", None),
        )
    ),
    *(
        ("captions.json", coco([image, *ONE_IMAGE], [{"image_id": 2, "caption": "Lost ."}, GOOD]), [None, DOG])
        for image in (None, "1.jpg", {}, {"id": 2}, {"id": 2, "file_name": 7}, {"id": [], "file_name": "2"})
    ),
    *(
        ("dataset_coco.json", json.dumps({"images": [image, GOOD_OF_KARPATHY]}), [None, DOG])
        for image in (
            *({"filename": name, "filepath": "a", "sentences": [{"raw": "A cat ."}]} for name in (None, "", 7)),
            *({"filename": "2.jpg", "sentences": sentences} for sentences in (None, "A cat .", [7], [{"raw": 7}])),
        )
    ),
]


@pytest.mark.parametrize(("name", "text", "rows"), ROWS)
def test_what_is_odd_or_broken_costs_only_itself(tmp_path, name, text, rows):
    assert parse(write(tmp_path, text, name))[1] == rows


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [{"caption": "A d', "is broken JSON: Unterminated string .*; download"),
        ('{"images": "annotations" "caption"', "is broken JSON: .* line 1 column 26"),
        ('{"images": {}, "annotations": {}, "caption": ' + "[" * 200_000, "is broken JSON: "),
        ('{"images": {}, "annotations": {}, "caption": ' + "9" * 5_000 + "}", "is broken JSON: "),
        (json.dumps({"images": ONE_IMAGE, "annotations": "caption"}), "holds no caption that can be read, among 0"),
        (
            coco([], [GOOD]),
            r"holds no caption that can be read, among 1 entries; it seems to be .*annotations \(image_",
        ),
        (json.dumps({"images": [{"sentences": 7, "raw": 7}]}), r"holds no caption .*images \(filename, sentences with"),
    ],
)
def test_what_is_wrong_with_a_document_is_said(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"(?s)^strange\.json {message}"):
        parse(write(tmp_path, text, "strange.json"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strange.csv", ""),
        ("strange.csv", "\n \n"),
        ("strange.csv", "1.jpg\n2.jpg\n"),  # a list of names
        ("strange.csv", "1.jpg,A CSV without header\n"),
        ("strange.csv", "1.jpg\t2.jpg#2\t1\t1\t2\n" * 3),  # Flickr8k's ExpertAnnotations.txt
        ("strange.csv", "Some notes\n1.jpg\tA dog .\nand more\n"),
        ("strange.csv", "\x00\x05\x16\x07\x00\x02Mac OS X\x00"),
        ("metadata.jsonl", '{"file_name": "1.jpg", "label": 3}\n'),
        ("captions.json", "<html>Not found</html>"),
        ("captions.json", '{"images": [], "annotations": [{"bbox": 1}], "categories": []}'),  # COCO's instances
        ("captions.json", '[{"image_id": 1, "caption": "A result for COCO\'s server, of images, of annotations ."}]'),
    ],
)
def test_a_file_in_no_format_gets_an_error_that_lists_them(tmp_path, name, text):
    with pytest.raises(DataError, match=rf"^{name} is in no format .*; it begins with") as error:
        parse(write(tmp_path, text, name))
    assert all(known.description in str(error.value) for known in FORMATS.values())
