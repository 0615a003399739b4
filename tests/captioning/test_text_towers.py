"""Text towers: tiny CLIP, SigLIP and SigLIP 2 against transformers itself, what is refused, and a whole run."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lcm.captioning.bundle import MODEL_CARD, Manifest
from lcm.captioning.captioner import load_captioner
from lcm.captioning.taggers import CheckpointScorer, TextTower
from lcm.captioning.tagging import SeenImage, rank
from lcm.config import TrainConfig
from lcm.data.images import open_image
from lcm.errors import BundleError, ConfigError
from lcm.features import text_towers
from lcm.features.encoders import Encoder, EncoderIdentity, load_encoder
from lcm.features.text_towers import TEXT_TOWER, TOKENIZER, TOWER, find_text_tower
from lcm.pipeline import Preset, run
from lcm.training.export import check_parameters
from tests.conftest import ROOT
from tests.fakes.tiny_towers import LONGEST, make_towers
from tests.fakes.tiny_vision import WIDTH, make_vision
from tests.features.test_checkpoints import FakeHub, edit
from tests.test_pipeline import make_data_set

pytest.importorskip("torch", reason="converting a checkpoint needs torch: pip install 'lcm[encoder,clip]'")

PHOTOS = [ROOT / "reports/examples" / name for name in ("astronaut.jpg", "musicians.jpg")]
TEXTS = ["a dog", "Two men, riding!", "ein Hund läuft", "la plage", "a red square and a blue circle on the beach " * 9]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder for checkpoints, and the state of lcm for the whole module."""
    return tmp_path_factory.mktemp("towers")


@pytest.fixture(autouse=True)
def home(made, monkeypatch) -> None:
    monkeypatch.setenv("LCM_HOME", str(made / "home"))


@pytest.fixture(scope="module", params=LONGEST)
def family(request, made) -> str:
    make_towers(made / request.param, request.param)
    return request.param


def load_tower(encoder: Encoder) -> TextTower:
    folder, facts = find_text_tower(encoder.identity)
    return TextTower(folder, {"name": TOWER} | facts)


