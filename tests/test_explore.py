"""The tour for newcomers, as JupyterLab runs it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_tour_for_newcomers_runs(tmp_path):
    papermill = pytest.importorskip("papermill", reason="needs the extra notebooks")
    source, parameters = ROOT / "notebooks" / "00_explore.ipynb", {"run_dir": str(tmp_path), "samples": 1, "shown": 2}
    done = papermill.execute_notebook(source, None, parameters, cwd=source.parent, progress_bar=False)
    said = "\n".join(str(output) for cell in done.cells for output in cell.get("outputs", []))
    assert "astronaut" in said
    assert len((tmp_path / "photos" / "captions.tsv").read_text().splitlines()) == 5
