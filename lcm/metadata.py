"""Captions, alternative texts and keywords as metadata: into XMP sidecars beside photos, or into the photos; and back.

To exiv2 a sidecar is an image without pixels, so one way of writing serves both. The fields are those of the IPTC Photo
Metadata Standard, and keywords once more as digiKam and Lightroom keep their levels. What people wrote in these fields
stays unless it is to be replaced; every other field stays always. Before a file changes, a note in the state folder
says how to have it back to the last byte, each run's in a folder. Importing this needs the extra `photos`.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from lcm.captioning.alt_text import sentence
from lcm.captioning.description import Description
from lcm.captioning.tagging import PROBABILITY
from lcm.data.files import RAW_SUFFIXES, is_image_name
from lcm.data.images import image_format, open_metadata
from lcm.errors import ConfigError, DataError, NothingToDo, require
from lcm.paths import explained, home, open_atomic, write_atomic

exiv2 = require("exiv2", "photos")

TEXTS = ("Xmp.dc.description", "Xmp.iptc.AltTextAccessibility")  # by language
KEYWORDS = {"Xmp.digiKam.TagsList": "/", "Xmp.lr.hierarchicalSubject": "|", "Xmp.dc.subject": ""}  # what parts levels
FACTS = {"names": "Xmp.iptcExt.PersonInImage", "city": "Xmp.photoshop.City", "credit": "Xmp.photoshop.Credit"}
IIM = {"Xmp.dc.description": "Caption", "Xmp.dc.subject": "Keywords", FACTS["city"]: "City", FACTS["credit"]: "Credit"}
EMBEDDED = ("image/jpeg", "image/png", "image/webp", "image/tiff")  # others exiv2 only reads
TOLD = {**dict(zip(TEXTS, ("description", "alternative text"), strict=True)), "Xmp.dc.subject": "keywords"}
SHARES_WRITTEN = 5  # best tags that become keywords where scores are shares, which do not say how many of them fit
ANY = "x-default"  # the language of a text whose language nobody knows
_LEVELS = re.compile(r"\s*>\s*")  # in a tag: "animals > dogs"
_PLACE, _OPTIONAL = re.compile(r"\{(\w*)\}"), re.compile(r"\[([^\[\]]*)\]")
_AGAIN = "it is as it was; put that right and give the same command again"


@dataclass
class Writer:
    """Writes what is said of photos; one for each run."""

    embed: bool  # into the photos, not beside them
    overwrite: bool = False  # replace what people wrote in these fields, too
    dry_run: bool = False
    line: str = "{caption}"  # of the description: see the message below
    _run: Path = field(default_factory=lambda: home() / f"metadata/{time.time_ns()}")  # folder of its notes

    def __post_init__(self) -> None:
        if "{caption}" not in _OPTIONAL.sub("", self.line) or {*_PLACE.findall(self.line)} - {"caption", *FACTS}:
            rule = f"must hold {{caption}} and may hold {{{'}, {'.join(FACTS)}}}, in [] where a photo may lack them"
            raise ConfigError(f"--line is {self.line!r}; it {rule}")

    def write(self, photo: str | Path, said: Description) -> str:
        """Write what is said of a photo and return what was done; raises DataError where nothing could be."""
        path = Path(photo).absolute()
        try:
            with explained(f"metadata of {path.name!r}", _AGAIN):
                target = (path if self.embed else _sidecar(path)).resolve()
                content = path.read_bytes()
                old = content if self.embed else target.read_bytes() if target.exists() else None
                image, there = self._open(target.name, content, old)
                if not (changed := self._changed(there, said)):
                    return f"nothing to add to {target.name}"
                told = f"{target.name}: {', '.join(TOLD[key] for key in TOLD if key in changed)}"
                for key, value in changed.items():
                    kind = exiv2.XmpProperties.propertyType(exiv2.XmpKey(key))  # a sequence, or a bag
                    filled = exiv2.LangAltValue(value) if key in TEXTS else exiv2.XmpArrayValue(value, kind)
                    image.xmpData()[key] = filled
                image.writeMetadata()
                if self.dry_run:
                    return f"would write to {told}"
                new = bytes(image.io().mmap())
                _note(self._run, target, old, new)
                _replace(target, new)
        except exiv2.Exiv2Error as error:
            raise DataError(f"metadata of {path.name!r} cannot be written ({error.message}); {_AGAIN}") from error
        return f"written to {told}"

    def _open(self, name: str, content: bytes, old: bytes | None) -> tuple[exiv2.Image, dict[str, Any]]:
        """Return what is to be filled in, and the fields: those of a sidecar first, then the photo's XMP and IIM."""
        photo = image = None
        with suppress(exiv2.Exiv2Error):  # what exiv2 does not know has nothing that it could read
            photo = image = open_metadata(content)
        if not self.embed:
            image = open_metadata(old) if old is not None else exiv2.ImageFactory.create(exiv2.ImageType.xmp)
        elif not photo or photo.mimeType() not in EMBEDDED or image_format(content) == "raw":
            raise DataError(f"{name!r} is of a format that is only read; use --write sidecar")
        if old is not None and image.xmpData().empty() and (not self.embed or image.xmpPacket()):
            raise DataError(f"the XMP in {name!r} cannot be read, so it was left; mend it or move it away")
        there: dict[str, Any] = {}  # by key of XMP: texts by language, or a list
        for key in (*TEXTS, *KEYWORDS, *FACTS.values()):
            found = (_plain(one.xmpData()[key].value()) for one in (image, photo) if one and key in one.xmpData())
            value = next(found, None) or _older(photo, key)
            texts = value if isinstance(value, dict) else dict(zip([ANY], value, strict=False))
            there[key] = texts if key in TEXTS else [*value.values()] if isinstance(value, dict) else value
        return image, there

    def _changed(self, there: Mapping[str, Any], said: Description) -> dict[str, Any]:
        """Return the fields that change, as they are to be."""
        texts = zip(TEXTS, (self._line(sentence(said.caption), there), said.alt_text), strict=True)
        wanted = {key: self._merged(there[key], said.language, text) for key, text in texts}
        tags = said.tags if said.scores == PROBABILITY else said.tags[:SHARES_WRITTEN]
        kept = {key: [] if self.overwrite else there[key] for key in KEYWORDS}
        # A program that knows levels looks into no other list, so what people have in one of them goes into all.
        paths = [one.split(mark) if mark else [one] for key, mark in KEYWORDS.items() for one in kept[key]]
        paths += [_LEVELS.split(word) for word, _ in tags]
        for key, mark in KEYWORDS.items() if tags else ():
            wanted[key] = kept[key] + _missing(paths, kept[key], mark)
        return {key: value for key, value in wanted.items() if value != there[key]}

    def _merged(self, texts: Mapping[str, str], language: str, text: str) -> dict[str, str]:
        """Return texts by language with ours, unless people have one in this language, or in one that nobody knows."""
        code = language.partition("-")[0]
        own = next((one for one in texts if one.partition("-")[0].lower() == code), language)
        is_known = texts.get(ANY) in [text for one, text in texts.items() if one not in (ANY, own)]
        if not text or (not self.overwrite and (own in texts or (ANY in texts and not is_known))):
            return dict(texts)
        return {**texts, own: text} | ({} if is_known else {ANY: text})

    def _line(self, caption: str, there: Mapping[str, Any]) -> str:
        known = {"caption": caption} | {name: ", ".join(there[key]) for name, key in FACTS.items()}
        parts = _OPTIONAL.split(self.line)  # every second one stood in brackets
        parts[1::2] = [one if all(known[name] for name in _PLACE.findall(one)) else "" for one in parts[1::2]]
        return " ".join(_PLACE.sub(lambda found: known[found[1]], "".join(parts)).split())


