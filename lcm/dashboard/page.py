"""The dashboard as a whole: three pages under one heading.

Knows which page is shown, and that nothing is asked of anybody before the page is seen: a kernel that was started ahead
of its visitor knows neither who will answer then nor what will be waiting. Refuses to know what the pages do.
"""

from functools import cached_property
from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

from lcm.dashboard.desk import Desk, open_desk
from lcm.dashboard.parts import note, words_for
from lcm.dashboard.photo import PhotoPage
from lcm.dashboard.quality import QualityPage
from lcm.dashboard.waiting import WaitingPage
from lcm.evaluation.report import TABLE_STYLE

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8") + TABLE_STYLE
PHOTO, WAITING, QUALITY = "Photo", "Contributions", "Model quality"


class PageChoice(anywidget.AnyWidget):
    """The line of pages, of which one is current; sends a message when it is seen."""

    _esm = Path(__file__).with_name("page_choice.js")
    pages = traitlets.List(traitlets.Unicode()).tag(sync=True)
    page = traitlets.Unicode().tag(sync=True)


class Dashboard:
    """The widgets of the dashboard, in `view`."""

    def __init__(self, reports: Path):
        """Take the folder of the reports, which holds the examples too."""
        self.photo = PhotoPage(lambda: self.desk, reports / "examples")
        self.waiting = WaitingPage(lambda: self.desk, reports / "runs")
        self.quality = QualityPage(lambda: self.desk, reports)
        self._pages = {PHOTO: self.photo, WAITING: self.waiting, QUALITY: self.quality}
        self.choice = PageChoice(pages=list(self._pages), page=PHOTO)
        self.choice.observe(lambda change: self.show(change["new"]), "page")
        self.choice.on_msg(lambda *_: self.meet())
        self.who, self.busy = widgets.HTML(note("Looking for who answers …")), widgets.HTML()
        head = widgets.HTML(f"<style>{STYLE}</style><h1>lcm</h1>")
        pages = [page.view for page in self._pages.values()]
        self.view = widgets.VBox([head, self.who, self.choice, self.busy, *pages]).add_class("lcm-dash")
        self.show(PHOTO)

    @cached_property
    def desk(self) -> Desk:
        """Who answers; raises ConfigError when the settings name nobody."""
        return open_desk()

    def meet(self) -> None:
        """Say who answers, who may begin to make ready; what is wrong with the settings is said in its place."""
        try:
            self.desk.make_ready()
            self.who.value = note(f"Answers come from {self.desk.place}.")
        except Exception as error:  # whatever it is, the page goes on
            self.who.value = note(words_for(error), "bad")

    def show(self, name: str) -> None:
        """Show one page, as it is now, and hide the others."""
        for each, page in self._pages.items():
            page.view.layout.display = None if each == name else "none"
        self.busy.value = note("Reading …")
        self._pages[name].draw()
        self.busy.value = ""


def dashboard(reports: str | Path = "../reports") -> widgets.Widget:
    """Return the dashboard, ready to be shown; `reports` is the folder of runs, comparison and examples."""
    return Dashboard(Path(reports).expanduser().resolve()).view
