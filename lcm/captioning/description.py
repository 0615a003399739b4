"""Descriptions: what captioners share, what they are asked and what they answer; and how sure they are.

The confidence is a probability that a caption is right, from how probable the model finds its words; lcm.evaluation
says what "right" means and fits the curve.
"""

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral

import numpy as np

from lcm.captioning.alt_text import alt_text
from lcm.captioning.taggers import DualEncoder
from lcm.captioning.tagging import SHARE, SeenImage, Tag, TagRequest, rank, tag_candidates, tag_request
from lcm.captioning.terms import Terms, Texts
from lcm.captioning.translation import load_translator
from lcm.data.images import Source, read_stream
from lcm.data.text import ENGLISH, is_broken, join_words, language_code, standardise, words
from lcm.errors import BadImageError, ConfigError
from lcm.features.cache import map_in_order
from lcm.features.encoders import EncoderIdentity

# What names the right things may be no sentence: the content words of "a man in a" are right for 33 % of Flickr8k's
# dev, those of the shipped model's captions for 16 %. 37 of its 1,000 there repeat something; of these 7 name the right
# things, 5 would if the curve were right. It knows nothing of the sentence: so what is broken is left to a person.
BROKEN_CONFIDENCE = 0.05


@dataclass(frozen=True)
class PlattScaler:
    """A fitted curve: the probability is 1 / (1 + e ** -(intercept + slope * mean_log_prob)).

    A logistic function with two numbers, after Platt, "Probabilistic Outputs for Support Vector Machines" (1999). It is
    only as true as the images are like those that it was fitted on.
    """

    slope: float  # per nat a word; above zero where the model is right more often when it is surer
    intercept: float

    def confidence(self, mean_log_prob: float) -> float:
        """Return the probability that a caption is right, 0 to 1.

        `mean_log_prob` is its log-probability over its number of words, END counted, in nats.
        """
        return (1 + math.tanh((self.intercept + self.slope * mean_log_prob) / 2)) / 2  # e ** x would overflow

    def confidence_in(
        self, caption: str, mean_log_prob: float, max_words: float = math.inf, language: str = ENGLISH
    ) -> float:
        """Return the confidence in a caption; in one that is broken (lcm.data.text), BROKEN_CONFIDENCE at most.

        A text of `max_words` is broken too: the search has cut it, for a caption that ends in time has fewer.
        """
        found, confidence = standardise(caption), self.confidence(mean_log_prob)
        is_no_sentence = is_broken(found, language) or len(found) >= max_words
        return min(confidence, BROKEN_CONFIDENCE) if is_no_sentence else confidence


def percent(probability: float) -> str:
    """Return a probability to read; what is not quite sure is never 100 % or 0 %."""
    rounded = round(100 * probability)
    return f"{rounded} %" if 0 < rounded < 100 else "over 99 %" if rounded else "under 1 %"


# Of the shipped model's captions of Flickr8k's dev, a third are less sure; people used all their content words for 6 %
# of these, for 20 % of the others, and their CIDEr is half as high. A right one among them looks wrong beside "8 %".
UNSURE = 0.1


def sureness(confidence: float) -> str:
    """Return how sure a captioner is of a caption, for people: a number that would only puzzle is no number."""
    return f"{percent(confidence)} sure" if confidence >= UNSURE else "unsure, please look"


SAMPLES = 5  # captions beside the best one, as many as BLIP's service gives
MAX_SAMPLES = 10


@dataclass(frozen=True)
class Description:
    """What a captioner says of one image."""

    caption: str
    english_captions: tuple[str, ...]  # where the caption is English and nobody contributed it, it is the first
    tags: tuple[Tag, ...]  # (word, score), best first; shares among the candidates sum to 1, probabilities do not
    model: str  # name of the captioner and its version
    confidence: float | None = None  # probability that people would use all its content words; None: not calibrated
    contribution: int | None = None  # number of the contribution that gave the caption; None: the captioner wrote it
    language: str = ENGLISH  # of the caption and of the tags
    scores: str = SHARE  # what those of the tags are, one of SCORES

    @property
    def alt_text(self) -> str:
        """The caption as alternative text: one sentence, mostly of 125 characters at most."""
        return alt_text(self.caption)


