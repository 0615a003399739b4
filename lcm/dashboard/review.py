"""The page of contributions: those that the current model has not learned from, odd ones first, to approve or revoke.

A contribution is revoked for good only after a second click.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import ipywidgets as widgets

from lcm.contributions.store import Contribution, ContributionStore
from lcm.dashboard.client import ServiceClient
from lcm.dashboard.language import name_of, say
from lcm.dashboard.widgets import SENT_ON_LEAVING, error_note, image, note
from lcm.errors import LcmError
from lcm.evaluation.gallery import thumbnail
from lcm.paths import newest_first
from lcm.retraining.select import KEPT_OUT, QUARANTINED, SUSPECTS, current_parent

PAGE_SIZE = 10  # contributions that are shown at first, and then more


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


class ReviewPage:
    """The widgets of contributions, in `view`; nothing is read before `draw`."""

    def __init__(self, client: ServiceClient, runs: Path):
        self._runs, self._shown = runs, PAGE_SIZE
        self._where = say(
            "These are the contributions in this machine's folder LCM_HOME. Corrections go to the service at {place}; "
            "if it keeps them in another folder or on another machine, they are approved and revoked there.",
            place=client.place,
        )
        self.summary, self.said, self.list = widgets.HTML(), widgets.HTML(), widgets.VBox()
        self.more = widgets.Button(description=say("Show more"))
        self.more.on_click(lambda _: self.draw(PAGE_SIZE))
        self.view = widgets.VBox([self.summary, self.said, self.list, self.more])

    @cached_property
    def store(self) -> ContributionStore:
        return ContributionStore()

    def draw(self, more: int = 0) -> None:
        """Read the store and show what is pending, so many more than before, or why it cannot be read."""
        self._shown += more
        try:
            found = read_pending(self.store, self._runs)
            rows = tuple(self._row(one) for one in found[: self._shown])
        except Exception as error:  # whatever it is, the page stays usable
            self.summary.value, self.list.children = error_note(error), ()
            return
        summary = f"<p>{say('Nothing waits: the current model has seen all contributions.')}</p>"
        if found:
            counts = say("Contributions that wait for retraining: {count}. To be looked at first: {flagged}.")
            shown = counts.format(count=len(found), flagged=sum(one.is_flagged for one in found))
            retrain = say("Retrain with <code>lcm run --params retrain</code>: what is approved here takes part.")
            summary = f"<p><b>{shown}</b> {retrain}</p>"
        self.summary.value, self.list.children = summary + note(self._where), rows
        self.more.layout.display = None if self._shown < len(found) else "none"

    def approve(self, number: int, approved: bool) -> None:
        takes_part = say("Contribution {number} takes part in the next retraining.")
        said = takes_part if approved else say("Contribution {number} is kept out of the next retraining.")
        self._do(lambda: self.store.approve([number], approved=approved), said.format(number=number))

    def revoke(self, number: int, reason: str) -> None:
        said = say("Contribution {number} is revoked: image and caption are gone.", number=number)
        self._do(lambda: self.store.revoke(number, reason), said)

    def _do(self, work: Callable[[], object], text: str) -> None:
        """Do something, draw the list as it is then, and only then say what was done, or why it was not."""
        try:
            work()
            said = note(text, "good")
        except Exception as error:  # as above
            said = error_note(error)
        self.draw()
        self.said.value = said

    def _row(self, one: Pending) -> widgets.Widget:
        number, buttons = one.contribution.id, widgets.HBox().add_class("buttons")
        revoke = widgets.Button(description=say("Revoke {number} …", number=number), button_style="danger")
        revoke.on_click(lambda _: self._confirm(buttons, number))
        buttons.children = [revoke]
        if one.reason:  # what is not odd needs no approval
            words = say("Do not approve {number}") if one.contribution.approved else say("Approve {number}")
            change = widgets.Button(description=words.format(number=number))
            change.on_click(lambda _: self.approve(number, not one.contribution.approved))
            buttons.children = [change, revoke]
        return widgets.VBox([widgets.HTML(self._card(one)), buttons]).add_class("pending-row")

    def _confirm(self, buttons: widgets.HBox, number: int) -> None:
        """Ask for the reason and a second click in the place of the buttons."""
        why, usual = say("Why is {number} revoked?", number=number), say("revoked on the dashboard")
        reason = widgets.Text(description=why, placeholder=usual, **SENT_ON_LEAVING)
        revoke = widgets.Button(description=say("Revoke {number} for good", number=number), button_style="danger")
        keep = widgets.Button(description=say("Keep it"))
        revoke.on_click(lambda _: self.revoke(number, reason.value.strip() or usual))
        keep.on_click(lambda _: self.draw())
        buttons.children = [reason, revoke, keep]

    def _card(self, one: Pending) -> str:
        its = one.contribution
        when = f"{its.received[:16].replace('T', ' ')} UTC"
        kind, words = ("bad", say("To be looked at:")) if one.is_flagged else ("good", say("Approved. It was odd:"))
        state = f'<p class="{kind}">{words} {escape(one.reason)}</p>' if one.reason else ""
        try:
            picture = image(thumbnail(self.store.read_image(its)), its.caption)
        except LcmError as error:  # the others are shown
            unread = say("The image cannot be read: {error}", error=error)
            picture = f'<span class="bad">{escape(unread)}</span>'
        return (
            f'<div class="pending">{picture}<div><p><b>{escape(its.caption)}</b></p>{state}'
            f'<p class="quiet">{its.id} · {escape(when)} · {escape(its.source)} · {escape(name_of(its.language))}</p>'
            "</div></div>"
        )
