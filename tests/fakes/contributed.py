"""What tests of contributions share: small pictures that all differ, and a look at all of a folder's files."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, kind: str = "PNG", side: int = 4) -> bytes:
    """Return a file of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
