"""Guards: what a person should look at before a model learns from it, and what passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lcm.config import PrepareConfig
from lcm.contributions.store import ContributedImage, Contribution
from lcm.retraining.select import FEW, find_flagged

LIMITS = PrepareConfig(run_dir="x", misfit_share=0.1)
COLOURS = ("red", "green", "blue")


class ColourScorer:
    """Knows how far an image is of a colour, and how often a text names it."""

    def image_vectors(self, pooled: np.ndarray) -> np.ndarray:
        return np.asarray(pooled, np.float32)

    def text_vectors(self, texts) -> np.ndarray:
        return np.array([[text.split().count(colour) for colour in COLOURS] for text in texts], np.float32)


def sent(number: int, caption: str, source: str = "http", image: int = 0) -> ContributedImage:
    digest = f"{image or number:064x}"
    one = Contribution(number, digest, "png", caption=caption, language="en", source=source)
    return ContributedImage(Path(digest), (one,))


def honest(count: int, first: int = 1, source: str = "http") -> list[ContributedImage]:
    return [sent(number, f"a picture of {number}", source) for number in range(first, first + count)]


def find(images, limits: PrepareConfig = LIMITS, scorer=None, features=None, base=()) -> dict[int, str]:
    return find_flagged(images, limits, scorer, features or {}, {"en": base})


# Texts


def test_j02_every_one_of_hundreds_of_equal_captions_is_a_suspect():
    spam = [sent(number, "buy pills") for number in range(1, 401)]
    found = find([*spam, *honest(200, 401)])
    assert list(found) == list(range(1, 401))
    assert next(iter(found.values())) == "400 of 600 new contributions have this caption; at most 30 may"


def test_case_and_punctuation_make_no_other_caption():
    ways = ("buy pills", "Buy pills!", "BUY, PILLS", "buy  pills …")
    spam = [sent(number, ways[number % 4]) for number in range(1, 41)]
    assert list(find([*spam, *honest(160, 41)])) == list(range(1, 41))


def test_of_few_contributions_a_share_says_nothing():
    assert find([sent(number, "a dog") for number in range(1, FEW + 1)]) == {}
    assert len(find([sent(number, "a dog") for number in range(1, FEW + 2)])) == FEW + 1


# Contributors


def test_what_a_contributor_sends_beyond_the_share_are_suspects_the_latest():
    others = [*honest(10, 81, "http:bob"), *honest(10, 91, "http:li")]
    found = find([*honest(80, 1, "http:ann"), *others])
    assert list(found) == list(range(51, 81))
    assert next(iter(found.values())) == "80 of 100 new contributions are from http:ann; the first 50 train"


def test_in_a_newsroom_of_one_or_two_each_may_send_nearly_all():
    assert find(honest(80, 1, "http:ann")) == {}
    assert find([*honest(80, 1, "http:ann"), *honest(20, 81, "http:bob"), *honest(20, 101, "http")]) == {}


def test_the_latest_are_so_by_arrival_not_by_image():
    """A second caption of the first image came last of all."""
    one, *others = [*honest(11, 1, "http:ann"), sent(13, "b", "http:bob"), sent(14, "c", "http:li")]
    last = sent(12, "once more", "http:ann", image=1).contributions
    both = ContributedImage(one.path, (*one.contributions, *last))
    assert list(find([both, *others], replace(LIMITS, contributor_share=0.1))) == [11, 12]


# Misfits


def coloured(count: int, misfits=()) -> tuple[list[ContributedImage], dict[str, np.ndarray]]:
    """Return captions that name their image's colour, but for those at some places, and the images' colours."""
    random, images, features = np.random.default_rng(0), [], {}
    for place in range(count):
        own, other = place % 3, (place + 1) % 3
        images.append(sent(place + 1, f"{COLOURS[other if place in misfits else own]} number {place}"))
        vector = random.uniform(0, 0.2, 3) * (np.arange(3) != other)  # nothing of the other colour at all
        vector[own] = 1
        features[images[-1].image_id] = vector
    return images, features


def test_a_caption_that_fits_its_image_worse_than_nearly_all_others_is_a_suspect():
    images, features = coloured(120, misfits=(7, 100))
    found = find(images, LIMITS, ColourScorer(), features)
    assert list(found) == [8, 101]
    assert next(iter(found.values())) == "it fits its image worse than 100% of 120 other captions"


def test_a_few_are_compared_with_captions_of_the_base():
    images, features = coloured(4, misfits=(1,))
    base = [f"{COLOURS[place % 3]} thing {place}" for place in range(300)]
    found = find(images, LIMITS, ColourScorer(), features, base)
    assert list(found) == [2]
    assert next(iter(found.values())).endswith("of 100 other captions")


def test_a_caption_is_compared_with_captions_of_its_own_language():
    images, features = coloured(120, misfits=(7, 100))
    ours = [replace(one, language="fr") if one.id > 60 else one for image in images for one in image.contributions]
    images = [ContributedImage(image.path, (one,)) for image, one in zip(images, ours, strict=True)]
    found = find_flagged(images, LIMITS, ColourScorer(), features, {"en": (), "fr": ()})
    assert found == dict.fromkeys((8, 101), "it fits its image worse than 100% of 60 other captions")
    assert list(find_flagged(images, LIMITS, ColourScorer(), features, {"en": ()})) == [8]


def test_too_few_captions_for_the_share_flag_none():
    images, features = coloured(9, misfits=(1,))
    assert find(images, LIMITS, ColourScorer(), features) == {}
    assert list(find(images, LIMITS, ColourScorer(), features, ["a thing"])) == [2]


def test_each_is_listed_once_in_the_order_of_arrival():
    images, features = coloured(60, misfits=(40,))
    spam = [sent(number, "buy pills", "http:ann") for number in range(100, 200)]
    features |= {image.image_id: np.array([1, 0.1, 0.1]) for image in spam}
    found = find([*spam, *images], LIMITS, ColourScorer(), features)
    assert list(found) == [41, *range(100, 200)]


# A batch whose captions belong to other images


def test_a_mixed_up_batch_is_kept_out_whole():
    images, features = coloured(60)
    turned = [*images[1:], *images[:1]]
    mixed = {one.image_id: features[other.image_id] for one, other in zip(images, turned, strict=True)}
    assert find(images, LIMITS, ColourScorer(), features) == {}
    found = find(images, LIMITS, ColourScorer(), mixed)
    assert len(found) == 60
    assert "wrong images" in next(iter(found.values()))
