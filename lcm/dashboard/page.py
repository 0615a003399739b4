"""The dashboard as a whole: three pages under one heading.

Knows who answers and which page is shown; a page is read when it is first looked at, so that the first one is there at
once. Refuses to know what the pages do.
"""

from pathlib import Path

import ipywidgets as widgets

from lcm.dashboard.desk import Desk, LocalDesk, open_desk
from lcm.dashboard.parts import note, words_for
from lcm.dashboard.photo_drop import find_examples
from lcm.dashboard.photo_page import PhotoPage
from lcm.dashboard.quality_page import QualityPage
from lcm.dashboard.style import STYLE
from lcm.dashboard.waiting_page import WaitingPage
from lcm.errors import LcmError

PAGES = {"Photo": "photo", "Contributions": "waiting", "Model quality": "quality"}


class Dashboard:
    """The widgets of the dashboard, in `view`."""

    def __init__(self, desk: Desk, reports: Path):
        """Take who answers, and the folder of the reports, which holds the examples too."""
        self.photo = PhotoPage(desk, find_examples(reports / "examples"))
        self.waiting, self.quality = WaitingPage(reports / "runs"), QualityPage(reports)
        self._pages = {"photo": self.photo, "waiting": self.waiting, "quality": self.quality}
        self.choice = widgets.ToggleButtons(options=PAGES, style={"button_width": "auto"})
        self.choice.observe(lambda change: self.show(change["new"]), "value")
        head = widgets.HTML(f"<style>{STYLE}</style><h1>lcm</h1>{note(f'Answers come from {desk.place}.')}")
        self.busy = widgets.HTML()
        pages = [page.view for page in self._pages.values()]
        self.view = widgets.VBox([head, self.choice, self.busy, *pages]).add_class("lcm-dash")
        self.show("photo")

    def show(self, name: str) -> None:
        """Show one page, as it is now, and hide the others."""
        for each, page in self._pages.items():
            page.view.layout.display = None if each == name else "none"
        if name != "photo":
            self.busy.value = note("Reading …")
            self._pages[name].draw()
            self.busy.value = ""


def dashboard(reports: str | Path = "../reports") -> widgets.Widget:
    """Return the dashboard, ready to be shown; `reports` is the folder of runs, comparison and examples.

    What is wrong with the settings is said in its place.
    """
    try:
        desk = open_desk()
        if isinstance(desk, LocalDesk):
            desk.warm()
        return Dashboard(desk, Path(reports).expanduser().resolve()).view
    except LcmError as error:
        return widgets.HTML(f"<style>{STYLE}</style><div class='lcm-dash'>{note(words_for(error), 'bad')}</div>")
