r"""Many images into one file: a row an image, only appended to, so that a run resumes where another was stopped.

Both formats hold image, caption, confidence, tags, english_captions, model and settings, one line a row, in UTF-8
without BOM. JSON Lines: confidence, null where there is none, and scores have 6 digits at most; a byte of a file name
that is not UTF-8 is a lone surrogate ("\udcff"). CSV: confidence has 4 digits, or its cell is empty; tags are as in
`dog 0.3812; grass 0.2104`; captions are joined by ` | `. In any cell a backslash begins an escape: `\\` is a backslash,
`\n` a line feed, `\udcff` the byte ff that is not UTF-8. A cell that would begin like a formula (= + - @), which
spreadsheets run, gets `'` in front.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from tqdm import tqdm

from lcm.captioning.captioner import PART
from lcm.captioning.description import Captioner, Description
from lcm.data.files import shorten
from lcm.errors import BadImageError, ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows has other locks; there, two that write to one file are not kept apart
    fcntl = None

COLUMNS = ("image", "caption", "confidence", "tags", "english_captions", "model", "settings")
MADE = ("model", "settings")  # what must be the same in all rows of a file
FAILURES_SHOWN = 20
MAX_CELL_CHARS = 1 << 24  # ten thousand tags of a hundred characters fit; csv's own limit is 128 KB
_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms of the first


def escape(text: str) -> str:
    """Return `text` on one line that any terminal and any file can hold: backslash escapes, as in the CSV."""
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_record(image: str, description: Description) -> dict[str, Any]:
    """Return what JSON says of an image."""
    return {
        "image": image,
        "caption": description.caption,
        "confidence": None if description.confidence is None else round(description.confidence, 6),
        "english_captions": list(description.english_captions),
        "tags": [[word, round(score, 6)] for word, score in description.tags],
        "model": description.model,
    }


def _to_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _from_json(line: str) -> Mapping[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict) or set(record) != set(COLUMNS):
        raise ValueError("other fields")
    return record


def _cell(text: str) -> str:
    text = escape(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _to_csv(record: Mapping[str, Any]) -> str:
    sure = record["confidence"]
    texts = {
        **record,
        "confidence": "" if sure is None else f"{sure:.4f}",
        "tags": "; ".join(f"{word} {score:.4f}" for word, score in record["tags"]),
        "english_captions": " | ".join(record["english_captions"]),
    }
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(texts[name]) for name in COLUMNS])
    return line.getvalue()


def _from_csv(line: str) -> Mapping[str, Any]:
    csv.field_size_limit(MAX_CELL_CHARS)
    return dict(zip(COLUMNS, next(csv.reader([line], strict=True)), strict=True))


@dataclass(frozen=True)
class Format:
    """How rows lie in a file."""

    header: bytes  # its first line; empty: none
    text: Callable[[str], str]  # how an image, model or settings lie in a row
    write: Callable[[Mapping[str, Any]], str]
    read: Callable[[str], Mapping[str, Any]]  # raises ValueError or csv.Error when the line is no row


FORMATS = {
    ".csv": Format((",".join(COLUMNS) + "\n").encode(), _cell, _to_csv, _from_csv),
    ".jsonl": Format(b"", str, _to_json, _from_json),
}


def find_format(path: Path) -> Format:
    """Return the format that a file's suffix names; raises ConfigError for another suffix."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out is {escape(str(path))!r}; its name must end in {' or '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


