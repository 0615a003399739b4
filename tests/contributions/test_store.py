"""The store in ordinary use: what is kept, in which order, what goes, what a backup holds."""

import sqlite3
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lcm.contributions.store import DATABASE, Contribution, ContributionStore
from lcm.errors import BadImageError, ConfigError, DataError, StoreDamagedError
from tests.fakes.contributed import files_of, picture, sha256
from tests.fakes.mirror_targets import due


def test_what_is_added_is_there_in_a_store_opened_anew(store):
    data = picture(1, "JPEG", side=9)
    added = store.add(data, " A dog\nruns\x00 ", "en-GB", "http:Łucja 李", "C:\\photos/Müller's dog.jpeg")
    assert added == Contribution(
        id=1,
        image_sha256=sha256(data),
        image_format="jpeg",
        image_bytes=len(data),
        width=9,
        height=9,
        caption="A dog runs",
        caption_sent=" A dog\nruns\x00 ",
        language="en-gb",
        source="http:Łucja 李",
        received=added.received,
        file_name="Müller's dog.jpeg",
    )
    assert added.contributor == "Łucja 李"
    for opened in (store, ContributionStore(store.folder)):
        assert opened.get(1) == added
        assert opened.read_image(added) == data


def test_the_default_folder_is_in_the_state_folder_and_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "50% off? #1 & été"))
    store = ContributionStore()
    assert store.folder == tmp_path / "50% off? #1 & été" / "contributions"
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700  # originals hold GPS positions
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.add(picture(1), "A dog").id == 1


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp")])
def test_e17_f01_f02_an_image_is_called_by_its_hash_and_what_it_is_and_stays_as_it_was_sent(kind, suffix, store):
    data = picture(1, kind) + (b"<script>PK\x03\x04" if kind == "JPEG" else b"")
    name = sha256(data) + suffix
    added = store.add(data, "A dog")
    assert added.image_file == f"images/{name[:3]}/{name}"
    assert store.read_image(added) == data


BAD_IMAGES = [b"", b"x", b"<html>", b"\x89PNG\r\n\x1a\n", picture(1)[:-20], picture(1, "JPEG")[:200]]
BAD_CAPTIONS = ["", "\u200b", "\x00", "\ud800", "a" * 1001, None]


@pytest.mark.parametrize(
    ("data", "caption", "language", "error"),
    [
        *((data, "A dog", "en", BadImageError) for data in BAD_IMAGES),
        *((picture(1), caption, "en", DataError) for caption in BAD_CAPTIONS),
        (picture(1), "A dog", "../en", DataError),
    ],
)
def test_e01_e02_f04_f05_f08_what_is_refused_leaves_nothing(data, caption, language, error, store):
    before = files_of(store.folder)
    with pytest.raises(error):
        store.add(data, caption, language)
    assert files_of(store.folder) == before


def test_f18_the_same_pair_is_one_contribution(store):
    first = store.add(picture(1), "A dög runs")
    for again in ("A dög runs", "  A dög\truns\u200b", "A do\u0308g runs"):
        assert store.add(picture(1), again, "de", "import") == replace(first, known=True)
    assert list(store.contributions()) == [first]


def test_f19_another_caption_is_another_contribution_of_the_same_image(store):
    first, second = store.add(picture(1), "A dog"), store.add(picture(1), "a dog")
    third = store.add(picture(2), "A dog")
    assert [first.id, second.id, third.id] == [1, 2, 3]
    assert store.of_image(first.image_sha256) == [first, second]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone() == (2,)


def test_h14_the_order_is_that_of_arrival_whatever_the_clock_says(store, monkeypatch):
    times = iter([1.6e9, 1.6e9 - 3600, 4e9, 0.0])
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: next(times))
        for number in range(4):
            store.add(picture(number), f"number {number}")
    found = list(ContributionStore(store.folder).contributions())
    assert [(one.id, one.caption) for one in found] == [(number + 1, f"number {number}") for number in range(4)]
    assert [one.received[:13] for one in found] == ["2020-09-13T12", "2020-09-13T11", "2096-10-02T07", "1970-01-01T00"]


