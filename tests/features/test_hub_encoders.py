"""Encoders from checkpoints in the form of transformers: tiny ones of each family, against transformers itself."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.model_card import model_card
from lcm.data.images import Square, open_image, read_views
from lcm.errors import BundleError, ConfigError
from lcm.features.encoders import EncoderIdentity, find_encoder, keep_encoder, load_encoder
from tests.conftest import ROOT
from tests.fakes.tiny_blip import make_blip
from tests.fakes.tiny_graphs import tiny_manifest
from tests.fakes.tiny_vision import CHECKPOINTS, WIDTH, make_vision
from tests.features.test_checkpoints import FakeHub, edit

pytest.importorskip("torch", reason="converting a checkpoint needs torch: pip install 'lcm[encoder,clip]'")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Real photos: wide, tall and small, of odd sizes; the large ones would be decoded at half their size for lcm."""
    folder, examples = tmp_path_factory.mktemp("photos"), ROOT / "reports/examples"
    Image.open(examples / "astronaut.jpg").crop((31, 0, 332, 511)).save(folder / "tall.jpg", quality=90)
    Image.open(examples / "cat.jpg").resize((37, 25)).save(folder / "small.png")
    return [examples / "musicians.jpg", folder / "tall.jpg", folder / "small.png"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder for checkpoints, and the state of lcm for the whole module."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(autouse=True)
def home(made, monkeypatch) -> Path:
    monkeypatch.setenv("LCM_HOME", str(made / "home"))
    return made / "home"


@pytest.fixture(scope="module", params=CHECKPOINTS)
def family(request, made) -> str:
    make_vision(made / request.param, request.param)
    return request.param


def processor_of(folder: Path):
    import transformers

    if folder.name == "dinov3_vit":
        return transformers.ViTImageProcessorPil.from_pretrained(folder)
    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def test_pixels_and_features_are_those_of_transformers(family, made, photos):
    import torch
    import transformers

    encoder, processor = load_encoder(str(made / family)), processor_of(made / family)
    pixels = torch.cat([processor(open_image(path), return_tensors="pt")["pixel_values"] for path in photos])
    seen = np.stack([encoder.read(path) for path in photos])
    mean, spread = (np.array(value, np.float32) for value in (processor.image_mean, processor.image_std))
    np.testing.assert_allclose(((seen / 255 - mean) / spread).transpose(0, 3, 1, 2), pixels, atol=1e-4)

    model = transformers.AutoModel.from_pretrained(made / family).eval()
    with torch.no_grad():
        output = getattr(model, "vision_model", model)(pixel_values=pixels)
    hidden = output.last_hidden_state
    grid = hidden.flatten(2).mT if hidden.ndim == 4 else hidden[:, hidden.shape[1] - CHECKPOINTS[family][-1] :]
    pooled = hidden[:, 0] if family == "vit" else output.pooler_output
    features = encoder.encode(seen, ("pooled", "grid"))
    assert features["grid"].shape == (3, encoder.spec.positions, WIDTH) == tuple(grid.shape)
    np.testing.assert_allclose(features["pooled"], pooled, atol=1e-4)
    np.testing.assert_allclose(features["grid"], grid, atol=1e-4 * max(1, grid.abs().max()))
    for kind in features.values():  # what is compared tells the photos apart
        assert np.abs(kind[0] - kind[1]).max() > 0.1


def test_dinov3_s_own_processor_resizes_in_floating_point_and_differs_by_rounding(made, photos):
    """As its code does, with torch in place of torchvision: rescaled, then resized with antialiasing."""
    import torch

    encoder = load_encoder(str(make_vision(made / "dinov3_vit", "dinov3_vit")))
    for path in photos:
        whole = torch.tensor(np.array(open_image(path))).permute(2, 0, 1)[None] / 255
        its = torch.nn.functional.interpolate(whole, (32, 32), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        np.testing.assert_allclose(encoder.read(path), 255 * its, atol=1.01)  # two passes, each rounded to a level


def test_the_record_holds_what_serving_needs_and_the_card_names_the_licence(made, photos, tmp_path, monkeypatch):
    encoder = load_encoder(str(make_vision(made / "clip", "clip")))
    identity = encoder.identity
    assert identity.name.startswith("clip@")
    assert EncoderIdentity.from_record(json.loads(json.dumps(asdict(identity)))) == identity
    assert identity.checkpoint.square == Square(32, Image.Resampling.BICUBIC, 32)
    assert "frozen, pretrained weights, licence: apache-2.0, revision: a folder\n" in model_card(
        tiny_manifest(identity), ["en"]
    )
    monkeypatch.setenv("LCM_HOME", str(tmp_path))  # another machine, which has the bundle alone
    with pytest.raises(ConfigError, match=f"unknown encoder '{identity.name}'"):
        find_encoder(identity)
    keep_encoder(identity, encoder.path)  # as a run does that goes on from it
    np.testing.assert_array_equal(find_encoder(identity).read(photos[0]), encoder.read(photos[0]))
    edit(made / "clip" / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    assert load_encoder(str(made / "clip")).identity.name != identity.name


def test_views_are_parts_of_the_picture_treated_as_the_whole(made, photos):
    processor, square = processor_of(make_vision(made / "dinov2", "dinov2")), Square(28, Image.Resampling.BICUBIC, 40)
    processor.do_rescale = processor.do_normalize = False
    photo = open_image(photos[0])
    (view,) = read_views(photos[0], square, [(0.5, 0, 1, 0.75)])
    part = photo.crop((photo.width // 2, 0, photo.width, photo.height * 3 // 4))
    expected = processor(part, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(view, expected, atol=1)  # the filter sees beyond the part's edges
    left, upper, right, lower = 152, 0, 360, 208  # of 512 x 208 pixels, 28 / 40 of the height is seen
    assert np.array_equal(open_image(photos[0], square), photo.crop((left + 31, upper + 31, right - 31, lower - 31)))


# What is refused


def test_what_is_no_encoder_is_refused_with_the_choices(tmp_path, monkeypatch):
    vit = make_vision(tmp_path / "vit", "vit")
    known = (
        "choose from .*resnet50, or give a checkpoint by its folder or its name on the hub, owner/name or hf:.*siglip"
    )
    for name in ("", "resnet51", "/no/such/folder", "vit@0123456789ab"):
        with pytest.raises(ConfigError, match=f"unknown encoder '{name}'; .*{known}"):
            load_encoder(name)
    with pytest.raises(ConfigError, match="unknown encoder weights 'random'; choose from pretrained for vit@"):
        load_encoder(str(vit), "random")
    with pytest.raises(
        BundleError, match="as a vision checkpoint: it holds a blip model; lcm reads siglip, clip, dinov2"
    ):
        load_encoder(str(make_blip(tmp_path / "blip")))
    edit(vit / "preprocessor_config.json", do_center_crop=True, crop_size={"height": 24, "width": 24})
    with pytest.raises(
        BundleError, match="its ViTImageProcessorPil does more than to resize and to cut the middle out"
    ):
        load_encoder(str(vit))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers is not installed; .*pip install 'lcm\[encoder,clip\]'"):
        load_encoder(str(vit))


# The hub

LOAD = """
import json, sys
from lcm.errors import LcmError
from lcm.features.encoders import load_encoder
for name in sys.argv[1:]:
    try:
        identity = load_encoder(name).identity
        print(json.dumps([identity.name, identity.checkpoint.revision, identity.checkpoint.licence]))
    except LcmError as error:
        print(json.dumps(str(error)))
print("torch" in sys.modules, file=sys.stderr)
"""


def load_all(*names: str, **settings: str) -> tuple[list, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"} | settings
    done = subprocess.run([sys.executable, "-c", LOAD, *names], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_name_is_downloaded_and_converted_once_and_then_needs_neither_network_nor_torch(tmp_path):
    vit = make_vision(tmp_path / "vit", "vit")
    (vit / "pytorch_model.bin").write_bytes(b"not to be downloaded")
    handler = type("Hub", (FakeHub,), {"folder": vit, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = {"HF_HOME": str(tmp_path / "home")}
    online = home | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    names = ["hf:nobody/vit@v1.0", "nobody/vit"]
    (*found, missing), said = load_all(*names, "nobody/none", **online)
    server.shutdown()
    server.server_close()
    expected = [[name.removeprefix("hf:"), FakeHub.commit, "apache-2.0"] for name in names]
    assert found == expected
    assert missing.startswith("cannot use 'nobody/none' as a vision checkpoint: 404 Client Error")
    assert any("/revision/v1.0" in path for path in handler.asked)
    fetched = {path.rpartition("/")[2] for path in handler.asked if "/resolve/" in path}
    assert fetched == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert "downloading the vision checkpoint nobody/vit, once\n" in said
    again, said = load_all(*names, **home, HF_HUB_OFFLINE="1")
    assert again == expected
    assert said == "False\n"
    (other,), _ = load_all("nobody/other", **home, HF_HUB_OFFLINE="1")
    assert other.startswith("cannot use 'nobody/other' as a vision checkpoint: ")
    assert "such as google/siglip2-base-patch16-224 (needs a network, once), or a folder that holds one" in other
    assert "\n" not in other
