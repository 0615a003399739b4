"""The rule for captions: what is kept of any text that a stranger may send. Names hold the acceptance ids."""

import random
import sqlite3
import unicodedata

import pytest

from lcm.contributions.text import (
    MAX_CHARACTERS,
    SENT_PER_KEPT,
    clean_language,
    clean_text,
    id_ranges,
    language_of,
    parse_id_ranges,
)
from lcm.errors import ConfigError, DataError

ZWJ, ZWNJ, VS15, VS16 = "\u200d", "\u200c", "\ufe0e", "\ufe0f"


SILENT = [
    *("", " ", "\t\n", "\u00a0\u3000", "\u2028"),  # blanks
    *("\u200b", "\ufeff\u2060", ZWJ + ZWNJ, "\u00ad", "\u3164\u115f", "\U000e0067\U000e007f", VS16),  # invisible
    *("\u202e", "\u2066\u2069", "\u200e"),  # bidi controls
    *("\x00", "\x1b\x07\x7f", "\x80\x9f"),  # controls
    *("...", "?!", "--", '"', "\u0301", "\u2800"),  # nothing that says anything
]
MOST = SENT_PER_KEPT * MAX_CHARACTERS
LONG = ["a" * 1_000_000, "a " * 500_000, "a" + "\u0301" * MOST, "a" + "\u200b" * MOST]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        *((one, "holds no letter, digit or symbol") for one in SILENT),
        *((one, "must be text; received") for one in (None, 1, True, [], {}, b"a dog")),
        *((one, "shorten it") for one in LONG),
        *((one, "lone surrogate") for one in ("\ud800", "a dog \udfff", "\udc36\ud83d")),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_f04_f05_f08_what_is_no_caption_is_an_error_that_does_not_repeat_it(sent, message):
    with pytest.raises(DataError, match=f"^the caption .*{message}") as error:
        clean_text(sent)
    assert len(str(error.value)) < 100


def test_f05_the_limit_counts_what_is_kept():
    assert clean_text(f"  {'a' * MAX_CHARACTERS}\u200b\n") == "a" * MAX_CHARACTERS
    assert clean_text("🐕" * MAX_CHARACTERS) == "🐕" * MAX_CHARACTERS
    with pytest.raises(DataError, match="the caption has 1,001 characters; 1 to 1,000 are kept: shorten it"):
        clean_text("a" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "blank", ["\n", "\r\n", "\t", "\v", "\f", "\x1c", "\u2028", "\u2029", "\u0085", "\u00a0", "  "]
)
def test_f06_every_white_space_becomes_one_space(blank):
    assert clean_text(f"{blank}a dog{blank}runs{blank}{blank}fast{blank}") == "a dog runs fast"


@pytest.mark.parametrize(
    "sent",
    [
        *("🐕", "👩🏽‍❤️‍👨 in love", "👨‍👩‍👧‍👦", "🏳️‍🌈", "#️⃣", "1️⃣ dog", "❤️", "❤︎", "🇮🇳", "‼️"),
        *("می‌خواهم سگ را ببینم", "كلب يركض", "כלב רץ", "一只狗在跑", "犬が走る", "개가 달린다", "สุนัขวิ่ง"),
        *("श्री क्‍ष", "ශ්‍රී"),
        *("葛󠄀", "x\u0336y", "crème brûlée", "straße", "İstanbul", "½ ² №"),
    ],
)
def test_f09_text_of_every_script_comes_back_in_nfc(sent):
    for form in ("NFC", "NFD"):
        assert clean_text(unicodedata.normalize(form, sent)) == unicodedata.normalize("NFC", sent)


def test_f09_a_thousand_marks_on_a_letter_are_one_character():
    for mark in ("\u0336", "\u0301"):
        zalgo = "z" + mark * 1000
        assert clean_text(zalgo) == unicodedata.normalize("NFC", zalgo)
    assert clean_text("สุนัข" * 333) == "สุนัข" * 333  # three letters, two marks


CONTROLS = [0x00, 0x07, 0x1B, 0x7F, 0x9B]
BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]
INVISIBLE = [0x200B, 0x2060, 0x2064, 0xFEFF, 0x00AD, 0x034F, 0x180E, 0x3164, 0xE0001, 0xE0041, 0xFFF9]


@pytest.mark.parametrize("code", [*CONTROLS, *BIDI, *INVISIBLE], ids=hex)
def test_f07_f10_controls_and_invisible_characters_are_removed(code):
    assert clean_text(f"a{chr(code)}b {chr(code)} c{chr(code)}") == "ab c"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (f"{ZWJ}a{ZWJ} {ZWJ}b{ZWNJ}", "a b"),  # joins nothing
        (f"a{ZWJ}{ZWJ}{ZWNJ}b", f"a{ZWJ}b"),
        (f"a{ZWNJ}\u200b{ZWNJ}b", f"a{ZWNJ}b"),
        (f"❤{VS16}{VS15}{VS16}", f"❤{VS16}"),  # a row of selectors hides a message
        (f"❤{VS16}{ZWJ}{VS16}🔥", f"❤{VS16}{ZWJ}🔥"),
        (f"{VS16}a {VS16}b", "a b"),
        (f"a \u200b{ZWJ}\u200b b", "a b"),
        ("e\u200b\u0301", "é"),  # NFC comes last
    ],
)
def test_f10_joiners_and_selectors_stay_only_where_they_shape_something(sent, kept):
    assert clean_text(sent) == kept


