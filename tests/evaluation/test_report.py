"""What notebooks show of an evaluation and a comparison: sentences, tables, photos; every text escaped."""

import json
from pathlib import Path

import pytest

from lcm.data.dataset import LabelledImage
from lcm.evaluation import report
from lcm.evaluation.bootstrap import Interval
from lcm.evaluation.compare import CaptionerOutput, compare, save_rows
from lcm.evaluation.metrics import Scores
from lcm.evaluation.tags import KS, TagReport
from tests.fakes.html_reader import EVIL

REFERENCES = [
    ["a dog runs on grass", "the dog runs"],
    ["?"],
    ["two cats sleep on a chair"],
    ["a red boat on a lake", "one boat"],
    ["a man sings to people"],
]
GOOD = ["a dog runs on grass", "nothing", "two cats sleep on a chair", "a red boat on a lake", "a man sings to people"]
POOR = ["a dog runs", "a fox", "two cats sleep on a chair", "a blue car", "a woman walks to people"]


def compared(first=GOOD, second=POOR, *, names=("good", "poor"), not_run=(), note="", references=REFERENCES, **options):
    outputs = [
        CaptionerOutput(names[0], first, note, {"seconds_median": 0.11, "seconds_photos": 3}),
        CaptionerOutput(names[1], second),
    ]
    return compare(outputs, labelled(references), meteor=False, not_run=dict(not_run), **options)


def labelled(references):
    return [LabelledImage(f"image{n}", Path(f"{n}.png"), "dev", tuple(its)) for n, its in enumerate(references)]


def column(table, heading):
    return list(table.data[heading])


# Sentences


def test_the_answer_is_the_lead_of_the_best_over_the_next():
    comparison = compared(not_run={"blip": "no weights"})
    said, wer, cider, missing = report.answer(comparison, "Drawn, dev", 40).split("\n\n")
    assert said == "2 captioners on 4 images of Drawn, dev (1 more have no usable reference)."
    (good, poor), apart = comparison.models.values(), comparison.difference("wer", "poor", "good")
    its = f"{good['wer']:.3f} ({good['wer_low']:.3f} to {good['wer_high']:.3f})"
    assert wer == (  # on one image both say the same
        f"By WER, smaller is better, **good** has {its}, poor {poor['wer']:.3f}. "
        f"The difference good − poor is {report.with_ends(apart, '+')}: it may be an accident of these images."
    )
    assert cider.startswith("By CIDEr, **good** has")
    assert missing == "**blip** could not be run: no weights"


def test_a_lead_beyond_chance_is_said_to_be_one():
    bad = ["a bus", "one bus", "two bus", "the bus", "this bus"]
    _, wer, cider = report.answer(compared(bad, GOOD), "Drawn, dev", 40).split("\n\n")
    assert "**poor** has" in wer
    assert "**poor** has" in cider
    assert all(each.endswith("it is hardly an accident of these images.") for each in (wer, cider))


def test_where_wer_and_cider_rank_differently_the_answer_says_so_and_why():
    """Of a caption without a right word, every word of people's is wrong, and no more: a long one has more."""
    short = ["it", "some", "one thing", "that", "this"]
    long = [f"{text} while some people look at it from far away" for text in GOOD]
    said = report.answer(compared(short, long, names=("short", "long")), "Drawn, dev", 40).split("\n\n")
    assert "**short** has" in said[1]
    assert "**long** has" in said[2]
    assert said[3].startswith("**WER and CIDEr rank differently**: by WER short, long; by CIDEr long, short. Words for")
    assert "short 0." in said[3]
    assert report.answer(compared(), "Drawn, dev", 40).count("rank differently") == 0


def test_degenerate_output_is_named_and_neither_leads_nor_is_better():
    long = [
        f"some people who are far away look on as {text} and nobody else is anywhere near it today" for text in POOR
    ]
    comparison = compared(["a a a"] * 5, long, names=("broken", "long"))
    assert comparison.difference("wer", "broken", "long").better == "broken"
    said = report.answer(comparison, "Drawn, dev", 40)
    assert "By WER, smaller is better, **long** has" in said
    assert "**broken is degenerate** and comes last whatever it scores (WER" in said
    assert "5 are empty, break off or repeat words (of people's, 0), such as “a a a”" in said
    assert "by WER broken, long; by CIDEr long, broken" in said
    assert comparison.as_metrics()["best_by_wer"] == "long"
    assert comparison.models["broken"]["degenerate"] == 1
    assert column(report.captioners_table(comparison, report.LABELS), "captioner") == ["long", "broken"]
    better = column(report.pairs_table(comparison), "better")
    assert better[0] == "(broken: degenerate)"
    assert "broken" not in better
    both = report.answer(compared(["a a a"] * 5, ["a man in a"] * 5), "Drawn, dev", 40)
    assert "By WER, smaller is better: nobody, for all output is degenerate." in both