def test_vectors_logits_and_sigmoid_are_those_of_transformers(family, made):
    import torch
    import transformers

    folder = made / family
    encoder = load_encoder(str(folder))
    tower = load_tower(encoder)
    tokenizer_class = transformers.Siglip2Tokenizer if family == "siglip2" else transformers.AutoTokenizer
    padding = True if family == "clip" else "max_length"
    tokens = tokenizer_class.from_pretrained(folder)(
        TEXTS, padding=padding, truncation=True, max_length=LONGEST[family], return_tensors="pt"
    )["input_ids"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([open_image(path) for path in PHOTOS], return_tensors="pt")["pixel_values"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        its = model(input_ids=tokens, pixel_values=pixels)
    pooled = encoder.encode(np.stack([encoder.read(path) for path in PHOTOS]))["pooled"]
    images, texts = tower.image_vectors(pooled), tower.text_vectors(TEXTS)
    logits = tower.scale * images @ texts.T + (tower.sigmoid[2] if tower.sigmoid else 0)
    for ours, theirs in (
        (images, its.image_embeds),
        (texts, its.text_embeds),
        (logits, its.logits_per_image),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(logits, axis=1).min() > 1  # what is compared tells the texts apart
    by_name = CheckpointScorer(str(folder))
    assert by_name.name == encoder.identity.name
    np.testing.assert_array_equal(by_name.text_vectors(TEXTS), texts)
    seen = by_name.image_vector(SeenImage(PHOTOS[0], None, {}))  # which another encoder may have encoded
    np.testing.assert_allclose(seen, its.image_embeds[0], atol=1e-4)

    vector = tower.image_vector(SeenImage(PHOTOS[0], None, {"pooled": pooled[0]}))
    shares = dict(rank(tower, vector, TEXTS))
    np.testing.assert_allclose([shares[text] for text in TEXTS], its.logits_per_image[0].softmax(0), atol=1e-4)
    assert (tower.curves is None) == (family == "clip")
    if tower.curves:
        found = dict(rank(tower, vector, TEXTS, (TEXTS, "probability", 0.0)))
        np.testing.assert_allclose([found[text] for text in TEXTS], its.logits_per_image[0].sigmoid(), atol=1e-4)


def test_a_text_can_be_read_where_its_tokenizer_knows_all_of_it(family, made):
    tower = load_tower(load_encoder(str(made / family)))
    texts = ["dog", "собака", "DOG", "", "狗", "dog 狗", "\ud800"]
    vectors = tower.text_vectors(texts)
    known = [True, True, True, False, False, False, False]
    assert vectors.any(1).tolist() == known
    np.testing.assert_array_equal(vectors[0], vectors[2])  # neither knows capitals
    np.testing.assert_allclose(np.linalg.norm(vectors[known], axis=1), 1, atol=1e-5)
    assert tower.text_vectors([]).shape == (0, vectors.shape[1])


def test_a_table_of_very_many_words_is_stored_in_16_bits(made, tmp_path, monkeypatch):
    encoder = load_encoder(str(make_towers(made / "siglip2", "siglip2")))
    whole, whole_size = load_tower(encoder), (encoder.path.parent / TEXT_TOWER).stat().st_size
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    monkeypatch.setattr(text_towers, "MANY_WORDS", 100)
    encoder = load_encoder(str(made / "siglip2"))
    half = load_tower(encoder)
    words = len(json.loads((made / "siglip2" / "tokenizer.json").read_text())["model"]["vocab"])
    assert whole_size - (encoder.path.parent / TEXT_TOWER).stat().st_size > 1.5 * words * WIDTH
    np.testing.assert_allclose(half.text_vectors(TEXTS), whole.text_vectors(TEXTS), atol=1e-3)


FROM_HUB = """
import sys
from lcm.features.encoders import load_encoder
from lcm.features.text_towers import find_text_tower
identity = load_encoder("nobody/clip").identity
if sys.argv[1:]:
    print(find_text_tower(identity)[1]["scale"], "torch" in sys.modules)
"""


def test_that_of_a_name_on_the_hub_is_made_from_the_same_commit(tmp_path):
    """Asked for when there is no network any more, and then found without torch."""
    handler = type("Hub", (FakeHub,), {"folder": make_towers(tmp_path / "clip", "clip"), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    environment = os.environ | {"HF_HOME": str(tmp_path / "hub"), "LCM_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FROM_HUB]
    subprocess.run(command, env=environment | {"NO_PROXY": "127.0.0.1"} | online, check=True, capture_output=True)
    server.shutdown()
    server.server_close()
    for has_torch in (True, False):
        offline = environment | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run([*command, "tower"], env=offline, capture_output=True, text=True)
        scale, loaded = done.stdout.split()
        assert (float(scale), loaded) == (pytest.approx(12), str(has_torch)), done.stderr


# What is refused


def refusal(encoder: EncoderIdentity) -> str:
    run = SimpleNamespace(encoded=SimpleNamespace(encoder=encoder))  # as much of a PreparedRun as is asked
    with pytest.raises((BundleError, ConfigError)) as caught:
        check_parameters(TrainConfig(run_dir="", tagger=TOWER), None, run)
    return str(caught.value)


def test_an_encoder_without_a_text_tower_is_refused_before_training(made):
    other = EncoderIdentity("efficientnet_lite2", "pretrained", "0", ())
    said = "the encoder efficientnet_lite2 has no text tower here; choose the tagger dual_encoder, or kept, or run 01_"
    assert refusal(other).startswith(said)
    vit = load_encoder(str(make_vision(made / "vit", "vit"))).identity
    assert "it holds a vit model, which reads no text: choose the tagger dual_encoder" in refusal(vit)
    wordless = load_encoder(str(make_vision(made / "wordless", "clip"))).identity
    assert "its tokenizer has 2 tokens, its model 99" in refusal(wordless)
    assert find_text_tower(load_encoder(str(make_towers(made / "clip", "clip"))).identity)[1]["scale"] == pytest.approx(
        12
    )


def test_the_folder_of_a_checkpoint_may_move_but_not_change(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    folder = make_towers(tmp_path / "first" / "model", "clip")
    encoder = load_encoder(str(folder))
    folder = folder.rename(tmp_path / "model")
    assert "first/model' as a vision checkpoint: there is no such folder" in refusal(encoder.identity)
    assert load_encoder(str(folder)).identity == encoder.identity  # which tells where it is now
    settings = (folder / "config.json").read_text()
    edit(folder / "config.json", projection_dim=8)
    assert "it is another one by now than the encoder was made from" in refusal(encoder.identity)
    (folder / "config.json").write_text(settings)
    vectors = load_tower(encoder).text_vectors(["dog"])
    shutil.rmtree(folder)  # by now all is in the cache
    np.testing.assert_array_equal(load_tower(encoder).text_vectors(["dog"]), vectors)
    (encoder.path.parent / TOKENIZER).write_text("{}")
    with pytest.raises(BundleError, match="holds a tag scorer that cannot be loaded"):
        load_tower(encoder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"tokenizers is not installed; install it with: pip install 'lcm\[tower\]'"):
        load_tower(encoder)


# A whole run

CAPTION = """
import sys
for name in ("torch", "transformers", "tensorflow", "keras"):
    sys.modules[name] = None
from lcm.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_takes_the_tower_along_and_its_bundle_needs_no_torch(made, tmp_path):
    """Then a run that goes on from it keeps it, with captions reranked by it."""
    quick = {"epochs": 1, "epoch_steps": 1, "meteor": False, "encoder": str(make_towers(made / "siglip2", "siglip2"))}
    data = make_data_set(tmp_path / "photos", 60, captions=2)
    given = quick | {"data_dir": str(data), "tagger": TOWER}
    folder = run(Preset("tower", ("01_prepare", "02_train", "03_evaluate"), {}), given, tmp_path / "run")
    manifest = Manifest.load(folder.bundle)
    assert f"- tags: text_tower over {manifest.encoder.name}\n" in (folder.bundle / MODEL_CARD).read_text()
    (tmp_path / "labels.txt").write_text("dog\nсобака\nein Hund\n狗\n", encoding="utf-8")
    asked = ["--labels", tmp_path / "labels.txt", "--scores", "probability", "--min-score", "0", "--json"]
    command = [sys.executable, "-c", CAPTION, "caption", "--captioner", folder.bundle, PHOTOS[0], *asked]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LCM_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert "the tagger text_tower does not know 狗; 3 of the 4 labels are scored" in done.stderr
    tags = dict(json.loads(done.stdout)["tags"])

    captioner = load_captioner(folder.bundle)
    tower, seen = captioner.tag_scorer, captioner.see(PHOTOS[0])
    labels = ["dog", "собака", "ein Hund"]
    logits = tower.scale * tower.text_vectors(labels) @ tower.image_vector(seen) + manifest.tagger["bias"]
    assert [tags[label] for label in labels] == pytest.approx(list(1 / (1 + np.exp(-logits))), abs=1e-5)
    shares = [score for _, score in captioner.describe(PHOTOS[0], labels=labels).tags]
    assert sum(shares) == pytest.approx(1)

    resumed = quick | {"data_dir": str(data), "start_from": str(folder.bundle), "tagger": "adapted"}
    resumed |= {"rerank_weight": 2.0}
    again = run(Preset("again", ("01_prepare", "02_train", "03_evaluate"), {}), resumed, tmp_path / "again").bundle
    assert (again / TEXT_TOWER).read_bytes() == (folder.bundle / TEXT_TOWER).read_bytes()
    assert load_captioner(again).tag_scorer.text_vectors(["dog"]).any()
