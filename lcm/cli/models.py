"""`lcm models`: the versions of the model, which one answers, and the way back.

Knows arguments, what is printed and exit codes. Refuses to know how versions are kept.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lcm.cli.printing import print_line

if TYPE_CHECKING:
    from lcm.registry import Change


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its sub-commands to the parser."""
    parser = commands.add_parser("models", help="list, publish, promote, roll back or clear away versions of the model")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, command: Callable[[argparse.Namespace], int], meaning: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=meaning)
        one.set_defaults(command=command)
        return one

    action("list", _list, "print the versions, the oldest first; * is current, - the one before").add_argument(
        "--json", action="store_true", help="print one JSON object a line, with metrics and the gate's decision"
    )
    publishing = action("publish", _publish, "copy a bundle to the versions; no gate is asked")
    publishing.add_argument("folder", type=Path, help="folder of the bundle, such as reports/runs/NAME/bundle")
    publishing.add_argument("--promote", action="store_true", help="make it current, too")
    promoting = action("promote", _promote, "make a version current; a running service takes it up by itself")
    promoting.add_argument("version", help="as lcm models list shows it; shipped is the one that comes with lcm")
    rolling_back = action("rollback", _rollback, "make the version current that was so before")
    for one in (publishing, promoting, rolling_back):
        one.add_argument("--reason", default="", help="kept in the history")
    action("prune", _prune, "remove old versions, never the current one and the one before").add_argument(
        "--keep", type=int, metavar="N", help="how many of the newest stay (default: 5)"
    )


def _list(options: argparse.Namespace) -> int:
    from lcm.registry import all_versions

    for one in all_versions():
        if options.json:
            print_line(json.dumps(one.as_record()))
            continue
        mark = "*" if one.is_current else "-" if one.is_before else " "
        when, why = (one.published.when[:16], one.published.reason) if one.published else ("", "")
        cider = one.metrics.get("cider")
        score = f"CIDEr {cider:.3f}" if isinstance(cider, float) else ""
        state = f"damaged: {one.fault}" if one.fault else why
        print_line("\t".join((f"{mark} {one.name}", one.digest, when, score, state)).rstrip())
    return 0


def _publish(options: argparse.Namespace) -> int:
    from lcm.registry import publish

    done = publish(options.folder, options.reason or "by hand", make_current=options.promote)
    if options.promote:
        return _tell(done)
    was = "was published before" if done.known else "is published"
    print_line(f"{done.version} {was}, {done.previous} stays current; next: lcm models promote {done.version}")
    return 0


def _promote(options: argparse.Namespace) -> int:
    from lcm.registry import promote

    return _tell(promote(options.version, options.reason))


def _rollback(options: argparse.Namespace) -> int:
    from lcm.registry import rollback

    done = rollback(options.reason)
    for one in done.passed_over:
        print_line(f"passed over {one}")
    return _tell(done)


def _tell(done: "Change") -> int:
    """Say what is current now."""
    before = "it was so already" if done.previous == done.version else f"before it was {done.previous}"
    print_line(f"{done.version} is current; {before}")
    if os.environ.get("LCM_BUNDLE"):
        print_line("LCM_BUNDLE is set: a service that has it answers from that folder, whatever is current")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from lcm.registry import KEEP, prune

    removed = prune(KEEP if options.keep is None else options.keep)
    print_line(f"{len(removed)} removed{': ' if removed else ''}{', '.join(removed)}")
    return 0
