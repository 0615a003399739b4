"""The page of quality: how good the models are, how they came to be, and which one answers.

Knows which parts stand below each other. Refuses to know where their numbers come from.
"""

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from lcm.dashboard import quality
from lcm.dashboard.parts import note, words_for
from lcm.operations.catalogue import all_versions


class QualityPage:
    """The widgets of quality, in `view`; nothing is read before `draw`."""

    def __init__(self, reports: Path):
        """Take the folder of the reports, which need not be there."""
        self._reports = reports
        self.comparison, self.run_part, self.versions = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.run = widgets.Dropdown(description="Run")
        self.run.observe(lambda _: self._draw_run(), "value")
        self.view = widgets.VBox(
            [
                widgets.HTML("<h2>Which captioner is better</h2>"),
                self.comparison,
                widgets.HTML("<h2>A training run and its curves</h2>"),
                self.run,
                self.run_part,
                widgets.HTML("<h2>Versions and the gate</h2>"),
                self.versions,
            ]
        )

    def draw(self) -> None:
        """Read the reports and the versions, and show them."""
        self._fill(self.comparison, lambda: quality.comparison_part(self._reports))
        runs = self._reports / "runs"
        found, chosen = quality.find_runs(runs), self.run.value
        self.run.options = [(path.name, path) for path in found]
        if found:
            trained = [path for path in found if (path / "figures" / "learning_curves.png").is_file()]
            self.run.value = chosen if chosen in found else [*trained, *found][0]
        self.run.layout.display = None if found else "none"
        self._draw_run()
        self._fill(self.versions, lambda: quality.versions_part(all_versions()) + quality.gate_part(runs))

    def _draw_run(self) -> None:
        run = self.run.value
        nothing = "<p>No run yet: <code>lcm run --params sample</code> makes one.</p>"
        self._fill(self.run_part, lambda: quality.run_part(run) if run else nothing)

    @staticmethod
    def _fill(part: widgets.HTML, read: Callable[[], str]) -> None:
        try:
            part.value = read()
        except Exception as error:  # whatever it is, the other parts are shown
            part.value = note(words_for(error), "bad")
