"""A tiny Marian with a real tokenizer, saved as a checkpoint's folder; it has learned a few translations by heart."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

EN_FR = {
    "a red square": "un carré rouge",
    "a green square": "un carré vert",
    "a man's dog": "le chien d'un homme",
    "a red": "un rouge",
}


def save_pieces(path: Path, texts: list[str]) -> list[str]:
    """Train a SentencePiece model on the texts, as each Marian has one a side; returns its pieces."""
    import sentencepiece

    model = io.BytesIO()
    options = {"vocab_size": 60, "hard_vocab_limit": False, "character_coverage": 1.0, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **options)
    path.write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]


def make_marian(folder: Path, pairs: Mapping[str, str] = EN_FR, source: str = "en", target: str = "fr") -> Path:
    """Write a checkpoint as those of OPUS-MT are; with a target such as ">>fra<<", this token is in its vocabulary."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    sides = {"source.spm": list(pairs), "target.spm": list(pairs.values())}
    pieces = [piece for name, texts in sides.items() for piece in save_pieces(folder / name, texts)]
    known = dict.fromkeys(["</s>", "<unk>", *pieces, *([target] if ">>" in target else []), "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(known)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": source, "target_lang": target}))
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    settings = {"vocab_size": len(known), "pad_token_id": len(known) - 1, "decoder_start_token_id": len(known) - 1}
    settings |= {
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "d_model": 32,
        "max_position_embeddings": 64,
        "dropout": 0.0,
    }
    for side in ("encoder", "decoder"):
        settings |= {f"{side}_layers": 1, f"{side}_ffn_dim": 64, f"{side}_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.MarianConfig(**settings)
    model = transformers.MarianMTModel(config)
    prefix = f"{target} " if ">>" in target else ""
    batch = tokenizer([prefix + text for text in pairs], padding=True, return_tensors="pt")
    labels = tokenizer(text_target=list(pairs.values()), padding=True, return_tensors="pt")["input_ids"]
    labels[labels == config.pad_token_id] = -100
    optimizer, threads = torch.optim.Adam(model.parameters(), 0.01), torch.get_num_threads()
    torch.set_num_threads(1)  # or they wait for each other
    for _ in range(100):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss < 0.05
    model.save_pretrained(folder)
    return folder
