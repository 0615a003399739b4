"""The report of a comparison: one page of HTML that opens alone.

Knows in which order a reader wants to know what was compared, and in which words. Refuses to know how anything was
measured. Every text is escaped, every picture is inside the page. Without a gallery, the page holds neither photos nor
captions of the data set, and can be published.
"""

from collections.abc import Mapping, Sequence
from html import escape

from lcm import __version__
from lcm.data.captions import LabelledImage
from lcm.evaluation import comparison_tables as tables
from lcm.evaluation.captioner_result import smaller_is_better
from lcm.evaluation.comparison import WER_DEFINITIONS, Comparison
from lcm.evaluation.comparison_figures import draw_figures
from lcm.evaluation.comparison_images import disagreements, image_metric, shares_best
from lcm.evaluation.comparison_parts import REPORT_STYLE, figure_grid, photo_grid, section
from lcm.evaluation.pages import whole_page
from lcm.evaluation.resampling import RESAMPLES

GALLERY = 12  # photos
CHANCE = "That interval holds zero: the lead may be an accident of these images."
SURE = "That interval does not hold zero: the lead is hardly an accident of these images."
INTERVALS = (
    f"Intervals are 95 % bootstrap intervals: the images are drawn again with replacement, {RESAMPLES:,} times. They "
    "say how a number could have come out with other images of the same kind, not with another training run. "
    "Differences are paired: both captioners on the same drawn images."
)
DEFINITIONS = (
    (
        "mean, the headline",
        "WER against each reference of an image, their mean, then the mean over images. Every "
        "reference counts, and no caption gains by one that happens to be near.",
    ),
    ("best reference", "WER against the image's nearest reference only, then the mean over images."),
    (
        "first reference",
        "WER against the image's first reference only, as the files have them, then the mean over images.",
    ),
    (
        "pooled",
        "All edits against all references of all images, by all words of these references. Long references weigh more.",
    ),
)


def comparison_page(
    comparison: Comparison,
    images: Sequence[LabelledImage],
    *,
    data: str,
    split: str,
    repeat: str = "",
    gallery: int = GALLERY,
    title: str = "Which captioner, on these images?",
) -> str:
    """Return the report as a whole page.

    `images` are those compared, of the `split` of `data` ("Flickr8k"); `repeat` says how to run it again, as one would
    type it. `gallery` photos are shown on which captioners disagree most; with 0, `images` may be empty.
    Raises DataError when there are not as many images as were compared, BadImageError for a photo that is none.
    """
    figures = draw_figures(comparison)
    sections = [
        f'<p class="answer">{_answer(comparison, f"{data}, {split}")}</p>',
        _scores(comparison, figures),
        _definitions(comparison),
        _writing(comparison, figures),
        _published(comparison, f"{data}, {split}"),
        _not_run(comparison),
        _gallery(comparison, images, gallery) if gallery else "",
        _repeat(comparison, repeat),
    ]
    return whole_page(title, f'<style>{REPORT_STYLE}</style><div class="lcm-report">{"".join(sections)}</div>')


def _answer(comparison: Comparison, images: str) -> str:
    """Return who leads, by how much, and whether that is sure."""
    skipped = f" ({comparison.skipped_images} more have no usable reference)" if comparison.skipped_images else ""
    count = len(comparison.results)
    text = f"{count} captioner{'s' * (count != 1)} on {comparison.images:,} images of {escape(images)}{skipped}. "
    text += _leader(comparison, "wer", "mean WER, the original’s measure, smaller is better")
    return text + _leader(comparison, "cider", "CIDEr")


def _leader(comparison: Comparison, metric: str, label: str) -> str:
    first, *others = comparison.ranked(metric)
    best = getattr(first.scores, metric)
    if best is None:
        return f"By {label}: not measured ({escape(first.scores.reasons[metric])}). "
    text = f"By {label}, <b>{escape(first.name)}</b> {'leads with' if others else 'has'} {tables.number(best)}"
    pair = [first.name, others[0].name] if others else []
    lead = comparison.difference(metric, *(pair[::-1] if smaller_is_better(metric) else pair)) if others else None
    if lead is None:
        return f"{text}. "
    sure = CHANCE if lead.holds_zero else SURE
    return f"{text}, {tables.number(lead.value)} better than {escape(pair[1])} ({tables.ends(lead)}). {sure} "


