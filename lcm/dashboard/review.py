"""The page "Review": captions of many photos, to accept, edit or reject by keys, those that the model is least sure of
first; and the contributions that the current model has not learned from, odd ones first.

desk.js draws the grid, knows the keys and says when the service is asked about which photo. Here its wishes are
fulfilled, from drafts (lcm.dashboard.drafts) and the contribution store: what takes long in threads, so that the page
answers meanwhile.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lcm.batch import as_record, whole_file
from lcm.captioning.description import UNSURE, Description
from lcm.contributions.store import Contribution, ContributionStore
from lcm.dashboard.client import MAX_PHOTO, ServiceClient, ServiceError
from lcm.dashboard.drafts import APPROVED, OPEN, SENT, UNDECIDED, Draft, Drafts
from lcm.dashboard.language import PAGE, SENTENCES, say
from lcm.dashboard.widgets import message_for
from lcm.data.files import list_images
from lcm.data.text import ENGLISH
from lcm.errors import DataError, LcmError
from lcm.evaluation.gallery import thumbnail
from lcm.paths import newest_first
from lcm.retraining.select import KEPT_OUT, QUARANTINED, SUSPECTS, current_parent

CONTRIBUTIONS = "contributions"  # what the grid may show beside the batches of drafts
THREADS = 4  # two more than photos that desk.js has the service asked about at once: pictures have their turn
SLOW = ("open", "picture", "describe", "send", "save")  # what they are for


@dataclass(frozen=True)
class Pending:
    """A contribution that the current model has not learned from."""

    contribution: Contribution
    reason: str = ""  # why a person should look at it; empty: nothing is odd

    @property
    def is_flagged(self) -> bool:
        return bool(self.reason) and not self.contribution.approved


def read_pending(store: ContributionStore, runs: Path) -> list[Pending]:
    """Return what the next retraining has to learn, what is kept out first, then the newest; `runs` is a folder."""
    current, quarantined = None, set()
    with suppress(LcmError, OSError):  # a current model that is damaged has seen nothing
        current = current_parent()
        quarantined = current.ids(QUARANTINED)
    reasons = latest_reasons(runs)
    found = [
        Pending(one, reasons.get(one.id, KEPT_OUT if one.id in quarantined else ""))
        for one in store.contributions()
        if not (current and current.has_seen(one)) or one.id in quarantined
    ]
    return sorted(found, key=lambda one: (not one.is_flagged, -one.contribution.id))


def latest_reasons(runs: Path) -> Mapping[int, str]:
    """Return number -> why it is odd, as the newest run that looked at contributions wrote it down."""
    files, found = newest_first(runs.glob(f"*/{SUSPECTS}")), {}
    with suppress(OSError):
        for line in files[0].read_bytes().split(b"\n") if files else ():
            with suppress(ValueError, KeyError, TypeError):  # a line that a run is just writing, cut anywhere
                record = json.loads(line)
                found[int(record["id"])] = str(record["reason"])
    return found


class Desk(anywidget.AnyWidget):
    """The grid with its keys. Lists and pictures come as messages, and what a person does goes back as one each."""

    _esm = Path(__file__).with_name("desk.js")
    limit = traitlets.Int(MAX_PHOTO).tag(sync=True)  # bytes of a photo that is dropped
    sentences = traitlets.Dict().tag(sync=True)  # English to what is said instead
    language = traitlets.Unicode(ENGLISH).tag(sync=True)  # of captions that are written here
    place = traitlets.Unicode().tag(sync=True)  # of the service
    unsure = traitlets.Float(UNSURE).tag(sync=True)  # confidence below which a caption is called so
    source = traitlets.Unicode().tag(sync=True)  # what is shown: a batch of drafts, or CONTRIBUTIONS


class ReviewPage:
    """The widgets of a review, in `view`; nothing is read before it is seen."""

    def __init__(self, client: ServiceClient, runs: Path, language: str = ENGLISH, source: str = ""):
        self._client, self._runs, self._language = client, runs, language
        self._threads = ThreadPoolExecutor(THREADS)
        told = {"sentences": SENTENCES[PAGE.language], "language": language, "place": client.place, "source": source}
        self.view = self.desk = Desk(**told)
        wishes = {"look": self.look, "open": self.open_folder, "drop": self.drop, "put": self.put, "save": self.save}
        wishes |= {"picture": self.send_picture, "describe": self.describe, "send": self.contribute}
        self._wishes = wishes | {"approve": self.approve, "revoke": self.revoke}
        self.desk.on_msg(self.receive)

    @cached_property
    def drafts(self) -> Drafts:
        return Drafts()

    @cached_property
    def store(self) -> ContributionStore:
        return ContributionStore()

    def receive(self, _widget: Any, wish: Mapping[str, Any], buffers: Sequence[memoryview]) -> None:
        work = partial(self._wishes[wish["do"]], *wish["with"], *map(bytes, buffers))
        if wish["do"] in SLOW:
            self._threads.submit(self._fulfil, work, wish)
        else:
            self._fulfil(work, wish)

    def _fulfil(self, work: Callable[[], object], wish: Mapping[str, Any]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the page stays usable
            self.desk.send({"failed": message_for(error), "wish": wish})

    # What the grid shows

    def look(self, source: str = "") -> None:
        """Send the list of a source; where none is named, of the newest drafts that wait, else of contributions."""
        waiting = self.drafts.waiting()
        source = source or next(iter(waiting), CONTRIBUTIONS)
        if source == CONTRIBUTIONS:
            items = [
                asdict(one.contribution) | {"state": APPROVED if one.contribution.approved else OPEN, "why": one.reason}
                for one in read_pending(self.store, self._runs)
            ]
        else:
            items = self.drafts.of(source)
        self.desk.send({"source": source, "waiting": {source: 0} | waiting, "items": items})

    def send_picture(self, source: str, number: int) -> None:
        if source == CONTRIBUTIONS:
            photo = self.store.read_image(self.store.get(number))
        else:
            photo = self.drafts.read_photo(self.drafts.get(number))
        self.desk.send({"picture": number, "of": source, "jpeg": thumbnail(photo)})

    def open_folder(self, folder: str) -> None:
        path = Path(folder.strip()).expanduser().resolve()
        if not folder.strip() or not path.is_dir():
            raise DataError(say("{folder} is no folder of this machine; give its whole path.", folder=repr(folder)))
        listing = list_images([path])
        problems = self.drafts.open_folder(str(path), listing.images)
        problems += [f"{name}: {why}" for name, why in listing.problems]
        self.look(str(path))
        self.desk.send({"opened": len(listing.images), "problems": problems, "folders": len(listing.sub_folders)})

    def drop(self, name: str, photo: bytes) -> None:
        self._changed(self.drafts.drop(name, photo))

    def _changed(self, draft: Draft, **more: Any) -> None:
        self.desk.send({"changed": draft} | more)

    # What a person decides

    def put(self, number: int, state: str, caption: str, by_person: bool, language: str) -> None:
        values = {"state": state, "caption": caption, "by_person": by_person, "language": language}
        self.drafts.change(number, **values)

    def approve(self, number: int, approved: bool) -> None:
        self.store.approve([number], approved=approved)

    def revoke(self, number: int, reason: str) -> None:
        self.store.revoke(number, reason.strip() or say("revoked on the dashboard"))
        self.desk.send({"revoked": number})

    # What the service is asked

    def describe(self, number: int) -> None:
        """Have a photo captioned, unless a person is faster."""

        def ask(draft: Draft) -> Draft:
            answer = self._client.describe(self.drafts.read_photo(draft), self._language)
            said = {name: getattr(answer, name) for name in ("caption", "language", "confidence", "model")}
            said |= {"by_person": answer.contributed, "tags": json.dumps(answer.tags)}
            self.drafts.change(number, UNDECIDED, **said)
            return {"asked": self._language}

        self._ask(number, ask)

    def contribute(self, number: int, contributor: str) -> None:
        """Have the service keep an approved photo, unless a person takes that back before."""

        def ask(draft: Draft) -> Draft:
            if draft["state"] != APPROVED:
                return {}
            sent = self.drafts.read_photo(draft), draft["caption"], contributor.strip(), draft["language"]
            self._client.contribute(*sent)
            return {"state": SENT}

        self._ask(number, ask)

    def _ask(self, number: int, ask: Callable[[Draft], Draft]) -> None:
        """Change a draft as the answer to a question has it; where no service is there, say so instead."""
        changed, away = {}, ""
        try:
            changed = ask(self.drafts.get(number))
        except Exception as error:  # of one photo; the others have their turn
            if isinstance(error, ServiceError) and not self._client.health().get("ready"):
                away = message_for(error)
            else:
                changed = {"trouble": message_for(error)}
        self._changed(self.drafts.change(number, **{"trouble": ""} | changed), answered=True, away=away)

    # Files

    def save(self, source: str, kind: str) -> None:
        """Write the approved captions: "xmp" as sidecars beside their photos, else as a file that the browser keeps."""
        approved = self.drafts.of(source, (APPROVED, SENT))
        if kind == "xmp":
            from lcm.metadata import Writer  # needs the extra photos

            writer, failures, files = Writer(embed=False), [], [one for one in approved if one["path"]]
            for one in files:
                try:
                    writer.write(one["path"], said_of(one))
                except DataError as error:
                    failures.append(str(error))
            self.desk.send({"sidecars": len(files), "dropped": len(approved) - len(files), "failures": failures})
        else:
            made = ("approved", "edited and approved")
            records = (as_record(one["path"] or one["name"], said_of(one)) for one in approved)
            rows = [row | {"settings": made[one["by_person"]]} for one, row in zip(approved, records, strict=True)]
            self.desk.send({"file": kind}, [whole_file(Path(kind), rows)])


def said_of(one: Draft) -> Description:
    """Return a draft as what is written of a photo; a person's caption has no confidence."""
    english = (one["caption"],) if one["language"] == ENGLISH else ()
    confidence = None if one["by_person"] else one["confidence"]
    tags = tuple((word, score) for word, score in one["tags"])
    return Description(one["caption"], english, tags, one["model"], confidence, language=one["language"])
