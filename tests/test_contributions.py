"""The store of contributions in ordinary use: what is kept, in which order, what goes. Names hold acceptance ids."""

import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from lcm.contributions.records import Contribution, checksum
from lcm.contributions.store import ContributionStore
from lcm.errors import BadImageError, DataError
from tests.fakes.contributed import files_of, image_files, picture, sha256


@pytest.fixture
def store(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "contributions")


def test_what_is_added_is_there_in_a_store_opened_anew(store):
    data = picture(1, "JPEG", side=9)
    added = store.add(data, " A dog\nruns ", "en-GB", "http")
    for opened in (store, ContributionStore(store.folder)):
        found = opened.get(added.id)
        assert found == added
        assert opened.path_of(found).read_bytes() == data
    assert added == Contribution(
        id=1,
        image_sha256=sha256(data),
        image_bytes=len(data),
        image_format="jpeg",
        width=9,
        height=9,
        caption="A dog runs",
        caption_sent=" A dog\nruns ",
        language="en-gb",
        source="http",
        received=added.received,
        usable=True,
        known=False,
    )
    assert added.number == 1
    with pytest.raises(FrozenInstanceError):
        added.caption = "A cat"


def test_the_default_folder_is_in_the_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "home"))
    assert ContributionStore().folder == tmp_path / "home" / "contributions"
    assert stat.S_IMODE((tmp_path / "home" / "contributions").stat().st_mode) == 0o700  # originals hold GPS positions


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp")])
def test_f01_f02_a_file_s_name_is_its_hash_and_its_suffix_the_truth(kind, suffix, store):
    data = picture(1, kind)
    contribution = store.add(data, "A dog")
    name = sha256(data) + suffix
    assert store.path_of(contribution) == store.folder / "images" / name[:3] / name
    assert image_files(store) == [name]


def test_e17_e23_the_bytes_stay_as_they_were_sent(store):
    data = picture(1, "JPEG") + b"<script>PK\x03\x04"
    assert store.path_of(store.add(data, "A dog")).read_bytes() == data


# What is refused leaves nothing


@pytest.mark.parametrize("caption", ["", "\u200b", "\x00", "\ud800", "a" * 1001, None])
def test_f04_f05_f08_a_bad_caption_leaves_nothing(caption, store):
    before = files_of(store.folder)
    with pytest.raises(DataError, match="the caption"):
        store.add(picture(1), caption)
    assert files_of(store.folder) == before


@pytest.mark.parametrize(
    "data", [b"", b"x", b"<html>", b"\x89PNG\r\n\x1a\n", picture(1)[:-20], picture(1, "JPEG")[:200]]
)
def test_e01_e02_a_bad_image_leaves_nothing(data, store):
    before = files_of(store.folder)
    with pytest.raises(BadImageError, match="received"):
        store.add(data, "A dog")
    assert files_of(store.folder) == before


def test_a_bad_language_leaves_nothing(store):
    before = files_of(store.folder)
    with pytest.raises(DataError, match="language"):
        store.add(picture(1), "A dog", "../en")
    assert files_of(store.folder) == before


# Captions


@pytest.mark.parametrize(
    "caption",
    [
        "'); DROP TABLE contributions;--",
        "${jndi:ldap://x}",
        "<script>alert(1)</script>",
        "=1+1",
        "می‌خواهم",
        "👩🏽‍❤️‍👨",
        "a" * 1000,
    ],
)
def test_f09_f11_f12_a_caption_comes_back_as_it_was(caption, store):
    number = store.add(picture(1), caption).id
    assert ContributionStore(store.folder).get(number).caption == caption


def test_f07_no_nul_is_stored_and_what_was_sent_is_kept(store):
    number = store.add(picture(1), "a\x00b\x1b \u202ec").id
    found = ContributionStore(store.folder).get(number)
    assert (found.caption, found.caption_sent) == ("ab c", "a\x00b\x1b \u202ec")
    with sqlite3.connect(store.folder / "contributions.sqlite") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(contributions)")]
        for column in columns:
            assert connection.execute(f"SELECT instr({column}, char(0)) FROM contributions").fetchone()[0] in (0, None)


def test_f18_the_same_pair_is_one_contribution(store):
    first = store.add(picture(1), "A dög runs")
    before = files_of(store.folder)
    for again in ("A dög runs", "  A dög\truns\u200b", "A do\u0308g runs"):
        assert store.add(picture(1), again, "de", "import") == replace(first, known=True)
    assert files_of(store.folder) == before
    assert list(store.contributions()) == [first]


