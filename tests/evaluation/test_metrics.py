"""Scores with expected values worked by hand, and the edges where there is little or nothing to score."""

import json
import os
import random
import shutil
import subprocess
import sys
from statistics import fmean

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from lcm.data.text import BAD_ENDINGS
from lcm.evaluation.metrics import (
    DEGENERATION,
    METRICS,
    CiderD,
    firsts,
    measure_degeneration,
    score,
    score_several,
    signs_of_degeneration,
)

WORDS = [f"w{i}" for i in range(200)]


def score_fast(*args, **kwargs):
    """`score` without the ten seconds that Java takes."""
    return score(*args, meteor=False, **kwargs)


# Word error rate


def test_wer_by_hand():
    scores = score_fast(
        ["a dog runs", "two cats"],
        [
            ["the dog runs fast", "a dog runs", "cat"],
            # "the dog runs fast": a -> the, "fast" missing: 2 edits / 4 words = 0.5
            # "a dog runs": 0
            # "cat": two words too many and one wrong: 3 edits / 1 word = 3
            ["two cats sleep"],  # one word missing of 3
        ],
    )
    assert scores.per_image["wer"] == pytest.approx([3.5 / 3, 1 / 3])
    assert scores.per_image["wer_best"] == pytest.approx([0, 1 / 3])
    assert scores.wer == pytest.approx((3.5 / 3 + 1 / 3) / 2)  # every image counts the same, not every reference
    assert scores.wer_best == pytest.approx((0 + 1 / 3) / 2)


# CIDEr: mean over n = 1..4 of the cosine between n-gram vectors, times 10


def test_cider_bleu_and_rouge_are_pycocoevalcap_s():
    chance = random.Random(3)
    references = [[" ".join(chance.choices(WORDS[:40], k=chance.randint(1, 12))) for _ in range(4)] for _ in range(60)]
    captions = [chance.choice([*each, " ".join(each[0].split()[::-1]), "w1", ""]) for each in references]
    theirs, ours = dict(enumerate(references)), {place: [text] for place, text in enumerate(captions)}
    scores = score_fast(captions, references)
    assert scores.rouge_l == pytest.approx(Rouge().compute_score(theirs, ours)[0])
    cider, each = Cider().compute_score(theirs, ours)
    assert scores.cider == pytest.approx(cider, rel=1e-9)
    assert scores.per_image["cider"] == pytest.approx(each, rel=1e-9)
    bleu, each = Bleu(4).compute_score(theirs, ours, verbose=0)
    assert [scores.bleu_1, scores.bleu_2, scores.bleu_3, scores.bleu_4] == pytest.approx(bleu, rel=1e-9)
    assert scores.per_image["bleu_4"] == pytest.approx(each[-1], rel=1e-9)


def test_cider_of_several_captions_of_ids_is_pycocoevalcap_s():
    """The reward of self-critical training: ids of which the first are far more common; now and then no word at all."""
    chance = random.Random(0)

    def draw(longest: int) -> list[int]:
        return [min(int(chance.expovariate(0.3)), 30) for _ in range(chance.randint(0, longest))]

    references = [[draw(16) for _ in range(chance.randint(1, 6))] for _ in range(40)]
    captions = [[draw(24) for _ in range(4)] for _ in references]
    scorer, expected = CiderD(references), []
    for sample in range(4):
        theirs = CiderScorer()
        for usable, each in zip(references, captions, strict=True):
            theirs.cook_append(" ".join(map(str, each[sample])), [" ".join(map(str, one)) for one in usable])
        expected.append(theirs.compute_score()[1])
    assert np.max(expected) > 0.5
    np.testing.assert_allclose(scorer.score(range(40), captions).T, expected, rtol=1e-9, atol=1e-12)
    batch = [17, 3, 29, 3]
    scores = scorer.score(batch, [captions[place] for place in batch])
    np.testing.assert_allclose(scores.T, np.array(expected)[:, batch], rtol=1e-9, atol=1e-12)


def test_cider_needs_two_images():
    scores = score_fast(["a dog runs fast"], [["a dog runs fast"]])
    assert scores.cider is None
    assert "two images" in scores.reasons["cider"]
    assert "cider" not in scores.per_image
    assert scores.bleu_4 == pytest.approx(1)  # the others do not mind


# Length, variety


def test_length_ratio_is_total_over_total():
    # 3 + 1 words; references have (2 + 4) / 2 = 3 and 5 on average: 4 / 8, where a mean of ratios gives 0.6
    scores = score_fast(["a dog runs", "cats"], [["a dog", "a dog runs fast"], ["two cats sleep right here"]])
    assert scores.length_ratio == pytest.approx(4 / 8)


