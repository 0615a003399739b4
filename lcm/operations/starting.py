"""The starting point: which model a retraining goes on from, and what that one has learned from already.

Knows that nobody's revoked contribution may live on in a model's weights. Refuses to know how models are trained.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from lcm import registry
from lcm.captioning.bundle import WEIGHTS, Manifest
from lcm.captioning.captioner import SHIPPED, current_folder, current_version, models_folder, version_folder
from lcm.config import PrepareConfig
from lcm.contributions.numbers import from_text
from lcm.data.text import Vocabulary
from lcm.errors import BundleError, ConfigError
from lcm.retraining.contributed import QUARANTINED, SEEN, TESTED, TRAINED

CURRENT = "current"


@dataclass(frozen=True)
class Start:
    """A model to go on from, or to be compared with."""

    version: str
    folder: Path
    manifest: Manifest
    passed_over: tuple[str, ...] = ()  # newer versions that learned from what is revoked by now

    @property
    def trained(self) -> set[int]:
        """The numbers of the contributions that the model has learned from."""
        return self._numbers(TRAINED)

    @property
    def tested(self) -> set[int]:
        """The numbers of the contributions that it was measured on."""
        return self._numbers(TESTED)

    @property
    def quarantined(self) -> set[int]:
        """The numbers of those that were kept out until a person has looked at them."""
        return self._numbers(QUARANTINED)

    @property
    def seen(self) -> set[int]:
        """The numbers of all that there were when it was trained, whatever became of them."""
        return self._numbers(SEEN)

    def _numbers(self, key: str) -> set[int]:
        return from_text(self.manifest.training_data.get(key, ""))

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that the model knows."""
        return Vocabulary.load(self.folder / "vocabulary.txt")

    def followed_by(self, config: PrepareConfig) -> PrepareConfig:
        """Return the parameters with the encoder and the features that the model was trained with."""
        return replace(config, encoder=self.manifest.encoder.name, features=self.manifest.feature_kind)


def current_start() -> Start:
    """Return the current version; raises BundleError when it is no bundle."""
    models = models_folder()
    folder = current_folder(models)  # a link may lead to somewhere else
    return Start(current_version(models), folder, Manifest.load(folder))


def find_start(start_from: str, present: Collection[int]) -> Start:
    """Return what to go on from: "current", or a bundle's folder.

    Instead of a current version that has learned from contributions that are not among those `present` any more, it is
    the nearest one before that has not: what was revoked must be gone. Raises BundleError for a folder that has, or
    whose bundle was exported without weights.
    """
    if start_from != CURRENT:
        folder = Path(start_from).expanduser().resolve()
        start = Start(folder.name, folder, Manifest.load(folder))
        if revoked := start.trained - set(present):
            raise BundleError(
                f"{folder} has learned from {len(revoked)} contributions that are revoked; start from another bundle, "
                "or from scratch with -p start_from ''"
            )
        return _with_weights(start)
    models, passed_over = models_folder(), []
    current = current_version(models)
    for version in (current, *registry.versions_before(registry.read_history(models), current), SHIPPED):
        folder = current_folder(models) if version == current else version_folder(models, version)
        try:
            start = Start(version, folder, Manifest.load(folder), tuple(passed_over))
        except BundleError:
            continue
        if start.trained <= set(present):
            return _with_weights(start)
        passed_over.append(version)
    raise ConfigError("there is no model to start from; train one from scratch with -p start_from ''")


def _with_weights(start: Start) -> Start:
    if not (start.folder / WEIGHTS).is_file():
        raise BundleError(
            f"{start.folder} cannot be trained further: it has no {WEIGHTS}; train from scratch with -p start_from '', "
            "or export it again with this version of lcm"
        )
    return start
