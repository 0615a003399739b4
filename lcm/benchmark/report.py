"""The report: what was measured, as tables and pictures under headings.

Knows how each measurement reads. Refuses to know how it was taken; no number is written by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from typing import Any

from lcm.benchmark import machine, plots
from lcm.benchmark.growth import Cost
from lcm.benchmark.installed import Package
from lcm.benchmark.process import Ran
from lcm.benchmark.serving import Latencies
from lcm.benchmark.timing import Rates
from lcm.benchmark.training import TrainingSpeed
from lcm.evaluation.plots import save as save_figure
from lcm.evaluation.report import Cell, Table
from lcm.paths import RunDir

REPORT, PICTURES = "benchmark.md", "benchmark"  # a file, and a folder beside it
PACKAGES_SHOWN = 12


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, tables and perhaps a picture."""

    title: str
    text: str  # Markdown
    tables: Sequence[Table]
    metrics: Mapping[str, float] = field(default_factory=dict)  # for metrics.json
    figure: Any = None  # of matplotlib

    @property
    def picture(self) -> str:
        """The name of the figure's file."""
        return f"{_slug(self.title)}.png"

    def as_markdown(self) -> str:
        """Return it for a notebook and for the report."""
        return "\n\n".join([f"## {self.title}", self.text, *(table.as_markdown() for table in self.tables)])


def training(title: str, speed: TrainingSpeed) -> Section:
    """Return rates, ratios and shares of the limit, and the profiles."""
    names, last = list(speed.ways), list(speed.ways)[-1]
    rows = []
    for name in speed.rates.per_second:
        way, is_last = speed.ways.get(name), name == last
        count, share = (way.gflop_per_image, speed.share(name)) if way else (None, None)
        ratio = "" if is_last or not way else _ratio(speed.rates, name, last)
        unit = "" if way else " GFLOP/s"
        rate = _number(speed.rates.of(name)) + unit
        cells = [name, rate, _spread(speed.rates.spread(name)), ratio, _number(count), _percent(share)]
        rows.append([Cell(text) for text in cells])
    headings = ["way", "images/s", "lowest to highest", f"times {last}", "GFLOP an image", "of the limit"]
    shares = {way: {kind: 100 * share for kind, share in of.items()} for way, of in speed.profiles.items()}
    figure = plots.stacked_parts(shares, f"{title}: where the time goes", "% of the time in operations")
    text = f"Medians of {len(next(iter(speed.rates.per_second.values())))} rounds, all {len(names)} ways in turn."
    return Section(title, text, [Table(headings, rows)], speed.rates.as_metrics(_slug(title)), figure)


def losses(found: Mapping[str, Sequence[float]]) -> Section:
    """Return how far the losses of the ways are apart, step by step."""
    rows = [[Cell(way), Cell(f"{each[0]:.5f}"), Cell(f"{each[-1]:.5f}")] for way, each in found.items()]
    apart = max(max(step) - min(step) for step in zip(*found.values(), strict=True))
    steps = len(next(iter(found.values())))
    text = f"{steps} steps on the same captions from the same weights: never more than {apart:.1e} nats apart."
    headings = ["way", "loss before the first step", "before the last"]
    return Section("Equal loss", text, [Table(headings, rows)], {"loss_apart": apart})


def rates(title: str, text: str, measured: Sequence[Rates]) -> Section:
    """Return images a second of several sides, each table with ratios to its last one."""
    tables, metrics = [], {}
    for one in measured:
        *_, last = one.per_second
        rows = [
            [Cell(side), Cell(_number(one.of(side))), Cell(_spread(one.spread(side))), Cell(_ratio(one, side, last))]
            for side in one.per_second
        ]
        tables.append(Table(["", "images/s", "lowest to highest", f"times {last}"], rows))
        metrics |= one.as_metrics(_slug(title))
    return Section(title, text, tables, metrics)


