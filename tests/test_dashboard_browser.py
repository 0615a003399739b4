"""The dashboard in a real browser: `make dashboard` serves it, a service with the tiny captioner answers.

Whatever a test does, the browser's console must stay without errors. Its only warnings are Voila's: ipywidgets were
built for a newer JupyterLab than Voila holds.
"""

import json
import re
import sys
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.dashboard_site import CHROMIUM, SECONDS, chromium, enter, new_page, picture, said, site

sys.path.insert(0, str(Path(__file__).parent / "acceptance"))
from lcm.captioning.captioner import BundleCaptioner
from lcm.contributions.approvals import read_approved
from lcm.contributions.store import ContributionStore
from lcm.dashboard.desk import MAX_PHOTO
from serve import create_app
from tests.acceptance.service_client import make_tiny_bundle, settings_for

PHONE = {"width": 375, "height": 800}
VOILA_S_OWN = re.compile(r"(Unsatisfied|No satisfying) version .* of shared (singleton )?module @jupyterlab/")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs a browser: no chromium on the PATH")


def upload(data: bytes, name: str = "photo.png") -> dict:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def write_reports(folder: Path) -> None:
    """Write an example, a comparison, and a retraining that found contribution 1 odd; names that would be markup."""
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "blue.png").write_bytes(picture("blue"))
    scores = {"cider": 0.5, "cider_low": 0.4, "cider_high": 0.6, "bleu_4": 0.2, "wer": 0.9}
    record = {"data": "squares", "split": "dev", "images": 9, "models": {"mine <b>": scores, "nearest": {"cider": 0.1}}}
    (folder / "comparison.json").write_text(json.dumps(record))
    run = folder / "runs" / "retrain"
    (run / "figures").mkdir(parents=True)
    (run / "figures" / "learning_curves.png").write_bytes(picture("white", 400))
    (run / "metrics.json").write_text(json.dumps({"cider": 0.512, "wer": None}))
    (run / "suspects.jsonl").write_text(json.dumps({"id": 1, "reason": "it fits <i>badly</i>"}) + "\n")
    checks = [{"name": "base CIDEr", "rule": "above -0.01", "passed": False}]
    (run / "gate.json").write_text(json.dumps({"publish": False, "reason": "not better", "checks": checks}))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> SimpleNamespace:
    """A service, its store, and the address of the dashboard that Voila serves as `make dashboard` does."""
    pytest.importorskip("voila", reason="needs the extra dashboard")
    werkzeug = pytest.importorskip("werkzeug.serving")
    folder = tmp_path_factory.mktemp("dashboard")
    write_reports(folder / "reports")
    with pytest.MonkeyPatch.context() as monkeypatch:
        captioner = BundleCaptioner(make_tiny_bundle(folder, monkeypatch))
    store = ContributionStore(folder / "home" / "contributions")
    app = create_app(settings_for(folder), captioner=captioner, store=store)
    service = werkzeug.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    own = {"LCM_HOME": str(folder / "home"), "LCM_SERVICE": f"http://127.0.0.1:{service.server_port}"}
    try:
        with site(folder, own) as served:
            yield SimpleNamespace(address=served.address, store=store)
    finally:
        service.shutdown()


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="needs the extra dev: playwright")
    with chromium() as started:
        yield started


@pytest.fixture
def visit(place, browser):
    """Open the dashboard, with some options of a browser's context; the console must hold nothing else at the end."""
    console, pages = [], []

    def open_here(**options):
        page = new_page(browser, **options)
        page.on("console", lambda said: console.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: console.append(str(error)))
        pages.append(page)
        return enter(page, place.address)

    yield open_here
    for page in pages:
        page.context.close()
    assert [line for line in console if not VOILA_S_OWN.match(line)] == []


def caption_of(page) -> str:
    return page.inner_text(".lcm-dash .caption")


def ask(page, data: bytes, caption: str) -> None:
    page.set_input_files(".drop input", upload(data))
    page.locator(".lcm-dash .caption", has_text=caption).wait_for()  # until it can be seen, too


def go(page, name: str, text: str) -> None:
    page.get_by_role("button", name=name).click()
    page.get_by_text(text).first.wait_for()
    current = page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")
    assert current.all_inner_texts() == [name]


