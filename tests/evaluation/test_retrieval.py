"""Retrieval recall worked by hand, against a plain count over the whole matrix, and where models must not profit."""

import numpy as np
import pytest

from lcm.errors import DataError
from lcm.evaluation.tags import retrieval

NONE = {1: 0.0, 5: 0.0, 10: 0.0}


def directions(*degrees):
    """Return unit vectors [.., 2] by their angle: the smaller the angle between two, the higher their cosine."""
    angles = np.radians(np.array(degrees, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def noisy_pairs(images=60, texts_each=3, width=8, noise=1.0):
    """Return images, texts that resemble theirs, and owners in mixed order; recall is far from 0 and from 1."""
    rng = np.random.default_rng(5)
    image_vectors = rng.standard_normal((images, width))
    owner = rng.permutation(np.repeat(np.arange(images), texts_each))
    return image_vectors, image_vectors[owner] + noise * rng.standard_normal((len(owner), width)), owner


def plain_recall(image_vectors, text_vectors, owner, k):
    """Return both recalls by sorting the whole matrix [K, B]."""
    unit_images = image_vectors / np.linalg.norm(image_vectors, axis=1, keepdims=True)
    unit_texts = text_vectors / np.linalg.norm(text_vectors, axis=1, keepdims=True)
    cosines = unit_texts @ unit_images.T
    to_text = [image in owner[np.argsort(-cosines[:, image])[:k]] for image in np.unique(owner)]
    to_image = [owner[text] in np.argsort(-cosines[text])[:k] for text in range(len(owner))]
    return np.mean(to_text), np.mean(to_image)


def test_recall_by_hand():
    # Twelve items, each along its own axis: a query's numbers, over its length, are its cosines with them.
    # Query i looks for item i; before it come 0, 4, 5 and 10 others, and none for the eight remaining queries.
    items = np.eye(12)
    queries = 2 * np.eye(12)
    for query, better in enumerate([0, 4, 5, 10]):
        others = [item for item in range(12) if item != query]
        queries[query, others[:better]] = 3.0
    expected = {1: 9 / 12, 5: 10 / 12, 10: 11 / 12}
    assert retrieval(items, queries, np.arange(12)).text_to_image == expected
    assert retrieval(queries, items, np.arange(12)).image_to_text == expected


def test_one_near_caption_of_several_is_enough():
    # Images at 0 and 90 degrees. The first has captions at 80 and at 10 degrees, the second at 85 and at 5.
    # Image 0: nearest are 5 (of the other), 10 (own): missed at 1. Image 1: 85 (own) before 80: found.
    # Texts 80 and 5 are nearer to the other's image, 10 and 85 to their own.
    recall = retrieval(directions(0, 90), directions(80, 85, 10, 5), np.array([0, 1, 0, 1]))
    assert recall.image_to_text == {1: 1 / 2, 5: 1.0, 10: 1.0}
    assert recall.text_to_image == {1: 2 / 4, 5: 1.0, 10: 1.0}


@pytest.mark.parametrize("k", [1, 5, 10])
def test_agrees_with_sorting_the_whole_matrix(k):
    pairs = noisy_pairs()
    to_text, to_image = plain_recall(*pairs, k)
    assert 0.1 < to_image < to_text < 1
    recall = retrieval(*pairs)
    assert (recall.image_to_text[k], recall.text_to_image[k]) == pytest.approx((to_text, to_image))


def test_blocks_do_not_change_the_numbers(monkeypatch):
    pairs = noisy_pairs()
    whole = retrieval(*pairs)
    monkeypatch.setattr("lcm.evaluation.tags.BLOCK_COSINES", 60 * 7)  # 7 of 180 texts at a time, 5 left at the end
    assert retrieval(*pairs) == whole
    monkeypatch.setattr("lcm.evaluation.tags.BLOCK_COSINES", 1)  # fewer cosines than images: still one text
    assert retrieval(*pairs) == whole


def test_length_of_vectors_does_not_count():
    image_vectors, text_vectors, owner = noisy_pairs()
    lengths = np.random.default_rng(6).uniform(0.01, 100, (len(owner), 1))
    assert retrieval(3 * image_vectors, lengths * text_vectors, owner) == retrieval(image_vectors, text_vectors, owner)


@pytest.mark.parametrize("width", [3, 64, 500])
def test_collapsed_model_finds_nothing(width):
    one = np.random.default_rng(0).standard_normal(width).astype(np.float32)
    owner = np.repeat(np.arange(50), 2)
    lengths = np.random.default_rng(1).uniform(0.1, 10, (100, 1)).astype(np.float32)  # rounding must not help either
    recall = retrieval(np.tile(one, (50, 1)), one * lengths, owner)
    assert (recall.image_to_text, recall.text_to_image) == (NONE, NONE)


def test_tie_with_one_other_is_behind_it():
    # Both images are the same, as are a text of each; only the first image has a nearer text beside.
    recall = retrieval(directions(0, 0), directions(0, 20, 20), np.array([0, 0, 1]))
    assert recall.image_to_text[1] == 1 / 2  # image 0 by its text at 0 degrees; that text is before the one of image 1
    assert recall.text_to_image[1] == 0  # both images are as near to any text


def test_vector_of_zeros_ranks_last():
    images = directions(0, 90)
    recall = retrieval(images, np.concatenate([images, np.zeros((1, 2))]), np.array([0, 1, 1]))
    assert recall.text_to_image[1] == 2 / 3
    assert recall.image_to_text[1] == 1


def test_images_without_texts_are_not_asked_but_can_be_found():
    # The text at 4 degrees is of the image at 0, but the image at 3, which has no text, is nearer to it.
    recall = retrieval(directions(0, 90, 3), directions(4, 90), np.array([0, 1]))
    assert recall.image_to_text == {1: 1.0, 5: 1.0, 10: 1.0}
    assert recall.text_to_image[1] == 1 / 2


def test_metrics_are_flat():
    recall = retrieval(directions(0, 90), directions(80, 85, 10, 5), np.array([0, 1, 0, 1]))
    assert recall.as_metrics() == {
        "recall_1_image_to_text": 0.5,
        "recall_5_image_to_text": 1.0,
        "recall_10_image_to_text": 1.0,
        "recall_1_text_to_image": 0.5,
        "recall_5_text_to_image": 1.0,
        "recall_10_text_to_image": 1.0,
    }


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (np.zeros((0, 3)), np.eye(3), "0 images and 3 texts"),
        (np.eye(3), np.zeros((0, 3)), "3 images and 0 texts"),
        (np.eye(3), np.diag([np.nan, 1, 1]), "vector of text 0 .* not finite"),
        (np.diag([1, 1e200, 1]), np.eye(3), "vector of image 1 .* too large"),
    ],
)
def test_unusable_vectors_are_refused(images, texts, message):
    with pytest.raises(DataError, match=message):
        retrieval(images, texts, np.arange(len(texts)))
