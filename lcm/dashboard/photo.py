"""The page of a photo: what the model says of it, where it looked, and the caption as it should be.

ipywidgets' own upload button accepts no drops, and Voila ends the connection at a file that is too large without a
word; so photo_drop.js says in the browser how large a file may be.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from PIL import Image, ImageChops, ImageOps

from lcm.captioning.bundle import Bundle
from lcm.captioning.captioner import find_bundle
from lcm.dashboard.client import MAX_PHOTO, Answer, ServiceClient
from lcm.dashboard.language import PAGE, SENTENCES, name_of, say
from lcm.dashboard.widgets import SENT_ON_LEAVING, answer_card, fill, image, message_for, note
from lcm.data.files import is_image_name
from lcm.data.images import open_image
from lcm.data.text import ENGLISH
from lcm.errors import DataError
from lcm.evaluation.gallery import as_jpeg, thumbnail
from lcm.registry import short_digest

MAP_SIDE = 240  # pixels of the longer side of an attention map


def attention_maps(photo: bytes, answer: Answer) -> str:
    """Return a picture for each word, coloured where the model looked, by its bundle here; DataError where none can."""
    folder = find_bundle()
    if not answer.version or short_digest(folder) != answer.version:
        raise DataError(say("The model that answered is not the current one here: where it looked cannot be shown."))
    bundle = Bundle(folder)
    language = answer.language or bundle.vocabulary.language
    if not bundle.has_attention or language not in bundle.vocabulary.starts:
        raise DataError(say("This model cannot tell where it looked."))
    encoder = bundle.encoder()
    features = encoder.encode(encoder.read(photo)[None], ("grid",))["grid"]  # [1, N, D]
    small = open_image(photo, encoder.identity.square)
    small.thumbnail((MAP_SIDE, MAP_SIDE))
    ids = np.array(bundle.vocabulary.encode(answer.caption, language))  # of START, the words, END
    if len(ids) == 2:
        return note(say("(empty)"))
    figures = ""
    for token_id, weights in zip(ids[1:-1], bundle.attention(features, ids[None, None, :-2])[0, 0], strict=True):
        word = bundle.vocabulary.words[token_id]
        alt = say("Where the model looked for {word}: {place}", word=word, place=place_of(weights))
        shown = image(as_jpeg(looked_at(small, weights)), alt)
        figures += f"<figure>{shown}<figcaption>{escape(word)}</figcaption></figure>"
    return f'<div class="card"><div class="maps">{figures}</div></div>'


# What the photo without colour is multiplied by where the model looked not at all, half as much as the most, and the
# most. Red never is lighter than orange: the order is seen without colours, and by the colour-blind.
HEAT = {"black": (255, 255, 255), "mid": (250, 165, 70), "white": (200, 32, 8)}
FADED = 0.42  # share of its contrast that the photo keeps below


def looked_at(picture: Image.Image, weights: np.ndarray) -> Image.Image:
    """Return a picture faded, without colour, and coloured where a word's weights [N] of a square grid are high.

    Weights, none below 0, are scaled to their own maximum, so colours say where, not how much more than at other words.
    """
    side = math.isqrt(len(weights))
    scaled = (255 * weights / max(weights.max(), np.finfo(float).tiny)).astype(np.uint8)
    heat = Image.fromarray(scaled.reshape(side, side)).resize(picture.size, Image.Resampling.BICUBIC)
    faded = picture.convert("L").point(lambda level: 255 - FADED * (255 - level))
    return ImageChops.multiply(faded.convert("RGB"), ImageOps.colorize(heat, **HEAT))


def place_of(weights: np.ndarray) -> str:
    """Return where the most weight of a row [N] of a square grid is, in words."""
    side = math.isqrt(len(weights))
    row, column = divmod(int(np.argmax(weights)), side)
    third, across = ((2 * place + 1) * 3 // (2 * side) for place in (row, column))
    vertical, horizontal = say("top, middle, bottom").split(", ")[third], say("left, centre, right").split(", ")[across]
    return horizontal if third == across == 1 else f"{vertical} {horizontal}"


class PhotoDrop(anywidget.AnyWidget):
    """Calls `on_photo` with the name and the bytes of each photo: dropped, pasted, chosen, or one of the examples."""

    _esm = Path(__file__).with_name("photo_drop.js")
    limit = traitlets.Int(MAX_PHOTO).tag(sync=True)  # bytes
    sentences = traitlets.Dict().tag(sync=True)  # English to what is said instead
    examples = traitlets.List().tag(sync=True)  # name, picture as base64 of a JPEG
    status = traitlets.Unicode("").tag(sync=True)  # a line that is read out by screen readers
    kind = traitlets.Unicode("").tag(sync=True)  # of the status: busy, wrong or neither
    said = traitlets.Int(0).tag(sync=True)  # counts statuses: the same words again are shown again

    def __init__(self, on_photo: Callable[[str, bytes], None], examples: Path):
        self._on_photo = on_photo
        paths = sorted(path for path in examples.glob("*") if is_image_name(path.name))
        self._examples = [(path.name, path.read_bytes()) for path in paths]  # now: a file may go later
        shown = [{"name": Path(name).stem, "picture": thumbnail(photo)} for name, photo in self._examples]
        super().__init__(examples=shown, sentences=SENTENCES[PAGE.language])
        self.on_msg(self._receive)

    def say(self, text: str, kind: str = "") -> None:
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

    def __init__(self, client: ServiceClient, examples: Path, language: str = ENGLISH):
        self._client, self._language = client, language
        self.asked, self._answer = (), None  # name and bytes of the photo, and what is said of it
        self.drop = PhotoDrop(self.take, examples)
        self.answer, self.maps, self.sent = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.show_maps = widgets.Button(description=say("Show where the model looked"))
        wanted = say("The caption as it should be, in {language}", language=name_of(language))
        self.caption = widgets.Textarea(description=wanted, rows=3, **SENT_ON_LEAVING)
        self.contributor = widgets.Text(description=say("Your name, if you like"), **SENT_ON_LEAVING)
        self.send = widgets.Button(description=say("Send the caption"), button_style="primary")
        self.show_maps.on_click(lambda _: self.draw_attention())
        self.send.on_click(lambda _: self.contribute())
        correct = say("<h2>Is the caption wrong?</h2><p>What you send is kept, and is the answer from now on.</p>")
        correction = [widgets.HTML(correct), self.caption, self.contributor, self.send, self.sent]
        # about-photo: gone in the browser as soon as another photo is on its way, so that no click is about that one.
        self._shown = widgets.VBox([self.answer, self.show_maps, self.maps, *correction]).add_class("about-photo")
        self.view = widgets.VBox([self.drop, self._shown])
        self._shown.layout.display = "none"

    def take(self, name: str, photo: bytes) -> None:
        self._shown.layout.display = "none"
        self.drop.say(say("Asking about {name} …", name=name), "busy")
        try:
            answer = self._client.describe(photo, self._language)
            self.asked = name, photo
            self._show(answer)
        except Exception as error:  # whatever it is, the page stays usable
            self.drop.say(say("{name}: {text}", name=name, text=message_for(error)), "wrong")
        else:
            self.drop.say(say("{name}: {text}", name=name, text=answer.caption or say("(empty)")))

    def contribute(self) -> None:
        """Send the caption as it should be, then ask again: the answer is the new caption."""
        caption = self.caption.value.strip()
        if not caption:
            self.sent.value = note(say("Write a caption first."), "bad")
            return
        self.send.disabled, self.sent.value, kept = True, note(say("One moment …")), ""
        _, photo = self.asked
        try:
            sent = photo, caption, self.contributor.value.strip(), self._language
            number, known = self._client.contribute(*sent)
            words = say("Contribution {number} was kept before.") if known else say("Contribution {number} is kept.")
            kept = words.format(number=number)
            self._show(self._client.describe(photo, self._language))
        except Exception as error:  # as above
            why = message_for(error)
            self.sent.value = note(say("{kept} Asked again: {why}", kept=kept, why=why) if kept else why, "bad")
        else:
            learned = say("It is the answer now. Thank you.") if self._answer.contributed else ""
            self.sent.value = note(f"{kept} {learned}", "good")
        finally:
            self.send.disabled = False

    def draw_attention(self) -> None:
        self.show_maps.disabled, self.maps.value = True, note(say("One moment …"))
        fill(self.maps, lambda: attention_maps(self.asked[1], self._answer))
        self.show_maps.disabled = False

    def _show(self, answer: Answer) -> None:
        self._answer = answer
        name, photo = self.asked
        asked = self._language if answer.language not in ("", self._language) else ""
        self.answer.value = answer_card(photo, name, answer, asked)
        self.show_maps.layout.display = "none" if answer.contributed else None  # the model looked at nothing then
        # To be corrected in the language that is asked for: a caption in another one is no beginning.
        self.caption.value, self.maps.value, self.sent.value = "" if asked else answer.caption, "", ""
        self._shown.layout.display = None
