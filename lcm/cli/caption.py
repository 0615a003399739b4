"""`lcm caption`: images and folders of images, to the terminal or into a file.

Knows its arguments, what is printed and exit codes. Refuses to know how images are described.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lcm.cli.printing import print_line
from lcm.errors import BadImageError, ConfigError, DataError

if TYPE_CHECKING:
    from lcm.batch import Failures
    from lcm.captioning.description import Captioner, Description

TAGS_SHOWN = 5  # of an image, in what is printed for people


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    caption = commands.add_parser("caption", help="caption and tag images and folders of images")
    argument = caption.add_argument
    argument("paths", nargs="+", metavar="PATH", help="image file, or folder of image files")
    argument("--recursive", action="store_true", help="take the sub-folders of a folder too")
    argument("--samples", type=int, metavar="N", help="captions to draw beside the best one, 0 to 10 (default: 5)")
    argument(
        "--labels", type=Path, metavar="FILE", help="score these labels, one a line, not the words of the captions"
    )
    argument("--tagger", metavar="NAME", help="what scores tags: dual_encoder, clip, none, … (default: the bundle's)")
    argument(
        "--captioner",
        "--bundle",
        metavar="SPEC",
        help="a bundle's folder, blip, blip:CHECKPOINT or nearest:RUN_DIR (default: the shipped bundle)",
    )
    argument("--json", action="store_true", help="print one JSON object a line")
    argument("--out", type=Path, metavar="FILE", help="write to a .csv or .jsonl file; goes on where it was stopped")
    caption.set_defaults(command=_caption)


def _caption(options: argparse.Namespace) -> int:
    from lcm.batch import Failures, check_labels, find_format
    from lcm.captioning.captioner import load_captioner
    from lcm.captioning.description import MAX_SAMPLES, SAMPLES
    from lcm.data.files import list_images
    from lcm.data.text import read_labels

    samples = SAMPLES if options.samples is None else options.samples
    if not 0 <= samples <= MAX_SAMPLES:
        raise ConfigError(f"--samples is {samples}; it must be 0 to {MAX_SAMPLES}")
    if options.out:
        find_format(options.out)
        if options.json:
            raise ConfigError("--json is for what is printed; with --out, the file's name says the format")
    labels = read_labels(options.labels) if options.labels else None
    listing = list_images(options.paths, options.recursive)
    failures = Failures()
    for path, reason in listing.problems:
        failures.add(path, reason)
    if not listing.images:
        raise DataError(str(failures))
    threads = 1 if len(listing.images) > 1 else 0  # cores for one image: several are encoded at once
    captioner = load_captioner(options.captioner, options.tagger, threads)
    if labels and (note := check_labels(captioner, labels)):
        print(f"lcm: {note}", file=sys.stderr)
    try:
        if options.out:
            _write(options.out, captioner, listing.images, failures, samples, labels)
        else:
            for image, answer in captioner.describe_many(listing.images, samples, labels, workers=0):
                if isinstance(answer, BadImageError):
                    failures.add(image, answer)
                else:
                    _show(image, answer, options.json)
    finally:
        if failures.count:
            print(f"lcm: {failures}", file=sys.stderr)
    return 1 if failures.count else 0


def _write(
    out: Path,
    captioner: "Captioner",
    images: Sequence[str],
    failures: "Failures",
    samples: int,
    labels: Sequence[str] | None,
) -> None:
    """Describe images into a file and say what is in it now."""
    from lcm.batch import AnswerFile, escape, settings_of, write_answers

    with AnswerFile(out, captioner.name, settings_of(captioner, samples, labels)) as answers:
        added = write_answers(captioner, images, answers, failures, samples, labels)
        there = sum(image in answers.done for image in images) - added
    if there == len(images):
        print_line(f"{escape(str(out))}: all images ({there}) are there already")
    else:
        print_line(f"{escape(str(out))}: images captioned: {added}" + f"; there already: {there}" * bool(there))


def _show(image: str, description: "Description", as_json: bool) -> None:
    """Print what is said of an image."""
    from lcm.batch import as_record, escape
    from lcm.captioning.description import percent

    if as_json:
        is_utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
        # A file name need not be text: Python reads its other bytes as surrogates, which print() refuses.
        text = json.dumps(as_record(image, description), ensure_ascii=not is_utf8)
        print_line(text.encode("utf-8", "backslashreplace").decode())
        return
    sure = "" if description.confidence is None else f" ({percent(description.confidence)} sure)"
    print_line(f"{escape(image)}: {escape(description.caption)}{sure}")
    if description.tags:
        shown = ", ".join(f"{escape(word)} {score:.2f}" for word, score in description.tags[:TAGS_SHOWN])
        print_line(f"    {shown}" + ", …" * (len(description.tags) > TAGS_SHOWN))
