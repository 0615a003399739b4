"""From a folder to a data set: where people's files lie, what does not fit, and who trains on what.

Image files are empty here: reading captions never opens an image.
"""

import os
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lcm.data import splits
from lcm.data.dataset import Dataset, LabelledImage, read_dataset
from lcm.data.files import find_files, shorten
from lcm.data.formats import FORMATS
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


def split_of(dataset: Dataset) -> dict[str, str]:
    return {image.image_id: image.split for image in dataset.images}


# Layouts that people download


def test_kaggle_flickr8k(tmp_path):
    folder = make_folder(tmp_path, {"captions.txt": TWO}, "Images/1.jpg", "Images/2.jpg")
    dataset = read_dataset(folder)
    assert dataset.images == (
        LabelledImage("1.jpg", folder / "Images/1.jpg", "train", ("A dog .",)),
        LabelledImage("2.jpg", folder / "Images/2.jpg", "train", ("A cat .",)),
    )
    assert (dataset.report.captions_file, dataset.report.format) == ("captions.txt", "flickr8k_csv")


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
    assert dataset.report.format == "token"
    assert split_of(dataset) == {"1.jpg": "train", "2.jpg": "train", "3.jpg": "dev", "4.jpg": "test"}
    assert dataset.captions_of("test") == ["Caption 0 of 4 .", "Caption 1 of 4 ."]
    assert dataset.paths["1.jpg"] == tmp_path / "Flickr8k_Dataset/Flicker8k_Dataset/1.jpg"
    assert dataset.report.missing_images == ("2258277193_586949ec62.jpg.1",)
    assert dataset.report.images_without_captions == ()


def test_another_captions_file_can_be_named(tmp_path):
    dataset = read_dataset(flickr8k_archive(tmp_path), "Flickr8k_text/Flickr8k.lemma.token.txt")
    assert dataset.captions_of("dev") == ["caption 0 of 3 .", "caption 1 of 3 ."]