def test_the_page_loads_from_this_machine_alone(visit, place):
    page = visit()
    assert page.title() == "lcm"
    assert page.inner_text(".lcm-dash h1") == "lcm"
    page.get_by_text("Answers come from the service at 127.0.0.1").wait_for()
    loaded = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert [one for one in loaded if not one.startswith((place.address, "blob:", "data:"))] == []


def test_others_are_let_in_by_a_token_alone(tmp_path):
    """As the README shows it; the address that is listened on is this machine's here."""
    with site(tmp_path, {"LCM_HOME": str(tmp_path)}, "--Voila.ip=127.0.0.1 --token --preheat_kernel=False") as served:
        with urllib.request.urlopen(served.address, timeout=SECONDS) as page:
            assert page.url.startswith(f"{served.address}login")
        (shown,) = set(re.findall(r"\?token=(\w+)", served.log.read_text()))
        with urllib.request.urlopen(f"{served.address}?token={shown}", timeout=SECONDS) as page:
            assert b"jupyter-config-data" in page.read()


def test_a_photo_gets_caption_tags_and_model(visit):
    page = visit()
    ask(page, picture("green"), "a green square")
    assert page.locator(".bars li").first.inner_text().split() == ["green", "80%"]
    assert "tiny-1" in page.inner_text(".answer")
    page.get_by_text("Other captions").click()
    assert set(page.locator(".answer details li").all_inner_texts()) == {"a square", "a green"}


def drop(page, data: bytes, name: str, size: int = 0) -> bool:
    """Drop a file; returns whether the answer about the photo before can still be seen then.

    It is filled up to a size in the browser: Playwright takes half a minute to hand over 10 MB.
    """
    return page.evaluate(
        """([data, name, size]) => { const moved = new DataTransfer(), bytes = new Uint8Array(size); bytes.set(data);
        moved.items.add(new File([bytes], name, {type: 'image/png'}));
        document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: moved}));
        return !!document.querySelector('.lcm-dash .answer')?.checkVisibility(); }""",
        [list(data), name, size or len(data)],
    )


def test_a_photo_may_be_dropped(visit):
    page = visit()
    drop(page, picture("blue"), "dropped.png")
    said(page, "dropped.png: a blue square")
    assert page.locator(".answer").is_visible()
    assert not drop(page, picture("green"), "next.png"), "a caption that is sent now would be about the next photo"
    said(page, "next.png: a green square")
    assert caption_of(page) == "a green square"


def test_the_keyboard_is_enough(visit):
    page = visit()
    page.get_by_role("button", name="Model quality").focus()
    page.keyboard.press("Enter")
    page.get_by_text("Which captioner is better").wait_for()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    page.wait_for_selector(".drop")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.querySelector('img').alt") == "Example: blue"
    page.keyboard.press("Enter")
    said(page, "blue.png: a blue square")
    page.get_by_label("The caption as it should be").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Send the caption"


def test_a_correction_is_stored_and_learned_at_once_and_escaped(visit, place):
    page, data, caption = visit(), picture("red", 57), "<b>a stamp</b> & \"more\" <img src=x onerror='alert(1)'>"
    ask(page, data, "a red square")
    page.get_by_label("The caption as it should be").fill(caption)
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Send the caption").click()
    page.get_by_text("is the answer now").wait_for()
    assert caption_of(page) == caption
    assert page.locator(".answer b").count() == 0
    (kept,) = [one for one in place.store.contributions() if one.width == 57]
    assert (kept.caption, kept.source, place.store.read_image(kept)) == (caption, "http:ann", data)
    ask(visit(), data, caption)


def test_a_broken_image_gives_a_message_and_the_next_one_an_answer(visit):
    page = visit()
    page.set_input_files(".drop input", upload(picture()[:60], "half.png"))
    said(page, "half.png: received a PNG file (60 bytes) that is damaged")
    assert page.locator(".status.wrong").count() == 1
    assert not page.locator(".answer").is_visible()
    ask(page, picture("green"), "a green square")
    assert page.locator(".status.wrong").count() == 0


def test_a_file_of_10_mb_comes_through_and_a_larger_one_is_told(visit):
    page = visit()
    drop(page, picture("blue"), "largest.png", MAX_PHOTO)  # what follows the end of a PNG is passed over
    said(page, "largest.png: a blue square")
    drop(page, picture("blue"), "large.png", MAX_PHOTO + 1)
    said(page, "large.png has 10.0 MB; up to 10.0 MB are taken")


