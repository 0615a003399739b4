"""Data sets of several captions files: COCO's folder, Karpathy's splits, Hugging Face's image folders.

Image files are empty here: reading captions never opens an image.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from lcm.data import files
from lcm.data.dataset import Dataset, read_dataset
from lcm.errors import DataError

BY_HASH = "by hash of image_id: 80 % train, 10 % dev, 10 % test"


def make_folder(folder: Path, texts: dict[str, str], *images: str) -> Path:
    """Write text files, name -> text, and empty image files, with the folders that their names lie in."""
    for name, text in (texts | dict.fromkeys(images, "")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def coco(*names: str) -> str:
    """Return a captions document with two captions an image, all the first ones before the second ones."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    annotations = [
        {
            "id": number,
            "image_id": number % len(names),
            "caption": f"{number // len(names)} of {names[number % len(names)]}",
        }
        for number in range(2 * len(names))
    ]
    return json.dumps({"images": images, "annotations": annotations})


def metadata(*names: str) -> str:
    return "file_name,text\n" + "".join(f"{name},Caption of {name}\n" for name in names)


def split_of(dataset: Dataset) -> dict[str, str]:
    return {image.image_id: image.split for image in dataset.images}


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {image.image_id: image.captions for image in dataset.images}


def files_of(dataset: Dataset, folder: Path) -> dict[str, str]:
    return {image_id: path.relative_to(folder).as_posix() for image_id, path in dataset.paths.items()}


# COCO

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
    assert captions_of(dataset)["train2017/1.jpg"] == ("0 of 1.jpg", "1 of 1.jpg")
    assert files_of(dataset, tmp_path) == {image_id: image_id for image_id in dataset.paths}
    report = dataset.report
    assert (report.captions_file, report.format) == (f"{TRAIN}, {VAL}", "coco")
    assert report.split_rule == "as the captions files say"
    assert (report.rows, report.unreadable_rows, report.empty_captions) == (6, 0, 0)
    assert (report.missing_images, report.images_without_captions) == ((), ("test2017/4.jpg",))


def test_images_of_one_name_in_two_splits_are_two_images(tmp_path):
    names = ("1.jpg", "2.jpg")
    texts = {"annotations/captions_train.json": coco(*names), "annotations/captions_val.json": coco(*names)}
    make_folder(tmp_path, texts, *(f"images/{split}/{name}" for split in ("val", "train") for name in names))
    dataset = read_dataset(tmp_path)
    assert split_of(dataset) == {"train/1.jpg": "train", "train/2.jpg": "train", "val/1.jpg": "dev", "val/2.jpg": "dev"}
    assert files_of(dataset, tmp_path) == {image_id: f"images/{image_id}" for image_id in split_of(dataset)}
    assert dataset.report.ambiguous_images == ()


