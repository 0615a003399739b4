"""Captioners at work, for a comparison: each in a process of its own, so that time and memory are its own.

Knows how captioners are named in a comparison, how they are run and timed, and what becomes of one that cannot run.
Refuses to know scores.

A photo is timed as a user waits for it: from its file to its caption, alone, all cores, nothing but captioning (no
other captions, no tags beyond those of the caption), after WARM_UP photos that are not counted. For its scores it gets
the features that 01_prepare has encoded, where it has the same encoder.
"""

import json
import multiprocessing
import re
import resource
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm import tqdm

from lcm.captioning.captioners import bundle_folder, load_captioner
from lcm.captioning.describing import Captioner, SeeingCaptioner, SeenImage
from lcm.captioning.model_card import add_comparison
from lcm.captioning.versions import current_folder, models_folder
from lcm.config import CompareConfig
from lcm.data.captions import Dataset, LabelledImage
from lcm.encoding.features import FeatureCache
from lcm.errors import BadImageError, ConfigError, LcmError
from lcm.evaluation.captioner_result import CaptionerOutput
from lcm.evaluation.comparison import Comparison
from lcm.evaluation.pages import evenly
from lcm.retraining.contributed import is_contributed
from lcm.run_folder import RunFolder

WARM_UP = 3  # photos before the clock counts
DIED = "its process ended before its time, mostly for want of memory; what it said last is in the run's notebook"


