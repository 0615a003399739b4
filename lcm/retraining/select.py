"""What a retraining learns from: the contributions that are new, the model that it resumes from, and what stays out.

Contributions join the base data set. Kept out of a training, though they stay in the store, are those that a person
should look at first (flagged), copies of what the base holds out, and whatever was revoked; nor may what was revoked
live on in the weights of the parent model.
"""

import html
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lcm import registry
from lcm.captioning.bundle import ENCODER_GRAPH, WEIGHTS, Manifest
from lcm.captioning.captioner import SHIPPED, current_version, models_folder, version_folder
from lcm.captioning.taggers import DualEncoder, load_tag_scorer
from lcm.captioning.translation import Translator, load_translator
from lcm.config import PrepareConfig, TrainConfig
from lcm.contributions.store import ContributedImage, Contribution, ContributionStore
from lcm.contributions.text import id_ranges, parse_id_ranges
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import Vocabulary, standardise
from lcm.errors import BundleError, ConfigError, NothingToDo
from lcm.evaluation.gallery import evenly
from lcm.features.cache import EncodedImages
from lcm.features.encoders import keep_encoder
from lcm.paths import write_atomic
from lcm.retraining.placement import HELD_OUT, TEST, TRAIN, Placement, place_images

# Keys of metrics.json and of a manifest's training_data: which contributions a model has learned from, which it is
# measured on, which wait for a person to look at them, each as id ranges, and all that there were, a line a language.
TRAINED, TESTED, QUARANTINED, SEEN = CONTRIBUTIONS = (
    "contributions",
    "contributions_tested",
    "contributions_quarantined",
    "contributions_seen",
)
CURRENT, STORE, ALL = "current", "store", "all"  # values of the parameters start_from, contributions and approved
SUSPECTS = "suspects.jsonl"
LEAST_OF_A_LANGUAGE = 200  # contributed captions from which a model learns to write in a language that is new to it
SHOWN = 20  # flagged contributions that the notebook lists; all are in the run's folder
KEPT_OUT = "an earlier run kept it out, and nobody has approved it since"

FEW = 10  # contributions that one text or one contributor may always have: of three, a share says nothing
NAMED = ":"  # a source without it names no contributor: "http", "import"; with it, "http:ann"
LEAST_CONTRIBUTORS = 3  # named, among the new ones: of one or two people, each may well send nearly all there is
ENOUGH_TEXTS = 100  # other captions that an image can be asked about; where the new ones are fewer, base ones join
MOST_TEXTS = 1000
# A batch's mean share of captions that fit worse than their own: of 50 pairs or more, honest photos had 0.955 at least,
# honest pictures of a kind that the scorer had never seen 0.659, and captions sent with other images 0.589 at most.
ENOUGH_TEXTS_OF_BATCH, LEAST_FIT = 50, 0.62


# The parent model


