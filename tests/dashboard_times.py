"""Measure how long the dashboard takes: `python tests/dashboard_times.py [ROUNDS]`; no test.

Two times, medians of ROUNDS (10): from the request to a page that can be used, with Voila's preheated kernel and
without; from a dropped photo to its caption, with tags and without. Each pair alternates, round by round. The page
answers itself, with the shipped model; browser, Voila and model share this machine, and the browser caches nothing.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from lcm.captioning.captioner import load_captioner
from lcm.paths import cache_dir
from tests.dashboard_site import ROOT, SECONDS, Site, chromium, enter, new_page, said, site

PHOTOS = sorted((ROOT / "reports" / "examples").glob("*.jpg"))
FILLED = "is filled with"  # what Voila logs once a kernel waits for the next visitor


def wait_for_kernel(one: Site, count: int) -> None:
    """Wait until Voila has preheated so many kernels."""
    end = time.monotonic() + SECONDS
    while one.log.read_text().count(FILLED) < count:
        assert time.monotonic() < end, one.log.read_text()
        time.sleep(0.1)
    time.sleep(2)  # the notebook's cell runs after the kernel is there


def visit_s(browser: Any, one: Site) -> float:
    """Return the seconds from the request to a page that can be used."""
    page, started = new_page(browser), time.perf_counter()
    enter(page, one.address)
    taken = time.perf_counter() - started
    page.context.close()
    return taken


def drop_s(page: Any, photo: Path) -> float:
    """Return the seconds from a photo to its caption on the page."""
    page.evaluate("document.querySelector('.status span').textContent = ''")
    started = time.perf_counter()
    page.set_input_files(".drop input", photo)
    said(page, f"{photo.name}: ")
    return time.perf_counter() - started


def show(what: str, seconds: list[float]) -> None:
    print(f"| {what} | {median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |", flush=True)


def main(rounds: int) -> None:
    load_captioner()  # makes the encoder before anything is timed, if it is the first time
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        base, own = Path(name), {"LCM_CACHE": str(cache_dir())}
        homes = [own | {"LCM_HOME": str(base / home)} for home in "ab"]
        off = "--preheat_kernel=False"
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {rounds} rounds\n")
        print("| | median s | least | most |\n|---|---|---|---|")
        with site(base / "heated", homes[0]) as heated, site(base / "cold", homes[0], off) as cold:
            times: dict[str, list[float]] = {"with": [], "without": []}
            for number in range(1, rounds + 1):
                wait_for_kernel(heated, number)
                times["with"].append(visit_s(browser, heated))
                times["without"].append(visit_s(browser, cold))
        for how, seconds in times.items():
            show(f"request to usable page, {how} a preheated kernel", seconds)
        untagged = homes[1] | {"LCM_TAGGER": "none"}
        with site(base / "tags", homes[1]) as tags, site(base / "none", untagged) as none:
            pages = [enter(new_page(browser), one.address) for one in (tags, none)]
            first = [drop_s(page, PHOTOS[0]) for page in pages]
            drops = [[drop_s(page, PHOTOS[number % len(PHOTOS)]) for page in pages] for number in range(1, rounds + 1)]
        for how, place in (("with", 0), ("without", 1)):
            show(f"drop to caption, {how} tags", [each[place] for each in drops])
            show(f"the first drop of a visitor, {how} tags", [first[place]])
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
