"""What the routes work with: model, store with its mirror, and the two pools that bound the work.

Knows how a body becomes an answer or a stored contribution, and what of it is bounded by what. Refuses to know HTTP.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, Self

from lcm.captioning.description import Captioner, Description
from lcm.errors import BadImageError, LcmError
from lcm.service.learning import Learner, open_learner
from lcm.service.model_watch import Model, ModelWatch, check_tagger, earlier_bundles, find_bundle, load_model
from lcm.service.payload import read_contribution, read_question
from lcm.service.pool import Pool
from lcm.service.refusals import BrokenAnswerError
from lcm.service.settings import Settings


class Kept(Protocol):
    """What a store says of a contribution."""

    id: int
    known: bool  # the same image with the same caption was there already


class Store(Protocol):
    """Where contributions go."""

    def add(self, image: bytes, caption: str, language: str = "en", source: str = "http") -> Kept:
        """Keep a pair; returns when it is durable.

        Raises BadImageError and DataError for what cannot be kept, StoreError when nothing can be kept just now.
        """
        ...


class MirroredStore:
    """The contribution store of the state folder, with its mirror where the settings name one."""

    def __init__(self, settings: Settings):
        """Open the store and start the mirror; raises ConfigError for a bad LCM_STORE_URL, StoreError for the store."""
        from lcm.contributions.mirror import open_mirror
        from lcm.contributions.store import ContributionStore

        self.contributions = ContributionStore(settings.home / "contributions", outbox=bool(settings.store_url))
        self._mirror = open_mirror(settings.store_url, self.contributions, self.contributions.folder)
        if self._mirror:
            self._mirror.start()

    def add(self, image: bytes, caption: str, language: str = "en", source: str = "http") -> Kept:
        """Keep a pair, and let the mirror know."""
        kept = self.contributions.add(image, caption, language, source)
        if self._mirror and not kept.known:
            self._mirror.wake()
        return kept

    def close(self) -> None:
        """End the mirror's thread; what it has not copied it copies after the next start."""
        if self._mirror:
            self._mirror.stop()


@dataclass(frozen=True)
class Service:
    """All that is shared by the requests of one process."""

    settings: Settings
    watch: ModelWatch
    store: Store
    predictions: Pool
    intake: Pool  # of contributions: apart, so that they need not wait for predictions
    learner: Learner | None = None  # None: contributed captions are not given back
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def assemble(cls, settings: Settings, captioner: Captioner | None, store: Store | None) -> Self:
        """Return the service with what is given, and with what the settings name for the rest.

        Raises ConfigError for an unknown tagger, ConfigError and StoreError when the store cannot be opened; a model
        that cannot be loaded is waited for.
        """
        check_tagger(settings.tagger)
        store = store or MirroredStore(settings)
        pool: Callable[[], Pool] = partial(Pool, settings.predictions, settings.queue, settings.time_limit_s)
        if captioner:
            watch = ModelWatch.of(captioner)
        else:
            load, folder, earlier = (partial(one, settings) for one in (load_model, find_bundle, earlier_bundles))
            watch = ModelWatch(load, folder, earlier)
            watch.start()
        reader = store.contributions if isinstance(store, MirroredStore) else store
        return cls(settings, watch, store, pool(), pool(), open_learner(settings, watch, reader))

    def describe(self, body: bytes) -> tuple[Description, Model]:
        """Return the description that a request's body asks for, and which model gave it.

        Raises BrokenAnswerError for whatever error of lcm the model meets that is not about the image.
        """
        model = self.watch.require()

        def answer() -> Description:
            question = read_question(body, self.settings.max_image)
            try:
                describe = self.learner.describe if self.learner else _describe
                return describe(model.captioner, question.image, question.samples, question.labels)
            except BadImageError:
                raise
            except LcmError as error:  # such as a DataError about the word vectors: not what the client did
                raise BrokenAnswerError(str(error)) from error

        return self.predictions.run(answer), model

    def keep(self, body: bytes, source: str = "http") -> Kept:
        """Store the contribution that a request's body holds; the store decodes its image, which bounds how many."""
        with self.intake.place():
            sent = read_contribution(body, self.settings.max_image)
            kept = self.store.add(sent.image, sent.caption, sent.language, source)
            if self.learner:
                self.learner.learn(sent.image)
            return kept

    def health(self) -> dict[str, Any]:
        """Return what GET /healthz says."""
        model = self.watch.model
        problem = {"problem": self.watch.problem} if self.watch.problem else {}
        return {
            "ready": model is not None,
            "model": model.captioner.name if model else None,
            "version": model.version if model else None,
            "uptime_s": round(time.monotonic() - self.started, 3),
        } | problem

    def close(self) -> None:
        """End the threads that outlive a request."""
        self.watch.stop()
        if self.learner:
            self.learner.stop()
        if isinstance(self.store, MirroredStore):
            self.store.close()


def _describe(captioner: Captioner, image: bytes, samples: int, labels: tuple[str, ...] | None) -> Description:
    return captioner.describe(image, samples, labels)
