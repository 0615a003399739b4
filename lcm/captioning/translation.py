"""The translator: Marian checkpoints, for answers in languages that a captioner does not write.

A checkpoint's name on the hub, or its tokenizer's source_lang and target_lang, say which languages it is for; one that
writes several has a token for each, as ">>fra<<", which goes before the text.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from threading import Lock

from lcm.data.text import PLAIN, language_code
from lcm.errors import ConfigError, require
from lcm.features import checkpoints

MARIAN = checkpoints.Kind(
    label="Marian",
    example="Helsinki-NLP/opus-mt-en-fr",  # Tiedemann and Thottingal 2020, "OPUS-MT"; 0.3 GB
    model="MarianMTModel",
    processor="",
    tokenizer="MarianTokenizer",
    weights=("*.safetensors", "pytorch_model.bin"),  # most have no safetensors file
)
BEAM_WIDTH = 4
OPUS_MT = re.compile(r"(?:.*/)?opus-mt-(?:.*-)?([a-z]{2,3})-([a-z]{2,3})")  # names of the hub; settings may have:
SHORT = {"eng": "en", "fra": "fr", "deu": "de", "spa": "es", "ita": "it", "por": "pt", "nld": "nl"}


class Translator:
    """Loaded checkpoints; safe to call from several threads."""

    def __init__(self, names: str):
        """Load checkpoints by their names on the model hub or their folders, separated by commas.

        Raises what checkpoints.load raises, and ConfigError for one that does not say its languages.
        """
        self._by_pair: dict[tuple[str, str], tuple[checkpoints.Checkpoint, str]] = {}
        self._lock = Lock()  # a tokenizer changes while it works
        for name in filter(None, map(str.strip, names.split(","))):
            require("sentencepiece", "clip")
            loaded = checkpoints.load(name, MARIAN)
            its, named = loaded.tokenizer, OPUS_MT.fullmatch(loaded.name)
            source, target = named.groups() if named else map(_code, (its.source_lang, its.target_lang))
            prefixes = {_code(token.strip("<>")): f"{token} " for token in its.supported_language_codes} or {target: ""}
            if not source or not any(prefixes):
                raise ConfigError(
                    f"the Marian checkpoint {name!r} says {its.source_lang!r} to {its.target_lang!r}; write two codes, "
                    "such as en and fr, as source_lang and target_lang in its tokenizer_config.json"
                )
            self._by_pair |= {(source, code): (loaded, prefix) for code, prefix in prefixes.items() if code}
        self.name = ", ".join(dict.fromkeys(loaded.name for loaded, _ in self._by_pair.values()))

    def targets(self, source: str) -> tuple[str, ...]:
        """Return the languages that texts in `source` can be translated into."""
        return tuple(target for its_source, target in self._by_pair if its_source == source)

    def to_language(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return each text in one of targets(source), translated by itself: in a batch, it might be another one."""
        checkpoint, prefix = self._by_pair[source, target]
        with self._lock:
            return [_translate(checkpoint, prefix + text.translate(PLAIN)) for text in texts]


@cache
def load_translator(names: str) -> Translator:
    """Return the translator of these checkpoints, as LCM_TRANSLATOR names them; loaded once. No names: of nothing."""
    return Translator(names)


def _translate(checkpoint: checkpoints.Checkpoint, text: str) -> str:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    longest = model.config.max_position_embeddings
    tokens = tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
    config = import_module("transformers").GenerationConfig(  # whatever the checkpoint says
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bad_words_ids=[[tokenizer.pad_token_id]],
        max_new_tokens=min(longest - 1, 2 * tokens["input_ids"].shape[1] + 10),  # the end of one that repeats itself
        num_beams=BEAM_WIDTH,
    )
    with checkpoint.torch.inference_mode():
        (ids,) = model.generate(**tokens.to(checkpoint.device), generation_config=config)
    return tokenizer.decode(ids, skip_special_tokens=True, use_source_tokenizer=False).strip()


def _code(written: str | None) -> str:
    code = language_code(written or "")
    return SHORT.get(code, code)
