"""Decoding: from next-word probabilities to captions.

Knows greedy and beam search and nucleus sampling over a step function, for many images at once. Refuses to know
models and vocabularies: a step takes the last ids and a state, and gives log-probabilities and the next state.

Shapes: B images, W beam width, S samples an image, V words in the vocabulary, T words so far, R rows of a state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lcm.data.vocabulary import END, PAD, START, UNKNOWN

State = tuple[np.ndarray, ...]  # each array's first axis is that of the ids
Step = Callable[[np.ndarray, State], tuple[np.ndarray, State]]  # ids [R], state -> log-probs [R, V], next state

NEVER_WRITTEN = (PAD, START, UNKNOWN)
# A caption's score is its log-probability / length ** LENGTH_POWER, after Wu et al., "Google's Neural Machine
# Translation System" (2016), equation 14: 0 favours short captions, 1 is the mean of its words.
LENGTH_POWER = 0.9
NUCLEUS = 0.7  # probability that samples are drawn from: on dev, 0.5 and 0.9 gave worse key words


@dataclass(frozen=True)
class Hypothesis:
    """A caption as ids, without START and END."""

    token_ids: tuple[int, ...]
    log_prob: float  # of all its words, END included where it was written
    ended: bool  # False: END was not reached within max_words; no word is cut for it

    @property
    def score(self) -> float:
        """The log-probability, normalised by length; END counts as a word."""
        return self.log_prob / max(len(self.token_ids) + self.ended, 1) ** LENGTH_POWER


def decode_greedy(step: Step, state: State, max_words: int) -> list[Hypothesis]:
    """Write the most probable word at each step; returns one hypothesis an image, one image a row of `state`."""
    images = len(state[0])
    written = np.zeros((images, 0), dtype=np.int64)  # [B, T]
    log_prob = np.zeros(images)
    last = np.full(images, START)
    open_images = np.ones(images, dtype=bool)
    ended = np.zeros(images, dtype=bool)
    while written.shape[1] < max_words and open_images.any():
        log_probs, state = _allowed(step, last, state)
        open_images &= np.isfinite(log_probs.max(1))  # the others stay as they are: nothing may follow
        last = np.where(open_images, log_probs.argmax(1), END)
        log_prob += np.where(open_images, log_probs.max(1), 0.0)
        ended |= open_images & (last == END)
        open_images &= ~ended
        written = np.column_stack([written, last])
    return [
        Hypothesis(tuple(int(word) for word in row if word != END), float(total), bool(done))
        for row, total, done in zip(written, log_prob, ended, strict=True)
    ]


def decode_beam(step: Step, state: State, max_words: int, beam_width: int) -> list[list[Hypothesis]]:
    """Keep the `beam_width` most probable beginnings at each step, one image a row of `state`.

    Returns up to `beam_width` hypotheses an image, best score first. An image is done when its hypotheses that
    have ended all score at least as well as its beginnings do so far.
    """
    ended: list[list[Hypothesis]] = [[] for _ in state[0]]
    active = np.arange(len(ended))  # images that still have something to write
    written = np.zeros((len(ended), 1, 0), dtype=np.int64)  # [B, W, T]
    log_prob = np.zeros((len(ended), 1))  # [B, W]
    last = np.full(len(ended), START)
    while written.shape[2] < max_words and len(active):
        log_probs, state = _allowed(step, last, state)
        beams, words, totals = _best_continuations(log_prob, log_probs, 2 * beam_width)
        for row in np.flatnonzero(~np.isfinite(totals[:, 0])):  # nothing may follow
            ended[active[row]] += _unended(written[row], log_prob[row])
        for row, slot in np.argwhere((words == END) & np.isfinite(totals)):
            beginning = tuple(written[row, beams[row, slot]].tolist())
            ended[active[row]].append(Hypothesis(beginning, float(totals[row, slot]), ended=True))
        beams, words, log_prob = _going_on(beams, words, totals, beam_width)
        kept = np.take_along_axis(written, beams[:, :, None], axis=1)
        rows = beams + np.arange(len(active))[:, None] * written.shape[1]  # of the state
        written = np.concatenate([kept, words[:, :, None]], axis=2)
        best_now = log_prob.max(1) / written.shape[2] ** LENGTH_POWER
        open_images = np.array(
            [_can_improve(ended[image], best_now[row], beam_width) for row, image in enumerate(active)]
        )
        active, written, log_prob = active[open_images], written[open_images], log_prob[open_images]
        state = tuple(array[rows[open_images].ravel()] for array in state)
        last = written[:, :, -1].ravel()
    for row, image in enumerate(active):
        ended[image] += _unended(written[row], log_prob[row])
    return [sorted(hypotheses, key=lambda one: -one.score)[:beam_width] for hypotheses in ended]


def decode_nucleus(
    step: Step, state: State, max_words: int, numbers: Sequence[int], nucleus: float = NUCLEUS
) -> list[list[Hypothesis]]:
    """Draw a caption for each of the `numbers`, one image a row of `state`; returns len(numbers) an image, in order.

    Each word is drawn among the fewest words that together have the probability `nucleus` (Holtzman et al., "The
    Curious Case of Neural Text Degeneration", 2020). A sample's number seeds its draws, the same for every image:
    an image's samples depend on nothing but the image.
    """
    samples, images = len(numbers), len(state[0])
    if not samples:
        return [[] for _ in range(images)]
    draws = np.stack([np.random.default_rng(number).random(max_words) for number in numbers])  # [S, max_words]
    state = tuple(np.repeat(array, samples, axis=0) for array in state)  # [R = B * S, ...]
    written = np.full((images * samples, max_words), END)
    log_prob = np.zeros(images * samples)
    ended = np.zeros(images * samples, dtype=bool)
    rows = np.arange(images * samples)  # those that still have something to write
    last = np.full(len(rows), START)
    for place in range(max_words):
        if not len(rows):
            break
        log_probs, state = _allowed(step, last, state)
        possible = np.isfinite(log_probs.max(1))  # else nothing may follow
        last = np.where(possible, _draw(log_probs, draws[rows % samples, place], nucleus), END)
        log_prob[rows] += np.where(possible, log_probs[np.arange(len(rows)), last], 0.0)
        written[rows, place] = last
        ended[rows] = possible & (last == END)
        going_on = last != END
        rows, last, state = rows[going_on], last[going_on], tuple(array[going_on] for array in state)
    hypotheses = [
        Hypothesis(tuple(int(word) for word in row if word != END), float(total), bool(done))
        for row, total, done in zip(written, log_prob, ended, strict=True)
    ]
    return [hypotheses[start : start + samples] for start in range(0, len(hypotheses), samples)]


def _draw(log_probs: np.ndarray, draws: np.ndarray, nucleus: float) -> np.ndarray:
    """Return a word for each row of `log_probs` [R, V] where `draws` [R], in 0 to 1, falls in its nucleus."""
    order = np.argsort(-log_probs, axis=1, kind="stable")
    probabilities = np.exp(np.take_along_axis(log_probs, order, axis=1).astype(np.float64))
    cumulated = np.cumsum(probabilities, axis=1)
    cumulated /= np.maximum(cumulated[:, -1:], np.finfo(float).tiny)  # some words are ruled out
    size = np.minimum((cumulated < nucleus).sum(1), cumulated.shape[1] - 1)  # of the nucleus, less its last word
    within = draws * cumulated[np.arange(len(draws)), size]
    places = np.minimum((cumulated <= within[:, None]).sum(1), size)
    return order[np.arange(len(draws)), places]


def _allowed(step: Step, last: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    """Take a step and rule out the ids that no caption may hold."""
    log_probs, state = step(last, state)
    log_probs = np.array(log_probs)
    log_probs[:, NEVER_WRITTEN] = -np.inf
    return log_probs, state


def _best_continuations(
    log_prob: np.ndarray, log_probs: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the `count` best (beam, word, total log-probability) of each image, each [B, count], best first."""
    images, width = log_prob.shape
    vocabulary_size = log_probs.shape[1]
    totals = (log_prob.reshape(-1, 1) + log_probs).reshape(images, width * vocabulary_size)
    count = min(count, totals.shape[1])
    best = np.argpartition(-totals, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(totals, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return best // vocabulary_size, best % vocabulary_size, np.take_along_axis(totals, best, axis=1)


def _going_on(
    beams: np.ndarray, words: np.ndarray, totals: np.ndarray, beam_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the `beam_width` best continuations that do not end, each [B, W]; a missing one has probability 0."""
    totals = np.where(words == END, -np.inf, totals)
    order = np.argsort(-totals, axis=1, kind="stable")[:, :beam_width]
    beams, words, totals = (np.take_along_axis(array, order, axis=1) for array in (beams, words, totals))
    return beams, words, totals


def _unended(written: np.ndarray, log_prob: np.ndarray) -> list[Hypothesis]:
    """Return the beginnings of one image, [W, T], as captions without END."""
    totals = zip(written.tolist(), log_prob.tolist(), strict=True)
    return [Hypothesis(tuple(words), total, ended=False) for words, total in totals if np.isfinite(total)]


def _can_improve(ended: list[Hypothesis], best_now: float, beam_width: int) -> bool:
    """Whether going on may give one of the `beam_width` best hypotheses."""
    if not np.isfinite(best_now):
        return False
    return len(ended) < beam_width or best_now > sorted((one.score for one in ended), reverse=True)[beam_width - 1]
