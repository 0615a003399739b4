"""What the dashboard's tests share: pictures, ports, and Voila as `make dashboard` starts it."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.fakes.service_process import ROOT, answers, free_port, wait_until

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
        wait_until(lambda: started.poll() is not None or answers(port, "/voila/static/voila.js"), SECONDS)
        assert started.poll() is None, log.read_text()
        yield Site(address, log)
    finally:
        started.terminate()  # make hands it on
        started.wait(SECONDS)