def serving(
    latencies: Latencies,
    first: Mapping[str, Ran],
    clients: Rates,
    parts: Mapping[str, Sequence[float]],
    quality: Mapping[str, float],
) -> Section:
    """Return how long answers take and of what they are made, what the first one does, and how good they are.

    `parts` are seconds, one a photo; `quality` is metrics.json's of the shipped bundle.
    """
    answers = [
        [side, _number(latencies.ms(side)), _number(latencies.ms(side, 0.95)), _number(latencies.per_second(side))]
        for side in latencies.seconds
    ]
    started = [
        [Cell(side), Cell(f"{ran.seconds:.2f}"), Cell(f"{ran.said['answer_seconds']:.2f}"), Cell(f"{ran.peak_mb:.0f}")]
        for side, ran in first.items()
    ]
    served = [
        [Cell(side), Cell(_number(clients.of(side))), Cell(_spread(clients.spread(side)))]
        for side in clients.per_second
    ]
    tables = [
        Table(["one photo at a time", "p50, ms", "p95, ms", "photos/s"], [list(map(Cell, row)) for row in answers]),
        Table(["clients, caption and tags, a core a call", "photos/s", "lowest to highest"], served),
        Table(["first answer of a process", "seconds", "of it after Python's imports", "peak memory, MB"], started),
    ]
    medians = {part: 1000 * median(each) for part, each in parts.items()}
    figure = plots.stacked_parts({"caption and tags": medians}, "Where an answer's time goes", "ms, medians", digits=1)
    metrics = {f"serving_{_slug(side)}_p50_ms": latencies.ms(side) for side in latencies.seconds}
    metrics |= {f"serving_{_slug(part)}_ms": ms for part, ms in medians.items()} | clients.as_metrics("serving")
    text = (
        "The same photos for each side; none comes twice. How good what is so fast is, as the shipped bundle's dev "
        f"metrics have it: CIDEr {quality['cider']:.3f}; mean average precision of tags {quality['tag_map']:.3f}, "
        f"where the caption's words as they come give {quality['tag_map_caption_order']:.3f} and the best order of "
        f"the same words {quality['tag_map_upper_bound']:.3f}."
    )
    return Section("Serving", text, tables, metrics, figure)


def growth(costs: Mapping[str, Sequence[Cost]]) -> Section:
    """Return what an image costs at each size, and the memory."""
    sizes = [one.images for one in next(iter(costs.values()))]
    rows = [
        [
            Cell(part.replace("_", " ")),
            *(Cell(_number(one.ms_per_image), f"{one.peak_mb:.0f} MB") for one in each),
            Cell(f"{each[-1].ms_per_image / each[0].ms_per_image - 1:+.0%}"),
        ]
        for part, each in costs.items()
    ]
    headings = ["ms an image (peak memory)", *(f"{size:,} images" for size in sizes), "last against first"]
    metrics = {f"growth_{part}_{at.images}_ms": at.ms_per_image for part, each in costs.items() for at in each}
    text = "Each part in a process of its own, on generated data; the network that encodes is left out."
    return Section("Growth", text, [Table(headings, rows)], metrics)


def installed(packages: Sequence[Package], imports: Rates) -> Section:
    """Return the time of imports and the size of packages."""
    started = [[Cell(name), Cell(f"{1000 / imports.of(name):.0f}")] for name in imports.per_second]
    largest = [
        [Cell(one.name), Cell(f"{one.megabytes:.0f}"), Cell(", ".join(extra or "lcm itself" for extra in one.extras))]
        for one in packages[:PACKAGES_SHOWN]
    ]
    every = sum(one.megabytes for one in packages)
    light = sum(one.megabytes for one in packages if one.is_light)
    text = f"All packages: {every:,.0f} MB in {len(packages)}; what captioning alone needs: {light:,.0f} MB."
    tables = [Table(["a fresh interpreter", "ms"], started), Table(["package", "MB", "needed by"], largest)]
    metrics = {"import_ms": 1000 / imports.of("import lcm"), "installed_mb": every, "installed_light_mb": light}
    return Section("Installation", text, tables, metrics)


def save(sections: Sequence[Section], folder: RunDir) -> None:
    """Write the report, benchmark.md with its pictures, into a run's folder, and its numbers into metrics.json."""
    head = (
        "# Benchmark\n\nWritten by `lcm run --params benchmark`; nothing in it is written by hand. "
        f"{date.today().isoformat()}, {machine.describe()}; {machine.load():.1f} processes wanted a core at the end, "
        "the benchmark itself among them."
    )
    parts = [head]
    for section in sections:
        parts.append(section.as_markdown())
        if section.figure:
            save_figure(section.figure, folder.path / PICTURES / section.picture)
            parts.append(f"![{section.title}: where the time goes]({PICTURES}/{section.picture})")
    (folder.path / REPORT).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    folder.add_metrics(**{name: value for section in sections for name, value in section.metrics.items()})


def _ratio(of: Rates, side: str, reference: str) -> str:
    return f"{_number(of.ratio(side, reference))} ({_spread(of.ratio_spread(side, reference))})"


def _spread(ends: tuple[float, float]) -> str:
    return " to ".join(map(_number, ends))


def _number(value: float | None) -> str:
    """Return three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _slug(title: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in title.lower()).split())
