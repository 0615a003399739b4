"""Checkpoints: from a folder and from a hub on this machine; what is damaged or could run code is refused."""

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lcm.captioning.peers import BLIP, BlipCaptioner
from lcm.errors import BundleError, ConfigError
from lcm.features import checkpoints
from tests.conftest import ROOT
from tests.fakes.tiny_blip import make_blip
from tests.fakes.tiny_towers import make_towers

CLIP = checkpoints.Kind("CLIP", "owner/clip", "CLIPModel", processor="CLIPImageProcessorPil", tokenizer="CLIPTokenizer")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of two checkpoints, clip and blip."""
    folder = tmp_path_factory.mktemp("checkpoints")
    make_towers(folder / "clip", "clip")
    make_blip(folder / "blip")
    return folder


@pytest.fixture
def clip(made, tmp_path) -> Path:
    """A CLIP to spoil."""
    return Path(shutil.copytree(made / "clip", tmp_path / "clip"))


@pytest.fixture
def blip(made, tmp_path) -> Path:
    """A BLIP to spoil."""
    return Path(shutil.copytree(made / "blip", tmp_path / "blip"))


def refusal(checkpoint: Path | str, kind: checkpoints.Kind = CLIP) -> str:
    """Return the reason, having checked that what was received and what to do are said too, in one line."""
    with pytest.raises(BundleError) as caught:
        checkpoints.load(str(checkpoint), kind)
    start = f"cannot use {str(checkpoint)!r} as a {kind.label} checkpoint: "
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    reason, _, advice = message.removeprefix(start).partition(". Give ")
    assert "hf download" in advice
    return reason


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_one_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors")


def without_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()  # transformers makes an empty tokenizer of that, without a word


@pytest.mark.parametrize("name", ["", "./clip", "a/b/c", "nul\0"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name):
    assert refusal(name) == "there is no such folder"


def test_another_kind_of_model_is_refused(made, tmp_path):
    said = "it holds a blip model, ['BlipForConditionalGeneration']; only CLIPModel is read"
    assert refusal(made / "blip") == said
    other = make_blip(tmp_path / "other", "BlipForQuestionAnswering")
    said = "it holds a blip model, ['BlipForQuestionAnswering']; only BlipForConditionalGeneration is read"
    assert refusal(other, BLIP) == said


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    "half the weights": (lambda folder: os.truncate(folder / "model.safetensors", 500), "deserializing header"),
    "a weight less": (without_one_weight, "weights are missing or of another size, 1 in all: text_projection.weight"),
    "another width": (lambda folder: edit(folder / "config.json", projection_dim=8), "of another size, 2 in all"),
    "no processor": (lambda folder: (folder / "preprocessor_config.json").unlink(), "image processor"),
    "no tokenizer": (without_tokenizer, "its tokenizer has 2 tokens, its model"),
    "another tokenizer": (
        lambda folder: edit(folder / "vocab.json", more=9999),
        r"its tokenizer has \d+ tokens, its model \d+$",
    ),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_is_damaged_or_does_not_fit_is_refused(spoiled, clip):
    spoil, reason = SPOILED[spoiled]
    spoil(clip)
    assert re.search(reason, refusal(clip))


def test_pickled_weights_are_never_read_as_clip(clip):
    """Whatever config.json asks for, and wherever transformers would look."""
    (clip / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "adapter_model.bin"):
        (clip / name).write_bytes(pickle.dumps(Trap(clip / "sprung")))
    edit(clip / "config.json", transformers_weights="adapter_model.bin")
    assert "model.safetensors" in refusal(clip)
    assert not (clip / "sprung").exists()


def test_code_in_a_checkpoint_is_never_run(clip):
    (clip / "trap.py").write_text(f"open({str(clip / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    auto = {"AutoConfig": "trap.Trap", "AutoModel": "trap.Trap", "AutoImageProcessor": "trap.Trap"}
    for name in ("config.json", "preprocessor_config.json"):
        edit(clip / name, auto_map=auto, _attn_implementation="evil/kernel")
    (clip / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["trap.Trap", None]}}))
    assert checkpoints.load(str(clip), CLIP).model.num_parameters()
    assert not (clip / "sprung").exists()


def as_published(blip: Path, weights: object) -> None:
    """Turn a BLIP into what the official one is: a pickle, and settings as transformers 4 wrote them."""
    import torch

    (blip / "model.safetensors").unlink()
    torch.save(weights, blip / "pytorch_model.bin")
    config = json.loads((blip / "config.json").read_text())
    old = {"max_length": 7, "min_length": 6, "num_beams": 1, "do_sample": True, "top_k": 1, "repetition_penalty": 9.0}
    for part in ("text_config", "vision_config"):
        config[part] |= old | {"torch_dtype": None, "pruned_heads": {}, "transformers_version": "4.26.0.dev0"}
    (blip / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    (blip / "generation_config.json").write_text(json.dumps(old))


def test_blip_s_pickle_is_read_as_tensors_alone(made, blip):
    """With what the official one holds besides: places as a buffer, and the tied output layer."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(blip / "model.safetensors")
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(32)[None]
    tied = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    weights["text_decoder.cls.predictions.decoder.weight"] = tied
    as_published(blip, weights)
    photo = (ROOT / "reports/examples/astronaut.jpg").read_bytes()
    expected = BlipCaptioner(str(made / "blip")).describe(photo)
    assert BlipCaptioner(str(blip)).describe(photo) == expected


def test_code_in_blip_s_pickle_is_never_run(blip):
    as_published(blip, {"weight": Trap(blip / "sprung")})
    refusal(blip, BLIP)
    assert not (blip / "sprung").exists()


def test_a_missing_package_names_the_command(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers is not installed; .*pip install 'lcm\[clip\]'"):
        checkpoints.load(str(clip), CLIP)


# The hub


class FakeHub(BaseHTTPRequestHandler):
    """As much of the model hub as a download asks for; `asked` gathers the paths."""

    folder: Path
    asked: list[str]
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if "nobody/none" in path:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path:
            files = [{"type": "file", "path": one.name, "size": 1, "oid": self.commit} for one in self.folder.iterdir()]
            self.answer(200, json.dumps(files).encode(), {})
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": one.name} for one in self.folder.iterdir()]
            info = {"id": "nobody/clip", "sha": self.commit, "siblings": siblings, "tags": [], "downloads": 0}
            self.answer(200, json.dumps(info).encode(), {})
        else:
            content = (self.folder / path.rpartition("/")[2]).read_bytes()
            self.answer(200, content, {"ETag": f'"{self.commit}{len(content)}"', "X-Repo-Commit": self.commit})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass
