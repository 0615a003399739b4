"""The page of a photo: what the model says of it, where it looked, and the caption as it should be.

Knows how a photo comes from the browser, and the order of things: a photo comes, an answer is shown, a correction is
sent, and the photo is asked about again. Refuses to know how the desk answers and how the parts read.

ipywidgets' own upload button takes no drops, and Voila drops the connection at a file that is too large without a word;
so photo_drop.js says in the browser how large a file may be.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from lcm.dashboard.answer import Answer
from lcm.dashboard.desk import MAX_PHOTO, Desk, check_photo
from lcm.dashboard.looking import glances, why_not
from lcm.dashboard.parts import WHOLE, answer_card, glance_grid, note, words_for
from lcm.evaluation.gallery import thumbnail

IMAGES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.gif")
CORRECT = "<h2>Is the caption wrong?</h2><p>What you send is kept, and is the answer from now on.</p>"


class PhotoDrop(anywidget.AnyWidget):
    """Calls `taken` with the name and the bytes of each photo: dropped, pasted, chosen, or one of the examples."""

    _esm = Path(__file__).with_name("photo_drop.js")
    limit = traitlets.Int(MAX_PHOTO).tag(sync=True)  # bytes
    examples = traitlets.List().tag(sync=True)  # name, picture as base64 of a JPEG
    status = traitlets.Unicode("").tag(sync=True)  # a line that is read out by screen readers
    kind = traitlets.Unicode("").tag(sync=True)  # of the status: busy, wrong or neither
    said = traitlets.Int(0).tag(sync=True)  # how often something was: the same words again are shown again

    def __init__(self, taken: Callable[[str, bytes], None], examples: Path):
        """Take what is called with a photo, and the folder of the example photos, which need not be there."""
        self._taken = taken
        paths = sorted(path for pattern in IMAGES for path in examples.glob(pattern))
        self._examples = [(path.name, path.read_bytes()) for path in paths]  # now: a file may go later
        shown = [{"name": Path(name).stem, "picture": thumbnail(photo)} for name, photo in self._examples]
        super().__init__(examples=shown)
        self.on_msg(self._receive)

    def say(self, text: str, kind: str = "") -> None:
        """Show what goes on, or what went wrong."""
        with self.hold_sync():
            self.status, self.kind, self.said = text, kind, self.said + 1

    def _receive(self, _widget: Any, content: Any, buffers: Sequence[memoryview]) -> None:
        """Take in what the browser sends; anything else than a photo or an example is passed over."""
        if not isinstance(content, dict):
            return
        place = content.get("example")
        if isinstance(place, int) and 0 <= place < len(self._examples):
            self._taken(*self._examples[place])
        elif buffers:
            self._taken(str(content.get("name", "photo")), bytes(buffers[0]))


class PhotoPage:
    """The widgets of a photo, in `view`."""

    def __init__(self, desk: Callable[[], Desk], examples: Path):
        """Take how to find who answers, and the folder of the photos to try."""
        self._desk = desk
        self._name, self._photo, self._answer = "", b"", None
        self.drop = PhotoDrop(self.take, examples)
        self.answer, self.look_result, self.sent = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.look = widgets.Button(description="Show where the model looked")
        self.caption = widgets.Textarea(description="The caption as it should be", rows=3, **WHOLE)
        self.contributor = widgets.Text(description="Your name, if you like", **WHOLE)
        self.send = widgets.Button(description="Send the caption", button_style="primary")
        self.look.on_click(lambda _: self.show_look())
        self.send.on_click(lambda _: self.contribute())
        correction = [widgets.HTML(CORRECT), self.caption, self.contributor, self.send, self.sent]
        # about-photo: gone in the browser as soon as another photo is on its way, so that no click is about that one.
        self._shown = widgets.VBox([self.answer, self.look, self.look_result, *correction]).add_class("about-photo")
        self.view = widgets.VBox([self.drop, self._shown])
        self._hide()

    def draw(self) -> None:
        """Leave everything as it is: an answer stays when people come back from another page."""

    def take(self, name: str, photo: bytes) -> None:
        """Ask about a photo and show what is said of it, or why nothing is."""
        self._hide()
        self.drop.say(f"Asking about {name} …", "busy")
        try:
            answer = self._desk().describe(check_photo(photo))
            self._name, self._photo = name, photo
            self._show(answer)
        except Exception as error:  # whatever it is, the page goes on
            self.drop.say(f"{name}: {words_for(error)}", "wrong")
        else:
            self.drop.say(f"{name}: {answer.caption or 'an empty caption'}")

    def contribute(self) -> None:
        """Send the caption as it should be, then ask again: the answer is the new caption."""
        caption = self.caption.value.strip()
        if not caption:
            self.sent.value = note("Write a caption first.", "bad")
            return
        self.send.disabled, self.sent.value, kept = True, note("Sending …"), ""
        try:
            receipt = self._desk().contribute(self._photo, caption, self.contributor.value.strip())
            kept = f"Contribution {receipt.number} {'was kept before' if receipt.known else 'is kept'}"
            self._show(self._desk().describe(self._photo))
        except Exception as error:  # as above
            self.sent.value = note(f"{kept}. Asked again: {words_for(error)}" if kept else words_for(error), "bad")
        else:
            learned = " and is the answer now" if self._answer.contributed else ""
            self.sent.value = note(f"{kept}{learned}. Thank you.", "good")
        finally:
            self.send.disabled = False

    def show_look(self) -> None:
        """Show where the model looked at each word, or why that cannot be told."""
        self.look.disabled, self.look_result.value = True, note("Looking …")
        try:
            self.look_result.value = glance_grid(glances(self._photo, self._answer))
        except Exception as error:  # as above
            self.look_result.value = note(words_for(error), "bad")
        finally:
            self.look.disabled = False

    def _show(self, answer: Answer) -> None:
        self._answer, reason = answer, why_not(answer)
        self.answer.value = answer_card(self._photo, self._name, answer)
        self.look.layout.display = "none" if reason else None
        self.caption.value, self.look_result.value, self.sent.value = answer.caption, note(reason), ""
        self._shown.layout.display = None

    def _hide(self) -> None:
        self._shown.layout.display = "none"
