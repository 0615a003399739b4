"""Words: standardised in every script, numbered without collisions, key words and labels."""

import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm.data import text
from lcm.data.text import (
    END,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    PAD,
    RESERVED,
    START,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    candidates,
    comparison_form,
    content_words,
    is_content_word,
    join_words,
    lemma,
    read_labels,
    standardise,
    words,
)
from lcm.errors import DataError

# Standardisation

STANDARDISED = [
    ("", []),
    (" \t\n", []),
    ("A dog runs .", ["a", "dog", "runs"]),
    ("Two dogs,one CAT!(really)", ["two", "dogs", "one", "cat", "really"]),
    # The possessive is a word of its own, whichever apostrophe is typed.
    ("A man's hat", ["a", "man", "'s", "hat"]),
    ("A MAN\u2019S hat.", ["a", "man", "'s", "hat"]),
    ("the boys' hats, the T's", ["the", "boys", "hats", "the", "t", "'s"]),
    ("'s", ["s"]),
    ("the 'sun'", ["the", "sun"]),
    # Other apostrophes inside a word are letters of it.
    ("don\u2019t, O'Sullivan! It\u02bcs 5 o'clock", ["don't", "o'sullivan", "it", "'s", "5", "o'clock"]),
    ("Rock'n'Roll isn't 'rock' n' roll", ["rock'n'roll", "isn't", "rock", "n", "roll"]),
    ("М'яч, п\u2019ять; İstanbul'da Hawai\u02bbi", ["м'яч", "п'ять", "istanbul'da", "hawai\u02bbi"]),
    ("Hind\u093f's", ["hind\u093f", "'s"]),  # after a combining mark
    # Hyphens inside a word stay, those around it do not.
    ("a T-shirt - well-to-do -- ok-", ["a", "t-shirt", "well-to-do", "ok"]),
    ("t\u2011shirt t\u2010shirt", ["t-shirt", "t-shirt"]),  # typographic hyphens
    ("2 dogs at 10:30, no. 3-4", ["2", "dogs", "at", "10", "30", "no", "3-4"]),
    ("snake_case", ["snake", "case"]),
    # French and Italian: what is elided is a word, written without a blank after it.
    ("L'été, un garçon ÉTOURDI s\u2019élance", ["l'", "été", "un", "garçon", "étourdi", "s'", "élance"]),
    ("qu'est-ce d'une, jusqu'à", ["qu'", "est-ce", "d'", "une", "jusqu'", "à"]),
    ("aujourd'hui, quelqu'un d\u2019aujourd\u2019hui", ["aujourd'hui", "quelqu'un", "d'", "aujourd'hui"]),
    ("dell'acqua All'aperto c'è un'onda", ["dell'", "acqua", "all'", "aperto", "c'", "è", "un'", "onda"]),
    ("col\u00b7lecció l'illa", ["col\u00b7lecció", "l'", "illa"]),  # Catalan
    # German: STRASSE and Straße are compared as one word, which the upper case below checks.
    ("Straße Stra\u1e9ee", ["straße", "straße"]),
    ("foot\u00adball", ["football"]),  # a soft hyphen
    # HTML entities, also of entities.
    ("a black &amp; white dog, it&#39;s &quot;happy&quot;", ["a", "black", "white", "dog", "it", "'s", "happy"]),
    ("the dog&amp;#39;s caf&eacute; AT&T", ["the", "dog", "'s", "café", "at", "t"]),
    ("Một chú chó đang chạy", ["một", "chú", "chó", "đang", "chạy"]),  # Vietnamese
    ("एक कुत्ता दौड़ रहा है।", ["एक", "कुत्ता", "दौड़", "रहा", "है"]),  # Hindi: vowel signs and viramas are marks
    ("Собака бежит; ΣΊΣΥΦΟΣ σίσυφος", ["собака", "бежит", "σίσυφος", "σίσυφος"]),  # the last sigma is another
    ("كلب يركض", ["كلب", "يركض"]),
    ("\u01f0 J\u030c", ["\u01f0", "\u01f0"]),  # case folding takes apart what NFC had put together
    # Joiners that no one sees spell Persian and Sinhala words.
    ("می\u200cدود", ["می\u200cدود"]),
    ("ශ්\u200dරී", ["ශ්\u200dරී"]),
    ("\u200ca\u200d", ["a"]),
    # Emoji are no words, nor are the marks and joiners inside them.
    ("😀", []),
    ("❤\ufe0f 👩\u200d👩\u200d👧 👍🏽 🇫🇷", []),
    ("a dog ❤\ufe0f", ["a", "dog"]),
    ("\u0301", []),
    ("<start> a <pad> <end>", ["start", "a", "pad", "end"]),
]