def _scores(comparison: Comparison, figures: Mapping[str, object]) -> str:
    forests = {name: figure for name, figure in figures.items() if name.startswith("forest")}
    more = section(
        "All scores",
        "<p>The best of a column is bold. CIDEr and WER are means over images, BLEU and METEOR are of the whole set. "
        "BLEU-4’s interval is that of the whole set; METEOR’s is that of its mean over images, another number.</p>"
        f"{tables.scores_table(comparison).as_html()}{_missing(comparison)}<p>{INTERVALS}</p>{figure_grid(forests)}",
    )
    pairs = tables.pairs_table(comparison, ("wer", "cider", "bleu_4", "meteor_mean", "wer_best"))
    if pairs.rows:
        more += (
            f"<details><summary>Every pair, by every measure ({len(pairs.rows)} differences)</summary>"
            "<p>Of twenty differences that are nothing but chance, one is expected to look like more.</p>"
            f"{pairs.as_html()}</details>"
        )
    first = section("The original’s comparison: mean WER", tables.wer_table(comparison).as_html())
    return first + more


def _missing(comparison: Comparison) -> str:
    """Return which scores were not measured, and why."""
    reasons = dict.fromkeys(
        f"{metric} ({why})" for result in comparison.results for metric, why in result.scores.reasons.items()
    )
    return f"<p>Not measured: {escape('; '.join(reasons))}.</p>" if reasons else ""


def _definitions(comparison: Comparison) -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in DEFINITIONS)
    ranks = [comparison.ranks(name) for name in WER_DEFINITIONS]
    same = all(one == ranks[0] for one in ranks)
    verdict = "The ranking is the same by all of them." if same else "The ranking depends on the definition."
    return section(
        "How several references become one WER",
        "<p>The word error rate is the fewest words to insert, delete and replace, by the words of the reference. "
        f"People’s captions of an image are several; there is more than one way. {verdict}</p>"
        f"<dl>{terms}</dl>{tables.definitions_table(comparison).as_html()}",
    )


def _writing(comparison: Comparison, figures: Mapping[str, object]) -> str:
    others = {name: figure for name, figure in figures.items() if not name.startswith("forest")}
    return section(
        "How they write, and what it costs",
        f"{tables.habits_table(comparison).as_html()}{figure_grid(others)}"
        f"<h3>Time and memory</h3>{tables.costs_table(comparison).as_html()}",
    )


def _published(comparison: Comparison, images: str) -> str:
    return section(
        "Published numbers",
        f"<p>Rows in italics are quoted, not measured here. Ours are on {escape(images)}; theirs are on the images "
        "named in their row, with their own encoders and tokenisers: an orientation, not a ranking.</p>"
        f"{tables.published_table(comparison, images).as_html()}",
    )


def _not_run(comparison: Comparison) -> str:
    if not comparison.not_run:
        return ""
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in comparison.not_run.items())
    return section("Could not be run", f"<dl>{terms}</dl>")


def _gallery(comparison: Comparison, images: Sequence[LabelledImage], count: int) -> str:
    found = disagreements(comparison, images, count)
    label = tables.LABELS[image_metric(comparison)]
    shares = "; ".join(f"{escape(name)} on {share:.0%}" for name, share in shares_best(comparison).items())
    how = (
        f"<p>The images with the widest range of {label} from the worst captioner to the best; the best is marked. "
        f"Over all images the best {label} has: {shares} (equals count for each).</p>"
    )
    nothing = "<p>No image has captioners of different scores.</p>"
    return section("Where the captioners disagree most", how + photo_grid(found, label) if found else nothing)


def _repeat(comparison: Comparison, repeat: str) -> str:
    command = f"<pre>{escape(repeat)}</pre>" if repeat else ""
    notes = [f"{r.name}: {r.output.note}" for r in comparison.results if r.output.note]
    items = "".join(f"<li>{escape(one)}</li>" for one in notes)
    return section(
        "How to repeat it",
        f"{command}<p>lcm {escape(__version__)}; {RESAMPLES:,} resamples of seed 0. Captions and references are "
        f"standardised alike: small letters, no punctuation.</p><ul>{items}</ul>",
    )
