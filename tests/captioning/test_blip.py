"""The BLIP captioner against transformers itself, on a tiny BLIP made here; no test needs a network."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning import taggers
from lcm.captioning.captioner import load_captioner
from lcm.captioning.description import Description
from lcm.captioning.peers import BlipCaptioner
from lcm.data.text import candidates
from lcm.errors import BadImageError, BundleError, ConfigError
from tests.fakes.tiny_blip import END, PROMPT, SIDE, START, TOKENS, make_blip

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_blip(tmp_path_factory.mktemp("blip") / "tiny")


@pytest.fixture(scope="module")
def captioner(folder) -> BlipCaptioner:
    return BlipCaptioner(str(folder))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


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


def test_fewer_samples_are_the_first_of_more(captioner):
    ten = captioner.describe(PICTURES[0], 10)
    assert ten.english_captions[0] == ten.caption
    assert len(set(ten.english_captions)) == 11
    for samples in (0, 1, 3, 5):
        captions = captioner.describe(PICTURES[0], samples).english_captions
        assert captions == ten.english_captions[: len(captions)]
        assert len(captions) == samples + 1 or samples == 1  # whose four numbers all give texts that do not end
    assert captioner.describe(PICTURES[0]).english_captions == ten.english_captions[:6]


def test_nothing_hangs_on_torch_s_own_draws(captioner):
    import torch

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(captioner.describe(PICTURES[1]))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]


def test_a_description_is_plain_and_says_who_made_it(captioner, folder, monkeypatch):
    description = captioner.describe(PICTURES[0], 0)
    caption = description.caption
    assert description == Description(caption, (caption,), (), "blip:tiny")
    assert captioner.name == "blip:tiny"
    assert not caption.startswith("a picture of")
    monkeypatch.chdir(folder)
    assert BlipCaptioner(".").name == "blip:tiny"


def test_words_are_put_together_and_written_as_all_captions_are(captioner):
    parts = ["the", "man", "'", "s", "t", "-", "shirt", "[MASK]", "dog", "##s", "[SEP]", "[PAD]"]
    assert captioner._read([*map(TOKENS.index, parts), START]) == "the man's t-shirt dogs"
    assert captioner._read([]) == ""


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


def test_what_is_no_image_is_refused(captioner, tmp_path):
    for image in (b"", b"no picture", tmp_path / "none.png"):
        with pytest.raises(BadImageError):
            captioner.describe(image)
    assert list(captioner.describe_many([])) == []


def test_images_are_taken_as_answers_are_given(captioner):
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield PICTURES[0]

    answers = captioner.describe_many(source(), 0, workers=2)
    assert taken == 0
    for given, _ in enumerate(islice(answers, 12), 1):
        assert taken - given <= 2 * 2 + 1
    answers.close()
    assert taken < 30


@pytest.mark.parametrize("arguments", [{"samples": 11}, {"samples": -1}, {"labels": ()}])
def test_wrong_questions_are_refused_at_the_call(arguments, captioner):
    with pytest.raises(ConfigError):
        captioner.describe_many(PICTURES, **arguments)


# Tags


class FakeClip:
    """Stands where CLIP does: finds longer words fitting better; it looks at the picture itself."""

    name, scale = "fake", 1.0

    def __init__(self, checkpoint: str = "usual"):
        self.checkpoint = checkpoint

    def image_vector(self, photo):
        assert photo.open().size == (60, 40)
        return np.ones(1, np.float32)

    def text_vectors(self, texts):
        return np.array([[len(text)] for text in texts], np.float32)

    def unknown(self, _texts):
        return ()


def test_without_a_tagger_there_are_no_tags(captioner):
    assert captioner.tag_scorer is None
    assert captioner.describe(PICTURES[0], labels=["dog"]).tags == ()
    assert captioner.unknown_labels(["dog"]) == ("dog",)


def test_clip_scores_the_captions_words_or_labels(folder, monkeypatch):
    monkeypatch.setattr(taggers, "ClipScorer", FakeClip)
    captioner = load_captioner(f"blip:{folder}", "clip")
    description = captioner.describe(PICTURES[0])
    tags = [word for word, _ in description.tags]
    assert sorted(tags) == sorted(candidates(description.english_captions))
    assert len(tags) > 3
    assert tags == sorted(tags, key=len, reverse=True)
    assert sum(score for _, score in description.tags) == pytest.approx(1)
    labelled = captioner.describe(PICTURES[0], labels=["sky", "horses"]).tags
    assert [word for word, _ in labelled] == ["horses", "sky"]
    assert captioner.unknown_labels(["sky"]) == ()
    assert load_captioner(f"blip:{folder}", "owner/name").tag_scorer.checkpoint == "owner/name"
    assert load_captioner(f"blip:{folder}", "none").tag_scorer is None


def test_a_bundle_s_tagger_needs_a_bundle(folder):
    with pytest.raises(ConfigError, match=r"the tagger dual_encoder is a part of a bundle.*give clip, or the name"):
        load_captioner(f"blip:{folder}", "dual_encoder")


# Checkpoints


def refusal(checkpoint: Path | str) -> str:
    """Return the reason, having checked that what was received and what to do are said too."""
    with pytest.raises(BundleError) as caught:
        BlipCaptioner(str(checkpoint))
    return reason_of(str(caught.value), str(checkpoint))


def reason_of(message: str, checkpoint: str) -> str:
    start = f"cannot use {checkpoint!r} as a BLIP checkpoint: "
    assert message.startswith(start)
    reason, _, advice = message.removeprefix(start).partition(". Give ")
    assert "as blip:FOLDER" in advice
    assert "hf download Salesforce/blip-image-captioning-base --local-dir blip" in advice
    assert "\n" not in message
    return reason


def test_what_holds_no_checkpoint_is_refused(tmp_path, folder):
    assert refusal(tmp_path / "none") == "there is no such folder"
    assert refusal(folder / "config.json") == "it is a file, not a folder"
    assert refusal(tmp_path).startswith(f"its config.json in {tmp_path} cannot be read (")


@pytest.mark.parametrize("kind", ["CLIPConfig", "BertConfig", "Blip2Config"])
def test_another_architecture_is_refused(kind, tmp_path):
    import transformers

    config = getattr(transformers, kind)()
    config.save_pretrained(tmp_path)
    assert refusal(tmp_path) == f"it holds a model of the type {config.model_type!r}, and only 'blip' is read"


@pytest.mark.parametrize("kind", ["BlipForQuestionAnswering", "BlipForImageTextRetrieval"])
def test_a_blip_that_does_not_caption_is_refused(kind, tmp_path):
    reason = f"it holds a {kind}, and only BlipForConditionalGeneration is read"
    assert refusal(make_blip(tmp_path / "other", kind)) == reason


def test_a_blip_is_no_clip(folder):
    with pytest.raises(BundleError, match="as a CLIP checkpoint: it holds a model of the type 'blip', and only 'clip'"):
        taggers.ClipScorer(str(folder))


PARTS = {
    "config.json": "config.json",
    "preprocessor_config.json": "image processor (preprocessor_config.json)",
    "model.safetensors": "weights",
}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_files_are_refused(content, folder, tmp_path):
    for name, part in PARTS.items():
        copy = Path(shutil.copytree(folder, tmp_path / name))
        (copy / name).write_bytes(content)
        assert refusal(copy).startswith(f"its {part} in {copy} cannot be read (")


def test_missing_files_are_refused(folder, tmp_path):
    for name in [*PARTS, "vocab.txt"]:
        (Path(shutil.copytree(folder, tmp_path / name)) / name).unlink()
    start = f"its config.json in {tmp_path / 'config.json'} cannot be read ([Errno 2]"
    assert refusal(tmp_path / "config.json").startswith(start)
    assert refusal(tmp_path / "preprocessor_config.json").startswith(
        "its image processor (preprocessor_config.json) in"
    )
    assert refusal(tmp_path / "model.safetensors") == "it holds neither model.safetensors nor pytorch_model.bin"
    assert "tokenizer" in refusal(tmp_path / "vocab.txt")


def test_parts_that_do_not_fit_are_refused(copy):
    from safetensors.torch import load_file, save_file

    processor = json.loads((copy / "preprocessor_config.json").read_text())
    wrong = processor | {"size": {"height": 64, "width": 48}}
    (copy / "preprocessor_config.json").write_text(json.dumps(wrong))
    assert refusal(copy) == "its image processor makes 48 x 64 pixels, its model takes 32 x 32"
    (copy / "preprocessor_config.json").write_text(json.dumps(processor))
    (copy / "vocab.txt").write_text("\n".join(["[PAD]", "[SEP]", *TOKENS[1:-2]]))
    found = f"({len(TOKENS)} tokens, end token 1)"
    models = f"({len(TOKENS) + 2} tokens, end token {END})"
    assert refusal(copy) == f"its tokenizer {found} is not its model's {models}"
    (copy / "vocab.txt").write_text("\n".join([*TOKENS, *"uvwxyz"]))
    assert refusal(copy).startswith(f"its tokenizer ({len(TOKENS) + 6} tokens, end token {END}) is not its model's")
    weights = load_file(copy / "model.safetensors")
    del weights["text_decoder.bert.embeddings.LayerNorm.bias"]
    save_file(weights, copy / "model.safetensors")
    missing = "text_decoder.bert.embeddings.LayerNorm.bias"
    assert refusal(copy) == f"weights are missing or of another size, 1 in all: {missing} is one"


def as_published(copy: Path, weights: object) -> None:
    """Turn a checkpoint into what BLIP's own is: a pickle, and settings as transformers 4 wrote them."""
    import torch

    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    config = json.loads((copy / "config.json").read_text())
    old = {"max_length": 7, "min_length": 6, "num_beams": 1, "do_sample": True, "top_k": 1, "repetition_penalty": 9.0}
    for part in ("text_config", "vision_config"):
        config[part] |= old | {"torch_dtype": None, "pruned_heads": {}, "transformers_version": "4.26.0.dev0"}
    (copy / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    (copy / "generation_config.json").write_text(json.dumps(old))
    (copy / "tf_model.h5").write_bytes(b"of another framework")


def test_the_tensors_of_a_pickle_are_read_where_there_is_nothing_else(copy, captioner):
    """With what older checkpoints hold besides: places as a buffer, and the tied output layer."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(copy / "model.safetensors")
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(32)[None]
    tied = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    weights["text_decoder.cls.predictions.decoder.weight"] = tied
    as_published(copy, weights)
    again = BlipCaptioner(str(copy))
    for picture in PICTURES[:3]:
        assert again.describe(picture).english_captions == captioner.describe(picture).english_captions
    (copy / "pytorch_model.bin").write_bytes((copy / "pytorch_model.bin").read_bytes()[:5000])
    assert refusal(copy).startswith(f"its weights in {copy} cannot be read (")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(zipped, copy):
    class Trap:
        def __reduce__(self):
            return Path.touch, (copy / "sprung",)

    as_published(copy, {"weight": Trap()})
    if not zipped:
        (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    assert refusal(copy).startswith(f"its weights in {copy} cannot be read (")
    assert not (copy / "sprung").exists()


def test_safetensors_come_before_a_pickle(copy, captioner):
    (copy / "pytorch_model.bin").write_bytes(b"not to be read")
    assert BlipCaptioner(str(copy)).describe(PICTURES[0], 0).caption == captioner.describe(PICTURES[0], 0).caption


def test_a_missing_package_names_the_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers is not installed; .*pip install 'lcm\[clip\]'"):
        BlipCaptioner(str(folder))


def run(*command: str, **settings: str) -> subprocess.CompletedProcess:
    environment = os.environ | settings
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_without_a_network_the_command_says_what_to_do(tmp_path):
    (tmp_path / "photo.png").write_bytes(PICTURES[0])
    command = ["-m", "lcm", "caption", "--captioner", "blip", str(tmp_path / "photo.png")]
    done = run(*command, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert reason_of(line.removeprefix("lcm: "), "Salesforce/blip-image-captioning-base") == (
        "there is no such folder, it was not downloaded before, "
        "and the model hub cannot be reached (HF_HUB_OFFLINE is set)"
    )


def test_the_command_captions_with_it(folder, captioner, tmp_path):
    (tmp_path / "photo.png").write_bytes(PICTURES[0])
    out = tmp_path / "captions.jsonl"
    command = ["-m", "lcm", "caption", "--captioner", f"blip:{folder}", "--out", str(out), str(tmp_path / "photo.png")]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    row = json.loads(out.read_text())
    assert tuple(row["english_captions"]) == captioner.describe(PICTURES[0]).english_captions
    assert (row["model"], row["settings"]) == ("blip:tiny", "samples 5, tagger none")


def test_importing_the_module_loads_neither_torch_nor_transformers():
    code = "import lcm.captioning.captioner, sys; print(*{'torch', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    done = run("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("", "")
