"""Retrieval recall worked by hand, against a plain count over the whole matrix, and where models must not profit."""

import numpy as np
import pytest

from lcm.evaluation.tags import KS, retrieval


def recalls(*args):
    """Return both recalls at 1, 5 and 10: of images that look for texts, of texts that look for images."""
    found = retrieval(*args)
    assert list(found) == [f"recall_{k}_{name}" for name in ("image_to_text", "text_to_image") for k in KS]
    return tuple(tuple(found[f"recall_{k}_{name}"] for k in KS) for name in ("image_to_text", "text_to_image"))


def directions(*degrees):
    """Return unit vectors [.., 2] by their angle: the smaller the angle between two, the higher their cosine."""
    angles = np.radians(np.array(degrees, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_recall_by_hand():
    # Twelve items, each along its own axis: a query's numbers, over its length, are its cosines with them.
    # Query i looks for item i; before it come 0, 4, 5 and 10 others, and none for the eight remaining queries.
    items = np.eye(12)
    queries = 2 * np.eye(12)
    for query, better in enumerate([0, 4, 5, 10]):
        others = [item for item in range(12) if item != query]
        queries[query, others[:better]] = 3.0
    expected = (9 / 12, 10 / 12, 11 / 12)
    assert recalls(items, unit(queries), np.arange(12))[1] == expected
    assert recalls(unit(queries), items, np.arange(12))[0] == expected


def test_one_near_caption_of_several_is_enough():
    # Images at 0 and 90 degrees. The first has captions at 80 and at 10 degrees, the second at 85 and at 5.
    # Image 0: nearest are 5 (of the other), 10 (own): missed at 1. Image 1: 85 (own) before 80: found.
    # Texts 80 and 5 are nearer to the other's image, 10 and 85 to their own.
    found = recalls(directions(0, 90), directions(80, 85, 10, 5), np.array([0, 1, 0, 1]))
    assert found == ((1 / 2, 1, 1), (2 / 4, 1, 1))


def test_agrees_with_sorting_the_whole_matrix():
    """Texts resemble their images, and owners are in mixed order; recall is far from 0 and from 1."""
    rng = np.random.default_rng(5)
    images, owner = unit(rng.standard_normal((60, 8))), rng.permutation(np.repeat(np.arange(60), 3))
    texts = unit(images[owner] + 0.4 * rng.standard_normal((180, 8)))
    cosines = texts @ images.T  # [K, B]
    to_text, to_image = recalls(images, texts, owner)
    assert 0.1 < to_image[0] < to_text[0] < 1
    for place, k in enumerate(KS):
        own = [image in owner[np.argsort(-cosines[:, image])[:k]] for image in range(60)]
        assert to_text[place] == pytest.approx(np.mean(own))
        own = [owner[text] in np.argsort(-cosines[text])[:k] for text in range(180)]
        assert to_image[place] == pytest.approx(np.mean(own))


@pytest.mark.parametrize("width", [3, 500])
def test_collapsed_model_finds_nothing(width):
    one = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    one /= np.linalg.norm(one)
    owner = np.repeat(np.arange(50), 2)
    assert recalls(np.tile(one, (50, 1)), np.tile(one, (100, 1)), owner) == ((0, 0, 0), (0, 0, 0))


def test_a_tie_with_another_s_is_behind_it_and_zeros_rank_last():
    # Both images are the same, as are a text of each; only the first image has a nearer text beside.
    to_text, to_image = recalls(directions(0, 0), directions(0, 20, 20), np.array([0, 0, 1]))
    assert to_text[0] == 1 / 2  # image 0 by its text at 0 degrees; that text is before the one of image 1
    assert to_image[0] == 0  # both images are as near to any text
    images = directions(0, 90)
    to_text, to_image = recalls(images, np.concatenate([images, np.zeros((1, 2))]), np.array([0, 1, 1]))
    assert (to_text[0], to_image[0]) == (1, 2 / 3)


def test_images_without_texts_are_not_asked_but_can_be_found():
    # The text at 4 degrees is of the image at 0, but the image at 3, which has no text, is nearer to it.
    to_text, to_image = recalls(directions(0, 90, 3), directions(4, 90), np.array([0, 1]))
    assert to_text == (1, 1, 1)
    assert to_image[0] == 1 / 2
