"""What can be set: the parameters of the notebooks, one frozen dataclass a notebook.

The parameters cell of each notebook holds the same names and defaults (tests/test_config.py); documents list them by
`parameters_table`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Self

from lcm.errors import ConfigError

SAMPLE = "sample"  # the data_dir that stands for the generated data set
BASE = "base"  # the data_dir that stands for what LCM_DATASET_URL names, and where that is not set, for the sample
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}  # of a parameter's value
LIMITS = {  # what a number may be, in the words of messages and documents; none of them holds for nan
    "given": bool,
    "above 0": lambda value: value > 0,
    "at least 0": lambda value: value >= 0,
    "at least 2": lambda value: value >= 2,
    "0 to below 1": lambda value: 0 <= value < 1,
    "0 to 1": lambda value: 0 <= value <= 1,
    "0 to 2": lambda value: 0 <= value <= 2,
}
DECODING = ("beam_width", "max_words", "rerank_weight", "length_power")  # what a bundle takes over from 03_evaluate
OF_PARENT = ("encoder", "features", "model", "dev_beam_width", *DECODING)  # as the model has it that a run resumes


def param(default: Any, meaning: str, limit: str = "") -> Any:
    """Return the field of a parameter: MISSING as the default of a required one, `limit` a key of LIMITS, or empty."""
    return field(default=default, metadata={"meaning": meaning, "limit": limit})


class Params:
    """Mix-in for the frozen dataclasses below: built from a notebook's parameters, each checked."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value of another kind or beyond its limit; a whole number is a number."""
        for one in fields(self):
            value, limit = getattr(self, one.name), one.metadata["limit"]
            accepted = (int, float) if one.type is float else one.type
            if isinstance(value, bool) != (one.type is bool) or not isinstance(value, accepted):
                raise ConfigError(f"{one.name} is {value!r}; it must be {KINDS[one.type]}")
            if limit and not LIMITS[limit](value):
                raise ConfigError(f"{one.name} is {value!r}; it must be {limit}")

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Self:
        """Build from a notebook's variables, `globals()`, by the names of the fields.

        Raises ConfigError for a field that the notebook does not set.
        """
        names = [one.name for one in fields(cls)]
        if missing := [name for name in names if name not in variables]:
            raise ConfigError(f"the notebook does not set {', '.join(missing)}; run its parameters cell first")
        return cls(**{name: variables[name] for name in names})


def parameters_table(config: type[Params]) -> list[tuple[str, str, str, str]]:
    """Return a row for each parameter but the run's folder: name, kind with its limit, default and meaning."""
    return [
        (
            one.name,
            ", ".join(filter(None, (KINDS[one.type], one.metadata["limit"]))),
            repr(one.default) if one.type is not str else one.default or "empty",
            one.metadata["meaning"],
        )
        for one in fields(config)
        if one.default is not MISSING
    ]


@dataclass(frozen=True)
class PrepareConfig(Params):
    """Parameters of 01_prepare: captions and images in, vocabulary and features out."""

    run_dir: str = param(MISSING, "folder of this run's files")
    data_dir: str = param(SAMPLE, "folder or address (s3://…) with images and captions, or sample, or base", "given")
    captions_file: str = param("", "caption file inside data_dir; empty: found by its content")
    language: str = param("", "code of that of all captions; empty: as columns or file names say, else by their words")
    more_data: str = param("", "a further data set, as data_dir: its train images are learned too; empty: none")
    encoder: str = param("efficientnet_lite2", "one of features.encoders.ENCODERS, or of the model hub, or a folder")
    encoder_weights: str = param("pretrained", "pretrained, or random (seeded, for tests without downloads)")
    features: str = param("pooled", "pooled, or grid, which the transformer needs; grid includes pooled")
    views: int = param(0, "further views of each train image to encode: random crops, half mirrored", "at least 0")
    tune_epochs: int = param(0, "of tuning the encoder's last blocks on the train images; 0: as it is", "at least 0")
    word_embedding: str = param("glove_6b_50d", "glove_6b_50d, or a GloVe text file")
    min_count: int = param(0, "a word is learned that train captions hold so often; 0: by their number", "at least 0")
    seed: int = param(0, "for the vectors of words that the word embedding does not know")
    contributions: str = param("", "store adds what users sent, or the folder of another store; empty: nothing")
    start_from: str = param("", "current, or a bundle's folder: the model that training resumes; empty: from scratch")
    approved: str = param("", "numbers of contributions that a person has looked at, as 3,7-9, or all")
    text_share: float = param(0.05, "of the new contributions that one caption text may have", "0 to 1")
    contributor_share: float = param(0.5, "of the new ones that one of three or more contributors may have", "0 to 1")
    misfit_share: float = param(0.02, "a caption that fits worse than all but this share is a misfit", "0 to 1")


