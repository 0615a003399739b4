"""Measure how well contributed images are found again: `python benchmarks/memory_report.py [IMAGES]`; no test.

Contributes IMAGES (all 6,000) train images of Flickr8k, then asks for each of them as it is, saved anew or resized in
one of the ways of altered.py, and cropped in another, and for the dev images. Before it, of BURSTS photos, every way in
which one is the same photo, and every next frame. Prints the tables of reports/memory.md.
"""

import gc
import hashlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import SeenImage
from lcm.contributions.duplicates import SIDE, Signatures, is_same
from lcm.features.cache import map_in_order
from tests.fakes.altered import CROPPED, NEXT, RESIZED, SAVED_ANEW, TOUCHED, alter, in_burst

FLICKR8K = Path(os.environ.get("LCM_FLICKR8K") or Path(__file__).resolve().parents[2] / "shared" / "flickr8k")
MANY = 100_000
BURSTS = 200


def names(split: str) -> list[str]:
    return (FLICKR8K / f"Flickr_8k.{split}Images.txt").read_text().split()


def read(name: str) -> bytes:
    return (FLICKR8K / "images" / name).read_bytes()


def looks(captioner, signatures, jobs):
    """Yield (way, name, hash of its own bytes, the images found as copies) for jobs (way, name), several at a time."""

    def work(part):
        for way, name in part:
            own = read(name)
            data = own if way == "the same bytes" else alter(own, way)
            yield way, name, hashlib.sha256(own).hexdigest(), signatures.copies(captioner.see(data))

    for part in map_in_order(lambda part: list(work(part)), jobs, 8):
        yield from part


def contribute(captioner, signatures, train) -> dict[str, str]:
    """Return the hash of each image's bytes -> its name, once all have their signature."""
    found = map_in_order(lambda part: [(name, captioner.see(read(name))) for name in part], train, 8)
    name_of = {}
    for name, seen in (one for part in found for one in part):
        image = hashlib.sha256(seen.source).hexdigest()
        name_of[image] = name
        signatures.add(image, seen)
    return name_of


def tell_bursts(captioner, count: int) -> None:
    """Print how many variants and next frames of photos have the looks of a copy, and how many are the same photo."""
    train = names("train")
    photos = [read(name) for name in train[:: len(train) // count][:count]]
    firsts = [in_burst(photo, "first") for photo in photos]
    print("\n| | asked | by looks | the same photo |\n|---|---|---|---|")
    spent = []
    for ways, originals in ((SAVED_ANEW | TOUCHED | RESIZED, photos), (CROPPED, photos), (NEXT, firsts)):
        signatures = Signatures(captioner.encoder)
        for place, data in enumerate(originals):
            signatures.add(str(place), captioner.see(data))

        total = np.zeros(2, int)
        for way in ways:
            counts = np.zeros(2, int)
            for place, (photo, original) in enumerate(zip(photos, originals, strict=True)):
                data = in_burst(photo, way, photos[place - 1], place) if ways is NEXT else alter(photo, way)
                found = str(place) in signatures.copies(captioner.see(data))
                started = time.perf_counter()
                is_its = is_same(data, original)
                spent.append(1000 * (time.perf_counter() - started))
                counts += found, found and is_its
            total += counts
            print(f"| {way} | {count} | {counts[0]} | {counts[1]} |", flush=True)
        print(f"| **all** | {count * len(ways):,} | {total[0]:,} | {total[1]:,} |", flush=True)
    print(f"\nwhether two files are the same photo: {np.median(spent):.1f} ms, 95 %: {np.quantile(spent, 0.95):.1f} ms")


def time_many(captioner) -> None:
    """Print how long a look takes, and how much memory it needs, among MANY images."""
    random = np.random.default_rng(0)
    width = len(captioner.see(read(names("dev")[0])).features["pooled"])
    pixels = random.integers(0, 256, (100, SIDE, SIDE, 3), np.uint8)
    gc.collect()
    before, signatures = resident_mb(), Signatures(captioner.encoder)
    for number in range(MANY):
        features = random.standard_normal(width).astype(np.float32) + 1
        signatures.add(f"{number:064x}", SeenImage(b"", pixels[number % 100], {"pooled": features}))
    print(f"\n{MANY:,} images: {resident_mb() - before:.0f} MB of memory")
    time_looks(captioner, signatures)


def resident_mb() -> float:
    """Return the memory that this process holds; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def time_looks(captioner, signatures: Signatures) -> None:
    asked = [captioner.see(read(name)) for name in names("dev")[:100]]
    print(f"a look: {timed(signatures.copies, asked)}")
    print(f"a description without it: {timed(lambda seen: captioner.describe(seen.source), asked[:30])}")


def timed(work: Callable[[SeenImage], object], images: list[SeenImage]) -> str:
    """Return how long `work` takes an image by the clock, and of all processors' time, which other programs do not."""
    clock, spent = [], []
    for seen in images:
        started, before = time.perf_counter(), time.process_time()
        work(seen)
        clock.append(1000 * (time.perf_counter() - started))
        spent.append(1000 * (time.process_time() - before))
    most = np.quantile(clock, 0.95)
    return f"{np.median(clock):.1f} ms (95 %: {most:.1f} ms), of processor time {np.median(spent):.1f} ms"


def time_contributions(captioner, signatures: Signatures) -> None:
    files = [SeenImage(read(name), np.empty(0), {}) for name in names("dev")[:50]]

    def sign(file: SeenImage) -> None:
        signatures.add(hashlib.sha256(file.source).hexdigest(), captioner.see(file.source))

    print(f"a signature: {timed(sign, files)}")


def main(count: int) -> None:
    train = names("train")
    train = train[:: max(1, len(train) // count)][:count]
    captioner = load_captioner(threads=1)
    tell_bursts(captioner, min(count, BURSTS))
    signatures = Signatures(captioner.encoder)
    name_of = contribute(captioner, signatures, train)
    print(f"{len(train):,} train images contributed, {len(name_of):,} different")
    kept, cropped = [*SAVED_ANEW, *RESIZED], list(CROPPED)
    jobs = [("the same bytes", name) for name in train]
    jobs += [(kept[place % len(kept)], name) for place, name in enumerate(train)]
    jobs += [(cropped[place % len(cropped)], name) for place, name in enumerate(train)]
    asked, found, wrong = defaultdict(int), defaultdict(int), defaultdict(set)
    for way, name, own, images in looks(captioner, signatures, jobs):
        asked[way] += 1
        found[way] += own in images
        wrong[way] |= {f"{name} as {name_of[image]}" for image in images if image != own}
    print("\n| | asked | found | others found |\n|---|---|---|---|")
    for way in asked:
        print(f"| {way} | {asked[way]:,} | {found[way] / asked[way]:.2%} | {len(wrong[way])} |")
    for label, ways in (("saved anew", SAVED_ANEW), ("resized", RESIZED), ("cropped", CROPPED)):
        total = sum(asked[way] for way in ways)
        print(f"{label}: {sum(found[way] for way in ways)} of {total}")
    print("others:", sorted(set().union(*wrong.values())))
    dev = [("the same bytes", name) for name in names("dev")[: max(count // 6, 50)]]
    false = [
        (name, [name_of[image] for image in images])
        for _, name, _, images in looks(captioner, signatures, dev)
        if images
    ]
    print(f"dev: {len(dev):,} images, taken for train images: {false}")
    print(f"\n{len(train):,} images:")
    time_looks(captioner, signatures)
    time_contributions(captioner, signatures)
    time_many(captioner)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6000)
