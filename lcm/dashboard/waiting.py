"""What waits: contributions that the current model has not learned from, and those that a person should look at first.

Knows how store, current model, the latest retraining's suspects and the approvals add up to one list, and the buttons
of a contribution, which goes for good only after a second click. Refuses to know what makes a suspect; trains nothing.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import ipywidgets as widgets

from lcm.contributions.approvals import approve, read_approved
from lcm.contributions.reader import StoreReader
from lcm.contributions.records import Contribution
from lcm.contributions.store import ContributionStore
from lcm.dashboard.desk import Desk
from lcm.dashboard.parts import WHOLE, note, words_for
from lcm.errors import BadImageError, LcmError
from lcm.evaluation.gallery import thumbnail
from lcm.operations.retraining import KEPT_OUT, SUSPECTS
from lcm.operations.starting import current_start
from lcm.paths import newest_first

SHOWN = 10  # contributions a page
DEFAULT_REASON = "revoked on the dashboard"


@dataclass(frozen=True)
class Pending:
    """A contribution that the current model has not learned from."""

    contribution: Contribution
    reason: str = ""  # why a person should look at it; empty: nothing is odd
    approved: bool = False  # a person let it pass

    @property
    def is_suspect(self) -> bool:
        """Whether it is kept out until somebody approves it."""
        return bool(self.reason) and not self.approved


def read_waiting(store: StoreReader, runs: Path) -> list[Pending]:
    """Return what waits for the next retraining: suspects first, then the newest.

    `runs` is the folder of the runs. Raises StoreError when the store cannot be read.
    """
    seen, quarantined = _known()
    approved, reasons = read_approved(store.folder), latest_suspects(runs)
    found = []
    for one in store.contributions():
        reason = reasons.get(one.id, KEPT_OUT if one.id in quarantined else "")
        if one.usable and (one.id not in seen or one.id in quarantined):
            found.append(Pending(one, reason, one.id in approved))
    return sorted(found, key=lambda one: (not one.is_suspect, -one.contribution.id))


def _known() -> tuple[set[int], set[int]]:
    """Return the numbers that the current model has seen, and those that it kept out; none when it is damaged."""
    with suppress(LcmError, OSError):
        current = current_start()
        return current.seen, current.quarantined
    return set(), set()


def latest_suspects(runs: Path) -> Mapping[int, str]:
    """Return number -> reason as the newest run that looked at contributions has left them."""
    files, found = newest_first(runs.glob(f"*/{SUSPECTS}")), {}
    with suppress(OSError):
        for line in files[0].read_bytes().split(b"\n") if files else ():
            with suppress(ValueError, KeyError, TypeError):  # a line that a run is just writing, cut anywhere
                record = json.loads(line)
                found[int(record["id"])] = str(record["reason"])
    return found


class WaitingPage:
    """The widgets of what waits, in `view`; nothing is read before `draw`."""

    def __init__(self, desk: Callable[[], Desk], runs: Path):
        """Take how to find who keeps corrections, and the folder of the runs."""
        self._desk, self._runs, self._first = desk, runs, 0
        self.summary, self.said, self.list = widgets.HTML(), widgets.HTML(), widgets.VBox()
        self.back, self.more = widgets.Button(description="Back"), widgets.Button(description="More")
        self.back.on_click(lambda _: self._turn(-SHOWN))
        self.more.on_click(lambda _: self._turn(SHOWN))
        pages = widgets.HBox([self.back, self.more]).add_class("buttons")
        self.view = widgets.VBox([self.summary, self.said, self.list, pages])

    @cached_property
    def store(self) -> ContributionStore:
        """The store of contributions on this machine, opened when it is needed."""
        return ContributionStore()

    def draw(self) -> None:
        """Read the store and show what waits, or why it cannot be read."""
        try:
            found, where = read_waiting(self.store, self._runs), self._desk().kept_elsewhere
            self._first = max(0, min(self._first, (len(found) - 1) // SHOWN * SHOWN))
            rows = tuple(self._row(one) for one in found[self._first : self._first + SHOWN])
        except Exception as error:  # whatever it is, the page goes on
            self.summary.value, self.list.children = note(words_for(error), "bad"), ()
            return
        self.summary.value, self.list.children = _summary(found) + note(where), rows
        self.back.layout.display = None if self._first else "none"
        self.more.layout.display = None if self._first + SHOWN < len(found) else "none"

    def approve(self, number: int, approved: bool) -> None:
        """Let a contribution pass, or not any more."""
        text = f"Contribution {number} {'takes part in' if approved else 'is kept out of'} the next retraining."
        self._do(lambda: approve(self.store.folder, [number], approved=approved), text)

    def revoke(self, number: int, reason: str) -> None:
        """Take a contribution away for good."""
        text = f"Contribution {number} is revoked: image and caption are gone."
        self._do(lambda: self.store.revoke(number, reason.strip() or DEFAULT_REASON), text)

    def _do(self, work: Callable[[], object], text: str) -> None:
        """Do something, draw the list as it is then, and only then say what was done, or why it was not."""
        try:
            work()
            said = note(text, "good")
        except Exception as error:  # as above
            said = note(words_for(error), "bad")
        self.draw()
        self.said.value = said

    def _turn(self, by: int) -> None:
        self._first += by
        self.draw()

    def _row(self, one: Pending) -> widgets.Widget:
        number = one.contribution.id
        buttons = widgets.HBox().add_class("buttons")
        ask = widgets.Button(description=f"Revoke {number} …", button_style="danger")
        ask.on_click(lambda _: self._ask(buttons, number))
        buttons.children = (*self._approval(one), ask)
        return widgets.VBox([widgets.HTML(self._card(one)), buttons]).add_class("pending-row")

    def _approval(self, one: Pending) -> list[widgets.Widget]:
        """Return the button of a suspect; what is not odd needs no approval."""
        if not one.reason:
            return []
        button = widgets.Button(description=f"{'Do not approve' if one.approved else 'Approve'} {one.contribution.id}")
        button.on_click(lambda _: self.approve(one.contribution.id, not one.approved))
        return [button]

    def _ask(self, buttons: widgets.HBox, number: int) -> None:
        """Ask once more before a contribution goes."""
        reason = widgets.Text(description=f"Why is {number} revoked?", placeholder=DEFAULT_REASON, **WHOLE)
        sure, keep = widgets.Button(description=f"Revoke {number} for good"), widgets.Button(description="Keep it")
        sure.button_style = "danger"
        sure.on_click(lambda _: self.revoke(number, reason.value))
        keep.on_click(lambda _: self.draw())
        buttons.children = (reason, sure, keep)

    def _card(self, one: Pending) -> str:
        its = one.contribution
        when = f"{its.received[:16].replace('T', ' ')} UTC"
        kind, words = ("bad", "To be looked at") if one.is_suspect else ("good", "Approved. It was odd")
        state = f'<p class="{kind}">{words}: {escape(one.reason)}</p>' if one.reason else ""
        return (
            f'<div class="pending">{self._picture(one)}<div><p><b>{escape(its.caption)}</b></p>{state}'
            f'<p class="quiet">{its.id} · {escape(when)} · {escape(its.source)} · {escape(its.language)}</p>'
            "</div></div>"
        )

    def _picture(self, one: Pending) -> str:
        data = self.store.read_image(one.contribution)
        try:
            picture = thumbnail(data or b"")
        except BadImageError:
            return '<span class="bad">The image cannot be read.</span>'
        return f'<img alt="{escape(one.contribution.caption)}" src="data:image/jpeg;base64,{picture}">'


def _summary(found: list[Pending]) -> str:
    if not found:
        return "<p>Nothing waits: the current model has seen all contributions.</p>"
    suspects = sum(one.is_suspect for one in found)
    many = "contributions wait" if len(found) > 1 else "contribution waits"
    odd = f"; <b>{suspects}</b> of them a person should look at first" if suspects else ""
    return (
        f"<p><b>{len(found)}</b> {many} for retraining{odd}. "
        "Retrain with <code>lcm run --params retrain</code>: what is approved here takes part.</p>"
    )
