"""What the routes work with: the model, the store with its mirror, corrections, and bounds on work at once."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import BoundedSemaphore
from typing import Any, TypeVar

from werkzeug.datastructures import Accept

from lcm.captioning.description import Captioner, Description
from lcm.captioning.tagging import tag_request
from lcm.captioning.translation import load_translator
from lcm.contributions.mirror import Mirror, open_target
from lcm.contributions.store import Contribution, ContributionStore
from lcm.contributions.text import language_of
from lcm.errors import BadImageError, ConfigError, LcmError
from lcm.service.model_loader import Model, ModelLoader
from lcm.service.recall import Recall
from lcm.service.schemas import ContributionRequest, DescribeRequest, RefusedError, Wish
from lcm.service.settings import Settings

Result = TypeVar("Result")


class BoundedWork:
    """At most `running` tasks at once, each in a thread, and `waiting` behind them."""

    def __init__(self, running: int, waiting: int, limit_s: float):
        self._places, self._limit_s = BoundedSemaphore(running + waiting), limit_s
        self._threads = ThreadPoolExecutor(running, "lcm-work")

    def run(self, task: Callable[[], Result], *, to_the_end: bool = False) -> Result:
        """Return what `task()` returns; raises RefusedError when there is no place or no time left for it."""
        if not self._places.acquire(blocking=False):
            message = "the service has as much to do as it takes on; send the request again a little later"
            raise RefusedError(429, message, 1)
        future = self._threads.submit(task)
        future.add_done_callback(lambda _: self._places.release())
        if not wait([future], self._limit_s).done:
            if future.cancel():
                raise RefusedError(503, "the service had no time for this request; send it again a little later", 5)
            if not to_the_end:  # it holds its thread and its place until it is done
                message = "the answer took longer than the time limit; send the request again later"
                raise RefusedError(504, message, 5)
        try:
            return future.result()
        finally:
            del future  # else error, traceback and future hold each other, and an image of 20 MB with them

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Engine:
    """All that is shared by the requests of a service."""

    def __init__(self, settings: Settings, captioner: Captioner | None = None, store: ContributionStore | None = None):
        """Take what is given, and what the settings name for the rest; a model that cannot be loaded is waited for."""
        load_translator(settings.translator)
        self._language = settings.language
        self._max_image, self._started = settings.max_image_mb << 20, time.monotonic()
        self.models = ModelLoader(settings, captioner)
        self.store = store or ContributionStore(settings.home / "contributions")
        self._mirror = Mirror(self.store, open_target(settings.store_url)) if settings.store_url else None
        # Contributions have places of their own, so that they need not wait for predictions.
        self._predictions, self._intake = (
            BoundedWork(settings.predictions, settings.queue, settings.time_limit_s) for _ in range(2)
        )
        self._recall = Recall(self.models, self.store) if settings.memory else None
        for part in (self._mirror, self.models, self._recall):
            if part:
                part.start()

    def describe(self, body: bytes, accepted: Accept) -> tuple[Description, Model, list[int], str]:
        """Return what a body and Accept-Language ask for, the model, numbers of unreadable labels, and the style."""
        model = self.models.require()
        captioner = model.captioner

        def answer() -> tuple[Description, Model, list[int], str]:
            asked = DescribeRequest.read(body, self._max_image)
            wish, scored = Wish(asked.language, accepted, self._language), (asked.scores, asked.min_score)
            try:
                tag_request(captioner.tag_scorer, asked.labels, *scored)
            except ConfigError as error:
                raise RefusedError(400, str(error)) from None
            try:
                language = wish.choose(captioner.offered) or captioner.translated_from
                if self._recall:
                    description = self._recall.describe(captioner, asked, language, wish)
                else:
                    description = captioner.describe(asked.image, asked.samples, asked.labels, language, *scored)
                unread = [at for at, one in enumerate(asked.labels or [], 1) if captioner.unknown_labels([one])]
            except BadImageError:
                raise
            except LcmError as error:  # such as a DataError about the word vectors: not the client's mistake
                raise LcmError(str(error)) from error
            return description, model, unread, asked.style

        return self._predictions.run(answer)

    def contribute(self, body: bytes, contributor: str = "") -> Contribution:
        """Store what a request's body holds, durably; the name in its header, if any, comes before one in the body."""

        def store() -> Contribution:
            sent = ContributionRequest.read(body, self._max_image)
            name = contributor or sent.contributor
            source = f"http:{name}" if name else "http"
            written = self.models.model.captioner.languages if self.models.model else ()
            language = language_of(sent.caption, sent.language, self._language, written)
            stored = self.store.add(sent.image, sent.caption, language, source)
            if self._mirror and not stored.known:
                self._mirror.wake()
            if self._recall:
                self._recall.learn(sent.image)
            return stored

        return self._intake.run(store, to_the_end=True)

    def health(self) -> dict[str, Any]:
        model = self.models.model
        problem = {"problem": self.models.problem} if self.models.problem else {}
        return {
            "ready": model is not None,
            "model": model.captioner.name if model else None,
            "version": model.version if model else None,
            "runs_on": model.captioner.runs_on if model else "",
            "languages": list(model.captioner.offered) if model else [],
            "uptime_s": round(time.monotonic() - self._started, 3),
        } | problem

    def close(self) -> None:
        for part in (self._predictions, self._intake):
            part.close()
        for part in (self.models, self._recall, self._mirror):
            if part:
                part.stop()
