"""Data sets at an address: what is fetched, what stays, and what is left when something fails."""

import hashlib
import os
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lcm.data import remote
from lcm.data.dataset import load_dataset, resolve, source_name
from lcm.data.remote import Address, explain, fetch
from lcm.errors import ConfigError, DataError

URL = "memory://bucket/photos"
FILES = {"captions.tsv": b"a.png\ta dog\nb.png\ta cat\n", "images/a.png": b"A" * 10, "images/deep/b.png": b"B" * 20}
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCY"


class Driver(MemoryFileSystem):
    """A store of its own for each test, that notes which files were fetched and fails where it is told to."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs = {}, [""]
        self.fetched, self.fault = [], lambda _method, _path: None
        self.alter = lambda infos: infos  # what is said of the files right in the folder

    def ls(self, path, *args, **options):
        self.fault("find", path)
        infos = super().ls(path, *args, **options)
        return self.alter(infos) if path == "/bucket/photos" else infos

    def get_file(self, rpath, lpath, **options):
        self.fetched.append(rpath.removeprefix("/bucket/photos/"))
        self.fault("get", rpath)
        super().get_file(rpath, lpath, **options)
        self.fault("got", lpath)

    def put(self, **files):
        for name, data in files.items():
            self.pipe_file(f"/bucket/photos/{name}", data)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LCM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LCM_DATASET_URL", raising=False)
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def driver(monkeypatch) -> Driver:
    """What every address leads to."""
    one = Driver()
    one.put(**FILES)
    monkeypatch.setattr(Address, "connect", lambda _address: (one, "/bucket/photos"))
    return one


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unreachable(*_) -> None:
    raise ConnectionError("Cannot connect to host store.example:443")


def broken(*_) -> None:
    raise OSError(f"500 from https://key:{SECRET}@store.example/bucket?sig={SECRET}\nRequestId:42")


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def full(*_) -> None:
    raise OSError(28, "No space left on device")


# What is fetched


def test_the_files_are_fetched_into_the_cache(driver, cache, capsys):
    folder = fetch(URL)
    assert folder == cache / hashlib.sha256(URL.encode()).hexdigest()[:16]
    assert contents(folder) == FILES
    assert "fetch: 100%" in capsys.readouterr().err
    assert sorted(driver.fetched) == sorted(FILES)


def test_only_what_is_new_or_changed_is_fetched_and_what_is_gone_is_removed(driver):
    folder = fetch(URL)
    driver.put(**{"images/a.png": b"C" * 10, "images/c.png": b"D"})  # of the same size: its stamp tells
    driver.rm_file("/bucket/photos/images/deep/b.png")
    (folder / "captions.tsv").write_bytes(b"spoilt")
    (folder / "stray.txt").write_bytes(b"x")
    driver.fetched.clear()
    expected = {"captions.tsv": FILES["captions.tsv"], "images/a.png": b"C" * 10, "images/c.png": b"D"}
    assert contents(fetch(URL)) == expected
    assert sorted(driver.fetched) == sorted(expected)
    driver.fetched.clear()
    fetch(URL)
    assert driver.fetched == []


def test_hidden_files_and_marks_of_folders_are_left_out(driver):
    driver.put(**{".git/config": b"x", "images/._a.png": b"x"})
    marks = [{"name": f"/bucket/photos{name}", "size": 0, "type": "file"} for name in ("", "/images", "/images/")]
    driver.alter = lambda infos: [*infos, *marks]
    assert contents(fetch(URL)) == FILES


def test_links_on_a_disk_are_followed_where_they_lead_to_a_file(tmp_path):
    write(tmp_path / "place")
    for name, target in {"c.png": "images/a.png", "d.png": "nowhere", "e": "images"}.items():
        (tmp_path / "place" / name).symlink_to(target)
    os.mkfifo(tmp_path / "place" / "pipe")
    assert contents(fetch(f"file://{tmp_path}/place")) == FILES | {"c.png": FILES["images/a.png"]}


@pytest.mark.parametrize("key", ["ETag", "mtime"])
def test_any_driver_s_stamp_tells_of_a_change(driver, key):
    stamp = "1"
    driver.put(one=b"0123456789")
    driver.alter = lambda _infos: [{"name": "/bucket/photos/one", "size": 10, "type": "file", key: stamp}]
    fetch(URL)
    stamp = "2"
    fetch(URL)
    fetch(URL)
    assert driver.fetched == ["one"] * 2


# What is refused


@pytest.mark.parametrize("name", ["../evil", "images/../../evil", "/evil", "..", "a/..", "a//evil", "x" * 256])
def test_no_name_leaves_the_folder(driver, cache, name):
    folder = fetch(URL)
    driver.alter = lambda infos: [*infos, {"name": f"/bucket/photos/{name}", "size": 1, "type": "file"}]
    if ".." in name:
        assert fetch(URL) == folder  # hidden, and never asked for
    else:
        with pytest.raises(
            DataError, match=r"^memory://bucket/photos (holds '.*evil', which cannot be kept|cannot be k)"
        ):
            fetch(URL)
    assert contents(folder) == FILES
    assert {path.name for path in cache.iterdir()} <= {folder.name, f"{folder.name}.lock", f"{folder.name}.whole"}


def test_a_folder_of_the_cache_is_no_source(cache):
    with pytest.raises(ConfigError, match=r"^data_dir is file://.* is there too: name another folder"):
        fetch(f"file://{cache.parent}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://bucket", "^LCM_DATASET_URL: unknown protocol nonsense://; choose from az://"),
        ("s3://bucket?versionId=1", "^LCM_DATASET_URL must be one address"),
        ("s3://bucket", "^LCM_DATASET_URL: s3:// cannot be used yet: Install s3fs to access S3"),
    ],
)
def test_bad_addresses_and_missing_drivers(url, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=message):
        fetch(url, "LCM_DATASET_URL")


# What fails


def test_an_error_is_told_by_its_classes_and_never_by_the_driver_s_text():
    class ClientError(Exception):
        pass

    error = PermissionError(13, f"denied to {SECRET}", f"s3://{SECRET}")
    error.__cause__ = ClientError(f"Signature {SECRET}")
    assert explain(error) == (
        "PermissionError from ClientError (Permission denied; check the credentials and what they allow)"
    )
    assert explain(ConnectionResetError(f"to {SECRET}")) == "ConnectionResetError (check the network and the address)"
    assert explain(ValueError(SECRET)) == "ValueError"


@pytest.mark.parametrize("fault", [unreachable, broken])
def test_a_whole_copy_is_used_when_the_network_fails_and_stderr_says_so(driver, capsys, fault):
    driver.fault = fault
    with pytest.raises(DataError) as caught:
        fetch(URL)
    message = str(caught.value)
    assert message.startswith("memory://bucket/photos cannot be read: ")
    assert "check the address, the credentials and the network, then run this again" in message
    driver.fault = lambda *_: None
    fetch(URL)
    driver.put(**{"captions.tsv": b"other", "images/new.png": b"new"})
    driver.fault = fault
    folder = fetch(URL)
    assert contents(folder) == FILES
    said = capsys.readouterr().err
    assert "lcm: memory://bucket/photos cannot be read (" in said
    assert f"its copy in {folder} is used" in said
    assert SECRET not in message + said
    driver.fault = lambda *_: None
    assert contents(fetch(URL)) == FILES | {"captions.tsv": b"other", "images/new.png": b"new"}


@pytest.mark.parametrize("fault", [unreachable, interrupt])
@pytest.mark.parametrize("method", ["get", "got"])
@pytest.mark.parametrize("file", [1, 2])
def test_an_update_that_is_broken_off_keeps_what_it_has_and_is_never_used_as_it_is(
    driver, monkeypatch, fault, method, file
):
    """A kill leaves the same: what is on the disk is never undone on the way out."""
    monkeypatch.setattr(remote, "AT_ONCE", 1)
    fetch(URL)
    new = {"captions.tsv": b"other", "images/a.png": b"C" * 10, "images/c.png": b"D"}
    driver.put(**new)
    driver.rm_file("/bucket/photos/images/deep/b.png")
    calls = []

    def fail(at: str, _path: str) -> None:
        calls.append(at)
        if at == method and calls.count(at) == file:
            fault()

    driver.fault = fail
    with pytest.raises((DataError, KeyboardInterrupt)):
        fetch(URL)
    driver.fault = unreachable
    with pytest.raises(DataError, match="files that were fetched are kept"):
        fetch(URL)
    driver.fault = lambda *_: None
    driver.fetched.clear()
    assert contents(fetch(URL)) == new
    assert len(driver.fetched) == len(new) - (file - 1)


def test_a_folder_that_is_empty_not_there_or_cannot_be_listed_removes_nothing(driver, capsys):
    folder = fetch(URL)
    driver.fault = lambda _method, path: unreachable() if path.endswith("deep") else None  # fsspec's `find` omits it
    assert contents(fetch(URL)) == FILES
    assert "cannot be read (ConnectionError" in capsys.readouterr().err
    driver.fault = lambda *_: None
    driver.rm("/bucket/photos", recursive=True)
    assert contents(fetch(URL)) == contents(folder) == FILES
    driver.makedirs("/bucket/photos")
    assert contents(fetch(URL)) == FILES
    assert "is the bucket, container or folder there?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "fault", "message"),
    [
        ("got", lambda path: os.truncate(path, 3), "did not arrive whole"),
        ("get", full, r"cannot be kept in .*datasets \(No space left on device\).*LCM_CACHE"),
    ],
)
def test_half_a_file_is_never_taken_and_a_full_disk_is_told_as_one(driver, method, fault, message):
    driver.fault = lambda at, path: fault(path) if at == method else None
    with pytest.raises(DataError, match=message):
        fetch(URL)


# data_dir


def write(place: Path, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


@pytest.mark.usefixtures("driver")
def test_base_is_what_the_variable_names(monkeypatch, tmp_path, capsys, cache):
    monkeypatch.setenv("LCM_DATASET_URL", f" {URL} ")
    assert resolve("base") == URL
    dataset = load_dataset("base")
    assert dataset == load_dataset(URL, "captions.tsv")
    assert {image.image_id: image.captions for image in dataset.images} == {"a.png": ("a dog",), "b.png": ("a cat",)}
    assert all(image.path.is_relative_to(cache) and image.path.is_file() for image in dataset.images)
    write(tmp_path / "place")
    monkeypatch.setenv("LCM_DATASET_URL", str(tmp_path / "place"))
    assert len(load_dataset("base").images) == 2
    assert source_name("base") == "place"
    assert "sample" not in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, " ", "sample"])
def test_the_sample_stands_in_for_the_base_and_stderr_says_so(monkeypatch, tmp_path, capsys, value):
    drawn = []
    monkeypatch.setattr("lcm.data.dataset.generate", lambda folder: drawn.append(folder) or tmp_path / "place")
    write(tmp_path / "place")
    if value is not None:
        monkeypatch.setenv("LCM_DATASET_URL", value)
    assert resolve("base") == source_name("base") == "sample"
    load_dataset("base")
    assert "the generated sample stands in for the base data set" in capsys.readouterr().err
    load_dataset("sample")
    assert capsys.readouterr().err == ""
    assert [folder.name for folder in drawn] == ["sample", "sample"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/flickr8k/", "flickr8k"),
        ("memory://", "memory"),
        (f"s3://key:sec/r@et{SECRET}@bucket/photos", "photos"),
        (f"https://{SECRET}@host", "host"),
        (f"https://host/photos?sig={SECRET}", "photos"),
        ("abfs://container@account.dfs.core.windows.net/photos", "photos"),
        ("photos/holiday", "holiday"),
    ],
)
def test_the_source_s_name_holds_no_path_and_no_credentials(url, name, monkeypatch):
    assert source_name(url) == name
    monkeypatch.setenv("LCM_DATASET_URL", url)
    assert source_name("base") == name


@pytest.mark.parametrize("url", [f"sftp://user:{SECRET}@host/photos", f"https://{SECRET}@host/photos"])
def test_credentials_are_for_the_variable_alone(url):
    """The executed notebook shows the parameter."""
    with pytest.raises(ConfigError, match=r"^data_dir may not hold credentials.*set LCM_DATASET_URL") as caught:
        load_dataset(url)
    assert SECRET not in str(caught.value)
