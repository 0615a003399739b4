"""What the copy of the contributions looks like: contributions/<number>.json, images/… as they lie in the store,
revocations/<number>.json with the line that stays of what was revoked, and approved.txt.

Knows an object's name and bytes, and how a copy is compared with the contributions. Refuses to know when and how
objects are written.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from lcm.contributions.approvals import APPROVED
from lcm.contributions.records import OutboxEntry
from lcm.contributions.target import MARKER, Target
from lcm.errors import StoreDamagedError

CONTRIBUTIONS, REVOCATIONS = "contributions", "revocations"  # folders of records


@dataclass(frozen=True)
class MirrorCheck:
    """How the copy compares with the contributions; names of objects."""

    compared: int
    missing: tuple[str, ...]
    different: tuple[str, ...]
    extra: tuple[str, ...]  # belong to no contribution: left by another service, or not yet deleted

    @property
    def equal(self) -> bool:
        """Whether the copy holds just the contributions."""
        return not (self.missing or self.different or self.extra)


def image_name(entry: OutboxEntry) -> str:
    """Return the name of a contribution's image at the target: that in the store, for the record holds it."""
    return entry.record["image_file"]


def record_name(entry: OutboxEntry) -> str:
    """Return the name of a contribution's record at the target."""
    return f"{CONTRIBUTIONS}/{entry.contribution_id}.json"


def revocation_name(entry: OutboxEntry) -> str:
    """Return the name of the line about a revoked contribution at the target."""
    return f"{REVOCATIONS}/{entry.contribution_id}.json"


def record_bytes(entry: OutboxEntry) -> bytes:
    """Return a record as it is written: the same bytes every time."""
    text = json.dumps(entry.record, ensure_ascii=False, sort_keys=True, indent=1)
    return f"{text}\n".encode("utf-8", "backslashreplace")  # half a surrogate pair becomes the escape that JSON knows


def read_image_file(entry: OutboxEntry) -> bytes:
    """Return the image's bytes. Raises StoreDamagedError when they are not those that were contributed."""
    assert entry.image_path is not None, "a put has an image"
    try:
        data = entry.image_path.read_bytes()
    except OSError as error:
        raise StoreDamagedError(f"its image cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != entry.image_sha256:
        raise StoreDamagedError("its image is not what was contributed; restore it from a backup")
    return data


def check(target: Target, contributions: Iterable[OutboxEntry], approvals: bytes = b"") -> MirrorCheck:
    """Compare the copy with the store, every byte of it.

    `contributions` are puts of all that the store holds, `approvals` is what its approved.txt holds. Lines about what
    was revoked are not compared. Raises TargetError when the target cannot be read.
    """
    sizes = {name: size for name, size in target.sizes().items() if not name.startswith(f"{REVOCATIONS}/")}
    expected = {APPROVED: hashlib.sha256(approvals).hexdigest()} if approvals else {}
    for entry in contributions:
        expected[image_name(entry)] = entry.image_sha256
        expected[record_name(entry)] = hashlib.sha256(record_bytes(entry)).hexdigest()
    missing = tuple(sorted(set(expected) - set(sizes)))
    extra = tuple(sorted(set(sizes) - set(expected) - {MARKER}))
    there = sorted(set(expected) & set(sizes))
    different = tuple(name for name in there if hashlib.sha256(target.read(name)).hexdigest() != expected[name])
    return MirrorCheck(len(expected), missing, different, extra)
