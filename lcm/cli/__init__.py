"""The `lcm` command.

Knows which commands there are, and that what stops one is told in one line. Refuses to know what they do; each has a
module of its own.
"""

import argparse
import sys
from collections.abc import Sequence

from lcm import __version__
from lcm.cli import caption, contributions, models, run, serve
from lcm.errors import LcmError

COMMANDS = (run, caption, serve, contributions, models)


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
    for command in COMMANDS:
        command.add(commands)
    return parser
