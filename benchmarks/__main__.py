"""Measures everything, or some subjects, and writes the report: `python -m benchmarks`, a quarter of an hour.

Captions and features are those of a run folder that 01_prepare has filled; it is filled first where it is not there.
Use 2,000 train images or more, and cores that nothing else wants.
"""

import argparse
import os
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.common import machine

SUBJECTS = ("training", "encoding", "serving", "growth", "installed")


def main(arguments: list[str] | None = None) -> None:
    """Measure the subjects and write reports/benchmark.md, or the file that `--out` names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="speed and scale of lcm and its references"
    )
    parser.add_argument("subjects", nargs="*", default=SUBJECTS, help=f"some of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument(
        "--data", default="data/raw/flickr8k", help="data set that is prepared where --run is not there"
    )
    parser.add_argument("--run", type=Path, default=Path("reports/runs/benchmark"), help="folder that 01_prepare fills")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmark.md"), help="the report")
    parser.add_argument("--rounds", type=int, default=5, help="times that each side is measured")
    parser.add_argument("--photos", type=int, default=100, help="dev images that are encoded and described")
    parser.add_argument("--largest", type=int, default=100_000, help="images of the largest data set of growth")
    options = parser.parse_args(arguments)
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"unknown subject {', '.join(sorted(unknown))}; choose from {', '.join(SUBJECTS)}")
    sections = []
    for subject in options.subjects:
        print(f"measuring {subject}", flush=True)
        sections.append(measure(subject, options))
    head = (
        "# Benchmark\n\nWritten by `python -m benchmarks`; nothing in it is written by hand. "
        f"{date.today().isoformat()}, {machine()}; {os.getloadavg()[0]:.1f} processes wanted a core at the end, the "
        "benchmark itself among them."
    )
    options.out.write_text("\n\n".join([head, *sections]) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


def measure(subject: str, options: argparse.Namespace) -> str:
    """Return the section of a subject."""
    if subject == "growth":
        from benchmarks import growth

        return growth.section([max(options.largest // part, 2) for part in (100, 10, 1)])
    if subject == "installed":
        from benchmarks import installed

        return installed.section(options.rounds)
    from lcm.features.cache import PreparedRun
    from lcm.paths import RunDir

    prepare(options)
    prepared = PreparedRun.load(RunDir.at(options.run))
    if subject == "training":
        from benchmarks import training

        train, vectors = prepared.labelled_features("train", "pooled"), np.load(RunDir.at(options.run).embedding)
        return training.section(train, prepared.vocabulary, vectors, options.rounds)
    paths = [image.path for image in prepared.labelled_features("dev", "pooled").images[: options.photos]]
    if subject == "encoding":
        from benchmarks import encoding

        return encoding.section(paths, options.rounds)
    from benchmarks import original, serving

    return serving.section(paths, options.rounds, original.OriginalService())


def prepare(options: argparse.Namespace) -> None:
    """Run 01_prepare where the run's folder is not there."""
    from lcm.pipeline import Preset, run

    if not (options.run / "metrics.json").exists():
        run(Preset("benchmark", ("01_prepare",), {"data_dir": options.data}), {}, options.run)


if __name__ == "__main__":
    main()
