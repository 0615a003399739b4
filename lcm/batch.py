r"""Many images into one file: a row an image, only appended to, so that a run resumes where another was stopped.

Both formats hold image, language, caption, confidence, tags, english_captions, model and settings, one line a row, in
UTF-8 without BOM. Caption and tags are in the language, a code as "fr". JSON Lines: confidence, null where there is
none, and scores have 6 digits at most; a byte of a file name that is not UTF-8 is a lone surrogate ("\udcff"). CSV:
confidence has 4 digits, or its cell is empty; tags are as in `dog 0.3812; grass 0.2104`; captions are joined by ` | `.
In any cell a backslash begins an escape: `\\` is a backslash, `\n` a line feed, `\udcff` the byte ff that is not UTF-8.
Cells are in quotes, and where one, or what follows a `,` or `;` in it, would begin like a formula (= + - @), which
spreadsheets run, `'` goes before that.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lcm.captioning.captioner import PART
from lcm.captioning.description import Captioner, Description
from lcm.captioning.tagging import SHARE, TagRequest, tag_request
from lcm.data.files import IMAGE_SUFFIXES, Listing, shorten, to_cell
from lcm.errors import BadImageError, ConfigError
from lcm.paths import AGAIN, explained, lock

ALT_TEXT = "alt_text"  # a column more, where it is asked for
COLUMNS = ("image", "language", "caption", "confidence", "tags", "english_captions", "model", "settings")
FORMATS = (".csv", ".jsonl")
FAILURES_SHOWN = 20
MAX_CELL_CHARS = 1 << 24  # ten thousand tags of a hundred characters fit; csv's own limit is 128 KB
Failure = tuple[str, object]  # a path, and why it has no description
_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escape(text: str) -> str:
    """Return `text` on one line that any terminal and any file can hold: backslash escapes, as in the CSV."""
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_record(image: str, description: Description, style: str = "plain") -> dict[str, Any]:
    """Return what JSON says of an image; in the style "alt", its alternative text too."""
    return {
        "image": image,
        "language": description.language,
        "caption": description.caption,
        "confidence": None if description.confidence is None else round(description.confidence, 6),
        "english_captions": list(description.english_captions),
        "tags": [[word, round(score, 6)] for word, score in description.tags],
        "model": description.model,
    } | ({ALT_TEXT: description.alt_text} if style == "alt" else {})


def list_failures(failures: Sequence[Failure], what: str = "not captioned") -> list[str]:
    """Return lines on how many images have no description, and why the first of them have none; none without any."""
    lines = []
    for path, reason in failures[:FAILURES_SHOWN]:
        name = path.rpartition("/")[2]
        lines.append(f"{escape(path)}: {str(reason).removeprefix(f'{name!r}: ')}")
    if len(failures) > FAILURES_SHOWN:
        lines.append(f"and {len(failures) - FAILURES_SHOWN} more")
    if len(lines) < 2:
        return [f"{what}: {line}" for line in lines]
    return [f"{what}: {len(failures)}", *(f"  {line}" for line in lines)]


def list_left_out(listing: Listing) -> list[str]:
    """Return lines on what of the folders may be an image and was not taken: how many, the first names, what next."""
    endings = f"names that do not end in {', '.join(IMAGE_SUFFIXES)}"
    files = f"{endings}: convert them, or give images without a suffix by their own paths"
    folders = "add --recursive, or give them by their own paths"
    both = ("files", listing.other_files, files), ("sub-folders", listing.sub_folders, folders)
    return [f"{what} left out: {len(names)} ({escape(shorten(names))}); {why}" for what, names, why in both if names]


def check_labels(captioner: Captioner, labels: Sequence[str]) -> str:
    """Return a note on the labels that the tag scorer does not know, empty when it knows all.

    Raises ConfigError when it knows none.
    """
    if captioner.tag_scorer is None:
        raise ConfigError(f"{captioner.name} has no tagger that could score labels; leave them out, or name a tagger")
    unknown = captioner.unknown_labels(labels)
    if not unknown:
        return ""
    named = f"the tagger {captioner.tag_scorer.name} does not know {shorten(unknown)}"
    if len(unknown) == len(labels):
        raise ConfigError(f"{named}: none of the {len(labels)} labels; use other words, or another tagger")
    return f"{named}; {len(labels) - len(unknown)} of the {len(labels)} labels are scored"


def check_out(out: Path) -> None:
    """Raise ConfigError unless a file of descriptions can have this name."""
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out is {escape(str(out))!r}; its name must end in {' or '.join(FORMATS)}")


def describe_into_file(
    out: Path,
    captioner: Captioner,
    images: Sequence[str],
    failures: list[Failure],
    samples: int,
    labels: Sequence[str] | None = None,
    language: str = "",
    scores: str = SHARE,
    min_score: float | None = None,
    style: str = "plain",
) -> str:
    """Describe the images that have no row in `out` yet, with a progress bar; returns a line on what is in it now.

    Images that cannot be read are added to `failures` and stop nothing. A kill takes away no row that is written.
    Raises ConfigError, and changes nothing, when the file is not lcm's, was made with another model or other settings,
    or is being written to, and as `describe`; DataError when it cannot be written.
    """
    check_out(out)
    language = captioner.checked_language(language)
    settings = _settings_of(captioner, samples, tag_request(captioner.tag_scorer, labels, scores, min_score))
    made, added = {"language": language, "model": captioner.name, "settings": settings}, 0
    name = escape(str(out))
    with explained(name, f"rows that are in it stay: {AGAIN}"), out.open("a+b") as file:
        lock(file, f"lcm caption is writing to {name}")
        there = _rows_in(file, out, made, (*COLUMNS, ALT_TEXT) if style == "alt" else COLUMNS)
        missing = {image for image in images if _text(image, out) not in there}
        # In the company that an image would have had without the stop, its scores are the same to the last digit.
        parts = [images[start : start + PART] for start in range(0, len(images), PART)]
        left = [image for part in parts if not missing.isdisjoint(part) for image in part]
        done = len(images) - len(missing)
        kept = len(images) - len(left)
        with tqdm(total=len(images), initial=kept, unit=" images", desc="caption") as progress:
            for image, answer in captioner.describe_many(left, samples, labels, 0, language, scores, min_score):
                if image in missing and isinstance(answer, BadImageError):
                    failures.append((image, answer))
                elif image in missing:
                    file.write(_line(as_record(image, answer, style) | made, out))
                    file.flush()
                    added += 1
                progress.update()
    if not missing:
        return f"{name}: all images ({done}) are there already"
    return f"{name}: images captioned: {added}" + f"; there already: {done}" * bool(done)


def whole_file(out: Path, records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a file of this name with these rows: COLUMNS, as `as_record` has them, and settings."""
    return _header(out, COLUMNS) + b"".join(_line(record, out) for record in records)


