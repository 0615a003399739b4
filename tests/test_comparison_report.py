"""The report of a comparison: its tables, its photos, its file for one's own analysis; every text escaped."""

import base64
import io
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from lcm.data.dataset import LabelledImage
from lcm.errors import DataError
from lcm.evaluation import report as tables
from lcm.evaluation.compare import (
    REPORTED_RESULTS,
    UNNAMED,
    CaptionerOutput,
    compare,
    disagreements,
    save_per_image,
    shares_best,
)
from lcm.evaluation.report import Cell, Table, comparison_page, draw_figures, draw_forest
from tests.test_pages import EVIL, Reader

REFERENCES = [
    ["a dog runs on grass", "the dog runs"],
    ["?"],
    ["two cats sleep on a chair"],
    ["a red boat on a lake", "one boat"],
    ["a man sings to people"],
]
GOOD = ["a dog runs on grass", "nothing", "two cats sleep on a chair", "a red boat on a lake", "a man sings to people"]
POOR = ["a dog runs", "a fox", "two cats sleep on a chair", "a blue car", "a woman walks to people"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    found = []
    for place, colour in enumerate(("red", "green", "blue", "white", "black")):
        Image.new("RGB", (60, 40), colour).save(path := folder / f"{colour}.png")
        found.append(LabelledImage(f"image{place}", path, "dev", tuple(REFERENCES[place])))
    return found


def compared(first=GOOD, second=POOR, *, names=("good", "poor"), not_run=(), note="", references=REFERENCES, **options):
    outputs = [
        CaptionerOutput(names[0], first, [0.09, 0.11, 2.0], 310.4, note),
        CaptionerOutput(names[1], second),
    ]
    return compare(outputs, references, meteor=False, not_run=dict(not_run), **options)


def page_of(comparison, images, **options):
    return comparison_page(comparison, images, **{"data": "Drawn", "split": "dev"} | options)


def column(table, heading):
    return [row[table.headings.index(heading)] for row in table.rows]


# Tables


def test_markdown_and_html_of_a_table():
    table = Table(("name", "BLEU-4"), [[Cell("a|b"), Cell("1", "0 to 2", best=True)], [Cell("q"), Cell("2")]], quoted=1)
    assert table.as_markdown().splitlines() == [
        "| name | BLEU-4 |",
        "| ---|--- |",
        r"| a\|b | **1** (0 to 2) |",
        "| q | 2 |",
    ]
    html = Reader(table.as_html())
    assert [row.get("class") for row in html.all("tr")] == [None, None, "quoted"]
    assert [cell["data-label"] for cell in html.all("td")] == ["BLEU-4"] * 2
    assert html.text_of("b") == ["1"]


def test_the_wer_table_begins_with_the_best_and_says_what_is_chance():
    table = tables.wer_table(compared(POOR, GOOD, names=("poor", "good")))
    assert [cell.text for cell in column(table, "captioner")] == ["good", "poor"]
    assert [cell.text for cell in column(table, "rank")] == ["1", "2"]
    assert [cell.best for cell in column(table, "WER, smaller is better")] == [True, False]
    first, second = column(table, "against the best")
    assert first.text == "–"
    assert second.text.startswith("+")  # more errors
    assert second.small.endswith("may be chance")  # the two agree on an image: zero is an end of the interval
    worst = tables.wer_table(compared([""] * 5, GOOD))
    assert column(worst, "against the best")[1].small.endswith("more than chance")


def test_scores_have_their_intervals_and_what_is_missing_is_a_dash():
    comparison = compared()
    table = tables.scores_table(comparison)
    cider = comparison.results[0].intervals["cider"]
    assert column(table, "CIDEr")[0] == Cell(f"{cider.value:.3f}", f"{cider.low:.3f} to {cider.high:.3f}", True)
    assert [cell.text for cell in column(table, "METEOR")] == ["–", "–"]


def test_definitions_show_the_ranks():
    table = tables.definitions_table(compared())
    assert [[cell.small for cell in row[1:]] for row in table.rows] == [["rank 1"] * 4, ["rank 2"] * 4]


def test_habits_and_costs_read_as_people_say_them():
    comparison = compared(train_captions=["a dog runs"], vocabulary_size=50)
    habits, costs = tables.habits_table(comparison), tables.costs_table(comparison)
    assert [cell.text for cell in column(habits, "captioner")] == ["good", "poor", "people"]
    assert column(habits, "copied from training")[1].text == "25 %"  # one of the four scored
    assert column(habits, "vocabulary used")[2].text == ""
    assert column(costs, "time of a photo, median") == [Cell("110 ms", "of 3 photos"), Cell("–")]
    assert [cell.text for cell in column(costs, "95 % are faster than")] == ["1.81 s", "–"]
    assert [cell.text for cell in column(costs, "peak memory")] == ["310 MB", "–"]


def test_pairs_name_the_better():
    table = tables.pairs_table(compared([""] * 5, GOOD), ("wer", "cider"))
    assert [row[0].text for row in table.rows] == ["good − poor"] * 2
    assert [row[2].text[0] for row in table.rows] == ["+", "−"]  # more errors, less CIDEr
    assert [cell.text for cell in column(table, "better")] == ["poor", "poor"]


def test_published_rows_are_marked_and_have_a_source():
    table = tables.published_table(compared(), "Drawn, dev")
    assert table.quoted == len(REPORTED_RESULTS)
    ours, theirs = table.rows[: -table.quoted], table.rows[-table.quoted :]
    assert [row[-1].text for row in ours] == ["measured here"] * 2
    assert all(row[0].small == "quoted" and row[-1].text for row in theirs)
    assert all("dev" in row[1].text for row in ours)
    assert [quoted.source for quoted in REPORTED_RESULTS if not quoted.link] == [UNNAMED]
    citations = (Path(__file__).parent.parent / "CITATIONS.md").read_text(encoding="utf-8")
    assert all(quoted.link in citations for quoted in REPORTED_RESULTS)


# Images


def test_disagreements_begin_with_the_widest_range(images):
    comparison = compared()
    found = disagreements(comparison, images, 9)
    ciders = [result.scores.per_image["cider"] for result in comparison.results]
    spreads = {image.path: abs(a - b) for image, a, b in zip(images, *ciders, strict=True) if a is not None and a != b}
    assert len(spreads) == 3  # one image has no reference, and on one both say the same
    assert [one.image for one in found] == sorted(spreads, key=spreads.get, reverse=True)
    assert [one.spread for one in found] == pytest.approx(sorted(spreads.values(), reverse=True))
    assert [(said.name, said.score) for said in found[0].said] == [
        (name, its[images.index(next(i for i in images if i.path == found[0].image))])
        for name, its in zip(("good", "poor"), ciders, strict=True)
    ]
    assert len(disagreements(comparison, images, 1)) == 1
    assert shares_best(comparison) == {"good": 1.0, "poor": 0.25}


def test_who_agrees_has_no_disagreement(images):
    assert disagreements(compared(GOOD, GOOD), images, 9) == []


def test_one_image_is_told_apart_by_wer(images):
    outputs = [CaptionerOutput("a", ["a dog"]), CaptionerOutput("b", ["the dog runs"])]
    comparison = compare(outputs, REFERENCES[:1], meteor=False)
    (found,) = disagreements(comparison, images[:1], 9)
    assert [said.score for said in found.said] == comparison.results[0].scores.per_image["wer"] + comparison.results[
        1
    ].scores.per_image["wer"]
    assert shares_best(comparison) == {"a": 0.0, "b": 1.0}


def test_the_table_for_analysis_holds_every_image_and_captioner(images, tmp_path):
    comparison = compared()
    path = save_per_image(comparison, images, tmp_path / "new" / "images.parquet")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["image_id"], row["captioner"]) for row in rows] == [
        (image.image_id, name) for name in ("good", "poor") for image in images
    ]
    assert rows[5] == {
        "image_id": "image0",
        "path": str(images[0].path),
        "captioner": "poor",
        "caption": "a dog runs",
        "references": REFERENCES[0],
        **{name: its[0] for name, its in comparison.results[1].scores.per_image.items()},
    }
    assert rows[1]["wer"] is None  # no usable reference
    with pytest.raises(DataError, match="4 images for a comparison of 5"):
        save_per_image(comparison, images[:4], path)


