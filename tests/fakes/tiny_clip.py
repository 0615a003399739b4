"""A tiny CLIP with a real tokenizer, saved as a checkpoint's folder."""

import json
import math
from pathlib import Path

SIDE = 32  # pixels
WIDTH = 24  # D
LONGEST = 16  # tokens
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
MERGES = ["d o", "do g</w>", "c a", "ca t</w>", "t h", "th e</w>", "o f</w>"]


def vocabulary() -> dict[str, int]:
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(merge.replace(" ", "") for merge in MERGES)]
    return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def make_clip(folder: Path) -> Path:
    """Write a checkpoint as older ones are: processor and tokenizer in own files, the end token said to be 2."""
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
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return folder
