"""The pages without a browser: what they show, and what the dashboard's kernel never loads."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lcm.captioning.bundle import Bundle, Manifest
from lcm.captioning.captioner import SHIPPED_BUNDLE
from lcm.captioning.description import percent
from lcm.dashboard import photo, quality, review, widgets
from lcm.dashboard.app import Dashboard, dashboard
from lcm.dashboard.client import Answer, ServiceClient, ServiceError
from lcm.dashboard.language import FRENCH, PAGE, SENTENCES
from lcm.dashboard.review import ReviewPage, latest_reasons, read_pending
from lcm.errors import DataError
from lcm.registry import Version, short_digest
from tests.fakes.service_client import make_tiny_bundle
from tests.fakes.service_process import ROOT, free_port

from .site import picture

SHIPPED = ROOT / SHIPPED_BUNDLE
ODD = "<script>alert(\"1\")</script> & 'more'"
ANSWER = Answer("a red square", ("a square",), (("red", 0.8), ("square", 0.2)), "tiny-1", "0123", False, None)


def test_every_text_is_escaped():
    answer = replace(ANSWER, caption=ODD, others=(ODD,), tags=((ODD, 1.0),), model=ODD, version=ODD)
    shown = [
        widgets.answer_card(picture(), ODD, answer),
        widgets.note(ODD),
        widgets.table(["a", ODD], [[widgets.cell(ODD), widgets.cell("", ODD)]]),
    ]
    for part in shown:
        assert "<script" not in part
        assert "&lt;script" in part


def test_an_answer_tells_who_wrote_it_and_its_tags():
    card = widgets.answer_card(picture(), "photo", ANSWER)
    assert card.index("--share: 80.0%") < card.index("80&nbsp;%") < card.index("--share: 20.0%")
    assert "A person wrote this" not in card
    card = widgets.answer_card(picture(), "photo", replace(ANSWER, tags=(), contributed=True))
    assert "A person wrote this" in card
    assert "<p>none</p>" in card


@pytest.mark.parametrize(
    ("confidence", "said"), [(0.62, ">62 % sure.</p>"), (0.08, ">Unsure, please look.</p>"), (None, None)]
)
def test_an_answer_tells_how_sure_it_is(confidence, said):
    card = widgets.answer_card(picture(), "photo", replace(ANSWER, confidence=confidence))
    assert (said or "") in card
    assert ("sure" in card.lower()) == bool(said)


def test_a_mistake_of_the_page_is_told_without_its_inside(caplog):
    assert "secret" not in widgets.message_for(RuntimeError("secret /path"))
    assert "secret /path" in caplog.text
    assert widgets.message_for(DataError("in words")) == "in words"


# Its language

FORMATTED = re.compile(r"({.*?}|<code>.*?</code>|<.*?>)")  # of a sentence: what is no word of it
DATA = {
    "lcm",
    "shipped",
    "transformer",
    "dev",
    "fr",
    "français",
    "anglais",
    "allemand",
    "http",
    "retrain",
}  # what of the pages is no sentence


def test_every_sentence_has_its_french_form_and_every_form_is_said():
    said, lists = {*quality.VERDICTS.values(), *quality.FIGURES.values(), percent(0.999), percent(0.001)}, set()
    for script in Path(widgets.__file__).parent.glob("*.js"):
        said |= set(re.findall(r'\btext\("(.+?)"', script.read_text(encoding="utf-8")))
    for module in Path(widgets.__file__).parent.glob("*.py"):
        for one in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            match one:
                case ast.Call(ast.Name("say"), [ast.Constant(sentence), *_]):
                    said.add(sentence)
                case ast.Call(ast.Attribute(ast.Call(ast.Name("say"), [ast.Constant(sentence)]), "split")):
                    lists.add(sentence)
    assert SENTENCES[FRENCH].keys() == said
    assert len(lists) > 1
    for english, french in SENTENCES[FRENCH].items():
        assert sorted(FORMATTED.findall(english)) == sorted(FORMATTED.findall(french))
        assert english not in lists or english.count(", ") == french.count(", ")
        assert not re.search(r" [;:!?%»]|« |'| …|\.\.\.", FORMATTED.sub("X", french)), french


def loud(english: str) -> str:
    """Return a sentence in capitals, for a language that can be told from everything else."""
    return "".join(part if FORMATTED.fullmatch(part) else part.upper() for part in FORMATTED.split(english))


def texts_of(widget) -> Iterator[str]:
    """Yield what is read on a widget and on those inside it."""
    for name in ("value", "description", "placeholder", "status"):
        if isinstance(text := getattr(widget, name, ""), str):
            yield from [text, *re.findall('(?:alt|data-label)="(.*?)"', text)]
    yield from getattr(widget, "pages", [])
    for child in getattr(widget, "children", ()):
        yield from texts_of(child)


def test_no_word_on_the_pages_goes_unsaid(tmp_path, monkeypatch):
    """Data are in capitals here, and so is all that the pages say: what is not has no French form.

    What desk.js says is in the test before.
    """
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SENTENCES, FRENCH, {english: loud(english) for english in SENTENCES[FRENCH]})
    run = tmp_path / "runs" / "retrain"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    (run / "gate.json").write_text(json.dumps({"publish": False, "reason": "WORSE", "checks": []}))
    answer = replace(ANSWER, caption="A RED", others=("A",), tags=(("RED", 1.0),), model="TINY", language="en")
    client = SimpleNamespace(
        place="HERE",
        health=lambda: {"languages": ["de"], "version": "F00"},
        describe=lambda _photo, asked: replace(answer, confidence=0.5 if asked == "fr" else None),
        contribute=lambda *_: (7, True),
    )
    board = Dashboard(client, tmp_path)
    board.look_for_service(["xx", "fr-CA"])
    assert [code for _, code in board.language.options] == ["en", "fr", "de"]
    assert (board.language.value, board.choice.language) == ("fr", "fr")
    board.photo.take("RED.PNG", picture())
    board.photo.contribute()
    board.photo.caption.value = "UN"
    board.photo.contribute()
    for page in range(3):
        board.choice.page = page
    hidden = re.compile(r"<(code|style)>.*?</\1>|<.*?>|{.*?}|&.*?;", re.DOTALL)
    texts = "\n".join(hidden.sub(" ", one) for one in texts_of(board.view))
    assert set(re.findall(r"\b[a-zà-ÿ]{2,}\b", texts)) <= DATA
    assert "IN anglais: THE MODEL DOES NOT WRITE français YET." in texts


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        ("fr", "fr", ""),
        ("de", "en", "In English: the model does not write German yet."),
        ("fr", "en", "En anglais\u00a0: le modèle n’écrit pas encore en français."),
    ],
)
def test_an_answer_in_another_language_than_asked_is_called_so_and_is_no_beginning(tmp_path, asked, given, said):
    client = SimpleNamespace(describe=lambda _photo, _language: replace(ANSWER, language=given))
    PAGE.language = asked if asked in SENTENCES else "en"
    page = photo.PhotoPage(client, tmp_path, asked)
    page.take("red.png", picture())
    assert (said or "carré") in page.answer.value.replace("a red square", "carré")
    assert ("yet" in page.answer.value or "pas encore" in page.answer.value) == bool(said)
    assert page.caption.value == ("" if said else "a red square")


# The photo


def test_a_correction_that_is_kept_is_called_so_whatever_comes_after(tmp_path):
    def away(*_) -> Answer:
        raise ServiceError("the service went away")

    client = SimpleNamespace(contribute=lambda *_: (7, False), describe=away)
    page = photo.PhotoPage(client, tmp_path)
    page.asked, page.caption.value = ("dog.png", picture()), "a dog"
    page.contribute()
    assert "Contribution 7 is kept. Asked again: the service went away" in page.sent.value


@pytest.mark.parametrize(
    ("place", "side", "said"),
    [
        *((0, 9, "top left"), (4, 9, "top centre"), (8, 9, "top right"), (40, 9, "centre")),
        *((36, 9, "middle left"), (80, 9, "bottom right"), (0, 1, "centre"), (3, 2, "bottom right")),
    ],
)
def test_where_the_most_weight_is_is_said_in_words(place, side, said):
    assert photo.place_of(np.eye(side * side)[place]) == said


def test_colours_are_where_the_weights_are_and_the_photo_fades_elsewhere():
    looked = photo.looked_at(Image.new("RGB", (90, 90), (40, 40, 40)), np.eye(9)[0])
    grey = 255 - photo.FADED * (255 - 40)
    assert looked.getpixel((80, 80)) == pytest.approx([grey] * 3, abs=1)  # not looked at
    red = np.multiply(grey, photo.HEAT["white"]) / 255
    assert looked.getpixel((12, 12)) == pytest.approx(red, abs=9)  # the middle of the upper left
    nowhere = photo.looked_at(Image.new("RGB", (9, 9), (40, 40, 40)), np.zeros(9))
    assert nowhere.getpixel((4, 4)) == pytest.approx([grey] * 3, abs=1)


def test_each_word_has_its_attention_map(tmp_path, monkeypatch):
    folder = make_tiny_bundle(tmp_path, monkeypatch, feature_kind="grid")
    bundle = Bundle(folder)
    monkeypatch.setattr(bundle, "has_attention", True)
    monkeypatch.setattr(bundle, "attention", lambda _features, ids: np.eye(4)[ids % 4])  # [1, 1, T, 4]
    monkeypatch.setattr(photo, "Bundle", lambda _folder: bundle)
    monkeypatch.setenv("LCM_BUNDLE", str(folder))
    shown = photo.attention_maps(picture(), replace(ANSWER, version=short_digest(folder)))
    # START is 1, "a" 4 and "red" 6: what was looked at before each next word
    for word, before in (("a", 1), ("red", 4), ("square", 6)):
        assert f'<img alt="Where the model looked for {word}: {photo.place_of(np.eye(4)[before % 4])}"' in shown
    assert shown.count("<figure>") == 3


@pytest.mark.parametrize(
    ("version", "words"), [(None, "cannot tell where it looked"), ("f" * 12, "current one"), ("", "current one")]
)
def test_why_no_attention_is_shown_is_said(tmp_path, monkeypatch, version, words):
    folder = make_tiny_bundle(tmp_path, monkeypatch)
    monkeypatch.setenv("LCM_BUNDLE", str(folder))
    answer = replace(ANSWER, version=short_digest(folder) if version is None else version)
    page = photo.PhotoPage(SimpleNamespace(describe=lambda *_: answer), tmp_path)
    page.take("red.png", picture())
    page.draw_attention()
    assert words in page.maps.value


# Review


def test_flagged_contributions_come_first(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    for number in range(3):
        store.add(picture(side=40 + number), f"caption {number}")
    store.add(picture(), "un chien", "fr")
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    lines = [json.dumps({"id": number, "reason": "odd"}) for number in (1, 2)]
    cut = "\n".join([*lines, '{"id": 3, "reason": "\N{EURO SIGN}']).encode()[:-1]  # inside a letter: a run is writing
    (run / "suspects.jsonl").write_bytes(cut)
    store.approve([2])
    found = [(one.id, reason, one.approved) for one, reason in read_pending(store, tmp_path / "runs")]
    assert found == [(1, "odd", False), (4, "", False), (3, "", False), (2, "odd", True)]
    assert latest_reasons(tmp_path / "nothing") == {}


class Inline:
    """A pool of threads that has none: what is submitted is done at once."""

    def __init__(self, _threads: int):
        self.submit = lambda work, *values: work(*values)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> SimpleNamespace:
    """A page for a service that finds a square red; `do` says what a person does and returns what the desk is told."""
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(review, "ThreadPoolExecutor", Inline)
    told, kept = [], []
    monkeypatch.setattr(review.Desk, "send", lambda _desk, said: told.append(said))
    client = SimpleNamespace(
        place="HERE",
        health=lambda: {"ready": True},
        describe=lambda *_: replace(ANSWER, language="en", confidence=0.25),
        contribute=lambda *sent: (kept.append(sent), (len(kept), False))[1],
    )

    def do(what: str, *values: object, photo: bytes | None = None) -> dict:
        page = ReviewPage(client, tmp_path / "runs")
        page.receive(page.desk, {"do": what, "with": values}, [] if photo is None else [memoryview(photo)])
        return told.pop()

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(side=40 + number))
    return SimpleNamespace(do=do, kept=kept, folder=folder, client=client)


def rows(said: dict) -> list[tuple[str, str, str]]:
    return [(one["name"], one["state"], one["caption"]) for one in said["items"]]


def test_what_was_decided_stays_when_the_page_is_closed_and_when_photos_move(desk, tmp_path):
    """Each wish comes from a page of its own."""
    assert desk.do("open", str(desk.folder))["waiting"] == {str(desk.folder): 3}
    for number in (1, 2):
        assert desk.do("describe", number)["changed"]["confidence"] == 0.25
    desk.do("put", 1, "approved", "a red square", False, "en")
    desk.do("put", 2, "rejected", "a red square", False, "en")
    desk.do("put", 3, "open", "a stamp", True, "en")
    decided = [
        ("0.png", "approved", "a red square"),
        ("1.png", "rejected", "a red square"),
        ("2.png", "open", "a stamp"),
    ]
    assert rows(desk.do("look", "")) == decided
    there = desk.folder.rename(tmp_path / "elsewhere")
    said = desk.do("open", str(there))
    assert (rows(said), said["waiting"]) == (decided, {str(there): 2})


def test_a_person_who_is_faster_than_the_service_has_the_last_word(desk):
    desk.do("open", str(desk.folder))

    def describe(*_) -> Answer:
        desk.do("put", 1, "open", "a stamp", True, "en")
        desk.do("put", 2, "rejected", "", False, "")
        return replace(ANSWER, language="en")

    desk.client.describe = describe
    said = [desk.do("describe", number)["changed"] for number in (1, 2, 3)]
    assert [(one["state"], one["caption"]) for one in said] == [
        ("open", "a stamp"),
        ("rejected", ""),
        ("open", "a red square"),
    ]


def test_what_is_approved_is_sent_once_and_a_dropped_photo_goes_then(desk):
    photo = picture("green")
    number = desk.do("drop", "green.png", photo=photo)["changed"]["id"]
    assert desk.do("picture", "dropped", number)["jpeg"]
    desk.do("send", number, "ann")
    assert desk.kept == []  # nobody has approved it
    desk.do("put", number, "approved", "un carré", True, "fr")
    assert desk.do("send", number, " ann ")["changed"]["state"] == "sent"
    desk.do("send", number, "ann")
    assert desk.kept == [(photo, "un carré", "ann", "fr")]
    assert "drop it again" in desk.do("picture", "dropped", number)["failed"]
    assert desk.do("drop", "again.png", photo=photo)["changed"]["state"] == "sent"  # not asked again


def test_a_photo_in_trouble_is_told_of_and_a_service_that_is_away_is_no_trouble_of_the_photo(desk):
    def fail(*_) -> Answer:
        raise ServiceError("no such picture")

    desk.do("open", str(desk.folder))
    (desk.folder / "1.png").write_bytes(picture("blue"))
    assert "the file was changed" in desk.do("describe", 2)["changed"]["trouble"]
    desk.client.describe = fail
    said = desk.do("describe", 1)
    assert (said["changed"]["trouble"], said["away"]) == ("no such picture", "")
    desk.client.health = dict
    said = desk.do("describe", 1)
    assert (said["changed"]["trouble"], said["away"]) == ("", "no such picture")


def test_approved_captions_become_files_and_sidecars(desk):
    pytest.importorskip("exiv2", reason="needs the extra photos")
    desk.do("open", str(desk.folder))
    for number in (1, 2, 3):
        desk.do("describe", number)
    desk.do("put", 1, "approved", "a red square", False, "en")
    desk.do("put", 2, "approved", 'a stamp, "red"', True, "en")
    source = str(desk.folder)
    first, second = map(json.loads, desk.do("save", source, "captions.jsonl")["text"].splitlines())
    assert (first["image"], first["confidence"], first["settings"]) == (f"{source}/0.png", 0.25, "approved")
    assert (second["caption"], second["confidence"]) == ('a stamp, "red"', None)
    lines = csv.DictReader(desk.do("save", source, "captions.csv")["text"].splitlines())
    assert [one["caption"] for one in lines] == ["a red square", 'a stamp, "red"']
    desk.do("put", desk.do("drop", "x.png", photo=picture("blue"))["changed"]["id"], "approved", "x", True, "en")
    said = desk.do("save", source, "xmp")
    assert (said["sidecars"], said["dropped"], said["failures"]) == (2, 0, [])
    assert "A red square." in (desk.folder / "0.xmp").read_text()
    assert {path.name for path in desk.folder.glob("*.xmp")} == {"0.xmp", "1.xmp"}
    assert desk.do("save", "dropped", "xmp")["dropped"] == 1


def test_contributions_are_approved_and_revoked_on_the_desk(desk, store, tmp_path):
    for number in range(2):
        store.add(picture(side=50 + number), f"caption {number}")
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "suspects.jsonl").write_text(json.dumps({"id": 1, "reason": "odd"}))
    said = desk.do("look", "")
    assert said["source"] == "contributions"  # no draft waits
    assert [(one["id"], one["state"], one["why"]) for one in said["items"]] == [(1, "open", "odd"), (2, "open", "")]
    assert desk.do("picture", "contributions", 1)["jpeg"]
    desk.do("approve", 1, True)
    assert store.get(1).approved
    assert desk.do("revoke", 2, "a test") == {"wish": {"do": "revoke", "with": (2, "a test")}, "revoked": 2}
    assert [one.reason for one in store.revoked()] == ["a test"]
    assert "there is no contribution 7" in desk.do("approve", 7, True)["failed"]


@pytest.mark.parametrize("folder", ["", " ", "/no/such/folder"])
def test_a_folder_that_is_none_is_told(desk, folder):
    said = desk.do("open", folder)
    assert f"{folder!r} is no folder of this machine" in said["failed"]
    assert said["wish"] == {"do": "open", "with": (folder,)}


def test_what_of_a_folder_is_not_shown_is_told(desk):
    (desk.folder / "gone.jpg").symlink_to("nowhere")
    (desk.folder / "more").mkdir()
    (desk.folder / "more" / "one.png").write_bytes(picture("blue"))
    said = desk.do("open", str(desk.folder))
    assert (len(said["items"]), said["folders"], len(said["problems"])) == (3, 1, 1)
    assert said["problems"][0].startswith("gone.jpg: ")


def test_drafts_that_cannot_be_read_are_told(desk, tmp_path):
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "review.sqlite").write_bytes(b"no database" * 100)
    assert "move the file away to begin anew" in desk.do("look", "")["failed"]


# Quality


def test_reports_that_are_missing_or_damaged_are_said_to_be_so(tmp_path):
    assert "No comparison yet" in quality.comparison_part(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    assert "No comparison yet" in quality.comparison_part(tmp_path)
    assert "not evaluated" in quality.run_part(tmp_path)
    assert "No retraining" in quality.gate_part(tmp_path)


def test_the_shipped_model_s_figures_are_shown_without_any_run(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    page, metrics = quality.QualityPage(ServiceClient(), tmp_path / "nothing"), Manifest.load(SHIPPED).metrics
    page.draw()
    shown = page.model.value
    assert "It learned from 6,000 images of flickr8k. It was measured on 1,000 others (dev)" in shown
    for name in ("cider", "cider_low", "cider_high", "bleu_4", "wer"):
        assert f"{metrics[name]:.3f}" in shown, name
    assert f"every content word of {percent(metrics['captions_right'])}" in shown


def test_each_language_that_a_model_writes_has_its_scores():
    models = {
        "one": {"cider": 0.6, "cider_low": 0.5, "cider_high": 0.7, "images": 9, "cider_fr": 0.3, "images_fr": 1934},
        "two": {"cider": 0.7, "cider_fr": 0.2, "wer_fr": 0.9, "meteor_fr": None, "images_fr": 1934},
    }
    PAGE.language = FRENCH
    shown = quality.scores_table(models)
    rows = [re.sub("<.*?>", " ", row).split() for row in shown.split("<tr>")[2:]]
    assert [row[:2] for row in rows] == [["one", "0,600"], ["one", "en"], ["two", "0,700"], ["two", "en"]]
    assert rows[1][2:5] == ["français,", "1", "934"]
    assert re.findall("<b>(.*?)</b>", shown) == ["0,300", "0,700", "0,900"]


def test_a_model_that_was_not_measured_or_is_not_there_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LCM_BUNDLE", str(make_tiny_bundle(tmp_path, monkeypatch)))
    page = quality.QualityPage(ServiceClient(), tmp_path / "nothing")
    page.draw()
    assert "was not measured" in page.model.value
    monkeypatch.setenv("LCM_BUNDLE", str(tmp_path))
    page.draw()
    assert "is no bundle" in page.model.value


def test_versions_tell_of_the_gate_and_escape_its_reason():
    gate = {"reason": ODD, "decision": {"publish": True}, "by": "ann@desk", "published": "2026-01-02T03:04:05+00:00"}
    versions = [Version("shipped"), Version("v2", "abc", current=True, **gate)]
    shown = quality.versions_part(versions, "abc")
    assert shown.index("v2") < shown.index("shipped")
    assert "answers now" in shown
    assert "passed" in shown
    assert "<script" not in shown


@pytest.mark.parametrize(
    ("answering", "marked", "said"), [("abc", "shipped", False), ("f00", "", True), (None, "", False)]
)
def test_the_version_that_answers_need_not_be_current(answering, marked, said):
    versions = [Version("shipped", "abc"), Version("v2", "def", current=True)]
    shown = quality.versions_part(versions, answering)
    rows = {name: shown[shown.index(f">{name} ") :].partition("</tr>")[0] for name in ("shipped", "v2")}
    assert [name for name, row in rows.items() if "answers now" in row] == ([marked] if marked else [])
    assert ("Answers come from version f00, which is none of these" in shown) == said
    assert "current" in rows["v2"]


# The whole


def test_without_a_service_the_page_says_what_to_start(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path))
    port = free_port()
    board = Dashboard(ServiceClient(f"http://127.0.0.1:{port}"), tmp_path)
    board.look_for_service()
    assert f"{port}: start it there with lcm serve --port {port}" in board.who.value
    board.photo.take("a.png", picture())
    assert f"a.png: No answer from the service at 127.0.0.1:{port} (" in board.photo.drop.status
    board.choice.page = 2
    assert "shipped" in board.quality.versions.value
    assert "answers now" not in board.quality.versions.value


def test_a_bad_address_of_the_service_is_told_in_place_of_the_page(monkeypatch):
    monkeypatch.setenv("LCM_SERVICE", "here")
    assert "LCM_SERVICE is &#x27;here&#x27;" in dashboard().value


def test_the_kernel_of_the_dashboard_loads_no_training_framework_and_opens_no_store(tmp_path):
    code = """
import sys
from lcm.dashboard.app import dashboard
dashboard('nothing')
print([name for name in ('tensorflow', 'keras', 'torch', 'onnx', 'matplotlib', 'pyarrow') if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LCM_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[]\n", done.stderr
    assert not (tmp_path / "home").exists(), "the page was not seen yet"