class Captioner(ABC):
    """Anything that captions images. The same image gets the same description, alone or among others."""

    name: str  # and version, shown with every answer
    tag_scorer: DualEncoder | None  # None: descriptions have no tags
    languages: tuple[str, ...] = (ENGLISH,)  # that it writes, the first where none is asked for
    translator_names = ""  # of the Marian checkpoints for other languages, as load_translator takes them
    terms: Terms | None = None  # that tags are mapped to
    encoder: EncoderIdentity | None = None  # whose features it describes images by; None: it has no image encoder
    feature_kinds: tuple[str, ...] = ()  # of these features
    runs_on = ""  # provider of ONNX Runtime; empty: it uses none
    part = 1  # images that a thread describes at once

    @property
    def translated_from(self) -> str:
        """The language that translations are made from: English, if it writes English."""
        return ENGLISH if ENGLISH in self.languages else self.languages[0]

    @property
    def offered(self) -> tuple[str, ...]:
        """The languages that descriptions can be in: those that it writes, then those by translation."""
        more = load_translator(self.translator_names).targets(self.translated_from)
        return tuple(dict.fromkeys((*self.languages, *more)))

    @abstractmethod
    def see(self, image: Source) -> SeenImage:
        """Read and encode an image; raises BadImageError when it is not one."""

    @abstractmethod
    def write(self, images: Sequence[SeenImage], samples: int, language: str) -> list[tuple[list[str], float | None]]:
        """Return each image's captions in one of `languages`, the best and up to `samples` others.

        And the confidence in the best.
        """

    def describe(
        self,
        image: Source | SeenImage,
        samples: int = SAMPLES,
        labels: Texts | None = None,
        language: str = "",
        scores: str = SHARE,
        min_score: float | None = None,
    ) -> Description:
        """Return caption, other captions and tags of an image, given in any way of Source, or as `see` has seen it.

        Up to `samples` (0 to MAX_SAMPLES) other captions are drawn beside the best one: they give more key words to
        choose tags from. `labels`, words or phrases of any kind, are scored in place of these; a mapping says what is
        scored for each. `language` is one of `languages`, or one that the translator has: then the caption is
        translated and gives the tags, as far as the tag scorer can read it. With `scores` "probability", each tag has
        one of its own, of `min_score` (MIN_SCORE) or more. Raises BadImageError when it is no image, ConfigError for
        samples that are no such number, for labels that are no list of texts or an empty one, for another language, and
        as tag_request.
        """
        ((_, description),) = self.describe_many([image], samples, labels, 1, language, scores, min_score)
        if isinstance(description, BadImageError):
            raise description
        return description

    def describe_many(
        self,
        images: Iterable[Source | SeenImage],
        samples: int = SAMPLES,
        labels: Texts | None = None,
        workers: int = 1,
        language: str = "",
        scores: str = SHARE,
        min_score: float | None = None,
    ) -> Iterator[tuple[Source, Description | BadImageError]]:
        """Yield each image as it was given with its description, or with the reason why it has none, in their order.

        `workers` threads (0: one a core) work ahead; memory is bounded however many images there are.
        Raises ConfigError, at the call, as describe.
        """
        if isinstance(images, str | bytes) or hasattr(images, "read") or not isinstance(images, Iterable):
            raise ConfigError(
                f"received a {type(images).__name__}; describe_many takes a list of pictures: give one to describe"
            )
        if isinstance(samples, bool) or not isinstance(samples, Integral) or not 0 <= samples <= MAX_SAMPLES:
            raise ConfigError(f"samples is {samples!r}; it must be a whole number, 0 to {MAX_SAMPLES}")
        language = self.checked_language(language)
        labels = self.listed_terms(language) if labels is None else _checked_labels(labels)
        wanted = tag_request(self.tag_scorer, labels, scores, min_score)
        work = partial(self._describe_part, samples=samples, wanted=wanted, language=language)
        return (answer for part in map_in_order(work, images, self.part, workers) for answer in part)

    def checked_language(self, language: str) -> str:
        """Return which one offered is meant, "fr" by "fr_CA" and the first by ""; raises ConfigError for others."""
        code = language_code(language) if language else self.languages[0]
        if code not in self.languages and code not in self.offered:
            more = f"name a Marian checkpoint that translates {self.translated_from} into it in LCM_TRANSLATOR"
            raise ConfigError(f"language is {language!r}; choose from {', '.join(self.offered)}, or {more}")
        return code

    def unknown_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that the tag scorer does not know: they get no score."""
        known = self.tag_scorer.text_vectors(labels).any(1) if self.tag_scorer else [False] * len(labels)
        return tuple(label for label, is_known in zip(labels, known, strict=True) if not is_known)

    def listed_terms(self, language: str) -> dict[str, str] | None:
        """Return the labels that an allow list says, as they are shown and as they are scored; None without one."""
        return self.terms.labels(language, self.unknown_labels) if self.terms else None

    def _describe_part(
        self, images: Sequence[Source | SeenImage], samples: int, wanted: TagRequest, language: str
    ) -> list[tuple[Source, Description | BadImageError]]:
        labels, scores, _ = wanted
        answers: list[tuple[Source, Description | BadImageError | None]] = []
        seen, vectors = [], []
        for image in images:
            error = None
            try:
                # A tag scorer may read the picture anew, and a file object's content is there only once.
                one = image if isinstance(image, SeenImage) else self.see(read_stream(image))
                vectors.append(self.tag_scorer.image_vector(one) if self.tag_scorer else None)
                seen.append(one)
            except BadImageError as raised:
                error = raised
            answers.append((image.source if isinstance(image, SeenImage) else image, error))
        own = language if language in self.languages else self.translated_from
        written = self.write(seen, samples, own) if seen else []
        english: Sequence[Sequence[str]] = [captions for captions, _ in written]
        if written and own != ENGLISH:
            in_english = self.write(seen, samples, ENGLISH) if ENGLISH in self.languages else []
            english = [captions for captions, _ in in_english] or [()] * len(written)
        described = []
        for (captions, confidence), its_english, vector in zip(written, english, vectors, strict=True):
            texts = tag_candidates(captions, labels, own, self.terms, language)
            tags = rank(self.tag_scorer, vector, texts, wanted) if self.tag_scorer else ()
            one = Description(captions[0], tuple(its_english), tags, self.name, confidence, None, own, scores)
            described.append(one if own == language else self._translated(one, vector, wanted, language))
        of_images = iter(described)
        return [(source, error or next(of_images)) for source, error in answers]

    def _translated(
        self, own: Description, vector: np.ndarray | None, wanted: TagRequest, language: str
    ) -> Description:
        """Return a description in a language of the translator; of an image of this vector."""
        translator = load_translator(self.translator_names)
        caption = join_words(words(*translator.to_language([own.caption], own.language, language), language))
        words_only = self.tag_scorer and wanted[0] is None
        found = tag_candidates([caption], None, language, self.terms, language) if words_only else {}
        is_read = found and self.tag_scorer.text_vectors([*found.values()]).any()
        tags = rank(self.tag_scorer, vector, found, wanted) if is_read else own.tags
        model = f"{own.model} with {translator.name}"
        return replace(own, caption=caption, tags=tags, model=model, language=language)


def _checked_labels(labels: Texts) -> Texts:
    is_list = isinstance(labels, Iterable) and not isinstance(labels, str | bytes)
    checked = labels if isinstance(labels, Mapping) else list(labels) if is_list else []
    if not is_list or not all(isinstance(label, str) for label in checked):
        received = reprlib.repr(labels)
        raise ConfigError(f"labels is {received}; it must be a list of words or phrases, as ['dog', 'red car']")
    if not checked:
        raise ConfigError("labels is empty; give at least one word, or leave labels out")
    return checked