def test_an_image_is_not_taken_for_its_namesake_of_another_split(tmp_path):
    texts = {"captions_train.json": coco("1.jpg", "2.jpg", "3.jpg"), "captions_val.json": coco("4.jpg")}
    make_folder(tmp_path, texts, "train/1.jpg", "train/2.jpg", "val/3.jpg", "val/4.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.report.missing_images == ("train/3.jpg",)
    assert dataset.report.images_without_captions == ("val/3.jpg",)


def test_coco_images_may_lie_together(tmp_path):
    make_folder(coco_folder(tmp_path), {}, *(f"images/{i}.jpg" for i in (1, 2, 3)))
    for split in ("train2017", "val2017", "test2017"):
        for path in (tmp_path / split).iterdir():
            path.unlink()
    assert files_of(read_dataset(tmp_path), tmp_path) == {
        "train2017/1.jpg": "images/1.jpg",
        "train2017/2.jpg": "images/2.jpg",
        "val2017/3.jpg": "images/3.jpg",
    }


@pytest.mark.parametrize("captions_file", ["", "annotations/captions_val2017.json"])
def test_one_coco_file_is_split_by_hash(tmp_path, captions_file):
    names = [f"{i}.jpg" for i in range(60)]
    make_folder(tmp_path, {VAL: coco(*names)}, *(f"val2017/{name}" for name in names))
    if captions_file:
        make_folder(tmp_path, {TRAIN: coco("a.jpg", "b.jpg")}, "train2017/a.jpg", "train2017/b.jpg")
    dataset = read_dataset(tmp_path, captions_file)
    assert len(dataset.images) == 60
    assert dataset.report.split_rule == BY_HASH
    assert set(split_of(dataset).values()) == {"train", "dev", "test"}


@pytest.mark.parametrize("name", ["labels.json", "_annotations.coco.json", "captions_of_mine.json"])
def test_a_coco_file_of_any_name_is_found(tmp_path, name):
    dataset = read_dataset(make_folder(tmp_path, {name: coco("1.jpg", "a/2.jpg")}, "photos/1.jpg", "photos/a/2.jpg"))
    assert files_of(dataset, tmp_path) == {"1.jpg": "photos/1.jpg", "a/2.jpg": "photos/a/2.jpg"}
    assert (dataset.report.captions_file, dataset.report.split_rule) == (name, BY_HASH)


@pytest.mark.parametrize("name", ["train2017/1.jpg", r"train2017\1.jpg"])
def test_a_coco_name_with_its_folder_stays_as_it_is(tmp_path, name):
    dataset = read_dataset(make_folder(coco_folder(tmp_path), {TRAIN: coco(name, "2.jpg")}))
    assert list(split_of(dataset)) == ["train2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg"]


@pytest.mark.parametrize(
    "more", ["annotations/captions_train2014.json", "annotations/captions_val.json", "old/captions_test2017.json"]
)
def test_coco_files_that_are_not_one_set(tmp_path, more):
    coco_folder(tmp_path)
    if more.startswith("old"):
        make_folder(tmp_path, {more: coco("9.jpg")})
    else:
        make_folder(tmp_path, {more: coco("1.jpg")})
    with pytest.raises(DataError, match=r"several captions files \(.*captions_train2017\.json.*\); name one"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("broken", [TRAIN, VAL])
@pytest.mark.parametrize("text", ['{"images": [{"id": 1,', "", "version https://git-lfs.github.com/spec/v1"])
def test_a_broken_coco_file_is_not_left_out(tmp_path, broken, text):
    make_folder(coco_folder(tmp_path), {broken: text})
    with pytest.raises(DataError, match=rf"{Path(broken).name} is broken JSON: .* line 1, column"):
        read_dataset(tmp_path)
    other = tmp_path / (VAL if broken == TRAIN else TRAIN)
    other.unlink()
    with pytest.raises(DataError, match=rf"{Path(broken).name} is broken JSON: .* line 1, column"):
        read_dataset(tmp_path)


def test_an_image_in_two_splits(tmp_path):
    make_folder(coco_folder(tmp_path), {VAL: coco("train2017/1.jpg", "3.jpg")})
    with pytest.raises(DataError, match=r"captions files put train2017/1\.jpg both into train and into dev; keep one"):
        read_dataset(tmp_path)


def test_no_train_file(tmp_path):
    texts = {"captions_val.json": coco("1.jpg", "2.jpg"), "captions_test.json": coco("3.jpg", "4.jpg")}
    make_folder(tmp_path, texts, *(f"{i}.jpg" for i in (1, 2, 3, 4)))
    with pytest.raises(DataError, match="the captions files name fewer than two train images"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "{}/secret.jpg", "..", "/", "\0.jpg"])
@pytest.mark.parametrize("kind", ["coco", "jsonl"])
def test_no_name_leaves_the_folder(tmp_path, name, kind):
    name = name.format(tmp_path)
    names = ("1.jpg", "2.jpg", name)
    lines = "".join(json.dumps({"file_name": one, "text": "A secret ."}) + "\n" for one in names)
    text = {"captions.json": coco(*names)} if kind == "coco" else {"metadata.jsonl": lines}
    make_folder(tmp_path, {}, "secret.jpg")
    dataset = read_dataset(make_folder(tmp_path / "photos", text, "1.jpg", "2.jpg"))
    assert list(dataset.paths) == ["1.jpg", "2.jpg"]
    assert len(dataset.report.missing_images) == 1


# Karpathy's splits


def karpathy(splits: dict[str, str], folder="") -> str:
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": "One ."}, {"raw": "Two ."}]}
        | ({"filepath": folder} if folder else {})
        for name, split in splits.items()
    ]
    return json.dumps({"images": images, "dataset": "coco"})