@pytest.mark.parametrize(
    "sent",
    [
        *("'); DROP TABLE contributions;--", '" OR 1=1', "{{7*7}}", "${jndi:ldap://x/a}", "%s%n%x", "$(id)", "`id`"),
        *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "::set-output name=a::b", "${{ github.token }}"),
        *("=1+1", "+1", "-1", "@SUM(1)", "http://169.254.169.254/", "../../etc/passwd", "раураl"),
    ],
)
def test_f11_f12_f13_f15_f17_what_looks_like_code_is_text(sent):
    assert clean_text(sent) == sent


def test_f14_cleaning_is_idempotent_whatever_comes():
    chance = random.Random(0)
    ranges = [(0x00, 0x100), (0x300, 0x370), (0x600, 0x700), (0x900, 0x980), (0x1100, 0x1200), (0x1800, 0x1810)]
    ranges += [(0x2000, 0x2070), (0xAC00, 0xAC20), (0xFB1D, 0xFB50), (0xFE00, 0xFE10), (0x1F3F0, 0x1F400)]
    pool = [chr(code) for first, end in ranges for code in range(first, end)] + [ZWJ, ZWNJ, VS16, " ", "a"] * 40
    kept = 0
    for _ in range(20_000):
        try:
            caption = clean_text("".join(chance.choices(pool, k=chance.randint(1, 10))))
        except DataError:
            continue
        kept += 1
        assert clean_text(caption) == caption
        assert unicodedata.is_normalized("NFC", caption)
        assert caption == " ".join(caption.split())
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in caption)
    assert kept > 10_000


def test_f14_every_character_gives_text_that_sqlite_gives_back():
    connection = sqlite3.connect(":memory:")
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 500):
        caption = clean_text("a" + "b".join(map(chr, codes[start : start + 500])))
        assert clean_text(caption) == caption
        assert connection.execute("SELECT ?, length(?)", (caption, caption)).fetchone() == (caption, len(caption))


def test_languages_are_written_one_way():
    sent = ("en", "EN", "pt-BR", "en_GB", " de ", "zh-Hant-TW")
    assert [clean_language(one) for one in sent] == ["en", "en", "pt-br", "en-gb", "de", "zh-hant-tw"]


NO_LANGUAGES = ["", "e", "english language", "en;", "../en", "e\x00n", "日本", "en-" + "a" * 99, None, 1, "x" * 10**6]


@pytest.mark.parametrize("sent", NO_LANGUAGES, ids=lambda value: ascii(value)[:30])
def test_a_language_that_is_none_is_an_error(sent):
    with pytest.raises(DataError, match=r"received the language .*; send a code such as 'en' or 'pt-br'") as error:
        clean_language(sent)
    assert len(str(error.value)) < 120
    assert str(error.value).isprintable()


def test_other_texts_go_by_the_same_rule_under_their_own_name():
    assert clean_text(" asked\nfor ", "reason") == "asked for"
    assert clean_text("李" * 64, "name", 64) == "李" * 64
    for sent, said in {
        "": "holds no letter",
        "a" * 65: "has 65 characters; 1 to 64",
        "a\ud800": "holds half of a",
    }.items():
        with pytest.raises(DataError, match=f"^the name {said}") as error:
            clean_text(sent, "name", 64)
        assert len(str(error.value)) < 100


@pytest.mark.parametrize(
    ("caption", "sent", "default", "language"),
    [
        ("Le maire ouvre la patinoire", "PT_br", "fr", "pt-br"),
        ("Le maire ouvre la patinoire", "", "en", "fr"),
        ("Le maire ouvre la patinoire", "", "fr-ca", "fr-ca"),
        ("Ein Hund läuft", "", "fr", "de"),
        ("a red square", "", "fr", "en"),  # Dutch knows these words too
        ("En hund springer på gräset", "", "sv", "sv"),
        *((unclear, "", default, default) for unclear in ("42", "xyzzy", "☃") for default in ("en", "fr", "xx")),
    ],
)
def test_the_language_is_as_sent_else_detected_else_the_default(caption, sent, default, language):
    assert language_of(caption, sent, default) == language


def test_no_language_is_looked_for_in_what_is_no_caption():
    for caption, sent in (("", ""), ("x" * 5000, ""), ("a\ud800", ""), ("a dog", "french")):
        with pytest.raises(DataError):
            language_of(caption, sent, "en")


@pytest.mark.parametrize(
    ("ids", "text"), [([], ""), ([3], "3"), ([1, 2, 3, 5, 7, 8], "1-3,5,7-8"), ([8, 2, 2, 1], "1-2,8")]
)
def test_ids_are_written_as_ranges_and_read_again(ids, text):
    assert id_ranges(ids) == text
    assert parse_id_ranges(text) == parse_id_ranges(f" {text.replace(',', ' , ')} ,") == set(ids)


@pytest.mark.parametrize("text", ["x", "3-", "-3", "7-3", "1,,x", "1-99999999999", "1.5", "3 7"])
def test_what_is_no_range_of_ids_is_an_error_that_shows_one(text):
    with pytest.raises(ConfigError, match="is no number and no range of contributions; write 3,7-9"):
        parse_id_ranges(text)