@pytest.mark.parametrize(
    ("captioners", "images", "said"),
    [
        (1, 5, ["1 captioner on 4 images", "**a** has 0."]),
        (2, 1, ["2 captioners on 1 images", "not measured (needs two images: over one alone"]),
        (2, 0, ["**There is nothing to compare**: none of 40 images is held out (Drawn, dev)."]),
    ],
)
def test_little_to_compare_is_answered_too(captioners, images, said):
    outputs = [CaptionerOutput(name, GOOD[:images]) for name in "ab"[:captioners]]
    comparison = compare(outputs, labelled(REFERENCES[:images]), meteor=False)
    answer = report.answer(comparison, "Drawn, dev", 40)
    assert all(each in answer for each in said)
    assert report.captioners_table(comparison, report.LABELS).to_html()
    assert (report.draw_forest(comparison) is None) == (images < 2)
    assert report.pairs_table(comparison) is None
    assert report.disagreements(comparison, 9) == []


def test_what_was_not_measured_has_its_reason():
    said = report.not_measured(compared())
    assert said.startswith("Not measured: METEOR (not asked for); copied from train (")


def test_no_text_becomes_markup():
    spoken = [f"{EVIL} {caption}" for caption in POOR]
    comparison = compared(GOOD, spoken, names=(f"{EVIL}1", f"{EVIL}2"), not_run={f"{EVIL}3": EVIL}, note=EVIL)
    sentences = [report.answer(comparison, EVIL, 40)]
    tables = report.captioners_table(comparison, report.COSTS), report.pairs_table(comparison)
    html = [table.to_html() for table in tables]
    assert not [text for text in (*sentences, *html) if "<script" in text or "<img" in text]
    assert not {"*", "`", "["} & set(report.plain("**bold** `code` [link](x)"))


# Tables


def test_tables_begin_with_the_best_have_intervals_and_dashes_for_what_is_missing():
    captions = {"train_captions": ["a dog runs"], "vocabulary": ["dog", "fox"]}
    comparison = compared(POOR, GOOD, names=("poor", "good"), **captions)
    scores, degeneration, costs = (
        report.captioners_table(comparison, columns, people=columns is report.HABITS)
        for columns in (report.LABELS, report.HABITS, report.COSTS)
    )
    good = comparison.models["good"]
    assert column(scores, "captioner") == ["good", "poor"]
    assert column(scores, "CIDEr")[0] == f"{good['cider']:.3f} ({good['cider_low']:.3f} to {good['cider_high']:.3f})"
    assert column(scores, "METEOR") == ["–", "–"]
    assert column(degeneration, "captioner") == ["good", "poor", "people, first reference"]
    assert column(degeneration, "copied from training")[1] == "0.250"  # one of the four scored
    assert column(costs, "seconds a photo, median") == ["–", "0.110"]
    assert column(costs, "photos timed") == ["–", "3"]


def test_pairs_name_the_better():
    table = report.pairs_table(compared([""] * 5, GOOD))
    assert column(table, "pair") == ["good − poor"] * 4
    assert column(table, "measure") == ["WER", "CIDEr", "BLEU-4", "WER, best reference"]
    assert [each[0] for each in column(table, "difference (95 %)")] == ["+", "−", "−", "+"]  # more errors, less CIDEr
    assert column(table, "better") == ["poor"] * 4
    assert "may be chance" in column(report.pairs_table(compared()), "better")


