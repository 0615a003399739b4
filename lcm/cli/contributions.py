"""`lcm contributions`: what users sent, to look at, take out, take back and keep safe.

Knows arguments, what is printed and exit codes. Refuses to know how contributions are kept.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lcm.cli.printing import print_line

if TYPE_CHECKING:
    from lcm.contributions.store import ContributionStore

FOLDER = "folder of the store (default: contributions in LCM_HOME)"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its sub-commands to the parser."""
    parser = commands.add_parser("contributions", help="list, export, import, revoke or back up what users sent")
    parser.add_argument("--store", type=Path, metavar="DIR", help=FOLDER)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, command: Callable[[argparse.Namespace], int], meaning: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=meaning)
        one.set_defaults(command=command)
        return one

    action("list", _list, "print them in the order of arrival").add_argument(
        "--json", action="store_true", help="print one JSON object a line, with all that is kept"
    )
    action("export", _export, "write images and captions.tsv, a data set for lcm run").add_argument("folder", type=Path)
    importing = action("import", _import, "add the pairs of a captions file")
    importing.add_argument("captions_file", type=Path, help="lines of image TAB caption; or the folder of an export")
    importing.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: the file's)")
    revoking = action("revoke", _revoke, "take one away for good; a line about it stays")
    revoking.add_argument("id", type=int)
    revoking.add_argument("--reason", required=True, help="kept with the line")
    action("check", _check, "compare every image with what was sent")
    action("backup", _back_up, "copy all to a folder, also while the service runs").add_argument("folder", type=Path)
    action("fetch", _fetch, "take over what a service has copied to LCM_STORE_URL, in order to train from it")
    restoring = action("restore", _restore, "put a backup in the place of a store; stop the service first")
    restoring.add_argument("folder", type=Path)
    restoring.add_argument("--replace", action="store_true", help="put a store that is there aside")


def _open(options: argparse.Namespace) -> "ContributionStore":
    """Open the store; where the service mirrors it, what is done here is mirrored too."""
    from lcm.contributions.store import ContributionStore

    return ContributionStore(options.store, outbox=bool(os.environ.get("LCM_STORE_URL")))


def _list(options: argparse.Namespace) -> int:
    for one in _open(options).contributions():
        if options.json:
            print_line(json.dumps(one.as_record()))
        else:
            waiting = "" if one.usable else f" (waits: {one.language})"
            print_line(f"{one.id}\t{one.received[:10]}\t{one.image_file}\t{one.caption}{waiting}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from lcm.contributions.exchange import export_contributions

    done = export_contributions(_open(options), options.folder)
    print_line(f"{options.folder}: {done.images} images, {done.captions} captions, {done.waiting} in other languages")
    return _left_out(done.left_out)


def _import(options: argparse.Namespace) -> int:
    from lcm.contributions.exchange import COLUMNS, import_contributions

    given = options.captions_file
    exported = [given / name for name in COLUMNS if (given / name).is_file()]
    store = _open(options)
    done = [import_contributions(store, path, options.images) for path in exported or [given]]
    refused = [refusal for one in done for refusal in one.refused]
    for refusal in refused:
        print_line(f"line {refusal.line}, {refusal.image}: {refusal.reason}")
    added, known = sum(one.added for one in done), sum(one.known for one in done)
    print_line(f"{added} added, {known} there already, {len(refused)} refused")
    return 1 if refused else 0


def _revoke(options: argparse.Namespace) -> int:
    gone = _open(options).revoke(options.id, options.reason)
    print_line(f"{options.id} is revoked since {gone.revoked}: {gone.reason}")
    return 0


def _check(options: argparse.Namespace) -> int:
    found = _open(options).check()
    print_line(f"{found.contributions} contributions with {found.images} images")
    for state, numbers in (("missing", found.missing), ("altered", found.altered)):
        for number in numbers:
            print_line(f"the image of {number} is {state}; restore a backup, or revoke it")
    return 0 if found.sound else 1


def _back_up(options: argparse.Namespace) -> int:
    from lcm.contributions.backup import back_up

    done = back_up(_open(options), options.folder)
    print_line(f"{options.folder}: {done.contributions} contributions with {done.images} images")
    return _left_out(done.left_out)


def _restore(options: argparse.Namespace) -> int:
    from lcm.contributions.backup import restore

    done = restore(options.folder, options.store, options.replace)
    print_line(f"{done.contributions} contributions with {done.images} images are back")
    for number in done.revoked_again:
        print_line(f"{number} was revoked after the backup and is so again")
    if done.aside:
        print_line(f"what was there lies in {done.aside}; remove it when it is not needed")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from lcm.contributions.fetching import fetch_contributions

    done = fetch_contributions(os.environ.get("LCM_STORE_URL", "").strip(), options.store)
    for name, reason in done.damaged.items():
        print_line(f"left out {name}: {reason}")
    print_line(
        f"{done.contributions} contributions are here, {done.new} of them new; {done.revoked} were revoked, "
        f"{len(done.damaged)} left out"
    )
    if done.is_damaged:
        print_line("more is damaged than an accident explains: check the copy before you train from it")
    return 1 if done.is_damaged else 0


def _left_out(numbers: tuple[int, ...]) -> int:
    """Name what is not whole in the store; returns the exit code."""
    for number in numbers:
        print_line(f"left out: the image of {number} is missing or altered; see lcm contributions check")
    return 1 if numbers else 0
