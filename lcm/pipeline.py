"""Runs: a preset's notebooks, executed by papermill one after the other with the same parameters.

Each executed notebook is kept, as it is and as a page without code: that is the report of the run.
"""

import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lcm.config import CONFIGS, Params
from lcm.errors import ConfigError, LcmError, NothingToDo, choose, closest, require
from lcm.paths import AGAIN, FULL, GATE, RunDir, explained, in_clone, lock, packaged_file, write_atomic

RUNS = Path("reports/runs")
RUN_DIR = "run_dir"  # the parameter of every notebook that the runner sets
KERNEL_OPTIONS = [
    "--log-level=CRITICAL",  # it complains of ports
    "--IPKernelApp.capture_fd_output=False",  # else what other processes print is shown twice
]


@dataclass(frozen=True)
class Preset:
    """Notebooks and the parameters that differ from their defaults."""

    name: str
    notebooks: tuple[str, ...]  # keys of CONFIGS
    parameters: Mapping[str, Any]
    about: str = ""  # one line: what it runs

    @property
    def configs(self) -> dict[str, type[Params]]:
        """The parameters of each notebook; raises ConfigError for an unknown notebook."""
        return {notebook: choose(CONFIGS, notebook, "notebook") for notebook in self.notebooks}

    def values(self, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what each notebook gets, where it takes text a number as text.

        Raises ConfigError for a parameter that none of the notebooks knows, and for a wrong value.
        """
        parameters, found = {**self.parameters, **overrides}, {}
        names = {one.name for config in self.configs.values() for one in fields(config)} - {RUN_DIR}
        if unknown := sorted(parameters.keys() - names):
            raise ConfigError(f"unknown parameter {unknown[0]!r}; {closest(unknown[0], names)}")
        for notebook, config in self.configs.items():
            kinds = {one.name: one.type for one in fields(config)}
            its_own = {name: value for name, value in parameters.items() if name in kinds}
            for name, value in its_own.items():
                if kinds[name] is str and type(value) in (int, float):
                    its_own[name] = str(value)  # as of -p approved 7
            try:
                config(run_dir="", **its_own)
            except ConfigError as error:
                raise ConfigError(f"{error}; see: lcm run --params {self.name} --help") from error
            found[notebook] = its_own
        return found


def preset_names() -> list[str]:
    """Return the names of the presets that lcm ships."""
    return sorted(path.stem for path in packaged_file("notebooks/params").glob("*.yaml"))


def load_preset(name_or_file: str) -> Preset:
    """Return a shipped preset by its name, or one's own by its YAML file's path; raises ConfigError for neither."""
    yaml = require("yaml", "notebooks")
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = packaged_file("notebooks/params") / f"{name_or_file}.yaml"
    if not path.is_file():
        choices = ", ".join(preset_names())
        raise ConfigError(f"unknown preset {name_or_file!r}; choose from {choices}, or give the path of a .yaml file")
    try:
        text = path.read_text(encoding="utf-8")
        record = yaml.safe_load(text)
        about = text.partition("\n")[0].removeprefix("# ") if text.startswith("#") else ""
        return Preset(path.stem, tuple(record["notebooks"]), dict(record.get("parameters") or {}), about)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no preset; it needs a list `notebooks` and a mapping `parameters`") from error


def run(preset: Preset, overrides: Mapping[str, Any], out: Path | None = None) -> RunDir:
    """Execute the preset's notebooks with `overrides` and return the folder of what they made.

    `out` is that folder (default: reports/runs/<preset>). Each notebook is kept as .ipynb and .html, also a failed one.
    Raises ConfigError, before anything runs, for parameters and where another run writes there; NothingToDo where a
    notebook finds nothing to do, DataError where no space is left, and LcmError with a notebook's own error.
    """
    parameters, out = preset.values(overrides), out or in_clone(RUNS / preset.name)
    with explained(out, f"no file is half written: {AGAIN}"):
        folder = RunDir.at(out.absolute())
        with (folder.path / ".lock").open("ab") as held:
            lock(held, f"lcm run is writing to {out}")
            (folder.path / GATE).unlink(missing_ok=True)  # a run that ends early decides nothing
            for place, (notebook, its_own) in enumerate(parameters.items(), start=1):
                print(f"[{place}/{len(parameters)}] {notebook}", file=sys.stderr, flush=True)
                _execute(notebook, its_own | {RUN_DIR: str(folder.path)}, folder)
    return folder


def _execute(notebook: str, parameters: Mapping[str, Any], folder: RunDir) -> None:
    papermill = require("papermill", "notebooks")
    dead_kernel = require("nbclient.exceptions", "notebooks").DeadKernelError
    executed, kernel = folder.path / f"{notebook}.ipynb", "python3"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # Not by its execute_notebook, which takes braces in a path for a template and writes into the file cell by cell.
    page = papermill.iorw.load_notebook_node(str(packaged_file("notebooks") / executed.name))
    page = papermill.parameterize.parameterize_notebook(page, dict(parameters), kernel_name=kernel)
    try:
        with warnings.catch_warnings(action="ignore"):  # of papermill and its kernel client: no user can act on them
            papermill.engines.papermill_engines.execute_notebook_with_engine(
                None,
                page,
                kernel,
                progress_bar=False,
                stdout_file=sys.stderr,
                stderr_file=sys.stderr,
                extra_arguments=KERNEL_OPTIONS,
                shutdown_kernel="immediate",  # in its own time it may complain of tasks that it left pending
            )
        papermill.execute.raise_for_execution_errors(page, None)
    except papermill.PapermillExecutionError as error:
        if error.ename == NothingToDo.__name__:
            raise NothingToDo(f"{error.evalue}; see {executed}") from error
        if FULL.search(error.evalue):
            raise OSError(error.evalue) from error
        raise LcmError(f"{notebook} stopped: {error.evalue or error.ename}\nThe whole run is in {executed}") from error
    except dead_kernel as error:
        raise LcmError(f"{notebook} stopped: its process ended, mostly for want of memory; see {executed}") from error
    finally:
        _write(page, executed)


def _write(notebook: Any, executed: Path) -> None:
    """Write an executed notebook, and what it shows as HTML."""
    nbconvert, nbformat = require("nbconvert", "notebooks"), require("nbformat", "notebooks")
    write_atomic(executed, nbformat.writes(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or cell.outputs]
    exporter = nbconvert.HTMLExporter(
        embed_images=True, exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": executed.stem}})
    write_atomic(executed.with_suffix(".html"), html)