@pytest.mark.parametrize(("text", "shown"), STANDARDISED)
def test_words_are_shown_as_they_are_spelt_and_compared_case_folded(text, shown):
    shown = [unicodedata.normalize("NFC", word) for word in shown]
    assert words(text) == shown
    assert words(unicodedata.normalize("NFD", text)) == shown  # as macOS writes it
    compared = [comparison_form(word) for word in shown]
    assert standardise(text) == compared
    if "&" not in text:  # entities are as they are written
        assert standardise(text.upper()) == standardise(text.lower()) == compared
    assert words(join_words(shown)) == shown


@given(st.text(st.one_of(st.sampled_from("lsdtnqu' \u2019-&#39;İIΣß\u0301\u200d"), st.characters(codec="utf-8"))))
def test_joining_loses_no_word(text):
    assert words(join_words(words(text))) == words(text)


def test_turkish_has_two_letters_i():
    assert words("IŞIK İstanbul ıslak", "tr") == ["ışık", "istanbul", "ıslak"]
    assert words("IŞIK İstanbul ıslak") == ["işik", "istanbul", "ıslak"]


# Vocabulary


def test_a_word_is_kept_in_its_most_frequent_spelling_and_found_in_any():
    vocabulary = build_vocabulary({"en": ["Die STRASSE", "die Straße", "eine Straße", "l'homme est là"]}, 1)
    assert vocabulary.own_words == ("straße", "die", "eine", "est", "homme", "l'", "là")
    assert vocabulary.decode(vocabulary.encode("Strasse L’HOMME")) == "straße l'homme"
    assert build_vocabulary({"en": ["STRASSE"]}, 1, vocabulary) == vocabulary


CAPTIONS = ["A dog's ball .", "A dog runs", "a cat runs", "Zebra"]  # a 3, dog 2, runs 2, 's 1, ball 1, cat 1, zebra 1


def test_min_count_is_inclusive():
    assert build_vocabulary({"en": CAPTIONS}, 1).own_words == ("a", "dog", "runs", "'s", "ball", "cat", "zebra")
    assert build_vocabulary({"en": CAPTIONS}, 2).own_words == ("a", "dog", "runs")
    assert build_vocabulary({"en": CAPTIONS}, 3).own_words == ("a",)
    with pytest.raises(DataError, match=r"no word is frequent enough .*'a', occurs 3 times.*lower min_count"):
        build_vocabulary({"en": CAPTIONS}, 4)
    with pytest.raises(DataError, match="there are no words at all"):
        build_vocabulary({"en": ["😀", "..."]}, 1)


def test_without_a_count_the_number_of_captions_says_it():
    words = ["once", *["twice"] * 2, *["five"] * 5, *["other"] * 992]
    assert build_vocabulary({"en": words[:999]}, 0).own_words == ("other", "five", "twice", "once")
    assert build_vocabulary({"en": words}, 0).own_words == ("other", "five", "twice")
    assert build_vocabulary({"en": words * 2 + ["other"] * 4000}, 0).own_words == ("other", "five")


def test_words_that_are_known_keep_their_ids_and_new_ones_follow():
    known = build_vocabulary({"en": ["a dog a dog", "a cat"]}, 1)
    grown = build_vocabulary({"en": ["the zebra the zebra the dog", "zoo zoo dog"]}, 2, known)
    assert grown.words == (*known.words, "the", "zebra", "zoo")
    assert all(grown.ids[word] == known.ids[word] for word in known.words)
    assert grown.encode("a cat and the dog")[1:-1] == [
        *known.encode("a cat")[1:-1],
        UNKNOWN,
        len(known),
        known.ids["dog"],
    ]


IN_TWO = {"en": ["a dog's ball", "a dog", "the ball"], "de": ["ein Ball", "ein Dog a a"]}


def test_a_word_is_of_the_languages_whose_captions_have_it_however_rarely(tmp_path):
    vocabulary = build_vocabulary(IN_TWO, 2)  # the German captions hold "dog" and "ball" once
    own = {"a": ("en", "de"), "ball": ("en", "de"), "dog": ("en", "de"), "ein": ("de",)}
    assert vocabulary.languages == own
    vocabulary.save(tmp_path / "vocabulary.txt")
    assert Vocabulary.load(tmp_path / "vocabulary.txt") == vocabulary
    read = {code: [vocabulary.words[token_id] for token_id in ids] for code, ids in vocabulary.ids_in.items()}
    assert read == {
        "en": [*RESERVED, "a", "ball", "dog"],
        "de": ["<pad>", "<de>", *RESERVED[END:], "a", "ball", "dog", "ein"],
    }


