"""The translator: Marian checkpoints, for answers in languages that a captioner does not write.

A checkpoint's tokenizer says which languages it is for, as source_lang and target_lang; one that writes several has a
token for each, as ">>fra<<", which goes before the text.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from threading import Lock

from lcm.captioning import checkpoints
from lcm.data.text import PLAIN, language_code
from lcm.errors import ConfigError, require

MARIAN_CHECKPOINT = "Helsinki-NLP/opus-mt-en-fr"  # Tiedemann and Thottingal 2020, "OPUS-MT"; 0.3 GB
MARIAN = checkpoints.Kind(
    label="Marian",
    example=MARIAN_CHECKPOINT,
    model="MarianMTModel",
    processor="",
    tokenizer="MarianTokenizer",
    weights=("*.safetensors", "pytorch_model.bin"),  # most have no safetensors file
)
BEAM_WIDTH = 4
# Newer checkpoints name languages by three letters.
SHORT = {"eng": "en", "fra": "fr", "deu": "de", "spa": "es", "ita": "it", "por": "pt", "nld": "nl"}
PAIR = re.compile(r".*(?<![a-z])([a-z]{2,3})-([a-z]{2,3})")  # ends a checkpoint's name


class Translator:
    """Loaded checkpoints; safe to call from several threads."""

    def __init__(self, names: str):
        """Load checkpoints by their names on the model hub or their folders, separated by commas.

        Raises BundleError when one cannot be had or is no Marian, ConfigError when it does not say its languages or
        packages are missing.
        """
        require("sentencepiece", "clip")
        self._by_pair: dict[tuple[str, str], tuple[checkpoints.Checkpoint, str]] = {}
        self._lock = Lock()  # a tokenizer changes while it works
        for name in filter(None, map(str.strip, names.split(","))):
            loaded = checkpoints.load(name, MARIAN)
            its, named = loaded.tokenizer, PAIR.fullmatch(loaded.name)
            source = _code(its.source_lang) or (named[1] if named else "")
            prefixes = {_code(token.strip("<>")): f"{token} " for token in its.supported_language_codes}
            targets = prefixes or {_code(its.target_lang) or (named[2] if named else ""): ""}
            if not source or "" in targets:
                raise ConfigError(
                    f"the Marian checkpoint {name!r} says {its.source_lang!r} to {its.target_lang!r}; write two codes, "
                    "such as en and fr, as source_lang and target_lang in its tokenizer_config.json"
                )
            for target, prefix in targets.items():
                self._by_pair[source, target] = loaded, prefix

    def targets(self, source: str) -> tuple[str, ...]:
        """Return the languages that texts in `source` can be translated into."""
        return tuple(target for its_source, target in self._by_pair if its_source == source)

    def name(self, source: str, target: str) -> str:
        """Return the name of the checkpoint for these languages; raises ConfigError when there is none."""
        return self._find(source, target)[0].name

    def to_language(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return the translation of each text, each by itself: in a batch, it might be another one.

        Raises ConfigError when no checkpoint is for these languages.
        """
        checkpoint, prefix = self._find(source, target)
        with self._lock:
            return [_translate(checkpoint, prefix + text.translate(PLAIN)) for text in texts]

    def _find(self, source: str, target: str) -> tuple[checkpoints.Checkpoint, str]:
        if (source, target) not in self._by_pair:
            pairs = ", ".join(map("-".join, self._by_pair))
            raise ConfigError(
                f"received {source}-{target}; LCM_TRANSLATOR translates {pairs}: add a Marian checkpoint for it there"
            )
        return self._by_pair[source, target]


@cache
def load_translator(names: str) -> Translator | None:
    """Return the translator of these checkpoints, as LCM_TRANSLATOR names them, loaded once; None for no names."""
    return Translator(names) if names else None


def _translate(checkpoint: checkpoints.Checkpoint, text: str) -> str:
    model, tokenizer, longest = checkpoint.model, checkpoint.tokenizer, checkpoint.model.config.max_position_embeddings
    tokens = tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
    config = import_module("transformers").GenerationConfig(  # whatever the checkpoint says
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bad_words_ids=[[tokenizer.pad_token_id]],
        max_new_tokens=min(longest, 2 * tokens["input_ids"].shape[1] + 10)
        - 1,  # a translation that repeats itself ends
        num_beams=BEAM_WIDTH,
        do_sample=False,
    )
    with checkpoint.torch.inference_mode():
        (ids,) = model.generate(**tokens, generation_config=config)
    return tokenizer.decode(ids, skip_special_tokens=True, use_source_tokenizer=False).strip()


def _code(written: str | None) -> str:
    code = language_code(written or "")
    return SHORT.get(code, code)