@dataclass(frozen=True)
class ParentVersion:
    """A model to resume training from, or to be compared with."""

    version: str
    folder: Path
    manifest: Manifest
    skipped: tuple[str, ...] = ()  # newer versions that learned from what is revoked by now

    def ids(self, key: str) -> set[int]:
        """Return the ids that the model's training data name; `key` is TRAINED, TESTED or QUARANTINED."""
        return parse_id_ranges(self.manifest.training_data.get(key, ""))

    def has_seen(self, one: Contribution) -> bool:
        """Whether a contribution was there when the model was trained, in the language that it has now."""
        return self._seen.get(one.id) == one.model_language

    @cached_property
    def _seen(self) -> dict[int, str]:
        lines = (line.partition(" ") for line in self.manifest.training_data.get(SEEN, "").splitlines())
        return {one: language for language, _, ids in lines for one in parse_id_ranges(ids)}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that the model knows."""
        return Vocabulary.load(self.folder / "vocabulary.txt")

    def adapt(self, config: PrepareConfig) -> PrepareConfig:
        """Return the parameters with the encoder and the features that the model was trained with."""
        keep_encoder(self.manifest.encoder, self.folder / ENCODER_GRAPH)
        encoder = self.manifest.encoder
        same = {"encoder": encoder.name, "encoder_weights": encoder.weights, "features": self.manifest.feature_kind}
        return replace(config, **same, tune_epochs=0)

    def followed_by(self, config: TrainConfig) -> TrainConfig:
        """Return the parameters with its architecture, and with the decoding that its metrics were measured with."""
        its = self.manifest
        return replace(config, model=its.model, dev_beam_width=its.beam_width, max_words=its.max_words)


def current_parent() -> ParentVersion:
    """Return the current version; raises BundleError when it is no bundle."""
    models = models_folder()
    version = current_version(models)
    folder = version_folder(models, version)
    return ParentVersion(version, folder, Manifest.load(folder))


def find_parent(start_from: str, present: Collection[int]) -> ParentVersion:
    """Return what to resume from: "current", or a bundle's folder.

    Instead of a current version that has learned from contributions that are not among those `present` any more, it is
    the nearest one before that has not: what was revoked must be gone. Raises BundleError for a folder that has, or
    whose bundle was exported without weights.
    """
    if start_from == CURRENT:
        parent = _clean_version(set(present))
    else:
        folder = Path(start_from).expanduser().resolve()
        parent = ParentVersion(folder.name, folder, Manifest.load(folder))
        if revoked := parent.ids(TRAINED) - set(present):
            raise BundleError(
                f"{folder} has learned from {len(revoked)} contributions that are revoked; start from another bundle, "
                "or from scratch with -p start_from ''"
            )
    if not (parent.folder / WEIGHTS).is_file():
        raise BundleError(
            f"{parent.folder} cannot be trained further: it has no {WEIGHTS}; train from scratch with "
            "-p start_from '', or export it again with this version of lcm"
        )
    return parent


def _clean_version(present: set[int]) -> ParentVersion:
    """Return the current version, or the nearest before it, that has only learned from what is present."""
    models, skipped = models_folder(), []
    current = current_version(models)
    for version in (current, *registry.versions_before(registry.read_history(models), current), SHIPPED):
        folder = version_folder(models, version)
        try:
            parent = ParentVersion(version, folder, Manifest.load(folder), tuple(skipped))
        except BundleError:
            continue
        if parent.ids(TRAINED) <= present:
            return parent
        skipped.append(version)
    raise ConfigError("there is no model to start from; train one from scratch with -p start_from ''")


# Languages


def waiting_and_translated(
    contributions: Iterable[Contribution], known: Collection[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Return what becomes of languages that are not `known` to the model, and have too few captions to be learned.

    First those that wait, with the number of their captions, then the others, each with the known one that
    LCM_TRANSLATOR translates it into.
    """
    waiting, into = {}, {}
    for code, count in Counter(one.model_language for one in contributions).items():
        if code not in known and count < LEAST_OF_A_LANGUAGE:
            targets = _translator().targets(code)
            if target := next(filter(targets.__contains__, known), ""):
                into[code] = target
            else:
                waiting[code] = count
    return waiting, into


def why_waiting(counts: Mapping[str, int]) -> list[str]:
    """Return in words what waits, a language each, of which there are so many captions."""
    why = f"which the current model does not know: they wait until {LEAST_OF_A_LANGUAGE} are there"
    way = "or for a Marian checkpoint in LCM_TRANSLATOR that translates them"
    return [f"captions in {language}, {why} (now {count}), {way}" for language, count in counts.items()]


def _translator() -> Translator:
    return load_translator(os.environ.get("LCM_TRANSLATOR", ""))


def _translate(images: Sequence[ContributedImage], into: Mapping[str, str]) -> list[ContributedImage]:
    """Return the images with their captions in other languages; one of which nothing comes is left out."""

    def translated(one: Contribution) -> Contribution:
        source, target = one.model_language, into.get(one.model_language)
        if not target:
            return one
        (caption,) = _translator().to_language([one.caption], source, target)
        return replace(one, caption=caption, language=target)

    found = [replace(image, contributions=(*map(translated, image.contributions),)) for image in images]
    empty = {one.id for image in found for one in image.contributions if not standardise(one.caption)}
    return [left for image in found if (left := image.without(empty))]


