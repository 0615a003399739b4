"""The language of the page: its sentences are written in English where they are said, french.tsv has them in French.

Each visitor has a process, so what one chooses holds for the whole of it.
"""

from pathlib import Path
from types import SimpleNamespace

from babel import Locale, localedata

from lcm.data.text import ENGLISH

FRENCH = "fr"
LINES = Path(__file__).with_name("french.tsv").read_text(encoding="utf-8").splitlines()
SENTENCES = {ENGLISH: {}, FRENCH: dict(line.split("\t") for line in LINES)}  # English to what is said instead
PAGE = SimpleNamespace(language=ENGLISH)  # one of SENTENCES


def say(english: str, **values: object) -> str:
    """Return a sentence in the page's language, with the values, if any, in its braces."""
    text = SENTENCES[PAGE.language].get(english, english)
    return text.format(**values) if values else text


def number(value: float, digits: int = 0) -> str:
    """Return a number with its digits after the point, or the comma, as the page's language writes it."""
    text = f"{value:,.{digits}f}"
    return text.translate({ord(","): "\u202f", ord("."): ","}) if PAGE.language == FRENCH else text


def name_of(language: str, in_its_own: bool = False) -> str:
    """Return the name of a language, "German" of "de", in the page's language or in its own; a code of none is it."""
    speaker = language if in_its_own and localedata.exists(language) else PAGE.language
    return Locale(speaker).languages.get(language, language)