def _settings_of(captioner: Captioner, samples: int, wanted: TagRequest) -> str:
    """Return, short and readable, what answers depend on beside image and model."""
    scorer, (labels, scores, min_score) = captioner.tag_scorer, wanted
    parts = [f"samples {samples}", f"tagger {scorer.name if scorer else 'none'}"]
    if labels is not None:
        digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
        parts.append(f"labels {digest[:8]} ({len(labels)})")
    if captioner.terms:
        parts.append(f"vocabulary {captioner.terms.digest}")
    if scores != SHARE:
        parts.append(f"{scores} from {min_score:g}")
    return ", ".join(parts)


def _is_csv(out: Path) -> bool:
    return out.suffix.lower() == ".csv"


def _header(out: Path, columns: Sequence[str]) -> bytes:
    return (",".join(columns) + "\n").encode() if _is_csv(out) else b""


def _text(value: str, out: Path) -> str:
    """Return how an image, model or settings lie in a row."""
    return to_cell(escape(value)) if _is_csv(out) else value


def _line(record: Mapping[str, Any], out: Path) -> bytes:
    if not _is_csv(out):
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    sure = record["confidence"]
    texts = {
        **record,
        "confidence": "" if sure is None else f"{sure:.4f}",
        "tags": "; ".join(f"{word} {score:.4f}" for word, score in record["tags"]),
        "english_captions": " | ".join(record["english_captions"]),
    }
    line = io.StringIO()
    cells = [_text(texts[name], out) for name in (*COLUMNS, ALT_TEXT) if name in texts]
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    return line.getvalue().encode()


def _row(line: bytes, out: Path, columns: Sequence[str]) -> Mapping[str, Any]:
    """Return a line's columns; raises ValueError or csv.Error when it is no row."""
    if not _is_csv(out):
        row = json.loads(line)
        if not isinstance(row, dict) or set(row) != set(columns):
            raise ValueError("other fields")
        return row
    csv.field_size_limit(MAX_CELL_CHARS)
    return dict(zip(columns, next(csv.reader([line.decode()], strict=True)), strict=True))


def _rows_in(file: BinaryIO, out: Path, made: Mapping[str, str], columns: Sequence[str]) -> set[str]:
    """Return the images that have a row, once half a row at the end is cut off and a new file has its header."""
    header = _header(out, columns)
    images, whole = set(), 0  # `whole`: bytes of whole rows
    file.seek(0)
    for number, line in enumerate(file, 1):
        if number > 1 and not line.endswith(b"\n"):  # what a kill or a full disk has cut
            break
        if number > 1 or line != header:
            images.add(_image_of(line, number, out, made, columns))
        whole += len(line)
    file.truncate(whole)
    if not whole:
        file.write(header)
        file.flush()
    return images


def _image_of(line: bytes, number: int, out: Path, made: Mapping[str, str], columns: Sequence[str]) -> str:
    """Return the image of a row; raises ConfigError unless it is one and was made as this file's rows are to be."""
    try:
        if not line.endswith(b"\n") or (number == 1 and _is_csv(out)):
            raise ValueError("no row")
        row = _row(line, out, columns)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ConfigError(
            f"{escape(str(out))} is there, and its line {number} is nothing that lcm caption writes with such "
            "options; it was left as it is: choose another --out"
        ) from error
    theirs, ours = [row[name] for name in made], [_text(value, out) for value in made.values()]
    if theirs != ours:
        raise ConfigError(
            f"{escape(str(out))} was made with other settings ({': '.join(theirs)} there, {': '.join(ours)} here); "
            "choose another --out, or remove it to begin anew"
        )
    return row["image"]
