"""Key words: the words of a caption that name something to be seen, in one form each.

Knows which English words carry no picture, and how a plural is folded into its singular. Refuses to know images
and scores. Stop words come from the package stop-words, singulars from pluralizer; the tables below are where
their judgement, made for searching texts, does not suit pictures.
"""

from collections.abc import Iterable
from functools import cache, lru_cache

from lcm.data.vocabulary import standardise

# fmt: off
# Words of the stop-word list that a picture can show: in a text "man" says little, an archive asks for it.
PICTURED = frozenset({
    "dj", "group", "groups", "man", "member", "members", "men", "old", "older", "young", "younger",
    "big", "clear", "empty", "full", "high", "large", "little", "long", "low", "open", "round", "small", "smaller",
    "thick", "thin", "bill", "case", "cases", "computer", "course", "face", "faces", "fire", "home", "keys", "line",
    "mill", "mine", "mug", "net", "number", "numbers", "ring", "room", "rooms", "shed", "shell", "tv", "web",
    "cry", "move", "ran", "run", "turn", "turning", "turns", "work", "working", "works",
})
# Words that the list does not have and that say where in the picture something is, how many, that it is a picture, or
# that something is about to be.
UNPICTURED = frozenset({
    "'s", "background", "distance", "foreground", "left", "middle", "nearby",
    "bunch", "lot", "lots", "pair", "piece", "type", "image", "photo", "photograph", "picture", "scene", "view",
    "attempt", "attempting", "coming", "prepare", "preparing", "ready",
})
# What looks like a plural and is none, or means another thing in the singular.
ONE_FORM = (
    "abdomen", "arts", "belongings", "binoculars", "bleachers", "cans", "claus", "clothes", "crossbones", "dice",
    "eyeglasses", "ferris", "fireworks", "fries", "glasses", "goggles", "gymnastics", "headphones", "indoors",
    "leggings", "outdoors", "overalls", "pajamas", "pants", "people", "pyjamas", "rapids", "shorts", "sideways",
    "slacks", "sooners", "sunglasses", "suspenders", "sweatpants", "thermos", "tights", "trousers", "trunks",
    "underpants", "woods",
)
# Plurals that pluralizer folds into what is no word ("hoody", "lense"), or not at all.
IRREGULAR = {
    "daisies": "daisy", "dominoes": "domino", "hoodies": "hoodie", "lenses": "lens", "mosquitoes": "mosquito",
    "moustaches": "moustache", "mustaches": "mustache", "rhinoceroses": "rhinoceros", "selfies": "selfie",
    "tutus": "tutu",
}
# fmt: on


@cache
def _stop_words() -> frozenset[str]:
    import stop_words

    return frozenset(stop_words.get_stop_words("en")) - PICTURED | UNPICTURED


@cache
def _pluralizer():
    import pluralizer

    rules = pluralizer.Pluralizer()
    for word in ONE_FORM:
        rules.add_irregular_rule(word, word)
    for plural, singular in IRREGULAR.items():
        rules.add_irregular_rule(singular, plural)
    return rules


@lru_cache(maxsize=1 << 16)  # labels of users pass through here: no end to them
def fold(word: str) -> str:
    """Return the one form of a standardised English word: "dogs" and "dog" are "dog", "men" is "man".

    The -s of verbs goes too ("jumps" is "jump"), -ing and -ed stay.
    """
    return _pluralizer().singular(word)


def is_content_word(word: str) -> bool:
    """Return whether a standardised word can name something to be seen: no stop word, number or single letter."""
    return (
        word not in _stop_words()
        and any(character.isalpha() for character in word)
        and not (word.isascii() and len(word) == 1)
    )


def content_words(caption: str) -> list[str]:
    """Return the content words of a caption, folded, each once, in the order of their first appearance."""
    words = (word for word in standardise(caption) if is_content_word(word))
    return list(dict.fromkeys(word for word in map(fold, words) if is_content_word(word)))


def candidates(captions: Iterable[str]) -> list[str]:
    """Return the content words of all captions, each once: those of the first caption first, and so on."""
    return list(dict.fromkeys(word for caption in captions for word in content_words(caption)))
