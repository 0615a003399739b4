"""Words: the one text standardisation that training, decoding and scoring share, the vocabulary, key words, labels.

A word is shown as its language spells it and compared case-folded. Key words are the words of a caption that name
something to be seen, in one form each. Stop words come from the package stop-words, lemmas from simplemma; words.ini is
where their judgement, made for searching texts, does not suit pictures.
"""

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import regex

from lcm.data.files import read_text, split_lines
from lcm.errors import DataError

PAD, START, END, UNKNOWN = range(4)
RESERVED = ("<pad>", "<en>", "<end>", "<unknown>")  # written in this order at the head of vocabulary.txt
ENGLISH = "en"  # the language of what says no other, and that of english_captions
START_TOKEN = regex.compile(r"<([a-z]{2,3})>(?<!<end>|<pad>)")  # begins the captions of a language

# A word: letters with their marks, digits, inner apostrophes ("o'clock"), hyphens ("t-shirt"), Catalan's middle dot and
# the joiners U+200C and U+200D, with which Persian, Sinhala and others spell. Words of their own, without a blank: the
# English "'s", as in the Penn Treebank and in GloVe (some data sets have it parted already: "the water 's edge"), and
# what French, Italian and Catalan elide ("l'" "homme"), or each noun would be there twice. All other punctuation only
# separates words. A mark alone is no word: emoji carry some.
ELIDED = (
    "[cdjlmnstv]|qu|jusqu|lorsqu|puisqu|quoiqu|"  # and Italian:
    "gl|un|(?:a|da|de|ne|su|que)ll|com|dov|quest|quand|tutt|mezz|sant|bell|grand|buon|senz|anch"
)
WORD = regex.compile(
    rf"(?<=[\p{{L}}\p{{M}}\p{{N}}] ?)'s\b|(?:{ELIDED})'(?!s\b)(?=\p{{L}})"
    r"|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:(?!'s\b)['\u00b7\u200c\u200d-][\p{L}\p{M}\p{N}]+)*"
)
PLAIN = str.maketrans("\u2019\u02bc\uff07\u2010\u2011", "'''--", "\u00ad")  # as typed, and no soft hyphens


def words(text: str, language: str = "en") -> list[str]:
    """Return the words of `text` as they are shown: HTML entities read, NFC, lower case, punctuation dropped.

    A language written without spaces gives one word a phrase; separate its words beforehand.
    """
    plain = unicodedata.normalize("NFC", html.unescape(html.unescape(text)))  # twice, as CLIP's tokenizer: "&amp;#39;"
    turkish = {ord("I"): "ı"} if language[:2] in ("tr", "az") else {}  # and the lower case of "İ" is "i\u0307"
    return WORD.findall(unicodedata.normalize("NFC", plain.translate(PLAIN | turkish).lower().replace("i\u0307", "i")))


def comparison_form(word: str) -> str:
    """Return a word of `words` as it is compared: "straße" and "strasse" are one."""
    return unicodedata.normalize("NFC", word.casefold())


def standardise(text: str, language: str = "en") -> list[str]:
    """Return the words of `text` as they are compared."""
    return [comparison_form(word) for word in words(text, language)]


def join_words(words: Iterable[str]) -> str:
    """Return the words as a caption to read: the inverse of `words` but for case and punctuation."""
    return " ".join(words).replace(" '", "'").replace("' ", "'")


