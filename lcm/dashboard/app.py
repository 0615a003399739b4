"""The dashboard as a whole: three pages under one heading.

Nothing is asked of the service before the page is seen: a kernel that was started ahead of its visitor cannot know what
will be there then.
"""

from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

from lcm.dashboard.client import ServiceClient
from lcm.dashboard.photo import PhotoPage
from lcm.dashboard.quality import QualityPage
from lcm.dashboard.review import ReviewPage
from lcm.dashboard.widgets import error_note, note
from lcm.errors import ConfigError

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
PHOTO, REVIEW, QUALITY = "Photo", "Contributions", "Model quality"


class PageChoice(anywidget.AnyWidget):
    """The line of pages, of which one is current; sends a message when it is seen."""

    _esm = Path(__file__).with_name("page_choice.js")
    pages = traitlets.List(traitlets.Unicode()).tag(sync=True)
    page = traitlets.Unicode().tag(sync=True)


class Dashboard:
    """The widgets of the dashboard, in `view`."""

    def __init__(self, client: ServiceClient, reports: Path):
        """Take who answers, and the folder of the reports, which holds the examples too."""
        self._client = client
        self.photo = PhotoPage(client, reports / "examples")
        self.review = ReviewPage(client, reports / "runs")
        self.quality = QualityPage(client, reports)
        self._pages = {PHOTO: self.photo, REVIEW: self.review, QUALITY: self.quality}
        self.choice = PageChoice(pages=list(self._pages), page=PHOTO)
        self.choice.observe(lambda change: self.show(change["new"]), "page")
        self.choice.on_msg(lambda *_: self.look_for_service())
        self.who, self.busy = widgets.HTML(note("Looking for the service …")), widgets.HTML()
        head = widgets.HTML(f"<style>{STYLE}</style><h1>lcm</h1>")
        pages = [page.view for page in self._pages.values()]
        self.view = widgets.VBox([head, self.who, self.choice, self.busy, *pages]).add_class("lcm-dash")
        self.show(PHOTO)

    def look_for_service(self) -> None:
        """Say who answers, or what to start."""
        if self._client.health():
            self.who.value = note(f"Answers come from {self._client.place}.")
        else:
            missing = f"No answer from {self._client.place}: {self._client.how_to_start}; then reload this page."
            self.who.value = note(missing, "bad")

    def show(self, name: str) -> None:
        """Show one page, as it is now, and hide the others."""
        for each, page in self._pages.items():
            page.view.layout.display = None if each == name else "none"
        self.busy.value = note("Reading …")
        self._pages[name].draw()
        self.busy.value = ""


def dashboard(reports: str | Path = "../reports") -> widgets.Widget:
    """Return the dashboard, ready to be shown; `reports` is the folder of runs, comparison and examples."""
    try:
        client = ServiceClient.from_environment()
    except ConfigError as error:
        return widgets.HTML(error_note(error))
    return Dashboard(client, Path(reports).expanduser().resolve()).view
