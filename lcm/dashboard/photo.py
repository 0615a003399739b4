"""The page of a photo: what the model says of it, where it looked, and the caption as it should be.

ipywidgets' own upload button accepts no drops, and Voila ends the connection at a file that is too large without a
word; so photo_drop.js says in the browser how large a file may be.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from PIL import Image

from lcm.captioning.bundle import Bundle
from lcm.captioning.captioner import find_bundle
from lcm.dashboard.client import MAX_PHOTO, Answer, ServiceClient
from lcm.dashboard.widgets import SENT_ON_LEAVING, answer_card, fill, image, message_for, note
from lcm.data.files import is_image_name
from lcm.data.images import open_image, read_image
from lcm.errors import DataError
from lcm.evaluation.gallery import attention_of, looked_at, thumbnail
from lcm.features.encoders import Encoder
from lcm.registry import short_digest

CORRECT = "<h2>Is the caption wrong?</h2><p>What you send is kept, and is the answer from now on.</p>"
MAP_SIDE = 240  # pixels of the longer side of an attention map
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def attention_maps(photo: bytes, answer: Answer) -> str:
    """Return a picture for each word of an answer's caption, without colour and coloured where the model looked.

    The service's replies hold no weights, so they are computed here, by the same bundle where this machine has it.
    Raises DataError where that cannot be told.
    """
    folder = find_bundle()
    if not answer.version or short_digest(folder) != answer.version:
        raise DataError("The model that answered is not this machine's current one: where it looked cannot be shown.")
    bundle, encoder = open_bundle(folder, answer.version)
    if not bundle.has_attention:
        raise DataError("This model cannot tell where it looked.")
    kind = bundle.manifest.feature_kind
    features = encoder.encode(read_image(photo, encoder.spec.size)[None], (kind,))[kind][0]  # [N, F]
    small = open_image(photo)
    small.thumbnail((MAP_SIDE, MAP_SIDE))
    pixels, figures = np.asarray(small), ""
    for word, weights in zip(*attention_of(bundle, features, answer.caption), strict=True):
        alt = f"Where the model looked for {word}: {place_of(weights)}"
        figures += (
            f"<figure>{image(_jpeg(looked_at(pixels, weights)), alt)}<figcaption>{escape(word)}</figcaption></figure>"
        )
    return f'<div class="card"><div class="maps">{figures}</div></div>' if figures else note("The caption is empty.")


@lru_cache(maxsize=1)
def open_bundle(folder: Path, _version: str) -> tuple[Bundle, Encoder]:
    """Return a bundle and its encoder."""
    bundle = Bundle(folder)
    return bundle, bundle.encoder()


def place_of(weights: np.ndarray) -> str:
    """Return where the most weight of a row [N] of a square grid is, in words."""
    side = math.isqrt(len(weights))
    row, column = divmod(int(np.argmax(weights)), side)
    vertical, horizontal = ROWS[(2 * row + 1) * 3 // (2 * side)], COLUMNS[(2 * column + 1) * 3 // (2 * side)]
    return "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"


def _jpeg(pixels: np.ndarray) -> str:
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        return base64.b64encode(buffer.getvalue()).decode()


class PhotoDrop(anywidget.AnyWidget):
    """Calls `on_photo` with the name and the bytes of each photo: dropped, pasted, chosen, or one of the examples."""

    _esm = Path(__file__).with_name("photo_drop.js")
    limit = traitlets.Int(MAX_PHOTO).tag(sync=True)  # bytes
    examples = traitlets.List().tag(sync=True)  # name, picture as base64 of a JPEG
    status = traitlets.Unicode("").tag(sync=True)  # a line that is read out by screen readers
    kind = traitlets.Unicode("").tag(sync=True)  # of the status: busy, wrong or neither
    said = traitlets.Int(0).tag(sync=True)  # counts statuses: the same words again are shown again

    def __init__(self, on_photo: Callable[[str, bytes], None], examples: Path):
        """Take what is called with a photo, and the folder of the example photos, which need not be there."""
        self._on_photo = on_photo
        paths = sorted(path for path in examples.glob("*") if is_image_name(path.name))
        self._examples = [(path.name, path.read_bytes()) for path in paths]  # now: a file may go later
        shown = [{"name": Path(name).stem, "picture": thumbnail(photo)} for name, photo in self._examples]
        super().__init__(examples=shown)
        self.on_msg(self._receive)

    def say(self, text: str, kind: str = "") -> None:
        """Show what is being done, or what went wrong."""
        with self.hold_sync():
            self.status, self.kind, self.said = text, kind, self.said + 1

    def _receive(self, _widget: Any, content: Any, buffers: Sequence[memoryview]) -> None:
        place = content.get("example")
        if place is not None:
            self._on_photo(*self._examples[place])
        elif buffers:
            self._on_photo(content["name"], bytes(buffers[0]))


class PhotoPage:
    """The widgets of a photo, in `view`."""

    def __init__(self, client: ServiceClient, examples: Path):
        """Take who answers, and the folder of the photos to try."""
        self._client = client
        self._name, self._photo, self._answer = "", b"", None
        self.drop = PhotoDrop(self.take, examples)
        self.answer, self.maps, self.sent = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.show_maps = widgets.Button(description="Show where the model looked")
        self.caption = widgets.Textarea(description="The caption as it should be", rows=3, **SENT_ON_LEAVING)
        self.contributor = widgets.Text(description="Your name, if you like", **SENT_ON_LEAVING)
        self.send = widgets.Button(description="Send the caption", button_style="primary")
        self.show_maps.on_click(lambda _: self.draw_attention())
        self.send.on_click(lambda _: self.contribute())
        correction = [widgets.HTML(CORRECT), self.caption, self.contributor, self.send, self.sent]
        # about-photo: gone in the browser as soon as another photo is on its way, so that no click is about that one.
        self._shown = widgets.VBox([self.answer, self.show_maps, self.maps, *correction]).add_class("about-photo")
        self.view = widgets.VBox([self.drop, self._shown])
        self._shown.layout.display = "none"

    def draw(self) -> None:
        """Leave everything as it is: an answer stays when people come back from another page."""

    def take(self, name: str, photo: bytes) -> None:
        """Ask about a photo and show what is said of it, or why nothing is."""
        self._shown.layout.display = "none"
        self.drop.say(f"Asking about {name} …", "busy")
        try:
            answer = self._client.describe(photo)
            self._name, self._photo = name, photo
            self._show(answer)
        except Exception as error:  # whatever it is, the page stays usable
            self.drop.say(f"{name}: {message_for(error)}", "wrong")
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
            receipt = self._client.contribute(self._photo, caption, self.contributor.value.strip())
            kept = f"Contribution {receipt.number} {'was kept before' if receipt.known else 'is kept'}"
            self._show(self._client.describe(self._photo))
        except Exception as error:  # as above
            asked_again = f"{kept}. Asked again: " if kept else ""
            self.sent.value = note(f"{asked_again}{message_for(error)}", "bad")
        else:
            learned = " and is the answer now" if self._answer.contributed else ""
            self.sent.value = note(f"{kept}{learned}. Thank you.", "good")
        finally:
            self.send.disabled = False

    def draw_attention(self) -> None:
        """Show where the model looked at each word, or why that cannot be told."""
        self.show_maps.disabled, self.maps.value = True, note("Looking …")
        fill(self.maps, lambda: attention_maps(self._photo, self._answer))
        self.show_maps.disabled = False

    def _show(self, answer: Answer) -> None:
        self._answer = answer
        self.answer.value = answer_card(self._photo, self._name, answer)
        self.show_maps.layout.display = "none" if answer.contributed else None  # the model looked at nothing then
        self.caption.value, self.maps.value, self.sent.value = answer.caption, "", ""
        self._shown.layout.display = None
