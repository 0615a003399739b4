"""Sentences: from image features to captions in words.

Knows that the best caption is found by beam search, and that others are drawn from the model. Refuses to know
pictures, files and tags.

Shapes: B images, features [B, D] or [B, N, D].
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lcm.captioning.decoding import State, decode_beam, decode_nucleus
from lcm.data.vocabulary import Vocabulary
from lcm.encoding.prepared import LabelledFeatures

IMAGES_AT_ONCE = 256  # bounds the memory of a beam search over many images
ROUNDS = 4  # of samples, at most: a model that is sure of its words has few sentences to give


class Decoder(Protocol):
    """What turns features into words: a bundle, or a model in training."""

    vocabulary: Vocabulary

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word."""
        ...

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities of the next word, and the next state."""
        ...


def best_captions(decoder: Decoder, features: np.ndarray, beam_width: int, max_words: int) -> list[str]:
    """Return the best caption that beam search finds for each image."""
    found = decode_beam(decoder.step, decoder.start(features), max_words, beam_width)
    return [decoder.vocabulary.decode(hypotheses[0].token_ids) for hypotheses in found]


def add_samples(
    decoder: Decoder, features: np.ndarray, best: Sequence[str], samples: int, max_words: int
) -> list[list[str]]:
    """Return each image's best caption and up to `samples` other captions, drawn from the model, all different.

    Samples are numbered from 0, the numbers seed them, and the first that end and differ are taken: an image gets the
    same ones in any company. After ROUNDS times `samples` numbers there are no more to come.
    """
    captions = [[caption] for caption in best]
    if not samples:
        return captions
    state = decoder.start(features)
    for first in range(0, ROUNDS * samples, samples):
        lacking = [place for place, found in enumerate(captions) if len(found) <= samples]
        if not lacking:
            break
        numbers = range(first, first + samples)
        drawn = decode_nucleus(decoder.step, tuple(array[lacking] for array in state), max_words, numbers)
        for place, hypotheses in zip(lacking, drawn, strict=True):
            texts = [decoder.vocabulary.decode(one.token_ids) for one in hypotheses if one.ended]
            different = dict.fromkeys([*captions[place], *filter(None, texts)])
            captions[place] = list(different)[: samples + 1]
    return captions


def caption_features(
    decoder: Decoder,
    labelled: LabelledFeatures,
    beam_width: int,
    max_words: int,
    samples: int = 0,
    progress: bool = True,
) -> list[list[str]]:
    """Return each image's captions, the best first, then `samples` others, from features that are encoded already."""
    captions = []
    starts = range(0, len(labelled), IMAGES_AT_ONCE)
    for start in tqdm(starts, desc="caption", unit=f" x {IMAGES_AT_ONCE} images", disable=not progress):
        features = labelled.read(slice(start, start + IMAGES_AT_ONCE))
        best = best_captions(decoder, features, beam_width, max_words)
        captions += add_samples(decoder, features, best, samples, max_words)
    return captions
