"""Fetching: the contributions that a service has copied elsewhere become a store here, for a machine that only trains.

Knows in which order a copy is read, that any object in it may be damaged, and that a store of one's own is not to be
written over. Refuses to know how the copy came about, and changes nothing in it.

Contributions keep their numbers: by those a model knows what it has learned from, here as well as where it will answer.
What the copy says is believed only as far as record and image agree, and pass the same door as what is sent over HTTP.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from lcm.contributions.approvals import APPROVED
from lcm.contributions.copying import replace_file
from lcm.contributions.database import DATABASE
from lcm.contributions.failures import explained
from lcm.contributions.layout import CONTRIBUTIONS, REVOCATIONS
from lcm.contributions.numbers import from_text
from lcm.contributions.records import SUFFIXES, Contribution, Revocation
from lcm.contributions.store import ContributionStore
from lcm.contributions.target import MARKER, Target
from lcm.contributions.text import MAX_SENT, clean_text
from lcm.data.remote import Address
from lcm.errors import BadImageError, ConfigError, DataError
from lcm.paths import home

ORIGIN = "copy_of"  # file in the store's folder: the address that all in it came from
RECORDS, IMAGES = 200, 8  # objects that are read beside one another
TOLERATED = 0.01  # of the contributions; more damaged ones are no accident
GONE = "no longer in the copy"  # the reason of what the copy lacks, where it has no line about it
_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Fetched:
    """What a store holds once it equals the copy, and what became of it this time."""

    contributions: int
    new: int
    revoked: int  # that were here before
    damaged: dict[str, str]  # names of objects that were left out -> why

    @property
    def is_damaged(self) -> bool:
        """Whether more is damaged than an accident explains; one always is explained."""
        return len(self.damaged) > max(1, TOLERATED * (self.contributions + len(self.damaged)))


def fetch_contributions(url: str, folder: str | Path | None = None) -> Fetched:
    """Make the store in `folder` (`contributions` in LCM_HOME) equal the copy at LCM_STORE_URL.

    What is here already is not read again. What is damaged there is left out; if it is here, it stays. Raises
    ConfigError for no address or a bad one, and for a store that did not come from there; DataError where there is no
    copy; TargetError when it cannot be read, and what was fetched until then stays.
    """
    if not url:
        raise ConfigError("LCM_STORE_URL is not set; give it the address that the service copies contributions to")
    return fetch(Target(Address.parse(url, "LCM_STORE_URL")), Path(folder or home() / "contributions"))


def fetch(target: Target, folder: Path) -> Fetched:
    """Do the same from a target."""
    folder = folder.expanduser().resolve()
    target.address.refuse_folder(folder)
    if target.read_all([MARKER]) == [None]:
        raise DataError(
            f"{target.address.name} holds no copy of contributions ({MARKER} is not there); set LCM_STORE_URL to what "
            "the service has, and check that the service has stored something"
        )
    store = _open(target, folder)
    numbers, revoked = _numbers(target, CONTRIBUTIONS), _numbers(target, REVOCATIONS)
    damaged: dict[str, str] = {}
    known = {line.id for line in store.revocations()}
    gone = sum(map(store.take_revocation, _lines(target, sorted(revoked - known), damaged)))
    here = {one.id for one in store.contributions()}
    for number in here - (numbers - revoked):
        store.revoke(number, GONE)
        gone += 1
    new = 0
    for one in _records(target, sorted(numbers - here - revoked), damaged):
        new += len(one)
        new -= _take(target, store, one, damaged)
    _take_approvals(target, folder, damaged)
    return Fetched(len(list(store.contributions())), new, gone, damaged)


def _open(target: Target, folder: Path) -> ContributionStore:
    """Open the store that is to equal the copy; raises ConfigError where it holds, or may hold, something else."""
    origin = folder / ORIGIN
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        came_from = origin.read_text(encoding="utf-8").strip() if origin.exists() else ""
    if (
        came_from != target.address.name
        and (folder / DATABASE).exists()
        and ContributionStore(folder).state() != (0, 0)
    ):
        whose = f"a copy of {came_from}" if came_from else "contributions of its own"
        raise ConfigError(f"{folder} holds {whose}, not of {target.address.name}; choose another folder with --store")
    replace_file(origin, f"{target.address.name}\n".encode())
    return ContributionStore(folder)


def _numbers(target: Target, folder: str) -> set[int]:
    """Return the numbers of the records in one of the copy's folders; other names there are passed over."""
    return {int(found[1]) for name in target.names(folder) if (found := _RECORD.fullmatch(name))}


