"""Addresses, what may be told of them, and how objects come to be whole."""

import asyncio
import logging
import os
import threading
import time

import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from lcm.contributions.target import MARKER, Target, TargetError
from lcm.data.remote import HIDDEN, MAX_CHARS, Address, known_secrets, redact
from lcm.errors import ConfigError
from tests.fakes.mirror_fakes import FaultyDisk, FaultyMemory, down, make_target

# Addresses


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("memory://", "memory://"),
        ("memory://bucket/folder", "memory://bucket/folder"),
        ("file:///mnt/disk/lcm", "file:///mnt/disk/lcm"),
        ("az://container/folder", "az://container/folder"),
        ("az://container@account.dfs.core.windows.net/folder", "az://container@account.dfs.core.windows.net/folder"),
        ("s3://key:secret@bucket/folder", "s3://bucket/folder"),
        ("s3://key:sec/r@et@bucket", "s3://bucket"),
        ("gs://bucket", "gs://bucket"),
        ("file:///mnt/a@b/lcm", "file:///mnt/a@b/lcm"),
        ("ftp://user@host/folder", "ftp://host/folder"),
    ],
)
def test_an_address_is_shown_without_credentials(url, name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    assert Address.parse(url, "LCM_STORE_URL").name == name


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket/folder", "choose from az://, abfs://, s3://, gs://, file://, memory://"),
        ("/mnt/disk", "must be one address, as in s3://bucket/folder"),
        ("S3://bucket", "must be one address"),
        ("simplecache::s3://bucket", "must be one address"),
        ("s3://bucket?versionId=1", "must be one address"),
        ("memory://a b", "must be one address"),
        ("s4://bucket", "unknown protocol s4://; choose from az://"),
        ("ldap://user:hunter2@host", "unknown protocol ldap://; choose from az://"),
        ("DefaultEndpointsProtocol=https;AccountKey=hunter2;BlobEndpoint=https://a.b/", "must be one address"),
        ("file://disk/lcm", "after file:// comes an absolute path"),
        ("file://", "after file:// comes an absolute path"),
        ("file:///", "after file:// comes the name of"),
        ("oss://bucket", "oss:// cannot be used yet: Install ossfs"),
    ],
)
def test_a_bad_address_is_an_error_with_the_choices(url, message):
    with pytest.raises(ConfigError) as caught:
        Address.parse(url, "LCM_STORE_URL")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package"), [("az://c", "adlfs"), ("abfs://c", "adlfs"), ("s3://b", "s3fs"), ("gs://b", "gcsfs")]
)
def test_a_missing_driver_is_one_line_with_its_package(url, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    protocol = url[: url.index("//") + 2]
    with pytest.raises(ConfigError, match=f"^LCM_STORE_URL: {protocol} needs {package}; install it with: pip install"):
        Address.parse(url, "LCM_STORE_URL")


def test_a_cloud_takes_no_credentials_from_the_address(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    with pytest.raises(
        TargetError, match=r"^LCM_STORE_URL may not hold credentials; set the environment variables of s3"
    ):
        Target(Address.parse("s3://key:secret@bucket", "LCM_STORE_URL")).put("one", b"1")


def test_drivers_log_nothing_of_their_own():
    Address.parse("memory://", "LCM_STORE_URL").connect()
    assert not logging.getLogger("gcsfs.retry").isEnabledFor(logging.ERROR)


def test_a_real_address_is_connected_to(tmp_path):
    target = Target(Address.parse(f"file://{tmp_path}/new/remote", "LCM_STORE_URL"))
    target.put("folder/one.txt", b"1")
    assert (tmp_path / "new/remote/folder/one.txt").read_bytes() == b"1"
    assert set(target.sizes()) == {MARKER, "folder/one.txt"}


# What may be told

KEY = "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY1"


@pytest.mark.parametrize(
    "text",
    [
        f"login with https://user:{KEY}@host/path failed",
        f"login with user:{KEY}@host failed",
        f"GET https://host/path?sv=2020&sig={KEY} gave 403",
        f"AccountName=acc;AccountKey={KEY}==;EndpointSuffix=x",
        f"Authorization: Bearer {KEY}",
        f"headers {{'Authorization': 'AWS4-HMAC-SHA256 Credential={KEY}/20260101/us, Signature={KEY}'}}",
        f"{{'aws_secret_access_key': '{KEY}', 'token': \"{KEY}\"}}",
        f"password = {KEY}",
        f"the key {KEY} is not valid",
        f"token eyJ{KEY}.{KEY}.x refused",
        "the token 0123456789abcdef0123456789abcdef is not valid".replace("0123456789abcdef", KEY.encode().hex()[:16]),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text):
    told = redact(text)
    assert HIDDEN in told
    for length in range(8, len(KEY)):
        assert KEY[-length:] not in told
    assert KEY.encode().hex()[:16] not in told


@pytest.mark.parametrize(
    "text",
    [
        "The specified bucket does not exist",
        "[Errno 13] Permission denied: '/mnt/disk/contributions/12.json'",
        "Could not connect to the endpoint URL: http://127.0.0.1:5599/bucket/folder/x",
        "An error occurred (InvalidAccessKeyId) when calling the PutObject operation: no such id",
        "Cannot connect to host store.example:443 ssl:default [Connect call failed ('10.0.0.1', 443)]",
    ],
)
def test_what_helps_is_told(text):
    assert redact(text) == text


def test_a_message_is_one_short_line():
    assert redact("one\r\n\ttwo\x1b[31m\u202ethree\x00") == "one two [31m three"
    assert len(redact("word " * 10**6)) <= MAX_CHARS + 2


def test_known_secrets_are_those_of_the_address_and_of_variables_that_say_so():
    environment = {
        "AWS_SECRET_ACCESS_KEY": "plain words",
        "AZURE_STORAGE_CONNECTION_STRING": "AccountName=somebody;AccountKey=open/sesame==;X=https://host",
        "LCM_TOKEN": "let%20me in",
        "HOME": "/home/somebody",
        "USE_TOKEN": "yes",
    }
    secrets = known_secrets("sftp://user:pass%2Fword@host/folder", environment)
    text = "plain words, open/sesame==, let me in, pass/word, pass%2Fword, somebody at /home/somebody said yes"
    assert redact(text, secrets) == "***, ***, ***, ***, ***, somebody at /home/somebody said yes"


# Objects


@pytest.fixture(params=["memory", "disk"])
def target(request, tmp_path):
    return make_target(tmp_path / "remote", request.param)


def test_an_object_is_never_seen_in_part(tmp_path):
    target = make_target(tmp_path / "remote", "disk")
    target.put("folder/one", b"old" * 1000)
    seen = []

    def look(fs, name, _path, _value):
        seen.append((name, fs.cat_file(f"{tmp_path}/remote/folder/one")))

    target.fs.fault = look
    target.put("folder/one", b"new" * 2000)
    assert ("mv", b"old" * 1000) in seen, "whole under another name by then"
    assert {data for _, data in seen} == {b"old" * 1000, b"new" * 2000}
    assert [path.name for path in (tmp_path / "remote/folder").iterdir()] == ["one"]


def test_deleting_what_is_not_there_is_no_error(target):
    target.delete("folder/one")
    assert set(target.sizes()) == {MARKER}


def test_deleting_takes_what_is_not_whole_yet_too(tmp_path):
    target = make_target(tmp_path / "remote", "disk")
    target.put("folder/one.part", b"x")
    target.put("folder/two", b"x")
    target.delete("folder/one")
    assert set(target.sizes()) == {MARKER, "folder/two"}


def test_an_upload_that_lost_its_end_is_told():
    target = make_target(None)

    def cut(fs, name, path, _value):
        if name == "info" and path.endswith("one") and fs.isfile(path):
            fs.store[path].truncate(5)

    target.put("two", b"0123456789")
    target.fs.fault = cut
    with pytest.raises(TargetError, match=r"^one did not arrive whole$"):
        target.put("one", b"0123456789")


def asynchronous_target():
    """A target with an asynchronous driver, as those of the clouds are; while `fs.hangs`, its uploads do."""
    fs = AsyncFileSystemWrapper(FaultyMemory(global_store=False, skip_instance_cache=True), asynchronous=False)
    upload, fs.hangs, fs.cancelled = fs._pipe_file, False, False

    async def pipe_file(*args, **options):
        try:
            await asyncio.sleep(60 if fs.hangs else 0)
        except asyncio.CancelledError:
            fs.cancelled = True
            raise
        return await upload(*args, **options)

    fs._pipe_file = pipe_file
    return Target(Address.parse("memory://bucket", "LCM_STORE_URL"), limit_s=10, connect=lambda: (fs, "/bucket")), fs


def test_an_asynchronous_driver_does_the_same():
    target, fs = asynchronous_target()
    target.put("images/aa/one.jpg", b"1" * 100_000)
    target.put("two", b"22")
    target.delete("two")
    target.delete("two")
    assert set(target.sizes()) == {MARKER, "images/aa/one.jpg"}
    assert target.read("images/aa/one.jpg") == b"1" * 100_000
    made = {name for name, _ in fs.sync_fs.calls}
    assert not made & {"makedirs", "mv"}, "the one may make a bucket, the other copies"


def test_an_asynchronous_upload_that_hangs_is_cancelled():
    target, fs = asynchronous_target()
    target.put("one", b"1")
    fs.hangs, target.limit_s = True, 0.2
    start = time.monotonic()
    with pytest.raises(TargetError, match=r"no answer within 0\.2 s|FSTimeoutError"):
        target.put("two", b"2")
    while target.hangs:
        time.sleep(0.01)
    assert time.monotonic() - start < 30
    assert fs.cancelled
    fs.hangs, target.limit_s = False, 10
    target.put("two", b"2")
    assert set(target.sizes()) == {MARKER, "one", "two"}


def test_a_broken_connection_is_made_anew():
    connections = []

    def connect():
        connections.append(FaultyMemory(global_store=False, skip_instance_cache=True))
        connections[-1].fault = down if len(connections) < 3 else None
        return connections[-1], "/bucket"

    target = Target(Address.parse("memory://bucket", "LCM_STORE_URL"), connect=connect)
    for _ in range(2):
        with pytest.raises(TargetError, match="ConnectionError: Cannot connect"):
            target.put("one", b"1")
    target.put("one", b"1")
    target.put("two", b"2")
    assert len(connections) == 3


def test_each_operation_has_a_thread_that_ends(target):
    before = threading.active_count()
    for number in range(20):
        target.put(f"{number}", b"x")
    assert threading.active_count() <= before


def test_a_failing_flush_is_an_error(tmp_path, monkeypatch):
    target = make_target(tmp_path / "remote", "disk")
    target.put("one", b"1")
    assert isinstance(target.fs, FaultyDisk)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space left on device"):
        target.put("two", b"2")
    assert "two" not in target.sizes()
