"""BLIP against transformers itself, on a tiny one made here; the nearest neighbour on a run of the tiny encoder."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import Description
from lcm.captioning.peers import BlipCaptioner, NearestCaptioner
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.images import read_image
from lcm.data.text import RESERVED, Vocabulary
from lcm.errors import BadImageError, BundleError, DataError
from lcm.features.cache import PreparedRun, encode_dataset
from lcm.features.encoders import load_encoder
from lcm.paths import RunDir
from tests.fakes.tiny_blip import PROMPT, SIDE, make_blip
from tests.fakes.tiny_graphs import make_picture, use_tiny_encoder
from tests.fakes.tiny_towers import make_towers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_blip(tmp_path_factory.mktemp("blip") / "tiny")


@pytest.fixture(scope="module")
def captioner(folder) -> BlipCaptioner:
    return BlipCaptioner(str(folder))


def noise(seed: int, width: int = 60, height: int = 40) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [noise(seed) for seed in range(6)]


class Reference:
    """BLIP as transformers has it, without lcm's prompt."""

    def __init__(self, folder: Path):
        import transformers

        self.model = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()
        self.tokenizer = transformers.BertTokenizer.from_pretrained(folder)

    def pixels(self, picture: bytes):
        """The whole picture, squeezed into a square, bicubic; the mean and deviation of predict.py."""
        import torch

        small = Image.open(io.BytesIO(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        pixels = (np.asarray(small, np.float32) / 255 - np.float32(mean)) / np.float32(deviation)
        return torch.tensor(pixels).permute(2, 0, 1)[None]

    def search(self, picture: bytes, beams: int = 3) -> list[int]:
        """The ids that BLIP's own call gives; `generate` puts the start word first and takes the last one off."""
        import torch

        asked = torch.tensor([[0, *PROMPT[1:], 0]])
        limits = {"max_length": 20, "min_length": 5, "num_beams": beams}
        (written,) = self.model.generate(self.pixels(picture), input_ids=asked, **limits).tolist()
        assert written[: len(PROMPT)] == PROMPT
        return written[len(PROMPT) :]

    def text(self, ids: list[int]) -> str:
        """The words, with what the tokenizer parts put together."""
        words = self.tokenizer.decode(ids, skip_special_tokens=True)
        for sign in "'-":
            words = words.replace(f" {sign} ", sign).replace(f" {sign}", sign).replace(f"{sign} ", sign)
        return " ".join(words.split())


@pytest.fixture(scope="module")
def reference(folder) -> Reference:
    return Reference(folder)


def plain(text: str) -> str:
    """Words alone: what lcm drops at the ends of words is not the point of a test."""
    return " ".join(text.translate(str.maketrans("'-#", "   ")).split())


def test_the_caption_is_that_of_blip_s_own_beam_search(captioner, reference):
    captions = [captioner.describe(picture, 0).caption for picture in PICTURES]
    found = [reference.search(picture) for picture in PICTURES]
    assert [plain(caption) for caption in captions] == [plain(reference.text(ids)) for ids in found]
    assert len(set(captions)) > 4, "the pictures must differ for this to mean anything"
    assert found != [reference.search(picture, beams=1) for picture in PICTURES], "so must a beam and none"
    assert found != [reference.search(picture, beams=5) for picture in PICTURES]


def test_many_images_get_what_each_gets_alone(captioner, folder, tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    images = [b"", *PICTURES[:2], tmp_path / "bad.png", PICTURES[0]]
    seen, found = zip(*captioner.describe_many(images, workers=2), strict=True)
    assert list(seen) == images
    assert all(isinstance(found[place], BadImageError) for place in (0, 3))
    assert "bad.png" in str(found[3])
    assert [found[1], found[2], found[4]] == [captioner.describe(images[place]) for place in (1, 2, 4)]
    assert found[1] == Description(found[1].caption, (found[1].caption,), (), "blip:tiny")
    monkeypatch.chdir(folder)
    assert BlipCaptioner(".").name == "blip:tiny"


def test_blip_and_clip_read_every_kind_of_source(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    captioner = BlipCaptioner(str(folder), str(make_towers(tmp_path / "clip", "clip")))
    (tmp_path / "photo.png").write_bytes(PICTURES[0])
    expected = captioner.describe(PICTURES[0], labels=["a dog", "a cat"])
    assert len(expected.tags) == 2
    with Image.open(tmp_path / "photo.png") as picture:
        for source in (tmp_path / "photo.png", io.BytesIO(PICTURES[0]), picture, np.array(picture)):
            assert captioner.describe(source, labels=["a dog", "a cat"]) == expected


# The nearest neighbour


RED = ("A red square.", "The red square on a wall", "A large painting", "a red square on the wall ,")
COLOURS = {
    "red": ((250, 10, 5), RED),
    "green": ((20, 240, 30), ("A green square .",)),
    "blue": ((0, 30, 200), ("Something blue's here.", "something blue's here")),
}
Make = Callable[..., RunDir]


@pytest.fixture
def prepare(tmp_path, monkeypatch) -> Make:
    """Return what prepares a run of labelled images."""
    use_tiny_encoder(tmp_path, monkeypatch)

    def make(images: Sequence[LabelledImage], name: str = "run") -> RunDir:
        dataset, folder = Dataset(tuple(images)), RunDir.at(tmp_path / name)
        PreparedRun(dataset, Vocabulary(RESERVED), encode_dataset(dataset, load_encoder("tiny"))).save(folder)
        return folder

    return make


def label(path: Path, captions: Sequence[str], split: str = "train") -> LabelledImage:
    return LabelledImage(path.name, path, split, tuple(captions))


@pytest.fixture
def colours(tmp_path) -> list[LabelledImage]:
    paths = {name: make_picture(tmp_path / f"{name}.png", colour) for name, (colour, _) in COLOURS.items()}
    return [label(paths[name], captions) for name, (_, captions) in COLOURS.items()]


@pytest.fixture
def run(prepare, colours, tmp_path) -> RunDir:
    """Three train images, and a dev image whose caption nobody may hear."""
    dev = make_picture(tmp_path / "dev.png", (255, 255, 0))
    return prepare([*colours, label(dev, ["a secret"], "dev")])


def save_noise(path: Path, seed: int) -> Path:
    path.write_bytes(noise(seed, 8, 8))
    return path


def test_a_train_image_gets_the_captions_that_its_others_agree_with(run, colours):
    """Of words and pairs of words the fourth shares 2 * 5 / (5 + 11) with the first, 2 * 8 / 22 with the second."""
    captioner = load_captioner(f"nearest:{run.path}")
    red, green, blue = (captioner.describe(image.path) for image in colours)
    captions = ("a red square on the wall", "the red square on a wall", "a red square", "a large painting")
    assert red == Description(captions[0], captions, (), "nearest:run")
    assert captioner.describe(colours[0].path, 1).english_captions == captions[:2]
    assert green.caption == "a green square"
    assert blue.english_captions == ("something blue's here",), "said twice, it is given once"


def test_the_neighbour_is_the_one_that_brute_force_finds(prepare, tmp_path):
    train = [label(save_noise(tmp_path / f"{seed}.png", seed), [f"number {seed}"]) for seed in range(40)]
    dev = [label(save_noise(tmp_path / f"{seed}.png", seed), ["a secret"], "dev") for seed in range(40, 60)]
    captioner = NearestCaptioner(prepare([*dev[:10], *train, *dev[10:]]).path)
    encoder = load_encoder("tiny")

    def features(image: LabelledImage) -> np.ndarray:
        return encoder.encode(read_image(image.path, 8)[None])["pooled"][0].astype(np.float64)

    centre = np.mean([features(image) for image in train], axis=0)

    def cosine(one: LabelledImage, other: LabelledImage) -> float:
        a, b = features(one) - centre, features(other) - centre
        return a @ b / np.sqrt((a @ a) * (b @ b))

    expected = [max(train, key=lambda other, image=image: cosine(image, other)).captions[0] for image in dev]
    assert [captioner.describe(image.path).caption for image in dev] == expected
    assert len(set(expected)) > 5


@pytest.mark.parametrize(
    ("spoil", "spec", "error", "message"),
    [
        (None, "nearest:", DataError, "run 01_prepare"),
        (None, "nearest:nowhere", DataError, r"nowhere.*run 01_prepare"),
        (lambda run: run.encoded_images.unlink(), None, DataError, "run 01_prepare"),
        (lambda run: run.encoded_images.write_text("{}"), None, DataError, "run 01_prepare"),
        (lambda run: run.dataset.write_text("{"), None, DataError, "run 01_prepare"),
        (lambda run: run.dataset.write_text(""), None, DataError, "has no train images"),
    ],
)
def test_a_run_that_cannot_be_searched_is_refused(spoil, spec, error, message, run):
    if spoil:
        spoil(run)
    with pytest.raises(error, match=message):
        load_captioner(spec or f"nearest:{run.path}")


def test_a_run_of_another_encoder_is_refused(run):
    record = json.loads(run.encoded_images.read_text())
    record["encoder"]["golden"] = [value + 0.01 for value in record["encoder"]["golden"]]
    run.encoded_images.write_text(json.dumps(record))
    with pytest.raises(BundleError, match="gives other features than the one"):
        NearestCaptioner(run.path)
