"""The BLIP captioner against transformers itself, on a tiny BLIP made here."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.description import Description
from lcm.captioning.peers import BlipCaptioner
from lcm.errors import BadImageError
from tests.fakes.tiny_blip import END, PROMPT, SIDE, make_blip

ROOT = Path(__file__).resolve().parent.parent


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
    """BLIP as transformers has it, without lcm's cache, prompt and draws."""

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

    def draw(self, picture: bytes, number: int) -> list[int]:
        """A sample, word by word: a penalty of 1.1 for words that are there, no end before the fifth, nucleus 0.9."""
        import torch

        ids, random = list(PROMPT), np.random.default_rng(number).random(20)
        with torch.inference_mode():
            seen = self.model.vision_model(self.pixels(picture)).last_hidden_state
            while len(ids) < 20 and ids[-1] != END:
                writer = self.model.text_decoder(torch.tensor([ids]), encoder_hidden_states=seen)
                scores = writer.logits[0, -1].double().numpy()
                for word in set(ids):
                    scores[word] *= 1.1 if scores[word] < 0 else 1 / 1.1
                if len(ids) < 5:
                    scores[END] = -np.inf
                shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                order = np.argsort(-shares, kind="stable")
                nucleus = order[: np.searchsorted(np.cumsum(shares[order]), 0.9) + 1]
                bounds = np.cumsum(shares[nucleus]) / shares[nucleus].sum()
                ids.append(int(nucleus[np.searchsorted(bounds, random[len(ids) - len(PROMPT)], side="right")]))
        return ids[len(PROMPT) :]

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


def test_samples_are_drawn_one_by_one_from_their_numbers(captioner, reference):
    for picture in PICTURES[:2]:
        best, *samples = captioner.describe(picture, 3).english_captions
        texts = {best: None}
        for number in range(12):
            ids = reference.draw(picture, number)
            text = reference.text(ids)
            if ids[-1] == END and plain(text):
                texts[plain(text)] = None
        assert [plain(sample) for sample in samples] == list(texts)[1:4]
        assert len(samples) > 1


def test_a_description_is_plain_and_says_who_made_it(captioner, folder, monkeypatch):
    description = captioner.describe(PICTURES[0], 0)
    caption = description.caption
    assert description == Description(caption, (caption,), (), "blip:tiny")
    assert captioner.name == "blip:tiny"
    assert not caption.startswith("a picture of")
    monkeypatch.chdir(folder)
    assert BlipCaptioner(".").name == "blip:tiny"


# Many images


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_many_images_get_what_each_gets_alone(workers, captioner, tmp_path):
    (tmp_path / "good.png").write_bytes(PICTURES[3])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    images = [b"", *PICTURES[:3], tmp_path / "bad.png", str(tmp_path / "good.png"), tmp_path / "none.png", PICTURES[0]]
    seen, found = zip(*captioner.describe_many(images, 3, workers=workers), strict=True)
    assert list(seen) == images
    assert [place for place, one in enumerate(found) if isinstance(one, BadImageError)] == [0, 4, 6]
    assert "bad.png" in str(found[4])
    alone = [captioner.describe(picture, 3) for picture in (*PICTURES[:4], PICTURES[0])]
    assert [one for one in found if isinstance(one, Description)] == alone
