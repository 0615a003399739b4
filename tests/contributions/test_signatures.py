"""Signatures: how copies are looked for among many images."""

import threading

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


def filled(scenes: list[SeenImage]) -> Signatures:
    signatures = Signatures(ENCODER)
    for number, seen in enumerate(scenes):
        signatures.add(name(number), seen)
    return signatures


def test_a_copy_is_found_among_more_images_than_are_compared(scenes):
    assert len(scenes) > CANDIDATES
    signatures = filled(scenes)
    for number in (0, 17, 39):
        assert signatures.copies(scenes[number]) == [name(number)]
        assert signatures.copies(see(alter(scene(number), "corner"))) == [name(number)]
    assert signatures.copies(see(scene(1000))) == []


@pytest.mark.parametrize("gone", [[0], [39], [38, 39, 0], list(range(40))])
def test_what_is_removed_is_gone_and_the_rest_stays(scenes, gone):
    signatures = filled(scenes)
    for number in (*gone, 999):
        signatures.remove(name(number))
    for number, seen in enumerate(scenes):
        assert signatures.copies(seen) == ([] if number in gone else [name(number)])
        assert (name(number) in signatures) == (number not in gone)
    signatures.add(name(500), see(scene(500)))
    assert signatures.copies(see(scene(500))) == [name(500)]


def test_many_threads_may_add_remove_and_look(scenes):
    signatures, errors = filled(scenes[:20]), []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                signatures.add(name(number), scenes[number])
                assert signatures.copies(scenes[number]) == [name(number)]
                assert signatures.copies(scenes[number - 20]) == [name(number - 20)]
                signatures.remove(name(number))
                assert signatures.copies(scenes[number]) == []
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20, 28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