@dataclass(frozen=True)
class TrainConfig(Params):
    """Parameters of 02_train: vocabulary and features in, bundle out."""

    run_dir: str = param(MISSING, "folder of this run's files, as 01_prepare left it")
    model: str = param("merge", "a name from lcm.models.MODELS")
    epochs: int = param(11, "passes over the training captions, at most", "above 0")
    batch_size: int = param(128, "captions a step; a labelled image mostly has five", "above 0")
    learning_rate: float = param(1e-3, "Adam's, at its highest", "above 0")
    constant_rate: bool = param(False, "whether the learning rate stays; else it falls to zero along a half cosine")
    warm_up: float = param(0.0, "share of all steps in which the learning rate rises to its highest", "0 to below 1")
    clip_norm: float = param(0.0, "norm of all gradients together that a longer one is cut to; 0: no cut", "at least 0")
    label_smoothing: float = param(0.0, "share of each target that all words hold equally", "0 to below 1")
    word_dropout: float = param(0.15, "share of the earlier words that training hides", "0 to below 1")
    view_share: float = param(0.8, "share of the images that training sees in a further view", "0 to 1")
    averaged_epochs: int = param(3, "latest epochs whose mean weights are scored and kept; 1: no average", "above 0")
    epoch_steps: int = param(30, "an epoch from scratch has at least: a small data set is passed over often", "above 0")
    patience: int = param(5, "epochs without a better dev CIDEr before training stops", "above 0")
    dev_beam_width: int = param(5, "of the beam search that scores each epoch on dev", "above 0")
    max_words: int = param(20, "longest caption that decoding may write, in words", "above 0")
    reinforce_epochs: int = param(0, "of self-critical training, after that: passes over the images", "at least 0")
    reinforce_learning_rate: float = param(1e-5, "Adam's, all the time", "above 0")
    reinforce_temperature: float = param(0.6, "of the sampled words; lower: closer to the model's best", "above 0")
    reinforce_images: int = param(16, "images a step", "above 0")
    reinforce_samples: int = param(5, "captions that the model writes about each image of a step", "at least 2")
    new_share: float = param(0.2, "of a resumed model's images a step: those to learn; the others are kept", "0 to 1")
    keep_images: int = param(3000, "images whose captions a resumed model must keep, at most", "above 0")
    keep_weight: float = param(300.0, "of keeping them, against learning the new ones", "at least 0")
    parent_images: float = param(0.0, "learned images that the parent's weights count for in the mean", "at least 0")
    adapt_dropout: bool = param(False, "whether a resumed model trains with dropout")
    tagger: str = param(
        "dual_encoder",
        "dual_encoder trains one, text_tower takes the text side of the encoder's checkpoint (CLIP, SigLIP 2), adapted "
        "trains that of the model before on, kept takes it, or none",
    )
    tagger_epochs: int = param(30, "passes over the training images, one caption each, for the tag scorer", "above 0")
    word_embedding: str = param("glove_6b_50d", "what the tag scorer reads words with: as in 01_prepare")
    tensorboard: bool = param(False, "whether each epoch is logged for TensorBoard, in tensorboard of the run's folder")
    seed: int = param(0, "of weights, dropout and the order of batches")


@dataclass(frozen=True)
class EvaluateConfig(Params):
    """Parameters of 03_evaluate: bundle and held-out images in, metrics out."""

    run_dir: str = param(MISSING, "folder of this run's files, as 02_train left it")
    split: str = param("dev", "train, dev or test")
    beam_width: int = param(5, "hypotheses kept at each step", "above 0")
    max_words: int = param(20, "longest caption that decoding may write, in words", "above 0")
    rerank_weight: float = param(0.0, "of the tag scorer's cosine in the choice of one of the beam", "at least 0")
    length_power: float = param(0.9, "of the length that log-probabilities are divided by; less: shorter", "0 to 2")
    as_bundle: bool = param(False, "whether the four above are as the bundle says, which continues another one")
    samples: int = param(5, "captions drawn beside the best one, for tags")
    meteor: bool = param(True, "whether METEOR is scored, which takes ten seconds and Java")
    page_photos: int = param(20, "photos shown with captions and tags", "above 0")
    notes: str = param("", "Markdown for the model card: licences, biases seen, how the model was made")

    def of_bundle(self, manifest: Any) -> Self:
        """Return the parameters with the decoding that a bundle's manifest names."""
        return replace(self, **{name: getattr(manifest, name) for name in DECODING})

    def as_metrics(self) -> dict[str, float | str]:
        """Return what the metrics hold for: which images, and how captions were chosen."""
        return {name: getattr(self, name) for name in ("split", *DECODING)}


@dataclass(frozen=True)
class CompareConfig(Params):
    """Parameters of 04_compare: captioners and held-out images in, who is better out."""

    run_dir: str = param(MISSING, "folder of this run's files, as 01_prepare left it")
    split: str = param("dev", "train, dev or test")
    captioners: str = param("trained, nearest, blip", "separated by commas; trained is the bundle of this run")
    images: int = param(0, "of the split, evenly spaced; 0: all", "at least 0")
    meteor: bool = param(True, "whether METEOR is scored, which takes ten seconds and Java")
    timed_photos: int = param(50, "photos that each captioner is timed on, one at a time", "at least 0")


@dataclass(frozen=True)
class PublishConfig(Params):
    """Parameters of 06_publish: a comparison in, a published version or a refusal out."""

    run_dir: str = param(MISSING, "folder of this run's files, as 04_compare left it")
    new: str = param("new", "what the comparison calls the model of this run")
    current: str = param("current", "what it calls the current model")
    publish: bool = param(True, "whether a model that passes is published; else the gate only says what it would do")
    make_current: bool = param(True, "whether what is published answers from then on")


CONFIGS: Mapping[str, type[Params]] = {  # notebook -> its parameters
    "01_prepare": PrepareConfig,
    "02_train": TrainConfig,
    "03_evaluate": EvaluateConfig,
    "04_compare": CompareConfig,
    "06_publish": PublishConfig,
}
