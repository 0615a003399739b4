"""`lcm summary`: a retraining run in a page of Markdown.

Knows its arguments, and the files that GitHub Actions reads from a step. Refuses to know what is in the summary.
"""

import argparse
import os
from pathlib import Path

from lcm.cli.printing import print_line

SHOWN, READ = "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"  # variables that name the files


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("summary", help="print what became of a retraining, as Markdown")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("reports/runs/retrain"), help="folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, too")
    parser.set_defaults(command=_summary)


def _summary(options: argparse.Namespace) -> int:
    from lcm.operations.summary import as_markdown, published_version
    from lcm.paths import RunDir

    run = RunDir(options.folder)
    text = as_markdown(run)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    for variable, added in ((SHOWN, text), (READ, f"version={published_version(run)}\n")):
        if os.environ.get(variable):
            with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
                file.write(added)
    for line in text.splitlines():
        print_line(line)
    return 0