def test_tag_tables_show_the_orders_and_the_recall():
    numbers = {f"recall_{k}_{name}": k / 10 for k in KS for name in ("image_to_text", "text_to_image")}
    none = {"tag_map": None, "tag_map_reason": "too few"}
    why, recall = report.tag_tables(TagReport([], numbers | none))
    assert "too few" in why.to_html()
    rows = [[name, "0.100", "0.500", "1.000"] for name in ("image → text", "text → image")]
    assert recall.data.to_numpy().tolist() == rows
    assert len(report.tag_tables(TagReport([], none))) == 1
    for name in ("tag_map", "tag_precision_5"):
        for order in ("", "_caption_order", "_upper_bound", "_over_caption_order"):
            numbers |= Interval(0.5, 0.4, 0.6).as_metrics(f"{name}{order}")
    orders, _ = report.tag_tables(TagReport([], numbers))
    assert column(orders, "order") == ["scorer", "caption order", "upper bound", "scorer minus caption order"]
    assert column(orders, "MAP (95 %)") == ["0.500 (0.400 to 0.600)"] * 4


# Photos


def test_disagreements_begin_with_the_widest_range_and_mark_the_best():
    comparison = compared()
    cards = report.disagreements(comparison, 9)
    ciders = [[row["captioners"][name]["cider"] for row in comparison.rows] for name in ("good", "poor")]
    pairs = zip(comparison.rows, *ciders, strict=True)
    spreads = {Path(row["path"]): abs(a - b) for row, a, b in pairs if a is not None and a != b}
    assert len(spreads) == 3  # one image has no reference, and on one both say the same
    assert [card.image for card in cards] == sorted(spreads, key=spreads.get, reverse=True)
    place = int(cards[0].image.stem)
    assert [(line.caption, line.label, line.best) for line in cards[0].lines] == [
        (GOOD[place], f"good, CIDEr {ciders[0][place]:.2f}", True),
        (POOR[place], f"poor, CIDEr {ciders[1][place]:.2f}", False),
    ]
    assert cards[0].references == tuple(REFERENCES[place])
    assert len(report.disagreements(comparison, 1)) == 1
    assert report.disagreements(compared(GOOD, GOOD), 9) == []


# Image by image

PLAIN = [LabelledImage(f"{i}.jpg", Path(f"/photos/{i}.jpg"), "dev", (f"reference {i}",)) for i in range(5)]
CAPTIONS = [["a kite", "the zebra"], ["a zebra with a kite"], ["a glorp"], ["the"], ["a dog"]]
TAGS = [(("zebra", 0.75), ("kite", 0.25)), (), (("dog", 1.0),), (), ()]
SCORES = Scores(5, 0, per_image={"cider": [0.1, 0.2, None, 0.4, 0.5]})
SURE = [0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_result_has_all_that_was_written_of_an_image(tmp_path):
    save_rows(report.collect_results(PLAIN, CAPTIONS, TAGS, SCORES, SURE), tmp_path / "results.jsonl")
    first, *_ = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert first == {
        "image_id": "0.jpg",
        "path": "/photos/0.jpg",
        "caption": "a kite",
        "references": ["reference 0"],
        "scores": {"cider": 0.1},
        "english_captions": ["a kite", "the zebra"],
        "tags": [["zebra", 0.75], ["kite", 0.25]],
        "confidence": 0.1,
    }


@pytest.mark.parametrize(
    ("images", "count", "shown"),
    [
        (0, 4, {}),
        (9, 1, {"best": [0], "median": [4], "worst": [8]}),
        (7, 2, {"best": [0, 1], "median": [2, 3], "worst": [5, 6]}),
        (10, 4, {"best": [0, 1, 2], "median": [3, 4, 5], "worst": [6, 7, 8, 9]}),
    ],
)
def test_the_best_the_median_and_the_worst_are_shown_once_with_their_scores(images, count, shown):
    scores = [*range(images, 0, -1), None]
    results = [
        {"path": place, "caption": "", "references": (), "scores": {"cider": scores[place]}}
        for place in range(images + 1)
    ]
    cards = report.pick_by_cider(results, count)
    expected = [(place, f"{title}: CIDEr {images - place:.2f}") for title, its in shown.items() for place in its]
    assert [(card.image, card.lines[0].label) for card in cards] == expected


def test_a_control_gives_each_image_the_caption_of_another():
    texts = ["a dog runs", "two cats sleep", "a red boat", "a man sings"]
    control = report.score_control(texts, [[text] for text in texts])
    # a red boat / a dog runs: 2 of 3 words wrong; a man sings / two cats sleep: all; and the other way round
    assert control["wer_shuffled"] == control["wer_best_shuffled"] == pytest.approx((2 / 3 + 1) / 2)
    assert control["cider_shuffled"] < 1