def test_karpathy_splits(tmp_path):
    splits = {"1.jpg": "train", "2.jpg": "restval", "3.jpg": "val", "4.jpg": "test", "5.jpg": "other"}
    images = [f"val2014/{name}" for name in splits]
    make_folder(coco_folder(tmp_path), {"dataset_coco.json": karpathy(splits, "val2014")}, *images)
    dataset = read_dataset(tmp_path)  # not COCO's own files, which lie there too
    assert list(split_of(dataset).values()) == ["train", "train", "dev", "test", ""]
    assert files_of(dataset, tmp_path) == {image: image for image in images}
    assert dataset.report.format == "karpathy"
    assert dataset.report.images_in_no_split == ("val2014/5.jpg",)
    assert dataset.captions_of("dev") == ["One .", "Two ."]


def test_captions_files_go_before_lists(tmp_path):
    splits = {"1.jpg": "train", "2.jpg": "train", "3.jpg": "test"}
    lists = {"dataset_flickr8k.json": karpathy(splits), "dev.txt": "1.jpg\n"}
    assert split_of(read_dataset(make_folder(tmp_path, lists, *splits))) == splits


def test_without_splits_lists_count(tmp_path):
    splits = dict.fromkeys(("1.jpg", "2.jpg", "3.jpg"), "")
    lists = {"dataset_flickr8k.json": karpathy(splits), "train.txt": "1\n2\n", "dev.txt": "3\n"}
    assert list(split_of(read_dataset(make_folder(tmp_path, lists, *splits))).values()) == ["train", "train", "dev"]


def test_all_of_karpathy_s_files(tmp_path):
    texts = {f"dataset_{name}.json": karpathy({f"{name}.jpg": "train"}) for name in ("coco", "flickr8k", "flickr30k")}
    with pytest.raises(
        DataError, match=r"several captions files .*dataset_flickr8k\.json.*name one with captions_file"
    ):
        read_dataset(make_folder(tmp_path, texts))


# Hugging Face image folders


@pytest.mark.parametrize("dev", ["validation", "valid", "val", "dev"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("training", "eval"), ("data/Train", "data/Test")])
def test_image_folder_with_splits(tmp_path, train, dev, test):
    names = ("1.jpg", "sub/2.jpg")
    texts = {f"{split}/metadata.csv": metadata(*names) for split in (train, dev, test)}
    images = [f"{split}/{name}" for split in (train, dev, test) for name in names]
    dataset = read_dataset(make_folder(tmp_path, texts, *images))
    assert files_of(dataset, tmp_path) == {image: image for image in images}
    wanted = {train: "train", dev: "dev", test: "test"}
    assert split_of(dataset) == {f"{folder}/{name}": split for folder, split in wanted.items() for name in names}
    assert dataset.report.format == "imagefolder_csv"


def test_image_folder_without_splits(tmp_path):
    lines = '{"file_name": "a/1.jpg", "text": ["One .", "Two ."]}\n{"file_name": "./a/1.jpg", "text": "Three ."}\n'
    texts = {"metadata.jsonl": lines + '{"file_name": "b\\\\1.jpg", "text": "One ."}\n'}
    dataset = read_dataset(make_folder(tmp_path, texts, "a/1.jpg", "b/1.jpg", "c/1.jpg"))
    assert captions_of(dataset) == {"a/1.jpg": ("One .", "Two .", "Three ."), "b/1.jpg": ("One .",)}
    assert dataset.report.images_without_captions == ("c/1.jpg",)
    assert dataset.report.split_rule == BY_HASH