def _lines(target: Target, numbers: Sequence[int], damaged: dict[str, str]) -> Iterator[Revocation]:
    """Yield the lines about what was revoked; damaged ones are noted, and revoke by their number all the same."""
    for start in range(0, len(numbers), RECORDS):
        names = {number: f"{REVOCATIONS}/{number}.json" for number in numbers[start : start + RECORDS]}
        for (number, name), data in zip(names.items(), target.read_all([*names.values()]), strict=True):
            try:
                yield _revocation(number, data)
            except DataError as error:
                damaged[name] = str(error)


def _records(target: Target, numbers: Sequence[int], damaged: dict[str, str]) -> Iterator[list[Contribution]]:
    """Yield what the records say, a few at a time; damaged ones are noted."""
    for start in range(0, len(numbers), RECORDS):
        names = {number: f"{CONTRIBUTIONS}/{number}.json" for number in numbers[start : start + RECORDS]}
        found = []
        for (number, name), data in zip(names.items(), target.read_all([*names.values()]), strict=True):
            try:
                found.append(_contribution(number, data))
            except DataError as error:
                damaged[name] = str(error)
        yield from (found[first : first + IMAGES] for first in range(0, len(found), IMAGES))


def _take(target: Target, store: ContributionStore, records: list[Contribution], damaged: dict[str, str]) -> int:
    """Read the images of some contributions and keep them; returns how many are damaged."""
    before = len(damaged)
    names = sorted({one.image_file for one in records})
    images = dict(zip(names, target.read_all(names), strict=True))
    for one in records:
        name, image = f"{CONTRIBUTIONS}/{one.id}.json", images[one.image_file]
        if image is None:
            damaged[name] = "its image is not there"
            continue
        try:
            store.take(one, image)
        except (BadImageError, DataError) as error:
            damaged[name] = str(error)
    return len(damaged) - before


def _take_approvals(target: Target, folder: Path, damaged: dict[str, str]) -> None:
    """Approve here what is approved there and nothing else; where nothing ever was, or it is damaged, all stays."""
    (approvals,) = target.read_all([APPROVED])
    if approvals is None:
        return
    try:
        from_text(approvals.decode("utf-8", "replace"))
    except ConfigError as error:
        damaged[APPROVED] = str(error)
    else:
        replace_file(folder / APPROVED, approvals)


# Records


def _contribution(number: int, data: bytes | None) -> Contribution:
    record = _read(number, data)
    names = {field.name for field in fields(Contribution)} - {"known"}
    if set(record) != names:
        raise DataError("it is no record of a contribution")
    contribution = Contribution(**record)
    sent, received = contribution.caption_sent, contribution.received
    if not (isinstance(sent, str) and len(sent) <= MAX_SENT and _is_time(received)):
        raise DataError("it is no record of a contribution")
    return contribution


def _revocation(number: int, data: bytes | None) -> Revocation:
    record = _read(number, data)
    if set(record) != {field.name for field in fields(Revocation)} or not _is_time(record["revoked"]):
        raise DataError("it is no line about a revoked contribution")
    return Revocation(**record | {"reason": clean_text(record["reason"], "reason")})


def _read(number: int, data: bytes | None) -> dict[str, Any]:
    """Return a record without its image_file, which must follow from the rest, as must its number."""
    try:
        record = json.loads(data or b"")
        where = record.pop("image_file")
        digest, kind = record["image_sha256"], record["image_format"]
        sound = type(record["id"]) is int and record["id"] == number and _SHA256.fullmatch(digest)
        if sound and where == f"images/{digest[:3]}/{digest}{SUFFIXES[kind]}":
            return record
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    raise DataError("it is not there or not whole")


def _is_time(text: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return False
