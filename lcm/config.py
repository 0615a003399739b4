"""What can be set: the parameters of the notebooks, one frozen dataclass a notebook.

Knows names, defaults and limits. Refuses to know what the values are used for.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Self

from lcm.errors import ConfigError

SAMPLE = "sample"  # the data_dir that stands for the generated data set
BASE = "base"  # the data_dir that stands for what LCM_DATASET_URL names, and where that is not set, for the sample
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}  # of a parameter's value


class Params:
    """Mix-in for the frozen dataclasses below: built from a notebook's parameters, strictly."""

    @classmethod
    def from_params(cls, **params: Any) -> Self:
        """Build from keyword arguments; raises ConfigError for an unknown or missing key and a wrong kind of value."""
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigError(
                f"unknown parameter {', '.join(unknown)} for {cls.__name__}; choose from {', '.join(sorted(known))}"
            )
        for name, field in known.items():
            if name in params:
                check_kind(name, params[name], field.type)
            elif field.default is MISSING:
                raise ConfigError(f"{cls.__name__} needs the parameter {name}")
        return cls(**params)

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Self:
        """Build from a notebook's variables, `globals()`, by the names of the fields.

        Raises ConfigError for a field that the notebook does not set.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in variables]
        if missing:
            raise ConfigError(f"the notebook does not set {', '.join(missing)}; run its parameters cell first")
        return cls.from_params(**{name: variables[name] for name in names})


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise ConfigError unless a parameter's value is of the kind that its field holds; a whole number is a number."""
    is_bool, accepted = isinstance(value, bool), (int, float) if kind is float else kind
    if is_bool != (kind is bool) or not isinstance(value, accepted):
        raise ConfigError(f"{name} is {value!r}; it must be {KINDS[kind]}")


def positive(**values: float) -> None:
    """Raise ConfigError for the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value!r}; it must be above zero")


@dataclass(frozen=True)
class PrepareConfig(Params):
    """Parameters of 01_prepare: captions and images in, vocabulary and features out."""

    run_dir: str  # folder of this run's files
    data_dir: str = SAMPLE  # folder or address (s3://…) with images and captions, or "sample", or "base"
    captions_file: str = ""  # caption file inside data_dir; empty: found by its content
    encoder: str = "efficientnet_lite2"  # a name from lcm.features.encoders.ENCODERS
    encoder_weights: str = "pretrained"  # "pretrained", or "random" (seeded, for tests without downloads)
    features: str = "pooled"  # "pooled", or "grid", which the transformer needs; grid includes pooled
    views: int = 0  # further views of each train image to encode: random crops, half of them mirrored
    word_embedding: str = "glove_6b_50d"  # "glove_6b_50d", or a GloVe text file
    min_count: int = 5  # a word enters the vocabulary when train captions hold it at least this often
    seed: int = 0  # for the vectors of words that the word embedding does not know
    contributions: str = ""  # "store" adds what users sent, or the folder of another store; empty: nothing
    start_from: str = ""  # "current", or a bundle's folder: the model that training goes on from; empty: from scratch
    approved: str = ""  # numbers of contributions that a person has looked at, as 3,7-9, or "all"
    text_share: float = 0.05  # of the new contributions that one caption text may have
    contributor_share: float = 0.5  # of the new contributions that one named contributor may have
    misfit_share: float = 0.02  # a caption that fits its image worse than all but this share of others is a misfit

    def __post_init__(self) -> None:
        positive(min_count=self.min_count)
        if self.views < 0:
            raise ConfigError(f"views is {self.views!r}; it must be at least 0")


@dataclass(frozen=True)
class TrainConfig(Params):
    """Parameters of 02_train: vocabulary and features in, bundle out."""

    run_dir: str  # folder of this run's files, as 01_prepare left it
    model: str = "merge"  # a name from lcm.models.MODELS
    epochs: int = 11  # passes over the training captions, at most
    batch_size: int = 128  # captions a step; a labelled image mostly has five
    learning_rate: float = 1e-3  # Adam's, at its highest; it falls to zero along a half cosine
    warm_up: float = 0.0  # share of all steps in which the learning rate rises to its highest; 0 to below 1
    clip_norm: float = 0.0  # norm of all gradients together that a longer one is cut to; 0: none is cut
    label_smoothing: float = 0.0  # share of each target that all words hold in equal parts; 0 to below 1
    word_dropout: float = 0.15  # share of the words before the next one that training hides; 0 to below 1
    view_share: float = 0.8  # share of the images that training sees in a further view, where 01_prepare encoded some
    averaged_epochs: int = 3  # latest epochs whose mean weights are scored on dev and kept; 1: no average
    patience: int = 5  # epochs without a better dev CIDEr before training stops
    dev_beam_width: int = 5  # of the beam search that scores each epoch on dev
    max_words: int = 20  # longest caption that decoding may write, in words
    reinforce_epochs: int = 0  # of self-critical training after the first stage: passes over the images; 0: none
    reinforce_learning_rate: float = 1e-5  # Adam's, all the time
    reinforce_temperature: float = 0.6  # of the sampled words: lower ones follow the model's best words more closely
    reinforce_images: int = 16  # images a step
    reinforce_samples: int = 5  # captions that the model writes about each image of a step, at least 2
    contributed_share: float = 0.2  # of the images of a step that contributed ones may be
    keep_images: int = 3000  # base images whose captions a model that goes on must keep
    keep_weight: float = 300.0  # of keeping them, against learning the contributed ones
    tagger: str = "dual_encoder"  # tag scorer to train with the captioner; "kept" from the model before, or "none"
    tagger_epochs: int = 30  # passes over the training images, one caption each, for the tag scorer
    word_embedding: str = "glove_6b_50d"  # what the tag scorer reads words with: as in 01_prepare
    export_attention: bool = False  # whether the bundle can tell where the model looked at each word; transformer only
    seed: int = 0  # of weights, dropout and the order of batches

    def __post_init__(self) -> None:
        positive(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            averaged_epochs=self.averaged_epochs,
            patience=self.patience,
            dev_beam_width=self.dev_beam_width,
            max_words=self.max_words,
            reinforce_learning_rate=self.reinforce_learning_rate,
            reinforce_temperature=self.reinforce_temperature,
            reinforce_images=self.reinforce_images,
            tagger_epochs=self.tagger_epochs,
        )
        for name in ("warm_up", "label_smoothing", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be at least 0 and below 1")
        if not self.clip_norm >= 0:
            raise ConfigError(f"clip_norm is {self.clip_norm!r}; it must be at least 0")
        if not 0 <= self.view_share <= 1:
            raise ConfigError(f"view_share is {self.view_share!r}; it must be 0 to 1")
        if self.reinforce_epochs < 0 or self.reinforce_samples < 2:
            raise ConfigError(
                f"reinforce_epochs is {self.reinforce_epochs!r} and reinforce_samples {self.reinforce_samples!r}; they "
                "must be at least 0 and at least 2"
            )


@dataclass(frozen=True)
class EvaluateConfig(Params):
    """Parameters of 03_evaluate: bundle and held-out images in, metrics out."""

    run_dir: str  # folder of this run's files, as 02_train left it
    split: str = "dev"  # train, dev or test
    beam_width: int = 5  # hypotheses kept at each step
    max_words: int = 20  # longest caption that decoding may write, in words
    rerank_weight: float = 0.0  # of the tag scorer's cosine when one of the beam's captions is chosen; 0: not asked
    length_power: float = 0.9  # of the length that log-probabilities are divided by then; smaller: shorter captions
    as_bundle: bool = False  # whether the four above are as the bundle says, which continues another one
    samples: int = 5  # captions drawn beside the best one, for tags
    meteor: bool = True  # whether METEOR is scored, which takes ten seconds and Java
    gallery_images: int = 4  # of the best, the median and the worst captions that are shown, each
    page_photos: int = 20  # photos shown with captions and tags
    notes: str = ""  # Markdown for the model card: licences, biases seen, how the model was made

    def __post_init__(self) -> None:
        positive(**{name: getattr(self, name) for name in ("beam_width", "max_words", "gallery_images", "page_photos")})
        if self.rerank_weight < 0:
            raise ConfigError(f"rerank_weight is {self.rerank_weight!r}; it must be at least 0")
        if not 0 <= self.length_power <= 2:
            raise ConfigError(f"length_power is {self.length_power!r}; it must be 0 to 2")

    def of_bundle(self, manifest: Any) -> Self:
        """Return the parameters with the decoding that a bundle's manifest names."""
        names = ("beam_width", "max_words", "rerank_weight", "length_power")
        return replace(self, **{name: getattr(manifest, name) for name in names})

    def as_metrics(self) -> dict[str, float | str]:
        """Return what the metrics hold for: which images, and how captions were chosen."""
        return {
            name: getattr(self, name) for name in ("split", "beam_width", "max_words", "rerank_weight", "length_power")
        }


