"""Where a captioner looked: which photos, words and looks come together, and that nothing is drawn without a graph."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from lcm.data.dataset import LabelledImage
from lcm.data.text import START
from lcm.evaluation import gallery
from lcm.evaluation.gallery import PHOTOS, draw_attention
from lcm.features.cache import LabelledFeatures
from lcm.features.encoders import EncoderIdentity
from tests.fakes.figure_checks import texts_of
from tests.fakes.tiny_graphs import BLUE, GREEN, RED, VOCABULARY, A, tiny_manifest


@dataclass
class Looking:
    """A bundle that looks at the grid position that an image's first feature names, then at the next ones."""

    manifest = tiny_manifest(EncoderIdentity("tiny", "random", "0" * 64, ()))
    vocabulary, has_attention = VOCABULARY, True
    asked: list = field(default_factory=list)

    def attention(self, features: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        assert features.shape[:2] == (1, 4)
        assert token_ids.shape[:2] == (1, 1)
        self.asked.append(token_ids[0, 0].tolist())
        places = int(features[0, 0, 0]) + np.arange(token_ids.shape[2])
        return np.eye(4)[places % 4][None, None]


@pytest.fixture
def photos(tmp_path) -> LabelledFeatures:
    """Eight; the first feature of each is its number."""
    images = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), (30 * number, 0, 0)).save(path)
        images.append(LabelledImage(path.name, path, "dev", ("a photo",)))
    store = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 4, 3))
    return LabelledFeatures(images, np.arange(8), store)


CAPTIONS = ["a red square", "a blue square", "", "green", "a green square", "a red", "blue square", "a"]


def test_each_of_some_photos_has_its_words_and_where_each_was_found(photos, tmp_path, monkeypatch):
    drawn, draw = [], gallery.attention

    def spy(image, words, weights):
        drawn.append((image, words, weights.argmax(1).tolist()))
        return draw(image, words, weights)

    monkeypatch.setattr(gallery, "attention", spy)
    figures = draw_attention(bundle := Looking(), photos, CAPTIONS, tmp_path / "figures")
    # of eight, four evenly spaced are 0, 2, 4 and 6; the second has no words
    assert bundle.asked == [[START, A, RED], [START, A, GREEN], [START, BLUE]]  # what was read as each word was written
    assert drawn == [
        (photos.paths[0], ["a", "red", "square"], [0, 1, 2]),
        (photos.paths[4], ["a", "green", "square"], [0, 1, 2]),
        (photos.paths[6], ["blue", "square"], [2, 3]),
    ]
    assert [[text for text in texts_of(figure) if text] for figure in figures] == [words for _, words, _ in drawn]
    saved = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in saved] == ["attention_1.png", "attention_2.png", "attention_3.png"]
    assert len({path.read_bytes() for path in saved}) == 3


def test_few_photos_are_all_shown(photos, tmp_path):
    two = LabelledFeatures(photos.images[:2], photos.rows[:2], photos.store)
    assert len(draw_attention(Looking(), two, CAPTIONS[:2], tmp_path)) == 2 < PHOTOS
    none = LabelledFeatures([], photos.rows[:0], photos.store)
    assert draw_attention(Looking(), none, [], tmp_path) == []


def test_a_bundle_that_cannot_tell_gives_no_figure(photos, tmp_path):
    bundle = Looking()
    bundle.has_attention = False
    assert draw_attention(bundle, photos, CAPTIONS, tmp_path / "figures") == []
    assert bundle.asked == []
    assert not (tmp_path / "figures").exists()
