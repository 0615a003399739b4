"""The original's service, as the reference: Keras for features and words, CLIP for tags.

Knows what it ran for a photo: ResNet50 by `predict`, one `predict` of the whole model a word, and a CLIP of the size of
openai/clip-vit-large-patch14 over the words. Weights are random, for speed does not depend on them, and nothing is
downloaded; a caption has a fixed number of words, for random weights would end none. Refuses to be used for captions.

`python -m lcm.benchmark.original PHOTO` answers for one photo and prints the seconds and megabytes it took, as JSON.
"""

import sys
from pathlib import Path

import numpy as np

from lcm.benchmark.prefixes import build_prefix_model
from lcm.models.merge import Merge

WORDS = 10  # of a caption; the mean of Flickr8k's is 11
TAGS = 6  # words that CLIP scores
FEATURES, VOCABULARY, LONGEST = 2048, 5352, 34  # ResNet50's features; words and longest caption of the original
CLIP_LARGE = {  # of openai/clip-vit-large-patch14
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
    "projection_dim": 768,
}
PIXELS = 224  # a side, of both networks


class Original:
    """Everything that the original kept in memory to answer."""

    def __init__(self, clip: dict = CLIP_LARGE, features: int = FEATURES):
        """Make the three networks; smaller ones are for tests."""
        import keras
        import torch
        from transformers import CLIPConfig, CLIPModel

        self._keras, self._torch = keras, torch
        pictures = {"include_top": False, "pooling": "avg", "weights": None}
        self._network = keras.applications.ResNet50(**pictures) if features == FEATURES else _mean_colours(features)
        model = Merge((features,), VOCABULARY)
        model((np.zeros((1, features), np.float32), np.zeros((1, 1, 1), np.int32)))
        self._captioner = build_prefix_model(model)
        self._clip = CLIPModel(CLIPConfig(**clip)).eval()

    def caption(self, photo: Path) -> list[int]:
        """Write WORDS words about a photo, one `predict` a word."""
        utils = self._keras.utils
        pixels = utils.img_to_array(utils.load_img(photo, target_size=(PIXELS, PIXELS)))
        ready = self._keras.applications.resnet50.preprocess_input(pixels[None])
        features = self._network.predict(ready, verbose=0)
        written = [1]
        for _ in range(WORDS):
            prefix = np.zeros((1, LONGEST), np.int32)
            prefix[0, LONGEST - len(written) :] = written
            written.append(int(self._captioner.predict((features, prefix), verbose=0).argmax()))
        return written[1:]

    def tags(self, photo: Path) -> np.ndarray:
        """Score TAGS words of two tokens each against a photo; the scores sum to 1."""
        torch = self._torch
        size = self._clip.config.vision_config.image_size
        pixels = self._keras.utils.img_to_array(self._keras.utils.load_img(photo, target_size=(size, size)))
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / 127.5 - 1).float()
        ids = torch.arange(TAGS * 4).reshape(TAGS, 4) % self._clip.config.text_config.vocab_size
        with torch.no_grad():
            logits = self._clip(input_ids=ids, pixel_values=image).logits_per_image
        return logits.softmax(-1).numpy()[0]


def _mean_colours(features: int):
    """Return a network of nearly nothing."""
    import keras

    pooled = (keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(features))
    return keras.Sequential([keras.Input((PIXELS, PIXELS, 3)), *pooled])


if __name__ == "__main__":
    from lcm.benchmark.process import report_first_answer

    def answer(photo: Path) -> None:
        """Answer once, from nothing."""
        original = Original()
        original.caption(photo)
        original.tags(photo)

    report_first_answer(answer, Path(sys.argv[1]))
