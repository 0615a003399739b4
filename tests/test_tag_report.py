"""The report on a tag scorer whose vectors are known, worked by hand; and results image by image."""

import json
from collections.abc import Sequence
from math import log
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning.tagging import Photo
from lcm.data.dataset import LabelledImage
from lcm.evaluation.metrics import Scores
from lcm.evaluation.report import best_of, collect_results, pick_page, save_results
from lcm.evaluation.tags import TagReport, report_tags
from lcm.features.cache import LabelledFeatures

# Five images in the plane, the first and the last the same; each reference lies on its image. "dog" is in a train
# caption, "sky" in every image, "glorp" cannot be read: the words that were never seen are zebra and kite.
VECTORS = [(1, 0), (0, 1), (0.6, 0.8), (0.8, 0.6), (1, 0)]
REFERENCES = [
    ("a zebra", "zebras in the sky"),
    ("a dog", "two dogs in the sky"),
    ("the zebra", "the sky"),
    ("a kite with a glorp", "kites in the sky"),
    ("one dog", "the dog in the sky"),
]
CAPTIONS = [["a kite", "the zebra"], ["a zebra with a kite"], ["a glorp"], ["the"], ["a dog"]]
TRAIN_CAPTIONS = ["some dogs run"]
WORDS = {"zebra": (1, 0), "kite": (0, 1), "dog": (0.6, 0.8), "sky": (0.8, 0.6), "run": (0, 1)}
SENTENCES = {text: vector for texts, vector in zip(REFERENCES, VECTORS, strict=True) for text in texts}


class PlaneScorer:
    """A tag scorer that has its texts in a table and shows an image's features as they are."""

    name, scale = "plane", log(3)
    texts = WORDS | SENTENCES

    def image_vector(self, photo: Photo) -> np.ndarray:
        return photo.features["pooled"]

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.texts.get(text, (0, 0)) for text in texts], np.float32).reshape(len(texts), 2)

    def unknown(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in texts if text not in self.texts)


def label(references: Sequence[tuple[str, ...]] = REFERENCES) -> LabelledFeatures:
    images = [LabelledImage(f"{i}.jpg", Path(f"{i}.jpg"), "dev", texts) for i, texts in enumerate(references)]
    # the rows lie in the store the other way round, with one of another split among them
    store = np.array([(9, 9), *VECTORS[::-1]], np.float32)
    return LabelledFeatures(images, np.arange(5, 5 - len(images), -1), store)


@pytest.fixture(scope="module")
def report() -> TagReport:
    return report_tags(PlaneScorer(), label(), CAPTIONS, TRAIN_CAPTIONS)


# What was measured


def test_tags_are_the_readable_key_words_with_their_shares(report):
    """Cosines 1 and 0 at a scale of ln 3: 3 to 1."""
    first, second, unreadable, wordless, alone = report.tags
    assert first == (("zebra", pytest.approx(3 / 4)), ("kite", pytest.approx(1 / 4)))
    assert second == (("kite", pytest.approx(3 / 4)), ("zebra", pytest.approx(1 / 4)))
    assert unreadable == wordless == ()
    assert alone == (("dog", 1.0),)


def test_recall_is_that_of_people_s_captions(report):
    """The first and the last image are the same: each finds the other's captions too, and ties count against it."""
    assert report.recall.image_to_text == pytest.approx({1: 3 / 5, 5: 1, 10: 1})
    assert report.recall.text_to_image == pytest.approx({1: 3 / 5, 5: 1, 10: 1})
    assert (report.recall.images, report.recall.texts) == (5, 10)


def test_tags_are_compared_with_what_people_agree_on(report):
    """Gold are zebra, dog, nothing, kite, dog: of four images the first and the last have their tag in front."""
    assert report.comparison.orders["scorer"].scores.map == pytest.approx(2 / 4)
    assert (report.comparison.images, report.comparison.skipped_images) == (4, 1)


def test_words_never_seen_in_training_are_told_apart_by_hand(report):
    """Zebra (1, 0) fits images 0 and 2, cosines 1 and 0.6, against 0, 0.8 and 1: of six pairs three and a tie.

    Kite (0, 1) fits image 3, cosine 0.6, against 0, 1, 0.8 and 0.
    """
    kite, zebra = report.unseen
    assert (kite.word, kite.images) == ("kite", 1)
    assert (kite.fitting, kite.others, kite.auc) == pytest.approx((0.6, 1.8 / 4, 2 / 4))
    assert (zebra.word, zebra.images) == ("zebra", 2)
    assert (zebra.fitting, zebra.others, zebra.auc) == pytest.approx((0.8, 1.8 / 3, 3.5 / 6))
    assert report.unseen_auc == pytest.approx((2 / 4 + 3.5 / 6) / 2)


# How it reads


