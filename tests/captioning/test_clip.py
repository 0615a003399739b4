"""The CLIP scorer against transformers itself, on a tiny CLIP made here; no test needs a network."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning import checkpoints, taggers
from lcm.captioning.taggers import CLIP_TEXTS_AT_ONCE, ClipScorer
from lcm.errors import BundleError, ConfigError

ROOT = Path(__file__).resolve().parent.parent
SIDE = 32  # pixels
WIDTH = 24  # D
LONGEST = 16  # tokens
TEXTS = ["dog", "a dog runs", "the cat sat on a mat by the sea", "a photo of a cat", "s"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
MERGES = ["d o", "do g</w>", "c a", "ca t</w>", "t h", "th e</w>", "o f</w>"]
SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Picture:
    """What the scorer is given: something that opens."""

    image: Image.Image

    def open(self) -> Image.Image:
        return self.image


def noise(width: int, height: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Picture(Image.fromarray(pixels))


PICTURES = [noise(SIDE, SIDE), noise(40, 90, 1), noise(200, 50, 2), noise(7, 3, 3), noise(1, 1, 4)]


def vocabulary() -> dict[str, int]:
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(merge.replace(" ", "") for merge in MERGES)]
    return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def write_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint as older ones are: processor and tokenizer in files of their own, the end token said to be 2."""
    import torch
    import transformers

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": len(vocabulary()), "max_position_embeddings": LONGEST, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.CLIPConfig(
        text_config=tower | text,
        vision_config=tower | {"image_size": SIDE, "patch_size": 8},
        projection_dim=WIDTH,
        initializer_factor=8.0,  # or all vectors are nearly the same
        logit_scale_init_value=math.log(10),
    )
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(folder) -> ClipScorer:
    return ClipScorer(str(folder))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def refusal(checkpoint: Path | str) -> str:
    """Return the reason, having checked that what was received and what to do are said too."""
    with pytest.raises(BundleError) as caught:
        ClipScorer(str(checkpoint))
    return reason_of(str(caught.value), str(checkpoint))


def reason_of(message: str, checkpoint: str) -> str:
    start = f"cannot use {checkpoint!r} as a CLIP checkpoint: "
    assert message.startswith(start)
    reason, _, advice = message.removeprefix(start).partition(". Give ")
    assert "hf download openai/clip-vit-large-patch14 --local-dir clip" in advice
    assert "lcm's own embedded scorer needs no download" in advice
    assert "\n" not in message
    return reason


def test_scores_are_those_of_transformers(folder, scorer):
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(folder),
        transformers.CLIPTokenizer.from_pretrained(folder),
    )
    cut = {"padding": True, "truncation": True, "max_length": LONGEST}
    inputs = processor(text=TEXTS, images=[each.open() for each in PICTURES], return_tensors="pt", **cut)
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.softmax(-1)
    images = np.stack([scorer.image_vector(picture) for picture in PICTURES])
    logits = torch.tensor(scorer.scale * images @ scorer.text_vectors(TEXTS).T)
    np.testing.assert_allclose(logits.softmax(-1), expected, atol=1e-5)
    assert expected.std(-1).min() > 0.05, "the texts must differ for this to mean anything"
    assert expected.std(0).max() > 0.01