# Contributions that a person should look at first


def find_flagged(
    images: Sequence[ContributedImage],
    config: PrepareConfig,
    scorer: DualEncoder | None,
    features: Mapping[str, np.ndarray],
    base_captions: Mapping[str, Sequence[str]],
) -> dict[int, str]:
    """Return the ids of those of the new contributions that a person should look at, in order, each with the reason.

    There are four signs: one caption text, or one contributor, has too large a share of what is new; a caption fits its
    image worse than nearly all other captions would; all of them together fit their images hardly better than any
    others. `features` are pooled, by image_id. Without `scorer`, or with a misfit share of 0, fit is not asked about;
    nor is it in a language that the scorer does not read: the keys of `base_captions` are those that it does.
    """
    pairs = sorted(((one, image) for image in images for one in image.contributions), key=lambda pair: pair[0].id)
    new = [one for one, _ in pairs]
    found = [
        *_frequent_texts(new, max(FEW, int(config.text_share * len(new)))),
        *_frequent_contributors(new, max(FEW, int(config.contributor_share * len(new)))),
    ]
    for language, captions in base_captions.items() if scorer and config.misfit_share else ():
        if its := [pair for pair in pairs if pair[0].model_language == language]:
            found += _misfits(its, scorer, features, captions, config.misfit_share)
    return dict(sorted(dict(reversed(found)).items()))  # the first reason of each


def _frequent_texts(new: Sequence[Contribution], most: int) -> Iterator[tuple[int, str]]:
    """Yield all contributions of a text that has too many."""
    texts = [" ".join(standardise(one.caption)) for one in new]
    counts = Counter(texts)
    for one, text in zip(new, texts, strict=True):
        if counts[text] > most:
            yield one.id, (f"{counts[text]} of {len(new)} new contributions have this caption; at most {most} may")


def _frequent_contributors(new: Sequence[Contribution], most: int) -> Iterator[tuple[int, str]]:
    """Yield what a contributor sent beyond the most, the latest, where there are enough that one could outweigh."""
    counts, so_far = Counter(one.source for one in new if NAMED in one.source), Counter()
    for one in new if len(counts) >= LEAST_CONTRIBUTORS else ():
        so_far[one.source] += 1
        if counts[one.source] > most and so_far[one.source] > most:
            count = f"{counts[one.source]} of {len(new)} new contributions"
            yield one.id, f"{count} are from {one.source}; the first {most} train"


def _misfits(
    pairs: Sequence[tuple[Contribution, ContributedImage]],
    scorer: DualEncoder,
    features: Mapping[str, np.ndarray],
    base_captions: Sequence[str],
    share: float,
) -> Iterator[tuple[int, str]]:
    """Yield the contributions whose caption fits its image worse than nearly all others, or all, if they seem mixed up.

    All are in one language. The others are the new captions themselves: a new kind of image may be one that the scorer
    knows little about, and its own captions are then judged by one another.
    """
    texts = list(dict.fromkeys(one.caption for one, _ in pairs))
    others = [texts[place] for place in evenly(MOST_TEXTS, len(texts))]
    if len(others) < ENOUGH_TEXTS:
        others += [base_captions[place] for place in evenly(ENOUGH_TEXTS - len(others), len(base_captions))]
    if len(others) * share < 1:  # too few for such a share
        return
    seen = scorer.image_vectors(np.stack([features[image.image_id] for _, image in pairs]))  # [P, D]
    own, other = scorer.text_vectors([one.caption for one, _ in pairs]), scorer.text_vectors(others)
    # Of each pair, the share of other captions that fit its image worse than its own; half of them by chance.
    worse = [float((other @ image < caption @ image - 1e-6).mean()) for image, caption in zip(seen, own, strict=True)]
    by_text = {one.caption: its for (one, _), its in zip(pairs, worse, strict=True)}  # each text counts once
    mean = fmean(by_text.values())
    shuffled = len(by_text) >= ENOUGH_TEXTS_OF_BATCH and mean < LEAST_FIT
    for (one, _), its in zip(pairs, worse, strict=True):
        if shuffled:
            reason = f"{len(by_text)} new captions fit their images better than {mean:.0%} of others, on average"
            yield one.id, f"{reason}: were they sent with the wrong images?"
        elif its < share:
            yield one.id, f"it fits its image worse than {1 - its:.0%} of {len(others)} other captions"


