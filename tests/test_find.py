"""The index of photos: what `lcm index` takes in and forgets, and what `lcm search` finds, with a tiny captioner."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lcm.captioning.captioner import BundleCaptioner
from lcm.cli import main
from lcm.contributions.store import ContributionStore
from tests.fakes.altered import alter, scene
from tests.fakes.tiny_graphs import TAGGER, make_picture, save_bundle, use_tiny_encoder
from tests.fakes.tiny_versions import save_version

COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder of a photo of each colour, one of them in a sub-folder; a tiny bundle answers."""
    identity = use_tiny_encoder(tmp_path, monkeypatch)
    monkeypatch.setenv("LCM_BUNDLE", str(save_bundle(tmp_path / "bundle", identity, tagger=TAGGER)))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for colour in COLOURS:
        make_picture(tmp_path / "photos" / ("more" if colour == "blue" else "") / f"{colour}.png", colour)
    return tmp_path / "photos"


@pytest.fixture
def lcm(capsys):
    """Run a command; returns exit code, what was printed, and the last line of what was complained of."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        printed, complained = capsys.readouterr()
        return code, printed, complained.rstrip().rpartition("\n")[2]

    return run


@pytest.fixture
def found(lcm):
    """Search; returns the photos' names, the best first, with what else is said of each."""

    def search(*query) -> dict[str, dict]:
        _, printed, _ = lcm("search", "--json", *query)
        return {Path(one["photo"]).name: one for one in map(json.loads, printed.splitlines())}

    return search


def said(there: int, new: int = 0, gone: int = 0, model: str = "tiny-1") -> str:
    return f"photos in the index of {model}: {there}; new: {new}; files gone: {gone}\n"


def test_photos_are_found_by_words_and_by_a_picture(photos, lcm, found, tmp_path):
    (photos / "damaged.png").write_bytes((photos / "red.png").read_bytes()[:60])
    code, printed, complained = lcm("index", photos)
    assert (code, printed) == (1, said(3, new=3))
    assert complained.startswith(f"lcm: not indexed: {photos}/damaged.png: received a PNG")
    for colour in COLOURS:
        best, *others = found(colour).values()
        assert Path(best.pop("photo")).stem == colour
        assert best == {"caption": f"a {colour} square", "contributed": False, "score": pytest.approx(1.05)}
        assert [one["score"] for one in others] == [0, 0]
    assert lcm("search", "Red!", "--count", "1") == (0, f"{photos}/red.png: a red square (1.05)\n", "")
    shade = make_picture(tmp_path / "shade.png", (200, 100, 0))
    assert [(name, round(one["score"], 2)) for name, one in found(shade).items()][:2] == [
        ("red.png", 0.89),
        ("green.png", 0.45),
    ]


def test_words_that_the_tagger_does_not_know_are_named(photos, lcm):
    lcm("index", photos)
    code, printed, complained = lcm("search", "a zeppelin over a green meadow", "--count", "1")
    assert (code, printed) == (0, f"{photos}/green.png: a green square (1.05)\n")
    assert complained == "lcm: tiny-tags does not know a, zeppelin, over, meadow: captions alone are searched for that"
    code, printed, complained = lcm("search", "zeppelin")
    assert (code, printed) == (1, "")
    assert "does not know zeppelin" in complained


def test_what_moved_is_known_and_what_is_gone_is_forgotten(photos, lcm, found):
    lcm("index", photos)
    assert lcm("index", photos)[:2] == (0, said(3))
    (photos / "green.png").rename(photos / "more" / "grün.png")
    odd = os.fsdecode(b"caf\xe9.png")  # not UTF-8
    shutil.copy(photos / "red.png", photos / odd)
    (photos / "red.png").unlink()
    assert lcm("index", photos)[:2] == (0, said(3, gone=2))
    assert next(iter(found("green"))) == "grün.png"
    assert next(iter(found("red"))) == odd
    (photos / "more" / "blue.png").unlink()
    make_picture(photos / "more" / "grün.png", (0, 0, 200))  # another photo under the name
    assert lcm("index", photos)[:2] == (0, said(2, new=1, gone=1))
    assert {name: one["caption"] for name, one in found("blue").items()} == {
        "grün.png": "a blue square",
        odd: "a red square",
    }
    photos.rename(photos.with_name("elsewhere"))
    assert lcm("index", photos.with_name("elsewhere"))[:2] == (0, said(2, gone=2))
    assert {one["photo"] for one in found("blue").values()} == {
        str(photos.with_name("elsewhere") / name) for name in ("more/grün.png", odd)
    }
    shutil.rmtree(photos.with_name("elsewhere"))
    photos = photos.with_name("elsewhere")
    photos.mkdir()  # as a disk that is not mounted
    code, printed, complained = lcm("index", f"{photos}/")
    assert (code, printed) == (1, said(2))
    assert "holds no image" in complained


