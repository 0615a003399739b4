"""The page of a photo: what the model says of it, where it looked, and the caption as it should be.

Knows the order of things: a photo comes, an answer is shown, a correction is sent, and the photo is asked about again.
Refuses to know how the desk answers and how the parts read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets

from lcm.dashboard.desk import Answer, Desk, check_photo
from lcm.dashboard.looking import glances
from lcm.dashboard.parts import answer_card, glance_grid, note, words_for
from lcm.dashboard.photo_drop import PhotoDrop

ASK_TO_LOOK = "Show where the model looked"


class PhotoPage:
    """The widgets of a photo, in `view`."""

    def __init__(self, desk: Desk, examples: Sequence[Path] = ()):
        """Take who answers, and the photos to try."""
        self._desk = desk
        self._name, self._photo, self._answer = "", b"", None
        self.drop = PhotoDrop(self.take, examples)
        self.answer, self.look_result, self.sent = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.look = widgets.Button(description=ASK_TO_LOOK)
        self.caption = widgets.Textarea(description="The caption as it should be", rows=3)
        self.contributor = widgets.Text(description="Your name, if you like")
        self.send = widgets.Button(description="Send the caption", button_style="primary")
        self.look.on_click(lambda _: self.show_look())
        self.send.on_click(lambda _: self.contribute())
        self._shown = widgets.VBox(
            [
                self.answer,
                self.look,
                self.look_result,
                widgets.HTML(
                    "<h2>Is the caption wrong?</h2><p>What you send is kept, and is the answer from now on.</p>"
                ),
                self.caption,
                self.contributor,
                self.send,
                self.sent,
            ]
        )
        self.view = widgets.VBox([self.drop, self._shown])
        self._hide()

    def take(self, name: str, photo: bytes) -> None:
        """Ask about a photo and show what is said of it, or why nothing is."""
        self._hide()
        self.drop.say(f"Asking about {name} …")
        if (answer := self._try(lambda: self._desk.describe(check_photo(photo)), name)) is None:
            return
        self._name, self._photo = name, photo
        self._show(answer)
        self.drop.say(f"{name}: {answer.caption or 'an empty caption'}")

    def contribute(self) -> None:
        """Send the caption as it should be, then ask again: the answer is the new caption."""
        caption = self.caption.value.strip()
        if not caption:
            self.sent.value = note("Write a caption first.", "bad")
            return
        self.send.disabled, self.sent.value = True, note("Sending …")
        try:
            receipt = self._desk.contribute(self._photo, caption, self.contributor.value.strip())
            self._show(self._desk.describe(self._photo))
        except Exception as error:  # whatever it is, the page goes on
            self.sent.value = note(words_for(error), "bad")
        else:
            kept = "was kept before" if receipt.known else "is kept"
            learned = " and is the answer now" if self._answer.contributed else ""
            self.sent.value = note(f"Contribution {receipt.number} {kept}{learned}. Thank you.", "good")
        finally:
            self.send.disabled = False

    def show_look(self) -> None:
        """Show where the model looked at each word, or why that cannot be told."""
        self.look.disabled, self.look_result.value = True, note("Looking …")
        try:
            self.look_result.value = glance_grid(glances(self._photo, self._answer))
        except Exception as error:  # as above
            self.look_result.value = note(words_for(error))
        finally:
            self.look.disabled = False

    def _show(self, answer: Answer) -> None:
        self._answer = answer
        self.answer.value = answer_card(self._photo, self._name, answer)
        self.caption.value, self.look_result.value, self.sent.value = answer.caption, "", ""
        self._shown.layout.display = None

    def _hide(self) -> None:
        self._shown.layout.display = "none"

    def _try(self, work: Callable[[], Answer], name: str) -> Answer | None:
        """Return what `work` does, None when it fails; the line below the drop says why."""
        try:
            return work()
        except Exception as error:  # as above
            self.drop.say(f"{name}: {words_for(error)}", wrong=True)
            return None
