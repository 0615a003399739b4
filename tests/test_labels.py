"""Labels files: a label a line, and a clear word on what is no labels file."""

import os

import pytest

from lcm.data.text import MAX_LABEL_LENGTH, MAX_LABELS, read_labels
from lcm.errors import DataError


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"dog\ncat\n", ("dog", "cat")),
        (b"\xef\xbb\xbfdog\r\ncat", ("dog", "cat")),
        (b"dog\rcat\r\r\n\n", ("dog", "cat")),
        (b"  a dog  on\tgrass \n\n \n", ("a dog on grass",)),
        (b"dog\ncat\ndog\nDog\nCAT\n", ("dog", "cat")),
        ("Größe\ne\u0301\n\u00e9\n犬\nگل\u200cها\n".encode(), ("Größe", "é", "犬", "گل\u200cها")),
        ("one\u2028line\n".encode(), ("one line",)),
        (b"=1+1\n-\n# no comment\n", ("=1+1", "-", "# no comment")),
    ],
)
def test_labels_are_read_as_people_write_them(content, labels, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == labels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no label"),
        (b"\xef\xbb\xbf\n \n", "holds no label"),
        (b"dog\ncat\n\xff\xd8\xff\xe0", r"not text in UTF-8 \(line 3\)"),
        ("dog\ncat\n".encode("utf-16"), r"not text in UTF-8 \(line 1\)"),
        (b"dog\nc\0at\n", "label 2 holds control characters"),
        (b"dog\n\x1b[31mcat\n", "label 2 holds control characters"),
        (b"dog\n" + b"x" * (MAX_LABEL_LENGTH + 1), f"label 2 has {MAX_LABEL_LENGTH + 1} characters"),
        (b"".join(b"%d\n" % number for number in range(MAX_LABELS + 1)), f"{MAX_LABELS + 1} labels; at most"),
        (b"\n" * 20_000_000, "bytes"),
    ],
)
def test_what_is_no_labels_file_is_refused(content, said, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_labels(tmp_path / "labels.txt")
    assert "labels.txt" in str(caught.value)


def test_the_limits_are_within_reach(tmp_path):
    labels = tuple(f"{number:0{MAX_LABEL_LENGTH}}" for number in range(MAX_LABELS))
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    assert read_labels(tmp_path / "labels.txt") == labels


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"missing\.txt cannot be read \(No such file"):
        read_labels(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="Is a directory"):
        read_labels(tmp_path)


def test_a_shell_s_substitution_is_a_file_too(tmp_path):
    """What `--labels <(printf 'dog\\ncat')` gives."""
    reading, writing = os.pipe()
    os.write(writing, b"dog\ncat\n")
    os.close(writing)
    (tmp_path / "labels").symlink_to(f"/dev/fd/{reading}")
    assert read_labels(tmp_path / "labels") == ("dog", "cat")
    os.close(reading)
