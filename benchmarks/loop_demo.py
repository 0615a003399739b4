"""The whole loop, shown: a served model is corrected over HTTP, learns at once, is retrained, judged and replaced.

    python benchmarks/loop_demo.py                   generated scenes: a model that has never seen the night
    python benchmarks/loop_demo.py --data flickr8k   the shipped model, its own data set as the base, learns the scenes

Everything happens in one new folder, LCM_HOME; the caches stay where they are. tests/test_loop.py asserts what this
prints.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from lcm.data.dataset import LabelledImage
from lcm.data.sample import Scene, draw_scene, plan_scenes, write_captions
from lcm.evaluation.metrics import score

ROOT = Path(__file__).resolve().parent.parent
ALL_SCENES = 4000  # of 6,144
NEW_PLACE = "night"
BASE = {"train": 150, "dev": 120}  # scenes of the base: few to learn from, so that what is sent helps there too
SEED = 1
MERGE = {"model": "merge", "epochs": 20, "batch_size": 32, "tagger_epochs": 8, "min_count": 3, "dev_beam_width": 1}
SENT = {"contributions": "store", "new_share": 0.5, "captioners": "new=trained, current"}
FAST = {"meteor": False, "samples": 0, "page_photos": 1, "timed_photos": 1}
CONTRIBUTED, UNSEEN, ASKED_AGAIN = 250, 40, 10
PICKED_UP_S = 5.0
HERE = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads back to this machine


@dataclass
class Shown:
    """What the loop has come to."""

    learned_at_once: int = 0  # of ASKED_AGAIN contributed images, those that got their new caption at once
    before: dict[str, float] = field(
        default_factory=dict
    )  # scores of the served model on unseen images of the new kind
    after: dict[str, float] = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)  # of the retraining
    versions: Counter = field(default_factory=Counter)  # model -> answers, all the while
    failures: list[str] = field(default_factory=list)
    picked_up_s: float = float("inf")
    seconds: dict[str, float] = field(default_factory=dict)  # step -> wall time


class Service:
    """`lcm serve` as a process, and questions to it."""

    def __init__(self, home: Path, environment: dict[str, str]):
        self._log = home / "service.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "lcm", "serve", "--port", "0"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        self.address = f"http://127.0.0.1:{self._wait(lambda: self._port(), 60)}"
        self._wait(lambda: json.loads(self._get("/healthz"))["ready"], 60)

    def contribute(self, image: LabelledImage, caption: str) -> None:
        self._post("/caption", {"image": _text(image.path), "caption": caption, "fileType": image.path.suffix[1:]})

    def describe(self, image: LabelledImage) -> tuple[str, str, str]:
        """Return caption, model and source."""
        headers, answer = self._post("/learning-model", {"image": _text(image.path)})
        return answer["captions"][0], headers["X-LCM-Model"], headers["X-LCM-Source"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _port(self) -> str | None:
        found = re.search(r"serving on \S+:(\d+)", self._log.read_text(errors="replace"))
        return found and found[1]

    def _get(self, route: str) -> bytes:
        with HERE.open(self.address + route, timeout=60) as reply:
            return reply.read()

    def _post(self, route: str, body: dict) -> tuple[Mapping[str, str], dict]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.address + route, data, {"Content-Type": "application/json"})
        with HERE.open(request, timeout=60) as reply:
            return reply.headers, json.loads(reply.read())

    @staticmethod
    def _wait(condition, seconds: float):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := condition():
                return found
            time.sleep(0.1)
        raise TimeoutError("the service does not come up")


class Visitor(threading.Thread):
    """Asks the service all the while, and notes who answered."""

    def __init__(self, service: Service, image: LabelledImage, shown: Shown):
        super().__init__(daemon=True)
        self._service, self._image, self._shown, self.done = service, image, shown, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.5):
            try:
                _, model, _ = self._service.describe(self._image)
                self._shown.versions[model] += 1
            except Exception as error:
                self._shown.failures.append(f"{type(error).__name__}: {error}")


def show(data: str = "", home: Path | None = None, say: Callable[[str], None] = print) -> Shown:
    """Go once around the loop; `data` is the folder of the data set that the shipped model knows, empty: scenes."""
    home = home or Path(tempfile.mkdtemp(prefix="lcm-loop-"))
    shown, loop = Shown(), Loop(home, os.environ | {"LCM_HOME": str(home)}, say)
    if data:
        scenes, retraining = (
            plan_scenes(CONTRIBUTED + UNSEEN, SEED),
            ("retrain", "-p", "data_dir", str(Path(data).resolve())),
        )
    else:
        base = str(draw_base(home / "scenes"))
        scenes = [scene for scene in plan_scenes(ALL_SCENES, SEED) if scene.place == NEW_PLACE]
        steps = "01_prepare 02_train 03_evaluate 04_compare 06_publish"
        retraining = (own_preset(home, "retrain-merge", steps, data_dir=base, **SENT, **FAST),)
        with loop.step("a first model, which has never seen the night"):
            preset = own_preset(home, "first", "01_prepare 02_train", data_dir=base)
            loop.lcm("run", "--params", preset, "--out", str(home / "first"))
            loop.lcm("models", "publish", str(home / "first" / "bundle"), "--promote")
    images = draw(home / "new", scenes[: CONTRIBUTED + UNSEEN])
    unseen = images[CONTRIBUTED:]
    contributed = [(image, image.captions[0]) for image in images[:CONTRIBUTED]]
    service = Service(home, loop.environment)
    visitor = Visitor(service, unseen[0], shown)
    try:
        shown.before = loop.measure(service, unseen)
        visitor.start()
        with loop.step(f"{CONTRIBUTED} contributions over HTTP"):
            for image, caption in contributed:
                service.contribute(image, caption)
        shown.learned_at_once = loop.ask_again(service, contributed)
        with loop.step("retraining"):
            loop.lcm("run", "--params", *retraining, "--out", str(home / "retrained"))
        shown.metrics = json.loads((home / "retrained/metrics.json").read_text())
        shown.picked_up_s = loop.wait_for(shown)
        shown.after = loop.measure(service, unseen)
    finally:
        visitor.done.set()
        service.stop()
    shown.seconds = loop.seconds
    report(shown, say)
    return shown


@dataclass
class Loop:
    """What is done beside the service."""

    home: Path
    environment: dict[str, str]
    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)  # step -> wall time

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.say(f"{name}: {self.seconds[name]:.0f} s")

    def lcm(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "lcm", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"lcm {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")

    def measure(self, service: Service, images: Sequence[LabelledImage]) -> dict[str, float]:
        """Return the scores of what the service says about images that it was never sent."""
        captions = [service.describe(image)[0] for image in images]
        scores = score(captions, [image.captions for image in images], meteor=False)
        self.say(f"unseen images of the new kind: CIDEr {scores.cider:.3f}, WER {scores.wer:.3f}; {captions[:3]}")
        return {"cider": scores.cider, "wer": scores.wer}

    def ask_again(self, service: Service, contributed: Sequence[tuple[LabelledImage, str]]) -> int:
        """Return how many of some contributed images get their own caption now."""
        asked = contributed[:: len(contributed) // ASKED_AGAIN][:ASKED_AGAIN]
        answers = [service.describe(image) for image, _ in asked]
        learned = sum(
            (caption, source) == (sent, "contribution")
            for (_, sent), (caption, _, source) in zip(asked, answers, strict=True)
        )
        self.say(f"learned at once: {learned} of {len(asked)} contributed images get their caption")
        return learned

    def wait_for(self, shown: Shown) -> float:
        """Return after how many seconds the service answers with what was published; infinity when it does not."""
        started, name = time.monotonic(), shown.metrics.get("bundle")
        while time.monotonic() - started < 4 * PICKED_UP_S:
            if shown.metrics.get("published_version") and shown.versions[name]:
                return time.monotonic() - started
            time.sleep(0.05)
        return float("inf")


def draw(folder: Path, scenes: Sequence[Scene]) -> list[LabelledImage]:
    """Return pictures of scenes, with the first of their five captions: of one that all would choose, WER says most."""
    folder.mkdir(parents=True)
    images = []
    for number, scene in enumerate(scenes):
        path = folder / f"{folder.name}{number:03}.jpg"
        draw_scene(**asdict(scene), random=Random(f"{folder.name}{number}")).save(path, quality=90)
        images.append(LabelledImage(path.name, path, "", tuple(write_captions(scene)[:1])))
    return images


def draw_base(folder: Path) -> Path:
    """Return the folder of a data set whose scenes are in any place but the new one; dev holds others than train."""
    scenes = [scene for scene in plan_scenes(ALL_SCENES, SEED) if scene.place != NEW_PLACE]
    lines = ["image\tcaption"]
    for split, count in BASE.items():
        images = draw(
            folder / split, [scene for scene in scenes if (scene.split == "train") == (split == "train")][:count]
        )
        lines += [f"{image.path.name}\t{caption}" for image in images for caption in image.captions]
        (folder / f"{split}Images.txt").write_text("".join(f"{image.path.name}\n" for image in images))
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


def own_preset(home: Path, name: str, notebooks: str, **parameters) -> str:
    """Return the path of a preset of one's own."""
    path = home / f"{name}.yaml"
    path.write_text(json.dumps({"notebooks": notebooks.split(), "parameters": MERGE | parameters}))
    return str(path)


def report(shown: Shown, say: Callable[[str], None]) -> None:
    """Say what the gate said and what visitors saw."""
    metrics = shown.metrics
    for part in ("base", "contributed"):
        numbers = [
            metrics.get(f"gate_{part}_{metric}_{model}") for metric in ("cider", "wer") for model in ("current", "new")
        ]
        say("{}, held out: CIDEr {:.3f} -> {:.3f}, WER {:.3f} -> {:.3f}".format(part, *numbers))
    say(f"gate {metrics.get('gate')}: {metrics.get('gate_reason')}")
    say(f"answers by model: {dict(shown.versions)}, failed: {len(shown.failures)}")
    say(f"the new model answered {shown.picked_up_s:.1f} s after the run's end")


def _text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="", help="folder of the data set that the shipped model knows")
    parser.add_argument(
        "--home", type=Path, help="folder of the demonstration, which must not be there (default: a new one)"
    )
    asked = parser.parse_args()
    show(asked.data, asked.home)