def test_f19_another_caption_is_another_row_and_the_same_file(store):
    first, second = store.add(picture(1), "A dog"), store.add(picture(1), "a dog")
    third = store.add(picture(2), "A dog")
    assert [first.id, second.id, third.id] == [1, 2, 3]
    assert store.of_image(first.image_sha256) == [first, second]
    assert len(image_files(store)) == 2


def test_h14_the_order_is_that_of_arrival_whatever_the_clock_says(tmp_path):
    times = iter([1.6e9, 1.6e9 - 3600, 4e9, 0.0])
    store = ContributionStore(tmp_path / "contributions", clock=lambda: next(times))
    for number in range(4):
        store.add(picture(number), f"number {number}")
    found = list(ContributionStore(store.folder).contributions())
    assert [one.caption for one in found] == [f"number {number}" for number in range(4)]
    assert [one.id for one in found] == [1, 2, 3, 4]
    assert [one.received[:13] for one in found] == ["2020-09-13T12", "2020-09-13T11", "2096-10-02T07", "1970-01-01T00"]


# Many at once


def test_g02_the_same_pair_from_many_threads_is_one_row(store):
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: store.add(picture(1), "A dog"), range(40)))
    assert {one.id for one in added} == {1}
    assert sum(not one.known for one in added) == 1
    assert len(list(store.contributions())) == len(image_files(store)) == 1


def test_two_stores_of_one_folder_see_each_other(store):
    other = ContributionStore(store.folder)
    assert other.add(picture(1), "A dog").id == 1
    assert store.add(picture(1), "A dog").known
    assert store.add(picture(2), "A cat").id == 2
    assert [one.id for one in other.contributions()] == [1, 2]


def test_no_connection_and_no_descriptor_is_left_behind(store):
    store.add(picture(0), "A dog")
    threads = threading.active_count()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        store.add(picture(number), "A dog")
        with pytest.raises(DataError):
            store.add(picture(number), "")
        with pytest.raises(DataError):
            store.revoke(999, "asked")
    list(store.contributions())
    store.check()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert threading.active_count() == threads


# Revoking


def test_h17_a_revoked_contribution_is_gone_and_a_line_stays(store):
    kept, gone = store.add(picture(1), "A dog"), store.add(picture(2), "An embarrassing cat\x00")
    revoked = store.revoke(gone.id, "asked\nfor")
    assert (revoked.id, revoked.image_sha256, revoked.reason) == (gone.id, gone.image_sha256, "asked for")
    for opened in (store, ContributionStore(store.folder)):
        assert opened.get(gone.id) is None
        assert list(opened.contributions()) == [kept]
        assert opened.revocations() == [revoked]
        assert image_files(opened) == [f"{kept.image_sha256}.png"]
    for data in files_of(store.folder).values():
        assert b"embarrassing" not in data


def test_h17_revoking_again_changes_nothing(store):
    number = store.add(picture(1), "A dog").id
    first = store.revoke(number, "asked")
    assert store.revoke(number, "asked again") == first
    assert store.revocations() == [first]


def test_h17_an_image_that_another_contribution_uses_stays(store):
    first, second = store.add(picture(1), "A dog"), store.add(picture(1), "A cat")
    store.revoke(first.id, "wrong")
    assert store.path_of(second).read_bytes() == picture(1)
    store.revoke(second.id, "wrong")
    assert image_files(store) == []


def test_a_revoked_number_is_not_given_again_even_the_last(store):
    store.add(picture(1), "A dog")
    for expected in (2, 3, 4):
        added = store.add(picture(2), "A cat")
        assert (added.id, added.known) == (expected, False)  # who was revoked may come again
        store.revoke(added.id, "wrong")
        store = ContributionStore(store.folder)
    assert store.path_of(store.get(1)).exists()


def test_what_never_was_there_cannot_be_revoked(store):
    with pytest.raises(DataError, match="there is no contribution 7"):
        store.revoke(7, "asked")
    number = store.add(picture(1), "A dog").id
    with pytest.raises(DataError, match="the reason holds no letter"):
        store.revoke(number, "")
    assert store.get(number)


# Training


def test_j01_no_contributions_are_no_training_images(store):
    assert store.training_images() == []
    store.add(picture(1), "Ein Hund", "de")
    assert store.training_images() == []
    assert not store.get(1).usable


