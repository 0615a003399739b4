"""Twenty images of four colours and five things, and a merge model that is trained on them in a second."""

from pathlib import Path

import numpy as np

from lcm.config import TrainConfig
from lcm.data.dataset import Dataset, LabelledImage
from lcm.data.text import build_vocabulary
from lcm.features.cache import EncodedImages, LabelledFeatures, PreparedRun
from lcm.features.encoders import EncoderIdentity
from lcm.models import build_model
from lcm.training.batches import CaptionBatches
from lcm.training.loop import History, Supervised, make_dev_scorer

NO_ENCODER = EncoderIdentity("tiny", "random", "0" * 64, ())
COLOURS, THINGS = ("red", "green", "blue", "white"), ("dog", "cat", "horse", "boat", "tree")


def toy_world(encoder: EncoderIdentity = NO_ENCODER) -> tuple[LabelledFeatures, PreparedRun]:
    """Twenty images whose features say outright which colour and thing they show."""
    images, features = [], []
    for i, colour in enumerate(COLOURS):
        for j, thing in enumerate(THINGS):
            captions = (f"a {colour} {thing}", f"there is a {colour} {thing} in the picture")
            images.append(LabelledImage(f"{colour}-{thing}.jpg", Path(f"{colour}-{thing}.jpg"), "train", captions))
            features.append(np.concatenate([np.eye(4)[i], np.eye(5)[j]]))
    store = np.array(features, dtype=np.float32)
    dataset = Dataset(tuple(images))
    vocabulary = build_vocabulary(dataset.captions_of("train"), 1)
    prepared = PreparedRun(dataset, vocabulary, EncodedImages(encoder, {}, {}))
    return LabelledFeatures(images, np.arange(len(images)), store), prepared


def train_toy(
    checkpoint: Path, kind: type[CaptionBatches] = CaptionBatches, **parameters
) -> tuple[object, History, LabelledFeatures, PreparedRun]:
    """Train a merge model on it; returns it, its history, the images and the run."""
    labelled, prepared = toy_world()
    config = TrainConfig(**({"run_dir": "", "epochs": 4, "batch_size": 8, "learning_rate": 0.01} | parameters))
    vectors = np.random.default_rng(0).normal(size=(len(prepared.vocabulary), 50)).astype(np.float32)
    model = build_model("merge", labelled.shape, vectors, config.seed)
    batches, dev = (each(labelled, prepared.vocabulary, config.batch_size) for each in (kind, CaptionBatches))
    scorer = make_dev_scorer(model, labelled, prepared.vocabulary, beam_width=2, max_words=10)
    history = Supervised(model, batches, dev, scorer, config).fit(checkpoint)
    return model, history, labelled, prepared
