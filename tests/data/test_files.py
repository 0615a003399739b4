"""Which files a folder holds, and which images the paths of a command mean."""

import os
from pathlib import Path

import pytest

from lcm.data.files import find_files, list_images, shorten, with_suffix

NAMES = "b.jpg a.PNG .hidden.jpg ._a.jpg .DS_Store notes.txt sub/d.webp sub/c.gif sub/x/e.jpeg .trash/f.jpg z/g.jpg"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder with images, other files and sub-folders, beside which the test works."""
    for name in NAMES.split():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_find_files_leaves_hidden_ones_out_and_puts_short_paths_first(photos):
    (photos / "folder.jpg").mkdir()
    expected = [photos / name for name in ("b.jpg", "z/g.jpg", "sub/x/e.jpeg")]
    assert with_suffix(find_files(photos), (".jpg", ".jpeg")) == expected
    assert find_files(photos / ".trash") == [photos / ".trash/f.jpg"]


def test_a_folder_s_images_are_taken_by_name(photos, monkeypatch):
    assert list_images([photos]).images == [f"{photos}/a.PNG", f"{photos}/b.jpg"]
    listing = list_images([photos], recursive=True)
    expected = ["a.PNG", "b.jpg", "sub/c.gif", "sub/d.webp", "sub/x/e.jpeg", "z/g.jpg"]
    assert listing.images == [f"{photos}/{name}" for name in expected]
    assert listing.problems == []
    assert list_images(["./photos/"]).images == ["photos/a.PNG", "photos/b.jpg"]  # as they were given
    assert list_images(["photos/notes.txt", "missing.jpg", ""]).images == ["photos/notes.txt", "missing.jpg", ""]
    monkeypatch.chdir(photos)
    assert list_images(["."]).images == ["a.PNG", "b.jpg"]


def test_a_file_counts_once(photos):
    (photos / "c.jpg").symlink_to(photos / "b.jpg")
    Path("other").symlink_to(photos)
    given = ["photos/b.jpg", "photos", photos, "other", photos / "b.jpg", "photos/sub/../b.jpg", "missing.jpg"]
    listing = list_images([*given, "missing.jpg"])
    assert listing.images == ["photos/b.jpg", "photos/a.PNG", "missing.jpg"]
    assert listing.problems == []


def test_links_do_not_lead_round_in_circles(photos):
    (photos / "round").symlink_to(photos)
    (photos / "folder.jpg").symlink_to(photos / "sub")
    (photos / "sub" / "up").symlink_to(photos)
    (photos / "itself.jpg").symlink_to("itself.jpg")
    (photos / "dangling.jpg").symlink_to("nowhere.jpg")
    images = list_images([photos], recursive=True).images
    assert [Path(image).name for image in images[:4]] == ["a.PNG", "b.jpg", "dangling.jpg", "itself.jpg"]
    assert len(images) == 8


def test_a_folder_without_images_and_one_that_cannot_be_read_are_named(photos, monkeypatch):
    scandir = os.scandir

    def refuse_one(path):
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)
    listing = list_images([photos], recursive=True)
    assert [Path(image).name for image in listing.images] == ["a.PNG", "b.jpg", "g.jpg"]
    assert listing.problems == [
        (f"{photos}/sub", "the folder cannot be read (Permission denied); check its permissions")
    ]
    (photos / "empty").mkdir()
    reason = "the folder holds no image, nothing that ends in .jpg, .jpeg, .png, .gif, .webp"
    assert list_images(["photos/empty"], recursive=True).problems == [("photos/empty", reason)]
    deeper = f"{reason}; its sub-folders are searched with --recursive"
    assert list_images(["photos/empty"]).problems == [("photos/empty", deeper)]


def test_shorten():
    assert shorten([]) == ""
    assert shorten(list("abcde")) == "a, b, c, d, e"
    assert shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"
