"""The verdict on a run's model: better or worse than what there was, in words, with the numbers and the next step.

On the held-out images its captions are compared with those of three rivals: the model that it started from (the shipped
one where it started from none), the nearest training image, and one caption for all. By CIDEr, since short and broken
captions win WER. Degenerate output is named before any score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcm.captioning.bundle import Bundle
from lcm.captioning.captioner import SHIPPED, load_captioner
from lcm.captioning.decoding import caption_features
from lcm.captioning.peers import by_agreement, nearest_captions
from lcm.data.dataset import LabelledImage
from lcm.evaluation.bootstrap import bootstrap_difference, bootstrap_mean
from lcm.evaluation.compare import caption_photos
from lcm.evaluation.gallery import CaptionLine, PhotoCard, evenly
from lcm.evaluation.metrics import score_several, signs_of_degeneration
from lcm.evaluation.report import best_median_worst, best_of, plain, with_ends
from lcm.features.cache import PreparedRun
from lcm.paths import RUN_FOLDER, RunDir
from lcm.registry import DEGENERATE, NOT_MEASURED, WORSE

BETTER, SAME = "better", "not distinguishable"  # beside the three of lcm.registry
STARTED_FROM, NEAREST, CONSTANT = RIVALS = ("started_from", "nearest", "constant")  # as metrics.json names them

# Images that a verdict needs. Of 5, drawn from Flickr8k's dev, the 95 % interval of the shipped model's CIDEr held the
# true one 79 times in 100; of 10, 86 times; of 20, 90; of 50, 93.
LEAST_IMAGES = 10
TRAIN_IMAGES = 50  # where fewer are held out, so many training images show degenerate output, too
PHOTOS = 4  # of the best, the median and the worst change that are shown, each
ADAPT = "lcm run --params adapt -p data_dir photos"
TYPICAL_OF = 500  # train captions, evenly spaced, of which the most typical one is the constant caption: 0.3 s


@dataclass(frozen=True)
class Verdict:
    """What is said of a model."""

    outcome: str
    text: str  # the outcome, the numbers and the next step, a line each
    # Of each rival: its CIDEr, as `cider_nearest`, by how much the model exceeds it, as `cider_over_nearest`, and why
    # they are missing; with the ends of their intervals, and those of the model's own `cider`.
    numbers: Mapping[str, float | str | None] = field(default_factory=dict)
    photos: Sequence[PhotoCard] = ()  # what the model that it started from said of them, and what it says

    def as_metrics(self) -> dict[str, float | str | None]:
        """Return the flat object for metrics.json."""
        return {"verdict": self.outcome, "verdict_text": self.text, **self.numbers}

    def as_markdown(self) -> str:
        """Return the text, the outcome in bold, with nothing else in it that is markup."""
        first, *others = map(plain, self.text.splitlines())
        return "\n\n".join([f"**{first}**", *others])


def judge_run(run: RunDir, prepared: PreparedRun, bundle: Bundle, split: str, captions: Sequence[str]) -> Verdict:
    """Judge the captions that the run's bundle has written of the images of a split, one an image.

    Where few are held out, some training images show degenerate output, too. Raises BundleError where the model that it
    started from is gone.
    """
    metrics, language = run.read_metrics(), prepared.language
    images = prepared.dataset.of(split, language)
    trained, said = _of_train(prepared, bundle) if len(images) < LEAST_IMAGES else ((), [])
    looked_at = " and ".join(["held-out"] * bool(captions) + ["training"] * bool(said)) + " images"
    signs = signs_of_degeneration(
        [*captions, *said], [image.captions for image in (*images, *trained)], looked_at, language
    )
    start_from = metrics.get("start_from")
    parent = load_captioner(Path(start_from) if start_from else SHIPPED, threads=1)
    is_shipped = not start_from or metrics.get("start_version") == SHIPPED
    called = "the shipped model" if is_shipped else f"the model that it started from ({parent.name})"
    if split == "train":
        unmeasured = "the model has learned from these images; evaluate with -p split dev"
        verdict, photos = judge([], [], {}, called, signs, unmeasured), []
    else:
        held_out = (
            f"{len(images) or 'none'} of {len(prepared.dataset.images)} images {'is' if len(images) < 2 else 'are'}"
        )
        unmeasured = f"{held_out} held out for {split}, and a verdict needs {LEAST_IMAGES}"
        shown = images or trained[: LEAST_IMAGES - 1]
        before = caption_photos(parent, [image.path for image in shown], called, language)
        texts = prepared.dataset.captions_of("train")[language]
        typical = by_agreement([texts[place] for place in evenly(TYPICAL_OF, len(texts))])[0]
        nearest = nearest_captions(prepared, split, language)
        rivals = {STARTED_FROM: before[: len(images)], NEAREST: nearest, CONSTANT: [typical] * len(images)}
        verdict = judge(captions, [image.captions for image in images], rivals, called, signs, unmeasured)
        photos = before_and_after(shown, before, [*captions, *said][: len(shown)])
    return replace(verdict, text=f"{verdict.text}\nNext: {_next_step(verdict, metrics, called)}.", photos=photos)


def before_and_after(images: Sequence[LabelledImage], before: Sequence[str], after: Sequence[str]) -> list[PhotoCard]:
    """Return cards of the images with the best, the median and the worst change in CIDEr; of few images, all."""
    people, labels = [image.captions for image in images], dict.fromkeys(range(len(images)), ("before", "after"))
    if len(images) >= LEAST_IMAGES:
        old, new = (one.per_image.get("cider", ()) for one in score_several([before, after], people, meteor=False))
        changes = [None if None in pair else pair[1] - pair[0] for pair in zip(old, new, strict=True)]
        labels = {
            place: (f"before: CIDEr {old[place]:.2f}", f"after: CIDEr {new[place]:.2f}, {title} change")
            for place, title in best_median_worst(changes, PHOTOS).items()
        }
    return [
        PhotoCard(images[at].path, list(map(CaptionLine, (before[at], after[at]), its)), references=people[at][:2])
        for at, its in labels.items()
    ]


def _of_train(prepared: PreparedRun, bundle: Bundle) -> tuple[Sequence[LabelledImage], list[str]]:
    """Return some training images and the bundle's captions of them."""
    manifest, language = bundle.manifest, prepared.language
    train = prepared.labelled_features("train", manifest.feature_kind, language)
    some = train.at(np.array(evenly(TRAIN_IMAGES, len(train))))
    captions, _ = caption_features(bundle, some, manifest.beam_width, manifest.max_words, progress=False)
    return some.images, best_of(captions)


