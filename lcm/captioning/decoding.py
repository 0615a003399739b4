"""Decoding: from image features to captions in words, by beam search and nucleus sampling, for many images at once.

A step takes the last ids and a state, and gives log-probabilities and the next state; it may be a bundle, a Keras model
or a table in a test. The best caption is found by beam search and perhaps reranked, others are drawn.

Shapes: B images, features [B, D] or [B, N, D], W texts that are being written of each image (beams or samples), V
words in the vocabulary, T words so far, S samples an image, R texts in all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from tqdm import tqdm

from lcm.captioning.tagging import Reranker
from lcm.data.text import END, PAD, START, UNKNOWN, Vocabulary
from lcm.features.cache import LabelledFeatures, map_in_order


@dataclass(frozen=True)
class State:
    """What decoding knows so far: of each image, and of each text that is being written about it."""

    images: tuple[np.ndarray, ...]  # each [B, ...]; a step only reads them
    rows: tuple[np.ndarray, ...]  # each [B, W, ...]; a step replaces them

    def __len__(self) -> int:
        return len(self.images[0])

    def of_images(self, chosen: np.ndarray) -> Self:
        """Return the state of some images, by place or by mask [B]; where these are all, it is not copied."""
        every = np.arange(len(self))
        if np.array_equal(every[chosen], every):
            return self
        return type(self)(tuple(array[chosen] for array in self.images), tuple(array[chosen] for array in self.rows))

    def of_texts(self, chosen: np.ndarray) -> Self:
        """Return the state with other texts of each image: `chosen` [B, W'] are places among the W there are."""
        every = np.arange(len(self))[:, None]
        return type(self)(self.images, tuple(array[every, chosen] for array in self.rows))


Step = Callable[[np.ndarray, State], tuple[np.ndarray, State]]  # ids [B, W], state -> log-probs [B, W, V], next state

# A caption's score is its log-probability / length ** LENGTH_POWER, after Wu et al., "Google's Neural Machine
# Translation System" (2016), equation 14.
LENGTH_POWER = 0.9
NUCLEUS = 0.7  # probability that samples are drawn from: on dev, 0.5 and 0.9 gave worse key words


@dataclass(frozen=True)
class Hypothesis:
    """A caption as ids, without its start token and END."""

    token_ids: tuple[int, ...]
    log_prob: float  # of all its words, END included where it was written
    ended: bool  # False: END was not reached within max_words; no word is cut for it

    @property
    def score(self) -> float:
        """The log-probability, normalised by length: what beam search goes by."""
        return self.score_at(LENGTH_POWER)

    def score_at(self, length_power: float) -> float:
        """Return the log-probability / length ** `length_power`: less favours the short, 1 is the mean of its words."""
        length = max(len(self.token_ids) + self.ended, 1)  # END counts
        return self.log_prob / length**length_power


def empty_rows(images: int, shapes: Sequence[tuple[int | None, ...]]) -> tuple[np.ndarray, ...]:
    """Return the rows [B, 1, *shape] of a state before the first word, zeros.

    None is an axis that grows with the words written, as a cache of keys does: it is 0 long.
    """
    return tuple(np.zeros((images, 1, *(size or 0 for size in shape)), np.float32) for shape in shapes)


def written_with(ids: np.ndarray, step: Step) -> Step:
    """Return the step over some ids alone, by their places: the reserved ones with a start token, then words.

    Of the reserved ones, only END has a probability: no caption may hold the others.
    """

    def restricted(last: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        log_probs, state = step(ids[last], state)
        log_probs = np.take(log_probs, ids, axis=-1)
        log_probs[..., [PAD, START, UNKNOWN]] = -np.inf
        return log_probs, state

    return restricted


def decode_beam(step: Step, state: State, max_words: int, beam_width: int) -> list[list[Hypothesis]]:
    """Keep the `beam_width` most probable beginnings at each step, from a state of one text an image.

    Captions begin after START. Returns up to `beam_width` hypotheses an image, best score first. An image is done when
    its hypotheses that have ended all score at least as well as its beginnings do so far.
    """
    ended: list[list[Hypothesis]] = [[] for _ in range(len(state))]
    active = np.arange(len(ended))  # images that still have something to write
    written = np.zeros((len(ended), 1, 0), dtype=np.int64)  # [B, W, T]
    log_prob = np.zeros((len(ended), 1))  # [B, W]
    last = np.full((len(ended), 1), START)
    while written.shape[2] < max_words and len(active):
        log_probs, state = step(last, state)
        beams, words, totals = _best_continuations(log_prob, log_probs, 2 * beam_width)
        for row, slot in np.argwhere((words == END) & np.isfinite(totals)):
            beginning = tuple(written[row, beams[row, slot]].tolist())
            ended[active[row]].append(Hypothesis(beginning, float(totals[row, slot]), ended=True))
        totals = np.where(words == END, -np.inf, totals)
        every = np.arange(len(active))[:, None]
        order = np.argsort(-totals, axis=1, kind="stable")[:, :beam_width]  # a missing one has probability 0
        beams, words, log_prob = beams[every, order], words[every, order], totals[every, order]  # each [B, W]
        written = np.concatenate([written[every, beams], words[:, :, None]], axis=2)
        best_now = log_prob.max(1) / written.shape[2] ** LENGTH_POWER
        open_images = np.array(
            [_can_improve(ended[image], best_now[row], beam_width) for row, image in enumerate(active)]
        )
        active, written, log_prob = active[open_images], written[open_images], log_prob[open_images]
        state = state.of_images(open_images).of_texts(beams[open_images])
        last = written[:, :, -1]
    for row, text in np.argwhere(np.isfinite(log_prob)):
        words = tuple(written[row, text].tolist())
        ended[active[row]].append(Hypothesis(words, float(log_prob[row, text]), ended=False))
    return [sorted(hypotheses, key=lambda one: -one.score)[:beam_width] for hypotheses in ended]


def decode_nucleus(
    step: Step, state: State, max_words: int, numbers: Sequence[int], nucleus: float = NUCLEUS
) -> list[list[Hypothesis]]:
    """Draw a caption for each of the `numbers`, from a state of one text an image; returns them in order, by image.

    Each word is drawn among the fewest words that together have the probability `nucleus` (Holtzman et al., "The
    Curious Case of Neural Text Degeneration", 2020). A sample's number seeds its draws, the same for every image:
    an image's samples depend on nothing but the image. It is worked on until all its samples have ended.
    """
    samples, images = len(numbers), len(state)
    draws = np.stack([np.random.default_rng(number).random(max_words) for number in numbers])  # [S, max_words]
    state = state.of_texts(np.zeros((images, samples), dtype=np.int64))
    written = np.full((images, samples, max_words), END)
    log_prob = np.zeros((images, samples))
    active = np.arange(images)  # those that still have something to write
    last = np.full((images, samples), START)
    for place in range(max_words):
        if not len(active):
            break
        log_probs, state = step(last, state)
        rows, texts = np.nonzero(last != END)  # each [R]
        words = draw(log_probs[rows, texts], draws[texts, place], nucleus)
        log_prob[active[rows], texts] += log_probs[rows, texts, words]
        last = np.full(last.shape, END)
        last[rows, texts] = words
        written[active, :, place] = last
        unfinished = (last != END).any(1)
        active, last, state = active[unfinished], last[unfinished], state.of_images(unfinished)
    return [
        [
            Hypothesis(tuple(ids[ids != END].tolist()), float(total), ended=bool(ids[-1] == END))
            for ids, total in zip(*of_image, strict=True)
        ]
        for of_image in zip(written, log_prob, strict=True)
    ]


def draw(log_probs: np.ndarray, draws: np.ndarray, nucleus: float) -> np.ndarray:
    """Return a word for each row of `log_probs` [R, V] where `draws` [R], in 0 to 1, falls in its nucleus."""
    drawn = []
    for row, number in zip(np.exp(log_probs, dtype=np.float64), draws, strict=True):
        total = row.sum()  # less than 1: some words are ruled out
        # All words below this together have less than the nucleus leaves: no need to sort them, which takes longest.
        some = np.flatnonzero(row >= (1 - nucleus) * total / len(row))
        some = some[np.argsort(-row[some], kind="stable")]
        cumulated = np.cumsum(row[some])
        last = min(np.searchsorted(cumulated, nucleus * total), len(some) - 1)
        drawn.append(some[min(np.searchsorted(cumulated, number * cumulated[last], side="right"), last)])
    return np.array(drawn)


def _best_continuations(
    log_prob: np.ndarray, log_probs: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the `count` best (beam, word, total log-probability) of each image, each [B, count], best first."""
    images, width, vocabulary_size = log_probs.shape
    totals = (log_prob[:, :, None] + log_probs).reshape(images, width * vocabulary_size)
    count = min(count, totals.shape[1])
    every = np.arange(images)[:, None]
    best = np.argpartition(totals, -count, axis=1)[:, -count:]
    best = best[every, np.argsort(-totals[every, best], axis=1, kind="stable")]
    return best // vocabulary_size, best % vocabulary_size, totals[every, best]


def _can_improve(ended: list[Hypothesis], best_now: float, beam_width: int) -> bool:
    """Whether another step may give one of the `beam_width` best hypotheses."""
    if not np.isfinite(best_now):
        return False
    return len(ended) < beam_width or best_now > sorted((one.score for one in ended), reverse=True)[beam_width - 1]


# From features to captions in words


PART = 32  # images of one beam search: more of them fall out of the cache of a core, fewer leave it idle
ROUNDS = 4  # of samples, at most: a model that is sure of its words has few sentences to give


class Decoder(Protocol):
    """What turns features into words: a bundle, or a model in training."""

    vocabulary: Vocabulary
    start: Callable[[np.ndarray], State]  # features -> the state before the first word, of one text an image
    step: Step


def write_captions(
    decoder: Decoder,
    features: np.ndarray,
    language: str,
    beam_width: int,
    max_words: int,
    samples: int = 0,
    reranker: Reranker | None = None,
    pooled: np.ndarray | None = None,
) -> tuple[list[list[str]], list[float]]:
    """Return each image's captions, the best first, and the log-probability a word of each best one, END counted.

    `language` is one of the decoder's vocabulary, and no word of another is written. The best is the most probable that
    beam search finds, or what `reranker` chooses among its hypotheses by `pooled` features [B, D] (None: these are
    `features`). Up to `samples` others are drawn from the model, all different: samples are numbered from 0, the
    numbers seed them, and the first that end and differ are taken, so that an image gets the same ones in any company.
    After ROUNDS times `samples` numbers there are no more to come.
    """
    ids = decoder.vocabulary.ids_in[language]
    step, state = written_with(ids, decoder.step), decoder.start(features)

    def text_of(hypothesis: Hypothesis) -> str:
        return decoder.vocabulary.decode(ids[place] for place in hypothesis.token_ids)

    found = decode_beam(step, state, max_words, beam_width)
    texts = [[*map(text_of, hypotheses)] for hypotheses in found]
    best = [0] * len(found)
    if reranker and found:
        seen = features if pooled is None else pooled
        best = reranker.choose(seen, texts, [[one.score_at(reranker.length_power) for one in each] for each in found])
    captions = [[each[place]] for each, place in zip(texts, best, strict=True)]
    for turn in range(ROUNDS if samples else 0):
        lacking = [place for place, each in enumerate(captions) if len(each) <= samples]
        if not lacking:
            break
        numbers = range(turn * samples, (turn + 1) * samples)
        drawn = decode_nucleus(step, state.of_images(lacking), max_words, numbers)
        for place, hypotheses in zip(lacking, drawn, strict=True):
            more = [text_of(one) for one in hypotheses if one.ended]
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

    def work(places: Sequence[int]) -> dict[int, tuple[list[str], float]]:
        at, language = np.array(places), labelled.images[places[0]].language
        seen = pooled.read(at) if pooled else None
        written = write_captions(decoder, labelled.read(at), language, beam_width, max_words, samples, reranker, seen)
        return dict(zip(places, zip(*written, strict=True), strict=True))

    written: dict[int, tuple[list[str], float]] = {}
    with tqdm(total=len(labelled), desc="caption", unit=" images", disable=not progress) as shown:
        for language in dict.fromkeys(image.language for image in labelled.images):
            its = (place for place, image in enumerate(labelled.images) if image.language == language)
            for part in map_in_order(work, its, PART):
                written |= part
                shown.update(len(part))
    captions, mean_log_probs = ([written[place][kind] for place in range(len(labelled))] for kind in (0, 1))
    return captions, mean_log_probs
