"""The notebooks' parameters: what is accepted, what is refused and how, and that the notebooks agree."""

import ast
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import papermill
import pytest

from lcm.config import CONFIGS, KINDS, LIMITS, EvaluateConfig, Params, PrepareConfig, TrainConfig, parameters_table
from lcm.errors import ConfigError

NOTEBOOKS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "notebooks").glob("0*.ipynb"))}
FIELDS = [(config, one) for config in CONFIGS.values() for one in fields(config)]
BEYOND = {  # values that each limit refuses, and some that it accepts
    "given": ([""], ["photos"]),
    "above 0": ([0, -1], [1]),
    "at least 0": ([-1], [0, 3]),
    "at least 2": ([1, -1], [2]),
    "0 to below 1": ([-0.1, 1, 1.5], [0, 0.9]),
    "0 to 1": ([-0.1, 1.1], [0, 1]),
    "0 to 2": ([-0.1, 2.1], [0, 2]),
}


def of(cls: type[Params], name: str, value) -> Params:
    return cls(**{"run_dir": "here", name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        *(("epochs", value, "a whole number") for value in ("3", 2.5, True, None)),
        *(("learning_rate", value, "a number") for value in ("1e-3", True)),
        *(("model", value, "text") for value in (3, ["merge"])),
        ("meteor", 1, "true or false"),
        ("run_dir", None, "text"),
    ],
)
def test_a_value_of_another_kind_is_refused(name, value, kind):
    with pytest.raises(ConfigError) as error:
        of(EvaluateConfig if name == "meteor" else TrainConfig, name, value)
    assert str(error.value) == f"{name} is {value!r}; it must be {kind}"


@pytest.mark.parametrize(
    ("config", "one"),
    [pytest.param(*pair, id=pair[1].name) for pair in FIELDS if pair[1].metadata["limit"]],
)
def test_a_value_beyond_its_limit_is_refused(config, one):
    limit = one.metadata["limit"]
    refused, accepted = BEYOND[limit]
    whole = [value for value in refused if one.type is not int or value == int(value)]
    for value in [*whole, float("nan")] if one.type is float else whole:
        with pytest.raises(ConfigError) as error:
            of(config, one.name, value)
        assert str(error.value) == f"{one.name} is {value!r}; it must be {limit}"
    for value in accepted:
        assert getattr(of(config, one.name, value), one.name) == value
    assert set(BEYOND) == set(LIMITS)


def test_metrics_hold_what_a_bundle_takes_over_from_its_evaluation():
    config = EvaluateConfig(run_dir="here", split="test", beam_width=3, max_words=9, rerank_weight=0.5)
    expected = {"split": "test", "beam_width": 3, "max_words": 9, "rerank_weight": 0.5, "length_power": 0.9}
    assert config.as_metrics() == expected
    assert EvaluateConfig(run_dir="here", split="test").of_bundle(config) == config


def test_the_table_for_the_documents_has_every_parameter():
    rows = {name: rest for name, *rest in parameters_table(PrepareConfig)}
    assert list(rows) == [one.name for one in fields(PrepareConfig)][1:]
    assert rows["views"][:2] == ["a whole number, at least 0", "0"]
    assert rows["captions_file"][:2] == ["text", "empty"]
    assert {kind.split(",")[0] for kind, *_ in rows.values()} <= set(KINDS.values())


@pytest.mark.parametrize("notebook", CONFIGS)
def test_a_notebook_s_parameters_are_its_config_s_fields_with_equal_defaults(notebook):
    found = papermill.inspect_notebook(NOTEBOOKS[notebook])
    defaults = {name: ast.literal_eval(one["default"]) for name, one in found.items() if name != "run_dir"}
    expected = {one.name: one.default for one in fields(CONFIGS[notebook]) if one.default is not MISSING}
    assert list(found) == ["run_dir", *expected]
    assert defaults == expected
    assert {name: type(value) for name, value in defaults.items()} == {n: type(v) for n, v in expected.items()}
    assert [name for name, one in found.items() if not one["help"].strip()] == []


def test_a_config_takes_its_fields_from_a_notebook_and_nothing_else():
    variables = {**asdict(EvaluateConfig(run_dir="here")), "split": "test", "unrelated": 3}
    assert EvaluateConfig.from_notebook(variables) == EvaluateConfig(run_dir="here", split="test")
    with pytest.raises(ConfigError, match=r"does not set run_dir, .*run its parameters cell first"):
        EvaluateConfig.from_notebook({"split": "dev"})