def test_pictures_are_prepared_as_clip_was_trained(folder, scorer):
    """Shorter side to S, bicubic; the middle square; the mean and deviation of Radford et al.'s code."""
    import torch
    import transformers

    picture = noise(48, 2 * SIDE * 48 // SIDE, 5)  # twice as high as wide
    small = picture.open().resize((SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    middle = np.asarray(small.crop((0, SIDE // 2, SIDE, SIDE // 2 + SIDE)), np.float32) / 255
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.tensor((middle - np.float32(mean)) / np.float32(deviation)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        vector = transformers.CLIPModel.from_pretrained(folder).get_image_features(pixels).pooler_output[0].numpy()
    np.testing.assert_allclose(scorer.image_vector(picture), vector / np.linalg.norm(vector), atol=1e-5)


def test_vectors_are_unit_float32(scorer):
    texts, image = scorer.text_vectors(TEXTS), scorer.image_vector(PICTURES[0])
    assert (texts.shape, texts.dtype) == ((len(TEXTS), WIDTH), np.float32)
    assert (image.shape, image.dtype) == ((WIDTH,), np.float32)
    np.testing.assert_allclose(np.linalg.norm([*texts, image], axis=1), 1, atol=1e-6)


def test_a_scorer_says_what_it_is(scorer, folder, monkeypatch):
    assert scorer.name == "tiny"
    assert scorer.scale == pytest.approx(10)
    assert scorer.unknown(["dog", "ξ€", ""]) == ()
    monkeypatch.chdir(folder)
    assert ClipScorer(".").name == "tiny"


def test_padding_does_not_change_a_vector(folder, scorer):
    apart = np.concatenate([ClipScorer(str(folder)).text_vectors([text]) for text in TEXTS])
    np.testing.assert_allclose(scorer.text_vectors(TEXTS), apart, atol=1e-6)


def test_texts_keep_their_order_and_may_repeat(scorer):
    vectors = scorer.text_vectors(TEXTS)
    order = [3, 0, 0, 4, 3]
    np.testing.assert_array_equal(scorer.text_vectors([TEXTS[number] for number in order]), vectors[order])
    assert scorer.text_vectors([]).shape == (0, WIDTH)
    assert scorer.text_vectors([]).dtype == np.float32


def test_a_text_that_is_too_long_is_cut(scorer):
    long, longer = scorer.text_vectors(["dog " * LONGEST, "dog " * 10 * LONGEST])
    np.testing.assert_allclose(long, longer, atol=1e-6)
    assert not np.allclose(long, scorer.text_vectors(["dog"])[0], atol=1e-2)


def count_runs(scorer: ClipScorer, monkeypatch) -> list[int]:
    """Return a list that grows by the number of texts at each run of the text model."""
    runs, run = [], scorer._model.get_text_features

    def counted(**tokens):
        runs.append(len(tokens["input_ids"]))
        return run(**tokens)

    monkeypatch.setattr(scorer._model, "get_text_features", counted)
    return runs


def test_each_text_is_read_once_and_many_at_a_time(folder, monkeypatch):
    scorer = ClipScorer(str(folder))
    runs = count_runs(scorer, monkeypatch)
    texts = [f"dog {number}" for number in range(2 * CLIP_TEXTS_AT_ONCE + 3)]
    first = scorer.text_vectors(texts + texts)
    assert runs == [CLIP_TEXTS_AT_ONCE, CLIP_TEXTS_AT_ONCE, 3]
    first[:] = 0  # the caller's own; what is kept stays
    second = scorer.text_vectors([*texts, "cat"])
    assert runs == [CLIP_TEXTS_AT_ONCE, CLIP_TEXTS_AT_ONCE, 3, 1]
    np.testing.assert_allclose(second[5:6], ClipScorer(str(folder)).text_vectors([texts[5]]), atol=1e-6)


def test_the_memory_for_texts_has_an_end(folder, monkeypatch):
    monkeypatch.setattr(taggers, "MAX_CACHED_TEXTS", 3)
    scorer = ClipScorer(str(folder))
    runs = count_runs(scorer, monkeypatch)
    assert len(scorer.text_vectors(TEXTS)) == len(TEXTS) > 3
    scorer.text_vectors(TEXTS[-3:])
    assert runs == [5]
    scorer.text_vectors(TEXTS[:1])
    assert runs == [5, 1]


def test_threads_get_what_one_caller_gets(folder, scorer):
    texts = [f"dog {number}" for number in range(40)]
    vectors, images = scorer.text_vectors(texts), [scorer.image_vector(picture) for picture in PICTURES]
    fresh = ClipScorer(str(folder))

    def ask(number: int) -> tuple[np.ndarray, np.ndarray]:
        return fresh.text_vectors(texts[number : number + 20]), fresh.image_vector(PICTURES[number % len(PICTURES)])

    with ThreadPoolExecutor(8) as pool:
        for number, (some, image) in enumerate(pool.map(ask, range(20))):
            np.testing.assert_allclose(some, vectors[number : number + 20], atol=1e-6)
            np.testing.assert_allclose(image, images[number % len(PICTURES)], atol=1e-6)


def test_large_grey_and_thin_pictures_are_fine(scorer):
    grey = Picture(Image.linear_gradient("L").convert("RGB"))
    for picture in (Picture(grey.open().resize((4000, 3000))), grey, Picture(grey.open().resize((2, 400)))):
        assert np.linalg.norm(scorer.image_vector(picture)) == pytest.approx(1, abs=1e-5)
    large = scorer.image_vector(Picture(grey.open().resize((3000, 3000), Image.Resampling.BICUBIC)))
    assert large @ scorer.image_vector(grey) > 0.99


def set_end_token(folder: Path, number: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = number
    (folder / "config.json").write_text(json.dumps(config))


def test_a_processor_in_one_file_and_shards_are_read(folder, copy):
    """As transformers 5 saves a whole processor, and as large checkpoints are saved."""
    import transformers

    (copy / "preprocessor_config.json").rename(copy / "image.json")
    image_processor = json.loads((copy / "image.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": image_processor}))
    transformers.CLIPTokenizer.from_pretrained(copy).save_pretrained(copy)  # tokenizer.json
    (copy / "vocab.json").unlink()
    (copy / "model.safetensors").unlink()
    transformers.CLIPModel.from_pretrained(folder).save_pretrained(copy, max_shard_size="60KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    set_end_token(copy, len(vocabulary()) - 1)  # as newer checkpoints say it
    once, again = ClipScorer(str(folder)), ClipScorer(str(copy))
    np.testing.assert_allclose(again.text_vectors(TEXTS), once.text_vectors(TEXTS), atol=1e-6)
    np.testing.assert_allclose(again.image_vector(PICTURES[1]), once.image_vector(PICTURES[1]), atol=1e-6)
    set_end_token(copy, 5)
    known = len(vocabulary())
    ours = f"({known} tokens, end token {known - 1})"
    assert refusal(copy) == f"its tokenizer {ours} is not its model's ({known} tokens, end token 5)"
    next(copy.glob("model-00001-*.safetensors")).unlink()
    assert "weights are missing" in refusal(copy)


def test_a_path_that_is_no_folder_is_refused(tmp_path, folder):
    assert refusal(tmp_path / "none") == "there is no such folder"
    for name in ("", "./clip", "a/b/c", "~/clip", "a b", "nul\0"):
        assert refusal(name) == "there is no such folder"
    assert refusal(folder / "config.json") == "it is a file, not a folder"


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    reason = f"[Errno 2] No such file or directory: '{tmp_path / 'config.json'}'"
    assert refusal(tmp_path) == f"its config.json in {tmp_path} cannot be read ({reason})"


@pytest.mark.parametrize("kind", ["BertConfig", "BlipConfig", "SiglipConfig", "CLIPTextConfig"])
def test_another_architecture_is_refused(kind, tmp_path):
    import transformers

    config = getattr(transformers, kind)()
    config.save_pretrained(tmp_path)
    assert refusal(tmp_path) == f"it holds a model of the type {config.model_type!r}, and only 'clip' is read"


def test_pickled_weights_are_never_read(copy):
    """Whatever config.json asks for, and wherever transformers would look."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (copy / "sprung",)

    (copy / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "adapter_model.bin", ".metadata"):
        (copy / name).write_bytes(pickle.dumps(Trap()))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    assert refusal(copy).startswith("it holds no model.safetensors; other forms of weights are not read")
    assert not (copy / "sprung").exists()


def test_code_in_a_checkpoint_is_never_run(folder, copy):
    (copy / "trap.py").write_text(f"open({str(copy / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    for name in ("config.json", "preprocessor_config.json"):
        settings = json.loads((copy / name).read_text())
        auto = {"AutoConfig": "trap.Trap", "AutoModel": "trap.Trap", "AutoImageProcessor": "trap.Trap"}
        (copy / name).write_text(json.dumps(settings | {"auto_map": auto, "_attn_implementation": "evil/kernel"}))
    (copy / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["trap.Trap", None]}}))
    vectors = ClipScorer(str(copy)).text_vectors(TEXTS)
    np.testing.assert_allclose(vectors, ClipScorer(str(folder)).text_vectors(TEXTS), atol=1e-6)
    assert not (copy / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 7, 500, -1])
def test_damaged_weights_are_refused(kept, copy):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:kept])
    assert refusal(copy).startswith(f"its weights in {copy} cannot be read (Error while deserializing header: ")


PARTS = {
    "config.json": "config.json",
    "preprocessor_config.json": "image processor (preprocessor_config.json)",
    "vocab.json": "tokenizer (tokenizer.json, or vocab.json with merges.txt)",
    "merges.txt": "tokenizer (tokenizer.json, or vocab.json with merges.txt)",
}


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_missing_and_damaged_files_are_refused(content, folder, tmp_path):
    for name, part in PARTS.items():
        copy = Path(shutil.copytree(folder, tmp_path / name))
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        if (name, content) == ("config.json", b"[]"):
            assert refusal(copy) == "it holds a model of the type None, and only 'clip' is read"
        elif (name, content) != ("merges.txt", b""):  # a tokenizer without merges spells letter by letter
            assert refusal(copy).startswith(f"its {part} in {copy} cannot be read (")


def test_weights_and_settings_that_do_not_fit_are_refused(folder, copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors")
    assert refusal(copy) == "weights are missing or of another size, 1 in all: text_projection.weight is one"
    shutil.copy(folder / "model.safetensors", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"projection_dim": 8}))
    assert refusal(copy) == "weights are missing or of another size, 2 in all: text_projection.weight is one"


def test_a_processor_or_tokenizer_that_does_not_fit_is_refused(folder, copy):
    processor = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(processor | {"crop_size": {"height": 64, "width": 48}}))
    assert refusal(copy) == "its image processor makes 48 x 64 pixels, its model takes 32 x 32"
    (copy / "preprocessor_config.json").write_text(json.dumps(processor | {"do_center_crop": False}))
    assert refusal(copy) == "its image processor makes 64 x 32 pixels, its model takes 32 x 32"
    shutil.copy(folder / "preprocessor_config.json", copy)
    (copy / "vocab.json").write_text(json.dumps(vocabulary() | {"more": len(vocabulary())}))
    known = len(vocabulary())
    models = f"is not its model's ({known} tokens, end token {known - 1})"
    assert refusal(copy) == f"its tokenizer ({known + 1} tokens, end token {known - 1}) {models}"
    (copy / "vocab.json").unlink()
    (copy / "merges.txt").unlink()  # transformers makes an empty tokenizer of that, without a word
    assert refusal(copy) == f"its tokenizer (3 tokens, end token 2) {models}"


def test_a_missing_package_names_the_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers is not installed; .*pip install 'lcm\[clip\]'"):
        ClipScorer(str(folder))


def test_a_call_that_does_not_end_is_left():
    go_on, ended = threading.Event(), []
    with pytest.raises(TimeoutError, match=r"no answer in 0\.1 seconds"):
        checkpoints._within(0.1, lambda: ended.append(go_on.wait(60)))
    assert ended == []
    go_on.set()
    assert checkpoints._within(60, lambda: "answer") == "answer"
    with pytest.raises(ZeroDivisionError):
        checkpoints._within(60, lambda: 1 / 0)


def run(script: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | settings, capture_output=True, text=True
    )


def test_importing_the_module_loads_neither_torch_nor_transformers():
    done = run(
        "import lcm.captioning.taggers, sys; print(*{'torch', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


LOAD = """
import json, time
from lcm.captioning import clip, pretrained
from lcm.errors import LcmError

import transformers  # so that what is timed is the asking
for name, reach in NAMES:
    pretrained.REACH_S = reach
    began = time.monotonic()
    try:
        told = clip.ClipScorer(name).text_vectors(["dog"])[0].tolist()
    except LcmError as error:
        told = str(error)
    print(json.dumps([name, told, time.monotonic() - began]))
"""


def load_all(names: list[tuple[str, float]], **settings: str) -> tuple[list[tuple[str, object, float]], str]:
    """Return what loading each name gave and how long it took, and what stderr says; seconds to wait go with a name."""
    done = run(f"NAMES = {names!r}\n{LOAD}", **settings)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()], done.stderr


def test_without_a_network_it_is_said_at_once(tmp_path):
    (loaded,), stderr = load_all([("openai/clip-vit-large-patch14", 60)], HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    name, message, seconds = loaded
    assert reason_of(message, name) == (
        "there is no such folder, it was not downloaded before, "
        "and the model hub cannot be reached (HF_HUB_OFFLINE is set)"
    )
    assert seconds < 30
    assert stderr == ""


class FakeHub(BaseHTTPRequestHandler):
    """As much of the model hub as a download asks for; `asked` gathers the paths."""

    folder: Path
    asked: list[str]
    go_on: threading.Event  # for what hangs

    def do_GET(self, body: bool = True) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        kind, files = "clip", [file.name for file in self.folder.iterdir()]
        if "nobody/hangs" in path:
            self.go_on.wait(60)
        if "nobody/cuts" in path or "nobody/hangs" in path:
            self.close_connection = True
            return
        if "nobody/bert" in path:
            kind = "bert"
        if "nobody/pickles" in path:
            files = ["config.json", "pytorch_model.bin"]
        if path.startswith("/api/models/nobody/none"):
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, body)
        elif "/tree/" in path:
            sizes = [{"type": "file", "path": name, "size": self.size(name), "oid": SHA} for name in files]
            self.answer(200, json.dumps(sizes).encode(), {}, body)
        elif path.startswith("/api/models/nobody/"):
            siblings = [{"rfilename": name, "size": self.size(name)} for name in files]
            info = {"id": "nobody/clip", "sha": SHA, "siblings": siblings, "config": {"model_type": kind}}
            self.answer(200, json.dumps(info | {"tags": [], "downloads": 0}).encode(), {}, body)
        elif "/resolve/" in path:
            content = (self.folder / path.rpartition("/")[2]).read_bytes()
            self.answer(200, content, {"ETag": f'"{SHA}{len(content)}"', "X-Repo-Commit": SHA}, body)
        else:
            self.answer(404, b"{}", {}, body)

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size if (self.folder / name).exists() else 1

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for header, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def hub(folder, tmp_path_factory):
    """What came of asking a hub on this machine for one checkpoint after the other, in a process of its own."""
    served = Path(shutil.copytree(folder, tmp_path_factory.mktemp("hub") / "served"))
    (served / "pytorch_model.bin").write_bytes(b"not to be downloaded")
    handler = type("Hub", (FakeHub,), {"folder": served, "asked": [], "go_on": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ["none", "bert", "pickles", "cuts", "hangs", "clip", "clip"]
    loaded, stderr = load_all(
        [(f"nobody/{name}", 0.5 if name == "hangs" else 60) for name in names],
        **{"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path_factory.mktemp("home"))},
        **{"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"},
    )
    handler.go_on.set()
    server.shutdown()
    server.server_close()
    return loaded, stderr, handler.asked


def test_a_name_that_the_hub_cannot_serve_is_refused(hub):
    reasons = {name.removeprefix("nobody/"): reason_of(told, name) for name, told, _ in hub[0] if isinstance(told, str)}
    unreachable = "there is no such folder, it was not downloaded before, and the model hub cannot be reached "
    assert reasons == {
        "none": "there is no such folder, and the model hub has no such checkpoint, "
        "or wants a login first (hf auth login)",
        "bert": "it holds a model of the type 'bert', and only 'clip' is read",
        "pickles": "it holds no model.safetensors; other forms of weights are not read, for a pickle can run code",
        "cuts": unreachable + "(Server disconnected without sending a response)",
        "hangs": unreachable + "(timed out)",
    }
    assert max(seconds for _, told, seconds in hub[0] if isinstance(told, str)) < 30


def test_a_checkpoint_is_downloaded_once_and_no_more_than_it_takes(hub, scorer):
    loaded, stderr, asked = hub
    once, again = (told for name, told, _ in loaded if name == "nobody/clip")
    np.testing.assert_allclose(once, scorer.text_vectors(["dog"])[0], atol=1e-6)
    assert again == once
    fetched = sorted(path.rpartition("/")[2] for path in {each for each in asked if "/resolve/" in each})
    assert fetched == ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "vocab.json"]
    assert stderr == "downloading the CLIP checkpoint nobody/clip, once (0.0 GB)\n"
    assert asked.count("/api/models/nobody/clip?blobs=true") == 1
    assert not [path for path in asked if "telemetry" in path]
