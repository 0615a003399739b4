"""BLIP, the pretrained captioner to compare with: any checkpoint of it, by name or folder, through transformers.

Knows how BLIP's own service captions (github.com/salesforce/BLIP, predict.py and models/blip.py): which prompt, which
search, which sampling. Refuses to know where checkpoints are found, which is pretrained.py's, and how tags are scored.

Shapes: N image positions, D numbers in a vector, P ids of the prompt, S samples, T ids of a text, V words.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lcm.captioning import pretrained
from lcm.captioning.decoding import draw
from lcm.captioning.describing import BaseCaptioner, Source
from lcm.captioning.scorers import load_tag_scorer
from lcm.captioning.tagging import Photo
from lcm.captioning.writing import ROUNDS
from lcm.data.vocabulary import join_words, standardise

BLIP_CHECKPOINT = "Salesforce/blip-image-captioning-base"  # Li et al. 2022, arXiv 2201.12086; 1.0 GB
BLIP = pretrained.Kind(
    label="BLIP",
    model_type="blip",
    model_class="BlipForConditionalGeneration",
    words=("vocab.txt",),
    attention="eager",
    pickles=True,  # the checkpoint above has no safetensors file
    advice=(
        f"Give a checkpoint's name on the model hub, such as {BLIP_CHECKPOINT} (needs a network, once), or a folder "
        f"that holds one, as blip:FOLDER; to make it, on a machine with a network: hf download {BLIP_CHECKPOINT} "
        "--local-dir blip --include '*.json' --include '*.txt' --include '*.safetensors' --include pytorch_model.bin"
    ),
)
PROMPT = "a picture of"  # what every caption went on from in training; it is no part of the answer
MAX_TOKENS, MIN_TOKENS = 20, 5  # of a text, the prompt's four counted: predict.py's max_length and min_length
BEAM_WIDTH = 3
NUCLEUS = 0.9
REPETITION_PENALTY = 1.1  # of samples alone
_APART = re.compile(r" ?(['\u2019-]) ?")  # the tokenizer parts "man's" and "t-shirt" into three


class BlipCaptioner(BaseCaptioner):
    """A loaded BLIP; safe to call from several threads. It captions one image at a time, in float32."""

    def __init__(self, checkpoint: str = BLIP_CHECKPOINT, tagger: str | None = None):
        """Load a checkpoint: a folder that holds one, or a name on the model hub, downloaded on first use.

        Raises BundleError when it cannot be had or is no BLIP that captions, ConfigError when the packages are missing.
        """
        self.tag_scorer = load_tag_scorer(tagger)
        self._torch, transformers = pretrained.import_quietly()
        with pretrained.explaining(checkpoint, BLIP):
            folder = pretrained.find(checkpoint, BLIP)
            model = pretrained.load_model(folder, BLIP, self._torch, transformers)
            with pretrained.reading(folder, "image processor (preprocessor_config.json)"):
                self._processor = transformers.BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
                pretrained.check_pictures(model.config.vision_config, self._processor)
            with pretrained.reading(folder, "tokenizer (tokenizer.json or vocab.txt)"):
                self._tokenizer = transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
                _check_texts(model.config.text_config, self._tokenizer)
        self.name = f"blip:{pretrained.name_of(checkpoint)}"
        self._eye, self._writer = model.vision_model, model.text_decoder
        ids = model.config.text_config
        self._end = ids.sep_token_id
        self._writer.generation_config = transformers.GenerationConfig(  # whatever the checkpoint says of lengths
            eos_token_id=self._end, pad_token_id=ids.pad_token_id, max_length=MAX_TOKENS, min_length=MIN_TOKENS
        )
        prompt = self._tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
        self._prompt = self._torch.tensor([[ids.bos_token_id, *prompt]])  # [1, P]

    def _write(self, image: Source, samples: int) -> tuple[Photo, list[str]]:
        photo = Photo(image, {})
        pixels = self._processor(images=photo.open(), return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            seen = self._eye(pixel_values=pixels).last_hidden_state  # [1, N, D]
            ((caption, _),) = self._generate(seen, 1, num_beams=BEAM_WIDTH)
            return photo, self._add_samples(caption, seen, samples)

    def _add_samples(self, caption: str, seen: Any, samples: int) -> list[str]:
        """Return the caption and up to `samples` others, drawn as writing.add_samples draws them."""
        captions = {caption: None}
        for first in range(0, ROUNDS * samples, samples or 1):
            if len(captions) > samples:
                break
            drawing = _Drawing(range(first, first + samples), self._prompt.shape[1], self._torch)
            drawn = self._generate(seen, samples, repetition_penalty=REPETITION_PENALTY, logits_processor=[drawing])
            captions |= dict.fromkeys(text for text, ended in drawn if ended and text)
        return list(captions)[: 1 + samples]

    def _generate(self, seen: Any, texts: int, **settings: Any) -> list[tuple[str, bool]]:
        """Return texts of what is seen [1, N, D], in the words of all captions, and whether they came to an end."""
        written = self._writer.generate(
            input_ids=self._prompt.expand(texts, -1),
            encoder_hidden_states=seen.expand(texts, -1, -1),
            encoder_attention_mask=self._torch.ones(texts, seen.shape[1], dtype=self._torch.long),
            do_sample=False,
            **settings,
        )
        rows = written[:, self._prompt.shape[1] :].tolist()
        return [(self._read(row), self._end in row) for row in rows]

    def _read(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return join_words(standardise(_APART.sub(r"\1", text)))


class _Drawing:
    """Makes a greedy search draw from the nucleus: rules out all words but the one that is drawn.

    A sample's number seeds its draws, as decoding.decode_nucleus has it: torch's own draws hang on one state of the
    whole process, and so on what other threads do.
    """

    def __init__(self, numbers: Sequence[int], prompt_length: int, torch: Any):
        self._draws = np.stack([np.random.default_rng(number).random(MAX_TOKENS) for number in numbers])  # [S, T]
        self._prompt_length, self._torch = prompt_length, torch

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the scores [S, V] that transformers chooses the words after `input_ids` [S, T] by."""
        log_probs = scores.log_softmax(-1).numpy()
        words = draw(log_probs, self._draws[:, input_ids.shape[1] - self._prompt_length], NUCLEUS)
        chosen = self._torch.full_like(scores, -self._torch.inf)
        chosen[range(len(words)), words.tolist()] = 0.0
        return chosen


def _check_texts(model: Any, tokenizer: Any) -> None:
    """A text ends with what the tokenizer has for it; the model's start word may be unknown to the tokenizer."""
    known = max(tokenizer.get_vocab().values()) + 1  # without its files a tokenizer comes up empty
    if known > model.vocab_size or tokenizer.sep_token_id != model.sep_token_id:
        found = f"({known:,} tokens, end token {tokenizer.sep_token_id})"
        raise pretrained.UnusableError(
            f"its tokenizer {found} is not its model's ({model.vocab_size:,} tokens, end token {model.sep_token_id})"
        )
