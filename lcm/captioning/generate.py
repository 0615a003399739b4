"""From image features to captions in words: the best one by beam search, perhaps reranked, and others drawn.

Shapes: B images, features [B, D] or [B, N, D], W texts of each image, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lcm.captioning.decoding import State, decode_beam, decode_nucleus
from lcm.captioning.tagging import Reranker
from lcm.data.text import Vocabulary
from lcm.features.cache import LabelledFeatures, map_in_order

PART = 32  # images of one beam search: more of them fall out of the cache of a core, fewer leave it idle
ROUNDS = 4  # of samples, at most: a model that is sure of its words has few sentences to give


class Decoder(Protocol):
    """What turns features into words: a bundle, or a model in training."""

    vocabulary: Vocabulary

    def start(self, features: np.ndarray) -> State:
        """Return the state before the first word, of one text an image."""
        ...

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return log-probabilities [B, W, V] of the word after each text's last, [B, W], and the next state."""
        ...


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption in words, and how probable the model found them."""

    text: str
    mean_log_prob: float  # nats a word, END counted


def best_captions(
    decoder: Decoder, features: np.ndarray, beam_width: int, max_words: int, reranker: Reranker | None = None
) -> list[GeneratedCaption]:
    """Return the best caption that beam search finds for each image: the most probable, or what `reranker` chooses."""
    found = decode_beam(decoder.step, decoder.start(features), max_words, beam_width)
    texts = [[decoder.vocabulary.decode(one.token_ids) for one in hypotheses] for hypotheses in found]
    best = [0] * len(found)
    if reranker and found:
        pooled = features if features.ndim == 2 else features.mean(1)  # as encoders do: a mean over the grid
        best = reranker.choose(pooled, texts, [[one.score_at(reranker.length_power) for one in each] for each in found])
    return [
        GeneratedCaption(each[place], hypotheses[place].mean_log_prob)
        for each, hypotheses, place in zip(texts, found, best, strict=True)
    ]


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
        drawn = decode_nucleus(decoder.step, state.of_images(lacking), max_words, numbers)
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
    reranker: Reranker | None = None,
    progress: bool = True,
) -> tuple[list[list[str]], list[float]]:
    """Caption images from features that are encoded already, a part on each core.

    Returns each image's captions, the best first, then `samples` others, and the mean log-probability of each best one.
    """

    def work(places: Sequence[int]) -> tuple[list[list[str]], list[float]]:
        features = labelled.read(np.array(places))
        best = best_captions(decoder, features, beam_width, max_words, reranker)
        captions = add_samples(decoder, features, [one.text for one in best], samples, max_words)
        return captions, [one.mean_log_prob for one in best]

    captions, mean_log_probs = [], []
    with tqdm(total=len(labelled), desc="caption", unit=" images", mininterval=1, disable=not progress) as shown:
        for its_captions, its_log_probs in map_in_order(work, range(len(labelled)), PART):
            captions += its_captions
            mean_log_probs += its_log_probs
            shown.update(len(its_captions))
    return captions, mean_log_probs
