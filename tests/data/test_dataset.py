"""From a folder to a data set: where people's files lie, what does not fit, and who trains on what.

Image files hold their names here, or nothing: reading captions never decodes an image.
"""

import hashlib
import json
import os
import re
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from lcm.data import splits
from lcm.data.dataset import Dataset, LabelledImage, read_dataset
from lcm.data.files import find_files
from lcm.errors import DataError

TWO = "image,caption\n1.jpg,A dog .\n2.jpg,A cat .\n"  # the smallest data set


def make_folder(folder: Path, texts: dict[str, str], *images: str) -> Path:
    """Write text files, name -> text, and empty image files, with the folders that their names lie in."""
    for name, text in (texts | dict.fromkeys(images, "")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def csv_of(*names: str) -> str:
    return "image,caption\n" + "".join(f"{name},Caption of {name}\n" for name in names)


def coco(*names: str) -> str:
    """Return a captions document with two captions an image, all the first ones before the second ones."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    annotations = [
        {"image_id": number, "caption": f"{turn} of {name}"} for turn in (0, 1) for number, name in enumerate(names)
    ]
    return json.dumps({"images": images, "annotations": annotations})


def metadata(*names: str) -> str:
    return "file_name,text\n" + "".join(f"{name},Caption of {name}\n" for name in names)


def split_of(dataset: Dataset) -> dict[str, str]:
    return {image.image_id: image.split for image in dataset.images}


def files_of(dataset: Dataset, folder: Path) -> dict[str, str]:
    return {image_id: path.relative_to(folder).as_posix() for image_id, path in dataset.paths.items()}


# Layouts that people download


def flickr8k_archive(folder: Path) -> Path:
    """The two original archives unpacked, with macOS's companion files and the captions' one known slip."""
    token = "".join(f"{i}.jpg#{n}\tCaption {n} of {i} .\n" for i in (1, 2, 3, 4) for n in (0, 1))
    companion = "\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00"
    texts = {
        "Flickr8k.token.txt": token + "2258277193_586949ec62.jpg.1#0\tPeople wait .\n",
        "Flickr8k.lemma.token.txt": token.lower(),
        "CrowdFlowerAnnotations.txt": "1.jpg\t2.jpg#2\t0\t0\t3\n" * 9,
        "ExpertAnnotations.txt": "1.jpg\t2.jpg#2\t1\t1\t1\n" * 9,
        "Flickr_8k.trainImages.txt": "1.jpg\n2.jpg\n",
        "Flickr_8k.devImages.txt": "3.jpg\n",
        "Flickr_8k.testImages.txt": "4.jpg\n",
        "readme.txt": "Please cite the paper,\nand see the test set in Flickr_8k.testImages.txt\n",
        "__MACOSX/._Flickr8k.token.txt": companion,
        "__MACOSX/._Flickr_8k.trainImages.txt": companion,
        "__MACOSX/._Flickr_8k.devImages.txt": companion,
    }
    images = [f"Flicker8k_Dataset/{i}.jpg" for i in (1, 2, 3, 4)]
    make_folder(folder / "Flickr8k_text", texts)
    make_folder(folder / "Flickr8k_Dataset", {}, *images, "__MACOSX/Flicker8k_Dataset/._1.jpg")
    return folder


def test_original_flickr8k_archives(tmp_path):
    dataset = read_dataset(flickr8k_archive(tmp_path))
    assert dataset.report.captions_file == "Flickr8k_text/Flickr8k.token.txt"
    assert dataset.report.captions_format == "tsv"
    assert split_of(dataset) == {"1.jpg": "train", "2.jpg": "train", "3.jpg": "dev", "4.jpg": "test"}
    assert dataset.captions_of("test") == {"en": ["Caption 0 of 4 .", "Caption 1 of 4 ."]}
    assert dataset.paths["1.jpg"] == tmp_path / "Flickr8k_Dataset/Flicker8k_Dataset/1.jpg"
    assert dataset.report.missing_images == ("2258277193_586949ec62.jpg.1",)
    assert dataset.report.images_without_captions == ()


# What is refused


@pytest.mark.parametrize(
    ("files", "captions_file", "message"),
    [
        ({"notes.txt": "Dear diary, nothing.\n"}, "", r"no captions file \(found notes\.txt\)\. Formats:\n  - CSV"),
        ({}, "", "no text file at all"),
        ({"ours.csv": TWO, "theirs.tsv": "1.jpg\tUn chien .\n"}, "", r"\(ours\.csv, theirs\.tsv\); name one with capt"),
        ({"captions.txt": TWO}, "nothing.txt", r"has no captions file .*name one inside the folder"),
        ({"../outside.csv": TWO}, "Images/../../outside.csv", r"has no captions file .*name one inside the folder"),
        ({"captions.txt": csv_of("1.jpg", "9.jpg")}, "", "holds 1 image with captions, and training needs two"),
        (
            {"captions.txt": TWO, "train.txt": "1.jpg\n2.jpg\n", "test.txt": "2\n"},
            "",
            r"put 2\.jpg both into .*; keep one",
        ),
        ({"captions.txt": TWO, "train.txt": "1.jpg\n", "test.txt": "2.jpg\n"}, "", "fewer than two train images"),
        ({"captions.txt": TWO, "train.txt": "7.jpg\n8.jpg\n"}, "", r"\(official lists\) leave fewer than two train"),
        ({"metadata.parquet": "PAR1"}, "", r"metadata\.parquet is in no format .*rewrite Parquet"),
        ({"metadata.csv": ""}, "metadata.csv", r"metadata\.csv is in no format .* it is empty"),
    ],
)
def test_what_is_no_data_set_says_what_to_do(tmp_path, files, captions_file, message):
    folder = make_folder(tmp_path / "photos", files, "Images/1.jpg", "Images/2.jpg")
    with pytest.raises(DataError, match=rf"(?s){message}"):
        read_dataset(folder, captions_file)


def test_data_dir_that_is_no_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_dataset(tmp_path / "nowhere")


def test_the_captions_file_that_is_named_or_in_a_format_is_read(tmp_path):
    folder = make_folder(tmp_path, {"captions.txt": "Captions are in other files.\n", "a.csv": TWO}, "1.jpg", "2.jpg")
    assert read_dataset(folder).report.captions_file == "a.csv"
    make_folder(folder, {"theirs.tsv": "1.jpg\tUn chien .\n2.jpg\tUn chat .\n"})
    assert read_dataset(folder, "theirs.tsv").images[0].captions == ("Un chien .",)


# What does not fit is counted


def test_everything_that_does_not_fit_is_counted(tmp_path):
    rows = [
        "1.jpg,A dog .",
        '1.jpg,"A ""big"" dog , running ."',
        "1.jpg,",  # empty
        "2.jpg,A cat .",
        "3.jpg,",  # nothing but empty captions
        "lost.jpg,A bird .",
        "lost.jpg,Birds .",
        "broken",
    ]
    make_folder(tmp_path, {}, *(f"Images/{i}.jpg" for i in (1, 2, 3)), "Images/unlabelled.png", "old/.hidden.jpg")
    (tmp_path / "captions.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["image,caption", *rows]).encode())
    dataset = read_dataset(tmp_path)
    assert {image.image_id: image.captions for image in dataset.images} == {
        "1.jpg": ("A dog .", 'A "big" dog , running .'),
        "2.jpg": ("A cat .",),
    }
    assert {name: value for name, value in dataset.report.as_metrics().items() if value} == {
        "captions_file": "captions.txt",
        "captions_format": "csv",
        "split_rule": dataset.report.split_rule,
        "caption_languages": "en (detected) 3",
        "rows": 8,
        "unreadable_rows": 1,
        "empty_captions": 2,
        "missing_images": 1,
        "images_without_captions": 1,
    }
    text = str(dataset.report)
    assert text.splitlines() == [
        f"captions.txt (csv): 8 rows; splits: {dataset.report.split_rule}",
        "captions in: en (detected) 3",
        "unreadable rows: 1",
        "empty captions: 2",
        "missing images: 1 (lost.jpg)",
        "images without captions: 1 (Images/unlabelled.png)",
    ]
    left_out = 2 + 1 + 2  # empty, unreadable, of the missing image
    assert sum(len(image.captions) for image in dataset.images) + left_out == dataset.report.rows


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are not Unicode")
def test_a_file_name_that_is_not_text_can_be_reported(tmp_path):
    make_folder(tmp_path, {"captions.txt": TWO}, "1.jpg", "2.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    assert str(read_dataset(tmp_path).report).encode().endswith(rb"images without captions: 1 (caf\udce9.jpg)")


# Texts, image files, the file of each image_id, and what the report names.
WHERE = {
    "everything twice": (
        {"images/results.csv": TWO, "images/images/results.csv": TWO},
        "images/1.jpg images/2.jpg images/images/1.jpg images/images/2.jpg",
        {"1.jpg": "images/1.jpg", "2.jpg": "images/2.jpg"},
        {"images_without_captions": ("images/images/1.jpg", "images/images/2.jpg")},
    ),
    "the shortest path of several": (
        {"texts/captions.txt": TWO},
        "b/c/1.jpg b/1.jpg a/2.jpg",
        {"1.jpg": "b/1.jpg", "2.jpg": "a/2.jpg"},
        {"ambiguous_images": ("1.jpg",)},
    ),
    "beside the captions file first": (
        {"deep/er/captions.txt": TWO},
        "1.jpg deep/er/1.jpg deep/er/2.jpg",
        {"1.jpg": "deep/er/1.jpg", "2.jpg": "deep/er/2.jpg"},
        {"images_without_captions": ("1.jpg",)},
    ),
    "names with folders": (
        {"texts/captions.txt": csv_of("2019/1.jpg", "2020/1.jpg")},
        "photos/2019/1.jpg photos/2020/1.jpg photos/2021/1.jpg",
        {"2019/1.jpg": "photos/2019/1.jpg", "2020/1.jpg": "photos/2020/1.jpg"},
        {"images_without_captions": ("photos/2021/1.jpg",)},
    ),
    "moved to another folder": (
        {"captions.txt": csv_of("C/old/1.jpg", "C/old/2.jpg")},
        "new/1.jpg new/2.jpg",
        {"C/old/1.jpg": "new/1.jpg", "C/old/2.jpg": "new/2.jpg"},
        {},
    ),
    "as people type names": (
        {"captions.csv": csv_of("img_1", "IMG_2.JPG", "c:\\photos\\Img_3.jpeg", "img_5.jpg", "IMG_5.png")},
        "IMG_1.JPG img_2.jpg IMG_3.jpeg img_4.jpg IMG_5.png",
        {
            "img_1": "IMG_1.JPG",
            "IMG_2.JPG": "img_2.jpg",
            "c:/photos/Img_3.jpeg": "IMG_3.jpeg",
            "IMG_5.png": "IMG_5.png",
        },
        {"missing_images": ("img_5.jpg",), "images_without_captions": ("img_4.jpg",)},
    ),
    "a text beside each photo": (
        {"1.txt": "A dog .\nA pet .\n", "a/1.txt": "A cat .", "a/notes.txt": "To do: more", "2.txt": "\n"},
        "1.jpg a/1.JPG 2.png 3.jpg",
        {"1.jpg": "1.jpg", "a/1.JPG": "a/1.JPG"},
        {"images_without_captions": ("3.jpg",)},
    ),
    "one name in two splits": (
        {"captions_train.json": coco("1.jpg", "2.jpg"), "captions_val.json": coco("1.jpg")},
        "images/val/1.jpg images/train/1.jpg images/train/2.jpg",
        {name: f"images/{name}" for name in ("train/1.jpg", "train/2.jpg", "val/1.jpg")},
        {},
    ),
    "no namesake of another split": (
        {"captions_train.json": coco("1.jpg", "2.jpg", "3.jpg"), "captions_val.json": coco("4.jpg")},
        "train/1.jpg train/2.jpg val/3.jpg val/4.jpg",
        {name: name for name in ("train/1.jpg", "train/2.jpg", "val/4.jpg")},
        {"missing_images": ("train/3.jpg",), "images_without_captions": ("val/3.jpg",)},
    ),
    "as the project that lcm descends from keeps them": (
        {
            "textFiles/30k_captions.txt": "1.jpg#0\tA dog .\n1.jpg#1\tA pet .\n2.jpg#0\tA cow .\n",
            "textFiles/custom_captions.txt": "image_1.jfif\tA cat .\n\n1.jpg\tA wolf .\n",
            "textFiles/inputs.txt": "epochs=10\n",
        },
        "Images/images/1.jpg Images/images/2.jpg Images/images/image_1.jfif",
        {name: f"Images/images/{name}" for name in ("1.jpg", "2.jpg", "image_1.jfif")},
        {},
    ),
    "one's own pairs beside Kaggle's": (
        {"captions.txt": "image,caption\n1.jpg,A dog .\n", "custom_captions.txt": "2.jpg\tA cat .\n"},
        "images/1.jpg images/2.jpg",
        {"1.jpg": "images/1.jpg", "2.jpg": "images/2.jpg"},
        {},
    ),
    "from each metadata file": (  # a missing cat is not the dog of that name
        {"cats/metadata.csv": metadata("1.jpg", "2.jpg"), "dogs/metadata.csv": metadata("1.jpg", "../old/5.jpg")},
        "cats/1.jpg dogs/1.jpg dogs/2.jpg old/5.jpg",
        {name: name for name in ("cats/1.jpg", "dogs/1.jpg", "old/5.jpg")},
        {"missing_images": ("cats/2.jpg",), "images_without_captions": ("dogs/2.jpg",)},
    ),
}


def test_one_s_own_pairs_have_splits_though_no_list_names_them(tmp_path):
    names = [f"{number}.jpg" for number in range(60)]
    lines = [f"{name}\tA dog .\n" for name in names]
    texts = {"30k_captions.txt": "".join(lines[:3]), "custom_captions.txt": "".join(lines[3:])}
    texts |= {"flickr30k_train.txt": "0.jpg\n1.jpg\n", "flickr30k_test.txt": "2.jpg\n"}
    dataset = read_dataset(make_folder(tmp_path, texts, *names))
    assert [image.split for image in dataset.images[:3]] == ["train", "train", "test"]
    assert {image.split for image in dataset.images[3:]} == {"train", "dev", "test"}
    assert dataset.report.split_rule == "official lists, and by hash for 57 of custom_captions.txt"
    assert dataset.report.images_in_no_split == ()


@pytest.mark.parametrize("where", WHERE)
def test_images_are_found_where_people_put_them(tmp_path, where):
    texts, images, files, left_out = WHERE[where]
    dataset = read_dataset(make_folder(tmp_path, texts, *images.split()))
    assert files_of(dataset, tmp_path) == files
    lists = ("missing_images", "images_without_captions", "ambiguous_images")
    assert {name: getattr(dataset.report, name) for name in lists} == dict.fromkeys(lists, ()) | left_out


def test_contributed_images_are_told_by_their_id():
    contributed = f"contributions/{'0a' * 32}"
    names = (contributed, "contributions/1.jpg", f"{contributed}/1.jpg", contributed.upper())
    told = [LabelledImage(name, Path(name), "train", ("A dog .",)).is_contributed for name in names]
    assert told == [True, False, False, False]


# Splits by hash


def test_where_none_is_held_out_lists_help(tmp_path):
    names = ("1.jpg", "9.jpg", "11.jpg")
    folder = make_folder(tmp_path, {"captions.txt": csv_of(*names[1:])}, *names)
    assert split_of(read_dataset(folder)) == {"9.jpg": "train", "11.jpg": "train"}, "two are the least that train"
    make_folder(tmp_path, {"captions.txt": csv_of(*names)})
    report = read_dataset(folder).report
    assert re.search("of the 3 images none is held out as dev.* add photos.* dev.txt, and the others into", str(report))
    dataset = read_dataset(make_folder(folder, {"train.txt": "1\n9.jpg\n", "dev.txt": "11.jpg\n"}))
    assert split_of(dataset) == {"1.jpg": "train", "9.jpg": "train", "11.jpg": "dev"}
    assert dataset.report.split_rule == "official lists"


# First 16 hex digits of the SHA-256 of the content, from `printf %s CONTENT | sha256sum`, modulo ten: 0-7, 8, 9.
KNOWN_SPLITS = {
    "1.jpg": "train",  # 4c468b3b16999fd9: 5
    "9.jpg": "train",  # b62c91d2ac6c6b59: 7
    "20.jpg": "dev",  # 8c59d75a459c34de: 8
    "11.jpg": "test",  # 7bf39d62b2d205ff: 9
}


def test_hash_split_has_known_answers():
    digests = {content: hashlib.sha256(content.encode()).hexdigest() for content in KNOWN_SPLITS}
    assert {content: splits.hash_split(digest) for content, digest in digests.items()} == KNOWN_SPLITS


def test_no_image_moves_when_the_data_set_grows(tmp_path):
    names = [f"{i}.jpg" for i in range(60)]
    make_folder(tmp_path, {"captions.txt": csv_of(*names[:30])}, *names)
    before = split_of(read_dataset(tmp_path))
    make_folder(tmp_path, {"captions.txt": csv_of(*reversed(names))})
    after = split_of(read_dataset(tmp_path))
    assert len(after) == 60
    assert set(before.values()) == {"train", "dev", "test"}
    assert before.items() <= after.items()


# Official lists

LIST_STYLES = {
    "Flickr8k": ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt", ".jpg"),
    "Flickr30k": ("flickr30k_train.txt", "flickr30k_val.txt", "flickr30k_test.txt", ""),
    "plain": ("train.txt", "val.txt", "test.txt", ""),
    "plain with suffix": ("lists/Train.TXT", "lists/dev.txt", "lists/test.txt", ".jpg"),
    "in full": ("training.txt", "validation.txt", "testing.txt", ""),
}


@pytest.mark.parametrize("style", LIST_STYLES)
def test_official_lists(tmp_path, style):
    *lists, suffix = LIST_STYLES[style]
    names = [f"{i}.jpg" for i in (20, 11, 3, 4, 5)]  # by hash, 20 would be dev and 11 test
    make_folder(tmp_path, {"captions.txt": csv_of(*names)}, *(f"Images/{name}" for name in names))
    for path, members in zip(lists, ((20, 11), (3,), (4,)), strict=True):
        make_folder(tmp_path, {path: "\ufeff" + "".join(f"{i}{suffix}\r\n" for i in members)})
    dataset = read_dataset(tmp_path)
    assert split_of(dataset) == {"20.jpg": "train", "11.jpg": "train", "3.jpg": "dev", "4.jpg": "test", "5.jpg": ""}
    assert dataset.report.split_rule == "official lists"
    assert dataset.report.images_in_no_split == ("5.jpg",)


# Captions, further texts, images and their content (their own names where there is none), and image -> split.
WHOSE_SPLIT = {
    "whole paths before base names": (
        csv_of("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", "dogs/2.jpg"),
        {"train.txt": "cats/1.jpg\ncats/2.jpg\n", "val.txt": "dogs/1.jpg\n", "test.txt": "dogs/2.jpg\n"},
        {"cats/1.jpg": "train", "cats/2.jpg": "train", "dogs/1.jpg": "dev", "dogs/2.jpg": "test"},
    ),
    "paths of another place, written on Windows": (
        csv_of("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", "3.jpg"),
        {"train.txt": "D:\\all\\cats\\1.jpg\nD:\\all\\cats\\2.jpg\n", "test.txt": "..\\dogs\\1.jpg\nold\\3.jpg\n"},
        {"cats/1.jpg": "train", "cats/2.jpg": "train", "dogs/1.jpg": "test", "3.jpg": "test"},
    ),
    "a suffix tells images apart": (
        csv_of("a.jpg", "a.png", "b.jpg", "b.png"),
        {"train.txt": "a.jpg\nb.jpg\n", "test.txt": "a.png\nb.png\n"},
        {"a.jpg": "train", "a.png": "test", "b.jpg": "train", "b.png": "test"},
    ),
    "a base name that two have is of neither": (
        csv_of("cats/1.jpg", "dogs/1.jpg", "2.jpg", "3.jpg"),
        {"train.txt": "2\n3\n", "test.txt": "1.jpg\n"},
        {"cats/1.jpg": "", "dogs/1.jpg": "", "2.jpg": "train", "3.jpg": "train"},
    ),
    "a path that is gone is no namesake": (
        csv_of("cats/1.jpg", "cats/2.jpg"),
        {"train.txt": "cats/1.jpg\ncats/2.jpg\n", "test.txt": "dogs/1.jpg\n"},
        {"cats/1.jpg": "train", "cats/2.jpg": "train"},
    ),
    "Karpathy's JSON beside the captions": (
        csv_of("1.jpg", "2.jpg", "3.jpg", "4.jpg"),
        {
            "dataset_mine.json": json.dumps(
                {
                    "images": [
                        {"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": "Other words"}]}
                        for number, split in enumerate(("train", "restval", "val", "test"), 1)
                    ]
                }
            )
        },
        {"1.jpg": "train", "2.jpg": "train", "3.jpg": "dev", "4.jpg": "test"},
    ),
    "folders of splits": (
        csv_of("train/1.jpg", "train/test_2.jpg", "val/1.jpg", "test/a/1.jpg"),
        {},
        {"train/1.jpg": "train", "train/test_2.jpg": "train", "val/1.jpg": "dev", "test/a/1.jpg": "test"},
    ),
    "metadata above the folders of splits": (
        "",
        {"metadata.csv": metadata("train/1.jpg", "train/test_2.jpg", "validation/1.jpg", "test/a/1.jpg", "1.jpg")},
        {
            "train/1.jpg": "train",
            "train/test_2.jpg": "train",
            "validation/1.jpg": "dev",
            "test/a/1.jpg": "test",
            "1.jpg": "",
        },
    ),
}


@pytest.mark.parametrize("case", WHOSE_SPLIT)
def test_each_image_is_in_the_split_that_its_data_set_says(tmp_path, case):
    captions, texts, wanted = WHOSE_SPLIT[case]
    make_folder(tmp_path, dict(zip(wanted, wanted, strict=True)) | texts | {"captions.txt": captions})
    dataset = read_dataset(tmp_path)
    assert split_of(dataset) == wanted
    assert dataset.images[0].captions == (f"Caption of {dataset.images[0].image_id}",)


# What is one picture


def test_an_image_has_the_captions_of_all_its_names(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "a/été.jpg") for form in ("NFC", "NFD"))
    names = ["1.jpg", "a/1.jpg", "./a/1.jpg", composed, "2.jpg", decomposed, "a//x/../été.jpg"]
    dataset = read_dataset(make_folder(tmp_path, {"captions.csv": csv_of(*names)}, "a/1.jpg", "2.jpg", decomposed))
    assert {image.image_id: len(image.captions) for image in dataset.images} == {"1.jpg": 3, composed: 3, "2.jpg": 1}
    assert dataset.report.other_names == ("a/1.jpg", "./a/1.jpg", decomposed, "a//x/../été.jpg")
    assert dataset.report.missing_images == ()


def test_the_same_bytes_share_a_split_whatever_they_are_called(tmp_path):
    names = [f"{kind}{number}.jpg" for number in range(40) for kind in ("photo ", "Copy of photo ")]
    contents = {name: name.split()[-1] for name in names}
    dataset = read_dataset(make_folder(tmp_path, contents | {"captions.csv": csv_of(*names)}))
    found = split_of(dataset)
    assert set(found.values()) == set(splits.SPLITS)
    assert all(found[name] == found[f"Copy of {name}"] for name in names[::2])
    assert (dataset.report.copies, dataset.report.moved_copies) == (tuple(names[1::2]), ())


def test_twenty_copies_of_one_picture_all_train(tmp_path):
    names = [f"a{number}.jpg" for number in range(20)]
    dataset = read_dataset(make_folder(tmp_path, dict.fromkeys(names, "x") | {"captions.csv": csv_of(*names)}))
    assert set(split_of(dataset).values()) == {"train"}
    assert "copies: 19 (a1.jpg," in str(dataset.report)


def test_no_copy_of_what_a_list_holds_out_trains(tmp_path):
    pictures = {
        "1.jpg": "1",
        "2.jpg": "2",
        "dev.jpg": "d",
        "d1.jpg": "d",
        "test.jpg": "t",
        "t1.jpg": "t",
        "t2.jpg": "t",
    }
    lists = {"train.txt": "1\n2\nd1\nt1\n", "dev.txt": "dev\nt2\n", "test.txt": "test\n"}
    make_folder(tmp_path, pictures | lists | {"captions.csv": csv_of(*pictures)})
    dataset = read_dataset(tmp_path)
    splits_of_copies = {"dev.jpg": "dev", "d1.jpg": "dev", "test.jpg": "test", "t1.jpg": "test", "t2.jpg": "test"}
    assert split_of(dataset) == {"1.jpg": "train", "2.jpg": "train"} | splits_of_copies
    assert dataset.report.moved_copies == ("d1.jpg", "t1.jpg", "t2.jpg")
    make_folder(tmp_path, {"1.jpg": "d", "2.jpg": "t"})
    with pytest.raises(DataError, match=r"splits \(official lists\) leave fewer than two train images .* copies"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("written", ["old{}/1.jpg", "train/{}/1.jpg"])
def test_reading_takes_no_longer_the_more_images_share_a_base_name(tmp_path, written):
    texts = {"captions.csv": csv_of(*map(written.format, range(2000)), "2.jpg", "3.jpg")}
    make_folder(tmp_path, texts, *(f"val/{number}/1.jpg" for number in range(2000)), "2.jpg", "3.jpg")
    begin = time.process_time()
    read_dataset(tmp_path)
    assert time.process_time() - begin < 5, "0.1 s, and half a minute where each name looks at all files"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train_notes.txt", "We took these\non a sunny day\n"),
        ("test_results.txt", "1.jpg\t0.3\n2.jpg\t0.5\n"),
        ("dev_scores.txt", "1.jpg,0.3\n"),
        ("latest.txt", "1.jpg\n"),
        ("contest.txt", "1.jpg\n"),
        ("devices.txt", "1.jpg\n"),
        ("trainees.txt", "1.jpg\n"),
    ],
)
def test_other_text_files_are_no_lists(tmp_path, name, text):
    make_folder(tmp_path, {"captions.txt": TWO, name: text}, "1.jpg", "2.jpg")
    assert splits.read_lists(find_files(tmp_path)) == {}


# COCO's folder, Karpathy's splits, Hugging Face's image folders

TRAIN, VAL = "annotations/captions_train2017.json", "annotations/captions_val2017.json"


def coco_folder(folder: Path) -> Path:
    instances = json.dumps({"images": [{"id": 0}], "annotations": [{"image_id": 0, "bbox": []}]})
    texts = {
        TRAIN: coco("1.jpg", "2.jpg"),
        VAL: coco("3.jpg"),
        "annotations/instances_train2017.json": instances,
        "annotations/person_keypoints_val2017.json": "{ never read",
    }
    return make_folder(folder, texts, "train2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg", "test2017/4.jpg")


def test_coco_as_it_is_unpacked(tmp_path):
    dataset = read_dataset(coco_folder(tmp_path))
    assert split_of(dataset) == {"train2017/1.jpg": "train", "train2017/2.jpg": "train", "val2017/3.jpg": "dev"}
    assert dataset.images[0].captions == ("0 of 1.jpg", "1 of 1.jpg")
    assert files_of(dataset, tmp_path) == {image_id: image_id for image_id in dataset.paths}
    report = dataset.report
    assert (report.captions_file, report.captions_format) == (f"{TRAIN}, {VAL}", "coco")
    assert report.split_rule == "as the captions files say"
    assert (report.rows, report.unreadable_rows, report.empty_captions) == (6, 0, 0)
    assert (report.missing_images, report.images_without_captions) == ((), ("test2017/4.jpg",))


@pytest.mark.parametrize("captions_file", ["", "annotations/captions_val2017.json"])
def test_one_coco_file_is_split_by_hash(tmp_path, captions_file):
    names = [f"{i}.jpg" for i in range(60)]
    make_folder(tmp_path, {VAL: coco(*names)}, *(f"val2017/{name}" for name in names))
    if captions_file:
        make_folder(tmp_path, {TRAIN: coco("a.jpg", "b.jpg")}, "train2017/a.jpg", "train2017/b.jpg")
    dataset = read_dataset(tmp_path, captions_file)
    assert len(dataset.images) == 60
    assert dataset.report.split_rule == splits.BY_HASH
    assert set(split_of(dataset).values()) == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        *(
            ({name: coco("1.jpg")}, r"several captions files \(.*captions_train2017\.json.*\); name one")
            for name in (
                *("annotations/captions_train2014.json", "annotations/captions_val.json"),
                "old/captions_test2017.json",
            )
        ),
        ({TRAIN: '{"images": [{"id": 1,'}, r"captions_train2017\.json is in no format"),
        ({VAL: '{"images": "annotations" "caption"'}, r"captions_val2017\.json is broken JSON: .* line 1 column"),
        (
            {VAL: "version https://git-lfs.github.com/spec/v1"},
            r"captions_val2017\.json is in no .* 'version https://git",
        ),
        ({VAL: coco("train2017/1.jpg", "3.jpg")}, r"put train2017/1\.jpg both into train and into dev; keep one"),
    ],
)
def test_coco_files_that_are_not_one_set_of_whole_files(tmp_path, files, message):
    make_folder(coco_folder(tmp_path), files)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "{}/secret.jpg", "..", "/", "\0.jpg"])
@pytest.mark.parametrize("kind", ["captions.txt", "captions.json", "metadata.csv"])
def test_no_name_leaves_the_folder(tmp_path, name, kind):
    names = ("1.jpg", "2.jpg", name.format(tmp_path))
    text = {"captions.txt": csv_of, "captions.json": coco, "metadata.csv": metadata}[kind](*names)
    make_folder(tmp_path, {}, "secret.jpg")
    dataset = read_dataset(make_folder(tmp_path / "photos", {kind: text}, "1.jpg", "2.jpg"))
    assert list(dataset.paths) == ["1.jpg", "2.jpg"]
    assert len(dataset.report.missing_images) == 1


def test_karpathy_splits(tmp_path):
    splits = {"1.jpg": "train", "2.jpg": "restval", "3.jpg": "val", "4.jpg": "test", "5.jpg": "other"}
    documents = [
        {"filename": name, "filepath": "val2014", "split": split, "sentences": [{"raw": "One ."}, {"raw": "Two ."}]}
        for name, split in splits.items()
    ]
    images = [f"val2014/{name}" for name in splits]
    make_folder(coco_folder(tmp_path), {"dataset_coco.json": json.dumps({"images": documents})}, *images)
    dataset = read_dataset(tmp_path)  # not COCO's own files, which lie there too
    assert list(split_of(dataset).values()) == ["train", "train", "dev", "test", ""]
    assert files_of(dataset, tmp_path) == {image: image for image in images}
    assert dataset.report.captions_format == "karpathy"
    assert dataset.report.images_in_no_split == ("val2014/5.jpg",)
    assert dataset.captions_of("dev") == {"en": ["One .", "Two ."]}


@pytest.mark.parametrize(
    ("train", "dev", "test"),
    [("train", "validation", "test"), ("training", "valid", "eval"), ("data/Train", "data/Val", "data/Test")],
)
def test_image_folder_with_splits(tmp_path, train, dev, test):
    names = ("1.jpg", "sub/2.jpg")
    texts = {f"{split}/metadata.csv": metadata(*names) for split in (train, dev, test)}
    images = [f"{split}/{name}" for split in (train, dev, test) for name in names]
    dataset = read_dataset(make_folder(tmp_path, texts, *images))
    assert files_of(dataset, tmp_path) == {image: image for image in images}
    wanted = {train: "train", dev: "dev", test: "test"}
    assert split_of(dataset) == {f"{folder}/{name}": split for folder, split in wanted.items() for name in names}
    assert dataset.report.captions_format == "imagefolder_csv"


def test_links(tmp_path):
    make_folder(tmp_path / "elsewhere", {}, "2.jpg")
    folder = make_folder(tmp_path / "photos", {"metadata.csv": metadata("1.jpg", "2.jpg", "3.jpg", "4.jpg")}, "1.jpg")
    (folder / "2.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (folder / "3.jpg").symlink_to("3.jpg")
    (folder / "4.jpg").symlink_to("nowhere.jpg")
    (folder / "round").symlink_to(folder)
    dataset = read_dataset(folder)
    assert list(dataset.paths) == ["1.jpg", "2.jpg"]
    assert dataset.report.missing_images == ("3.jpg", "4.jpg")
    assert dataset.report.images_without_captions == ()


def test_another_data_set_adds_what_it_trains_on():
    """Its held-out images take no part, and a name that is there already gets the data set's before it."""

    def dataset(*images: tuple[str, str]) -> Dataset:
        return Dataset(tuple(LabelledImage(name, Path(name), split, ("a dog",)) for name, split in images))

    both = dataset(("1.jpg", "train"), ("2.jpg", "dev")).with_train_of(
        dataset(("2.jpg", "train"), ("3.jpg", "train"), ("4.jpg", "dev"), ("5.jpg", "test")), "coco"
    )
    assert split_of(both) == {"1.jpg": "train", "2.jpg": "dev", "coco/2.jpg": "train", "3.jpg": "train"}


def test_save_and_load(tmp_path):
    captions = ('She said "go"', "two\u2028lines, \u2029three\x85 four", "tab\tand\\backslash", "été 🐕 हिन्दी", "'")
    dataset = Dataset(
        (
            LabelledImage("été/1.jpg", Path("/photos/été/1.jpg"), "train", captions),
            LabelledImage("2.jpg", Path("/photos/2.jpg"), "", ("A cat .",)),
        )
    )
    with pytest.raises(DataError, match="run 01_prepare"):
        Dataset.load(tmp_path / "dataset.jsonl")
    dataset.save(tmp_path / "dataset.jsonl")
    assert Dataset.load(tmp_path / "dataset.jsonl") == dataset
    assert (tmp_path / "dataset.jsonl").read_bytes().count(b"\n") == 2


def test_real_flickr8k(flickr8k):
    dataset = read_dataset(flickr8k)
    assert len(dataset.paths) == 7091
    of_splits = {"train": 6000, "dev": 1000, "test": 0}
    assert {split: len(dataset.of(split, "en")) for split in splits.SPLITS} == of_splits
    assert {len(image.captions) for image in dataset.images if image.language == "en"} == {5}
    report = {name: value for name, value in dataset.report.as_metrics().items() if value}
    assert report | {"rows": 0} == {
        "captions_file": report["captions_file"],
        "captions_format": "csv",
        "split_rule": "official lists",
        "caption_languages": report["caption_languages"],
        "rows": 0,
        "images_in_no_split": 91,
        "copies": 1,
    }
    assert report["rows"] == sum(len(image.captions) for image in dataset.images)


# Languages

ENGLISH_TABLE = "image,caption\n1.jpg,A dog runs over the grass .\n2.jpg,A woman sits on a chair .\n"
FRENCH_TABLE = "image,caption\n1.jpg,Un chien court dans l'herbe .\n2.jpg,Une femme est assise sur une chaise .\n"
GERMAN_LINES = "1.jpg\tEin Hund läuft über die Wiese .\n2.jpg\tEine Frau sitzt auf einem Stuhl .\n"
IN_LANGUAGES = {  # files, the parameter, the languages of each image, what the report says
    "by their words": ({"captions.txt": FRENCH_TABLE}, "", ["fr"], "fr (detected) 2"),
    "by name beside another": (
        {"captions.txt": ENGLISH_TABLE, "captions.fr.txt": FRENCH_TABLE, "captions.de.tsv": GERMAN_LINES},
        "",
        ["en", "de", "fr"],
        "en (detected) 2, de 2, fr 2",
    ),
    "by name alone": (
        {"captions.de.tsv": GERMAN_LINES, "captions.fr.tsv": GERMAN_LINES},
        "",
        ["de", "fr"],
        "de 2, fr 2",
    ),
    "by a column": (
        {
            "captions.csv": "image,caption,language\n"
            "1.jpg,A dog .,en\n1.jpg,Un chien .,fr-CA\n2.jpg,Un chat .,FR\n2.jpg,A cat .,en_GB\n"
        },
        "",
        ["en", "fr"],
        "en 2, fr 2",
    ),
    "by a field": (
        {
            "metadata.jsonl": "".join(
                f'{{"file_name": "{at}.jpg", "text": "Chien .", "language": "fr"}}\n' for at in (1, 2)
            )
        },
        "",
        ["fr"],
        "fr 2",
    ),
    "by an annotation's field": (
        {"captions_x.json": coco("1.jpg", "2.jpg").replace('"caption"', '"language": "fr", "caption"')},
        "",
        ["fr"],
        "fr 4",
    ),
    "by a parameter": ({"captions.txt": ENGLISH_TABLE}, "nl", ["nl"], "nl 2"),
    "beside each photo": (
        {"1.txt": "Un chien court dans l'herbe .\nChat .\n", "2.txt": "Chat .\n"},
        "",
        ["fr"],
        "fr (detected) 3",
    ),
    "no language stands out": ({"captions.txt": "image,caption\n1.jpg,Xyzzy .\n2.jpg,Plugh .\n"}, "", ["en"], "en 2"),
}


@pytest.mark.parametrize("how", IN_LANGUAGES)
def test_captions_have_a_language(tmp_path, how):
    texts, parameter, languages, said = IN_LANGUAGES[how]
    make_folder(tmp_path, texts, "1.jpg", "2.jpg")
    dataset = read_dataset(tmp_path, language=parameter)
    of_image = {name: {one.language for one in dataset.images if one.image_id == name} for name in dataset.paths}
    assert of_image == {name: set(languages) for name in dataset.paths}
    assert dataset.report.caption_languages == said
    assert len({image.split for image in dataset.images if image.image_id == "1.jpg"}) == 1
    path = tmp_path / "dataset.jsonl"
    dataset.save(path)
    assert Dataset.load(path).images == dataset.images