# What is new


@dataclass(frozen=True)
class NewContributions:
    """The contributions that a run finds, before anything is known of their images."""

    images: Sequence[ContributedImage] = ()
    revoked: Sequence[Contribution] = ()
    new: Set[int] = frozenset()  # ids that the current model has not seen, or that were approved since
    quarantined: Set[int] = frozenset()  # ids that were kept out before, and that nobody has approved
    approved: Set[int] = frozenset()  # ids that a person has let pass
    needs_unlearning: bool = False  # whether the current model has learned from what is revoked
    earlier: Mapping[str, str] = field(default_factory=dict)  # image_id -> its split when models were trained
    parent: ParentVersion | None = None  # what to resume from; None: from scratch
    waiting: Mapping[str, int] = field(default_factory=dict)  # language -> captions, which take no part
    translated: Mapping[int, Contribution] = field(default_factory=dict)  # id -> what was sent, of a translation

    def join(self, dataset: Dataset) -> Dataset:
        """Return the data set with all these images, as if they all trained."""
        return _join(dataset, [one for image in self.images for one in _labelled(image, TRAIN)])

    def __str__(self) -> str:
        lines = ["no contributions take part"]
        if self.images:
            captions = sum(len(image.contributions) for image in self.images)
            new = f"{len(self.new)} of them new to the current model"
            lines = [f"{len(self.images)} contributed images, {captions} captions, {new}"]
        translated = Counter(one.model_language for one in self.translated.values())
        lines += [f"{count} captions in {code} train in translation" for code, count in translated.items()]
        lines += why_waiting(self.waiting)
        if self.parent:
            is_shipped = self.parent.version == SHIPPED
            lines += [f"training resumes from {'the shipped model' if is_shipped else self.parent.manifest.name}"]
            lines += [f"not from {one}: it has learned from what is revoked" for one in self.parent.skipped]
        return "\n".join(lines)


