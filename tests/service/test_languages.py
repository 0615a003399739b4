"""The language of an answer: as the request says, as the service is set, and as model and translator write it."""

import pytest
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from lcm.captioning.captioner import BundleCaptioner
from lcm.errors import BundleError
from lcm.service.schemas import Wish
from tests.fakes.service_client import Caller, caption_body, question_body
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import save_bilingual

ENGLISH = ("en", "a red square", ["red", "square"])
FRENCH = ("fr", "un carré rouge", ["rouge", "carré"])


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory) -> BundleCaptioner:
    folder = tmp_path_factory.mktemp("bilingual")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return BundleCaptioner(save_bilingual(folder / "bundle", use_tiny_encoder(folder, monkeypatch)))


def ask(caller: Caller, accepted: str = "", **fields):
    """Return language, caption and tags of an answer, and the whole of it."""
    headers = {"Accept-Language": accepted} if accepted else {}
    reply = caller.post("/learning-model", question_body(**fields), headers=headers)
    assert reply.status_code == 200, reply.text
    tags = [word for word, _ in reply.json["tags"]]
    return (reply.headers["Content-Language"], reply.json["captions"][0], tags), reply


ASKED = [
    ({}, "", "en", ENGLISH),
    ({}, "", "fr-CA", FRENCH),
    ({"language": "fr"}, "en", "en", FRENCH),
    ({"language": "FR_ca"}, "", "en", FRENCH),
    ({"language": "de"}, "fr", "fr", ENGLISH),  # which it does not write
    ({}, "fr", "en", FRENCH),
    ({}, "de, fr-CA;q=0.8, en;q=0.7", "en", FRENCH),
    ({}, "de", "fr", FRENCH),
    ({}, "*", "fr", FRENCH),
    ({}, "fr;q=0, *", "fr", ENGLISH),
]


@pytest.mark.parametrize(("fields", "accepted", "default", "answer"), ASKED)
def test_an_answer_is_in_the_language_that_is_asked_for(service, bilingual, fields, accepted, default, answer):
    found, reply = ask(service(bilingual, language=default), accepted, **fields)
    assert found == answer
    assert reply.json["english_captions"][0] == "a red square"


def test_a_model_without_english_answers_in_its_own_language(service, bilingual, monkeypatch):
    monkeypatch.setattr(bilingual, "languages", ("fr",))
    found, reply = ask(service(bilingual), "en")
    assert (found, reply.json["english_captions"]) == (FRENCH, [])


ACCEPTED = [
    ("fr-CA, en;q=0.5", "fr"),
    ("en-US,fr;q=0.1", "en"),
    ("en;q=0.2, fr;q=0.3", "fr"),
    ("fr;q=0.5, en;q=0.5", "en"),  # the default
    ("de, *;q=0.1", "en"),
    ("de", "en"),
    *((nonsense, "en") for nonsense in (",,;;q=", "fr;q=x", "fr;q=7", "\xe9\x80", "q" * 20_000, ";q=1", "1-2, !")),
]


@pytest.mark.parametrize(("header", "language"), ACCEPTED, ids=lambda value: ascii(value)[:20])
def test_the_header_is_read_with_its_weights_and_nonsense_is_ignored(header, language):
    assert Wish("", parse_accept_header(header, LanguageAccept), "en").choose(["fr", "en"]) == language


@pytest.mark.parametrize("language", ["french", "", "f", "fr\n\n!", "../fr", "fr-", 5, ["fr"]])
def test_a_language_that_is_no_code_is_refused(caller, language):
    assert caller.refuses("/learning-model", question_body(language=language)).startswith("language must be ")


def test_labels_that_cannot_be_read_have_no_score_and_are_told(service, bilingual):
    labels = ["rouge", "hôtel de ville", "red xyzzy", "élection", "vélo", "bleu"]
    (_, _, tags), reply = ask(service(bilingual), labels=labels)
    assert tags == ["rouge", "red xyzzy", "bleu"]
    assert reply.headers["X-LCM-Unread-Labels"] == "2,4-5"
    assert "X-LCM-Unread-Labels" not in ask(service(bilingual), labels=["rouge"])[1].headers


