"""The dashboard without a browser: who answers, what is shown of it, and what its kernel never loads."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from tests.dashboard_site import ROOT, picture

sys.path.insert(0, str(Path(__file__).parent / "acceptance"))
from lcm.captioning.bundle import MANIFEST, Bundle
from lcm.captioning.captioner import BundleCaptioner
from lcm.contributions.approvals import approve
from lcm.contributions.store import ContributionStore
from lcm.dashboard import looking, quality
from lcm.dashboard.answer import Answer, DeskError, Receipt
from lcm.dashboard.desk import MAX_PHOTO, LocalDesk, RemoteDesk, check_photo, open_desk
from lcm.dashboard.page import Dashboard
from lcm.dashboard.parts import answer_card, glance_grid, note, tag_bars, words_for
from lcm.dashboard.photo import PhotoPage
from lcm.dashboard.waiting import WaitingPage, latest_suspects, read_waiting
from lcm.errors import ConfigError, DataError, StoreError
from lcm.paths import newest_first
from lcm.registry import Event, Version
from lcm.service import model_watch
from lcm.service.state import Service
from serve import create_app
from tests.acceptance.service_client import TOKEN, make_tiny_bundle, settings_for

ODD = "<script>alert(\"1\")</script> & 'more'"
SAID = Answer("a red square", ("a square",), (("red", 0.8), ("square", 0.2)), "tiny-1", "0123", False, None)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return BundleCaptioner(make_tiny_bundle(tmp_path_factory.mktemp("tiny"), monkeypatch))


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "home" / "contributions")


@pytest.fixture
def serve(tmp_path, captioner, store):
    """Serve on a free port of this machine; returns the address."""
    from werkzeug.serving import make_server

    servers = []

    def start(**changes) -> str:
        server = make_server(
            "127.0.0.1", 0, create_app(settings_for(tmp_path, **changes), captioner=captioner, store=store)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(params=["service", "page"])
def desk(request, tmp_path, captioner, store, serve):
    """Both kinds, which must say the same."""
    if request.param == "service":
        yield RemoteDesk(serve())
        return
    service = Service.assemble(settings_for(tmp_path), captioner, store)
    yield LocalDesk(lambda: service)
    service.close()


# The desk


def test_a_photo_is_described(desk):
    answer = desk.describe(picture("green"))
    assert (answer.caption, answer.model, answer.contributed) == ("a green square", "tiny-1", False)
    assert set(answer.others) == {"a square", "a green"}
    assert [word for word, _ in answer.tags] == ["green", "square"]


def test_a_correction_is_kept_and_is_the_answer(desk, store):
    receipt = desk.contribute(picture(), ODD, "ann")
    assert (receipt.known, desk.contribute(picture(), ODD).known) == (False, True)
    (kept,) = store.contributions()
    assert (kept.id, kept.caption, kept.source) == (receipt.number, ODD, "http:ann")
    answer = desk.describe(picture())
    assert (answer.caption, answer.contributed) == (ODD, True)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda desk: desk.describe(picture()[:60]), "damaged, cut short"),
        (lambda desk: desk.describe(b"no image"), "accepted"),
        (lambda desk: desk.contribute(picture(), " \n "), "caption"),
        (lambda desk: desk.contribute(picture(), "a dog", "a b"), "X-LCM-Contributor must be"),
        (lambda desk: desk.contribute(picture(), "a dog", "Зоя"), "X-LCM-Contributor must be"),
    ],
)
def test_what_is_wrong_is_said_in_words(desk, ask, words, store):
    with pytest.raises(DeskError, match=words):
        ask(desk)
    assert list(store.contributions()) == []


def test_a_service_asks_for_its_token(serve):
    address = serve(token=TOKEN)
    with pytest.raises(DeskError, match="set LCM_TOKEN where this page is started"):
        RemoteDesk(address).contribute(picture(), "a dog")
    assert RemoteDesk(address, TOKEN).contribute(picture(), "a dog").number == 1


def test_a_service_that_is_away_is_told_and_no_other_store_is_filled():
    desk = open_desk({"LCM_SERVICE": "http://127.0.0.1:9"})
    with pytest.raises(DeskError, match=r"the service at 127.0.0.1:9 does not answer .*lcm serve"):
        desk.contribute(picture(), "a dog")


def test_the_usual_service_answers_where_it_runs(serve, monkeypatch):
    monkeypatch.setattr("lcm.dashboard.desk.USUAL", serve())
    assert isinstance(open_desk({}), RemoteDesk)
    monkeypatch.setattr("lcm.dashboard.desk.USUAL", "http://127.0.0.1:9")
    assert isinstance(open_desk({}), LocalDesk)


def test_another_program_on_the_usual_port_is_no_service(monkeypatch):
    """One that speaks no HTTP, as a mail or an SSH server."""

    def greet() -> None:
        while connection := other.accept()[0]:
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-other\r\n")

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=greet, daemon=True).start()
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr("lcm.dashboard.desk.USUAL", address)
        assert isinstance(open_desk({}), LocalDesk)
        with pytest.raises(DeskError, match="does not answer"):
            RemoteDesk(address).describe(picture())


ADDRESSES = ["127.0.0.1:8000", "ftp://here", "http://", "file:///etc/passwd", "http://here:80000", "http://[::1"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_refused(address, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="LCM_SERVICE is"):
        open_desk({"LCM_SERVICE": address})
    monkeypatch.setenv("LCM_SERVICE", address)
    board = Dashboard(tmp_path)
    board.meet()
    assert "LCM_SERVICE is" in board.who.value
    board.photo.take("a.png", picture())
    assert "LCM_SERVICE is" in board.photo.drop.status


@pytest.mark.parametrize("body", [{}, {"captions": []}, {"captions": ["a"], "english_captions": None, "tags": []}])
def test_what_is_no_description_is_told(body):
    with pytest.raises(DeskError, match="is it lcm"):
        Answer.of(body, {})


@pytest.mark.parametrize("body", [{}, {"status": "success"}, {"id": None}, {"id": "7"}])
def test_what_is_no_receipt_is_not_called_kept(body):
    with pytest.raises(DeskError, match="did not say that it keeps the caption"):
        Receipt.of(body, {})


def test_what_the_page_keeps_back_is_in_the_log(caplog):
    def fail(*_):
        raise StoreError("/a/path cannot be written")

    desk = LocalDesk(lambda: SimpleNamespace(watch=SimpleNamespace(wait=lambda _s: None), keep=fail))
    with pytest.raises(DeskError, match="cannot be stored just now"):
        desk.contribute(picture(), "a dog")
    assert "/a/path cannot be written" in caplog.text


def test_a_model_that_takes_its_time_is_waited_for(tmp_path, monkeypatch):
    """The first time of all, the encoder is made: that takes longer than the service waits at its start."""
    folder = make_tiny_bundle(tmp_path, monkeypatch)
    load = model_watch.load_model

    def slowly(settings, folder):
        time.sleep(0.3)
        return load(settings, folder)

    monkeypatch.setattr(model_watch, "START_WAIT_S", 0.01)
    monkeypatch.setattr("lcm.service.state.load_model", slowly)
    service = Service.assemble(settings_for(tmp_path, bundle=str(folder)), None, ContributionStore(tmp_path / "store"))
    assert LocalDesk(lambda: service).describe(picture("green")).caption == "a green square"
    service.close()


def test_a_correction_that_is_kept_is_called_so_whatever_comes_after(tmp_path):
    def away(_photo: bytes) -> Answer:
        raise DeskError("the service went away")

    page = PhotoPage(lambda: SimpleNamespace(contribute=lambda *_: Receipt(7, False), describe=away), tmp_path)
    page.caption.value = "a dog"
    page.contribute()
    assert "Contribution 7 is kept. Asked again: the service went away" in page.sent.value


def test_a_photo_may_be_so_large_and_no_larger():
    assert len(check_photo(bytes(MAX_PHOTO))) == MAX_PHOTO
    with pytest.raises(DataError, match=r"10.0 MB; up to 10 MB"):
        check_photo(bytes(MAX_PHOTO + 1))


def test_the_websocket_takes_a_photo():
    config = json.loads((ROOT / "lcm" / "dashboard" / "jupyter" / "voila.json").read_text())
    assert config["Voila"]["tornado_settings"]["websocket_max_message_size"] > MAX_PHOTO + (1 << 20)


# Parts of the page


def test_every_text_is_escaped():
    answer = replace(SAID, caption=ODD, others=(ODD,), tags=((ODD, 1.0),), model=ODD, version=ODD)
    for part in (answer_card(picture(), ODD, answer), tag_bars([(ODD, 1.0)]), note(ODD)):
        assert "<script" not in part
        assert "&lt;script" in part


def test_the_longest_bar_is_the_best_tag_s():
    bars = tag_bars(SAID.tags)
    assert bars.index("--share: 100.0%") < bars.index("--share: 25.0%")
    assert "80%" in bars
    assert "none" in tag_bars([])


def test_a_person_s_caption_is_called_so():
    assert "A person wrote this" in answer_card(picture(), "photo", replace(SAID, contributed=True))
    assert "A person wrote this" not in answer_card(picture(), "photo", SAID)


def test_a_mistake_of_the_page_is_told_without_its_inside(caplog):
    assert "secret" not in words_for(RuntimeError("secret /path"))
    assert "secret /path" in caplog.text
    assert words_for(DataError("in words")) == "in words"


# Where the model looked


@pytest.mark.parametrize(
    ("place", "said"),
    [(0, "top left"), (4, "top centre"), (8, "top right"), (40, "centre"), (36, "middle left"), (80, "bottom right")],
)
def test_where_the_most_weight_is_is_said_in_words(place, said):
    assert looking.place_of(np.eye(81)[place]) == said


@pytest.mark.parametrize("places", [1, 4])
def test_small_grids_have_places_too(places):
    assert all(looking.place_of(row) for row in np.eye(places))


def test_each_word_has_its_glance(tmp_path, monkeypatch):
    folder = make_tiny_bundle(tmp_path, monkeypatch, feature_kind="grid", attention=False)
    bundle = Bundle(folder)
    monkeypatch.setattr(looking, "why_not", lambda _answer: "")
    monkeypatch.setattr(bundle, "attention", lambda _features, ids: np.eye(4)[ids % 4])  # [1, 1, T, 4]
    monkeypatch.setattr(looking, "_open", lambda *_: bundle)
    monkeypatch.setenv("LCM_BUNDLE", str(folder))
    found = looking.glances(picture(), replace(SAID, version=version_of(folder)))
    assert [one.word for one in found] == ["a", "red", "square"]
    # START is 1, "a" 4 and "red" 6: what was looked at before each next word
    assert [one.place for one in found] == [looking.place_of(np.eye(4)[each % 4]) for each in (1, 4, 6)]
    assert glance_grid(found).count('<img alt="Where the model looked for ') == 3


def version_of(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12]


def test_why_nothing_is_seen_is_said(tmp_path, monkeypatch):
    folder = make_tiny_bundle(tmp_path, monkeypatch)
    monkeypatch.setenv("LCM_BUNDLE", str(folder))
    for answer, words in (
        (replace(SAID, version=version_of(folder)), "export_attention"),
        (replace(SAID, version="f" * 12), "not this machine's current one"),
        (replace(SAID, version=""), "not this machine's current one"),
        (replace(SAID, contributed=True), "A person wrote"),
    ):
        with pytest.raises(DataError, match=words):
            looking.glances(picture(), answer)


# What waits


def test_suspects_come_first_and_what_is_approved_is_none(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    for number in range(3):
        store.add(picture(side=40 + number), f"caption {number}")
    store.add(picture(), "un chien", "fr")  # cannot train yet
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    lines = [json.dumps({"id": number, "reason": "odd"}) for number in (1, 2)]
    cut = "\n".join([*lines, '{"id": 3, "reason": "\N{EURO SIGN}']).encode()[:-1]  # inside a letter: a run is writing
    (run / "suspects.jsonl").write_bytes(cut)
    approve(store.folder, [2])
    found = [(one.contribution.id, one.is_suspect, one.approved) for one in read_waiting(store, tmp_path / "runs")]
    assert found == [(1, True, False), (3, False, False), (2, False, True)]
    assert latest_suspects(tmp_path / "nothing") == {}


def test_a_store_that_cannot_be_read_is_told(store, tmp_path, monkeypatch):
    def fail(_contribution):
        raise StoreError("the disk is away")

    store.add(picture(), "a dog")
    page = WaitingPage(lambda: SimpleNamespace(kept_elsewhere=""), tmp_path)
    page.store = store
    monkeypatch.setattr(store, "read_image", fail)
    page.draw()
    assert ("the disk is away" in page.summary.value, page.list.children) == (True, ())


# Quality


def test_the_newest_of_several_files_comes_first_and_one_that_is_gone_does_not_come(tmp_path):
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert newest_first(tmp_path / name for name in ("gone", "old", "new")) == [tmp_path / "new", tmp_path / "old"]


def test_reports_that_are_not_there_or_damaged_are_said_to_be_so(tmp_path):
    assert "No comparison yet" in quality.comparison_part(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    assert "No comparison yet" in quality.comparison_part(tmp_path)
    assert "not evaluated" in quality.run_part(tmp_path)
    assert "No retraining" in quality.gate_part(tmp_path)
    assert quality.find_runs(tmp_path / "nothing") == []


def test_the_committed_comparison_is_shown():
    record = json.loads((ROOT / "reports" / "comparison.json").read_text())
    shown = quality.comparison_part(ROOT / "reports")
    for name, scores in record["models"].items():
        assert name in shown
        assert f"{scores['cider']:.3f}" in shown
    best = max(scores["cider"] for scores in record["models"].values())
    assert f"<b>{best:.3f}</b>" in shown


def test_versions_tell_of_the_gate_and_escape_its_reason():
    event = Event("publish", "v2", "shipped", ODD, {"publish": True}, "ann@desk", "2026-01-02T03:04:05+00:00")
    versions = [Version("shipped", Path()), Version("v2", Path(), "abc", is_current=True, published=event)]
    shown = quality.versions_part(versions, SimpleNamespace(version=lambda: "abc"))
    assert shown.index("v2") < shown.index("shipped")
    assert "answers now" in shown
    assert "passed" in shown
    assert "<script" not in shown


def test_who_answers_need_not_be_current():
    versions = [Version("shipped", Path(), "abc"), Version("v2", Path(), "def", is_current=True)]
    for answering, marked, said in (("abc", "shipped", False), ("f00", "", True), ("", "", False)):
        shown = quality.versions_part(versions, SimpleNamespace(version=lambda answering=answering: answering))
        rows = {name: shown[shown.index(f">{name} ") :].partition("</tr>")[0] for name in ("shipped", "v2")}
        assert [name for name, row in rows.items() if "answers now" in row] == ([marked] if marked else [])
        assert ("Answers come from version f00, which is none of these" in shown) == said
        assert "current" in rows["v2"]


def test_with_a_bundle_of_its_own_the_page_says_which_version_answers(tmp_path, monkeypatch):
    folder = make_tiny_bundle(tmp_path, monkeypatch)
    for name, value in (("HOME", tmp_path / "home"), ("BUNDLE", folder), ("SERVICE", "")):
        monkeypatch.setenv(f"LCM_{name}", str(value))
    monkeypatch.setattr("lcm.dashboard.desk.USUAL", "http://127.0.0.1:9")
    board = Dashboard(tmp_path)
    board.choice.page = "Model quality"
    assert f"Answers come from version {version_of(folder)}" in board.quality.versions.value
    assert "answers now" not in board.quality.versions.value


# Light


def test_the_kernel_of_the_dashboard_loads_no_training_framework():
    """Neither at the start nor with an answer: with the shipped model it is ONNX Runtime that answers."""
    code = """
