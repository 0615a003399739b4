"""The dashboard in a real browser: `make dashboard` serves it, a service with the tiny captioner answers it.

Whatever a test does, the browser's console must stay without errors. Its only warnings are Voila's: ipywidgets were
built for a newer JupyterLab than Voila holds.
"""

import json
import re
import shutil
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from lcm.contributions.store import ContributionStore
from lcm.dashboard.client import MAX_PHOTO, ServiceClient
from lcm.dashboard.language import SENTENCES
from tests.fakes.service_process import free_port

from .site import SECONDS, picture, site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"

DESK = {"width": 1280, "height": 900}
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
def place(tmp_path_factory, run_service) -> SimpleNamespace:
    """The store of a service, and the address of the dashboard that asks it."""
    pytest.importorskip("voila", reason="needs the extra dashboard")
    folder = tmp_path_factory.mktemp("dashboard")
    write_reports(folder / "reports")
    store = ContributionStore(folder / "home" / "contributions")
    home = {"LCM_HOME": str(folder / "home")}
    with run_service(folder, store) as service, site(folder, home | {"LCM_SERVICE": service}) as served:
        yield SimpleNamespace(address=served.address, store=store)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra dev: playwright")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())


@pytest.fixture
def visit(place, browser):
    """Open the dashboard with nothing cached; the browser's console must hold nothing of ours at the end."""
    console, pages = [], []

    def open_here(locale: str = "en-GB"):
        page = browser.new_context(locale=locale).new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("console", lambda said: console.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: console.append(str(error)))
        pages.append(page)
        page.goto(place.address)
        page.wait_for_selector(".lcm-dash .drop")
        return page

    yield open_here
    for page in pages:
        page.context.close()
    assert [line for line in console if not VOILA_S_OWN.match(line)] == []


def ask(page, data: bytes, caption: str) -> None:
    page.set_input_files(".drop input", upload(data))
    page.locator(".lcm-dash .caption", has_text=caption).wait_for()  # until it can be seen, too


def said(page, text: str) -> None:
    """Wait until the line below the drop says so."""
    page.wait_for_function("text => document.querySelector('.status').innerText.includes(text)", arg=text)