def judge(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    rivals: Mapping[str, Sequence[str]],
    parent: str,
    signs: Sequence[str] = (),
    unmeasured: str = "",
) -> Verdict:
    """Judge captions of held-out images, one an image, against those of each of RIVALS; the text has no next step yet.

    `parent` is what the model started from, in words, `signs` are those of degenerate output, and `unmeasured` says why
    nothing can be said of fewer than LEAST_IMAGES.
    """
    scored = score_several([captions, *rivals.values()], references, meteor=False)
    images, intervals = scored[0].images, {}
    ours, *others = ([value for value in one.per_image.get("cider", ()) if value is not None] for one in scored)
    if ours:  # of two images or more
        intervals["cider"] = bootstrap_mean(ours)
        for name, theirs in zip(rivals, others, strict=True):
            intervals[f"cider_{name}"] = bootstrap_mean(theirs)
            intervals[f"cider_over_{name}"] = bootstrap_difference(ours, theirs)
    numbers: dict[str, float | str | None] = {}
    for name in ["cider"] * bool(ours) + [f"{first}_{rival}" for rival in RIVALS for first in ("cider", "cider_over")]:
        its = intervals.get(name)
        numbers |= its.as_metrics(name) if its else {name: None, f"{name}_reason": "needs two held-out images"}
    called = {STARTED_FROM: parent, NEAREST: "the nearest training image's caption", CONSTANT: "one caption for all"}
    apart = {name: its for name in rivals if (its := intervals.get(f"cider_over_{name}")) and its.tells_apart}
    below = [called[name] for name, its in apart.items() if its.value < 0]
    is_measured = images >= LEAST_IMAGES
    if signs:
        outcome, said = DEGENERATE, "; ".join(signs)
    elif not is_measured:
        outcome, said = NOT_MEASURED, unmeasured
    elif below:
        outcome, said = WORSE, f"below {' and '.join(below)}, by more than chance"
    elif STARTED_FROM in apart:
        outcome, said = BETTER, f"above {parent}, by more than chance, and below none"
    else:
        outcome, said = SAME, f"the difference to {parent} may be chance"
    lines = [f"{outcome.capitalize()}: {said}."]
    if signs and not is_measured:
        lines.append(f"Not measured against others: {unmeasured}.")
    if is_measured:
        lines.append(f"Its CIDEr on {images:,} held-out images (95 % interval) is {with_ends(intervals['cider'])}.")
        for name in rivals:
            its, over = with_ends(intervals[f"cider_{name}"]), with_ends(intervals[f"cider_over_{name}"], "+")
            lines.append(f"{called[name][0].upper()}{called[name][1:]} has {its}; the difference is {over}.")
    return Verdict(outcome, "\n".join(lines), numbers)


def _next_step(verdict: Verdict, metrics: Mapping[str, Any], parent: str) -> str:
    if metrics.get("contributions_new"):
        return "the gate (06_publish) decides whether it is published"
    if metrics.get("generated_data"):
        return f"{ADAPT} teaches the shipped model your photos; this one knows generated scenes alone"
    if verdict.outcome == BETTER:
        return f"lcm models publish {RUN_FOLDER} --promote"
    if verdict.outcome == NOT_MEASURED:
        return f"add photos; about one in ten is held out, so {15 * LEAST_IMAGES} are enough; until then, keep {parent}"
    if verdict.outcome == SAME:
        return f"keep {parent}, or add photos and train again"
    step = f"keep {parent}, add photos and train again"
    if verdict.outcome == WORSE and verdict.numbers[f"cider_over_{STARTED_FROM}"] >= 0:
        step = "look in 03_evaluate.html: if held-out photos are near copies of training ones, the nearest one wins"
    elif not metrics.get("start_from"):
        step = f"{ADAPT} goes on from the shipped model; training from scratch takes thousands of photos"
    return f"{step}. lcm models publish takes this one only with --force"