@pytest.mark.parametrize("folders", [("train",), ("train/a", "train/b"), ("cats", "dogs")])
def test_image_folders_that_hold_nothing_out_are_split_by_hash(tmp_path, folders):
    names = [f"{i}.jpg" for i in range(60)]
    texts = {f"{folder}/metadata.csv": metadata(*names) for folder in folders}
    dataset = read_dataset(make_folder(tmp_path, texts, *(f"{folder}/{name}" for folder in folders for name in names)))
    assert len(dataset.images) == 60 * len(folders)
    assert dataset.report.split_rule == BY_HASH
    assert Counter(split_of(dataset).values())["dev"] > 0


def test_a_file_name_starts_from_its_metadata(tmp_path):
    texts = {"cats/metadata.csv": metadata("1.jpg", "2.jpg"), "dogs/metadata.csv": metadata("1.jpg", "../old/5.jpg")}
    dataset = read_dataset(make_folder(tmp_path, texts, "cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg", "old/5.jpg"))
    assert list(dataset.paths) == ["cats/1.jpg", "dogs/1.jpg", "old/5.jpg"]
    assert dataset.report.missing_images == ("cats/2.jpg",)  # and not the dog of that name
    assert dataset.report.images_without_captions == ("dogs/2.jpg",)


def test_metadata_in_two_formats(tmp_path):
    texts = {
        "train/metadata.csv": metadata("1.jpg"),
        "val/metadata.jsonl": '{"file_name": "1.jpg", "text": "A dog ."}\n',
    }
    with pytest.raises(DataError, match=r"several captions files \(train/metadata\.csv, val/metadata\.jsonl\)"):
        read_dataset(make_folder(tmp_path, texts, "train/1.jpg", "val/1.jpg"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.parquet", "PAR1", r"metadata\.parquet is Parquet"),
        ("metadata.csv", "file_name,label\n1.jpg,0\n", r"metadata\.csv has the columns file_name, label"),
        ("metadata.csv", "", r"metadata\.csv is in no format .* it is empty"),
    ],
)
def test_metadata_that_cannot_be_read_is_said(tmp_path, name, text, message):
    make_folder(tmp_path, {name: text}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path, name)
    make_folder(tmp_path, {"ours.tsv": "1.jpg\tA dog .\n2.jpg\tA cat .\n"})
    assert read_dataset(tmp_path).report.captions_file == "ours.tsv"


def test_one_of_several_metadata_files_without_captions(tmp_path):
    texts = {"train/metadata.csv": metadata("1.jpg", "2.jpg"), "val/metadata.csv": "file_name,label\n1.jpg,0\n"}
    with pytest.raises(DataError, match=r"metadata\.csv has the columns file_name, label"):
        read_dataset(make_folder(tmp_path, texts, "train/1.jpg", "train/2.jpg", "val/1.jpg"))


# What it costs


def test_the_folder_is_walked_once_and_no_image_is_looked_at(tmp_path, monkeypatch):
    folder = coco_folder(tmp_path)
    walked, looked_at = [], []
    scandir, stat = os.scandir, Path.stat
    monkeypatch.setattr(files.os, "scandir", lambda path: walked.append(str(path)) or scandir(path))
    monkeypatch.setattr(Path, "stat", lambda path, **options: looked_at.append(path.name) or stat(path, **options))
    assert len(read_dataset(folder).images) == 3
    assert sorted(walked) == sorted(map(str, [folder, *(path for path in folder.iterdir() if path.is_dir())]))
    assert [name for name in looked_at if name.endswith(".jpg")] == []


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
