"""A vocabulary of one's own: read from a CSV, and what it makes of tags."""

import json
import re
from pathlib import Path

import pytest

from lcm import cli
from lcm.captioning.captioner import fault_of, load_captioner
from lcm.captioning.terms import Terms
from lcm.errors import ConfigError
from tests.fakes.service_client import make_tiny_bundle, question_body, service_in, text_of
from tests.fakes.tiny_graphs import PROBABLE, make_picture

TERMS = """term,synonyms,parent,rule,fr
animals,,,,animaux
dogs,puppy|hound,animals,,chiens|toutou
cars,,,,
fire engine,fire truck,cars,,"camion de pompiers"
pain,ache,,,douleur
crowd,group,,deny,
mob,crowd,,,

"""
COLOURS = "term,synonyms,parent,rule\ncolours,,,\nvermilion,red|scarlet,colours,\nshape,square,,deny\n"


@pytest.fixture
def read(tmp_path):
    def write(text: str, encoding: str = "utf-8") -> Terms:
        (tmp_path / "terms.csv").write_text(text, encoding=encoding)
        return Terms(str(tmp_path / "terms.csv"))

    return write


@pytest.mark.parametrize(
    ("captions", "language", "shown_in", "found"),
    [
        (["Two puppies and a hound."], "en", "en", {"animals > dogs": "puppy"}),
        (["a man by a red fire truck", "fire"], "en", "en", ["man", "red", "cars > fire engine", "fire"]),
        (["fire engines"], "en", "fr", {"cars > camion de pompiers": "fire engine"}),
        (["deux toutous devant le camion de pompiers"], "fr", "fr", ["animaux > chiens", "cars > camion de pompiers"]),
        (["un chien mange du pain"], "fr", "fr", ["animaux > chiens", "manger", "pain"]),  # bread is no ache
        (["ein Auto, ein Dogs"], "de", "de", ["auto", "animals > dogs"]),
        (["a group in the snow", "a crowd"], "en", "en", {"snow": "snow"}),
        (["there they are", ""], "en", "en", {}),
    ],
)
def test_captions_name_terms_and_other_words(read, captions, language, shown_in, found):
    terms = read(TERMS, "utf-16")
    its = terms.find(captions, language, shown_in)
    assert its == found if isinstance(found, dict) else list(its) == found
    assert terms.labels(language, lambda names: names) is None