def test_variety_by_hand():
    scores = score_fast(
        ["A dog runs.", "a dog runs", "two cats", ""],
        [["a dog"]] * 4,
        train_captions=["a dog runs!", "a horse", "..."],
        vocabulary=["a", "dog", "two", "horse"],
    )
    assert scores.distinct_captions == pytest.approx(3 / 4)
    assert scores.copied_from_train == pytest.approx(2 / 4)  # an empty caption copies nothing
    assert scores.vocabulary_used == pytest.approx(3 / 4)  # a dog two; runs and cats are not of it


# Edges


def test_empty_hypothesis_is_the_worst_there_is():
    scores = score_fast(["", "two cats sleep here"], [["a dog runs fast", "a dog"], ["two cats sleep here"]])
    assert scores.per_image["wer"] == [1.0, 0.0]
    assert scores.per_image["cider"] == pytest.approx([0, 10])
    assert scores.per_image["bleu_4"] == pytest.approx([0, 1])
    assert scores.rouge_l == pytest.approx(0.5)


def test_an_empty_reference_is_dropped_and_an_image_without_any_skipped_in_its_place():
    scores = score_fast(["a dog", "two cats", "a horse", "red"], [["a dog", "..."], ["?"], [], ["red"]])
    assert (scores.images, scores.skipped_images) == (2, 2)
    assert scores.per_image["wer"] == [0, None, None, 0]
    assert all(len(values) == 4 for values in scores.per_image.values())
    assert scores.distinct_captions == 1


@pytest.mark.parametrize(
    ("hypotheses", "references", "words"), [([], [], "no images"), (["a dog"], [[""]], "1 skipped")]
)
def test_no_image_left(hypotheses, references, words):
    scores = score(hypotheses, references)
    assert scores.images == 0
    assert scores.skipped_images == len(hypotheses)
    assert all(getattr(scores, name) is None and words in scores.reasons[name] for name in METRICS)
    assert scores.per_image == {}


def test_lengths_must_agree():
    with pytest.raises(AssertionError):
        score_several([["a dog"], ["a dog", "two cats"]], [["a dog"]])


@pytest.mark.parametrize("captions", [["un été à la plage", "một con chó đang chạy"], ["собака бежит", "狗 在 跑 步"]])
def test_every_script_is_scored(captions):
    scores = score_fast(captions, [[caption] for caption in captions])
    assert scores.wer == 0
    assert scores.cider > 4


# metrics.json


def test_as_metrics_is_flat_and_says_why():
    scores = score_fast(["a dog", "two cats"], [["a dog"], ["two cats"]])
    flat = scores.as_metrics()
    assert json.loads(json.dumps(flat)) == flat
    assert all(value is None or type(value) in (int, float, str) for value in flat.values())
    promised = "cider bleu_1 bleu_2 bleu_3 bleu_4 meteor rouge_l wer wer_best length_ratio distinct_captions"
    assert {*promised.split(), "copied_from_train", "vocabulary_used"} == set(METRICS) <= set(flat)
    assert flat["images"] == 2
    assert flat["meteor"] is None
    assert flat["meteor_reason"] == "not asked for"
    assert "cider_reason" not in flat


def test_import_is_light():
    heavy = "{'jiwer', 'pycocoevalcap', 'matplotlib', 'scipy', 'sklearn', 'pandas', 'tensorflow', 'torch'}"
    code = f"import lcm.evaluation.report, sys; print({heavy} & {{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


# METEOR

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program and Java is missing")


