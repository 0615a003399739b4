"""The `lcm` command.

Knows which commands there are, and that what stops one is told in one line. Refuses to know what they do; each has a
module of its own.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence

from lcm import __version__
from lcm.cli import caption, contributions, models, run, serve, summary
from lcm.errors import LcmError

COMMANDS = (run, caption, serve, contributions, models, summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 1 when something could not be done, which stderr then explains."""
    options = _parser().parse_args(arguments)
    _stop_workflow_commands()
    try:
        return options.command(options)
    except LcmError as error:
        print(f"lcm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lcm: interrupted", file=sys.stderr)
        return 130


def _stop_workflow_commands() -> None:
    """Tell GitHub Actions, where it reads along, that no line of this step is meant for it: captions may be printed.

    It would listen again after a line with the same random word, which nobody knows.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(f"::stop-commands::{secrets.token_hex(16)}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lcm", description="Learn to caption images from your own labelled images.")
    parser.add_argument("--version", action="version", version=f"lcm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
