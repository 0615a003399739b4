"""Growth: what an image costs among a thousand, ten thousand and a hundred thousand.

Knows how to make data sets of any size and what is done with them: prepared (read, hashed, kept; the network itself is
left out, for it takes the same for each), turned into batches and trained on, scored. Refuses to know real data: only
the numbers of images, captions and features matter.

`python -m lcm.benchmark.growth PART IMAGES FOLDER` does one part and reports seconds and memory.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lcm.benchmark.process import report, run_python
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


@dataclass(frozen=True)
class Cost:
    """What a part took at one size."""

    images: int
    counted: int  # those that the seconds are for
    seconds: float
    peak_mb: float  # of the process

    @property
    def ms_per_image(self) -> float:
        """The time of one."""
        return 1000 * self.seconds / self.counted


class NoNetwork:
    """In the encoder's place: features that cost nothing."""

    def __init__(self):
        self.spec = ENCODERS["efficientnet_lite2"]
        self.identity = EncoderIdentity("efficientnet_lite2", "random", "0" * 64, ())

    def encode(self, images: np.ndarray, kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """Return zeros."""
        return {kind: np.zeros((len(images), self.spec.width), np.float32) for kind in kinds}


def sizes_up_to(largest: int) -> list[int]:
    """Return a hundredth and a tenth of a size, and itself."""
    return [max(largest // part, 2) for part in (100, 10, 1)]


def measure(sizes: Sequence[int]) -> dict[str, list[Cost]]:
    """Return part -> its cost at each size, each in a process of its own; what they make is thrown away."""
    costs: dict[str, list[Cost]] = {part: [] for part in PARTS}
    for images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for part in PARTS:
                ran = run_python("-m", "lcm.benchmark.growth", part, str(images), folder)
                costs[part].append(Cost(images, ran.said["counted"], ran.said["seconds"], ran.peak_mb))
    return costs


def make_captions(images: int) -> list[tuple[str, ...]]:
    """Return the captions of some images; words are as unequally frequent as in a language."""
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, WORDS + 1)
    lengths = random.integers(*LENGTHS, (images, CAPTIONS))
    drawn = iter(random.choice(WORDS, int(lengths.sum()), p=share / share.sum()).tolist())
    return [tuple(" ".join(f"word{_letters(one)}" for one in islice(drawn, length)) for length in of) for of in lengths]


def make_folder(images: int, folder: Path) -> None:
    """Write a data set of different small pictures with five captions each."""
    from PIL import Image

    (folder / "photos").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    lines = ["image,caption"]
    for number, captions in enumerate(make_captions(images)):
        Image.fromarray(noise[number]).save(folder / "photos" / f"{number:06}.png")
        lines += [f"{number:06}.png,{caption}" for caption in captions]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")


def prepare(images: int, folder: Path) -> tuple[int, Callable[[], None]]:
    """Make a data set; return its size and what 01_prepare does with it, but for the network."""
    make_folder(images, folder)
    return images, lambda: _prepare(folder)


def prepare_again(images: int, folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the same, where everything is in the cache already."""
    return images, lambda: _prepare(folder)


def train(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the making of the captions' batches and some steps on them; counted are the images of those steps."""
    from lcm.config import TrainConfig
    from lcm.models import build_model
    from lcm.training.batches import CaptionBatches
    from lcm.training.loop import Trainer

    labelled, vocabulary = _labelled(images)
    model = build_model("merge", labelled.shape, np.zeros((len(vocabulary), 50), np.float32), seed=0)
    trainer = Trainer(model, TrainConfig(run_dir=""), total_steps=10_000)
    batches = CaptionBatches(labelled, vocabulary, STEP_CAPTIONS)
    for length in batches.lengths:
        trainer.train(next(batch for batch in batches.epoch(0, 0) if batch.inputs.shape[-1] == length))

    def work() -> None:
        for batch in islice(batches.epoch(0, 1), TRAIN_STEPS):
            float(trainer.train(batch))

    return min(TRAIN_STEPS * STEP_CAPTIONS // CAPTIONS, images), work


def batch(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the making of an epoch's batches, features read among it, without training."""
    from lcm.training.batches import CaptionBatches

    labelled, vocabulary = _labelled(images)

    def work() -> None:
        for _ in CaptionBatches(labelled, vocabulary, STEP_CAPTIONS).epoch(0, 1):
            pass

    return images, work


def evaluate(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the scoring of a caption an image against five, METEOR's Java left out."""
    from lcm.evaluation.metrics import score

    references = make_captions(images)
    hypotheses = [references[place - 1][0] for place in range(images)]  # the captions of the image before
    return images, lambda: score(hypotheses, references, meteor=False)


def bootstrap(images: int, _folder: Path) -> tuple[int, Callable[[], None]]:
    """Return the intervals of a mean and of BLEU-4 over the images."""
    from lcm.evaluation.bootstrap import bootstrap_mean, bootstrap_statistic
    from lcm.evaluation.metrics import bleu_4

    counts = np.random.default_rng(0).integers(1, max(LENGTHS), (images, 10)).astype(np.float64)

    def work() -> None:
        bootstrap_mean(counts[:, 0])
        bootstrap_statistic(counts, bleu_4)

    return images, work


PARTS = {one.__name__: one for one in (prepare, prepare_again, batch, train, evaluate, bootstrap)}


def _prepare(folder: Path) -> None:
    dataset = read_dataset(folder)
    encoded = encode_dataset(dataset, NoNetwork())
    words = build_vocabulary(dataset.captions_of("train"), 5)
    PreparedRun(dataset.without(encoded.unreadable), words, encoded).save(RunDir.at(folder / "run"))
    PreparedRun.load(RunDir.at(folder / "run")).labelled_features("train", "pooled")


def _labelled(images: int) -> tuple[LabelledFeatures, Vocabulary]:
    """Return images with features that are zeros, all in one row: memory then tells what the rest takes."""
    labelled = [LabelledImage(str(at), Path(), "train", texts) for at, texts in enumerate(make_captions(images))]
    vocabulary = build_vocabulary(Dataset(tuple(labelled)).captions_of("train"), 5)
    width = ENCODERS["efficientnet_lite2"].width
    return LabelledFeatures(labelled, np.zeros(images, np.int64), np.zeros((1, width), np.float32)), vocabulary


def _letters(number: int) -> str:
    """Return a number in letters, for words of digits are none."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


if __name__ == "__main__":
    part, images, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    os.environ["LCM_CACHE"] = str(folder / "cache")
    counted, work = PARTS[part](images, folder)
    started = time.perf_counter()
    work()
    report(seconds=time.perf_counter() - started, counted=counted)
