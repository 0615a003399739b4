"""Runs: a preset's notebooks, executed by papermill one after the other with the same parameters.

Each executed notebook is kept, as it is and as a page without code: that is the report of the run.
"""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm.errors import ConfigError, LcmError, NothingToDo, closest, require
from lcm.paths import RunDir, packaged_file, write_atomic

RUNS = Path("reports/runs")
RUN_DIR = "run_dir"  # the parameter of every notebook that the runner sets


@dataclass(frozen=True)
class Preset:
    """Notebooks and the parameters that differ from their defaults."""

    name: str
    notebooks: tuple[str, ...]  # names in notebooks/, without .ipynb
    parameters: Mapping[str, Any]


def preset_names() -> list[str]:
    """Return the names of the presets that lcm ships."""
    return sorted(path.stem for path in packaged_file("notebooks/params").glob("*.yaml"))


def load_preset(name_or_file: str) -> Preset:
    """Return a shipped preset by its name, or one's own by the path of its YAML file.

    Raises ConfigError when there is none, or it does not hold `notebooks` and `parameters`.
    """
    yaml = require("yaml", "notebooks")
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = packaged_file("notebooks/params") / f"{name_or_file}.yaml"
    if not path.is_file():
        choices = ", ".join(preset_names())
        raise ConfigError(f"unknown preset {name_or_file!r}; choose from {choices}, or give the path of a .yaml file")
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Preset(path.stem, tuple(record["notebooks"]), dict(record.get("parameters") or {}))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no preset; it needs a list `notebooks` and a mapping `parameters`") from error


def notebook_parameters(notebook: str) -> dict[str, Any]:
    """Return the parameters of a notebook with their default values, as written.

    Raises ConfigError for an unknown notebook.
    """
    papermill = require("papermill", "notebooks")
    path = _notebook_path(notebook)
    return {name: found["default"] for name, found in papermill.inspect_notebook(path).items()}


def _notebook_path(notebook: str) -> Path:
    path = packaged_file("notebooks") / f"{notebook}.ipynb"
    if not path.is_file():
        choices = ", ".join(sorted(one.stem for one in packaged_file("notebooks").glob("0*.ipynb")))
        raise ConfigError(f"unknown notebook {notebook!r}; choose from {choices}")
    return path


def run(preset: Preset, overrides: Mapping[str, Any], out: Path | None = None) -> RunDir:
    """Execute the preset's notebooks with `overrides` and return the folder of what they made.

    `out` is that folder (default: reports/runs/<preset>). Each executed notebook is kept as .ipynb and .html,
    also when it fails. A notebook that finds nothing to do ends the run well. Raises ConfigError for a parameter that
    none of the notebooks knows, and LcmError with the message of a notebook's own error.
    """
    parameters = {**preset.parameters, **overrides}
    known = {notebook: notebook_parameters(notebook) for notebook in preset.notebooks}
    names = {name for its in known.values() for name in its} - {RUN_DIR}
    for name in parameters.keys() - names:
        raise ConfigError(f"unknown parameter {name!r}; {closest(name, names)}")
    folder = RunDir.at(out or RUNS / preset.name)
    folder.forget_outcome()
    for place, (notebook, defaults) in enumerate(known.items(), start=1):
        print(f"[{place}/{len(known)}] {notebook}", file=sys.stderr, flush=True)
        its_own = {name: _of_kind(value, defaults[name]) for name, value in parameters.items() if name in defaults}
        try:
            _execute(notebook, its_own | {RUN_DIR: str(folder.path)}, folder)
        except NothingToDo as end:
            print(end, file=sys.stderr, flush=True)
            break
    return folder


def _of_kind(value: Any, default: str) -> Any:
    """Return a number as text where the parameter, by its default as written, is text: `-p approved 7` is."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and default.strip()[:1] in ("'", '"') else value


def _execute(notebook: str, parameters: Mapping[str, Any], folder: RunDir) -> None:
    papermill = require("papermill", "notebooks")
    dead_kernel = require("nbclient.exceptions", "notebooks").DeadKernelError
    executed = folder.path / f"{notebook}.ipynb"
    try:
        with _quiet():
            papermill.execute_notebook(
                _notebook_path(notebook),
                executed,
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=sys.stderr,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=ERROR"],  # the kernel warns that it talks over a local port
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == NothingToDo.__name__:
            raise NothingToDo(error.evalue) from error
        raise LcmError(f"{notebook} stopped: {error.evalue or error.ename}\nThe whole run is in {executed}") from error
    except dead_kernel as error:
        raise LcmError(f"{notebook} stopped: its process ended, mostly for want of memory; see {executed}") from error
    finally:
        if executed.exists():
            _write_html(executed)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what papermill and its kernel client say that no user can act on."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_html(executed: Path) -> None:
    nbconvert, nbformat = require("nbconvert", "notebooks"), require("nbformat", "notebooks")
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or cell.outputs]
    exporter = nbconvert.HTMLExporter(
        embed_images=True, exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": executed.stem}})
    write_atomic(executed.with_suffix(".html"), html)
