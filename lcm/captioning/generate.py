"""From image features to captions in words: the best one by beam search, perhaps reranked, and others drawn.

Shapes: B images, features [B, D] or [B, N, D], W texts of each image, V words.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from tqdm import tqdm

from lcm.captioning.decoding import State, decode_beam, decode_nucleus, ruling_out
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


def write_captions(
    decoder: Decoder,
    features: np.ndarray,
    languages: Sequence[str],
    beam_width: int,
    max_words: int,
    samples: int = 0,
    reranker: Reranker | None = None,
    pooled: np.ndarray | None = None,
) -> tuple[list[list[str]], list[float]]:
    """Return each image's captions, the best first, and the log-probability a word of each best one, END counted.

    `languages` [B] are those to write in, of the decoder's vocabulary. The best is the most probable that beam search
    finds, or what `reranker` chooses among its hypotheses by `pooled` features [B, D] (None: these are `features`). Up
    to `samples` others are drawn from the model, all different: samples are numbered from 0, the numbers seed them, and
    the first that end and differ are taken, so that an image gets the same ones in any company. After ROUNDS times
    `samples` numbers there are no more to come.
    """
    vocabulary = decoder.vocabulary
    step = ruling_out(vocabulary.never_written, decoder.step)
    state, starts = decoder.start(features), np.array([vocabulary.starts[language] for language in languages])
    found = decode_beam(step, state, starts, max_words, beam_width)
    texts = [[vocabulary.decode(one.token_ids) for one in hypotheses] for hypotheses in found]
    best = [0] * len(found)
    if reranker and found:
        seen = features if pooled is None else pooled
        best = reranker.choose(seen, texts, [[one.score_at(reranker.length_power) for one in each] for each in found])
    captions = [[each[place]] for each, place in zip(texts, best, strict=True)]
    for turn in range(ROUNDS if samples else 0):
        lacking = [place for place, each in enumerate(captions) if len(each) <= samples]
        if not lacking:
            break
        drawn = decode_nucleus(
            step, state.of_images(lacking), starts[lacking], max_words, range(turn * samples, (turn + 1) * samples)
        )
        for place, hypotheses in zip(lacking, drawn, strict=True):
            more = [vocabulary.decode(one.token_ids) for one in hypotheses if one.ended]
            captions[place] = list(dict.fromkeys([*captions[place], *filter(None, more)]))[: samples + 1]
    return captions, [hypotheses[place].score_at(1) for hypotheses, place in zip(found, best, strict=True)]


def caption_features(
    decoder: Decoder,
    labelled: LabelledFeatures,
    beam_width: int,
    max_words: int,
    samples: int = 0,
    reranker: Reranker | None = None,
    pooled: LabelledFeatures | None = None,
    progress: bool = True,
) -> tuple[list[list[str]], list[float]]:
    """Caption images from features that are encoded already, each in its language, a part on each core.

    `pooled` are the same images' for a reranker (None: these are `labelled`). Returns what write_captions does.
    """

    def work(places: Sequence[int]) -> tuple[list[list[str]], list[float]]:
        at, languages = np.array(places), [labelled.images[place].language for place in places]
        seen = pooled.read(at) if pooled else None
        return write_captions(decoder, labelled.read(at), languages, beam_width, max_words, samples, reranker, seen)

    captions, mean_log_probs = [], []
    with tqdm(total=len(labelled), desc="caption", unit=" images", disable=not progress) as shown:
        for its_captions, its_log_probs in map_in_order(work, range(len(labelled)), PART):
            captions += its_captions
            mean_log_probs += its_log_probs
            shown.update(len(its_captions))
    return captions, mean_log_probs
