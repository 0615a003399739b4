"""What the program answers, frozen as golden files, so that a change to an answer is seen and can be named.

    python tests/frozen/frozen.py write|check [answers] [refusals] [sample] [comparison]

`check` prints every difference and exits with 1 where there is any; `write` makes the golden files anew. Only public
entry points are used: the command line, `load_captioner`, `create_app` and HTTP. The model is the shipped bundle. Left
out of the golden files are times, peak memory and the version of the bundle that a run has trained.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path[:0] = [str(ROOT), str(FOLDER)]
DATA = Path(os.environ.get("LCM_HOME") or ROOT / "data")
FLICKR8K = Path(os.environ.get("LCM_FLICKR8K") or ROOT.parent / "shared" / "flickr8k")
OF_THIS_RUN = re.compile(r"(^|_)seconds_|_seconds$|_per_second$|^peak_memory|^bundle$|^\d\d_")


@contextlib.contextmanager
def only_shipped() -> Iterator[Path]:
    """Hide settings, published versions and contributions of this machine; yields the temporary state folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LCM_")}
    kept["LCM_CACHE"] = os.environ.get("LCM_CACHE") or str(DATA / "cache")
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, kept | {"LCM_HOME": home}, clear=True):
        yield Path(home)


def run(preset: str, out: Path, *parameters: str) -> Path:
    """Run a preset by the command line and return the folder of the run."""
    command = [sys.executable, "-m", "lcm", "run", "--params", preset, "--out", str(out)]
    for parameter in parameters:
        command += ["-p", *parameter.split("=", 1)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return out


def scenes() -> dict[str, Path]:
    """Return 60 generated scenes by name; makes the generated data set where it is missing (half a minute)."""
    folder = DATA / "raw" / "sample" / "images"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as temporary:
            preset = Path(temporary, "scenes.yaml")
            preset.write_text("notebooks: [01_prepare]\nparameters:\n  data_dir: sample\n")
            run(str(preset), Path(temporary, "scenes"))
    return {photo.name: photo for photo in sorted(folder.iterdir())[::20]}  # 1,200 in all


def flickr8k_photos() -> dict[str, Path]:
    """Return the first 200 photos of Flickr8k's dev split by name; none where the data set is missing."""
    if not FLICKR8K.is_dir():
        return {}
    names = sorted((FLICKR8K / "Flickr_8k.devImages.txt").read_text().split())[:200]
    return {name: FLICKR8K / "images" / name for name in names}


def answers(photos: dict[str, Path]) -> dict[str, Any]:
    """Return what the shipped bundle says of photos: {name: [caption, english captions, {tag: score}, confidence]}."""
    from lcm import load_captioner

    with only_shipped():
        captioner = load_captioner()
        said = {name: captioner.describe(photo) for name, photo in photos.items()}
    return {name: [one.caption, one.english_captions, dict(one.tags), one.confidence] for name, one in said.items()}


def refusals() -> dict[str, Any]:
    """Return the status and the body of every refusal of the service: {"row.number route": [status, body]}."""
    from refusal_cases import TOKEN, requests

    from lcm import load_captioner
    from serve import create_app

    found: dict[str, Any] = {}
    with only_shipped():
        captioner = load_captioner()
        open_service = create_app(captioner=captioner).test_client()
        os.environ["LCM_TOKEN"] = TOKEN
        guarded = create_app(captioner=captioner).test_client()
        for row, method, path, data, headers in requests():
            client = guarded if row == "C24" else open_service
            reply = client.open(path, method=method, data=data, headers=headers)
            number = sum(case.startswith(row) and case.endswith(path) for case in found) + 1
            found[f"{row}.{number} {path}"] = [reply.status_code, reply.text]
    return found


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without what every run has anew."""
    kept = {key: value for key, value in record.items() if not OF_THIS_RUN.search(key)}
    return {key: without_times(value) if isinstance(value, dict) else value for key, value in kept.items()}


def fresh_run(preset: str, file: str, *parameters: str) -> dict[str, Any]:
    """Return a JSON file of a run that shares no cache and no state with any other."""
    with only_shipped() as home:
        del os.environ["LCM_CACHE"]
        return without_times(json.loads((run(preset, home / "runs" / preset, *parameters) / file).read_text()))


COMPARED = ("data_dir=sample", "captioners=shipped=bundle, nearest", "timed_photos=1")
PARTS = {  # part -> golden file -> what makes its content
    "answers": {"scenes": lambda: answers(scenes()), "flickr8k": lambda: answers(flickr8k_photos())},
    "refusals": {"refusals": refusals},
    "sample": {"sample": lambda: fresh_run("sample", "metrics.json")},
    "comparison": {"comparison": lambda: fresh_run("compare", "comparison.json", *COMPARED)},
}


def golden(name: str) -> dict[str, Any]:
    """Return what a golden file holds."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """Yield each difference of two JSON values with its place."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if list(expected) != list(found) and set(expected) == set(found):
            yield f"{place}: other order: {list(expected)} -> {list(found)}"
        for key in expected | found:
            yield from differences(expected.get(key, "(missing)"), found.get(key, "(missing)"), f"{place}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif expected != found:
        yield f"{place}: {json.dumps(expected)} -> {json.dumps(found)}"


def main() -> int:
    """Write or check golden files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("verb", choices=("write", "check"))
    parser.add_argument("parts", nargs="*", choices=PARTS, default=[*PARTS], metavar="part", help=", ".join(PARTS))
    options = parser.parse_args()
    differing = 0
    for name, make in ((name, make) for part in options.parts for name, make in PARTS[part].items()):
        start = time.monotonic()
        found = json.loads(json.dumps(make()))
        if not found:
            print(f"{name}: skipped, its photos are missing; set LCM_FLICKR8K to their folder")
            continue
        if options.verb == "write":
            lines = (f"{json.dumps(key)}:{json.dumps(one, separators=(',', ':'))}" for key, one in found.items())
            (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")  # a line a key, for diffs
        lines = list(differences(golden(name), found))
        print(*(name + line for line in lines), sep="\n", end="\n" * bool(lines))
        print(f"{name}: {len(found)} entries, {len(lines)} differences, {time.monotonic() - start:.0f} s", flush=True)
        differing += len(lines)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