@dataclass(frozen=True)
class CompareConfig(Params):
    """Parameters of 04_compare: captioners and held-out images in, who is better out."""

    run_dir: str  # folder of this run's files, as 01_prepare left it
    split: str = "dev"  # train, dev or test
    captioners: str = "trained, nearest, blip"  # separated by commas; trained is the bundle of this run
    images: int = 0  # of the split, evenly spaced; 0: all
    meteor: bool = True  # whether METEOR is scored, which takes ten seconds and Java
    timed_photos: int = 50  # photos that each captioner is timed on, one at a time
    disagreements: int = 12  # photos shown on which the captioners differ most
    update_cards: bool = False  # whether the compared bundles' model cards get their numbers

    def __post_init__(self) -> None:
        positive(disagreements=self.disagreements)
        for name in ("images", "timed_photos"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be at least 0")


@dataclass(frozen=True)
class PublishConfig(Params):
    """Parameters of 06_publish: a comparison in, a published version or a refusal out."""

    run_dir: str  # folder of this run's files, as 04_compare left it
    new: str = "new"  # what the comparison calls the model of this run
    current: str = "current"  # what it calls the current model
    publish: bool = True  # whether a model that passes is published; else the gate only says what it would do
    make_current: bool = True  # whether what is published answers from then on


@dataclass(frozen=True)
class ExploreConfig(Params):
    """Parameters of 00_explore: a photo in, a small data set of one's own out."""

    run_dir: str  # folder where the small data set goes
    photo: str = "../reports/examples/astronaut.jpg"  # what the tour looks at
    labels: str = "astronaut, flag, dog, kitchen"  # words of your own to score, separated by commas
    samples: int = 5  # captions drawn beside the best one
    shown: int = 6  # images of the data set that are shown

    def __post_init__(self) -> None:
        positive(shown=self.shown)

    @property
    def words(self) -> list[str]:
        """The labels, one by one."""
        return [word.strip() for word in self.labels.split(",") if word.strip()]
