"""Signatures: how copies are looked for among many images, and what stays on disk."""

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning.description import SeenImage
from lcm.contributions.duplicates import CANDIDATES, Signatures
from lcm.data.images import read_image
from lcm.features.encoders import EncoderIdentity
from tests.fakes.altered import alter, scene

ENCODER = EncoderIdentity("tiny", "pretrained", "0" * 64, (1.0,))


def see(data: bytes) -> SeenImage:
    """Features that change little when an image does: how many of its pixels have each of 64 colours."""
    pixels = read_image(data, 260)
    colours = (pixels // 64).reshape(-1, 3) @ [16, 4, 1]
    return SeenImage(data, pixels, {"pooled": np.bincount(colours, minlength=64).astype(np.float32)})


def name(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture(scope="module")
def scenes() -> list[SeenImage]:
    return [see(scene(seed)) for seed in range(40)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "memory" / "signatures.sqlite"


def filled(path: Path, scenes: list[SeenImage]) -> Signatures:
    signatures = Signatures(path, ENCODER)
    for number, seen in enumerate(scenes):
        signatures.add(name(number), seen)
    return signatures


def test_a_copy_is_found_among_more_images_than_are_compared(path, scenes):
    assert len(scenes) > CANDIDATES
    signatures = filled(path, scenes)
    for number in (0, 17, 39):
        assert signatures.copies(scenes[number]) == [name(number)]
        assert signatures.copies(see(alter(scene(number), "corner"))) == [name(number)]
    assert signatures.copies(see(scene(1000))) == []


def test_the_file_is_read_again_and_only_its_owner_may_look(path, scenes):
    filled(path, scenes).close()
    again = Signatures(path, ENCODER)
    assert again.is_kept
    assert again.count == len(scenes)
    assert again.copies(scenes[7]) == [name(7)]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_each_encoder_has_its_own(path, scenes):
    filled(path, scenes[:8]).close()
    other = Signatures(path, replace(ENCODER, source_sha256="1" * 64))
    assert (other.count, other.copies(scenes[7])) == (0, [])
    assert other.kept() == {name(number) for number in range(8)}


def test_what_is_removed_is_gone_and_the_rest_stays(path, scenes):
    signatures, gone = filled(path, scenes), (0, 5, 39)
    signatures.remove([name(number) for number in gone] + [name(999)])
    again = Signatures(path, ENCODER)
    for number, seen in enumerate(scenes):
        expected = [] if number in gone else [name(number)]
        assert signatures.copies(seen) == again.copies(seen) == expected
    assert signatures.count == again.count == len(scenes) - len(gone)
    signatures.remove(signatures.kept())
    assert signatures.copies(scenes[1]) == []


def test_nothing_of_a_removed_image_stays_in_the_file(path, scenes):
    signatures = filled(path, scenes[:3])
    with sqlite3.connect(path) as connection:
        thumbnail = connection.execute("SELECT thumbnail FROM signatures WHERE image = ?", (name(1),)).fetchone()[0]
    assert thumbnail[:1000] in path.read_bytes()
    signatures.remove([name(1)])
    assert thumbnail[:1000] not in path.read_bytes()
    assert name(1).encode() not in path.read_bytes()


def test_what_another_process_kept_is_adopted(path, scenes):
    first, second = Signatures(path, ENCODER), Signatures(path, ENCODER)
    first.add(name(1), scenes[1])
    assert second.missing([name(1), name(2)]) == [name(1), name(2)]
    assert (second.adopt(name(1)), second.adopt(name(2))) == (True, False)
    assert second.missing([name(1), name(2)]) == [name(2)]
    assert second.copies(scenes[1]) == [name(1)]


@pytest.mark.parametrize("content", [b"no database at all, but longer than a header" * 40, b"", None])
def test_a_damaged_file_is_made_anew(path, scenes, content):
    filled(path, scenes).close()
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    signatures = Signatures(path, ENCODER)
    assert signatures.is_kept
    signatures.add(name(1), scenes[1])
    assert signatures.copies(scenes[1]) == [name(1)]
    assert Signatures(path, ENCODER).copies(scenes[1]) == [name(1)]


def test_where_no_file_can_be_written_it_works_and_is_lost(tmp_path, scenes):
    (tmp_path / "file").write_text("in the way")
    signatures = filled(tmp_path / "file" / "signatures.sqlite", scenes)
    assert not signatures.is_kept
    assert signatures.copies(scenes[7]) == [name(7)]


def test_many_threads_may_add_remove_and_look(path, scenes):
    signatures = filled(path, scenes[:20])

    def work(number: int) -> None:
        for _ in range(5):
            signatures.add(name(number), scenes[number])
            assert signatures.copies(scenes[number]) == [name(number)]
            assert signatures.copies(scenes[number - 20]) == [name(number - 20)]
            signatures.remove([name(number)])
            assert signatures.copies(scenes[number]) == []

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(20, 28)))
    assert signatures.count == 20