class ResultFile:
    """A file of descriptions, open and locked inside a `with`; `image in results` says whether an image has a row.

    Opening it raises ConfigError, and changes nothing, when it is not lcm's, was made with another model or other
    settings, or is being written to; DataError when it cannot be written to.
    """

    def __init__(self, path: Path, model: str, settings: str):
        self._path, self._format, self._images = path, find_format(path), set[str]()
        self._made = {"model": model, "settings": settings}
        self._name = escape(str(path))  # for messages

    def __contains__(self, image: str) -> bool:
        return self._format.text(image) in self._images

    def __len__(self) -> int:
        return len(self._images)

    def __enter__(self) -> Self:
        with self._explained():
            if self._path.exists() and not self._path.is_file():
                raise ConfigError(f"{self._name} is no file; choose another --out")
            if not self._path.parent.is_dir():
                raise ConfigError(f"there is no folder for {self._name}; make it, or choose another --out")
            self._file = self._path.open("a+b")
            try:
                self._take_in_rows()
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # A second failure would hide the first.
        with suppress(OSError) if kind else self._explained(), self._file:
            os.fsync(self._file.fileno())

    def append(self, image: str, description: Description) -> None:
        """Add a row; from now on a kill cannot take it away. Raises DataError when it cannot be written."""
        line = self._format.write(as_record(image, description) | self._made)
        with self._explained():
            self._file.write(line.encode("utf-8", "backslashreplace"))
            self._file.flush()
        self._images.add(self._format.text(image))

    def _take_in_rows(self) -> None:
        """Lock the file, note the rows that are there and cut off half a row at the end."""
        try:
            if fcntl:  # until the file is closed, or the process has ended
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another lcm caption is writing to {self._name}; wait for its end, or choose another --out"
            ) from None
        whole, header = 0, self._format.header  # bytes of whole rows
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if number > 1 and not line.endswith(b"\n"):  # what a kill or a full disk has cut
                break
            if number > 1 or not header:
                self._take_in(line, number)
            elif line != header:
                self._refuse(number)
            whole += len(line)
        self._file.truncate(whole)
        if not whole:
            self._file.write(header)
            self._file.flush()

    def _take_in(self, line: bytes, number: int) -> None:
        """Note the image of a whole row, if it was made as this file's rows are to be."""
        if not line.endswith(b"\n"):
            self._refuse(number)
        try:
            row = self._format.read(line.decode())
        except (ValueError, RecursionError, csv.Error):
            self._refuse(number)
        theirs, ours = [row[name] for name in MADE], [self._format.text(self._made[name]) for name in MADE]
        if theirs != ours:
            raise ConfigError(
                f"{self._name} was made with other settings ({_differences(theirs, ours)}); choose another --out, or "
                "remove it to begin anew"
            )
        self._images.add(row["image"])

    def _refuse(self, number: int) -> NoReturn:
        raise ConfigError(
            f"{self._name} is there, and its line {number} is nothing that lcm caption writes; it was left as it is: "
            "choose another --out"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write {self._name} ({error.strerror or error}); rows that are in it stay: put that right and "
                "give the same command again, or choose another --out"
            ) from error


def _differences(theirs: list[str], ours: list[str]) -> str:
    """Return what differs between two pairs of model and settings: "samples 5 there, 3 here"."""
    then, now = (dict(part.partition(" ")[::2] for part in f"model {m}, {s}".split(", ")) for m, s in (theirs, ours))
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return "; ".join(f"{name} {then.get(name, 'none')} there, {now.get(name, 'none')} here" for name in names)


@dataclass
class Failures:
    """Images without a description: how many, and why the first of them have none."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, path: str, reason: object) -> None:
        """Note a path and why it has no description."""
        self.count += 1
        if len(self.shown) < FAILURES_SHOWN:
            name = path.rpartition("/")[2]
            self.shown.append(f"{escape(path)}: {str(reason).removeprefix(f'{name!r}: ')}")

    def __str__(self) -> str:
        more = [f"and {self.count - len(self.shown)} more"] * (self.count > len(self.shown))
        return "\n".join([f"not captioned: {self.count}", *(f"  {line}" for line in self.shown + more)])


def _settings_of(captioner: Captioner, samples: int, labels: Sequence[str] | None) -> str:
    """Return, short and readable, what answers depend on beside image and model."""
    scorer = captioner.tag_scorer
    parts = [f"samples {samples}", f"tagger {scorer.name if scorer else 'none'}"]
    if labels is not None:
        digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
        parts.append(f"labels {digest[:8]} ({len(labels)})")
    return ", ".join(parts)


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


def describe_into_file(
    out: Path,
    captioner: Captioner,
    images: Sequence[str],
    failures: Failures,
    samples: int,
    labels: Sequence[str] | None = None,
) -> str:
    """Describe the images that have no row in `out` yet, with a progress bar; returns a line on what is in it now.

    Images that cannot be read are added to `failures` and stop nothing. Raises what ResultFile does.
    """
    with ResultFile(out, captioner.name, _settings_of(captioner, samples, labels)) as results:
        there, rows = sum(image in results for image in images), len(results)
        with tqdm(total=len(images), initial=there, unit=" images", desc="caption", mininterval=1) as progress:
            for part in _parts(images, results):
                for image, answer in captioner.describe_many(part, samples, labels, workers=0):
                    if image in results:
                        continue
                    if isinstance(answer, BadImageError):
                        failures.add(image, answer)
                    else:
                        results.append(image, answer)
                    progress.update()
        added = len(results) - rows
    if there == len(images):
        return f"{escape(str(out))}: all images ({there}) are there already"
    return f"{escape(str(out))}: images captioned: {added}" + f"; there already: {there}" * bool(there)


def _parts(images: Sequence[str], done: Container[str]) -> Iterator[Sequence[str]]:
    """Yield the images to describe: those left behind, then from where a run was stopped.

    That is from the beginning of those that were described together, some of them anew: so each is described in the
    company it would have had without the stop, and gets the same answer to the last digit.
    """
    last = next((place for place in range(len(images) - 1, -1, -1) if images[place] in done), -1)
    start = (last + 1) // PART * PART
    behind = [image for image in images[:start] if image not in done]
    if behind:
        yield behind
    if any(image not in done for image in images[start:]):
        yield images[start:]