@dataclass(frozen=True)
class Vocabulary:
    """The words a model can read and write; a word's id is its place in `words`, the first four reserved.

    A start token, as "<fr>", stands for its language; that of the first language is among the reserved words.
    """

    words: tuple[str, ...]
    # Word to the languages whose train captions have it: only these are written with it. Those not named: all of them.
    languages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word, as it is compared, to id."""
        return {comparison_form(word): token_id for token_id, word in enumerate(self.words)}

    @cached_property
    def starts(self) -> dict[str, int]:
        """Language to the id of its start token: the languages that captions are read and written in, in order."""
        tokens = ((START_TOKEN.fullmatch(word), token_id) for token_id, word in enumerate(self.words))
        return {token[1]: token_id for token, token_id in tokens if token}

    @property
    def language(self) -> str:
        """The first language, which the headline scores are of."""
        return next(iter(self.starts))

    @cached_property
    def never_written(self) -> list[int]:
        """The ids that no caption may hold after its start."""
        return [PAD, UNKNOWN, *self.starts.values()]

    def languages_of(self, word: str) -> tuple[str, ...]:
        """The languages that are written with a word of `own_words`, in the order of `starts`."""
        return self.languages.get(word, tuple(self.starts))

    @cached_property
    def ids_in(self) -> dict[str, np.ndarray]:
        """Language to the ids that it is written with: the reserved ones with its own start token, then its words'."""
        own = [(self.ids[comparison_form(word)], self.languages_of(word)) for word in self.own_words]
        return {
            language: np.array([PAD, start, END, UNKNOWN, *(token_id for token_id, its in own if language in its)])
            for language, start in self.starts.items()
        }

    @property
    def own_words(self) -> tuple[str, ...]:
        """The words without the reserved ones and start tokens."""
        return tuple(word for word in self.words[len(RESERVED) :] if not START_TOKEN.fullmatch(word))

    def encode(self, caption: str, language: str = "") -> list[int]:
        """Return the ids of a caption between its start token and END; unknown words become UNKNOWN.

        Raises KeyError for a language that the vocabulary does not have; empty is its first one.
        """
        language = language or self.language
        ids = (self.ids.get(word, UNKNOWN) for word in standardise(caption, language))
        return [self.starts[language], *ids, END]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the caption that the ids write, reserved ones left out."""
        return join_words(self.words[token_id] for token_id in token_ids if token_id >= len(RESERVED))

    def save(self, path: Path) -> None:
        """Write one word a line, in the order of the ids; after a tab its languages, where they are told apart."""
        lines = (f"{word}\t{' '.join(its)}" if (its := self.languages.get(word)) else word for word in self.words)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises DataError when it cannot be that."""
        lines = [line.partition("\t") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        words = tuple(word for word, _, _ in lines)
        head = tuple(RESERVED[START] if START_TOKEN.fullmatch(word) else word for word in words[: len(RESERVED)])
        if head != RESERVED:
            raise DataError(f"{path.name} is not a vocabulary: it must begin with {', '.join(RESERVED)}, one a line")
        if len(set(map(comparison_form, words))) < len(words) or any(not word or "\ufffd" in word for word in words):
            raise DataError(f"{path.name} is damaged: a word is empty, written twice or not UTF-8; make it again")
        return cls(words, {word: tuple(its.split()) for word, _, its in lines if its})


def count_words(captions: Iterable[str], language: str = ENGLISH) -> Counter[str]:
    """Return how often each word occurs in the captions, in that of its spellings which occurs most often."""
    counts: dict[str, Counter[str]] = {}
    for word, count in Counter(word for caption in captions for word in words(caption, language)).items():
        counts.setdefault(comparison_form(word), Counter())[word] = count
    return Counter({its.most_common(1)[0][0]: its.total() for its in counts.values()})


MIN_COUNT, CAPTIONS_A_TIME = 5, 1000  # a rarer word is not learned well; and one more time a thousand captions


def build_vocabulary(
    captions: Mapping[str, Sequence[str]], min_count: int, known: Vocabulary | None = None
) -> Vocabulary:
    """Return the words that the captions of a language (of the train split only) hold at least `min_count` times.

    With 0, the size says how often: once for a few hundred captions, MIN_COUNT times for thousands. The start tokens
    of all languages in their order come first, then words by falling count in a language, then by spelling, so that
    the same captions always give the same ids. What a `known` vocabulary has comes before them, with the ids it has: a
    model that knows it can be trained further. Where there are several languages, each word is said to be of those that
    have it, however rarely. Raises DataError when no word is that frequent.
    """
    counts: dict[str, int] = {}  # of what is frequent
    spelling: dict[str, str] = {}
    found_in = {comparison_form(word): {*known.languages_of(word)} for word in known.own_words} if known else {}
    rare: Counter[str] = Counter()
    for language, texts in captions.items():
        least = min_count or min(MIN_COUNT, 1 + len(texts) // CAPTIONS_A_TIME)
        for word, count in count_words(texts, language).most_common():
            shown = spelling.setdefault(form := comparison_form(word), word)
            found_in.setdefault(form, set()).add(language)
            enough = counts if count >= least else rare
            enough[shown] = max(count, enough.get(shown, 0))
    if not known:
        if not counts:
            most = [f"the most frequent, {word!r}, occurs {count} times" for word, count in rare.most_common(1)]
            found = most[0] if most else "there are no words at all"
            raise DataError(f"no word is frequent enough in the train captions ({found}); lower min_count")
        known = Vocabulary((RESERVED[PAD], f"<{next(iter(captions))}>", *RESERVED[END:]))
    starts = (f"<{language}>" for language in captions if language not in known.starts)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    new = (word for word in frequent if comparison_form(word) not in known.ids)
    vocabulary = Vocabulary((*known.words, *starts, *new))
    codes = [*vocabulary.starts]
    if len(codes) == 1:
        return vocabulary
    of_each = ((word, found_in[comparison_form(word)]) for word in vocabulary.own_words)
    return replace(vocabulary, languages={word: tuple(code for code in codes if code in its) for word, its in of_each})


# Which language texts are in is told among these; simplemma knows more, and each costs half a second and some MB.
LANGUAGES = ("en", "fr", "de", "es", "it", "pt", "nl")


def language_code(written: str) -> str:
    """Return the code of a language without its region, "pt" of "pt_BR"; empty for what is none."""
    found = regex.match(r"[a-z]{2,3}(?=$|[-_])", written.strip().lower())
    return found[0] if found else ""


def detect_language(texts: Iterable[str], among: Sequence[str] = LANGUAGES) -> str:
    """Return the language that knows most words of the texts; empty where several do, or none knows half of them.

    Of single captions of Flickr8k it is right for 98 % in English, 99 % in French and over 99 % in German; the others
    mostly stay without one.
    """
    import simplemma
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    readable = tuple(language for language in among if language in SUPPORTED_LANGUAGES)
    found = dict(simplemma.langdetect(" ".join(texts), lang=readable, low_memory=True))
    best, next_best, *_ = sorted((found.get(language, 0.0) for language in (*readable, "")), reverse=True)
    return next(language for language in readable if found[language] == best) if best > max(next_best, 0.49) else ""


_LISTS = ConfigParser(delimiters="=", interpolation=None)
_LISTS.read(Path(__file__).with_name("words.ini"), "utf-8")
PICTURED, UNPICTURED, LEMMAS, BAD_ENDINGS = (  # language to words
    dict(_LISTS[name]) for name in ("pictured", "unpictured", "lemmas", "bad_endings")
)
OWN_LEMMAS = {code: dict((each.split(":") * 2)[:2] for each in listed.split()) for code, listed in LEMMAS.items()}
# English words that are folded, of parts the last: -ing, -ed and -er stay, "running" is what people look for.
PLURAL = regex.compile(r"[^-]*(?:(?<!glasse)s|men|children|feet|teeth|geese|mice|oxen|cacti)$")


@cache
def _stop_words(language: str) -> set[str]:
    import stop_words

    listed = set(stop_words.safe_get_stop_words(language.partition("-")[0]))
    return listed.difference(PICTURED.get(language, "").split()).union(UNPICTURED.get(language, "").split())


@lru_cache(maxsize=1 << 16)  # labels of users pass through here: no end to them
def lemma(word: str, language: str = "en") -> str:
    """Return the one form of a word, in lower case: "men" is "man", "blanches" "blanc"; itself where none is known."""
    import simplemma

    language = language.partition("-")[0]
    look_up = partial(simplemma.lemmatize, lang=language, low_memory=True)
    own = OWN_LEMMAS.get(language, {})
    if language == "en":
        return PLURAL.sub(lambda found: own.get(found[0]) or look_up(found[0]).lower(), word)
    try:
        found = own.get(word) or look_up(word).lower()
    except ValueError:
        return word
    if language == "de" and not word.startswith(found):  # "ballen" of "ball": it knows nouns with their capital
        found = look_up(word.capitalize()).lower()
    return word if comparison_form(found) == comparison_form(word) else found  # not "fluß" of "fluss"


def is_content_word(word: str, language: str = "en") -> bool:
    """Return whether a word can name something to be seen: no stop word, elided word, number or single letter."""
    is_whole = not word.endswith("'") and len(word.encode()) > 1  # a letter beyond ASCII may be a word
    return is_whole and any(map(str.isalpha, word)) and word not in _stop_words(language)


def content_words(caption: str, language: str = "en") -> dict[str, str]:
    """Return the lemmas of a caption's content words, as they are compared, each with how it is shown; in order."""
    shown = (lemma(word, language) for word in words(caption, language) if is_content_word(word, language))
    return {comparison_form(word): word for word in shown if is_content_word(word, language)}


def candidates(captions: Iterable[str], language: str = "en") -> list[str]:
    """Return the content words of all captions as they are shown: those of the first caption first, and so on."""
    return list(dict(pair for caption in captions for pair in content_words(caption, language).items()).values())


def breaks_off(words: Sequence[str], language: str = "en") -> bool:
    """Return whether standardised words end with one after which something must follow."""
    return bool(words) and (words[-1] in BAD_ENDINGS.get(language, "").split() or words[-1].endswith("'"))


def repeats(words: Sequence[str], language: str = ENGLISH) -> bool:
    """Return whether a word stands twice running, or two neighbours come again ("a dog and a dog").

    Neighbours without a content word ("in the … in the") may come again.
    """
    pairs = list(pairwise(words))
    telling = [pair for pair in pairs if any(is_content_word(word, language) for word in pair)]
    return any(first == second for first, second in pairs) or len(set(telling)) < len(telling)


def is_broken(words: Sequence[str], language: str = ENGLISH) -> bool:
    """Return whether a caption's words are none, break off or repeat themselves."""
    return not words or breaks_off(words, language) or repeats(words, language)


MAX_LABELS = 10_000  # as many texts as the embedded tag scorer keeps ready
MAX_LABEL_LENGTH = 100  # characters: a phrase; CLIP reads 77 tokens of a text and no more
_FORM = "a labels file is text with a label, a word or a phrase, on each line"


def clean_label(text: str) -> str:
    """Return a label with its blanks folded, in NFC; raises DataError, which does not repeat it, for what is none."""
    label = unicodedata.normalize("NFC", " ".join(text.split()))
    if not 1 <= len(label) <= MAX_LABEL_LENGTH:
        raise DataError(f"has {len(label):,} characters; 1 to {MAX_LABEL_LENGTH} are allowed")
    if any(unicodedata.category(character) == "Cc" for character in label):
        raise DataError("holds control characters")
    return label


def read_labels(path: Path) -> tuple[str, ...]:
    """Return what a user wants images to be tagged with: the lines of a file, each once, in its order.

    Of "Dog" and "dog" the first spelling stays. Raises DataError when the file cannot be read, holds no label or too
    many, or one that `clean_label` refuses.
    """
    try:
        lines = split_lines(read_text(path))
    except OSError as error:
        raise DataError(f"the labels file {path} cannot be read ({error.strerror}); {_FORM}") from error
    labels: dict[str, str] = {}
    for line in lines:
        try:
            label = clean_label(line)
        except DataError as error:
            raise DataError(f"{path}: the label {line[:40]!r} {error}; {_FORM}") from None
        labels.setdefault(label.casefold(), label)
    if not labels:
        raise DataError(f"{path} holds no label; {_FORM}")
    if len(labels) > MAX_LABELS:
        raise DataError(f"{path} holds {len(labels)} labels; at most {MAX_LABELS} are scored: choose among them")
    return tuple(labels.values())
