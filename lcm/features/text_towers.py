"""The text side of a CLIP or SigLIP checkpoint whose image side is an encoder, made into ONNX files beside it, once.

What serves them needs neither torch nor transformers: the package tokenizers cuts texts into tokens.

Shapes: B images, F numbers in the pooled features, K texts, T tokens, D numbers in a vector.
"""

import json
import string
from dataclasses import replace
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
READERS = {  # classes of transformers, of model and tokenizer; of a fixed size, SigLIP 2 is a SigLIP with another one
    "clip": ("CLIPModel", "CLIPTokenizer"),
    "siglip": ("SiglipModel", "SiglipTokenizer"),
    "siglip2": ("SiglipModel", "Siglip2Tokenizer"),
}
MANY_WORDS = 100_000  # of a table that is stored in 16 bits: SigLIP 2's, two thirds of its text side
PROBES = ("A dog", "Two cats' toys,  don't!", "Ein Hund läuft über die Straße", "½ собака 犬", "", "a long text " * 99)


def find_text_tower(encoder: EncoderIdentity) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an encoder's IMAGE_TOWER, TEXT_TOWER and TOKENIZER, and what taggers.TextTower needs to know.

    Raises ConfigError where it is of no checkpoint or that is not here, BundleError where that cannot be used.
    """
    folder = encoder_folder(encoder.name, encoder.weights)
    record, made = folder / f"{TOWER}.json", folder / RECORD
    if not encoder.checkpoint:
        raise ConfigError(f"the encoder {encoder.name} has no {TOWER}; choose the tagger dual_encoder, or CLIP or SigLIP 2")
    if not record.exists():
        checkpoint = f"{encoder.name.partition('@')[0]}@{encoder.checkpoint.revision}"
        if not encoder.checkpoint.revision:
            checkpoint = json.loads(made.read_text()).get(ORIGIN) if made.exists() else None
        if not checkpoint:
            raise ConfigError(
                f"the encoder {encoder.name} was made on another machine, from a folder: run 01_prepare with that, or "
                "choose the tagger kept or dual_encoder"
            )
        with FileLock(f"{folder}.lock"):
            write_atomic(record, json.dumps(_convert(checkpoint, encoder.source_sha256, folder)))
    return folder, json.loads(record.read_text())


def _convert(checkpoint: str, source_sha256: str, folder: Path) -> dict[str, Any]:
    """Write the three files; returns scale and bias (of SigLIP) of the logits, and the id of what is no token."""
    with checkpoints.opened(checkpoint, convert.VISION, "encoder,clip") as (source, torch, transformers):
        family = transformers.AutoConfig.from_pretrained(source, local_files_only=True).model_type
        settings = source / "tokenizer_config.json"
        named = json.loads(settings.read_text("utf-8")).get("tokenizer_class", "") if settings.exists() else ""
        if family == "siglip" and named.startswith(("Gemma", "Siglip2")):
            family = "siglip2"
        if family not in READERS:
            raise ValueError(f"it holds a {family} model, which reads no text: choose the tagger dual_encoder")
        if convert.source_sha256(source) != source_sha256:
            raise ValueError("it is another one by now than the encoder was made from")
        model_class, tokenizer_class = READERS[family]
        kind = replace(convert.VISION, model=model_class, tokenizer=tokenizer_class)
        model, _, tokenizer = checkpoints.load_parts(source, kind, torch, transformers)
        longest = model.config.text_config.max_position_embeddings
        _light_tokenizer(tokenizer, family, longest).save(str(folder / TOKENIZER))
        table = model.text_model.embeddings.token_embedding
        if table.num_embeddings > MANY_WORDS:
            table.half()  # widened when read
        project = getattr(model, "visual_projection", torch.nn.Identity())  # SigLIP has none

        def image_vectors(pooled):
            return torch.nn.functional.normalize(project(pooled), dim=-1)

        def text_vectors(tokens):
            return torch.nn.functional.normalize(model.get_text_features(tokens).pooler_output, dim=-1)

        pooled, tokens = torch.zeros(2, model.config.vision_config.hidden_size), torch.zeros(2, longest, dtype=torch.int64)
        convert.export(torch, project, image_vectors, pooled, ["vectors"], folder / IMAGE_TOWER)
        convert.export(torch, model, text_vectors, tokens, ["vectors"], folder / TEXT_TOWER, ("batch", "tokens"))
        bias = {"bias": model.logit_bias.item()} if hasattr(model, "logit_bias") else {}
        return {"scale": model.logit_scale.exp().item(), "unknown": tokenizer.unk_token_id} | bias


def _light_tokenizer(own: Any, family: str, longest: int) -> Any:
    """Return a checkpoint's tokenizer as one of the package tokenizers; raises ValueError where that cuts otherwise.

    SigLIP reads the last of always as many tokens, CLIP nothing behind the end of the text.
    """
    from tokenizers import Tokenizer

    light = _unigram(own) if family == "siglip" else Tokenizer.from_str(own.backend_tokenizer.to_str())
    light.enable_truncation(longest)
    light.no_padding()
    if family != "clip":
        light.enable_padding(
            direction=own.padding_side, pad_id=own.pad_token_id, pad_token=own.pad_token, length=longest
        )
    padding = "max_length" if family != "clip" else False
    its = own(list(PROBES), padding=padding, truncation=True, max_length=longest)["input_ids"]
    if its != [light.encode(text).ids for text in PROBES]:
        raise ValueError(f"its {type(own).__name__} does more than lcm knows of")
    return light


def _unigram(own: Any) -> Any:
    """Return the tokenizer of the first SigLIP: small letters without punctuation, cut by a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Regex, Tokenizer, models, normalizers, processors

    model = sentencepiece_model_pb2.ModelProto.FromString(Path(own.vocab_file).read_bytes())
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    light = Tokenizer(models.Unigram(pieces, model.trainer_spec.unk_id, model.trainer_spec.byte_fallback))
    steps = [normalizers.Lowercase(), *(normalizers.Replace(mark, "") for mark in string.punctuation)]
    steps += [normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap), normalizers.Strip()]
    steps += [normalizers.Replace(Regex(r"\s+"), "▁"), normalizers.Prepend("▁")]
    light.normalizer = normalizers.Sequence(steps)
    end = [(own.eos_token, own.eos_token_id)]
    light.post_processor = processors.TemplateProcessing(f"$A {own.eos_token}", special_tokens=end)
    return light
