"""Tiny checkpoints of the families of vision models that lcm takes encoders from, each with its own image processor."""

import json
from pathlib import Path

WIDTH = 64  # D
TOWER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
VIT = TOWER | {"intermediate_size": 96, "image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
CONVNEXT = {"hidden_sizes": [16, 32, 48, WIDTH], "depths": [1, 1, 1, 1], "image_size": 64, "initializer_range": 0.3}
DINO = TOWER | {"image_size": 56, "patch_size": 7}  # trained at 56 pixels, used at 28, as DINOv2 at 518 and 224
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}}
SQUEEZED = {"size": {"height": 32, "width": 32}, "resample": 2}

# Family: class of the whole model, its config, class of its image processor and its settings, grid positions.
CHECKPOINTS = {
    "siglip": ("Siglip", {"vision_config": VIT, "text_config": TEXT}, "Siglip", SQUEEZED, 16),
    "clip": (
        "CLIP",
        {"vision_config": VIT, "text_config": TEXT},
        "CLIP",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        16,
    ),
    "dinov2": ("Dinov2", DINO, "Bit", CROPPED, 16),
    "dinov2_with_registers": ("Dinov2WithRegisters", DINO, "Bit", CROPPED, 16),
    "dinov3_vit": ("DINOv3ViT", VIT | {"num_register_tokens": 2}, "ViT", SQUEEZED, 16),
    "convnext": ("ConvNext", CONVNEXT, "ConvNext", {"size": {"shortest_edge": 64}}, 4),
    "convnextv2": ("ConvNextV2", CONVNEXT, "ConvNext", {"size": {"shortest_edge": 384}}, 144),
    "vit": ("ViT", VIT, "ViT", SQUEEZED, 16),
}
CLASSIFIERS = ("convnext", "vit")  # published as models that classify, without what pools


def make_vision(folder: Path, family: str) -> Path:
    """Write a checkpoint of a family of CHECKPOINTS; its README names a licence."""
    import torch
    import transformers

    torch.manual_seed(0)
    name, config, processor, settings, _ = CHECKPOINTS[family]
    model = getattr(transformers, name + ("ForImageClassification" if family in CLASSIFIERS else "Model"))
    model(getattr(transformers, f"{name}Config")(**config)).save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessorPil")(**settings).save_pretrained(folder)
    if family == "dinov3_vit":  # as published: a class that needs torchvision
        path = folder / "preprocessor_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"image_processor_type": "DINOv3ViTImageProcessorFast"})
        )
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny model\n")
    return folder