def test_a_word_becomes_one_of_a_language_that_is_learned_further():
    known = build_vocabulary({"en": ["a dog a dog", "a cat"]}, 1)
    grown = build_vocabulary({"fr": ["un dog", "un chien"]}, 1, known)
    assert grown.languages == {
        "a": ("en",),
        "dog": ("en", "fr"),
        "cat": ("en",),
        "un": ("fr",),
        "chien": ("fr",),
    }
    again = build_vocabulary({"fr": ["un cat"], "en": ["un"]}, 2, grown)  # too rare to enter, and there already
    assert again.words == grown.words
    assert again.languages == grown.languages | {"cat": ("en", "fr"), "un": ("en", "fr")}


def test_encode_and_decode():
    vocabulary = build_vocabulary({"en": CAPTIONS}, 1)  # a 4, dog 5, runs 6, 's 7, ball 8, cat 9, zebra 10
    ids = vocabulary.encode("A dog\u2019s ball!")
    assert ids == [START, 4, 5, 7, 8, END]
    assert vocabulary.decode(np.array(ids)) == "a dog's ball"
    assert vocabulary.encode("a wolf runs") == [START, 4, UNKNOWN, 6, END]
    assert vocabulary.decode([START, 4, UNKNOWN, 6, END, PAD, PAD]) == "a runs"


def test_reserved_ids_come_first_and_no_word_takes_them():
    assert (PAD, START, END, UNKNOWN) == (0, 1, 2, 3)
    vocabulary = build_vocabulary({"en": ["<start> <pad> <end> <unknown> start pad end unknown"] * 2}, 1)
    assert vocabulary.words == (*RESERVED, "end", "pad", "start", "unknown")
    assert len(vocabulary) == 8
    assert vocabulary.encode("<start> <PAD> <unknown>") == [START, 6, 5, 7, END]


def test_save_and_load(tmp_path):
    texts = [text for text, _ in STANDARDISED]
    vocabulary = build_vocabulary({"en": texts}, 1)
    vocabulary.save(tmp_path / "vocabulary.txt")
    assert Vocabulary.load(tmp_path / "vocabulary.txt") == vocabulary
    lines = (tmp_path / "vocabulary.txt").read_bytes().split(b"\n")
    assert lines[:4] == [b"<pad>", b"<en>", b"<end>", b"<unknown>"]
    assert lines[-1] == b""  # the last line is a whole one


HEAD = "\n".join(RESERVED).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it must begin with <pad>, <en>, <end>, <unknown>"),
        (b"<start>\n<pad>\n<end>\n<unknown>\na\n", "it must begin with"),
        (b"\x80\x04\x95 a pickle", "it must begin with"),
        (HEAD + b"a\n\ndog\n", "is damaged"),
        (HEAD + b"a\ndog\na\n", "is damaged"),
        (HEAD + b"a\n<pad>\n", "is damaged"),
        (HEAD + "été".encode("cp1252") + b"\n", "is damaged"),
    ],
)
def test_load_of_a_damaged_file(tmp_path, content, message):
    (tmp_path / "vocabulary.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"vocabulary.txt .*{message}"):
        Vocabulary.load(tmp_path / "vocabulary.txt")


# Key words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Two brown dogs are running through the snow.", ["brown", "dog", "running", "snow"]),
        ("A man in a red shirt stands on a rock .", ["man", "red", "shirt", "stand", "rock"]),
        ("The girl's T-shirt is blue", ["girl", "t-shirt", "blue"]),
        ("Children play while other children watch", ["child", "play", "watch"]),
        ("a little boy in the background of the photo", ["little", "boy"]),
        ("Dogs chase a DOG and another dog", ["dog", "chase"]),
        ("женщина с собакой", ["женщина", "с", "собакой"]),
        ("a Fußball on the fussball and the FUSSBALL", ["fussball"]),
    ],
)
def test_content_words_are_folded_each_once_in_the_order_of_their_appearance(caption, words):
    assert list(content_words(caption).values()) == candidates([caption]) == words


@pytest.mark.parametrize("caption", ["", "he is with them", "3 of 10 at 2", "an a 's x - l'", "isn't in the photo"])
def test_a_caption_may_have_no_content_words(caption):
    assert content_words(caption) == {}
    assert candidates([caption, "a dog", caption]) == ["dog"]
    assert candidates([caption]) == []


