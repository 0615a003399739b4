"""Which files a folder holds, and which images the paths of a command mean."""

import os
from pathlib import Path

import pytest
from PIL import Image

from lcm.data.files import IMAGE_SUFFIXES, find_files, list_images, with_suffix
from lcm.data.images import read_image
from lcm.errors import BadImageError

KINDS = (
    "JPEG",
    "MPO",
    "PNG",
    "GIF",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "AVIF",
    "HEIF",
)  # what lcm reads, as Pillow calls it
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
    assert list_images(["photos/notes.txt"]).images == ["photos/notes.txt"]
    monkeypatch.chdir(photos)
    assert list_images(["."]).images == ["a.PNG", "b.jpg"]


def test_an_image_is_told_by_every_suffix_that_programs_give_it(tmp_path):
    names = [f"1{suffix}" for suffix in IMAGE_SUFFIXES] + ["2.JFIF", "2.Jpe"]
    for name in [*names, "3.psd", "jpg", "4.jpg.txt"]:
        (tmp_path / name).touch()
    assert {suffix for suffix in Image.registered_extensions() if Image.EXTENSION[suffix] in KINDS} <= {*IMAGE_SUFFIXES}
    assert sorted(Path(image).name for image in list_images([tmp_path]).images) == sorted(names)


def test_a_file_counts_once(photos):
    (photos / "c.jpg").symlink_to(photos / "b.jpg")
    Path("other").symlink_to(photos)
    listing = list_images(["photos/b.jpg", "photos", photos, "other", photos / "b.jpg", "photos/sub/../b.jpg"])
    assert listing.images == ["photos/b.jpg", "photos/a.PNG"]
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
    assert list_images([photos / "sub"]).problems
    (photos / "sub" / "c.gif").unlink()
    (photos / "sub" / "d.webp").unlink()
    (photos / "sub" / "x" / "e.jpeg").unlink()
    assert list_images([photos]).sub_folders == [f"{photos}/sub", f"{photos}/z"]
    (photos / "empty").mkdir()
    reason = f"the folder holds no image, nothing that ends in {', '.join(IMAGE_SUFFIXES)}"
    assert list_images(["photos/empty"]).problems == [("photos/empty", reason)]


def test_whatever_else_may_be_an_image_is_left_out_by_name_and_each_once(photos):
    for name in ("c.psd", "DSC_1", "captions.TSV", "a.xmp", "Thumbs.db", "sub/x/old", "texts/a.txt"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    (photos / "again").symlink_to(photos / "sub")
    listing = list_images(["photos"])
    assert listing.other_files == ["photos/DSC_1", "photos/c.psd"]
    assert listing.sub_folders == ["photos/sub", "photos/z"], "one without images needs no word"
    listing = list_images(["photos"], recursive=True)
    assert listing.other_files == ["photos/DSC_1", "photos/c.psd", "photos/sub/x/old"]
    assert listing.sub_folders == []
    Path("elsewhere").mkdir()
    Path("elsewhere/a.jpg").touch()
    (photos / "album").symlink_to(Path("elsewhere").resolve())
    assert list_images(["photos"], recursive=True).sub_folders == ["photos/album"]
    listing = list_images(["photos", "photos/DSC_1", "photos/sub/x/old", "photos/album", "photos/z"])
    assert (listing.other_files, listing.sub_folders) == (["photos/c.psd"], ["photos/sub"]), "what is given is taken"


@pytest.mark.parametrize(("given", "said"), [("photo", "'photo': no such file"), ("https://host/a.jpg", "an address")])
def test_a_path_that_leads_nowhere_is_an_image_that_reading_refuses(given, said):
    with pytest.raises(BadImageError, match=said):
        read_image(list_images([given]).images[0], 8)