# Page


def test_the_page_tells_all(images):
    comparison = compared(names=("merge", "nearest"), not_run={"blip": "no weights"}, note="the original's recipe")
    page = Reader(page_of(comparison, images, repeat="lcm run --params sample"))
    assert page.text_of("h1") == ["Which captioner, on these images?"]
    assert page.text_of("h2") == [
        *("The original’s comparison: mean WER", "All scores", "How several references become one WER"),
        *("How they write, and what it costs", "Published numbers", "Could not be run"),
        *("Where the captioners disagree most", "How to repeat it"),
    ]
    said = " ".join(text for _, text in page.texts)
    for fact in ("4 images of Drawn, dev (1 more have no usable reference)", "no weights", "meteor (not asked for)"):
        assert fact in said
    assert page.text_of("pre") == ["lcm run --params sample"]
    pictures = [image["src"].partition(",") for image in page.all("img")]
    kinds = [kind for kind, _, _ in pictures]
    assert kinds == ["data:image/png;base64"] * 6 + ["data:image/jpeg;base64"] * 3
    assert all(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).size for _, _, data in pictures)


def test_the_answer_is_the_lead_of_the_best_over_the_next():
    page = page_of(compared(names=("merge", "nearest")), [], gallery=0)
    comparison = compared()
    lead = comparison.difference("wer", "poor", "good")
    assert (
        f"<b>merge</b> leads with {comparison.results[0].scores.wer:.3f}, {lead.value:.3f} better than nearest" in page
    )
    assert "may be an accident" in page
    sure = page_of(compared([""] * 5, GOOD), [], gallery=0)
    assert "<b>poor</b> leads" in sure
    assert "may be an accident" not in sure


