"""Batches: one caption a row or all captions of an image, and features of its further views. No model anywhere."""

from dataclasses import replace

import numpy as np
import pytest

from lcm.data.dataset import LabelledImage
from lcm.data.text import END, PAD, START, UNKNOWN, build_vocabulary
from lcm.features.cache import LabelledFeatures
from lcm.training.batches import MAX_CAPTION_WORDS, CaptionBatches

WORDS = [f"w{chr(97 + place)}" for place in range(20)]
VOCABULARY = build_vocabulary({"en": WORDS}, 1)


def label(lengths: list[list[int]], views: int = 0) -> LabelledFeatures:
    """Images with captions of so many words; an image's features are its number and the view they are from."""
    words = np.random.default_rng(0)
    images = [
        LabelledImage(str(place), None, "train", tuple(" ".join(words.choice(WORDS, length)) for length in its))
        for place, its in enumerate(lengths)
    ]
    store = np.array([[place, view] for view in range(1 + views) for place in range(len(images))], np.float32)
    return LabelledFeatures(images, np.arange(len(store)).reshape(1 + views, -1), store)


def make(labelled: LabelledFeatures, batch_size: int, **options) -> CaptionBatches:
    return CaptionBatches(labelled, VOCABULARY, batch_size, together=True, **options)


def learned(batches: CaptionBatches) -> list[tuple[int, tuple[int, ...]]]:
    """Return the image and the ids, START and END among them, of every caption of an epoch, sorted."""
    return sorted(
        (int(features[0]), (START, *targets[targets != PAD].tolist()))
        for batch in batches.epoch(0, 1)
        for features, texts in zip(batch.features, batch.targets, strict=True)
        for targets in texts
        if (targets != PAD).any()
    )


MIXED = [[3, 5, 2], [4], [], [7, 7, 1, 2, 3], [0, 0], [0, 6], [2, 2], [9]] * 5


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("batch_size", [1, 100])
def test_every_caption_comes_once_with_the_features_of_its_image(together, batch_size):
    labelled = label(MIXED)
    batches = CaptionBatches(labelled, VOCABULARY, batch_size, together=together)
    assert learned(batches) == sorted(
        (place, tuple(VOCABULARY.encode(caption)))
        for place, image in enumerate(labelled.images)
        for caption in image.captions
        if caption
    )
    assert len(list(batches.epoch(0, 1))) == len(batches)


def test_an_image_is_read_once_for_all_its_languages():
    """Images 0 and 1 are one, with captions in two languages; each caption begins with the token of its own."""
    labelled = label([[3], [2, 4], [5]])
    one, same, other = labelled.images
    images = [one, replace(same, image_id=one.image_id, language="fr"), other]
    words = build_vocabulary({"en": WORDS, "fr": WORDS}, 1)
    (batch,) = CaptionBatches(replace(labelled, images=images), words, 9, together=True).epoch(0, 1)
    firsts = batch.inputs[..., 0].tolist()
    rows = {int(image): its for image, its in zip(batch.features[:, 0], firsts, strict=True)}
    assert rows == {0: [words.starts["en"], words.starts["fr"], words.starts["fr"]], 2: [words.starts["en"], PAD, PAD]}


def test_a_batch_by_hand():
    """Image 0 has captions of 1 and 3 words, image 1 has none with words, image 2 one of 2."""
    labelled = label([[1, 3], [0], [2]])
    (batch,) = make(labelled, 3).epoch(0, 1)
    by_image = dict(zip(batch.features[:, 0].tolist(), zip(batch.inputs, batch.targets, strict=True), strict=True))
    texts = (*labelled.images[0].captions, *labelled.images[2].captions)
    first, second, third = (VOCABULARY.encode(text)[1:-1] for text in texts)
    assert by_image.keys() == {0, 2}
    assert by_image[0][0].tolist() == [[START, *first, END, PAD], [START, *second]]
    assert by_image[0][1].tolist() == [[*first, END, PAD, PAD], [*second, END]]
    assert by_image[2][0].tolist() == [[START, *third, END], [PAD] * 4]
    assert by_image[2][1].tolist() == [[*third, END, PAD], [PAD] * 4]
    assert batch.positions == 2 + 4 + 3
    assert batch.inputs.dtype == batch.targets.dtype == np.int32


@pytest.mark.parametrize(("batch_size", "images"), [(1, 1), (5, 1), (15, 3), (17, 3), (18, 4), (1000, 40)])
def test_a_batch_holds_about_as_many_captions_as_its_size_says(batch_size, images):
    batches = make(label([[4] * 5] * 40), batch_size)
    assert max(len(batch.inputs) for batch in batches.epoch(0, 1)) == images


@pytest.mark.parametrize("together", [False, True])
def test_a_caption_too_long_is_cut(together):
    batches = CaptionBatches(label([[60, 2]]), VOCABULARY, 9, together=together)
    assert sum(batch.positions for batch in batches.epoch(0, 1)) == MAX_CAPTION_WORDS + 1 + 3


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, number: int) -> list:
        batches = make(label([[3, 3]] * 20, views=3), 4, word_dropout=0.3, view_share=0.5)
        return [(batch.features.tolist(), batch.inputs.tolist()) for batch in batches.epoch(seed, number)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


# Views and hidden words


@pytest.mark.parametrize("together", [False, True])
def test_a_share_of_the_rows_is_read_from_further_views(together):
    labelled = label([[2, 2]] * 600, views=3)
    batches = CaptionBatches(labelled, VOCABULARY, 40, together=together, view_share=0.6)
    views = np.concatenate([batch.features[:, 1] for batch in batches.epoch(0, 1)]).astype(int)
    shares = np.bincount(views, minlength=4) / (600 if together else 1200)
    assert shares == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.06)  # 3 standard deviations of 0.4 over 600


def test_word_dropout_hides_inputs_and_never_targets():
    labelled = label([[5, 7]] * 20)
    plain, some = (CaptionBatches(labelled, VOCABULARY, 8, word_dropout=share) for share in (0.0, 0.5))
    words = hidden = 0
    assert sum(batch.targets.sum() for batch in some.epoch(0, 1)) == sum(b.targets.sum() for b in plain.epoch(0, 1))
    for batch in some.epoch(0, 1):
        assert (batch.inputs[..., 0] == START).all()
        shifted = np.append(batch.inputs[..., 1:], np.full((len(batch.inputs), 1, 1), PAD), axis=2)
        changed = (shifted != batch.targets) & (batch.targets != END) & (batch.targets != PAD)
        assert (shifted[changed] == UNKNOWN).all()
        words += np.count_nonzero((batch.targets != END) & (batch.targets != PAD))
        hidden += np.count_nonzero(changed)
    assert 0.35 < hidden / words < 0.65
