"""The self-test: which captioners pass, and what is said of the others."""

import pytest

from lcm.captioning.captioner import SHIPPED_BUNDLE, fault_of, load_tested, probe_images, smoke_test
from lcm.captioning.description import Description
from lcm.errors import BundleError, LcmError
from lcm.paths import packaged_file
from tests.fakes.tiny_graphs import use_tiny_encoder
from tests.fakes.tiny_versions import BROKEN, letters_of, red_picture, save_version

GOOD = Description("a dog", ("a dog", "a cat"), (("dog", 0.75), ("cat", 0.25)), "odd-1", 0.5)


class Saying:
    """A captioner that says one thing after the other, then the last one again."""

    name = "saying-1"

    def __init__(self, *said: Description):
        self.said = list(said)

    def describe(self, *_) -> Description:
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


def test_a_version_that_works_passes(tmp_path, monkeypatch):
    folder = save_version(tmp_path / "b", use_tiny_encoder(tmp_path, monkeypatch), "b", ballast_mb=1)
    said = load_tested(folder).describe(red_picture())
    assert said.caption == "ab redb squareb"
    assert letters_of(list(said.english_captions), list(said.tags)) == {"b"}


def test_the_shipped_model_passes():
    assert load_tested(packaged_file(SHIPPED_BUNDLE)).name


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_work_is_refused_in_one_line(name, tmp_path, monkeypatch):
    folder = save_version(tmp_path / "b", use_tiny_encoder(tmp_path, monkeypatch), "b")
    BROKEN[name](folder)
    with pytest.raises(LcmError) as refused:
        load_tested(folder)
    assert "\n" not in str(refused.value)
    assert "again" in str(refused.value) or "broken" in str(refused.value)


def test_what_is_a_description():
    assert fault_of(GOOD) == ""
    assert fault_of(Description("", ("",), (), "m")) == "", "of some pictures there is nothing to say"
    assert "confidence" in fault_of(Description("a dog", ("a dog",), (), "m", float("nan")))
    assert "confidence" in fault_of(Description("a dog", ("a dog",), (), "m", 1.5))
    assert "sum" in fault_of(Description("a dog", ("a dog",), (("dog", 0.5),), "m"))


def test_a_captioner_has_to_say_something_and_the_same_again():
    smoke_test(Saying(GOOD))
    with pytest.raises(BundleError, match="saying-1 fails its self-test on the gradient: a caption is empty"):
        smoke_test(Saying(Description(" ", (" ",), (), "m")))
    with pytest.raises(BundleError, match="otherwise the second time"):
        smoke_test(Saying(GOOD, Description("a cat", ("a cat",), (), "m"), GOOD))
    with pytest.raises(BundleError, match="on the banner"):
        smoke_test(Saying(*[GOOD] * 2 * (len(probe_images()) - 1), Description("", ("",), (), "m")))