def test_no_connection_is_left_open(store):
    store.add(picture(0), "A dog")
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(DataError):
        store.revoke(999, "asked")
    next(store.contributions())
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_many_rows_are_read_in_pages_and_nobody_waits_for_a_reader_that_pauses(store, monkeypatch):
    monkeypatch.setattr("lcm.contributions.store.PAGE", 3)
    for number in range(10):
        store.add(picture(number), "A dog")
    assert [one.id for one in store.contributions(after=7)] == [8, 9, 10]
    rows = store.contributions()
    assert next(rows).id == 1
    store.revoke(9, "wrong")
    assert [one.id for one in rows] == [2, 3, 4, 5, 6, 7, 8, 10]
    assert due(store) == list(range(1, 11))


# Revocations, approvals, languages


def test_h17_a_revoked_contribution_is_gone_and_a_line_stays(store, cache):
    kept, gone = store.add(picture(1), "A dog"), store.add(picture(2, side=60), "An embarrassing cat\x00")
    store.revoke(store.add(picture(1), "whose image another uses").id, "wrong")
    assert len(store.training_images()) == len(files_of(cache)) == 2
    revoked = store.revoke(gone.id, "asked\nfor")
    assert (revoked.id, revoked.image_sha256, revoked.reason) == (gone.id, gone.image_sha256, "asked for")
    for opened in (store, ContributionStore(store.folder)):
        assert opened.get(gone.id) is None
        assert list(opened.contributions()) == [kept]
        assert opened.read_image(kept) == picture(1)
        assert opened.revoked()[0] == revoked
        assert [one.image_sha256 for one in opened.training_images()] == [kept.image_sha256]
    with pytest.raises(DataError, match="there is no contribution 2"):
        store.read_image(gone)
    assert len(files_of(cache)) == 1
    for data in files_of(store.folder).values():
        assert b"embarrassing" not in data
        assert picture(2, side=60)[100:150] not in data
    assert store.revoke(gone.id, "asked again") == replace(revoked, known=True)


def test_a_revoked_number_is_not_given_again_even_the_last(store):
    for expected in (1, 2, 3):
        added = store.add(picture(2), "A cat")
        assert (added.id, added.known) == (expected, False)  # who was revoked may come again
        store.revoke(added.id, "wrong")
        store = ContributionStore(store.folder)


def test_what_never_was_there_cannot_be_revoked_or_approved(store):
    with pytest.raises(DataError, match="there is no contribution 7"):
        store.revoke(7, "asked")
    number = store.add(picture(1), "A dog").id
    with pytest.raises(DataError, match="there is no contribution 7"):
        store.approve([number, 7])
    assert not store.get(number).approved
    with pytest.raises(DataError, match="the reason holds no letter"):
        store.revoke(number, "")
    assert store.get(number)


def test_approvals_are_noted_and_withdrawn_and_go_with_what_is_revoked(store):
    for number in range(5):
        store.add(picture(number), "A dog")
    store.approve([1, 3, 5])
    store.approve([3], approved=False)
    assert [one.id for one in ContributionStore(store.folder).contributions() if one.approved] == [1, 5]
    store.revoke(5, "wrong")
    assert not store.revoked()[0].approved


def test_a_language_is_corrected_without_revoking(store):
    for number in range(4):
        store.add(picture(number), "Un chien")
    store.set_language([1, 3], "FR")
    store.set_language([3, 4], "fr_ca")
    opened = ContributionStore(store.folder)
    assert [one.language for one in opened.contributions()] == ["fr", "en", "fr-ca", "fr-ca"]
    with pytest.raises(DataError, match="there is no contribution 7"):
        store.set_language([2, 7], "fr")
    with pytest.raises(DataError, match="received the language"):
        store.set_language([2], "français")
    store.revoke(3, "wrong")
    assert (store.get(2).language, store.revoked()[0].language) == ("en", "")


# Training


def test_j01_training_images_come_in_order_of_their_first_arrival_with_captions_by_language(store):
    assert store.training_images() == []
    store.add(picture(2), "A cat")
    store.add(picture(1), "Ein Hund", "de")
    store.add(picture(1), "A dog", "en-us")
    store.add(picture(3), "A horse")
    store.add(picture(2), "A small cat")
    store.revoke(4, "wrong")
    found = store.training_images()
    assert [(image.image_sha256, image.captions, image.contributions[0].id) for image in found] == [
        (sha256(picture(2)), {"en": ("A cat", "A small cat")}, 1),
        (sha256(picture(1)), {"de": ("Ein Hund",), "en": ("A dog",)}, 2),
    ]
    assert [image.path.read_bytes() for image in found] == [picture(2), picture(1)]
    assert found[0].without({1}).captions == {"en": ("A small cat",)}
    assert found[1].without({2, 3}) is None


