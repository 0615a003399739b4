"""The text side of a CLIP or SigLIP 2 checkpoint whose image side is an encoder, made into ONNX files beside it, once.

What serves them needs neither torch nor transformers: the package tokenizers cuts texts into tokens.

Shapes: B images, F numbers in the pooled features, K texts, T tokens, D numbers in a vector.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from lcm.errors import ConfigError
from lcm.features import checkpoints, convert
from lcm.features.encoders import ORIGIN, RECORD, EncoderIdentity, encoder_folder
from lcm.paths import write_atomic

TOWER = "text_tower"  # as parameters and bundles call it
IMAGE_TOWER = "tag_image.onnx"  # pooled features [B, F] -> unit vectors [B, D]
TEXT_TOWER = "tag_text.onnx"  # tokens [K, T] -> unit vectors [K, D]
TOKENIZER = "tag_tokenizer.json"
READERS = {"clip": "CLIPModel", "siglip": "SiglipModel"}  # as SigLIP 2 of a fixed size calls itself
MANY_WORDS = 100_000  # of a table that is stored in 16 bits: SigLIP 2's, two thirds of its text side
PROBES = ["a dog", "two cats' toys,  don't!", "ein hund läuft über die straße", "½ собака 犬", "", "a long text " * 99]


def find_text_tower(encoder: EncoderIdentity) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an encoder's IMAGE_TOWER, TEXT_TOWER and TOKENIZER, and what else taggers.TextTower needs.

    Raises ConfigError where its checkpoint is not known, BundleError where that cannot be used.
    """
    folder = encoder_folder(encoder.name, encoder.weights)
    record, known = folder / f"{TOWER}.json", folder / RECORD
    if not record.exists():
        checkpoint = json.loads(known.read_text()).get(ORIGIN) if known.exists() else None
        if encoder.checkpoint and encoder.checkpoint.revision:
            checkpoint = f"{encoder.name.partition('@')[0]}@{encoder.checkpoint.revision}"
        if not checkpoint:
            raise ConfigError(
                f"the encoder {encoder.name} has no text tower here; choose the tagger dual_encoder, or kept, or run "
                "01_prepare with a checkpoint of CLIP or SigLIP 2, by its name on the hub or its folder, as the encoder"
            )
        with FileLock(f"{folder}.lock"):
            if not record.exists():
                print(f"converting the text tower of {encoder.name} to ONNX, once", file=sys.stderr)
                write_atomic(record, json.dumps(_convert(checkpoint, encoder.source_sha256, folder)))
    return folder, json.loads(record.read_text())


def _convert(checkpoint: str, source_sha256: str, folder: Path) -> dict[str, Any]:
    """Write the three files; returns scale and bias (of SigLIP) of the logits, and the id of what is no token."""
    with checkpoints.opened(checkpoint, convert.VISION, "encoder,clip") as (source, torch, transformers):
        family = transformers.AutoConfig.from_pretrained(source, local_files_only=True).model_type
        if family not in READERS:
            raise ValueError(f"it holds a {family} model, which reads no text: choose the tagger dual_encoder")
        if convert.source_sha256(source) != source_sha256:
            raise ValueError("it is another one by now than the encoder was made from")
        kind = replace(convert.VISION, model=READERS[family], tokenizer="AutoTokenizer")
        model, _, tokenizer = checkpoints.load_parts(source, kind, torch, transformers)
        longest = model.config.text_config.max_position_embeddings
        _light_tokenizer(tokenizer, family, longest).save(str(folder / TOKENIZER))
        if (table := model.text_model.embeddings.token_embedding).num_embeddings > MANY_WORDS:
            table.half()  # widened when read
        project = getattr(model, "visual_projection", torch.nn.Identity())  # SigLIP has none
        write, unit = partial(convert.export, torch, model), partial(torch.nn.functional.normalize, dim=-1)

        def read(tokens):
            return unit(model.get_text_features(tokens).pooler_output)

        pooled, tokens = torch.zeros(2, model.config.vision_config.hidden_size), torch.zeros(2, longest).long()
        write(lambda pooled: unit(project(pooled)), pooled, ("pooled", "vectors"), folder / IMAGE_TOWER)
        write(read, tokens, ("tokens", "vectors"), folder / TEXT_TOWER, ("batch", "tokens"))
        bias = {"bias": model.logit_bias.item()} if hasattr(model, "logit_bias") else {}
        return {"scale": model.logit_scale.exp().item(), "unknown": tokenizer.unk_token_id} | bias


def _light_tokenizer(own: Any, family: str, longest: int) -> Any:
    """Return a checkpoint's tokenizer as one of the package tokenizers; raises ValueError where that cuts otherwise.

    CLIP reads nothing behind the end of a text; SigLIP always as many tokens, and small letters alone: that of SigLIP 2
    is Gemma's, which does not say so (github.com/huggingface/transformers, pull request 43101).
    """
    from tokenizers import Tokenizer, normalizers

    if not hasattr(own, "backend_tokenizer"):
        raise ValueError(f"its {type(own).__name__} is not one of the package tokenizers; take CLIP or SigLIP 2")
    light = Tokenizer.from_str(own.backend_tokenizer.to_str())
    light.no_padding()
    light.enable_truncation(longest)
    if family == "siglip":
        light.normalizer = normalizers.Sequence([normalizers.Lowercase(), light.normalizer])
        filler = {"direction": own.padding_side, "pad_id": own.pad_token_id, "pad_token": own.pad_token}
        light.enable_padding(length=longest, **filler)
    padding = "max_length" if family == "siglip" else False
    its = own(PROBES, padding=padding, truncation=True, max_length=longest)["input_ids"]
    if its != [light.encode(text).ids for text in PROBES]:
        raise ValueError(f"its {type(own).__name__} does more than lcm knows of")
    return light
