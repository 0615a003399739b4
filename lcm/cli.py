"""The `lcm` command: its arguments, what it prints, and one line on stderr for whatever stops it.

What a command needs is imported when it runs, so that `lcm --help` and `lcm models` load no model.
"""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lcm import __version__
from lcm.errors import BadImageError, ConfigError, DataError, LcmError, NothingToDo
from lcm.paths import RUN_FOLDER, RunDir, write_atomic

if TYPE_CHECKING:
    from lcm.captioning.description import Description
    from lcm.contributions.store import ContributionStore
    from lcm.registry import Change

SHOWN_METRICS = ("cider", "bleu_4", "meteor", "rouge_l", "wer", "wer_best", "images")  # after a run
TAGS_SHOWN = 5  # of an image, in what is printed for people
PATH = click.Path(path_type=Path)
BARS = {  # of progress, by whether stderr is a terminal; any delay above 0 leaves out the empty bar at the start
    True: {"TQDM_MININTERVAL": "1"},
    # A log: the line at the end, and one a minute before it.
    False: {"TQDM_MININTERVAL": "60", "TQDM_DELAY": "1e-9", "TQDM_BAR_FORMAT": "{l_bar}{bar}{r_bar}\n"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 when something could not be done, 2 for wrong usage, 130 after an interrupt."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show is an escape
    for name, value in BARS[sys.stderr.isatty()].items():  # tqdm reads them when it is imported, in notebooks too
        os.environ.setdefault(name, value)
    try:
        return lcm.main(arguments, prog_name="lcm", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        return _stopped(f"{error.format_message()} See: {context.command_path if context else 'lcm'} --help", 2)
    except NothingToDo as end:
        return _stopped(str(end), 0)
    except LcmError as error:
        return _stopped(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        return _stopped("interrupted", 130)
    except OSError as error:
        if error.filename:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at its end
        return _stopped(f"cannot print ({error.strerror}); if it goes into a file, make room for it", 1)


def _stopped(reason: str, code: int) -> int:
    print(f"lcm: {reason}", file=sys.stderr)
    return code


_say = partial(print, flush=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="lcm %(version)s")
def lcm() -> None:
    """Learn to caption images from your own labelled images."""


class RunCommand(click.Command):
    """`lcm run`: takes -p KEY=VALUE as -p KEY VALUE, and its help lists the parameters of the preset that is given."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        split: list[str] = []
        for before, word in zip(["", *arguments], arguments, strict=False):
            split += word.split("=", 1) if before == "-p" else [word]
        return super().parse_args(context, split)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        if not context.params.get("params"):
            return
        from lcm.config import OF_PARENT, parameters_table
        from lcm.pipeline import load_preset

        preset = load_preset(context.params["params"])
        of_parent = dict.fromkeys(OF_PARENT, "from the model") if preset.parameters.get("start_from") else {}
        for notebook, config in preset.configs.items():
            rows = [
                (name, f"{meaning} ({kind}) [default: {of_parent.get(name, preset.parameters.get(name, default))}]")
                for name, kind, default, meaning in parameters_table(config)
            ]
            with formatter.section(f"Parameters of {notebook}"):
                formatter.write_dl(rows)


def _list_presets(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from lcm.pipeline import load_preset, preset_names

        for name in preset_names():
            _say(f"{name:<15}{load_preset(name).about}")
        context.exit()


@lcm.command(cls=RunCommand)
@click.option("--params", required=True, is_eager=True, metavar="PRESET|FILE", help="Name of a preset, or a YAML file.")
@click.option("-p", "overrides", nargs=2, multiple=True, metavar="KEY VALUE", help="Set a parameter; KEY=VALUE, too.")
@click.option("--out", type=PATH, metavar="DIR", help="Folder of the run (default: reports/runs/PRESET).")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_presets, help="List the presets."
)
def run(params: str, overrides: Sequence[tuple[str, str]], out: Path | None) -> None:
    """Prepare, train and evaluate by a preset's notebooks.

    With --params PRESET, --help lists its parameters.
    """
    from lcm import pipeline

    folder = pipeline.run(pipeline.load_preset(params), {key: parse_value(text) for key, text in overrides}, out)
    metrics = folder.read_metrics()
    for name in filter(metrics.__contains__, SHOWN_METRICS):
        value = metrics[name]
        shown = f"{value:.3f}" if isinstance(value, float) else value
        if value is None:
            shown = metrics.get(f"{name}_reason", "not measured")
        _say(f"{name:>10}  {shown}")
    if "gate_reason" in metrics:
        _say(f"{'gate':>10}  {metrics['gate_reason']}")
    _say(f"Notebooks, HTML, figures and metrics.json{', bundle' * folder.bundle.is_dir()}: {folder.path}")
    if "verdict_text" in metrics:
        _say(metrics["verdict_text"].replace(RUN_FOLDER, shlex.quote(os.path.relpath(folder.path))))


def parse_value(text: str) -> Any:
    """Return the number, true, false or null that `text` is in JSON, else `text` itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if not isinstance(value, list | dict) else text


@lcm.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--recursive", is_flag=True, help="Take the sub-folders of a folder too.")
@click.option("--samples", type=click.IntRange(0, 10), default=5, show_default=True, help="Captions beside the best.")
@click.option("--labels", type=PATH, metavar="FILE", help="Score these labels, one a line, not the captions' words.")
@click.option("--vocabulary", envvar="LCM_VOCABULARY", default="", metavar="FILE", help="CSV of the terms of tags.")
@click.option(
    "--language", default="", metavar="CODE", help="Language of the captions: en, fr, … (default: the model's first)."
)
@click.option("--scores", metavar="KIND", help="Of tags: share (the default) or probability (that with --write).")
@click.option("--min-score", type=float, metavar="NUMBER", help="Least probability of a tag (default: 0.5).")
@click.option("--tagger", metavar="NAME", help="What scores tags: dual_encoder, clip, none, … (default: the bundle's).")
@click.option(
    "--captioner",
    metavar="SPEC",
    help="current, a version, a bundle's folder or address (hf://OWNER/NAME), blip, blip:CHECKPOINT or nearest:RUN_DIR "
    "(default: LCM_BUNDLE, else current, which is the shipped bundle at first).",
)
@click.option("--style", type=click.Choice(["plain", "alt"]), default="plain", help="alt: as alternative text.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--out", type=PATH, metavar="FILE", help="Write to a .csv or .jsonl file; resumes where it was stopped.")
@click.option("--write", type=click.Choice(["sidecar", "embed"]), help="Metadata: beside the photos, or in them.")
@click.option("--overwrite", is_flag=True, help="With --write: replace captions and keywords that people wrote, too.")
@click.option("--line", default="{caption}", help="With --write: the description; '[{city}: ]{caption}[ ({credit})]'.")
@click.option("--dry-run", is_flag=True, help="With --write: only say what would be written.")
def caption(
    paths: Sequence[str],
    recursive: bool,
    labels: Path | None,
    vocabulary: str,
    language: str,
    tagger: str | None,
    captioner: str | None,
    style: str,
    as_json: bool,
    out: Path | None,
    write: str | None,
    overwrite: bool,
    line: str,
    dry_run: bool,
    **asked: Any,
) -> int:
    """Caption and tag images and folders of images."""
    with _interrupts_kept():
        from lcm import batch
        from lcm.captioning.captioner import load_captioner
        from lcm.captioning.terms import Terms
        from lcm.data.files import list_images
        from lcm.data.text import read_labels

        if out:
            batch.check_out(out)
            if as_json:
                raise ConfigError("--json is for what is printed; with --out, the file's name says the format")
        if write and out:
            raise ConfigError("--write and --out are for runs of their own; give one of them")
        if not write and (overwrite or dry_run):
            raise ConfigError("--overwrite and --dry-run are for --write sidecar or --write embed; give one too")
        if write:
            from lcm.metadata import Writer

            writer = Writer(write == "embed", overwrite, dry_run, line)
        asked["labels"] = read_labels(labels) if labels else None
        listing = list_images(paths, recursive)
        failures: list[batch.Failure] = [*listing.problems]
        unwritten: list[batch.Failure] = []
        left_out = batch.list_left_out(listing)
        if not listing.images:
            raise DataError("\n".join([*batch.list_failures(failures), *left_out]))
        threads = 1 if len(listing.images) > 1 else 0  # cores for one image: several are encoded at once
        is_utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
        describer = load_captioner(captioner, tagger, threads)
        can_say_no = getattr(describer.tag_scorer, "curves", None)
        asked["scores"] = asked["scores"] or ("probability" if write and can_say_no else "share")
        asked["language"] = describer.checked_language(language)
        describer.terms = Terms(vocabulary) if vocabulary else None
        scored = asked["labels"] or (describer.terms and [*(describer.listed_terms(asked["language"]) or {}).values()])
    if scored and (note := batch.check_labels(describer, scored)):
        print(f"lcm: {note}", file=sys.stderr)
    try:
        if out:
            _say(batch.describe_into_file(out, describer, listing.images, failures, style=style, **asked))
        else:
            for image, answer in describer.describe_many(listing.images, workers=0, **asked):
                if isinstance(answer, BadImageError):
                    failures.append((image, answer))
                    continue
                done = ""
                try:
                    done = writer.write(image, answer) if write else ""
                except DataError as error:
                    unwritten.append((image, error))
                if as_json:
                    record = batch.as_record(image, answer, style) | ({"metadata": done} if write else {})
                    _say(json.dumps(record, ensure_ascii=not is_utf8))
                else:
                    _say(_for_people(image, answer, style) + f"\n    {batch.escape(done)}" * bool(done))
    finally:
        unwritten = batch.list_failures(unwritten, "not written")
        if complaints := [*batch.list_failures(failures), *unwritten, *left_out]:
            print("lcm:", "\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


@lcm.command()
@click.argument("paths", nargs=-1, required=True, metavar="PHOTOS...")
def index(paths: Sequence[str]) -> int:
    """Index photos and sub-folders for lcm search; again, take in what has changed."""
    with _interrupts_kept():
        from lcm import batch
        from lcm.data.files import list_images
        from lcm.find import PhotoIndex

        photos = PhotoIndex()
    listing = list_images(paths, recursive=True)
    empty = dict(listing.problems)  # what was in such a folder stays: its disk may be away
    changed, failures = photos.update([path for path in paths if Path(path).as_posix() not in empty], listing.images)
    _say(changed)
    complaints = batch.list_failures([*listing.problems, *failures], "not indexed") + batch.list_left_out(listing)
    if complaints:
        print("lcm:", "\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


@lcm.command()
@click.argument("query", nargs=-1, metavar="[WORDS|PHOTO]...")
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="Photos, at most.")
@click.option("--copies", is_flag=True, help="List photos that look alike instead: copies and bursts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line; of copies, a list.")
def search(query: Sequence[str], count: int, copies: bool, as_json: bool) -> int:
    """Find indexed photos by words, in a language that the model reads, or by a photo."""
    if bool(query) == copies:
        raise click.UsageError("Give words, or the path of a photo, or --copies.")
    from lcm.batch import escape
    from lcm.find import PhotoIndex

    photos = PhotoIndex()
    if copies:
        for group in photos.copies():
            _say(json.dumps(group) if as_json else "\n".join(map(escape, [*group, ""])))
        return 0
    found, note = photos.search(" ".join(query), count)
    for one in found:
        said = "{photo}: {caption} ({score:.2f})".format(**one) + " contributed" * one["contributed"]
        _say(json.dumps(one) if as_json else escape(said))
    if note:
        print(f"lcm: {note}", file=sys.stderr)
    return 0 if found else 1


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if one came on the way, whatever has become of it.

    The import of a C extension turns one into an ImportError, which a library may pass over and which lcm would take
    for a damaged bundle: measured, 3 of 70 interrupts while the shipped bundle was loaded.
    """
    usual, came = signal.getsignal(signal.SIGINT), []

    def note(*_: object) -> None:
        came.append(True)
        raise KeyboardInterrupt

    if usual is signal.default_int_handler:  # in the background it may be ignored
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def _for_people(image: str, description: "Description", style: str) -> str:
    """Return what is said of an image: a line with its caption, and one with its tags where it has any."""
    from lcm.batch import escape
    from lcm.captioning.description import sureness

    sure = "" if description.confidence is None else f" ({sureness(description.confidence)})"
    caption = description.alt_text if style == "alt" else description.caption
    line = f"{escape(image)}: {escape(caption)}{sure}"
    shown = ", ".join(f"{escape(word)} {score:.2f}" for word, score in description.tags[:TAGS_SHOWN])
    shown = shown or "(no tag is probable enough)" * (description.scores == "probability")
    more = ", …" * (len(description.tags) > TAGS_SHOWN)
    return f"{line}\n    {shown}{more}" if shown else line


@lcm.group()
def metadata() -> None:
    """What lcm caption --write has written into photos and beside them: undo it."""


@metadata.command()
def undo() -> int:
    """Put the files back that the last run with --write has changed, to the last byte."""
    from lcm.batch import escape, list_failures
    from lcm.metadata import undo

    files, failures = undo()
    for file in files:
        _say(f"as before: {escape(file)}")
    if complaints := list_failures(failures, "not put back"):
        print("lcm:", "\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


@lcm.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on (LCM_HOST; default: this machine only).")
@click.option("--port", metavar="PORT", help="Port to listen on (LCM_PORT; default: 8000).")
def serve(host: str | None, port: str | None) -> int:
    """Serve captions, tags and corrections over HTTP."""
    from lcm.errors import require

    require("flask", "serve")
    import serve

    given = {"LCM_HOST": host, "LCM_PORT": port}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    return serve.main()


@lcm.group()
@click.option("--store", type=PATH, metavar="DIR", help="Folder of the store (default: contributions in LCM_HOME).")
@click.pass_context
def contributions(context: click.Context, store: Path | None) -> None:
    """What users sent: list, revoke, back up and more."""
    context.obj = store


def _open_store(folder: Path | None) -> "ContributionStore":
    from lcm.contributions.store import ContributionStore

    return ContributionStore(folder)


@contributions.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with all that is kept.")
@click.pass_obj
def list_contributions(folder: Path | None, as_json: bool) -> None:
    """Print them in the order of arrival: number, date, file name, contributor, language, caption."""
    from lcm.retraining import select

    found, waiting = [*_open_store(folder).contributions()], {}
    with suppress(LcmError):  # a current model that is damaged knows no language
        waiting, _ = select.waiting_and_translated(found, select.current_parent().vocabulary.starts)
    for one in found:
        language = f"{one.language} (waits)" if one.model_language in waiting else one.language
        cells = one.id, one.received[:10], one.file_name or "-", one.contributor or "-", language, one.caption
        _say(json.dumps(one.as_record()) if as_json else "\t".join(map(str, cells)))
    for why in select.why_waiting(waiting):
        print(f"lcm: {why}", file=sys.stderr)


@contributions.command()
@click.argument("target", type=PATH, metavar="FOLDER")
@click.pass_obj
def export(folder: Path | None, target: Path) -> int:
    """Write images and captions.tsv, a data set for lcm run."""
    from lcm.contributions.transfer import export_contributions

    done = export_contributions(_open_store(folder), target)
    _say(f"{target}: {done.images} images, {done.captions} captions")
    for number in done.left_out:
        _say(f"left out: the image of {number} is damaged; put a backup back, or revoke it")
    return 1 if done.left_out else 0


@contributions.command("import")
@click.argument("captions", type=PATH)
@click.option("--images", type=PATH, metavar="DIR", help="Folder of the images (default: that of the captions).")
@click.pass_obj
def import_(folder: Path | None, captions: Path, images: Path | None) -> int:
    """Add the pairs of a captions file, or of a folder: of an export, or of any data set that lcm run reads."""
    from lcm.contributions.transfer import import_contributions

    done = import_contributions(_open_store(folder), captions, images)
    for refusal in done.refused:
        _say(f"row {refusal.row}, {refusal.image}: {refusal.reason}")
    _say(f"{done.added} added, {done.known} there already, {len(done.refused)} refused")
    return 1 if done.refused else 0


@contributions.command()
@click.argument("number", type=int)
@click.option("--reason", required=True, help="Kept with the line about it.")
@click.pass_obj
def revoke(folder: Path | None, number: int, reason: str) -> None:
    """Remove one for good; a line about it stays."""
    gone = _open_store(folder).revoke(number, reason)
    was = "was revoked before, at" if gone.known else "is revoked since"
    _say(f"{number} {was} {gone.revoked}: {gone.reason}")


@contributions.command()
@click.argument("code")
@click.argument("numbers", nargs=-1, required=True)
@click.pass_obj
def language(folder: Path | None, code: str, numbers: Sequence[str]) -> None:
    """Correct the language of some.

    CODE is as fr, NUMBERS are as 3,7-9.
    """
    from lcm.contributions.text import id_ranges, parse_id_ranges

    ids = parse_id_ranges(",".join(numbers))
    _open_store(folder).set_language(ids, code)
    _say(f"{id_ranges(ids)}: in {code}; the next retraining takes them as such")


@contributions.command()
@click.argument("file", type=PATH)
@click.option("--replace", is_flag=True, help="Replace the file if it is there already.")
@click.pass_obj
def backup(folder: Path | None, file: Path, replace: bool) -> None:
    """Copy all into one SQLite file.

    The service may run meanwhile; what it is sent waits. The file holds the images, too.
    """
    count = _open_store(folder).backup(file, replace)
    _say(f"{file}: {count} contributions; to restore them, put it in the place of the store's file")


@contributions.command()
@click.pass_obj
def fetch(folder: Path | None) -> int:
    """Take over what a service has copied elsewhere.

    From LCM_STORE_URL, in order to train from it.
    """
    from lcm.contributions import mirror

    done = mirror.fetch(mirror.open_target(os.environ.get("LCM_STORE_URL", "").strip()), folder)
    for name, reason in done.damaged.items():
        _say(f"left out {name}: {reason}")
    counts = f"{done.contributions} contributions are here, {done.new} of them new"
    _say(f"{counts}; {done.revoked} were revoked, {len(done.damaged)} left out")
    if done.is_damaged:
        _say("more is damaged than an accident explains: check the copy before you train from it")
    return 1 if done.is_damaged else 0


@lcm.group()
def models() -> None:
    """Versions of the model: list, publish, roll back."""


reason_option = click.option("--reason", default="", help="Kept in the history.")


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with metrics and decisions.")
def list_versions(as_json: bool) -> None:
    """Print the versions, the oldest first.

    * is current, - the one before.
    """
    from lcm.registry import all_versions

    for one in all_versions():
        if as_json:
            _say(json.dumps(asdict(one)))
            continue
        mark = "*" if one.current else "-" if one.before else " "
        cider = one.metrics.get("cider")
        score = f"CIDEr {cider:.3f}" if isinstance(cider, float) else ""
        if score and (images := one.metrics.get("images")):  # of other photos than another version's
            score += f" on {images:,} images"
        state = f"damaged: {one.fault}" if one.fault else one.reason or ""
        _say("\t".join((f"{mark} {one.version}", one.digest, (one.published or "")[:16], score, state)).rstrip())


@models.command()
@click.argument("folder", type=PATH)
@click.option("--promote", is_flag=True, help="Make it current, too.")
@click.option("--force", is_flag=True, help="Publish it also where it is worse, degenerate or of the sample.")
@reason_option
def publish(folder: Path, promote: bool, force: bool, reason: str) -> None:
    """Copy a bundle to the versions.

    FOLDER is that of the bundle, or of the run that made it, such as reports/runs/NAME. No gate is asked.
    """
    from lcm import registry

    done = registry.publish(folder, reason or "by hand", make_current=promote, force=force)
    if done.unmeasured:
        _say(f"{done.version} was not measured: nobody knows whether it is better; look at what it says of photos")
    if promote:
        return _say_current(done)
    was = "is there already" if done.known else "is published"
    return _say(f"{done.version} {was}, {done.previous} stays current; next: lcm models promote {done.version}")


@models.command()
@click.argument("version")
@reason_option
def promote(version: str, reason: str) -> None:
    """Make a version current.

    VERSION is as lcm models list names it. A running service takes it up by itself.
    """
    from lcm import registry

    _say_current(registry.promote(version, reason))


@models.command()
@reason_option
def rollback(reason: str) -> None:
    """Make the version current that was so before."""
    from lcm import registry

    done = registry.rollback(reason)
    for one in done.skipped:
        _say(f"skipped {one}")
    _say_current(done)


def _say_current(done: "Change") -> None:
    before = "it was so already" if done.previous == done.version else f"before it was {done.previous}"
    _say(f"{done.version} is current; {before}")
    if os.environ.get("LCM_BUNDLE"):
        _say("LCM_BUNDLE is set: whatever has it answers from that bundle, not from the current one")


@models.command()
@click.option("--keep", type=click.IntRange(0), default=5, show_default=True, help="How many of the newest stay.")
def prune(keep: int) -> None:
    """Remove old versions.

    The current one and the one before always stay.
    """
    from lcm import registry

    removed = registry.prune(keep)
    _say(f"{len(removed)} removed{': ' if removed else ''}{', '.join(removed)}")


@lcm.command()
@click.argument("folder", type=PATH, default="reports/runs/retrain")
@click.option("--out", type=PATH, metavar="FILE", help="Write it there, too.")
def summary(folder: Path, out: Path | None) -> None:
    """Print what became of a retraining, as Markdown.

    FOLDER is that of the run. On GitHub Actions, it is written for the step too.
    """
    from lcm.retraining.gate import published_version, summarise

    run_dir = RunDir(folder)
    text = summarise(run_dir)
    if out:
        write_atomic(out, text)
    to_github = {"GITHUB_STEP_SUMMARY": text, "GITHUB_OUTPUT": f"version={published_version(run_dir)}\n"}
    for variable, added in to_github.items():
        if os.environ.get(variable):
            with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
                file.write(added)
    _say(text.rstrip("\n"))