def test_metrics_are_flat_and_hold_all_parts(report):
    metrics = report.as_metrics()
    assert metrics["recall_1_image_to_text"] == pytest.approx(0.6)
    assert metrics["recall_5_text_to_image"] == 1
    assert metrics["tag_map"] == pytest.approx(0.5)
    assert metrics["unseen_words"] == 2
    assert metrics["unseen_words_auc"] == pytest.approx(13 / 24)
    assert "unseen_words_auc_reason" not in metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_the_table_shows_recall_and_the_unseen_words_of_most_images(report):
    table = report.as_table()
    assert table.startswith(report.comparison.as_table())
    recall, words = table.removeprefix(report.comparison.as_table()).strip().split("\n\n")
    assert recall.splitlines() == [
        "| retrieval | recall@1 | recall@5 | recall@10 |",
        "|---|---|---|---|",
        "| image → text | 0.600 | 1.000 | 1.000 |",
        "| text → image | 0.600 | 1.000 | 1.000 |",
    ]
    assert words.splitlines()[2:] == ["| zebra | 2 | 0.80 | 0.60 | 0.58 |", "| kite | 1 | 0.60 | 0.45 | 0.50 |"]
    assert words.splitlines()[0].count("|") == words.splitlines()[1].count("|") == words.splitlines()[2].count("|")
    assert report.as_table(unseen=1) == table.removesuffix("\n| kite | 1 | 0.60 | 0.45 | 0.50 |")


# Where there is little to measure


def test_without_a_scorer_there_are_no_tags_and_a_reason():
    report = report_tags(None, label(), CAPTIONS, TRAIN_CAPTIONS)
    assert report.tags == [()] * 5
    assert report.as_metrics() == {"tag_map": None, "tag_map_reason": "the bundle has no tag scorer"}
    assert report.as_table() == "the bundle has no tag scorer"


def test_without_images_there_is_a_reason():
    report = report_tags(PlaneScorer(), label([]), [], TRAIN_CAPTIONS)
    assert report.tags == []
    assert report.as_metrics() == {"tag_map": None, "tag_map_reason": "there are no images"}
    assert report.as_table() == "there are no images"


def test_one_image_has_recall_and_reasons_for_the_rest():
    report = report_tags(PlaneScorer(), label(REFERENCES[:1]), CAPTIONS[:1], TRAIN_CAPTIONS)
    metrics = report.as_metrics()
    assert metrics["recall_1_text_to_image"] == 1
    assert metrics["tag_map"] is None
    assert metrics["tag_map_reason"] in report.as_table()
    assert metrics["unseen_words"] == 0  # its words are in every image
    assert metrics["unseen_words_auc"] is None
    assert metrics["unseen_words_auc_reason"]


def test_without_unseen_words_the_table_has_none():
    train_captions = [*TRAIN_CAPTIONS, "a zebra and a kite"]
    report = report_tags(PlaneScorer(), label(), CAPTIONS, train_captions)
    assert report.unseen == ()
    assert "| cosine" not in report.as_table()
    assert "recall@1" in report.as_table()


# Results


IMAGES = [LabelledImage(f"{i}.jpg", Path(f"/photos/{i}.jpg"), "dev", (f"reference {i}",)) for i in range(5)]
TAGS = [(("zebra", 0.75), ("kite", 0.25)), (), (("dog", 1.0),), (), ()]
SCORES = Scores(5, 0, per_image={"cider": [0.1, 0.2, None, 0.4, 0.5]})


def test_the_best_caption_is_the_first():
    assert best_of(CAPTIONS) == ["a kite", "a zebra with a kite", "a glorp", "the", "a dog"]
    assert best_of([]) == []


def test_a_result_has_all_that_was_written_of_an_image(tmp_path):
    results = collect_results(IMAGES, CAPTIONS, TAGS, SCORES)
    first = results[0]
    assert (first.image_id, first.path, first.references) == ("0.jpg", "/photos/0.jpg", ("reference 0",))
    assert (first.caption, first.english_captions) == ("a kite", ("a kite", "the zebra"))
    assert first.tags == TAGS[0]
    assert [one.scores["cider"] for one in results] == SCORES.per_image["cider"]
    save_results(results, tmp_path / "results.jsonl")
    record = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    assert record["tags"] == [["zebra", 0.75], ["kite", 0.25]]
    assert record["english_captions"] == ["a kite", "the zebra"]


@pytest.mark.parametrize(("captions", "tags"), [(CAPTIONS[:4], TAGS), (CAPTIONS, TAGS[:4]), ([*CAPTIONS, ["a"]], TAGS)])
def test_results_of_other_images_are_refused(captions, tags):
    with pytest.raises(ValueError, match=r"zip\(\)"):
        collect_results(IMAGES, captions, tags, SCORES)


def test_a_page_s_photos_are_spaced_evenly_and_no_more_than_there_are():
    results = collect_results(IMAGES, CAPTIONS, TAGS, SCORES)
    pages = pick_page(results, 2)
    assert [(one.image, one.captions, one.tags) for one in pages] == [
        ("/photos/0.jpg", ("a kite", "the zebra"), TAGS[0]),
        ("/photos/2.jpg", ("a glorp",), TAGS[2]),
    ]
    assert len(pick_page(results, 9)) == 5
    assert pick_page([], 9) == []


def test_a_confidence_goes_with_its_caption_to_the_page_and_into_the_file(tmp_path):
    results = collect_results(IMAGES, CAPTIONS, TAGS, SCORES, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert [one.confidence for one in pick_page(results, 2)] == [0.1, 0.3]
    save_results(results, tmp_path / "results.jsonl")
    records = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert [record["confidence"] for record in records] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [one.confidence for one in pick_page(collect_results(IMAGES, CAPTIONS, TAGS, SCORES), 2)] == [None, None]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        collect_results(IMAGES, CAPTIONS, TAGS, SCORES, [0.1])