def read_new_contributions(config: PrepareConfig, store: ContributionStore | None = None) -> NewContributions:
    """Return the contributions that `config` names; raises NothingToDo when none of them is new to learn."""
    named = parse_id_ranges("" if config.approved == ALL else config.approved)
    if not config.contributions:
        if not config.start_from:
            return NewContributions()
        present = {one.id for one in (store or ContributionStore()).contributions()}
        return NewContributions(parent=find_parent(config.start_from, present))
    if not store:
        folder = None if config.contributions == STORE else Path(config.contributions).expanduser()
        if folder and not folder.is_dir():  # the store would make it, and hold nothing
            raise ConfigError(
                f"contributions is {str(folder)!r}, which is no folder; give {STORE!r} or a store's folder"
            )
        store = ContributionStore(folder)
    there, current = store.training_images(), current_parent()
    present, learned = _ids_of(there), current.ids(TRAINED)
    parent = find_parent(config.start_from, present) if config.start_from else None
    known = (parent or current).vocabulary.starts
    sent = [one for image in there for one in image.contributions]
    approved = {one.id for one in sent if one.approved or config.approved == ALL or one.id in named}
    waiting, into = waiting_and_translated(sent, known)
    wait = {one.id for one in sent if one.model_language in waiting}
    images = [left for image in there if (left := image.without(wait))]
    taking_part = _ids_of(images)
    own = {one.id for one in sent if one.model_language not in into}  # what trains as it was sent
    enter = {one.id for one in sent if one.model_language not in known} & own  # and may have been seen in translation
    unseen = {one.id for one in sent if not current.has_seen(one)} | enter
    quarantined = (current.ids(QUARANTINED) & taking_part) - unseen
    new = (unseen & taking_part) | (quarantined & approved)
    needs_unlearning = not learned <= present
    if not new and not needs_unlearning:
        which = f"{current.version}, the current model, has not seen" if images else "can train"
        raise NothingToDo(
            f"there is no contribution that {which}; nothing is trained. Send some with POST /caption or "
            f"lcm contributions import{''.join(f'; {why}' for why in why_waiting(waiting))}"
        )
    learned |= parent.ids(TRAINED) if parent else set()
    earlier = {}
    for image in images:
        ids = _ids_of([image])
        if split := TRAIN if ids & learned else TEST if ids & current.ids(TESTED) else "":
            earlier[image.image_id] = split
    return NewContributions(
        images=_translate(images, into),
        revoked=store.revoked(),
        new=new,
        quarantined=quarantined - approved,
        approved=approved,
        needs_unlearning=needs_unlearning,
        earlier=earlier,
        parent=parent,
        waiting=waiting,
        translated={one.id: one for one in sent if one.model_language in into},
    )


# What trains


@dataclass(frozen=True)
class TrainingSet:
    """The data set with the contributions that take part, and what became of the others."""

    dataset: Dataset
    contributions: NewContributions
    placement: Placement
    flagged: Mapping[int, str] = field(default_factory=dict)  # id -> why a person should look at it

    def as_metrics(self) -> dict[str, float | str]:
        """Return counts for metrics.json and ids for the manifest; without contributions too: a run may be repeated."""
        split_of = {image.image_id: image.split for image in self.dataset.images if image.is_contributed}
        flagged, images, parent = set(self.flagged), self.contributions.images, self.contributions.parent
        trained, tested = (
            _ids_of(one for one in images if split_of.get(one.image_id) == split) - flagged for split in (TRAIN, TEST)
        )
        trained |= parent.ids(TRAINED) if parent else set()  # what its weights hold, those of the new model hold too
        seen: dict[str, list[int]] = {}
        for one in (one for image in images for one in image.contributions):
            seen.setdefault(self.contributions.translated.get(one.id, one).model_language, []).append(one.id)
        lines = "\n".join(f"{language} {id_ranges(its)}" for language, its in seen.items())
        values = *map(id_ranges, (trained, tested, flagged)), lines
        ids = dict(zip(CONTRIBUTIONS, values, strict=True))
        if parent and not images:
            ids = {key: parent.manifest.training_data.get(key, "") for key in CONTRIBUTIONS}
        return ids | {
            "contributed_train_images": [*split_of.values()].count(TRAIN),
            "contributed_test_images": [*split_of.values()].count(TEST),
            "contributions_new": len(self.contributions.new),
            "contributions_suspected": len(self.flagged),
            "contributed_copies": len(self.placement.copies),
            "contributed_copies_of_held_out": [*self.placement.splits.values()].count(HELD_OUT),
            "start_from": str(parent.folder) if parent else "",
            "start_version": parent.version if parent else "",
        }

    def as_html(self) -> str:
        """Return what a person should know of the contributions: not to be printed, for logs hold no captions."""
        if not self.contributions.images:
            return "<p>No contributions take part.</p>"
        counts = {name: value for name, value in self.as_metrics().items() if isinstance(value, int)}
        lines = [f"{name.replace('_', ' ')}: {value:,}" for name, value in counts.items()]
        if self.flagged:
            shown = self._suspects()[:SHOWN]
            said = f"for a person to look at ({len(shown)} of {len(self.flagged)}, all in {SUSPECTS})"
            lines.append(f"{said}; -p approved 3,7-9 lets contributions pass:")
            lines += [f"  {one['id']} {one['caption']!r}: {one['reason']}" for one in shown]
        text = "\n".join(lines)
        return f"<pre>{html.escape(text)}</pre>"

    def _suspects(self) -> list[dict[str, Any]]:
        """Return what is flagged as it was sent, with the reasons."""
        sent = {one.id: one for image in self.contributions.images for one in image.contributions}
        sent |= self.contributions.translated
        return [sent[number].as_record() | {"reason": reason} for number, reason in self.flagged.items()]

    def save_flagged(self, folder: Path) -> None:
        """Write the contributions that a person should look at, one JSON object a line; no file without any there."""
        if not self.contributions.images:
            (folder / SUSPECTS).unlink(missing_ok=True)
            return
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in self._suspects()]
        write_atomic(folder / SUSPECTS, "".join(lines))

    def check(self) -> None:
        """Raise NothingToDo when none of what is new may train, and nothing that the model knows has been revoked."""
        found, trained = self.contributions, parse_id_ranges(self.as_metrics()[TRAINED])
        if found.images and not (trained & found.new or found.needs_unlearning):
            raise NothingToDo(
                f"of {len(found.new)} new contributions none may train: {len(self.flagged)} wait for a person to "
                f"look at them ({SUSPECTS}), the others are held out; nothing is trained"
            )


