"""Gating: from a comparison of the new model with the current one to a published version, or a refusal.

Knows what 04_compare has left, which model it was that the new one was compared with, and what goes into the history.
Refuses to know what makes a model better: retraining/gate.py does.
"""

import json
from dataclasses import dataclass

from lcm.captioning.bundle import Manifest
from lcm.config import PublishConfig
from lcm.errors import DataError, require
from lcm.operations.starting import current_start
from lcm.paths import GATE, RunDir
from lcm.registry import publish
from lcm.retraining.contributed import is_contributed_id
from lcm.retraining.gate import Decision, Part, judge


@dataclass(frozen=True)
class Outcome:
    """What became of the new model."""

    decision: Decision
    version: str = ""  # that it was published as; empty: it was not

    def as_metrics(self) -> dict[str, float | str]:
        """Return what metrics.json keeps."""
        return {
            "gate": "passed" if self.decision.publish else "refused",
            "gate_reason": self.decision.reason,
            "published_version": self.version,
            **{f"gate_{name}": value for name, value in self.decision.numbers.items()},
        }


def read_parts(run: RunDir, config: PublishConfig) -> tuple[Part, Part]:
    """Return the base's and the contributions' held-out images, as 04_compare has captioned them with both models.

    Raises DataError when it has not.
    """
    path = run.path / "comparison.parquet"
    if not path.is_file():
        raise DataError(f"{path} is not there; run 04_compare for this run folder first")
    rows = require("pyarrow.parquet", "evaluate").read_table(path).to_pylist()
    captions = {
        name: {row["image_id"]: row["caption"] for row in rows if row["captioner"] == name}
        for name in (config.new, config.current)
    }
    for name, its in captions.items():
        if not its:
            raise DataError(f"{path} holds no captions of {name!r}; compare with -p captioners new=trained,current")
    references = {row["image_id"]: row["references"] for row in rows}
    base = [image_id for image_id in references if not is_contributed_id(image_id)]
    contributed = [image_id for image_id in references if is_contributed_id(image_id)]
    return tuple(
        Part(
            [references[name] for name in names],
            [captions[config.new][name] for name in names],
            [captions[config.current][name] for name in names],
        )
        for names in (base, contributed)
    )


def decide(run: RunDir, config: PublishConfig) -> Outcome:
    """Let the gate judge, publish the run's bundle where it may be, and write gate.json, whatever publishing does.

    Where 01_prepare has not noted what the base data are, they count as generated. Raises DataError when other models
    were compared than the run's and the one that is current by now, or on images that train; PublishError when
    publishing fails.
    """
    base, contributed = read_parts(run, config)
    decision = judge(base, contributed, stand_in=run.read_metrics().get("generated_data") != 0)
    _write(run, decision, "")
    version = ""
    if decision.publish and config.publish:
        version = _publish(run, config, decision)
        _write(run, decision, version)
    return Outcome(decision, version)


def _write(run: RunDir, decision: Decision, version: str) -> None:
    (run.path / GATE).write_text(json.dumps(decision.as_record() | {"version": version}, indent=1) + "\n")


def _publish(run: RunDir, config: PublishConfig, decision: Decision) -> str:
    current, record = current_start(), json.loads((run.path / "comparison.json").read_text(encoding="utf-8"))
    if record["split"] == "train":
        raise DataError("the models were compared on images that train; run 04_compare with -p split dev or test")
    for name, manifest, what in (
        (config.new, Manifest.load(run.bundle), "the bundle of this run is"),
        (config.current, current.manifest, "the current model is by now"),
    ):
        compared = record["models"][name]["note"] or name
        if compared != manifest.name:
            raise DataError(
                f"{compared} was compared as {name!r}, and {what} {manifest.name}; run 04_compare and 06_publish again"
            )
    change = publish(
        run.bundle,
        decision.reason,
        decision.as_record(),
        make_current=config.make_current,
        instead_of=current.version,
    )
    return change.version
