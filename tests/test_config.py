"""Parameters, folders, and the notebooks whose parameters they are."""

import ast
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path

import papermill
import pytest

from lcm import paths as folders_module
from lcm.config import (
    CompareConfig,
    EvaluateConfig,
    ExploreConfig,
    PrepareConfig,
    PublishConfig,
    TrainConfig,
)
from lcm.errors import ConfigError
from lcm.paths import RunDir, cache_dir, home, packaged_file

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {
    "00_explore": ExploreConfig,
    "01_prepare": PrepareConfig,
    "02_train": TrainConfig,
    "03_evaluate": EvaluateConfig,
    "04_compare": CompareConfig,
    "06_publish": PublishConfig,
}


# Parameters


@pytest.mark.parametrize("config_class", CONFIGS.values())
def test_the_folder_of_the_run_is_enough(config_class):
    assert config_class.from_params(run_dir="here") == config_class("here")


def test_given_values_take_the_place_of_defaults():
    config = TrainConfig.from_params(run_dir="here", epochs=3, learning_rate=0.5)
    assert (config.run_dir, config.epochs, config.learning_rate) == ("here", 3, 0.5)
    assert config.batch_size == TrainConfig("here").batch_size


@pytest.mark.parametrize("config_class", CONFIGS.values())
def test_an_unknown_parameter_is_refused_with_the_choices(config_class):
    with pytest.raises(ConfigError, match="unknown parameter epoch, lerning_rate for") as error:
        config_class.from_params(run_dir="here", lerning_rate=1.0, epoch=3)
    assert config_class.__name__ in str(error.value)
    assert all(field.name in str(error.value).partition("choose from")[2] for field in fields(config_class))


def test_the_folder_of_the_run_has_no_default():
    with pytest.raises(ConfigError, match="PrepareConfig needs the parameter run_dir"):
        PrepareConfig.from_params()


@pytest.mark.parametrize(
    ("config_class", "name"),
    [
        (PrepareConfig, "min_count"),
        *(
            (TrainConfig, name)
            for name in (
                "epochs",
                "batch_size",
                "learning_rate",
                "averaged_epochs",
                "patience",
                "dev_beam_width",
                "max_words",
            )
        ),
        *((TrainConfig, name) for name in ("reinforce_learning_rate", "reinforce_images", "tagger_epochs")),
        *((EvaluateConfig, name) for name in ("beam_width", "max_words", "gallery_images", "page_photos")),
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_and_rates_are_above_zero(config_class, name, value):
    with pytest.raises(ConfigError, match=rf"^{name} is {value}; it must be above zero$"):
        config_class.from_params(run_dir="here", **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("epochs", "3", "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("learning_rate", "1e-3", "a number"),
        ("learning_rate", True, "a number"),
        ("model", 3, "text"),
        ("model", ["merge"], "text"),
        ("run_dir", None, "text"),
    ],
)
def test_a_value_of_another_kind_is_refused(name, value, kind):
    with pytest.raises(ConfigError) as error:
        TrainConfig.from_params(**{"run_dir": "here", name: value})
    assert str(error.value) == f"{name} is {value!r}; it must be {kind}"


def test_a_whole_number_is_a_number():
    assert TrainConfig.from_params(run_dir="here", learning_rate=1).learning_rate == 1


def test_not_a_number_is_not_above_zero():
    with pytest.raises(ConfigError, match="learning_rate is nan"):
        TrainConfig.from_params(run_dir="here", learning_rate=float("nan"))


def test_there_may_be_no_views_but_not_fewer():
    assert [PrepareConfig.from_params(run_dir="here", views=views).views for views in (0, 4)] == [0, 4]
    with pytest.raises(ConfigError, match=r"^views is -1; it must be at least 0$"):
        PrepareConfig.from_params(run_dir="here", views=-1)


@pytest.mark.parametrize("name", ["warm_up", "label_smoothing", "word_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan")])
def test_a_share_of_what_is_left_out_is_below_1(name, value):
    assert getattr(TrainConfig.from_params(run_dir="here", **{name: 0}), name) == 0
    with pytest.raises(ConfigError, match=rf"{name} is .*; it must be at least 0 and below 1"):
        TrainConfig.from_params(run_dir="here", **{name: value})


def test_gradients_may_be_cut_or_not():
    assert [TrainConfig.from_params(run_dir="here", clip_norm=norm).clip_norm for norm in (0, 1)] == [0, 1]
    for value in (-1, float("nan")):
        with pytest.raises(ConfigError, match=r"clip_norm is .*; it must be at least 0$"):
            TrainConfig.from_params(run_dir="here", clip_norm=value)


def test_all_images_may_be_seen_in_another_view_or_none():
    assert [TrainConfig.from_params(run_dir="here", view_share=share).view_share for share in (0, 1)] == [0, 1]
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"view_share is .*; it must be 0 to 1"):
            TrainConfig.from_params(run_dir="here", view_share=value)


def test_self_critical_training_may_be_left_out_and_else_compares_captions():
    config = TrainConfig.from_params(run_dir="here", reinforce_epochs=0, reinforce_samples=2)
    assert (config.reinforce_epochs, config.reinforce_samples) == (0, 2)
    for name, value in (("reinforce_epochs", -1), ("reinforce_samples", 1)):
        with pytest.raises(ConfigError, match=rf"{name}.* {value}.*they must be at least 0 and at least 2"):
            TrainConfig.from_params(run_dir="here", **{name: value})


def test_a_weight_may_be_0_but_not_below():
    assert [EvaluateConfig.from_params(run_dir="here", rerank_weight=w).rerank_weight for w in (0, 1, 0.5)] == [
        0,
        1,
        0.5,
    ]
    with pytest.raises(ConfigError, match=r"^rerank_weight is -0.5; it must be at least 0$"):
        EvaluateConfig.from_params(run_dir="here", rerank_weight=-0.5)


