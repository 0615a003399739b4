"""What the mirror's tests share: a store, and file systems that fail on demand.

Run as a program it is one or more processes that mirror and are killed.
"""

import io
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from lcm.contributions import database
from lcm.contributions.layout import check
from lcm.contributions.mirror import Mirror
from lcm.contributions.records import OutboxEntry
from lcm.contributions.store import ContributionStore
from lcm.contributions.target import Target
from lcm.data.remote import Address
from tests.fakes.children import in_child


def skip_flushes(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Leave the disk alone: a flush outlasts the power, and nothing here cuts that; kills need none."""
    patch(os, "fsync", lambda _descriptor: None)
    patch(database, "PRAGMAS", ("synchronous = OFF",))


class Store(ContributionStore):
    """The real store, with what tests say often."""

    def __init__(self, folder: Path):
        super().__init__(folder, outbox=True)

    def keep(self, image: bytes, caption: str) -> int:
        return self.add(image, caption).id

    def waiting(self) -> list[OutboxEntry]:
        return self.pending(10**6, math.inf)

    def puts(self) -> list[OutboxEntry]:
        return list(self.all_puts())

    def take_back(self, number: int) -> None:
        self.revoke(number, "asked for")


def picture(number: int, side: int = 4) -> bytes:
    """Return a PNG file of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


METHODS = ("info", "isdir", "makedirs", "open", "pipe_file", "cat_file", "mv", "rm_file", "ls", "find")
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


class Clock:
    """Wall time that passes only when told to."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_target(root: Path, kind: str = "memory", limit_s: float = 10) -> Target:
    if kind == "memory":
        fs, place, url = FaultyMemory(global_store=False, skip_instance_cache=True), "/bucket", "memory://bucket"
    else:
        fs, place, url = FaultyDisk(skip_instance_cache=True), str(root), f"file://{root}"
    target = Target(Address.parse(url, "LCM_STORE_URL"), limit_s=limit_s, connect=lambda: (fs, place))
    target.fs = fs
    return target


def make_mirror(store: Store, target: Target, clock: Callable[[], float] = time.time) -> Mirror:
    return Mirror(
        store, target, store.folder, clock=clock, chance=lambda: 1.0, look_every_s=0.05 if clock is time.time else 5
    )


def assert_equal(target: Target, store: Store) -> None:
    result = check(target, store.all_puts())
    assert result.equal, result


def mirror_until_killed(folder: str, remote: str, log: str) -> None:
    """Be a service's process that does nothing but mirror; log its id for each object that is moved into place."""

    def note(_fs: Any, name: str, _path: str, value: Any) -> None:
        time.sleep(0.002)
        if name == "mv":
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()} {value}\n")

    target = make_target(Path(remote), "disk")
    target.fs.fault = note
    make_mirror(Store(Path(folder)), target).start()
    time.sleep(60)


def kill_at_every_step(folder: str) -> None:
    """Kill a process that mirrors at its first, second, ... call of the driver, then mirror on in another one.

    Prints the number of steps; fails when a copy does not equal its store in the end.
    """
    for step in itertools.count(1):
        place = Path(folder) / str(step)
        store = Store(place / "store")
        store.keep(picture(1), "a dog")
        store.keep(picture(2), "a cat")
        killed = in_child(_mirror_and_revoke, place, step)
        assert killed in (0, -signal.SIGKILL), f"step {step} ended with {killed}"
        assert in_child(_mirror_and_revoke, place, 0) == 0, f"not equal after a kill at step {step}"
        if not killed:
            return print(step)
    return None


def _mirror_and_revoke(place: Path, step: int) -> None:
    """Mirror all, revoke the first contribution, mirror that; die by kill -9 at call number `step`."""
    store, target = Store(place / "store"), make_target(place / "remote", "disk")

    def kill(fs: Any, *_: Any) -> None:
        if len(fs.calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    target.fs.fault = kill
    mirror = make_mirror(store, target, Clock())
    mirror.copy_due()
    if len(store.puts()) == 2:
        store.take_back(1)
        mirror.copy_due()
    assert_equal(target, store)


if __name__ == "__main__":
    skip_flushes()
    {"mirror_until_killed": mirror_until_killed, "kill_at_every_step": kill_at_every_step}[sys.argv[1]](*sys.argv[2:])