def test_an_interrupted_run_goes_on_where_it_was(photos, lcm, monkeypatch):
    for shade in range(100):
        make_picture(photos / f"{shade:03}.png", (255, shade, 0))
    see, seen = BundleCaptioner.see, []

    def interrupt(captioner, image):
        seen.append(image)
        if len(seen) == 90:
            raise KeyboardInterrupt
        return see(captioner, image)

    with monkeypatch.context() as patch:
        patch.setattr(BundleCaptioner, "see", interrupt)
        assert lcm("index", photos)[0] == 130
    code, printed, _ = lcm("index", photos)
    new = int(printed.split("new: ")[1].split(";")[0])
    assert (code, printed) == (0, said(102, new=new))  # red.png has the bytes of no other; 000.png is red too
    assert 0 < new < 102


def test_what_people_say_comes_first_until_they_revoke_it(photos, lcm, found):
    lcm("index", photos)
    store = ContributionStore()
    sent = store.add((photos / "more" / "blue.png").read_bytes(), "The red zeppelin of Élodie in the lakes")
    best, *_ = found("zeppelins in the lake").values()
    assert (best["caption"], best["contributed"]) == (sent.caption, True)
    assert next(iter(found("red"))) == "blue.png"  # it has all words
    assert next(iter(found("red square"))) == "red.png"  # it has not
    in_french = store.add((photos / "red.png").read_bytes(), "Des élèves dans la neige", "fr")
    assert next(iter(found("eleve dans la neige"))) == "red.png"
    for one in (sent, in_french):
        store.revoke(one.id, "wrong")
    assert lcm("search", "zeppelins neige")[:2] == (1, "")
    assert found("red")["blue.png"]["caption"] == "a blue square"


def test_each_model_has_its_own_index(photos, lcm, tmp_path, monkeypatch):
    code, _, complained = lcm("search", "red")
    assert (code, complained) == (
        1,
        "lcm: nothing is indexed by tiny-1, the model that answers; give: lcm index PHOTOS",
    )
    lcm("index", photos)
    identity = use_tiny_encoder(tmp_path, monkeypatch)
    monkeypatch.setenv("LCM_BUNDLE", str(save_version(tmp_path / "b", identity, "b")))
    assert "nothing is indexed by tiny-b" in lcm("search", "redb")[2]
    assert lcm("index", photos)[1] == said(3, new=3, model="tiny-b")
    assert "red.png: ab redb squareb" in lcm("search", "redb")[1]
    monkeypatch.setenv("LCM_BUNDLE", str(save_bundle(tmp_path / "untagged", identity)))
    assert "has no tagger" in lcm("index", photos)[2]


def test_copies_and_photos_that_look_alike_are_listed(photos, lcm):
    for seed in range(5):
        (photos / f"{seed}.png").write_bytes(scene(seed))
    (photos / "2 small.jpg").write_bytes(alter(scene(2), "to a half"))
    (photos / "more" / "2 again.jpg").write_bytes(alter(scene(2), "jpeg 30"))
    (photos / "3 next.jpg").write_bytes(alter(scene(3), "of area"))
    shutil.copy(photos / "red.png", photos / "same.png")
    lcm("index", photos)
    code, printed, _ = lcm("search", "--copies", "--json")
    groups = sorted(sorted(Path(path).name for path in json.loads(line)) for line in printed.splitlines())
    copies = [["2 again.jpg", "2 small.jpg", "2.png"], ["3 next.jpg", "3.png"], ["red.png", "same.png"]]
    assert (code, groups) == (0, copies)
    assert lcm("search", "--copies", "red")[0] == lcm("search")[0] == 2


def test_a_damaged_index_says_what_to_do(photos, lcm, tmp_path):
    lcm("index", photos)
    (folder,) = (tmp_path / "home" / "index").iterdir()
    (folder / "vectors.f16").write_bytes(b"")
    code, _, complained = lcm("search", "red")
    assert (code, "remove it and index anew" in complained) == (1, True)
