"""The translator: tiny Marian checkpoints with their own tokenizers, read as those of the hub are."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lcm.captioning.captioner import load_captioner
from lcm.captioning.terms import Terms
from lcm.captioning.translation import Translator, load_translator
from lcm.errors import ConfigError
from tests.fakes.tiny_graphs import CURVES, make_picture, use_tiny_encoder
from tests.fakes.tiny_marian import EN_FR, make_marian
from tests.fakes.tiny_versions import save_bilingual
from tests.features.test_checkpoints import edit


@pytest.fixture
def copied(marian, tmp_path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(marian, tmp_path / "copied"))


def test_texts_are_translated_one_by_one(marian):
    translator = Translator(f" {marian} ,")
    assert translator.to_language(list(EN_FR), "en", "fr") == list(EN_FR.values())
    assert translator.to_language(["a man’s dog"], "en", "fr") == ["le chien d'un homme"]
    assert translator.to_language([], "en", "fr") == []
    for odd in ("", "xyzzy 李", "a red square " * 200):
        assert len(translator.to_language([odd], "en", "fr")[0]) < 1000


PAIRS = [
    ({"source_lang": "en_GB", "target_lang": "sv"}, "copied", "sv"),
    ({"source_lang": "eng", "target_lang": "deu"}, "opus-mt", "de"),
    ({"source_lang": "eng", "target_lang": "zho"}, "opus-mt-en-zh", "zh"),
    ({"source_lang": None, "target_lang": None}, "opus-mt-tc-big-en-pt", "pt"),
]


@pytest.mark.parametrize(("settings", "name", "target"), PAIRS)
def test_a_checkpoint_says_its_languages(copied, settings, name, target):
    edit(copied / "tokenizer_config.json", **settings)
    translator = Translator(str(copied.rename(copied.with_name(name))))
    assert translator.targets("en") == (target,)
    assert translator.targets(target) == ()
    assert translator.to_language(["a red"], "en", target) == ["un rouge"]


@pytest.mark.parametrize("settings", [{"source_lang": None}, {"target_lang": "ROMANCE"}])
def test_a_checkpoint_that_does_not_say_its_languages_is_refused(copied, settings):
    edit(copied / "tokenizer_config.json", **settings)
    with pytest.raises(ConfigError, match=r"copied' says .*; write two codes, such as en and fr, as source_lang"):
        Translator(str(copied))


def test_a_checkpoint_of_several_languages_is_told_which(tmp_path):
    folder = make_marian(tmp_path / "many", target=">>fra<<", source="eng")
    translator = Translator(str(folder))
    assert translator.targets("en") == ("fr",)
    assert translator.to_language(list(EN_FR), "en", "fr") == list(EN_FR.values())


def test_several_checkpoints(marian, copied):
    edit(copied / "tokenizer_config.json", source_lang="fr", target_lang="en")
    translator = Translator(f"{marian},{copied}")
    assert [translator.targets(source) for source in ("en", "fr", "de")] == [("fr",), ("en",), ()]
    assert translator.name == "opus-mt-en-fr, copied"


def test_pickled_weights_are_read(copied):
    """As most checkpoints are published: with every name of the shared table, and settings of transformers 4."""
    import torch
    import transformers

    weights = transformers.MarianMTModel.from_pretrained(copied).state_dict()
    assert {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.encoder.embed_positions.weight"} < {*weights}
    (copied / "model.safetensors").unlink()
    torch.save(weights, copied / "pytorch_model.bin")
    (copied / "generation_config.json").write_text(json.dumps({"num_beams": 1, "max_length": 3, "do_sample": True}))
    edit(copied / "config.json", num_beams=1, max_length=3, bad_words_ids=[[0]], normalize_before=False)
    assert Translator(str(copied)).to_language(list(EN_FR), "en", "fr") == list(EN_FR.values())


def test_a_captioner_answers_in_languages_that_the_translator_has(marian, tmp_path, monkeypatch):
    """Here the model writes English alone; its tag scorer reads French, and then cannot."""
    identity = use_tiny_encoder(tmp_path, monkeypatch)
    bundle = save_bilingual(tmp_path / "bundle", identity)
    monkeypatch.setenv("LCM_TRANSLATOR", str(marian))
    captioner = load_captioner(bundle)
    monkeypatch.setattr(captioner, "languages", ("en",))
    assert captioner.offered == ("en", "fr")
    photo = make_picture(tmp_path / "red.png", "red")
    english, french = (captioner.describe(photo, language=language) for language in ("en", "fr"))
    assert (french.caption, french.language, french.model) == ("un carré rouge", "fr", "tiny-1 with opus-mt-en-fr")
    assert french.english_captions == english.english_captions
    assert [word for word, _ in french.tags] == ["rouge", "carré"]
    assert captioner.describe(photo, labels=["blue", "red"], language="fr").tags[0][0] == "red"
    monkeypatch.setattr(captioner.tag_scorer, "curves", CURVES)
    probable = partial(captioner.describe, photo, language="fr", scores="probability")
    assert [word for word, _ in probable(min_score=0.6).tags] == ["rouge"]
    assert probable(min_score=0.9).tags == (), "and not the English ones"
    with pytest.raises(ConfigError, match=r"language is 'de'; choose from en, fr, or .*LCM_TRANSLATOR"):
        captioner.describe(photo, language="de")
    read, french_words = captioner.tag_scorer.text_vectors, {word for word, _ in french.tags}
    english_only = lambda texts: read(texts) * np.array([[text not in french_words] for text in texts])  # noqa: E731
    monkeypatch.setattr(captioner.tag_scorer, "text_vectors", english_only)
    assert captioner.describe(photo, language="fr").tags == english.tags
    (tmp_path / "terms.csv").write_text(
        "term,synonyms,parent,fr\ncolours,,,couleurs\nvermilion,red,colours,vermillon|rouge\n"
    )
    captioner.terms = Terms(str(tmp_path / "terms.csv"))
    assert [word for word, _ in captioner.describe(photo, language="fr").tags] == ["couleurs > vermillon", "square"]
    monkeypatch.setattr(captioner.tag_scorer, "text_vectors", read)
    assert [word for word, _ in captioner.describe(photo, language="fr").tags] == ["couleurs > vermillon", "carré"]


def test_without_names_nothing_is_translated():
    assert load_translator("").targets("en") == ()
