"""A tiny BLIP with a real tokenizer, saved as a checkpoint's folder; its captions are nonsense, its code is not."""

from pathlib import Path

SIDE = 32  # pixels
WORDS = ["dog", "cat", "runs", "sits", "red", "'", "s", "-", "the", "on", "mat", "##s", "t", "shirt", "man", "in"]
TOKENS = ["[PAD]", "a", "picture", "of", *WORDS, "field", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
END, START = TOKENS.index("[SEP]"), len(TOKENS)  # START and the one after it are the model's alone, as in BLIP
PROMPT = [START, 1, 2, 3]


def make_blip(folder: Path, model_class: str = "BlipForConditionalGeneration") -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": START, "sep_token_id": END, "pad_token_id": 0, "eos_token_id": 2}
    text = {"vocab_size": len(TOKENS) + 2, "max_position_embeddings": 32, "initializer_range": 0.3}
    config = transformers.BlipConfig(
        text_config=tower | ids | text,
        vision_config=tower | {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.5},
        initializer_range=0.5,  # or all pictures are nearly the same
    )
    getattr(transformers, model_class)(config).save_pretrained(folder)
    transformers.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*TOKENS, ""]))
    return folder