def _sidecar(photo: Path) -> Path:
    """Return photo.xmp; photo.jpg.xmp where it is there already, or where another photo has the same first name."""
    names = {name.casefold(): name for name in os.listdir(photo.parent)}  # noqa: PTH208 - a folder may hold many
    endings = RAW_SUFFIXES if photo.suffix.lower() in RAW_SUFFIXES else ""  # beside its JPEG, Lightroom wants photo.xmp
    same = (name for name in names if PurePath(name).stem == photo.stem.casefold() and is_image_name(name))
    long, is_alone = f"{photo.name}.xmp", sum(name.endswith(endings) for name in same) < 2
    name = f"{photo.stem}.xmp" if is_alone and long.casefold() not in names else long
    return photo.with_name(names.get(name.casefold(), name))


def _missing(paths: Iterable[Sequence[str]], known: Sequence[str], mark: str) -> list[str]:
    """Return the keywords that a list lacks, as it holds them; one without levels is known as the last level, too."""
    there, lacking = {part.casefold() for one in known for part in (one, one.split(mark)[-1] if mark else one)}, []
    for path in paths:
        word = mark.join(path) if mark else path[-1]
        if word.casefold() not in there:
            lacking.append(word)
        there |= {word.casefold(), path[-1].casefold()}
    return lacking