def test_training_images_come_in_order_of_their_first_usable_arrival(store):
    store.add(picture(1), "Ein Hund", "de")  # waits
    store.add(picture(2), "A cat")
    store.add(picture(1), "A dog", "en-us")
    store.add(picture(3), "A horse")
    store.add(picture(2), "A small cat")
    gone = store.add(picture(4), "A cow")
    store.revoke(gone.id, "wrong")
    store.revoke(4, "wrong")
    assert [(image.image_sha256, image.captions, image.first_id) for image in store.training_images()] == [
        (sha256(picture(2)), ("A cat", "A small cat"), 2),
        (sha256(picture(1)), ("A dog",), 3),
    ]
    assert [image.path.read_bytes() for image in store.training_images()] == [picture(2), picture(1)]


def test_many_rows_are_read_in_pages(store, monkeypatch):
    monkeypatch.setattr("lcm.contributions.reader.PAGE", 3)
    for number in range(10):
        store.add(picture(number), "A dog")
    assert [one.id for one in store.contributions()] == list(range(1, 11))
    rows = store.contributions()
    next(rows)
    store.revoke(9, "wrong")  # nobody waits for a reader that pauses
    assert [one.id for one in rows] == [2, 3, 4, 5, 6, 7, 8, 10]


def test_what_came_and_went_since_can_be_told(store):
    assert store.state() == (0, 0)
    for number in range(3):
        store.add(picture(number), "a caption")
    assert store.state() == (3, 0)
    assert [one.id for one in store.contributions(after=1)] == [2, 3]
    assert list(store.contributions(after=3)) == []
    store.revoke(3, "wrong")
    assert store.state() == (3, 1)
    store.revoke(1, "wrong")
    assert ContributionStore(store.folder).state() == (3, 2)
    assert [one.id for one in store.contributions(after=0)] == [2]


def test_j05_check_finds_images_that_are_missing_or_altered(store):
    for number in range(4):
        store.add(picture(number), "A dog")
    also = store.add(picture(1), "A cat")
    assert store.check().sound
    assert store.check().contributions == 5
    assert store.check().images == 4
    store.path_of(store.get(2)).unlink()
    store.path_of(store.get(4)).write_bytes(picture(9))
    for opened in (store, ContributionStore(store.folder)):  # opening reads no image
        found = opened.check()
        assert not found.sound
        assert found.missing == (2, also.id)
        assert found.altered == (4,)
    assert store.add(picture(1), "A dog").known  # sent again, an image is put back
    assert store.add(picture(3), "Another").id == 6
    assert store.check().sound


def test_check_calls_nothing_missing_that_is_revoked_meanwhile(store, monkeypatch):
    for number in range(3):
        store.add(picture(number), "A dog")
    real = store.read_image

    def read_image(contribution):
        if contribution.id == 2 and store.get(2):
            store.revoke(2, "just now")
        return real(contribution)

    monkeypatch.setattr(store, "read_image", read_image)
    found = store.check()
    assert (found.contributions, found.missing) == (2, ())


# The outbox


def due(store: ContributionStore, now: float = 0.0, limit: int = 100) -> list[tuple[str, int]]:
    return [(entry.kind, entry.contribution_id) for entry in store.pending(limit, now)]


@pytest.fixture
def mirrored(tmp_path) -> ContributionStore:
    return ContributionStore(tmp_path / "contributions", outbox=True)


def test_without_an_outbox_there_are_no_entries(store):
    store.add(picture(1), "A dog")
    store.revoke(store.add(picture(2), "A cat").id, "wrong")
    assert due(store, 1e12) == []


def test_an_entry_holds_all_that_a_mirror_copies(mirrored):
    added = mirrored.add(picture(1), "A dog\x00")
    (entry,) = mirrored.pending(10, 0.0)
    assert (entry.kind, entry.contribution_id, entry.attempts) == ("put", added.id, 0)
    assert entry.image_path.read_bytes() == picture(1)
    assert entry.image_sha256 == sha256(picture(1))
    assert entry.record == added.as_record()
    assert entry.record["caption_sent"] == "A dog\x00"
    assert "known" not in entry.record
    mirrored.add(picture(1), "A dog")  # known: nothing to copy
    assert len(mirrored.pending(10, 0.0)) == 1


def test_entries_are_settled_and_postponed(mirrored):
    for number in range(5):
        mirrored.add(picture(number), "A dog")
    assert due(mirrored, limit=2) == [("put", 1), ("put", 2)]
    entries = mirrored.pending(10, 0.0)
    mirrored.settle(entries[0].entry_id)
    mirrored.postpone(entries[1].entry_id, 50.0)
    mirrored.postpone(entries[1].entry_id, 60.0)
    mirrored.settle(999)
    mirrored.postpone(999, 5.0)
    opened = ContributionStore(mirrored.folder, outbox=True)
    assert due(opened, 59.9) == [("put", 3), ("put", 4), ("put", 5)]
    assert due(opened, 60.0) == [("put", 2), ("put", 3), ("put", 4), ("put", 5)]
    assert [entry.attempts for entry in opened.pending(10, 60.0)] == [2, 0, 0, 0]