def test_with_an_allow_list_only_its_terms_are_tags(read):
    terms = read(
        "rule,term,parent,synonyms,fr\n,animals,,,\nallow,Dogs,ANIMALS,puppy,chiens\nallow,snow,,,\ndeny,cat,,,\n"
    )
    assert terms.find(["a man, a puppy, a cat and an animal"], "en", "en") == {"animals > Dogs": "puppy"}
    assert terms.labels("fr", set().intersection) == {"animals > chiens": "chiens", "snow": "snow"}
    unread = {"chiens", "Dogs", "snow"}
    assert terms.labels("fr", unread.intersection) == {"animals > chiens": "puppy", "snow": "snow"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the columns are []; choose from term, synonyms, parent, rule, fr and other codes"),
        ("term;parent\n", 1, "the columns are ['term;parent']; choose from term, synonyms"),
        ("term,synonym\n", 1, "the columns are ['term', 'synonym']; choose from"),
        ("term,fr\ndogs,chiens\n,chats\n", 3, "the term is ''; give each row one that no other row has"),
        ("term\ndogs\n\nDogs\n", 4, "the term is 'Dogs'; give each row one that no other"),
        ("term\ncats|dogs\n", 2, "the term is 'cats | dogs'; give each row one"),
        ("term\nfood, wine\n", 2, "' wine' is a cell too many; put a text with commas in quotes"),
        ("term,parent\ndogs,animals\nanimals,\n", 2, "the parent is 'animals'; name one term of a row above"),
        ("term,parent\ndogs,dogs\n", 2, "the parent is 'dogs'; name one term of a row above"),
        ("term,rule\ndogs,no\n", 2, "the rule is 'no'; choose from allow, deny, or leave it empty"),
        (f"term,fr\ndogs,{'x' * 101}\n", 2, "has 101 characters; 1 to 100 are allowed"),
        ('term\n"dogs\n', 2, "unexpected end of data"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_with_its_line(read, tmp_path, text, line, message):
    with pytest.raises(ConfigError, match=re.escape(f"terms.csv, line {line}: {message}")):
        read(text)
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read \(No such file or directory\); give a CSV"):
        Terms(str(tmp_path / "none.csv"))


@pytest.fixture
def photo(tmp_path) -> Path:
    return make_picture(tmp_path / "red.png", "red")


def test_tags_are_mapped_and_their_shares_sum_to_1(tmp_path, monkeypatch, read, photo):
    """The model says "red" and "square", with cosines 1 and 0 to a red picture; ln 4 is the scale."""
    captioner = load_captioner(make_tiny_bundle(tmp_path, monkeypatch, tagger=PROBABLE))
    captioner.terms = read(COLOURS)
    described = captioner.describe(photo)
    assert described.tags == (("colours > vermilion", 1.0),)
    assert not fault_of(described)
    assert [word for word, _ in captioner.describe(photo, labels=["red", "square"]).tags] == ["red", "square"]
    captioner.terms = read(COLOURS.replace("colours,\n", "colours,allow\n").replace("deny", "allow"))
    assert captioner.describe(photo).tags == (
        ("colours > vermilion", pytest.approx(0.8)), ("shape", pytest.approx(0.2))
    )  # fmt: skip


def test_command_and_service_map_tags(tmp_path, monkeypatch, read, photo, capsys):
    bundle, vocabulary = make_tiny_bundle(tmp_path, monkeypatch), str(tmp_path / "terms.csv")
    asked = ["caption", str(photo), "--captioner", str(bundle), "--json"]
    read(COLOURS)
    assert cli.main([*asked, "--vocabulary", vocabulary]) == 0
    assert json.loads(capsys.readouterr().out)["tags"] == [["colours > vermilion", 1.0]]
    caller = service_in(tmp_path, vocabulary=vocabulary, bundle=str(bundle), memory=True)
    try:
        body = caller.answers("/learning-model", question_body(image=text_of(photo.read_bytes())))
        assert body["tags"] == [["colours > vermilion", 1.0]]
    finally:
        caller.engine.close()
    out = tmp_path / "out.csv"
    assert cli.main([*asked[:-1], "--out", str(out)]) == 0
    monkeypatch.setenv("LCM_VOCABULARY", vocabulary)
    assert cli.main([*asked[:-1], "--out", str(out)]) == 1
    assert "vocabulary" in capsys.readouterr().err, "rows of other settings stay as they are"
    read("term,rule\nzeppelin,allow\n")
    assert cli.main(asked) == 1
    assert "does not know zeppelin: none of the 1 labels" in capsys.readouterr().err


DOCUMENT = (Path(__file__).parents[2] / "docs" / "tags.md").read_text(encoding="utf-8")
TOPICS = [  # in IPTC's shape, a child before its parent
    ("3", "skiing", "ski", ["1", "9"], {}),
    ("1", "sport", "sport", [], {}),
    ("9", "winter games", "", [], {"retired": "2020-01-01"}),
    ("4", "arts, culture", "arts, culture", [], {}),
]


def test_the_document_s_example_and_its_way_from_media_topics(read, tmp_path, monkeypatch):
    example, script = (re.search(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)[1] for kind in ("csv", "python"))
    captions = ["a crowd with two puppies", "a fire truck"]
    assert list(read(example).find(captions, "en", "en")) == ["animals > dogs", "vehicles > fire engine"]
    monkeypatch.chdir(tmp_path)
    topics = [
        {"uri": uri, "prefLabel": {"en-GB": english, "fr": french}, "broader": above} | more
        for uri, english, french, above, more in TOPICS
    ]
    Path("mediatopic.json").write_text(json.dumps({"conceptSet": topics}))
    exec(script, {})
    found = Terms("vocabulary.csv").find(["skiing in arts, culture", "winter games"], "en", "fr")
    assert list(found) == ["sport > ski", "arts, culture", "winter", "game"]
