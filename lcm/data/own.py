"""A data set of one's own, begun: some images and what is to be seen in them.

Knows the simplest folder that lcm reads, images and a captions.tsv beside them. Refuses to know other formats.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lcm.data.images import open_image
from lcm.errors import DataError

CAPTIONS = "captions.tsv"


def begin_data_set(folder: str | Path, captions: Mapping[str | Path, str]) -> Path:
    """Copy images to a folder, write each one's caption beside them, and return the folder; done again, it is replaced.

    Raises BadImageError for a file that is no image, DataError for a caption without words, for two images of one name,
    and for a captions.tsv of other images, which is never written over.
    """
    folder, lines = Path(folder).expanduser().resolve(), {}
    for path, caption in captions.items():
        open_image(path)
        text, name = " ".join(caption.split()), Path(path).name
        if not text:
            raise DataError(f"{name} has no caption; write what is to be seen in it")
        if name in lines:
            raise DataError(f"two images are called {name}; give one of them another name")
        lines[name] = f"{name}\t{text}\n"
    known = (folder / CAPTIONS).read_text(encoding="utf-8").splitlines() if (folder / CAPTIONS).is_file() else []
    if others := {line.partition("\t")[0] for line in known} - set(lines):
        raise DataError(f"{folder / CAPTIONS} has captions of {len(others)} other images; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in captions:
        if Path(path).resolve() != folder / Path(path).name:
            shutil.copyfile(path, folder / Path(path).name)
    (folder / CAPTIONS).write_text("".join(lines.values()), encoding="utf-8")
    return folder
