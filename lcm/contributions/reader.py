"""What a store of contributions holds: one by one, as a training set, as files to check.

Knows how to read many rows without keeping writers waiting. Refuses to know how anything came to be there.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcm.contributions.database import DATABASE, Database
from lcm.contributions.files import read_image_file
from lcm.contributions.outbox import as_put
from lcm.contributions.records import (
    COLUMNS,
    REVOCATION_COLUMNS,
    ContributedImage,
    Contribution,
    OutboxEntry,
    Revocation,
)

PAGE = 1000  # rows read at once: whoever commits has to wait for whoever reads
SELECT = f"SELECT {', '.join(COLUMNS)} FROM contributions"


@dataclass(frozen=True)
class StoreCheck:
    """What a look at every image has found."""

    contributions: int
    images: int
    missing: tuple[int, ...]  # ids of contributions whose image is not there
    altered: tuple[int, ...]  # ids of contributions whose image is not what was sent

    @property
    def sound(self) -> bool:
        """Whether every image is there and is what was sent."""
        return not (self.missing or self.altered)


class StoreReader:
    """The reading half of a store. Every method raises StoreError, or one of its family, when it cannot be read."""

    def __init__(self, folder: Path, name: str = DATABASE):
        """Open nothing yet; `name` is the database's, which a backup calls otherwise."""
        self.folder, self.database = folder, Database(folder, name)

    def get(self, number: int) -> Contribution | None:
        """Return a contribution, None when it was revoked or never there."""
        return next(iter(self._select("number = ?", number)), None)

    def of_image(self, image_sha256: str) -> list[Contribution]:
        """Return the contributions of one image, in the order of arrival."""
        return self._select("image_sha256 = ? ORDER BY number", image_sha256)

    def contributions(self, after: int = 0) -> Iterator[Contribution]:
        """Yield the contributions beyond number `after` in the order of arrival.

        What comes or goes meanwhile may be among them.
        """
        last = after
        while page := self._select(f"number > ? ORDER BY number LIMIT {PAGE}", last):
            yield from page
            last = page[-1].id

    def revocations(self) -> list[Revocation]:
        """Return the lines about what was revoked, in the order of arrival."""
        with self.database.reading() as session:
            query = f"SELECT {', '.join(REVOCATION_COLUMNS)} FROM revocations ORDER BY number"
            return [Revocation(*row) for row in session.connection.execute(query)]

    def state(self) -> tuple[int, int]:
        """Return the highest number that was given and how many were revoked: each change makes one of them grow."""
        with self.database.reading() as session:
            query = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'contributions'), count(*) FROM revocations"
            last, revoked = session.connection.execute(query).fetchone()
        return last or 0, revoked

    def training_images(self) -> list[ContributedImage]:
        """Return the images that can train, in the order of arrival of their first caption that can."""
        found: dict[str, list[Contribution]] = {}
        for contribution in self.contributions():
            if contribution.usable:
                found.setdefault(contribution.image_sha256, []).append(contribution)
        return [ContributedImage(self.path_of(each[0]), tuple(each)) for each in found.values()]

    def all_puts(self) -> Iterator[OutboxEntry]:
        """Yield the entry that copies each contribution, whether a mirror has it or not: to compare a copy with."""
        return (as_put(contribution, self.folder) for contribution in self.contributions())

    def path_of(self, contribution: Contribution) -> Path:
        """Return the file of a contribution's image."""
        return self.folder / contribution.image_file

    def check(self) -> StoreCheck:
        """Read every image and compare it with what was sent."""
        states: dict[str, str] = {}  # of images
        ids: dict[str, list[int]] = {"sound": [], "missing": [], "altered": []}
        for contribution in self.contributions():
            digest = contribution.image_sha256
            if digest not in states:
                states[digest] = self._state(contribution)
            if states[digest] == "sound" or self.get(contribution.id):  # it may have been revoked meanwhile
                ids[states[digest]].append(contribution.id)
        return StoreCheck(sum(map(len, ids.values())), len(states), tuple(ids["missing"]), tuple(ids["altered"]))

    def _state(self, contribution: Contribution) -> str:
        data = self.read_image(contribution)
        if data is None:
            return "missing"
        return "sound" if hashlib.sha256(data).hexdigest() == contribution.image_sha256 else "altered"

    def read_image(self, contribution: Contribution) -> bytes | None:
        """Return the bytes of a contribution's image as they lie there, None when there are none."""
        with self.database.in_folder() as folder:
            return read_image_file(folder, contribution.image_file)

    def _select(self, condition: str, value: int | str) -> list[Contribution]:
        with self.database.reading() as session:
            rows = session.connection.execute(f"{SELECT} WHERE {condition}", (value,))
            return [Contribution.from_row(row) for row in rows]
