"""Growth: what an image costs among a thousand, ten thousand and a hundred thousand.

Data sets of any size are generated and prepared (read, hashed, kept; the network itself is left out, for it takes the
same for each), turned into batches and trained on, and scored. Each part runs in its own process:
`python -m benchmarks.growth PART IMAGES FOLDER` does one and reports seconds and memory.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.common import number, report, run_module, table
from lcm.data.dataset import Dataset, LabelledImage, read_dataset
from lcm.data.text import Vocabulary, build_vocabulary
from lcm.features.cache import LabelledFeatures, PreparedRun, encode_dataset
from lcm.features.encoders import ENCODERS, EncoderIdentity
from lcm.paths import RunDir

WORDS = 2000  # different ones in the captions
CAPTIONS = 5  # of each image
LENGTHS = (6, 16)  # words of a caption, from and to below
SIDE = 8  # pixels of a picture: as little decoding as may be
TRAIN_STEPS = 40
STEP_CAPTIONS = 128


def section(sizes: Sequence[int]) -> str:
    """Return the section of the report."""
    costs: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}  # ms an image, peak MB
    for images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for part in PARTS:
                ran = run_module("benchmarks.growth", part, str(images), folder)
                costs[part].append((1000 * ran.said["seconds"] / ran.said["counted"], ran.peak_mb))
    rows = [
        [
            part.replace("_", " "),
            *(f"{number(ms)} ({peak:.0f} MB)" for ms, peak in each),
            f"{each[-1][0] / each[0][0] - 1:+.0%}",
        ]
        for part, each in costs.items()
    ]
    headings = ["ms an image (peak memory)", *(f"{size:,} images" for size in sizes), "last against first"]
    text = "Each part in its own process, on generated data; the network that encodes is left out."
    return f"## Growth\n\n{text}\n\n{table(headings, rows)}"


class NoNetwork:
    """In the encoder's place: features that cost nothing."""

    spec = ENCODERS["efficientnet_lite2"]
    identity = EncoderIdentity("efficientnet_lite2", "random", "0" * 64, ())
    square = spec.size

    def encode(self, images: np.ndarray, kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """Return zeros."""
        return {kind: np.zeros((len(images), self.spec.width), np.float32) for kind in kinds}


def make_captions(images: int) -> list[tuple[str, ...]]:
    """Return the captions of some images; words are as unequally frequent as in a language."""
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, WORDS + 1)
    lengths = random.integers(*LENGTHS, (images, CAPTIONS))
    drawn = iter(random.choice(WORDS, int(lengths.sum()), p=share / share.sum()).tolist())
    letters = str.maketrans("0123456789", "abcdefghij")  # digits do not count as words
    words = [f"word{number}".translate(letters) for number in range(WORDS)]
    return [tuple(" ".join(words[one] for one in islice(drawn, length)) for length in each) for each in lengths]


def prepare(images: int, folder: Path) -> tuple[int, Callable[[], None]]:
    """Write a data set of different small pictures; return its size and what 01_prepare does with it."""
    from PIL import Image

    (folder / "photos").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    lines = ["image,caption"]
    for place, captions in enumerate(make_captions(images)):
        Image.fromarray(noise[place]).save(folder / "photos" / f"{place:06}.png")
        lines += [f"{place:06}.png,{caption}" for caption in captions]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    return prepare_again(images, folder)


def prepare_again(images: int, folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the same where, after a first time, everything is in the cache already."""

    def work() -> None:
        dataset = read_dataset(folder)
        encoded = encode_dataset(dataset, NoNetwork())
        words = build_vocabulary(dataset.captions_of("train"), 5)
        PreparedRun(dataset.without(encoded.unreadable), words, encoded).save(RunDir.at(folder / "run"))
        PreparedRun.load(RunDir.at(folder / "run")).labelled_features("train", "pooled")

    return images, work


def train(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the making of the captions' batches and some steps on them; counted are the images of those steps."""
    from lcm.config import TrainConfig
    from lcm.models import build_model
    from lcm.training.batches import CaptionBatches
    from lcm.training.loop import Supervised

    labelled, vocabulary = _labelled(images)
    model = build_model("merge", labelled.shape, np.zeros((len(vocabulary), 50), np.float32), seed=0)
    batches = CaptionBatches(labelled, vocabulary, STEP_CAPTIONS)
    trainer = Supervised(model, batches, batches, lambda: None, TrainConfig(run_dir="", epochs=1000))
    for length in batches.buckets:
        trainer.step(*next(batch for batch in batches.epoch(0, 0) if batch.inputs.shape[-1] == length))

    def work() -> None:
        for each in islice(batches.epoch(0, 1), TRAIN_STEPS):
            float(trainer.step(*each))

    return min(TRAIN_STEPS * STEP_CAPTIONS // CAPTIONS, images), work


def evaluate(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the scoring of a caption an image against five, with an interval; METEOR's Java is left out."""
    from lcm.evaluation.bootstrap import bootstrap_mean
    from lcm.evaluation.metrics import score

    references = make_captions(images)
    hypotheses = [references[place - 1][0] for place in range(images)]  # the captions of the image before
    return images, lambda: bootstrap_mean(score(hypotheses, references, meteor=False).per_image["cider"])


PARTS = {one.__name__: one for one in (prepare, prepare_again, train, evaluate)}


def _labelled(images: int) -> tuple[LabelledFeatures, Vocabulary]:
    """Return images with features that are zeros, all in one row: memory then tells what the rest takes."""
    labelled = [LabelledImage(str(at), Path(), "train", texts) for at, texts in enumerate(make_captions(images))]
    vocabulary = build_vocabulary(Dataset(tuple(labelled)).captions_of("train"), 5)
    width = NoNetwork.spec.width
    return LabelledFeatures(labelled, np.zeros(images, np.int64), np.zeros((1, width), np.float32)), vocabulary


if __name__ == "__main__":
    name, count, where = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    os.environ["LCM_CACHE"] = str(where / "cache")
    counted, work = PARTS[name](count, where)
    started = time.perf_counter()
    work()
    report(seconds=time.perf_counter() - started, counted=counted)
