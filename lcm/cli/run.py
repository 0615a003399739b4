"""`lcm run`: a preset's notebooks.

Knows its arguments and which numbers are shown at the end. Refuses to know what the notebooks do.
"""

import argparse
import json
from pathlib import Path
from typing import Any

SUMMARY = ("cider", "bleu_4", "meteor", "rouge_l", "wer", "wer_best", "images")  # metrics shown after a run


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    run = commands.add_parser("run", help="prepare, train and evaluate by a preset's notebooks")
    run.add_argument("--params", required=True, metavar="PRESET|FILE", help="name of a preset, or a YAML file")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), dest="overrides", help="set a parameter"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: reports/runs/PRESET)")
    run.set_defaults(command=_run)


def parse_value(text: str) -> Any:
    """Return the number, true, false or null that `text` is in JSON, else `text` itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if not isinstance(value, list | dict) else text


def _run(options: argparse.Namespace) -> int:
    from lcm import pipeline

    overrides = {name: parse_value(value) for name, value in options.overrides}
    folder = pipeline.run(pipeline.load_preset(options.params), overrides, options.out)
    metrics = folder.read_metrics()
    for name in filter(metrics.__contains__, SUMMARY):
        value = metrics[name]
        print(f"{name:>10}  {value:.3f}" if isinstance(value, float) else f"{name:>10}  {value}")
    print(f"Notebooks, HTML, figures, metrics.json and bundle: {folder.path}")
    return 0
