"""Many images at once: each description is written down as it comes, and a run goes on where another stopped.

Knows which images lack a row, in which order they go to the captioner, and that a bad one stops nothing. Refuses to
know how rows lie in a file and what is printed.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from lcm.captioning.captioners import PART as TOGETHER  # the last bits of a score may depend on the company
from lcm.captioning.describing import SAMPLES, Captioner
from lcm.data.files import shorten
from lcm.errors import BadImageError, ConfigError
from lcm.operations.answers import AnswerFile, escape

FAILURES_SHOWN = 20


@dataclass
class Failures:
    """Images without a description: how many, and why the first of them have none."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, path: str, reason: object) -> None:
        """Note a path and why it has no description."""
        self.count += 1
        if len(self.shown) < FAILURES_SHOWN:
            name = path.rpartition("/")[2]
            self.shown.append(f"{escape(path)}: {str(reason).removeprefix(f'{name!r}: ')}")

    def __str__(self) -> str:
        more = [f"and {self.count - len(self.shown)} more"] * (self.count > len(self.shown))
        return "\n".join([f"not captioned: {self.count}", *(f"  {line}" for line in self.shown + more)])


def settings_of(captioner: Captioner, samples: int, labels: Sequence[str] | None) -> str:
    """Return, short and readable, what answers depend on beside image and model."""
    scorer = captioner.tag_scorer
    parts = [f"samples {samples}", f"tagger {scorer.name if scorer else 'none'}"]
    if labels is not None:
        digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
        parts.append(f"labels {digest[:8]} ({len(labels)})")
    return ", ".join(parts)


def check_labels(captioner: Captioner, labels: Sequence[str]) -> str:
    """Return a note on the labels that the tag scorer does not know, empty when it knows all.

    Raises ConfigError when it knows none.
    """
    if captioner.tag_scorer is None:
        raise ConfigError(f"{captioner.name} has no tagger that could score labels; leave them out, or name a tagger")
    unknown = captioner.unknown_labels(labels)
    if not unknown:
        return ""
    named = f"the tagger {captioner.tag_scorer.name} does not know {shorten(unknown)}"
    if len(unknown) == len(labels):
        raise ConfigError(f"{named}: none of the {len(labels)} labels; use other words, or another tagger")
    return f"{named}; {len(labels) - len(unknown)} of the {len(labels)} labels are scored"


def write_answers(
    captioner: Captioner,
    images: Sequence[str],
    answers: AnswerFile,
    failures: Failures,
    samples: int = SAMPLES,
    labels: Sequence[str] | None = None,
) -> int:
    """Describe the images that have no row yet, with a progress bar; returns how many rows were added.

    `answers` is open, and made with the `settings_of` the same samples and labels.
    """
    there = sum(image in answers.done for image in images)
    rows = len(answers.done)
    with tqdm(total=len(images), initial=there, unit=" images", desc="caption", mininterval=1) as progress:
        for part in _parts(images, answers.done):
            for image, answer in captioner.describe_many(part, samples, labels, workers=0):
                if image in answers.done:
                    continue
                if isinstance(answer, BadImageError):
                    failures.add(image, answer)
                else:
                    answers.append(image, answer)
                progress.update()
    return len(answers.done) - rows


def _parts(images: Sequence[str], done: Collection[str]) -> Iterator[Sequence[str]]:
    """Yield the images to describe: those left behind, then from where a run was stopped.

    That is from the beginning of those that were described together, some of them anew: so each is described in the
    company it would have had without the stop, and gets the same answer to the last digit.
    """
    last = next((place for place in range(len(images) - 1, -1, -1) if images[place] in done), -1)
    start = (last + 1) // TOGETHER * TOGETHER
    behind = [image for image in images[:start] if image not in done]
    if behind:
        yield behind
    if any(image not in done for image in images[start:]):
        yield images[start:]
