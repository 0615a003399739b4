"""I06 and I07 of the acceptance list: hot swaps of a real service, as a process, under a steady load.

Good versions are published one after the other, with broken ones among them, while the service is asked RATE times a
second. LCM_SWAPS=50 makes that the whole number of the list; the figures are printed (`pytest -s`).
"""

import http.client
import itertools
import json
import os
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lcm import registry
from lcm.registry import all_versions
from tests.fakes.service_client import question_body
from tests.fakes.service_process import ServiceProcess, wait_until
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, letters_of, save_version

SWAPS = int(os.environ.get("LCM_SWAPS", "4"))
RATE = 50  # requests a second
CLIENTS = 12
BALLAST_MB = 24  # size of a version
PICKED_UP_S = 60.0  # within which a version answers, also on a machine with much else to do; it is under 2 s


@dataclass
class Load:
    """Asks RATE times a second, whether or not earlier questions have been answered, until it is stopped."""

    port: int
    digests: dict[str, str]  # letters -> X-LCM-Model-Version; what is not there yet must not answer
    answered: Counter = field(default_factory=Counter)  # letters -> answers
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: bool = False

    def run(self) -> None:
        numbers, began = itertools.count(), time.monotonic()

        def client(_) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            body = json.dumps(question_body())
            while not self.stopped:
                due = began + next(numbers) / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    connection.request("POST", "/learning-model", body, {"Content-Type": "application/json"})
                    reply = connection.getresponse()
                    self.check(reply.status, reply.headers, reply.read())
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    connection.close()
                self.seconds.append(time.monotonic() - due)

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Caption, tags, name and digest must be one version's."""
        if status != 200:
            self.failures.append(f"{status}: {body[:200]!r}")
            return
        answer = json.loads(body)
        letters = letters_of(answer["english_captions"], answer["tags"])
        named, digest = headers["X-LCM-Model"].removeprefix("tiny-"), headers["X-LCM-Model-Version"]
        if letters != {named} or self.digests.get(named) != digest:
            self.failures.append(f"mixed: {letters}, {named}, {digest}")
        self.answered[named] += 1


def letters_for(number: int) -> str:
    return "".join("bcdfghjklm"[int(digit)] for digit in str(number))


def put_broken(folder: Path, models: Path, number: int) -> None:
    """Make a version current that is damaged, does not work or is only half there; by hand, for publish refuses it."""
    broken = models / f"broken-{number}"
    shutil.copytree(folder, broken)
    names = ["half", "cut", *BROKEN]
    match names[number % len(names)]:
        case "half":
            (broken / "bundle.json").unlink()
        case "cut":
            os.truncate(broken / "step.onnx", 1000)
        case name:
            BROKEN[name](broken)
    (models / "new-pointer").write_text(broken.name)
    (models / "new-pointer").replace(models / "current")


def swap(load: Load, bundle: Path, letters: str) -> float:
    """Publish a version, and return the seconds until it answered."""
    registry.publish(bundle, "a swap")
    load.digests[letters] = all_versions()[-1].digest
    began = time.monotonic()
    registry.promote(f"tiny-{letters}")
    wait_until(lambda: load.answered[letters], PICKED_UP_S)
    return time.monotonic() - began


def test_i06_i07_swaps_under_load(tmp_path, monkeypatch):
    encoder, models = use_tiny_encoder(tmp_path, monkeypatch), tmp_path / "home" / "models"

    def bundle(number: int) -> tuple[Path, str]:
        letters = letters_for(number)
        return save_version(tmp_path / f"bundle-{number}", encoder, letters, BALLAST_MB), letters

    first, letters = bundle(0)
    registry.publish(first, "the first", make_current=True)
    service = ServiceProcess(tmp_path)
    wait_until(lambda: service.health().get("ready"))
    load = Load(service.port, {letters: all_versions()[-1].digest})
    thread = threading.Thread(target=load.run)
    thread.start()
    picked_up, memory, broken = [], [], 0
    try:
        for number in range(1, SWAPS + 1):
            folder, letters = bundle(number)
            if number % 4 == 3:
                before = service.health()["version"]
                put_broken(folder, models, broken)
                broken += 1
                wait_until(lambda: "problem" in service.health(), 60)
                assert service.health()["version"] == before
            else:
                picked_up.append(swap(load, folder, letters))
            shutil.rmtree(folder)
            if number % 8 == 0:
                registry.prune(1)
            time.sleep(0.3)  # the old one is freed
            memory.append(service.resident_mb())
        if memory[0]:  # versions do not pile up: beside the one that answers, two may not have been given back yet
            wait_until(lambda: service.resident_mb() - min(memory) < 2.5 * BALLAST_MB)
        final = service.health()
        asked = load.answered.total()
        wait_until(lambda: load.answered.total() > asked + 10 * CLIENTS)  # who asked before the last swap is answered
        after = load.answered.copy()
        wait_until(lambda: load.answered.total() > after.total() + RATE)
    finally:
        load.stopped = True
        thread.join(60)
        code = service.end()
    requests = sum(load.answered.values()) + len(load.failures)
    seconds = sorted(load.seconds)
    median, most, longest = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99, 0.9999))
    print(
        f"\n{SWAPS} swaps, {broken} of them broken: {requests} requests, {len(load.failures)} failures, "
        f"{len(load.answered)} versions answered, picked up in {statistics.median(picked_up):.2f} s (median), "
        f"{max(picked_up):.2f} s (longest); answers took {1000 * median:.0f} ms (median), {1000 * most:.0f} ms (99 %), "
        f"{1000 * longest:.0f} ms (longest); memory in MB after each swap: {[round(one) for one in memory if one]}"
    )
    assert code == 0
    assert load.failures == []
    assert set(load.answered) == set(load.digests), "each good version answered, and no other"
    assert final["version"] == load.digests[letters]
    assert load.answered - after == Counter({letters: sum((load.answered - after).values())}), "only the last one"
    assert len(service.lines("ERROR")) == broken