import sys
from lcm.dashboard.page import dashboard
dashboard('nothing')
print([name for name in ('tensorflow', 'keras', 'torch', 'onnx', 'matplotlib', 'pyarrow') if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_the_notebook_names_the_reports():
    cells = json.loads((ROOT / "notebooks" / "dashboard.ipynb").read_text())["cells"]
    (parameters,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    ((name, value),) = [line.split("#")[0].split(" = ") for line in parameters["source"]]
    assert name == "reports"
    assert (ROOT / "notebooks" / json.loads(value) / "examples").is_dir()


# Notebooks, as JupyterLab runs them


def execute(name: str, folder: Path, **parameters) -> nbformat.NotebookNode:
    """Return a notebook that its kernel has executed, with what its widgets hold."""
    papermill = pytest.importorskip("papermill", reason="needs the extra notebooks")
    done = folder / f"{name}.ipynb"
    source = ROOT / "notebooks" / done.name
    papermill.execute_notebook(source, done, parameters, cwd=source.parent, progress_bar=False)
    return nbformat.read(done, as_version=4)


def test_the_notebook_of_the_dashboard_shows_its_widgets(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    done = execute("dashboard", tmp_path)
    (shown,) = [output for output in done.cells[-1].outputs if output.output_type == "execute_result"]
    view = shown.data["application/vnd.jupyter.widget-view+json"]
    widgets = done.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert widgets[view["model_id"]]["state"]["_dom_classes"] == ["lcm-dash"]
    (drop,) = [one["state"] for one in widgets.values() if "examples" in one["state"]]
    assert [one["name"] for one in drop["examples"]] == ["astronaut", "cat", "coffee", "rocket"]
    assert not (tmp_path / "home").exists(), "nothing is opened before the page is seen"


def test_the_tour_for_newcomers_runs(tmp_path):
    done = execute("00_explore", tmp_path, run_dir=str(tmp_path / "run"), samples=1, shown=2)
    said = "\n".join(str(output) for cell in done.cells for output in cell.get("outputs", []))
    assert "astronaut" in said
    assert len((tmp_path / "run" / "photos" / "captions.tsv").read_text().splitlines()) == 4