def test_kaggle_flickr30k(tmp_path):
    results = (
        "image_name| comment_number| comment\n"
        "1.jpg| 0| A cat .\n"
        "2199200615.jpg| 3| A dog , black and white , runs .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n"
    )
    inner = "flickr30k_images/flickr30k_images"
    make_folder(tmp_path, {"flickr30k_images/results.csv": results}, f"{inner}/1.jpg", f"{inner}/2199200615.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.report.format == "flickr30k_pipes"
    assert (dataset.report.rows, dataset.report.repaired_rows, dataset.report.unreadable_rows) == (3, 1, 0)
    assert [image.captions for image in dataset.images] == [
        ("A cat .",),
        ("A dog , black and white , runs .", "A dog runs across the grass ."),
    ]


def test_a_data_set_that_holds_everything_twice(tmp_path):
    for place in ("images", "images/images"):
        make_folder(tmp_path / place, {"results.csv": TWO}, "1.jpg", "2.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.report.captions_file == "images/results.csv"
    assert dataset.paths == {name: tmp_path / "images" / name for name in ("1.jpg", "2.jpg")}


@pytest.mark.parametrize("name", ["flickr30k/results_20130124.token", "my words.tsv", "Labels.TXT"])
def test_other_captions_files_are_found_by_content(tmp_path, name):
    text = "1.jpg#0\tA dog .\n2.jpg#0\tA cat .\n"
    make_folder(tmp_path, {"readme.txt": "Nothing here, really.\n", name: text}, "a/1.jpg", "a/2.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.report.captions_file == name
    assert len(dataset.images) == 2


def test_folder_may_be_relative_and_is_absolute_afterwards(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos", {"captions.txt": TWO}, "1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    assert read_dataset(Path("photos")).paths["1.jpg"] == tmp_path / "photos/1.jpg"


# Captions files that are not there, or too many


def test_several_captions_files(tmp_path):
    make_folder(tmp_path, {"ours.csv": TWO, "theirs.tsv": "1.jpg\tUn chien .\n2.jpg\tUn chat .\n"}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"ours\.csv, theirs\.tsv.*captions_file"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, "theirs.tsv").images[0].captions == ("Un chien .",)


def test_two_different_files_of_one_known_name(tmp_path):
    make_folder(tmp_path, {"a/captions.txt": TWO, "b/captions.txt": TWO.replace("dog", "wolf")}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"a/captions\.txt, b/captions\.txt.*captions_file"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, "b/captions.txt").images[0].captions == ("A wolf .",)


def test_a_known_name_goes_before_others(tmp_path):
    make_folder(tmp_path, {"captions.txt": TWO, "a.csv": TWO.replace("dog", "wolf")}, "1.jpg", "2.jpg")
    assert read_dataset(tmp_path).report.captions_file == "captions.txt"


def test_a_known_name_in_no_format_does_not_hide_another_file(tmp_path):
    make_folder(tmp_path, {"captions.txt": "Captions are in the other file.\n", "a.csv": TWO}, "1.jpg", "2.jpg")
    assert read_dataset(tmp_path).report.captions_file == "a.csv"


def test_no_captions_file(tmp_path):
    make_folder(tmp_path, {"notes.txt": "Dear diary, nothing.\n"}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"no captions file \(found notes\.txt\)") as error:
        read_dataset(tmp_path)
    assert all(known.description in str(error.value) for known in FORMATS.values())
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(DataError, match="no text file at all"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "name", ["nothing.txt", "Images", "../outside.csv", "Images/../../outside.csv", "{}/outside.csv"]
)
def test_captions_file_must_be_a_file_in_the_folder(tmp_path, name):
    folder = make_folder(tmp_path / "photos", {"captions.txt": TWO}, "Images/1.jpg", "Images/2.jpg")
    (tmp_path / "outside.csv").write_text(TWO)
    with pytest.raises(DataError, match=r"has no captions file .*name one inside the folder"):
        read_dataset(folder, name.format(tmp_path))


def test_captions_file_by_other_spellings(tmp_path):
    folder = make_folder(tmp_path, {"texts/captions.txt": TWO}, "1.jpg", "2.jpg")
    for name in ("texts/captions.txt", "./texts/../texts/captions.txt", str(folder / "texts/captions.txt")):
        assert read_dataset(folder, name).report.captions_file == "texts/captions.txt"


def test_captions_file_in_no_format(tmp_path):
    folder = make_folder(tmp_path, {"captions.txt": TWO, "notes.txt": "Dear diary\n"}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"notes\.txt is in no format"):
        read_dataset(folder, "notes.txt")


def test_data_dir_that_is_no_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_dataset(tmp_path / "nowhere")


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
    assert dataset.report.as_metrics() == {
        "captions_file": "captions.txt",
        "captions_format": "flickr8k_csv",
        "split_rule": "by hash of image_id: 80 % train, 10 % dev, 10 % test",
        "rows": 8,
        "repaired_rows": 0,
        "unreadable_rows": 1,
        "empty_captions": 2,
        "missing_images": 1,
        "images_without_captions": 1,
        "ambiguous_images": 0,
        "images_in_no_split": 0,
    }
    text = str(dataset.report)
    assert "missing images: lost.jpg" in text
    assert "images without captions: Images/unlabelled.png" in text
    left_out = 2 + 1 + 2  # empty, unreadable, of the missing image
    assert sum(len(image.captions) for image in dataset.images) + left_out == dataset.report.rows


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    make_folder(tmp_path, {}, "été/1.jpg", "été/2.jpg")
    (tmp_path / "captions.csv").write_bytes(csv_of("été/1.jpg", "été/2.jpg").encode(encoding))
    assert read_dataset(tmp_path).images[0].captions == ("Caption of été/1.jpg",)


def test_file_names_as_macos_writes_them(tmp_path):
    decomposed = unicodedata.normalize("NFD", "été.jpg")
    assert decomposed != "été.jpg"
    make_folder(
        tmp_path,
        {"captions.txt": csv_of("été.jpg", "1.jpg"), "train.txt": unicodedata.normalize("NFD", "été\n1.jpg\n")},
        f"Images/{decomposed}",
        "Images/1.jpg",
    )
    dataset = read_dataset(tmp_path)
    assert dataset.paths["été.jpg"].exists()
    assert split_of(dataset) == {"été.jpg": "train", "1.jpg": "train"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are not Unicode")
def test_a_file_name_that_is_not_text_can_be_reported(tmp_path):
    make_folder(tmp_path, {"captions.txt": TWO}, "1.jpg", "2.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    assert str(read_dataset(tmp_path).report).encode().endswith(rb"images without captions: caf\udce9.jpg")


def test_an_image_named_twice_in_the_folder(tmp_path):
    make_folder(tmp_path, {"texts/captions.txt": TWO}, "b/c/1.jpg", "b/1.jpg", "a/2.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.paths["1.jpg"] == tmp_path / "b/1.jpg"  # the shortest path
    assert dataset.report.ambiguous_images == ("1.jpg",)
    assert dataset.report.images_without_captions == ()


def test_the_image_beside_the_captions_file_goes_before_others(tmp_path):
    make_folder(tmp_path, {"deep/er/captions.txt": TWO}, "1.jpg", "deep/er/1.jpg", "deep/er/2.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.paths["1.jpg"] == tmp_path / "deep/er/1.jpg"
    assert dataset.report.ambiguous_images == ()
    assert dataset.report.images_without_captions == ("1.jpg",)


def test_names_with_folders_find_their_own_image(tmp_path):
    names = ("2019/1.jpg", "2020/1.jpg")
    make_folder(
        tmp_path, {"texts/captions.txt": csv_of(*names)}, *(f"photos/{name}" for name in names), "photos/2021/1.jpg"
    )
    dataset = read_dataset(tmp_path)
    assert dataset.paths == {name: tmp_path / "photos" / name for name in names}
    assert dataset.report.images_without_captions == ("photos/2021/1.jpg",)


def test_an_image_is_not_taken_for_its_namesake_in_a_missing_folder(tmp_path):
    make_folder(
        tmp_path, {"captions.txt": csv_of("2019/1.jpg", "2020/1.jpg", "2019/2.jpg")}, "2019/1.jpg", "2019/2.jpg"
    )
    dataset = read_dataset(tmp_path)
    assert list(dataset.paths) == ["2019/1.jpg", "2019/2.jpg"]
    assert dataset.report.missing_images == ("2020/1.jpg",)


def test_images_may_have_moved_to_another_folder(tmp_path):
    make_folder(tmp_path, {"captions.txt": csv_of("C/old/1.jpg", "C/old/2.jpg")}, "new/1.jpg", "new/2.jpg")
    assert read_dataset(tmp_path).paths == {f"C/old/{i}.jpg": tmp_path / f"new/{i}.jpg" for i in (1, 2)}


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "{}/secret.jpg", "..", "/", ".", "\0.jpg"])
def test_no_name_leaves_the_folder(tmp_path, name):
    name = name.format(tmp_path)
    folder = make_folder(tmp_path / "photos", {"captions.txt": TWO + f"{name},A secret .\n"}, "1.jpg", "2.jpg")
    make_folder(tmp_path, {}, "secret.jpg")
    dataset = read_dataset(folder)
    assert list(dataset.paths) == ["1.jpg", "2.jpg"]
    assert dataset.report.missing_images == (name,)


def test_a_name_may_go_up_inside_the_folder(tmp_path):
    make_folder(
        tmp_path,
        {"texts/captions.txt": csv_of("../images/1.jpg", "../images/2.jpg")},
        "images/1.jpg",
        "images/2.jpg",
        "1.jpg",
    )
    assert read_dataset(tmp_path).paths == {f"../images/{i}.jpg": tmp_path / f"images/{i}.jpg" for i in (1, 2)}


def test_shorten():
    assert shorten([]) == ""
    assert shorten(list("abcde")) == "a, b, c, d, e"
    assert shorten(list("abcdefg")) == "a, b, c, d, e and 2 more"


# The least that can train


def test_no_image_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 images with captions.*names 2, of which 2 have no image file"):
        read_dataset(make_folder(tmp_path, {"captions.txt": TWO}))


def test_one_image_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"holds 1 image with captions, and training needs two"):
        read_dataset(make_folder(tmp_path, {"captions.txt": TWO}, "1.jpg"))


def test_a_header_alone_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds 0 images with captions"):
        read_dataset(make_folder(tmp_path, {"captions.txt": "image,caption\n"}, "1.jpg"))


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("1.jpg", "20.jpg"), ("20.jpg", "11.jpg")])
def test_two_images_both_train(tmp_path, names):
    dataset = read_dataset(make_folder(tmp_path, {"captions.txt": csv_of(*names)}, *names))
    assert split_of(dataset) == dict.fromkeys(names, "train")


# Splits by hash

# First 16 hex digits of the SHA-256 of the name, from `printf %s NAME | sha256sum`, modulo ten: 0-7, 8, 9.
KNOWN_SPLITS = {
    "1.jpg": "train",  # 4c468b3b16999fd9: 5
    "9.jpg": "train",  # b62c91d2ac6c6b59: 7
    "photos/été.jpg": "train",  # 6d9040c0b90ea552: 0
    "20.jpg": "dev",  # 8c59d75a459c34de: 8
    "26.jpg": "dev",  # 08adb595ca83340c: 8
    "11.jpg": "test",  # 7bf39d62b2d205ff: 9
    "21.jpg": "test",  # a2adc733fbd8ea5d: 9
}


def test_hash_split_has_known_answers():
    assert {name: splits.hash_split(name) for name in KNOWN_SPLITS} == KNOWN_SPLITS


def test_hash_split_gives_eight_tenths_one_and_one():
    counts = Counter(splits.hash_split(f"image {i}.jpg") for i in range(10_000))
    # The standard deviation of each share is at most 0.4 %.
    assert counts["train"] == pytest.approx(8000, abs=150)
    assert counts["dev"] == pytest.approx(1000, abs=150)
    assert counts["test"] == pytest.approx(1000, abs=150)


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


def test_contradictory_lists(tmp_path):
    make_folder(tmp_path, {"captions.txt": TWO, "train.txt": "1.jpg\n2.jpg\n", "test.txt": "2\n"}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"put 2 both into .* and into .*; keep one"):
        read_dataset(tmp_path)


def test_two_lists_of_one_split_may_agree(tmp_path):
    make_folder(
        tmp_path, {"captions.txt": TWO, "train.txt": "1\n2\n", "dev.txt": "9\n", "val.txt": "9.jpg\n"}, "1.jpg", "2.jpg"
    )
    assert set(split_of(read_dataset(tmp_path)).values()) == {"train"}


def test_lists_that_leave_nothing_to_train_on(tmp_path):
    make_folder(tmp_path, {"captions.txt": TWO, "train.txt": "1.jpg\n", "test.txt": "2.jpg\n"}, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match="fewer than two train images"):
        read_dataset(tmp_path)


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


def test_lists_may_name_images_with_blanks_and_commas(tmp_path):
    make_folder(tmp_path, {"train.txt": "my dog, Rex.jpg\nmy cat.jpg\n"})
    assert splits.read_lists(find_files(tmp_path)) == {"my dog, Rex": "train", "my cat": "train"}


def test_a_captions_file_is_no_list(tmp_path):
    folder = make_folder(tmp_path, {"train.txt": "1.jpg\tA\n2.jpg\tB\n"}, "1.jpg", "2.jpg")
    assert read_dataset(folder).report.split_rule.startswith("by hash")


def test_unknown_split():
    with pytest.raises(DataError, match="unknown split 'valid'; choose from train, dev, test"):
        Dataset(()).of("valid")


# Save and load


def test_save_and_load(tmp_path):
    captions = ('She said "go"', "two\u2028lines, \u2029three\x85 four", "tab\tand\\backslash", "été 🐕 हिन्दी", "'")
    dataset = Dataset(
        (
            LabelledImage("été/1.jpg", Path("/photos/été/1.jpg"), "train", captions),
            LabelledImage("2.jpg", Path("/photos/2.jpg"), "", ("A cat .",)),
        )
    )
    dataset.save(tmp_path / "dataset.jsonl")
    assert Dataset.load(tmp_path / "dataset.jsonl") == dataset
    assert (tmp_path / "dataset.jsonl").read_bytes().count(b"\n") == 2


def test_load_before_prepare(tmp_path):
    with pytest.raises(DataError, match="run 01_prepare"):
        Dataset.load(tmp_path / "dataset.jsonl")


def test_without(tmp_path):
    dataset = read_dataset(make_folder(tmp_path, {"captions.txt": TWO}, "1.jpg", "2.jpg"))
    assert dataset.without({"1.jpg"}) == replace(dataset, images=dataset.images[1:])
    assert dataset.without([]) == dataset


# The real thing


def test_real_flickr8k(flickr8k):
    dataset = read_dataset(flickr8k)
    assert len(dataset.images) == 7091
    assert {split: len(dataset.of(split)) for split in splits.SPLITS} == {"train": 6000, "dev": 1000, "test": 0}
    assert {len(image.captions) for image in dataset.images} == {5}
    assert dataset.report == replace(
        dataset.report,
        format="flickr8k_csv",
        rows=5 * 7091,
        repaired_rows=0,
        unreadable_rows=0,
        empty_captions=0,
        missing_images=(),
        images_without_captions=(),
        ambiguous_images=(),
        split_rule="official lists",
    )
    assert len(dataset.report.images_in_no_split) == 91
