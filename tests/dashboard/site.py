"""What the dashboard's tests share: pictures, ports, and Voila as `make dashboard` starts it."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30  # for whatever the page does; it takes three


@dataclass(frozen=True)
class Site:
    """A dashboard that is served."""

    address: str
    log: Path  # of Voila


def picture(colour: str = "red", side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def site(folder: Path, settings: Mapping[str, str], options: str = "") -> Iterator[Site]:
    """Serve the dashboard by `make dashboard`, with the reports that lie in `folder`, else those of the clone."""
    (folder / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "dashboard.ipynb", folder / "notebooks")
    for name in ("Makefile", "pyproject.toml", "lcm", "reports"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LCM_")} | settings
    environment["PYTHONPATH"] = str(ROOT)
    setup = f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.lcm-ready"  # what runs the tests is what it would install
    command = ["make", "dashboard", *setup, f"ARGS=--no-browser --port={port} {options}"]
    log, address = folder / "voila.log", f"http://127.0.0.1:{port}/"
    with log.open("w") as file:
        started = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(f"{address}voila/static/voila.js", started, log)
        yield Site(address, log)
    finally:
        started.terminate()  # make hands it on
        started.wait(SECONDS)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers, whatever it says."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())
