"""Targets of a mirror that fail on demand, and a clock that stands still."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from lcm.contributions.mirror import APPROVED, MARKER, Mirror, Target
from lcm.contributions.store import ContributionStore
from lcm.data.remote import Address

METHODS = ("info", "isdir", "makedirs", "open", "pipe_file", "cat_file", "mv", "rm_file", "ls")
Fault = Callable[[Any, str, str, Any], None]  # (file system, method, path, second argument); raises, waits or spoils


def faulty(base: type) -> type:
    """Return the file system with a place for a fault, met before each operation, and a list of operations."""

    def guarded(name: str) -> Callable:
        inherited = getattr(base, name)

        def method(self, path, *args, **options):
            self.calls.append((name, path))
            if self.fault and not getattr(self.inside, "fault", False):
                self.inside.fault = True  # a fault may use the file system itself
                try:
                    self.fault(self, name, path, args[0] if args else options.get("mode"))
                finally:
                    self.inside.fault = False
            return inherited(self, path, *args, **options)

        return method

    def start(self, **options):
        base.__init__(self, **options)
        self.fault, self.calls, self.inside = None, [], threading.local()

    return type(f"Faulty{base.__name__}", (base,), {name: guarded(name) for name in METHODS} | {"__init__": start})


FaultyMemory, FaultyDisk = faulty(MemoryFileSystem), faulty(LocalFileSystem)


def down(*_: Any) -> None:
    raise ConnectionError("Cannot connect to host store.example:443")


def forbidden(*_: Any) -> None:
    raise PermissionError("403 Server failed to authenticate the request")


def broken(*_: Any) -> None:
    raise OSError("500 Internal Server Error\nRequestId:42")


def no_bucket(*_: Any) -> None:
    raise FileNotFoundError("The specified bucket does not exist")


def reset(fs: Any, name: str, path: str, value: Any) -> None:
    """The connection breaks when half of an object is there."""
    if name == "pipe_file":
        fs.pipe_file(path, value[: len(value) // 2])
        raise ConnectionResetError(104, "Connection reset by peer")
    if name == "open" and value == "wb":
        with fs.open(path, "wb") as file:
            file.write(b"half")
        raise ConnectionResetError(104, "Connection reset by peer")


def cut(fs: Any, name: str, path: str, _: Any) -> None:
    """Half of each object is lost, and nobody says so: seen only when the object is looked at again."""
    if name == "info" and fs.isfile(path):
        data = fs.cat_file(path)
        with fs.open(path, "wb") as file:
            file.write(data[: len(data) // 2])


FAULTS = (down, forbidden, broken, no_bucket, reset, cut)


class Clock:
    """Wall time that passes only when told to."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_target(root: Path, kind: str = "memory", limit_s: float = 10) -> Target:
    """Return a target whose file system, `target.fs`, has a place for a fault."""
    if kind == "memory":
        fs, place, url = FaultyMemory(global_store=False, skip_instance_cache=True), "/bucket", "memory://bucket"
    else:
        fs, place, url = FaultyDisk(skip_instance_cache=True), str(root), f"file://{root}"
    target = Target(Address.parse(url, "LCM_STORE_URL"), limit_s=limit_s, connect=lambda: (fs, place))
    target.fs, target.place = fs, place
    return target


def objects(target: Target) -> dict[str, bytes]:
    """Return every object of a target by its name."""
    fault, target.fs.fault = target.fs.fault, None
    try:
        found = target.fs.find(target.place)
        names = [path.partition(f"{target.place}/")[2] for path in found]
        return {name: target.fs.cat_file(f"{target.place}/{name}") for name in names}
    finally:
        target.fs.fault = fault


def make_mirror(store: ContributionStore, target: Target, clock: Callable[[], float]) -> Mirror:
    return Mirror(store, target, clock=clock, chance=lambda: 1.0)


def run(mirror: Mirror, clock: Clock, store: ContributionStore, turns: int) -> list[float]:
    """Let the mirror take turns until nothing waits; returns the pauses."""
    pauses: list[float] = []
    while len(pauses) < turns and (any(store.to_mirror()) or not pauses):
        pauses.append(mirror.copy_due())
        clock.now += pauses[-1]
    return pauses


def assert_equal(target: Target, store: ContributionStore) -> None:
    """The copy holds just the store's images and records, and a line about each revocation."""
    there = objects(target)
    there.pop(MARKER, None), there.pop(APPROVED, None)
    contributions = list(store.contributions())
    names = {f"contributions/{one.id}.json" for one in contributions} | {one.image_file for one in contributions}
    assert {name for name in there if not name.startswith("revocations/")} == names
    assert all(there[one.image_file] == store.read_image(one) for one in contributions)
