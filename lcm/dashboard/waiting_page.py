"""The page of what waits for retraining: look, approve, revoke.

Knows the buttons of a contribution and what they do; a contribution goes for good only after a second click. Refuses to
know what makes a suspect.
"""

from html import escape
from pathlib import Path

import ipywidgets as widgets

from lcm.contributions.approvals import approve
from lcm.contributions.store import ContributionStore
from lcm.dashboard.parts import note, words_for
from lcm.dashboard.waiting import Pending, read_waiting
from lcm.errors import BadImageError
from lcm.evaluation.pages import thumbnail

SHOWN = 10  # contributions a page
RETRAIN = "lcm run --params retrain"
DEFAULT_REASON = "revoked on the dashboard"


class WaitingPage:
    """The widgets of what waits, in `view`; nothing is read before `draw`."""

    def __init__(self, runs: Path, store: ContributionStore | None = None):
        """Take the folder of the runs; without a store, the one of LCM_HOME is opened when it is needed."""
        self._runs, self._store, self._first = runs, store, 0
        self.summary, self.said, self.list = widgets.HTML(), widgets.HTML(), widgets.VBox()
        self.newer, self.older = widgets.Button(description="Earlier in the list"), widgets.Button(description="More")
        self.newer.on_click(lambda _: self._turn(-SHOWN))
        self.older.on_click(lambda _: self._turn(SHOWN))
        pages = widgets.HBox([self.newer, self.older]).add_class("buttons")
        self.view = widgets.VBox([self.summary, self.said, self.list, pages])

    @property
    def store(self) -> ContributionStore:
        """The store of contributions on this machine."""
        self._store = self._store or ContributionStore()
        return self._store

    def draw(self) -> None:
        """Read the store and show what waits, or why it cannot be read."""
        try:
            found = read_waiting(self.store, self._runs)
        except Exception as error:  # whatever it is, the page goes on
            self.summary.value, self.list.children = note(words_for(error), "bad"), ()
            return
        self._first = max(0, min(self._first, (len(found) - 1) // SHOWN * SHOWN))
        shown = found[self._first : self._first + SHOWN]
        self.summary.value = _summary(found)
        self.list.children = tuple(self._row(one) for one in shown)
        self.newer.layout.display = None if self._first else "none"
        self.older.layout.display = None if self._first + SHOWN < len(found) else "none"

    def approve(self, number: int, approved: bool) -> None:
        """Let a contribution pass, or not any more."""
        try:
            approve(self.store.folder, [number], approved=approved)
            text = f"Contribution {number} {'takes part in' if approved else 'is kept out of'} the next retraining."
            self.said.value = note(text, "good")
        except Exception as error:  # as above
            self.said.value = note(words_for(error), "bad")
        self.draw()

    def revoke(self, number: int, reason: str) -> None:
        """Take a contribution away for good."""
        try:
            self.store.revoke(number, reason.strip() or DEFAULT_REASON)
            self.said.value = note(f"Contribution {number} is revoked: image and caption are gone.", "good")
        except Exception as error:  # as above
            self.said.value = note(words_for(error), "bad")
        self.draw()

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
        reason = widgets.Text(description=f"Why is {number} revoked?", placeholder=DEFAULT_REASON)
        sure, keep = widgets.Button(description=f"Revoke {number} for good"), widgets.Button(description="Keep it")
        sure.button_style = "danger"
        sure.on_click(lambda _: self.revoke(number, reason.value))
        keep.on_click(lambda _: self.draw())
        buttons.children = (reason, sure, keep)

    def _card(self, one: Pending) -> str:
        its = one.contribution
        when = f"{its.received[:16].replace('T', ' ')} UTC"
        state = f"<p class='bad'>To be looked at: {escape(one.reason)}</p>" if one.is_suspect else ""
        state = (
            f"<p class='good'>Approved. It was odd: {escape(one.reason)}</p>" if one.approved and one.reason else state
        )
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
            return "<span class='bad'>the image cannot be read</span>"
        return f'<img alt="{escape(one.contribution.caption)}" src="data:image/jpeg;base64,{picture}">'


def _summary(found: list[Pending]) -> str:
    if not found:
        return "<p>Nothing waits: the current model has seen all contributions.</p>"
    suspects = sum(one.is_suspect for one in found)
    odd = f"; <b>{suspects}</b> of them a person should look at first" if suspects else ""
    return (
        f"<p><b>{len(found)}</b> contribution{'s' * (len(found) != 1)} wait for retraining{odd}. "
        f"Retrain with <code>{RETRAIN}</code>: what is approved here takes part.</p>"
    )
