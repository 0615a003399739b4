"""The dashboard as a whole: three pages under one heading, in the language that is chosen there.

Nothing is asked of the service before the page is seen: a kernel that was started ahead of its visitor cannot know what
will be there then.
"""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

from lcm.dashboard.client import ServiceClient
from lcm.dashboard.language import PAGE, SENTENCES, name_of, say
from lcm.dashboard.photo import PhotoPage
from lcm.dashboard.quality import QualityPage
from lcm.dashboard.review import ReviewPage
from lcm.dashboard.widgets import error_note, note
from lcm.data.text import ENGLISH, language_code
from lcm.errors import ConfigError

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


class PageChoice(anywidget.AnyWidget):
    """The line of pages, of which one is current; sends its reader's languages when it is seen."""

    _esm = Path(__file__).with_name("page_choice.js")
    pages = traitlets.List(traitlets.Unicode()).tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)  # place of the current one among them
    language = traitlets.Unicode(ENGLISH).tag(sync=True)  # of all that is shown


class Dashboard:
    """The widgets of the dashboard, in `view`."""

    def __init__(self, client: ServiceClient, reports: Path):
        self._client, self._reports, self.photo = client, reports, None
        self.choice = PageChoice()
        self.choice.observe(lambda change: self.show(change["new"]), "page")
        self.choice.on_msg(lambda _widget, content, _buffers: self.look_for_service(content["languages"]))
        self.who, self.busy, self._views = widgets.HTML(), widgets.HTML(), widgets.VBox()
        self._head = widgets.HBox([widgets.HTML(f"<style>{STYLE}</style><h1>lcm</h1>")]).add_class("head")
        self.view = widgets.VBox([self._head, self.who, self.choice, self.busy, self._views]).add_class("lcm-dash")

    def look_for_service(self, preferred: Sequence[str] = ()) -> None:
        """Offer the languages of the page and of the service, and show all in the first one that is preferred."""
        offered = list(dict.fromkeys([*SENTENCES, *self._client.health().get("languages", ())]))
        wanted = next(filter(offered.__contains__, map(language_code, preferred)), ENGLISH)
        names = [(name_of(code, in_its_own=True).capitalize(), code) for code in offered]
        self.language = widgets.Dropdown(options=names, value=wanted)
        self.language.observe(lambda change: self.speak(change["new"]), "value")
        self._head.children = self._head.children[0], self.language
        self.speak(wanted)

    def speak(self, language: str) -> None:
        """Make the pages in a language, English where they have no other words, and ask for captions in it."""
        asked, source = (self.photo.asked, self.review.desk.source) if self.photo else ((), "")
        PAGE.language = language if language in SENTENCES else ENGLISH
        self.photo = PhotoPage(self._client, self._reports / "examples", language)
        self.review = ReviewPage(self._client, self._reports / "runs", language, source)
        self.quality = QualityPage(self._client, self._reports)
        self.language.description = say("Language")
        self.choice.language = PAGE.language  # before the pages, whose scripts look there
        self.choice.pages = [say("Photo"), say("Review"), say("Model quality")]
        self._views.children = self.photo.view, self.review.view, self.quality.view
        answers = note(say("Answers come from the service at {place}.", place=self._client.place))
        self.who.value = answers if self._client.health() else note(self._client.no_answer(), "bad")
        self.show(self.choice.page)
        if asked:
            self.photo.take(*asked)

    def show(self, place: int) -> None:
        pages = self.photo, self.review, self.quality
        for each, page in enumerate(pages):
            page.view.layout.display = None if each == place else "none"
        self.busy.value = note(say("One moment …"))
        if pages[place] is self.quality:  # a photo's answer stays when people come back to it, the desk looks itself
            self.quality.draw()
        self.busy.value = ""


def dashboard(reports: str | Path = "../reports") -> widgets.Widget:
    """Return the dashboard, ready to be shown; `reports` is the folder of runs, comparison and examples."""
    try:
        client = ServiceClient.from_environment()
    except ConfigError as error:
        return widgets.HTML(error_note(error))
    return Dashboard(client, Path(reports).expanduser().resolve()).view