def test_metrics_hold_what_a_bundle_takes_over_from_its_evaluation():
    config = EvaluateConfig(run_dir="here", split="test", beam_width=3, max_words=9, rerank_weight=0.5)
    assert config.as_metrics() == {
        **{"split": "test", "beam_width": 3, "max_words": 9, "rerank_weight": 0.5},
        "length_power": 0.9,
    }


def test_a_config_does_not_change():
    with pytest.raises(FrozenInstanceError):
        TrainConfig("here").epochs = 3


# The parameters cell of each numbered notebook


def test_every_numbered_notebook_has_a_config():
    assert {path.stem for path in (ROOT / "notebooks").glob("0*.ipynb")} == set(CONFIGS)


@pytest.mark.parametrize(("notebook", "config_class"), CONFIGS.items())
def test_a_notebook_s_parameters_are_its_config_s_fields_with_equal_defaults(notebook, config_class):
    found = papermill.inspect_notebook(ROOT / "notebooks" / f"{notebook}.ipynb")
    assert list(found) == [field.name for field in fields(config_class)]
    defaults = {name: ast.literal_eval(one["default"]) for name, one in found.items() if name != "run_dir"}
    expected = {field.name: field.default for field in fields(config_class) if field.name != "run_dir"}
    assert defaults == expected
    assert {name: type(value) for name, value in defaults.items()} == {n: type(v) for n, v in expected.items()}
    assert [name for name, one in found.items() if not one["help"].strip()] == []


@pytest.mark.parametrize("notebook", CONFIGS)
def test_a_notebook_hands_every_parameter_to_its_config(notebook):
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert f"config = {CONFIGS[notebook].__name__}.from_notebook(globals())" in code


def test_a_config_takes_its_fields_from_a_notebook_and_nothing_else():
    variables = {**asdict(EvaluateConfig(run_dir="here")), "split": "test", "unrelated": 3}
    assert EvaluateConfig.from_notebook(variables) == EvaluateConfig(run_dir="here", split="test")


def test_a_notebook_without_its_parameters_cell_is_told_so():
    with pytest.raises(ConfigError, match=r"does not set run_dir, .*run its parameters cell first"):
        EvaluateConfig.from_notebook({"split": "dev"})


# Where things lie


def test_home_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_HOME", str(tmp_path / "state"))
    assert home() == tmp_path / "state"
    assert cache_dir() == tmp_path / "state" / "cache"
    monkeypatch.setenv("LCM_HOME", "~/state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / "state"
    monkeypatch.setenv("LCM_HOME", "state")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "state"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("empty", [True, False])
def test_home_of_a_clone_is_its_data_folder(empty, monkeypatch, tmp_path):
    monkeypatch.delenv("LCM_HOME", raising=False)
    if empty:
        monkeypatch.setenv("LCM_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert home() == ROOT / "data"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux's")
def test_home_of_an_installed_package_is_the_user_s_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LCM_HOME", raising=False)
    monkeypatch.setattr(folders_module, "PACKAGE_DIR", tmp_path / "site-packages" / "lcm")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    assert home() == tmp_path / "user" / "lcm"


def test_what_lcm_ships_lies_beside_the_package_in_a_clone():
    assert packaged_file("notebooks/params") == ROOT / "notebooks" / "params"
    assert packaged_file("nothing/of the kind") == ROOT / "nothing" / "of the kind"


def test_what_lcm_ships_lies_in_the_installed_package_whatever_others_put_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(folders_module, "PACKAGE_DIR", tmp_path / "lcm")
    (tmp_path / "lcm" / "shipped" / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    assert packaged_file("notebooks") == tmp_path / "lcm" / "shipped" / "notebooks"


# A run's folder


def test_a_run_folder_is_made_and_holds_all_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunDir.at("runs/first")
    assert folder.path == tmp_path / "runs" / "first"
    assert folder.figures.is_dir()
    places = [
        value
        for name in dir(RunDir)
        if isinstance(getattr(RunDir, name), property)
        for value in [getattr(folder, name)]
    ]
    assert len(set(places)) == len(places) >= 9
    assert {place.parent for place in places} == {folder.path}
    assert RunDir.at(folder.path) == folder


def test_metrics_are_merged(tmp_path):
    folder = RunDir.at(tmp_path)
    assert folder.read_metrics() == {}
    folder.add_metrics(cider=0.5, split="dev", meteor=None)
    folder.add_metrics(cider=0.75, images=3, data_source="été")
    expected = {"cider": 0.75, "split": "dev", "meteor": None, "images": 3, "data_source": "été"}
    assert folder.read_metrics() == expected
    assert json.loads(folder.metrics.read_text(encoding="utf-8")) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "figures"}


def test_metrics_that_cannot_be_written_leave_the_old_ones(tmp_path, monkeypatch):
    folder = RunDir.at(tmp_path)
    folder.add_metrics(cider=0.5)
    write_text = Path.write_text

    def full_disk(path: Path, text: str, **options) -> None:
        write_text(path, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            folder.add_metrics(cider=0.75)
    assert folder.read_metrics() == {"cider": 0.5}
    with pytest.raises(TypeError):
        folder.add_metrics(cider={1, 2})
    assert folder.read_metrics() == {"cider": 0.5}


def test_who_reads_the_metrics_never_sees_half_of_them(tmp_path):
    folder = RunDir.at(tmp_path)
    folder.add_metrics(text="x" * 200_000, number=0)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [folder.add_metrics(number=number) for number in range(40)])
        while not writing.done():
            assert len(folder.read_metrics()["text"]) == 200_000
        writing.result()
    assert folder.read_metrics()["number"] == 39
