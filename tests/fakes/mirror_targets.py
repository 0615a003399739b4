"""Targets of a mirror that fail on demand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from lcm.contributions.mirror import Mirror, Target
from lcm.contributions.store import ContributionStore
from lcm.data.remote import Address

METHODS = ("info", "exists", "makedirs", "pipe_file", "cat_file", "rm_file", "ls")
Fault = Callable[[Any, str, str, Any], None]  # (file system, method, path, second argument); raises, waits or spoils


def faulty(base: type) -> type:
    """Return the file system with a place for a fault, met before each operation, and a list of operations."""

    def guarded(name: str) -> Callable:
        def method(self, path, *args, **options):
            self.calls.append((name, path))
            if self.fault:
                fault, self.fault = self.fault, None  # a fault may use the file system itself
                try:
                    fault(self, name, path, args[0] if args else None)
                finally:
                    self.fault = fault
            return getattr(base, name)(self, path, *args, **options)

        return method

    def start(self, **options):
        base.__init__(self, skip_instance_cache=True, **options)
        self.fault, self.calls = None, []

    return type(f"Faulty{base.__name__}", (base,), {name: guarded(name) for name in METHODS} | {"__init__": start})


FaultyMemory, FaultyDisk = faulty(MemoryFileSystem), faulty(LocalFileSystem)


def fails(error: OSError) -> Fault:
    def fault(*_: Any) -> None:
        raise error

    return fault


down = fails(ConnectionError("Cannot connect to host store.example:443"))


def reset(fs: Any, name: str, path: str, value: Any) -> None:
    """The connection breaks when half of an object is there."""
    if name == "pipe_file":
        fs.pipe_file(path, value[: len(value) // 2])
        raise ConnectionResetError(104, "Connection reset by peer")
    if name == "makedirs":
        raise ConnectionResetError(104, "Connection reset by peer")


def cut(fs: Any, name: str, path: str, _: Any) -> None:
    """Half of each object is lost, and nobody says so: seen only when the object is looked at again."""
    if name == "info" and fs.isfile(path):
        data = fs.cat_file(path)
        with fs.open(path, "wb") as file:
            file.write(data[: len(data) // 2])


FAULTS = (
    down,
    fails(PermissionError("403 Server failed to authenticate the request")),
    fails(OSError("500 Internal Server Error\nRequestId:42")),
    fails(FileNotFoundError("The specified bucket does not exist")),
    reset,
    cut,
)


def make_target(root: Path, kind: str = "memory") -> Target:
    """Return a target whose file system, `target.fs`, has a place for a fault.

    "remote" is a driver of files that is no disk of this machine, as sftp's: what breaks off there is seen by its size.
    """
    if kind == "memory":
        fs, place, url = FaultyMemory(global_store=False, skip_instance_cache=True), "/bucket", "memory://bucket"
    else:
        url = f"file://{root}" if kind == "disk" else "sftp://host/folder"
        fs, place = FaultyDisk(skip_instance_cache=True), str(root)
    address = Address("sftp", url, "LCM_STORE_URL", url) if kind == "remote" else Address.parse(url, "LCM_STORE_URL")
    target = Target(address, connect=lambda: (fs, place))
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


def run(mirror: Mirror, store: ContributionStore, turns: int) -> list[float]:
    """Let the mirror take turns until nothing waits; returns the pauses."""
    pauses: list[float] = []
    while len(pauses) < turns and (due(store) or not pauses):
        pauses.append(mirror.copy_due())
    return pauses


def due(store: ContributionStore) -> list[int]:
    """Return the ids of what a mirror has not copied."""
    return [number for _, revisions in store.to_mirror() for number in revisions]


def records(target: Target) -> dict[int, dict]:
    """Return the records of a target, by id."""
    pages = [data for name, data in objects(target).items() if name.startswith("contributions/")]
    return {one["id"]: one for data in pages for one in map(json.loads, data.splitlines())}


def assert_equal(target: Target, store: ContributionStore) -> None:
    """The copy holds just the store's images, and a record of all that is or was there."""
    there, contributions = objects(target), list(store.contributions())
    images = {one.image_file: store.read_image(one) for one in contributions}
    assert {name: data for name, data in there.items() if name.startswith("images/")} == images
    assert records(target) == {one.id: one.as_record() for one in (*contributions, *store.revoked())}