@pytest.fixture(scope="module")
def with_meteor():
    """One run of Java for all METEOR tests, in a locale that knows no letters but ASCII's; after another captioner."""
    captions = {
        "dog runs": ["dog sleeps"],
        "two cats sleep": ["two cats sleep", "a bird"],
        "": ["a dog runs", "a dog"],
        "été": ["été"],
        "hóa": ["hòa"],
        "skipped": [],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        return score_several([["a dog runs"] * len(captions), list(captions)], list(captions.values()))[1]


@needs_java
def test_meteor_by_hand(with_meteor):
    each = with_meteor.per_image["meteor"]
    # METEOR 1.5, English: alpha 0.85, beta 0.2, gamma 0.6 (Denkowski and Lavie 2014, table 1). One of two content
    # words agrees: P = R = 1/2, F = 1/2; one match in one chunk: penalty 0.6 * (1/1) ** 0.2 = 0.6; 1/2 * (1 - 0.6)
    assert each[0] == pytest.approx(0.2)
    assert each[1] == pytest.approx(1)  # the whole sentence agrees: no penalty, nearest reference counts
    assert with_meteor.meteor != pytest.approx(fmean(each[:5]))  # words that agree are added up over images first


@needs_java
def test_meteor_of_empty_and_non_ascii_captions(with_meteor):
    each = with_meteor.per_image["meteor"]
    assert each[2] == 0
    assert each[3] == pytest.approx(1)
    assert each[4] == 0  # other letters, were they all read as "?" the two would agree
    assert each[5] is None


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Put a shell script in Java's place."""
    if os.name == "nt":
        pytest.skip("the fake Java is a shell script")

    def install(script):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def meteor_reason():
    scores = score(["a dog", "two cats"], [["a dog"], ["two cats"]])
    assert scores.meteor is None
    assert "meteor" not in scores.per_image
    assert scores.cider == pytest.approx(5)
    return scores.as_metrics()["meteor_reason"]


def test_without_java_or_where_it_fails_the_other_scores_are_there(fake_java, tmp_path):
    fake_java("echo 'Picked up options' >&2; echo 'Could not reserve enough space for heap' >&2; exit 1")
    assert meteor_reason() == "METEOR's Java program failed: Could not reserve enough space for heap"
    fake_java(f"echo started >>{tmp_path}/starts; while read line; do echo what; done")
    several = score_several([["a dog", "two cats"], ["a cat", "dogs"]], [["a dog"], ["two cats"]])
    assert [one.wer for one in several] == [0, 0.75]
    assert all("failed: could not convert string to float" in one.reasons["meteor"] for one in several)
    assert (tmp_path / "starts").read_text() == "started\n"  # once for both
    (tmp_path / "java").unlink()
    assert "Java is missing" in meteor_reason()


# Degeneration, each sign counted by hand


def test_a_caption_that_something_must_follow_ends_badly():
    broken = ["a man in a", "a dog with the", "a man on", "a dog and", "two men are", "a man 's", "of"]
    broken += [f"a dog {word.upper()} ." for word in BAD_ENDINGS["en"].split()]  # as captions are standardised
    assert measure_degeneration(broken)["bad_endings"] == 1
    whole = ["a man follows her", "kids play outside", "a man climbs up", "a bus drives by", "a dog runs behind", ""]
    assert measure_degeneration(whole)["bad_endings"] == 0


def test_what_is_said_again_is_a_repetition_and_one_word_again_is_none():
    repeated = [
        "a dog and a dog",  # "a dog"
        "a crowd crowd",  # a word twice running
        "a a dog",  # any word
        "a black dog and a black cat",  # "a black", "black" being a content word
        "men in red and men in blue",  # "men in"
    ]
    assert measure_degeneration(repeated)["repeated_words"] == 1
    others = [
        "a dog and a cat",
        "a dog in the water in the park",  # "in the" has no content word
        "a dog sees a black dog",  # "dog" again, but in other company
        "dogs and a dog",
        "",
    ]
    assert measure_degeneration(others)["repeated_words"] == 0


@pytest.mark.parametrize(
    ("captions", "shares"),
    [
        (["a dog", "A dog .", "a dog and a dog", "a man in a", "a cat cat with"], [2 / 5, 2 / 5, 2 / 5]),
        (["", "", "...", "a dog"], [0, 0, 3 / 4]),  # an empty caption can only be too frequent
    ],
)
def test_shares_are_of_the_captions(captions, shares):
    assert measure_degeneration(captions) == dict(zip(DEGENERATION, shares, strict=True))


def test_metrics_are_named_for_whom_they_measure():
    references = [("a dog", "a dog with a"), (), ("a cat cat", "a dog"), ("a bird", "a dog"), ("a tree in",)]
    people = measure_degeneration(firsts(references), suffix="_people")
    assert people == {f"{name}_people": 1 / 4 for name in DEGENERATION}
    nobody = measure_degeneration([], suffix="_people")
    assert nobody == dict.fromkeys(people) | {f"{name}_reason": "there are no captions" for name in people}


WHOLE = [f"a {animal} runs" for animal in ("dog", "cat", "horse", "bird", "cow", "fox", "bear", "man", "child", "boy")]


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (WHOLE, []),
        (
            ["a a a"] * 3 + WHOLE[3:],
            ["of 10 images, 3 are empty, break off or repeat words (of people's, 0), such as “a a a”"],
        ),
        (["a a a"] * 2 + WHOLE[2:], []),  # two of ten may be an accident
        (["a dog on a"] * 2, ["of 2 images, 2 are empty, break off"]),  # there are no others
        (["", "a a", "a a"], ["such as “a a”"]),
        ([""] * 3, ["3 are empty, break off or repeat words (of people's, 0)"]),
        (["a man"] * 7 + WHOLE[7:], ["of 10 images, 7 are the same (of people's, 1): “a man”"]),
        (["a man"] * 6 + WHOLE[6:], []),  # photos of one event
        (["a man in a"] * 10, ["10 are empty, break off", "10 are the same"]),
    ],
)
def test_output_is_degenerate_where_it_is_so_more_often_than_people_s(captions, said):
    signs = signs_of_degeneration(captions, [[text, "a a"] for text in WHOLE[: len(captions)]])
    assert len(signs) == len(said)
    assert all(part in sign for part, sign in zip(said, signs, strict=True))


def test_people_are_the_yardstick():
    assert signs_of_degeneration(["a man in a"] * 10, [["two men in"]] * 10) == []
    assert signs_of_degeneration([], []) == []
