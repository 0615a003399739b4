"""Gathering: contributions join the base data set, and what must not train is kept out.

Knows the order of things: what is new, where each image belongs, what a person should look at first, and what a run
leaves about all that. Refuses to know each rule: retraining/ does.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lcm.captioning.taggers import load_tag_scorer
from lcm.config import PrepareConfig
from lcm.contributions.approvals import read_approved
from lcm.contributions.numbers import as_text, from_text
from lcm.contributions.reader import StoreReader
from lcm.contributions.records import ContributedImage, Revocation
from lcm.data.dataset import Dataset
from lcm.errors import ConfigError, NothingToDo
from lcm.features.cache import EncodedImages
from lcm.operations.starting import Start, current_start, find_start
from lcm.retraining.contributed import (
    QUARANTINED,
    SEEN,
    TESTED,
    TRAINED,
    image_id,
    is_contributed,
    join,
    labelled,
    numbers_of,
)
from lcm.retraining.guards import Limits, Suspect, check_limits, find_suspects
from lcm.retraining.placement import TEST, TRAIN, Placement, earlier_splits, place_images

STORE = "store"
ALL = "all"
SHOWN = 20  # suspects that the notebook lists; all are in the run's folder
SUSPECTS = "suspects.jsonl"
KEPT_OUT = "an earlier run kept it out, and nobody has approved it since"  # why an old suspect is one still


@dataclass(frozen=True)
class Arrived:
    """The contributions that a run finds, before anything is known of their images."""

    images: Sequence[ContributedImage] = ()
    revoked: Sequence[Revocation] = ()
    new: frozenset[int] = frozenset()  # numbers that the current model has not seen, or that were approved since
    quarantined: frozenset[int] = frozenset()  # numbers that were kept out before, and that nobody has approved
    must_forget: bool = False  # whether the current model has learned from what is revoked
    earlier: Mapping[str, str] = field(default_factory=dict)  # image_id -> its split when models were trained
    start: Start | None = None  # what to go on from; None: from scratch
    approved: frozenset[int] = frozenset()  # numbers that a person has let pass

    def join(self, dataset: Dataset) -> Dataset:
        """Return the data set with all these images, as if they all trained."""
        return join(dataset, [labelled(image, TRAIN) for image in self.images])

    def __str__(self) -> str:
        lines = ["no contributions"]
        if self.images:
            lines = [
                f"{len(self.images)} contributed images, {len(numbers_of(self.images))} captions, {len(self.new)} of "
                "them new to the current model"
            ]
        if self.start:
            lines += [f"training goes on from {self.start.version} ({self.start.manifest.name})"]
            lines += [f"not from {one}: it has learned from what is revoked" for one in self.start.passed_over]
        return "\n".join(lines)


@dataclass(frozen=True)
class Gathered:
    """The data set with the contributions that take part, and what became of the others."""

    dataset: Dataset
    arrived: Arrived
    placement: Placement
    suspects: Sequence[Suspect] = ()

    def as_metrics(self) -> dict[str, float | str]:
        """Return the counts for metrics.json, and the numbers of the contributions for the manifest.

        Without contributions too: what an earlier run into the same folder has left does not hold any more.
        """
        split_of = {image.image_id: image.split for image in self.dataset.images if is_contributed(image)}
        suspected = {one.contribution.id for one in self.suspects}
        numbers = {
            split: numbers_of(one for one in self.arrived.images if split_of.get(image_id(one)) == split) - suspected
            for split in (TRAIN, TEST)
        }
        start = self.arrived.start
        return {
            "contributed_train_images": [*split_of.values()].count(TRAIN),
            "contributed_test_images": [*split_of.values()].count(TEST),
            "contributions_new": len(self.arrived.new),
            "contributions_suspected": len(self.suspects),
            "contributed_copies": len(self.placement.copies),
            "contributed_copies_of_held_out": len(self.placement.held_out),
            TRAINED: as_text(numbers[TRAIN]),
            TESTED: as_text(numbers[TEST]),
            QUARANTINED: as_text(suspected),
            SEEN: as_text(numbers_of(self.arrived.images)),
            "start_from": str(start.folder) if start else "",
            "start_version": start.version if start else "",
        }

    def as_html(self) -> str:
        """Return what a person should know of the contributions; captions are escaped."""
        if not self.arrived.images:
            return "<p>No contributions take part.</p>"
        counts = self.as_metrics()
        rows = "".join(
            f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{value:,}</td></tr>"
            for name, value in counts.items()
            if isinstance(value, int)
        )
        listed = "".join(
            f"<tr><td>{one.contribution.id}</td><td>{html.escape(one.contribution.caption)}</td>"
            f"<td>{html.escape(one.reason)}</td></tr>"
            for one in self.suspects[:SHOWN]
        )
        suspects = (
            f"<p>For a person to look at ({min(SHOWN, len(self.suspects))} of {len(self.suspects)}, all in "
            f"{SUSPECTS}); <code>-p approved 3,7-9</code> lets contributions pass:</p>"
            f"<table><tr><th>number</th><th>caption</th><th>why</th></tr>{listed}</table>"
        )
        return f"<table>{rows}</table>{suspects if self.suspects else ''}"

    def save_suspects(self, folder: Path) -> None:
        """Write the contributions that a person should look at, one JSON object a line; no file without any there."""
        if not self.arrived.images:
            (folder / SUSPECTS).unlink(missing_ok=True)
            return
        lines = (
            json.dumps(one.contribution.as_record() | {"reason": one.reason}, ensure_ascii=False) + "\n"
            for one in self.suspects
        )
        (folder / SUSPECTS).write_text("".join(lines), encoding="utf-8")

    def check(self) -> None:
        """Raise NothingToDo when none of what is new may train, and nothing that the model knows has been revoked."""
        arrived, trained = self.arrived, from_text(self.as_metrics()[TRAINED])
        if arrived.images and not (trained & arrived.new or arrived.must_forget):
            raise NothingToDo(
                f"of {len(arrived.new)} new contributions none may train: {len(self.suspects)} wait for a person to "
                f"look at them ({SUSPECTS}), the others are held out; nothing is trained"
            )


def read_arrived(config: PrepareConfig, store: StoreReader | None = None) -> Arrived:
    """Return the contributions of the store that `config` names; none where it names none.

    Raises NothingToDo when the current model has seen all there are, none that it has not learned from was approved
    since, and none that it has learned from is revoked. Raises ConfigError for start_from without contributions: what
    is revoked is not known then.
    """
    check_limits(_limits(config))
    named = from_text("" if config.approved == ALL else config.approved)
    if not config.contributions:
        if config.start_from:
            raise ConfigError(f"start_from is {config.start_from!r}, and that needs -p contributions {STORE}")
        return Arrived()
    store = store or _open(config.contributions)
    approved = named | read_approved(store.folder)
    images, revoked, current = store.training_images(), store.revocations(), current_start()
    present = numbers_of(images)
    waiting = current.quarantined & present
    let_pass = waiting if config.approved == ALL else waiting & approved
    new = (present - current.seen) | let_pass
    if not new and current.trained <= present:
        raise NothingToDo(
            f"there is no contribution that {current.version}, the current model, has not seen; nothing is trained. "
            "Send some with POST /caption or lcm contributions import"
            if images
            else "there are no contributions that can train; nothing is trained. Send some with POST /caption or "
            "lcm contributions import"
        )
    start = find_start(config.start_from, present) if config.start_from else None
    earlier = earlier_splits(images, current.trained | (start.trained if start else set()), current.tested)
    must_forget = not current.trained <= present
    kept_out = frozenset(waiting - let_pass)
    return Arrived(images, revoked, frozenset(new), kept_out, must_forget, earlier, start, frozenset(approved))


def gather(dataset: Dataset, encoded: EncodedImages, arrived: Arrived, config: PrepareConfig) -> Gathered:
    """Return the data set with the contributed images that take part, each in its split.

    `dataset` is as `arrived.join` gave it, `encoded` of all its images that could be read.
    """
    if not arrived.images:
        return Gathered(dataset, arrived, Placement())
    placement = place_images(arrived.images, arrived.revoked, dataset, encoded, arrived.earlier)
    suspects = _suspects(dataset, encoded, arrived, config)
    suspected = {one.contribution.id for one in suspects}
    placed = [(image.without(suspected), placement.splits.get(image_id(image), "")) for image in arrived.images]
    images = [labelled(image, split) for image, split in placed if image and split]
    return Gathered(join(dataset, images), arrived, placement, suspects)


def _suspects(dataset: Dataset, encoded: EncodedImages, arrived: Arrived, config: PrepareConfig) -> list[Suspect]:
    """Return the contributions that a person should look at and has not approved, earlier ones among them."""
    if config.approved == ALL:
        return []
    old = numbers_of(arrived.images) - arrived.new
    kept_out = [
        Suspect(one, KEPT_OUT)
        for image in arrived.images
        for one in image.contributions
        if one.id in arrived.quarantined
    ]
    new = [one for image in arrived.images if image_id(image) in encoded.keys if (one := image.without(old))]
    judge = arrived.start or current_start()
    scorer = load_tag_scorer(None, judge.folder, judge.manifest)
    if judge.manifest.encoder != encoded.encoder:
        scorer = None  # it reads other features
    names = [image_id(image) for image in new]
    features: dict[str, np.ndarray] = {}
    if names:
        store, (rows,) = encoded.features(names, "pooled")
        features = {name: np.asarray(store[row], np.float32) for name, row in zip(names, rows, strict=True)}
    base = [caption for image in dataset.of(TRAIN) if not is_contributed(image) for caption in image.captions]
    found = find_suspects(new, _limits(config), scorer, features, base)
    found = [*kept_out, *(one for one in found if one.contribution.id not in arrived.approved)]
    return sorted(found, key=lambda one: one.contribution.id)


def _limits(config: PrepareConfig) -> Limits:
    return Limits(config.text_share, config.contributor_share, config.misfit_share)


def _open(contributions: str) -> StoreReader:
    from lcm.contributions.store import ContributionStore

    if contributions == STORE:
        return ContributionStore()
    folder = Path(contributions).expanduser()
    if not folder.is_dir():  # the store would make it, and hold nothing
        raise ConfigError(f"contributions is {contributions!r}, which is no folder; give {STORE!r} or a store's folder")
    return ContributionStore(folder)