def test_training_images_are_written_once_and_those_revoked_by_another_machine_go(store):
    store.add(picture(1), "A dog")
    store.add(picture(2), "A cat")
    first, second = (image.path for image in store.training_images())
    written = first.stat().st_mtime_ns
    second.write_bytes(b"cut")
    assert [image.path.read_bytes() for image in store.training_images()] == [picture(1), picture(2)]
    assert first.stat().st_mtime_ns == written
    kept = second.read_bytes()
    store.revoke(2, "wrong")
    second.write_bytes(kept)  # as if the revocation had been made elsewhere
    store.training_images()
    assert not second.exists()


def test_j05_an_image_that_cannot_be_read_has_no_file_for_training(store):
    for number in (1, 2):
        store.add(picture(number), "A dog")
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE images SET data = x'00' WHERE image_sha256 = ?", (sha256(picture(2)),))
    opened = ContributionStore(store.folder)
    with pytest.raises(StoreDamagedError, match="the image of contribution 2 is not what was sent"):
        opened.read_image(opened.get(2))
    assert [image.path.exists() for image in opened.training_images()] == [True, False]


# What a mirror has to do


def test_h17_a_revocation_is_to_be_mirrored_before_all_else(store, monkeypatch):
    monkeypatch.setattr("lcm.contributions.store.MIRROR_PAGE", 2)
    first, second, third = (store.add(picture(number), "A dog") for number in range(3))
    gone = store.revoke(third.id, "asked")
    assert list(store.to_mirror()) == [([second, gone], {2: 1, 3: 2}), ([first], {1: 1})]
    store.set_mirrored({2: 1, 3: 1})  # by a mirror that was just copying: the revocation is due all the same
    assert due(store) == [3, 1]
    store.set_mirrored({3: 2})
    assert due(store) == [1]


# Backups


def test_h11_a_backup_is_one_file_that_is_a_store_when_copied_back(store, tmp_path):
    for number in range(4):
        store.add(picture(number), "A dog")
    store.approve([2])
    store.revoke(4, "asked")
    assert store.backup(tmp_path / "backup.sqlite") == 3
    store.add(picture(9), "later")
    folder = tmp_path / "restored"
    folder.mkdir()
    (tmp_path / "backup.sqlite").rename(folder / DATABASE)
    restored = ContributionStore(folder)
    assert [restored.read_image(one) for one in restored.contributions()] == [picture(number) for number in range(3)]
    assert [one.id for one in restored.contributions() if one.approved] == [2]
    assert restored.revoked() == store.revoked()
    assert restored.add(picture(10), "A dog").id == 5  # 4 was revoked, and 5 came after the backup


def add_until(folder, done) -> None:
    store, number = ContributionStore(folder), 0
    while not done.is_set():
        number += 1
        store.add(picture(number % 7, side=90), f"number {number}")


def test_h11_a_backup_while_others_write_is_whole(store, tmp_path):
    for number in range(40):
        store.add(picture(number, side=90), "A dog")
    done, folder = threading.Event(), tmp_path / "restored"
    folder.mkdir()
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(add_until, store.folder, done)
        try:
            count = store.backup(folder / DATABASE)
        finally:
            done.set()
    writer.result()
    restored = ContributionStore(folder)
    found = list(restored.contributions())
    assert len(found) == count >= 40
    assert all(sha256(restored.read_image(one)) == one.image_sha256 for one in found)


def test_an_earlier_backup_is_replaced_only_when_asked(store, tmp_path):
    store.add(picture(1), "A dog")
    target = tmp_path / "backup.sqlite"
    assert store.backup(target) == 1
    store.add(picture(2), "A dog")
    assert store.backup(target, replace_it=True) == 2
    before = target.read_bytes()
    for bad in (target, tmp_path, store.path, store.folder / "backup.sqlite"):
        with pytest.raises(ConfigError, match="choose another"):
            store.backup(bad)
    assert target.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"backup.sqlite", "contributions"}