LEMMAS = {
    "en": "dogs dog, men man, women woman, policemen policeman, children child, teeth tooth, feet foot, geese goose, "
    "leaves leaf, shelves shelf, puppies puppy, benches bench, crosses cross, skies sky, buses bus, dresses dress, "
    "lenses lens, tutus tutu, t-shirts t-shirt, jet-skis jet-ski, ties tie, dies die, jumps jump, poles pole, "
    # What only looks like a plural, names among them, or means another thing in the singular.
    "bus bus, grass grass, dress dress, sheep sheep, people people, tennis tennis, police police, glasses glasses, "
    "glass glass, woods woods, wood wood, pants pants, board-shorts board-shorts, sunglasses sunglasses, lens lens, "
    "basis basis, oasis oasis, trellis trellis, ibis ibis, elvis elvis, travis travis, lewis lewis, texas texas, "
    "adidas adidas, pelvis pelvis, species species, upstairs upstairs, overseas overseas, axis axis, canvas canvas, "
    "metropolis metropolis, paris paris, kansas kansas, christmas christmas, clematis clematis, mercedes mercedes, "
    "jumping jumping, jumped jumped, older older, held held, fallen fallen, graffiti graffiti, снег снег",
    "fr": "chiens chien, chevaux cheval, blanches blanc, jouent jouer, courant courant, lunettes lunettes, yeux yeux, "
    "vagues vague, eau eau, t-shirts t-shirt, œuvres œuvre",
    "de": "hunde hund, männer mann, häuser haus, ball ball, wiese wiese, strand strand, fluss fluss, junge junge, "
    "zähne zahn, straßen straße, springt springen, kleiner klein, weißen weiß",
    "pt-br": "cachorros cachorro",
    "zz": "dogs dogs",  # a language that nothing is known of
}


@pytest.mark.parametrize("language", LEMMAS)
def test_a_word_has_one_form_where_it_means_the_same(language):
    expected = dict(pair.split() for pair in LEMMAS[language].split(", "))
    assert {word: lemma(word, language) for word in expected} == expected


def test_content_words_of_another_language():
    french = ["Des chiens blancs jouent dans l'herbe", "un chien blanc près d’une piscine"]
    assert candidates(french, "fr") == ["chien", "blanc", "jouer", "herbe", "piscine"]
    assert not is_content_word("qu'", "zz")


@pytest.mark.parametrize("language", text.LEMMAS)
def test_the_tables_say_nothing_that_holds_without_them(language, monkeypatch):
    """An entry that changes nothing, or two that contradict each other, is one that nobody has looked at."""
    import stop_words

    listed = set(stop_words.get_stop_words(language))
    pictured, unpictured = (set(table.get(language, "").split()) for table in (text.PICTURED, text.UNPICTURED))
    assert listed >= pictured
    assert not unpictured & listed
    with_table = {word: lemma(word, language) for word in text.OWN_LEMMAS[language]}
    monkeypatch.setattr(text, "OWN_LEMMAS", {})
    lemma.cache_clear()
    without = {word: lemma(word, language) for word in with_table}
    lemma.cache_clear()
    assert {word for word, form in with_table.items() if without[word] == form or word in listed} == set()


# Labels


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"dog\ncat\n", ("dog", "cat")),
        (b"\xef\xbb\xbfdog\r\ncat", ("dog", "cat")),
        (b"  a dog  on\tgrass \n\n \n", ("a dog on grass",)),
        (b"dog\ncat\ndog\nDog\nCAT\n", ("dog", "cat")),
        ("Größe\ne\u0301\n\u00e9\n犬\nگل\u200cها\n".encode(), ("Größe", "é", "犬", "گل\u200cها")),
        (b"=1+1\n-\n# no comment\n", ("=1+1", "-", "# no comment")),
        ("dog\ncat\n".encode("utf-16"), ("dog", "cat")),
    ],
)
def test_labels_are_read_as_people_write_them(content, labels, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == labels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no label"),
        (b"dog\nc\0at\n", r"the label 'c\\x00at' holds control characters"),
        (b"dog\n" + b"x" * (MAX_LABEL_LENGTH + 1), f"the label 'xxx.*' has {MAX_LABEL_LENGTH + 1} characters"),
        (b"".join(b"%d\n" % number for number in range(MAX_LABELS + 1)), f"{MAX_LABELS + 1} labels; at most"),
    ],
)
def test_what_is_no_labels_file_is_refused(content, said, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_labels(tmp_path / "labels.txt")
    assert "labels.txt" in str(caught.value)


def test_a_shell_s_substitution_is_a_file_too(tmp_path):
    """What `--labels <(printf 'dog\\ncat')` gives."""
    reading, writing = os.pipe()
    os.write(writing, b"dog\ncat\n")
    os.close(writing)
    (tmp_path / "labels").symlink_to(f"/dev/fd/{reading}")
    assert read_labels(tmp_path / "labels") == ("dog", "cat")
    os.close(reading)
