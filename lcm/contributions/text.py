"""Texts as people send and write them: captions, names, languages, and sets of ids such as "1-9,11".

One rule says what of a caption is kept. The ids that a model has learned from stay readable in its manifest as ranges.
"""

import unicodedata
from collections.abc import Iterable

import regex

from lcm.data.text import ENGLISH, LANGUAGES, detect_language, language_code
from lcm.errors import ConfigError, DataError

MAX_CHARACTERS = 1000  # of a cleaned caption; marks are not counted: Thai and Hindi words are half marks
SENT_PER_KEPT = 4  # times as many may be sent, marks and invisible ones too; this bounds marks piled upon a letter
MOST_IDS = 10_000_000  # in one text; more are a slip, or meant to fill the memory

_SHAPERS = r"\u200c\u200d\p{Variation_Selector}"  # joiners and selectors: invisible, and part of how others look
# Invisible otherwise: controls, and what Unicode says to draw nothing for: zero-width spaces, bidi controls, tag
# characters, fillers. Annotation marks and the code points that are no characters are invisible as well.
_HIDDEN = regex.compile(
    rf"(?V1)[[\p{{Cc}}\p{{Default_Ignorable_Code_Point}}\p{{Noncharacter_Code_Point}}\ufff9-\ufffb]--[{_SHAPERS}]]+"
)
_SHAPED = regex.compile(rf"(?P<seen>[^\s{_SHAPERS}])?(?P<run>[{_SHAPERS}]+)(?=(?P<next>\S)?)")
_MEANINGFUL = regex.compile(
    r"(?!\u2800)[\p{L}\p{N}\p{S}\p{Extended_Pictographic}\u20e3]"
)  # U+2800 is blank, U+20E3 a key
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_MARKS = regex.compile(r"\p{M}+")
_LANGUAGE = regex.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,3}")  # BCP 47 without its rare forms


def clean_text(sent: str, name: str = "caption", most: int = MAX_CHARACTERS) -> str:
    """Return a text as it is kept: NFC, one line, every run of white space one space, nothing invisible in it.

    Zero-width joiners stay between two visible characters, a variation selector stays after one: emoji and Persian
    are spelt with them. Cleaning what is clean changes nothing. Raises DataError, which says by `name` what it is, for
    what is no valid Unicode, has no letter, digit or symbol, or has over `most` characters, marks not counted.
    """
    if not isinstance(sent, str):
        raise DataError(f"the {name} must be text; received {type(sent).__name__}")
    if len(sent) > SENT_PER_KEPT * most:
        raise _too_long(name, len(sent), most)
    if _SURROGATE.search(sent):
        raise DataError(f"the {name} holds half of a character (a lone surrogate); send it as valid Unicode")
    visible = _HIDDEN.sub("", _fold(sent))  # folded first: line feeds and tabs are controls
    text = unicodedata.normalize("NFC", _fold(_SHAPED.sub(_keep_shaper, visible)))
    if not _MEANINGFUL.search(text):
        raise DataError(f"the {name} holds no letter, digit or symbol; write it in words")
    length = len(_MARKS.sub("", text))
    if length > most:
        raise _too_long(name, length, most)
    return text


def _too_long(name: str, length: int, most: int) -> DataError:
    return DataError(f"the {name} has {length:,} characters; 1 to {most:,} are kept: shorten it")


def _fold(text: str) -> str:
    return " ".join(text.split())


def _keep_shaper(found: regex.Match) -> str:
    """Return what stays of a run of shapers: one selector behind what it selects, one joiner between two."""
    if not found["seen"]:
        return ""
    joiners = [character for character in found["run"] if character in "\u200c\u200d"]
    selector = "" if found["run"][0] in joiners else found["run"][0]
    return found["seen"] + selector + (joiners[0] if joiners and found["next"] else "")


def clean_language(sent: str) -> str:
    """Return a language's code in lower case ("en", "pt-br"); raises DataError for anything else."""
    code = sent.strip().lower().replace("_", "-") if isinstance(sent, str) else ""
    if not _LANGUAGE.fullmatch(code):
        raise DataError(f"received the language {ascii(sent)[:40]}; send a code such as 'en' or 'pt-br'")
    return code


def language_of(caption: str, sent: str, default: str, written: Iterable[str] = ()) -> str:
    """Return a caption's language: the one that was sent, else what its words tell, else `default`.

    Where several of LANGUAGES know its words ("a red square" is Dutch too), the default, English and what the model has
    `written` are compared alone. Raises DataError for a language that is no code, a caption that cannot be kept.
    """
    if sent:
        return clean_language(sent)
    text, usual = clean_text(caption), dict.fromkeys((language_code(default), ENGLISH, *written))
    found = detect_language([text], list(usual | dict.fromkeys(LANGUAGES))) or detect_language([text], list(usual))
    return default if found in ("", language_code(default)) else found


def id_ranges(ids: Iterable[int]) -> str:
    """Return ids as ascending ranges, such as "1-9,11"; empty for none."""
    ranges: list[list[int]] = []
    for one in sorted(set(ids)):
        if ranges and one == ranges[-1][1] + 1:
            ranges[-1][1] = one
        else:
            ranges.append([one, one])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_id_ranges(text: str) -> set[int]:
    """Return the ids that `id_ranges` or a person wrote: spaces are allowed. Raises ConfigError for anything else."""
    ids: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        try:
            found = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            found = range(0)
        if not 0 < found.stop - found.start <= MOST_IDS - len(ids):
            raise ConfigError(f"{part[:60]!r} is no number and no range of contributions; write 3,7-9")
        ids.update(found)
    return ids