def go(page, name: str, text: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
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


def test_it_starts_and_ends_a_service_where_none_runs_and_lets_others_in_by_a_token_alone(tmp_path):
    """The second as docs say; the address that Voila listens on is this machine's here."""
    pytest.importorskip("flask", reason="needs the extra serve")
    service = ServiceClient(f"http://127.0.0.1:{free_port()}")
    settings = {"LCM_HOME": str(tmp_path), "LCM_SERVICE": f"http://{service.host}:{service.port}"}
    settings["LCM_BUNDLE"] = str(tmp_path / "missing")  # no model is asked here
    with site(tmp_path, settings, "--Voila.ip=127.0.0.1 --token --preheat_kernel=False") as served:
        assert service.health()
        with urllib.request.urlopen(served.address, timeout=SECONDS) as page:
            assert page.url.startswith(f"{served.address}login")
        (shown,) = set(re.findall(r"\?token=(\w+)", served.log.read_text()))
        with urllib.request.urlopen(f"{served.address}?token={shown}", timeout=SECONDS) as page:
            assert b"jupyter-config-data" in page.read()
    assert service.health() == {}


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


def test_a_photo_that_is_chosen_or_dropped_gets_caption_tags_and_model(visit):
    page = visit()
    ask(page, picture("green"), "a green square")
    assert page.locator(".bars li").first.inner_text().split() == ["green", "80", "%"]
    assert "tiny-1" in page.inner_text(".answer")
    page.get_by_text("Other captions").click()
    assert set(page.locator(".answer details li").all_inner_texts()) == {"a square", "a green"}
    assert not drop(page, picture("blue"), "dropped.png"), "a caption that is sent now would be about the next photo"
    said(page, "dropped.png: a blue square")
    assert page.inner_text(".lcm-dash .caption") == "a blue square"


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
    page.locator(".about-photo").get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Send the caption").click()
    page.get_by_text("is the answer now").wait_for()
    assert page.inner_text(".lcm-dash .caption") == caption
    assert page.locator(".answer b").count() == 0
    (kept,) = [one for one in place.store.contributions() if one.width == 57]
    assert (kept.caption, kept.source, place.store.read_image(kept)) == (caption, "http:ann", data)
    ask(visit(), data, caption)


def test_a_reader_of_french_gets_page_and_caption_in_french_until_another_language_is_chosen(visit, place):
    page, data = visit("fr-CA"), picture("olivedrab", 58)
    page.get_by_text("Les réponses viennent du service").wait_for()
    assert page.evaluate("document.documentElement.lang") == "fr"
    ask(page, data, "un carré vert")
    said(page, "photo.png\u00a0: un carré vert")
    assert page.locator(".bars li").first.inner_text().startswith("vert")
    page.get_by_label("La légende telle qu’elle devrait être, en français").fill("l’étang")
    page.get_by_role("button", name="Envoyer la légende").click()
    page.get_by_text("C’est désormais la réponse. Merci.").wait_for()
    (kept,) = [one for one in place.store.contributions() if one.width == 58]
    assert (kept.caption, kept.language) == ("l’étang", "fr")
    go(page, "Révision", "Légendes à relire")
    page.get_by_label("Affiché ici").select_option("contributions")
    page.locator(".desk .photo", has_text="l’étang").click()
    assert "français" in page.inner_text(".desk .now .quiet")
    page.get_by_label("Langue").select_option("English")
    page.get_by_text("Contributions that wait for retraining").wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"
    go(page, "Photo", "Is the caption wrong?")
    ask(page, picture("green"), "a green square")


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
    drop(page, picture("blue"), "largest.png", MAX_PHOTO)  # what follows the end of a PNG is ignored
    said(page, "largest.png: a blue square")
    drop(page, picture("blue"), "large.png", MAX_PHOTO + 1)
    said(page, "large.png: the file has 10.0 MB; up to 10 MB are accepted")


def counted(page, *counts: int) -> None:
    """Wait until so many photos are to be decided, approved and rejected."""
    page.wait_for_function(
        "counts => [...document.querySelectorAll('.desk .filter b')].map(one => +one.innerText).join() === counts",
        arg=",".join(map(str, counts)),
    )


def current(page) -> str:
    return page.inner_text(".desk .photo[aria-selected=true] .text")


def show(page, source: str) -> None:
    page.locator(".desk select").select_option(source)
    page.wait_for_function("source => document.querySelector('.desk select').value === source", arg=source)


def test_a_batch_is_reviewed_by_keys_alone_and_is_there_when_the_page_is_opened_again(visit, place, tmp_path):
    for side, colour in enumerate(("navy", "teal", "purple", "orange", "pink"), 70):  # of no other test
        (tmp_path / f"{side}.png").write_bytes(picture(colour, side))
    page, press = visit(), lambda *keys: [page.keyboard.press(key) for key in keys]
    go(page, "Review", "Captions to review")
    page.get_by_label("Folder on this machine").focus()
    page.keyboard.type(str(tmp_path))
    press("Enter")
    counted(page, 5, 0, 0)
    page.wait_for_function("document.querySelector('.desk .working').hidden")
    page.wait_for_function("[...document.querySelectorAll('.desk .photo img')].every(one => one.naturalWidth)")
    page.wait_for_function(
        """() => [...document.querySelectorAll('.desk .sure')].map(one => parseFloat(one.style.cssText.slice(9)))
        .every((share, place, all) => share > 0 && !(share > all[place + 1]))"""
    )
    captions = page.locator(".desk .photo .text").all_inner_texts()
    press("j", "ArrowRight", "k")
    page.wait_for_function("document.querySelectorAll('.desk .photo')[1].ariaSelected === 'true'")
    press("Home", "Enter")  # accept
    counted(page, 4, 1, 0)
    assert current(page) == captions[1]
    press("e")
    page.keyboard.type(" on a stamp")
    press("Enter")  # which accepts what was typed
    counted(page, 3, 2, 0)
    press("r")
    counted(page, 2, 2, 1)
    press("u")
    counted(page, 3, 2, 0)
    press("Control+z")  # what was accepted and typed
    counted(page, 4, 1, 0)
    assert current(page) == captions[1]
    press("e")
    page.keyboard.type(" in snow")
    press("Escape", "a", "Delete")
    counted(page, 2, 2, 1)
    press("s", "Enter")  # send
    page.wait_for_function("document.querySelector('.desk .out .mod-primary').disabled")
    kept = sorted(one.caption for one in place.store.contributions() if 70 <= one.width < 75)
    assert kept == sorted([captions[0], f"{captions[1]} in snow"])
    page = visit()
    go(page, "Review", "Captions to review")
    show(page, str(tmp_path))
    counted(page, 2, 2, 1)
    press("2")
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        page.wait_for_function("document.querySelector('#rendered_cells').offsetWidth <= innerWidth")
        check(page, "light")


def test_photos_are_dropped_together_and_one_that_is_too_large_or_broken_stops_no_other(visit):
    page = visit()
    go(page, "Review", "Captions to review")
    files = upload(picture("red", 80), "80.png"), upload(picture("green", 81), "81.png"), upload(b"no photo", "no.png")
    page.set_input_files(".desk input[type=file]", files)
    page.locator(".desk .photo", has_text="a green square").wait_for()
    page.locator(".desk .photo.odd", has_text="accepted").click()
    counted(page, 3, 0, 0)
    page.evaluate(
        """size => { const moved = new DataTransfer(); moved.items.add(new File([new Uint8Array(size)], 'large.png'));
        document.querySelector('.desk').dispatchEvent(new DragEvent('drop', {dataTransfer: moved})); }""",
        MAX_PHOTO + 1,
    )
    page.get_by_text("large.png: the file has 10.0 MB; up to 10 MB are accepted").wait_for()


def test_a_flagged_contribution_is_approved_and_revoked_by_keys(visit, place):
    first = place.store.add(picture("red", 61), "first <u>caption</u>")
    assert first.id >= 1, "the suspects of the run name number 1"
    page = visit()
    go(page, "Review", "Captions to review")
    show(page, "contributions")
    page.get_by_text("it fits <i>badly</i>").first.wait_for()
    assert "they are approved and revoked there" in page.inner_text(".lcm-dash")
    page.keyboard.press("a")  # what is flagged comes first
    page.get_by_text("Contribution 1 takes part in the next retraining").wait_for()
    assert [one.id for one in place.store.contributions() if one.approved] == [1]
    page.keyboard.press("2")
    page.get_by_text("Approved. It was odd: it fits <i>badly</i>").first.wait_for()
    page.keyboard.press("1")
    if first.id == 1:  # no test before this one has sent anything
        page.keyboard.press("2")
    page.locator(".desk .photo", has_text="first <u>caption</u>").click()
    page.keyboard.press("r")
    page.get_by_label(f"Why is {first.id} revoked?").wait_for()
    assert place.store.get(first.id), "not without a second key"
    page.keyboard.type("a test")
    page.keyboard.press("Enter")
    page.get_by_text(f"Contribution {first.id} is revoked").wait_for()
    assert place.store.get(first.id) is None
    assert [one.reason for one in place.store.revoked() if one.id == first.id] == ["a test"]


def test_the_quality_of_models_is_shown(visit):
    page = visit()
    go(page, "Model quality", "Versions and the gate")
    page.get_by_text("base CIDEr").wait_for()
    text = page.inner_text(".lcm-dash")
    assert "measured on 1,000 others (dev)" in text, "the shipped model is the current one here"
    for part in ("mine <b>", "0.500", "0.400 to 0.600", "retrain", "0.512", "shipped", "refused", "base CIDEr"):
        assert part in text, part
    assert page.get_by_alt_text("Learning curves: loss").is_visible()


@pytest.mark.parametrize(("language", "caption"), [("en", "a green square"), ("fr", "un carré vert")])
def test_every_page_fits_and_can_be_read(language, caption, visit, place):
    def said_here(english: str) -> str:
        return SENTENCES[language].get(english, english)

    place.store.add(picture("red", 62), "a" * 300)
    page, unsure = visit(language), said_here("unsure, please look").capitalize()
    ask(page, picture("green"), caption)
    page.set_viewport_size(PHONE)
    assert page.get_by_text(f"{unsure}.", exact=True).evaluate(LINES) == 1
    for name, text in (("Photo", caption), ("Review", "Captions to review"), ("Model quality", "base CIDEr")):
        go(page, said_here(name), said_here(text))
        if name == "Review":
            show(page, "contributions")
            page.get_by_text("lcm run --params retrain").wait_for()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size in (DESK, PHONE):
                page.set_viewport_size(size)
                page.wait_for_function("document.querySelector('#rendered_cells').offsetWidth <= innerWidth")
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


LINES = """one => {
  const text = document.createRange();
  text.selectNodeContents(one);
  return text.getClientRects().length;
}"""
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
