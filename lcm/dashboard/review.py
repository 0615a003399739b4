"""The page "Review": captions of many photos, to accept, edit or reject by keys, those that the model is least sure of
first; and the contributions that the current model has not learned from, odd ones first.

desk.js draws the grid, knows the keys and says when the service is asked about which photo. Here its wishes are
fulfilled, from drafts (lcm.dashboard.drafts) and the contribution store.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
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
THREADS = 4  # for what takes long: two more than questions that desk.js asks at once, so that pictures have their turn


def read_pending(store: ContributionStore, runs: Path) -> list[tuple[Contribution, str]]:
    """Return what the current model has not learned from, each with the reason why a person should look at it, if any.

    First what is kept out, then the newest; `runs` is a folder.
    """
    current, quarantined = None, set()
    with suppress(LcmError, OSError):  # a current model that is damaged has seen nothing
        current = current_parent()
        quarantined = current.ids(QUARANTINED)
    reasons = latest_reasons(runs)
    found = [
        (one, reasons.get(one.id, KEPT_OUT if one.id in quarantined else ""))
        for one in store.contributions()
        if not (current and current.has_seen(one)) or one.id in quarantined
    ]
    return sorted(found, key=lambda pair: (pair[0].approved or not pair[1], -pair[0].id))


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
    """The widget of a review, `view`; nothing is read before it is seen."""

    drafts = cached_property(lambda _self: Drafts())
    store = cached_property(lambda _self: ContributionStore())

    def __init__(self, client: ServiceClient, runs: Path, language: str = ENGLISH, source: str = ""):
        self._client, self._runs, self._language = client, runs, language
        self._threads = ThreadPoolExecutor(THREADS)
        told = {"sentences": SENTENCES[PAGE.language], "language": language, "place": client.place, "source": source}
        self.view = self.desk = Desk(**told)
        self._quick = {
            **{"look": self.look, "drop": self.drop, "put": self.put},
            "approve": lambda number, approved: self.store.approve([number], approved),
            "revoke": lambda number, reason: {"revoked": self.store.revoke(number, reason).id},
        }
        self._slow = {"open": self.open_folder, "picture": self.read_picture, "save": self.save}
        self._slow |= {"describe": partial(self._ask, self.describe), "send": partial(self._ask, self.contribute)}
        self.desk.on_msg(self.receive)

    def receive(self, _widget: Any, wish: Mapping[str, Any], buffers: Sequence[memoryview]) -> None:
        """Fulfil a wish, and send what there is to say of it with the wish itself."""
        slow = self._slow.get(wish["do"])
        work = partial(slow or self._quick[wish["do"]], *wish["with"], *map(bytes, buffers))
        self._threads.submit(self._fulfil, work, wish) if slow else self._fulfil(work, wish)

    def _fulfil(self, work: Callable[[], Mapping[str, Any] | None], wish: Mapping[str, Any]) -> None:
        try:
            said = work() or {}
        except Exception as error:  # whatever it is, the page stays usable
            said = {"failed": message_for(error)}
        self.desk.send({"wish": wish, **said})

    # Photos and contributions

    def look(self, source: str = "") -> dict[str, Any]:
        """Return the list of a source; where none is named, of the newest drafts that wait, else of contributions."""
        waiting = self.drafts.waiting()
        source = source or next(iter(waiting), CONTRIBUTIONS)
        if source == CONTRIBUTIONS:
            items = [
                asdict(one) | {"state": APPROVED if one.approved else OPEN, "why": reason}
                for one, reason in read_pending(self.store, self._runs)
            ]
        else:
            items = self.drafts.of(source)
        return {"source": source, "waiting": {source: 0} | waiting, "items": items}

    def open_folder(self, folder: str) -> dict[str, Any]:
        path = Path(folder.strip()).expanduser()
        if not (path.is_absolute() and path.is_dir()):
            raise DataError(say("{folder} is no folder of this machine; give its whole path.", folder=repr(folder)))
        listing = list_images([path])
        problems = self.drafts.open_folder(str(path), listing.images)
        problems += [f"{name}: {why}" for name, why in listing.problems]
        return self.look(str(path)) | {"problems": problems, "folders": len(listing.sub_folders)}

    def drop(self, name: str, photo: bytes) -> dict[str, Any]:
        return {"changed": self.drafts.drop(name, photo)}

    def put(self, number: int, state: str, caption: str, by_person: bool, language: str) -> None:
        self.drafts.change(number, state=state, caption=caption, by_person=by_person, language=language)

    def read_picture(self, source: str, number: int) -> dict[str, Any]:
        if source == CONTRIBUTIONS:
            photo = self.store.read_image(self.store.get(number))
        else:
            photo = self.drafts.read_photo(self.drafts.get(number))
        return {"jpeg": thumbnail(photo)}

    # The service

    def describe(self, draft: Draft) -> Draft:
        """Have a photo captioned, unless a person is faster; returns what changes in any case."""
        answer = self._client.describe(self.drafts.read_photo(draft), self._language)
        said = {name: getattr(answer, name) for name in ("caption", "language", "confidence", "model")}
        said |= {"by_person": answer.contributed, "tags": json.dumps(answer.tags)}
        self.drafts.change(draft["id"], UNDECIDED, **said)
        return {"asked": self._language}

    def contribute(self, draft: Draft, contributor: str) -> Draft:
        """Have the service keep an approved photo, unless a person has taken that back; returns what changes."""
        if draft["state"] != APPROVED:
            return {}
        photo = self.drafts.read_photo(draft)
        self._client.contribute(photo, draft["caption"], contributor.strip(), draft["language"])
        return {"state": SENT}

    def _ask(self, ask: Callable[..., Draft], number: int, *more: str) -> dict[str, Any]:
        """Return a draft as the service's answer changes it; where no service is there, say so instead."""
        changed, away = {"trouble": ""}, ""
        try:
            changed |= ask(self.drafts.get(number), *more)
        except Exception as error:  # of one photo; the others have their turn
            if isinstance(error, ServiceError) and not self._client.health().get("ready"):
                away = message_for(error)
            else:
                changed = {"trouble": message_for(error)}
        return {"changed": self.drafts.change(number, **changed), "away": away}

    # Files

    def save(self, source: str, kind: str) -> dict[str, Any]:
        """Write the approved captions: "xmp" as sidecars beside their photos, else as a file that the browser keeps."""
        approved = self.drafts.of(source, (APPROVED, SENT))
        if kind != "xmp":
            made = ("approved", "edited and approved")
            records = (as_record(one["path"] or one["name"], said_of(one)) for one in approved)
            rows = [row | {"settings": made[one["by_person"]]} for one, row in zip(approved, records, strict=True)]
            return {"file": kind, "text": whole_file(Path(kind), rows).decode()}
        from lcm.metadata import Writer  # needs the extra photos

        writer, failures, files = Writer(embed=False), [], [one for one in approved if one["path"]]
        for one in files:
            try:
                writer.write(one["path"], said_of(one))
            except DataError as error:
                failures.append(str(error))
        return {"sidecars": len(files) - len(failures), "dropped": len(approved) - len(files), "failures": failures}


def said_of(one: Draft) -> Description:
    """Return a draft as what is written of a photo; a person's caption has no confidence."""
    english = (one["caption"],) if one["language"] == ENGLISH else ()
    confidence, tags = None if one["by_person"] else one["confidence"], tuple(map(tuple, one["tags"]))
    return Description(one["caption"], english, tags, one["model"], confidence, language=one["language"])
