"""The `lcm` command.

Knows arguments, what is printed and exit codes. Refuses to know how anything is done.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm import __version__
from lcm.errors import BadImageError, ConfigError, DataError, LcmError

if TYPE_CHECKING:
    from lcm.captioning.captioners import BundleCaptioner, Description
    from lcm.operations.folder import Failures

TAGS_SHOWN = 5  # of an image, in what is printed for people
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

    _add_caption(commands.add_parser("caption", help="caption and tag images and folders of images"))
    return parser


def _add_caption(caption: argparse.ArgumentParser) -> None:
    add = caption.add_argument
    add("paths", nargs="+", metavar="PATH", help="image file, or folder of image files")
    add("--recursive", action="store_true", help="take the sub-folders of a folder too")
    add("--samples", type=int, metavar="N", help="captions to draw beside the best one, 0 to 10 (default: 5)")
    add("--labels", type=Path, metavar="FILE", help="score these labels, one a line, not the words of the captions")
    add("--tagger", metavar="NAME", help="what scores tags (default: the bundle's own): dual_encoder, clip, none, …")
    add("--bundle", type=Path, metavar="DIR", help="captioner to use (default: the shipped one)")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--out", type=Path, metavar="FILE", help="write to a .csv or .jsonl file; goes on where it was stopped")
    caption.set_defaults(command=_caption)


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
    from lcm.captioning.captioners import MAX_SAMPLES, SAMPLES, load_captioner
    from lcm.data.labels import read_labels
    from lcm.data.listing import list_images
    from lcm.operations.answers import find_format
    from lcm.operations.folder import Failures, check_labels

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
    captioner = load_captioner(options.bundle, options.tagger, threads)
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
    captioner: "BundleCaptioner",
    images: Sequence[str],
    failures: "Failures",
    samples: int,
    labels: Sequence[str] | None,
) -> None:
    """Describe images into a file and say what is in it now."""
    from lcm.operations.answers import AnswerFile, escape
    from lcm.operations.folder import settings_of, write_answers

    with AnswerFile(out, captioner.name, settings_of(captioner, samples, labels)) as answers:
        added = write_answers(captioner, images, answers, failures, samples, labels)
        there = sum(image in answers.done for image in images) - added
    if there == len(images):
        _print(f"{escape(str(out))}: all images ({there}) are there already")
    else:
        _print(f"{escape(str(out))}: images captioned: {added}" + f"; there already: {there}" * bool(there))


def _show(image: str, description: "Description", as_json: bool) -> None:
    """Print what is said of an image."""
    from lcm.operations.answers import as_record, escape

    if as_json:
        is_utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
        # A file name need not be text: Python reads its other bytes as surrogates, which print() refuses.
        text = json.dumps(as_record(image, description), ensure_ascii=not is_utf8)
        _print(text.encode("utf-8", "backslashreplace").decode())
        return
    _print(f"{escape(image)}: {escape(description.caption)}")
    if description.tags:
        shown = ", ".join(f"{escape(word)} {score:.2f}" for word, score in description.tags[:TAGS_SHOWN])
        _print(f"    {shown}" + ", …" * (len(description.tags) > TAGS_SHOWN))


def _print(text: str) -> None:
    """Print a line at once; what the terminal cannot show, as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at its end
        if isinstance(error, BrokenPipeError):  # of `lcm caption … | head`: enough was read
            raise SystemExit(1) from None
        raise DataError(f"cannot print ({error.strerror}); if it goes into a file, make room for it") from error
