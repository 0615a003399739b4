"""The place where a photo enters the page: dropped, pasted, chosen, or one of the examples.

Knows how its bytes come from the browser, and the line that says what goes on. Refuses to know what is done with them.
ipywidgets' own upload button takes no drops, and Voila drops the connection at a file that is too large without a word;
so this one says in the browser how large a file may be.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lcm.dashboard.desk import MAX_PHOTO
from lcm.evaluation.pages import thumbnail

IMAGES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.gif")
Taken = Callable[[str, bytes], None]  # what is done with a photo: its name and its bytes


class PhotoDrop(anywidget.AnyWidget):
    """Calls what it was given with each photo's name and bytes; `status` is read out by screen readers."""

    _esm = Path(__file__).with_name("photo_drop.js")
    limit = traitlets.Int(MAX_PHOTO).tag(sync=True)  # bytes
    examples = traitlets.List().tag(sync=True)  # name, picture as base64 of a JPEG
    status = traitlets.Unicode("").tag(sync=True)
    wrong = traitlets.Bool(False).tag(sync=True)  # whether the status tells of something that went wrong
    said = traitlets.Int(0).tag(sync=True)  # how often something was: the same words again are shown again

    def __init__(self, taken: Taken, examples: Sequence[Path] = ()):
        """Take what is called with a photo, and the example photos."""
        self._taken, self._paths = taken, list(examples)
        super().__init__(examples=[{"name": path.stem, "picture": thumbnail(path)} for path in self._paths])
        self.on_msg(self._receive)

    def say(self, text: str, wrong: bool = False) -> None:
        """Show what goes on, or what went wrong."""
        with self.hold_sync():
            self.status, self.wrong, self.said = text, wrong, self.said + 1

    def _receive(self, _widget: Any, content: Any, buffers: Sequence[memoryview]) -> None:
        """Take in what the browser sends; anything else than a photo or an example is passed over."""
        if not isinstance(content, dict):
            return
        place = content.get("example")
        if isinstance(place, int) and 0 <= place < len(self._paths):
            path = self._paths[place]
            self._taken(path.name, path.read_bytes())
        elif buffers:
            self._taken(str(content.get("name", "photo")), bytes(buffers[0]))


def find_examples(folder: Path) -> list[Path]:
    """Return the photos of a folder by name; none where it is not there."""
    return sorted(path for pattern in IMAGES for path in folder.glob(pattern))
