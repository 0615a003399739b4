"""The `lcm` command.

Knows arguments, what is printed and exit codes. Refuses to know how anything is done.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcm import __version__
from lcm.errors import BadImageError, LcmError

SUMMARY = ("cider", "bleu_4", "meteor", "rouge_l", "wer", "wer_best", "images")  # metrics shown after a run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 1 when something could not be done, which stderr then explains."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except LcmError as error:
        print(f"lcm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lcm: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lcm", description="Learn to caption images from your own labelled images.")
    parser.add_argument("--version", action="version", version=f"lcm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="prepare, train and evaluate by a preset's notebooks")
    run.add_argument("--params", required=True, metavar="PRESET|FILE", help="name of a preset, or a YAML file")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), dest="overrides", help="set a parameter"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: reports/runs/PRESET)")
    run.set_defaults(command=_run)

    caption = commands.add_parser("caption", help="caption images")
    caption.add_argument("images", nargs="+", metavar="IMAGE", help="image file")
    caption.add_argument("--bundle", type=Path, metavar="DIR", help="captioner to use (default: the shipped one)")
    caption.add_argument("--json", action="store_true", help="print one JSON object a line")
    caption.set_defaults(command=_caption)
    return parser


def parse_value(text: str) -> Any:
    """Return the number, true, false or null that `text` is in JSON, else `text` itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if not isinstance(value, list | dict) else text


def _run(options: argparse.Namespace) -> int:
    from lcm.operations import pipeline

    overrides = {name: parse_value(value) for name, value in options.overrides}
    folder = pipeline.run(pipeline.load_preset(options.params), overrides, options.out)
    metrics = folder.read_metrics()
    for name in filter(metrics.__contains__, SUMMARY):
        value = metrics[name]
        print(f"{name:>10}  {value:.3f}" if isinstance(value, float) else f"{name:>10}  {value}")
    print(f"Notebooks, HTML, figures, metrics.json and bundle: {folder.path}")
    return 0


def _caption(options: argparse.Namespace) -> int:
    from lcm.captioning.captioners import load_captioner

    captioner = load_captioner(options.bundle)
    failed = False
    for image in options.images:
        try:
            description = captioner.describe(image)
        except BadImageError as error:
            print(f"lcm: {error}", file=sys.stderr)
            failed = True
            continue
        if options.json:
            print(json.dumps({"image": image} | asdict(description), ensure_ascii=False), flush=True)
        else:
            print(f"{image}: {description.caption}", flush=True)
    return 1 if failed else 0