def test_a_name_that_cannot_be_sent_is_told(visit):
    page = visit()
    ask(page, picture("blue"), "a blue square")
    page.get_by_label("Your name").fill("no blanks please")
    page.get_by_role("button", name="Send the caption").click()
    page.get_by_text("X-LCM-Contributor must be 1 to 64 characters").wait_for()


def test_what_waits_is_looked_at_approved_and_revoked(visit, place):
    first = place.store.add(picture("red", 61), "first <u>caption</u>")
    assert first.id >= 1, "the suspects of the run name number 1"
    page = visit()
    go(page, "Contributions", "for retraining")
    row = page.locator(".pending-row", has=page.get_by_role("button", name="Revoke 1 …"))
    assert "it fits <i>badly</i>" in row.inner_text()
    assert "they are not in this list, and are approved or revoked there" in page.inner_text(".lcm-dash")
    assert row.locator("img").get_attribute("alt")
    row.get_by_role("button", name="Approve 1").click()
    page.get_by_text("Contribution 1 takes part in the next retraining").wait_for()
    assert read_approved(place.store.folder) == {1}
    row = page.locator(".pending-row", has_text="first <u>caption</u>")
    row.get_by_role("button", name=f"Revoke {first.id} …").press("Enter")
    row.get_by_label(f"Why is {first.id} revoked?").wait_for()
    assert place.store.get(first.id)
    page.keyboard.press("Tab")  # goes on where the button was
    page.keyboard.type("a test")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text(f"Contribution {first.id} is revoked").wait_for()
    assert place.store.get(first.id) is None
    assert [one.reason for one in place.store.revocations() if one.id == first.id] == ["a test"]


def test_the_quality_of_models_is_shown(visit):
    page = visit()
    go(page, "Model quality", "Versions and the gate")
    page.get_by_text("base CIDEr").wait_for()
    text = page.inner_text(".lcm-dash")
    for part in ("mine <b>", "0.500", "0.400 to 0.600", "retrain", "0.512", "shipped", "refused", "base CIDEr"):
        assert part in text, part
    assert page.get_by_alt_text("Learning curves: loss").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["desk", "phone"])
def test_every_page_fits_and_can_be_read(visit, place, scheme, size):
    place.store.add(picture("red", 62), "a" * 300)
    page = visit(color_scheme=scheme, viewport=size)
    ask(page, picture("green"), "a green square")
    check(page, scheme)
    go(page, "Contributions", "for retraining")
    check(page, scheme)
    go(page, "Model quality", "base CIDEr")
    check(page, scheme)


def check(page, scheme: str) -> None:
    """No sideways scroll, text with enough contrast (WCAG AA), names for all pictures and fields."""
    wide = page.evaluate("""() => [...document.querySelectorAll('html, body, #rendered_cells, .lcm-dash, .lcm-dash *')]
        .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => one.outerHTML.slice(0, 200))""")
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    pale = page.evaluate(CONTRAST)
    assert [one for one in pale if one[0] < 4.5] == []
    assert len(pale) > 5
    dark = page.evaluate("getComputedStyle(document.querySelector('.lcm-dash h1')).color") == "rgb(232, 232, 232)"
    assert dark == (scheme == "dark")
    unnamed = page.evaluate("""() => [...document.querySelectorAll('.lcm-dash :is(input, textarea, select, img)')]
        .filter(one => one.tagName === 'IMG' ? !one.alt : !(one.labels?.length || one.ariaLabel))
        .map(one => one.outerHTML.slice(0, 200))""")
    assert unnamed == []


CONTRAST = """() => {
  const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([red, green, blue]) => [red, green, blue].map(one => one / 255)
    .map(one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
    .reduce((sum, one, place) => sum + one * [.2126, .7152, .0722][place], 0);
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = numbers(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour; } return [255, 255, 255]; };
  const found = [], walker = document.createTreeWalker(document.querySelector('.lcm-dash'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || one.tagName === 'STYLE' || !one.checkVisibility()) continue;
    const [text, back] = [numbers(getComputedStyle(one).color), behind(one)].map(light).sort((a, b) => b - a);
    found.push([(text + .05) / (back + .05), walker.currentNode.data.trim().slice(0, 60), one.className]);
  }
  return found;
}"""