def _plain(value: exiv2.Value) -> dict[str, str] | list[str]:
    if isinstance(value, exiv2.LangAltValue):
        return dict(value)
    return list(value) if isinstance(value, exiv2.XmpArrayValue) else [str(value)]


def _older(photo: exiv2.Image | None, key: str) -> list[str]:
    """Return a field's texts in IIM, of before XMP, where people may have written it alone; in UTF-8, else Windows'."""
    iptc, name = photo.iptcData() if photo else [], f"Iptc.Application2.{IIM.get(key)}"
    found = (one.toString().encode("utf-8", "surrogateescape") for one in iptc if one.key() == name)
    return [one.decode("utf-8" if iptc.detectCharset() else "cp1252", "replace") for one in found]


def _note(run: Path, target: Path, old: bytes | None, new: bytes) -> None:
    """Note what a file was: the bytes between the beginning and the end that it has in common with what it will be."""
    before, modified_ns = old or b"", target.stat().st_mtime_ns if old is not None else 0
    start = _common(before, new)
    end = _common(before[start:][::-1], new[start:][::-1])
    part = base64.b64encode(before[start : len(before) - end]).decode()
    with explained(run, _AGAIN):
        run.mkdir(parents=True, exist_ok=True)
        change = [str(target), _digest(old), _digest(new), start, end, part, modified_ns]
        write_atomic(run / f"{time.time_ns()}-{_digest(new)[:8]}.json", json.dumps(change))


def _common(first: bytes, second: bytes) -> int:
    """Return how many bytes two texts have in common from their beginning on."""
    length = min(len(first), len(second))
    differ = np.frombuffer(first, np.uint8, length) != np.frombuffer(second, np.uint8, length)
    return int(differ.argmax()) if differ.any() else length


def _digest(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()


def _replace(target: Path, data: bytes) -> None:
    """Write a file, whole or not at all; it keeps its mode and other attributes."""
    with open_atomic(target) as file:
        if target.exists():
            shutil.copystat(target, file.name)
        file.write(data)


def undo() -> tuple[list[str], list[tuple[str, object]]]:
    """Put back what the last run has changed; returns these files, and those that are as they are, with the reasons."""
    run = max((home() / "metadata").glob("*"), default=None)
    if not run:
        raise NothingToDo("there is nothing to undo: no run of lcm caption --write is noted")
    files, failures = [], []
    for note in sorted(run.glob("*.json"), reverse=True):
        path, *change = json.loads(note.read_bytes())
        try:
            _put_back(Path(path), change, note)
            note.unlink()
            files.append(path)
        except DataError as error:
            failures.append((path, error))
    if not failures:
        shutil.rmtree(run)
    return files, failures


def _put_back(path: Path, change: Sequence[Any], note: Path) -> None:
    before, after, start, end, part, modified_ns = change
    with explained(repr(path.name), "it is as it is; put that right and undo again"):
        now = path.read_bytes() if path.exists() else None
        if _digest(now) == before:
            return  # a kill came before it was changed, or somebody has put it back
        if now is None or _digest(now) != after:
            raise DataError(f"{path.name!r} was changed or moved since, and stays so; to undo the rest: rm {note}")
        if before:
            _replace(path, now[:start] + base64.b64decode(part) + now[len(now) - end :])
            os.utime(path, ns=(modified_ns, modified_ns))
        else:
            path.unlink()
