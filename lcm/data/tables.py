"""Captions files with one caption a line: how Flickr8k, Flickr30k and plain tables are told and read.

Knows the lines, each by itself, so that a broken one costs only itself. Refuses to know files, images and splits: a row
is a name and a caption as written.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import regex

from lcm.data.files import is_image_name


@dataclass(frozen=True, slots=True)
class Row:
    """One caption of a captions file that could be read."""

    name: str  # the image's name as written
    caption: str  # as written, blanks at its ends removed; may be empty
    repaired: bool = False  # a separator or quotes were missing, and it was clear where
    split: str = ""  # train, dev or test, where the file says so


Rows = list[Row | None]  # None: there was a caption, and it cannot be read


def _by_line(parse: Callable[[str], Row | None], has_header: Callable[[str], bool]) -> Callable[[list[str]], Rows]:
    """Return what reads the lines of a file, one row from each but a header."""
    return lambda lines: [parse(line) for line in (lines[1:] if has_header(lines[0]) else lines)]


def _parse_csv(line: str) -> Row | None:
    try:
        name, *caption = next(csv.reader([line]), [""])
    except csv.Error:  # a field longer than the module's limit
        return None
    return Row(name.strip(), ",".join(caption).strip()) if name.strip() and caption else None


PIPE_NUMBER = regex.compile(r"\s*\d+\s+")


def _parse_pipes(line: str) -> Row | None:
    """Read `name| number| caption`; the known broken row lacks the second separator."""
    name, *rest = line.split("|", 2)
    if not name.strip() or not rest:
        return None
    if len(rest) == 2:
        return Row(name.strip(), rest[1].strip())
    number = PIPE_NUMBER.match(rest[0])
    return Row(name.strip(), rest[0][number.end() :].strip(), repaired=True) if number else None


TOKEN_LINE = regex.compile(r"(?P<name>[^\t]+)#\d+\t(?P<caption>.*)")


def _parse_token(line: str) -> Row | None:
    match = TOKEN_LINE.fullmatch(line)
    return Row(match["name"].strip(), match["caption"].strip()) if match and match["name"].strip() else None


def _parse_tsv(line: str) -> Row | None:
    name, *caption = line.split("\t", 1)
    return Row(name.strip(), caption[0].strip()) if caption and name.strip() else None


def _columns(line: str, separator: str) -> list[str]:
    return [column.strip().strip('"').lower() for column in line.split(separator)]


def _is_csv_header(line: str) -> bool:
    return _columns(line, ",") == ["image", "caption"]


def _is_pipe_header(line: str) -> bool:
    return _columns(line, "|") == ["image_name", "comment_number", "comment"]


def _is_tsv_header(line: str) -> bool:
    columns = _columns(line, "\t")
    return len(columns) == 2 and columns[1] in ("caption", "text") and not is_image_name(columns[0])


def most(fits: Iterable[bool]) -> bool:
    """Whether more lines fit than do not: a few broken ones at the top of a file do not hide its format."""
    fits = list(fits)
    return 2 * sum(fits) > len(fits)


def is_csv(lines: list[str]) -> bool:
    """Whether the first line is the header of Kaggle's Flickr8k."""
    return _is_csv_header(lines[0])


def is_pipes(lines: list[str]) -> bool:
    """Whether the first line is the header of Kaggle's Flickr30k."""
    return _is_pipe_header(lines[0])


def is_token(lines: list[str]) -> bool:
    """Whether most lines are name, number sign, number, TAB and caption."""
    return most(bool(TOKEN_LINE.fullmatch(line)) for line in lines)


def is_tsv(lines: list[str]) -> bool:
    """Whether most lines are the name of an image, TAB and caption."""
    rows = lines[1:] if _is_tsv_header(lines[0]) else lines
    return most(line.count("\t") == 1 and is_image_name(line.split("\t")[0].strip()) for line in rows)


read_csv = _by_line(_parse_csv, _is_csv_header)
read_pipes = _by_line(_parse_pipes, _is_pipe_header)
read_token = _by_line(_parse_token, lambda _line: False)
read_tsv = _by_line(_parse_tsv, _is_tsv_header)
