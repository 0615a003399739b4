"""Numbers that others have published, to stand beside one's own.

Knows what was reported, on which images and where. Refuses to measure: nothing here was run, and a quoted number can
differ from one's own by the images, the split, the tokeniser and the encoder, not only by the model. The numbers were
copied by hand: check them against their source before they are quoted further.

BLEU-4, METEOR and CIDEr are fractions as `lcm.evaluation.metrics.Scores` has them; papers print them times 100.
"""

from dataclasses import asdict, dataclass

TANTI = "Tanti, Gatt, Camilleri: Where to put the image in an image caption generator (2018)"
XU = "Xu et al.: Show, Attend and Tell (2015)"
ZHOU = "Zhou et al.: Unified Vision-Language Pre-Training for Image Captioning and VQA (2020)"
UNNAMED = "paper not known; its captions are longer than people's"


@dataclass(frozen=True)
class Quoted:
    """One row of somebody else's table."""

    model: str
    images: str  # the data set and its split
    source: str
    link: str  # of the source; empty: none is known
    bleu_4: float
    meteor: float | None = None  # None: not reported, or not quoted
    cider: float | None = None

    def as_record(self) -> dict[str, str | float | None]:
        """Return the row for a JSON file, marked as quoted."""
        return asdict(self) | {"quoted": True}


FLICKR8K, FLICKR30K = "Flickr8k, test", "Flickr30k, test"
PUBLISHED = (
    Quoted("merge", FLICKR8K, TANTI, "https://doi.org/10.1017/S1351324918000098", 0.178, 0.193, 0.469),
    Quoted("soft attention", FLICKR8K, XU, "https://arxiv.org/abs/1502.03044", 0.195, 0.189),
    Quoted("hard attention", FLICKR8K, XU, "https://arxiv.org/abs/1502.03044", 0.213, 0.203),
    Quoted("a 7B instruction-tuned model, zero-shot", FLICKR8K, UNNAMED, "", 0.156, None, 0.367),
    Quoted("merge", FLICKR30K, TANTI, "https://doi.org/10.1017/S1351324918000098", 0.187, None, 0.385),
    Quoted("Unified VLP, fine-tuned", FLICKR30K, ZHOU, "https://arxiv.org/abs/1909.11059", 0.301, None, 0.674),
)
