"""Tiny checkpoints of CLIP and SigLIP 2, both sides, with real tokenizers learned from a few sentences."""

import json
import math
from pathlib import Path

from tests.fakes.tiny_vision import TOWER, VIT, make_vision

SENTENCES = [
    "a dog runs on the beach",
    "two men, riding bikes!",
    "a red square and a blue circle",
    "ein hund läuft am strand",
    "un chien court sur la plage",
    "собака бежит по пляжу",
]
LONGEST = {"clip": 24, "siglip2": 16}  # tokens
SPECIAL = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def make_towers(folder: Path, family: str) -> Path:
    """Write a checkpoint as published: a fixed-size SigLIP 2 is a SigLIP with the tokenizer of Gemma."""
    import torch
    import transformers

    make_vision(folder, family.rstrip("2"))  # for its image processor
    words, ids = {"clip": _clip_words, "siglip2": _siglip2_words}[family](folder)
    text = TOWER | {"intermediate_size": 96, "vocab_size": words, **ids}
    configs = {"text_config": text | {"max_position_embeddings": LONGEST[family]}, "vision_config": VIT}
    torch.manual_seed(1)
    if family == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(**configs, projection_dim=24, initializer_factor=8.0))
    else:
        configs["text_config"]["projection_size"] = VIT["hidden_size"]
        model = transformers.SiglipModel(transformers.SiglipConfig(**configs))
        torch.nn.init.constant_(model.logit_bias, -2.5)
    torch.nn.init.constant_(model.logit_scale, math.log(12))
    for weight in model.text_model.parameters():
        if weight.ndim > 1 and family != "clip":  # as they are drawn, texts are all alike
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder


def _clip_words(folder: Path) -> tuple[int, dict]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    ends = ["<|startoftext|>", "<|endoftext|>"]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=ends[1]))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])
    learner.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=200, end_of_word_suffix="</w>"))
    learned = json.loads(learner.to_str())["model"]
    words = {word: place for place, word in enumerate([*learned["vocab"], *ends])}
    (folder / "vocab.json").write_text(json.dumps(words))
    merges = (" ".join(pair) for pair in learned["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return len(words), {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}


def _siglip2_words(folder: Path) -> tuple[int, dict]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=200, special_tokens=[*SPECIAL.values()]))
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = SPECIAL | {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size(), {"eos_token_id": 1, "pad_token_id": 0}