@dataclass(frozen=True)
class Ran:
    """What came of running captioners."""

    images: Sequence[LabelledImage]  # that were captioned
    outputs: Sequence[CaptionerOutput]  # in the order asked
    not_run: Mapping[str, str] = field(default_factory=dict)  # name -> why it has no output

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions that people wrote, image by image."""
        return [image.captions for image in self.images]


def held_out_images(dataset: Dataset, split: str) -> list[LabelledImage]:
    """Return the images of a split, and the contributed ones that test, whatever the split is."""
    contributed = [image for image in dataset.of("test") if is_contributed(image)]
    return [image for image in dataset.of(split) if not is_contributed(image)] + contributed


def choose_images(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """Return `count` of the images, evenly spaced; all with 0."""
    return [images[place] for place in evenly(count or len(images), len(images))]


def parse_captioners(text: str, run_dir: str) -> dict[str, str]:
    """Return name -> captioner as load_captioner takes it, from "NAME=CAPTIONER, CAPTIONER, …".

    Without a name, a captioner is its own. In the run of `run_dir`, `trained` is the bundle that it has trained, and
    `nearest` alone searches its train images; `current` is the published version that answers.
    Raises ConfigError when there is none, or two have one name.
    """
    own = {
        "trained": f"bundle:{RunFolder(Path(run_dir)).bundle}",
        "current": f"bundle:{current_folder(models_folder())}",
        "nearest": f"nearest:{run_dir}",
    }
    named: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, spec = (side.strip() for side in (part.partition("=") if "=" in part else (part, "", part)))
        if not (name and spec):
            raise ConfigError(f"captioners holds {part!r}; write NAME=CAPTIONER, such as mine=reports/runs/mine/bundle")
        if name in named:
            raise ConfigError(f"captioners holds {name!r} twice; give each a name of its own: NAME=CAPTIONER")
        named[name] = own.get(spec, spec)
    if not named:
        raise ConfigError("captioners is empty; name at least one, such as trained, nearest or blip")
    return named


def run_captioners(captioners: Mapping[str, str], images: Sequence[LabelledImage], timed: int) -> Ran:
    """Caption the images with each captioner, and time each on the first `timed` of them.

    One that cannot be loaded, or dies, is left out, with the reason. A photo that a captioner cannot read has an empty
    caption. Raises ConfigError when no captioner is left.
    """
    photos, outputs, not_run = [image.path for image in images], [], {}
    for name, spec in captioners.items():
        try:
            outputs.append(_run(name, spec, photos, timed))
        except LcmError as error:
            not_run[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not outputs:
        raise ConfigError(
            "none of the captioners could be run:\n" + "\n".join(f"{n}: {why}" for n, why in not_run.items())
        )
    return Ran(images, outputs, not_run)


def update_cards(captioners: Mapping[str, str], comparison: Comparison, split: str) -> list[Path]:
    """Write each compared bundle's own numbers into its model card; returns the bundles' folders.

    One that was measured on another split, or on none, is left as it is: its card holds for one split.
    """
    results = {result.name: result for result in comparison.results}
    folders = {name: bundle_folder(spec) for name, spec in captioners.items() if name in results}
    return [
        folder
        for name, folder in folders.items()
        if folder and add_comparison(folder, results[name].as_metrics(), split)
    ]


def save_record(comparison: Comparison, data: str, split: str, path: Path) -> None:
    """Write all numbers, no caption and no image, as JSON that may be published."""
    record = {"data": data, "split": split} | comparison.as_record()
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def command(config: CompareConfig) -> str:
    """Return how to run the comparison again, as one types it."""
    defaults = {field.name: field.default for field in fields(config)}
    changed = {name: value for name, value in asdict(config).items() if name != "run_dir" and value != defaults[name]}
    return " ".join(
        ["lcm run --params compare", *(f"-p {name} {shlex.quote(str(value))}" for name, value in changed.items())]
    )


def _run(name: str, spec: str, photos: Sequence[Path], timed: int) -> CaptionerOutput:
    """Run one captioner in a process of its own; raises LcmError with what it said when it could not."""
    context = multiprocessing.get_context("spawn")  # a forked copy would hold this process's memory, and its threads
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, spec, list(photos), timed), daemon=True)
    process.start()
    theirs.close()
    with closing(ours), tqdm(total=len(photos), desc=name, unit=" photos", mininterval=1) as progress:
        captions, rest = [], None
        for kind, value in _received(ours):
            if kind == "caption":
                captions.append(value)
                progress.update()
            elif kind == "error":
                raise LcmError(value)
            else:
                rest = value
    process.join()
    if rest is None:
        raise LcmError(DIED)
    its_name, seconds, peak = rest
    return CaptionerOutput(name, captions, seconds, peak, "" if its_name == name else its_name)


def _received(connection: Connection) -> Iterator[tuple]:
    """Yield what the other process sends until it ends."""
    while True:
        try:
            yield connection.recv()
        except EOFError:
            return


def _work(connection: Connection, spec: str, photos: list[Path], timed: int) -> None:
    """Caption all photos and send each caption, then name, seconds of each timed photo, and peak memory in MB."""
    try:
        captioner = load_captioner(spec)
        seconds = []
        for place, photo in enumerate([*photos[:WARM_UP], *photos[:timed]]):
            started = time.perf_counter()
            next(captioner.describe_many([photo], samples=0))
            if place >= len(photos[:WARM_UP]):
                seconds.append(time.perf_counter() - started)
        for _photo, description in captioner.describe_many(_encoded(captioner, photos), samples=0, workers=0):
            connection.send(("caption", "" if isinstance(description, BadImageError) else description.caption))
        connection.send(("done", (captioner.name, seconds, _peak_memory_mb())))
    except LcmError as error:
        connection.send(("error", str(error)))


def _encoded(captioner: Captioner, photos: Sequence[Path]) -> Iterator[Path | SeenImage]:
    """Yield the photos, each with the features that 01_prepare has encoded for this captioner, if it has."""
    cache = FeatureCache(captioner.encoder, captioner.feature_kinds) if isinstance(captioner, SeeingCaptioner) else None
    for photo in photos:
        features = cache.find(photo) if cache else None
        yield photo if features is None else SeenImage(photo, None, features)


def _peak_memory_mb() -> float:
    """Return the most memory that this process has held, in MB of 10**6 bytes.

    Not ru_maxrss where /proc is: on Linux, a new process begins with that of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        return int(peak) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