def test_pages_of_other_origins_may_read_the_language(service):
    caller = service(origins=("https://a.example",))
    reply = caller.post("/learning-model", question_body(), headers={"Origin": "https://a.example"})
    exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
    told = {name for name, _ in reply.headers if name == "Content-Language" or name.startswith("X-LCM")}
    assert len(told) > 3
    assert told <= {*exposed}


CONTRIBUTED = {
    "Un gros camion rouge.": None,
    "Ein rotes Auto fährt": None,
    "a blue lamp": None,  # Dutch knows these words too
    "une lampe": "fr-CA",
    "42": None,
}


def test_a_contribution_is_in_the_language_sent_else_detected_else_the_default(service, bilingual):
    caller = service(bilingual, language="fr")
    for caption, language in CONTRIBUTED.items():
        caller.answers("/caption", caption_body(caption=caption, language=language))
    assert [one.language for one in caller.store.contributions()] == ["fr", "de", "en", "fr-ca", "fr"]


RECALLED = [
    ({}, "", ("en", "Not blue", ["blue"])),
    ({"language": "fr"}, "", ("fr-ca", "Plutôt vert", ["vert"])),
    ({}, "fr", ("fr-ca", "Plutôt vert", ["vert"])),
    ({"language": "fr", "labels": ["red"]}, "", ("fr-ca", "Plutôt vert", ["red"])),
    ({"language": "de"}, "", ("en", "Not blue", ["blue"])),  # the answer is in English then
    ({}, "de", ("en", "Not blue", ["blue"])),
    ({"language": "sv"}, "", ("sv", "En lampa", ["red", "square"])),  # whose words cannot be read
]


@pytest.mark.parametrize(("fields", "accepted", "answer"), RECALLED)
def test_of_contributed_captions_the_newest_in_the_language_is_given(service, bilingual, fields, accepted, answer):
    caller = service(bilingual, memory=True)
    for caption, language in (("Bleu", "fr"), ("Plutôt vert", "fr-CA"), ("Not blue", "en"), ("En lampa", "sv")):
        caller.answers("/caption", caption_body(caption=caption, language=language), follow_up=False)
    found, reply = ask(caller, accepted, **fields)
    assert found == answer
    assert reply.json["english_captions"][:2] == ["Not blue", "a red square"]
    assert reply.headers["X-LCM-Source"] == "contribution"


def test_a_language_in_the_body_is_not_answered_with_a_caption_in_another(service, bilingual):
    caller = service(bilingual, memory=True)
    caller.answers("/caption", caption_body(caption="Not blue"))
    found, reply = ask(caller, language="fr")
    assert (found, reply.headers["X-LCM-Source"]) == (FRENCH, "bundle")
    assert reply.json["english_captions"][:2] == ["Not blue", "a red square"]
    assert ask(caller, "fr")[0] == ("en", "Not blue", ["blue"])


def test_where_no_caption_fits_the_newest_is_given(service, bilingual):
    caller = service(bilingual, memory=True)
    for caption, language in (("Bleu", "fr"), ("En lampa", "sv")):
        caller.answers("/caption", caption_body(caption=caption, language=language), follow_up=False)
    assert ask(caller)[0] == ("sv", "En lampa", ["red", "square"])


def test_what_the_model_does_not_write_is_translated(service, captioner, marian):
    """A model of English alone; its tag scorer reads no French, so the tags stay English."""
    caller = service(captioner, translator=str(marian), language="fr")
    found, reply = ask(caller)
    assert found == ("fr", "un carré rouge", ["red", "square"])
    assert reply.json["english_captions"][0] == "a red square"
    assert reply.headers["X-LCM-Model"] == "tiny-1 with opus-mt-en-fr"
    assert ask(caller, "de, en;q=0.1")[0] == ENGLISH
    assert ask(service(captioner), "fr")[0] == ENGLISH


def test_a_translator_that_cannot_be_loaded_stops_the_start(service, tmp_path):
    with pytest.raises(BundleError, match="as a Marian checkpoint: there is no such folder"):
        service(translator=str(tmp_path / "none"))


@pytest.mark.parametrize(("language", "alt_text"), [("en", "A red square."), ("fr", "Un carré rouge.")])
def test_alternative_text_is_in_the_answer_on_request_and_in_its_language(language, alt_text, service, bilingual):
    caller = service(captioner=bilingual)
    assert ask(caller, style="alt", language=language)[1].json["alt_text"] == alt_text
    assert "alt_text" not in ask(caller, style="plain", language=language)[1].json