def build_training_set(
    dataset: Dataset, encoded: EncodedImages, contributions: NewContributions, config: PrepareConfig
) -> TrainingSet:
    """Return the images that take part, each in its split; `dataset` is as `join` gave it, `encoded` of it."""
    if not contributions.images:
        return TrainingSet(dataset, contributions, Placement())
    images = contributions.images
    placement = place_images(images, contributions.revoked, dataset, encoded, contributions.earlier)
    flagged = _flagged(dataset, encoded, contributions, config)
    placed = [(image.without(flagged.keys()), placement.splits.get(image.image_id)) for image in images]
    joined = _join(dataset, [one for image, split in placed if image and split for one in _labelled(image, split)])
    return TrainingSet(joined, contributions, placement, flagged)


def _flagged(
    dataset: Dataset, encoded: EncodedImages, contributions: NewContributions, config: PrepareConfig
) -> dict[int, str]:
    """Return what a person should look at and has not approved, what an earlier run kept out too, as find_flagged."""
    if config.approved == ALL:
        return {}
    old = _ids_of(contributions.images) - contributions.new
    new = [one for image in contributions.images if image.image_id in encoded.keys if (one := image.without(old))]
    judge = contributions.parent or current_parent()
    scorer = load_tag_scorer(None, judge.folder, judge.manifest)
    if judge.manifest.encoder != encoded.encoder:
        scorer = None  # it reads other features
    features: dict[str, np.ndarray] = {}
    if names := [image.image_id for image in new]:
        store, (rows,) = encoded.features(names, "pooled")
        features = {name: np.asarray(store[row], np.float32) for name, row in zip(names, rows, strict=True)}
    base = {
        language: [text for image in dataset.of(TRAIN, language) if not image.is_contributed for text in image.captions]
        for language in judge.manifest.tagger.get("languages", [judge.vocabulary.language])
    }
    found = find_flagged(new, config, scorer, features, base)
    found |= dict.fromkeys(contributions.quarantined, KEPT_OUT)
    return {number: found[number] for number in sorted(found.keys() - contributions.approved)}


def _labelled(image: ContributedImage, split: str) -> list[LabelledImage]:
    return [LabelledImage(image.image_id, image.path, split, its, code) for code, its in image.captions.items()]


def _ids_of(images: Iterable[ContributedImage]) -> set[int]:
    return {one.id for image in images for one in image.contributions}


def _join(dataset: Dataset, images: Sequence[LabelledImage]) -> Dataset:
    """Return the data set with these contributed images at its end, in place of all that it had."""
    base = tuple(image for image in dataset.images if not image.is_contributed)
    return replace(dataset, images=(*base, *images))