@pytest.mark.parametrize("settled", [False, True])
def test_h17_revoking_replaces_the_put_by_a_delete(settled, mirrored):
    mirrored.add(picture(1), "A dog")
    mirrored.add(picture(2), "A cat")
    put = mirrored.pending(1, 0.0)[0]
    if settled:
        mirrored.settle(put.entry_id)
    gone = mirrored.revoke(1, "asked")
    assert due(mirrored) == [("put", 2), ("delete", 1)]
    entry = mirrored.pending(10, 0.0)[1]
    assert entry.image_path is None
    assert entry.image_sha256 == sha256(picture(1))
    assert entry.record == {
        "id": 1,
        "image_sha256": sha256(picture(1)),
        "image_format": "png",
        "revoked": gone.revoked,
        "reason": "asked",
        "image_file": gone.image_file,
    }
    mirrored.settle(put.entry_id)  # by a mirror that was just copying: the delete is still to be done
    assert due(mirrored) == [("put", 2), ("delete", 1)]
    mirrored.revoke(1, "asked")
    assert due(mirrored) == [("put", 2), ("delete", 1)]
    mirrored.settle(entry.entry_id)
    assert due(ContributionStore(mirrored.folder, outbox=True)) == [("put", 2)]


def test_h17_a_delete_says_whether_the_image_is_in_use_when_it_is_asked(mirrored):
    first = mirrored.add(picture(1), "A dog")
    mirrored.revoke(first.id, "wrong")
    assert mirrored.pending(10, 0.0)[0].image_path is None
    again = mirrored.add(picture(1), "A cat")
    assert mirrored.pending(10, 0.0)[0].image_path == mirrored.path_of(again)


def test_opening_with_an_outbox_tells_the_mirror_of_earlier_contributions(store):
    for number in range(4):
        store.add(picture(number), "A dog")
    store.revoke(2, "wrong")
    opened = ContributionStore(store.folder, outbox=True)
    assert due(opened) == [("put", 1), ("put", 3), ("put", 4)]
    opened.settle(opened.pending(1, 0.0)[0].entry_id)
    store.add(picture(9), "by a process without an outbox")
    store.revoke(3, "by such a process too")
    assert due(opened) == [("put", 4), ("delete", 3)]
    assert due(ContributionStore(store.folder, outbox=True)) == [("put", 4), ("delete", 3), ("put", 5)]


def test_every_contribution_can_be_compared_with_its_copy(mirrored):
    for number in range(3):
        mirrored.add(picture(number), "A dog")
    pending = mirrored.pending(10, 0.0)
    mirrored.settle(pending[0].entry_id)
    assert [replace(entry, entry_id=0) for entry in pending] == list(mirrored.all_puts())


# Rows


def test_a_row_comes_back_as_the_contribution_it_was():
    one = Contribution(7, "a" * 64, 5, "png", 1, 2, "a", "a\x00", "de", "http", "2026-01-01T00:00:00+00:00", False)
    for contribution in (one, replace(one, caption_sent="a", usable=True)):
        assert Contribution.from_row(contribution.as_row()) == contribution


def test_a_checksum_depends_on_every_column_and_on_the_store():
    one = Contribution(7, "a" * 64, 5, "png", 1, 2, "a", "b", "de", "http", "2026-01-01T00:00:00+00:00", False)
    others = [{"id": 8}, {"image_bytes": 6}, {"image_format": "gif"}, {"width": 9}, {"height": 9}, {"caption": "c"}]
    others += [{"caption_sent": "c"}, {"language": "en"}, {"source": "x"}, {"received": "x"}, {"usable": True}]
    found = {checksum("store", replace(one, **change).as_row()) for change in [{}, *others]}
    assert len(found | {checksum("other", one.as_row())}) == len(others) + 2


def test_paths_in_the_middle_of_a_url_are_no_problem(tmp_path):
    store = ContributionStore(tmp_path / "50% off? #1 & été" / "contributions")
    assert store.add(picture(1), "A dog").id == 1
    assert ContributionStore(store.folder).get(1)
    assert {path.name for path in Path(tmp_path).iterdir()} == {"50% off? #1 & été"}
