"""Bundles: whole or refused, never code; with a tag scorer's files and without."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import pytest

from lcm.captioning.bundle import REQUIRED_FILES, SCHEMA_VERSION, Bundle, Manifest
from lcm.captioning.captioner import BundleCaptioner
from lcm.data.text import RESERVED
from lcm.errors import BundleError
from tests.fakes.tiny_graphs import (
    TAGGER,
    VOCABULARY,
    save_bundle,
    tiny_manifest,
)
from tests.features.test_checkpoints import Trap

TAG_FILES = ["tag_image.onnx", "tag_text.onnx", "tag_word_rows.npy", "tag_words.txt"]


def change_manifest(folder: Path, **changes) -> None:
    record = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(record | changes))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Load, start, step


def test_the_manifest_is_read_as_it_was_sealed(folder, encoder):
    manifest = Bundle(folder).manifest
    names = ["encoder.onnx", "start.onnx", "step.onnx", "vocabulary.txt"]
    assert manifest == tiny_manifest(encoder, files={name: sha256(folder / name) for name in names})
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", *names]
    assert manifest.schema_version == SCHEMA_VERSION == 3
    assert Bundle(folder).vocabulary == VOCABULARY


# Damage


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*REQUIRED_FILES, "MODEL_CARD.md", *TAG_FILES])
@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink])
def test_a_damaged_file_is_refused_by_name(name, damage, whole):
    Bundle(whole)
    damage(whole / name)
    with pytest.raises(BundleError, match=rf"{name}.*(copy|export).*again"):
        Bundle(whole)


def test_what_is_no_bundle_says_how_to_make_one(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(BundleError, match=rf"{place} is no bundle: .*bundle.json.*; train one with: lcm run"):
            Bundle(place)


@pytest.mark.parametrize("version", [2, 4, None])
def test_another_schema_version_is_refused(version, folder):
    change_manifest(folder, schema_version=version)
    with pytest.raises(BundleError, match=rf"schema version {version!r} and this lcm reads 3; .*or update lcm"):
        Bundle(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 3},  # an unknown field
        {"encoder": "tiny"},
        {"encoder": {"name": "tiny"}},
        {"encoder": {"name": "tiny", "weights": "random", "source_sha256": "0", "golden": "none"}},
    ],
)
def test_a_manifest_with_wrong_fields_is_refused(changes, folder):
    change_manifest(folder, **changes)
    with pytest.raises(BundleError, match=r"bundle.json is damaged \(.+\); export the bundle again"):
        Bundle(folder)


@pytest.mark.parametrize("place", ["../outside.txt", "folder/inside.txt", "{absolute}"])
def test_a_file_with_a_path_is_refused(place, folder):
    outside = folder.parent / "outside.txt"
    outside.write_text("secret")
    (folder / "folder").mkdir()
    (folder / "folder" / "inside.txt").write_text("secret")
    place = place.format(absolute=outside)
    assert (folder / place).is_file()
    change_manifest(folder, files=Manifest.load(folder).files | {place: sha256(outside)})
    with pytest.raises(BundleError, match=re.escape(place)):
        Bundle(folder)


def test_a_vocabulary_of_another_length_is_refused(tmp_path, encoder):
    words = "\n".join((*RESERVED, "a", "dog")) + "\n"
    folder = save_bundle(tmp_path / "other", encoder, [("vocabulary.txt", words.encode())])
    with pytest.raises(BundleError, match=r"for other numbers of words .*: they are not from one export; export"):
        Bundle(folder)


@pytest.mark.parametrize("name", ["start.onnx", "step.onnx"])
@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_graph_that_cannot_be_loaded_is_refused(name, content, tmp_path, encoder):
    folder = save_bundle(tmp_path / "other", encoder, [(name, content)])
    with pytest.raises(BundleError, match=r"a file that cannot be loaded .*export it again"):
        Bundle(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "start.onnx", "step.onnx", "vocabulary.txt", *TAG_FILES])
def test_a_pickle_put_in_place_is_never_loaded(name, tmp_path, encoder):
    trace = tmp_path / "was loaded"
    content = pickle.dumps(Trap(trace))
    pickle.loads(content)
    assert trace.exists(), "the payload works"
    trace.unlink()
    folder = save_bundle(tmp_path / "pickled", encoder, [(name, content)], tagger=TAGGER)  # its hash is the right one
    with pytest.raises(BundleError):
        BundleCaptioner(folder)
    assert not trace.exists()