def test_the_best_caption_of_a_photo_is_marked(images):
    marked = [item for item in Reader(page_of(compared(), images)).all("li") if item.get("class") == "best"]
    assert len(marked) == 3  # one of the two, on each photo
    page = page_of(compared(), images)
    assert page.count('<li class="best"><span>good <i>CIDEr') == 3
    only_wer = compare(
        [CaptionerOutput("a", ["a dog"]), CaptionerOutput("b", ["the dog runs"])], REFERENCES[:1], meteor=False
    )
    assert '<li class="best"><span>b <i>WER' in page_of(only_wer, images[:1])  # smaller is better


def test_the_page_says_whether_the_definition_of_wer_matters():
    assert "The ranking is the same by all" in page_of(compared(), [], gallery=0)
    references = [["a dog", "one two three four five six seven eight"]]
    outputs = [CaptionerOutput("a", ["a dog"]), CaptionerOutput("b", ["one two three four five six"])]
    page = comparison_page(compare(outputs, references, meteor=False), [], data="x", split="dev", gallery=0)
    assert "The ranking depends on the definition" in page


def test_no_text_becomes_markup(images):
    spoken, heard = (
        [f"{EVIL} {caption}" for caption in POOR],
        [[f"{EVIL} {text}" for text in each] for each in REFERENCES],
    )
    names = f"{EVIL}1", f"{EVIL}2"
    evil = compared(GOOD, spoken, names=names, not_run={f"{EVIL}3": EVIL}, note=EVIL, references=heard)
    plain = compared(GOOD, spoken, not_run={"blip": "x"}, note="x", references=heard)
    words = {"data": EVIL, "split": EVIL, "repeat": EVIL, "title": EVIL}
    pages = Reader(page_of(evil, images, **words)), Reader(page_of(plain, images, repeat="x"))
    shapes = [[(name, set(attributes)) for name, attributes in page.elements] for page in pages]
    assert shapes[0] == shapes[1]
    assert pages[0].all("script") == []
    said = " ".join(text for _, text in pages[0].texts)
    assert said.count("<script>alert(1)</script>") > 30  # shown as it is, wherever a text goes
    assert pages[0].text_of("pre") == pages[0].text_of("h1") == [EVIL]


def test_the_page_asks_for_nothing_from_outside(images):
    page = page_of(compared(), images)
    for image in Reader(page).all("img"):
        page = page.replace(image["src"], "")
    for sign in ("url(", "@import", "<link", "<script", "<iframe", "href", "srcset"):
        assert sign not in page, sign


def test_without_a_gallery_the_page_shows_no_photo_and_no_caption():
    page = page_of(compared(), [], gallery=0)
    assert "image/jpeg" not in page
    spoken = [*GOOD, *POOR, *(text for each in REFERENCES for text in each)]
    assert not [caption for caption in spoken if " " in caption and caption in page]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_make_a_page(count, images):
    outputs = [CaptionerOutput("a", GOOD[:count]), CaptionerOutput("b", POOR[:count])]
    comparison = compare(outputs, REFERENCES[:count], meteor=False)
    page = Reader(page_of(comparison, images[:count]))
    assert "not measured (there are no images)" in " ".join(text for _, text in page.texts) or count
    assert len(page.all("figure")) == count


def test_one_captioner_makes_a_page(images):
    comparison = compare([CaptionerOutput("only", GOOD)], REFERENCES, meteor=False)
    page = page_of(comparison, images)
    assert "1 captioner on 4 images" in page
    assert "<b>only</b> has 0." in page
    assert "<details>" not in page


def test_figures_have_names_for_files():
    figures = draw_figures(compared())
    assert list(figures) == [
        *("forest_wer", "forest_cider", "forest_bleu_4", "forest_wer_best", "caption_lengths", "wer_by_length")
    ]
    assert [axes.get_title(loc="left") for axes in draw_forest(compared()).axes][:4] == [
        *("WER", "CIDEr", "BLEU-4", "WER, best reference")
    ]


def test_wer_by_length_is_the_headline_wer_and_lengths_are_of_the_scored():
    comparison = compared()
    figures = draw_figures(comparison)
    marks = [
        line for line in figures["wer_by_length"].axes[0].lines if line.get_marker() == "D" and len(line.get_xdata())
    ]
    by_words = {place: comparison.results[1].scores.per_image["wer"][place] for place in (0, 2, 3, 4)}
    # Mean words of the references are 4, 6, 4 and 5; the longest twentieth, 6, is with the 5.
    expected = [(by_words[0] + by_words[3]) / 2, (by_words[2] + by_words[4]) / 2]
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx(expected)
    people, own = figures["caption_lengths"].axes[1].patches
    assert list(own.get_data().values) == [0, 0, 0, 50, 0, 25, 25]
    assert sum(people.get_data().values) == pytest.approx(100)
