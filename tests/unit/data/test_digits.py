"""MNIST: the pack and IDX files hold the same digits, damage is named, and the splits of `paper` share no digit."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progressive_attention.data import digits as module
from progressive_attention.data.digits import IDX, Digits, find_idx, load_digits, load_once, pools, read_idx

HEADER = (2051, 3, 28, 28)  # a small image file
SMALL = np.array(HEADER, ">u4").tobytes() + bytes(range(256)) * 9 + bytes(3 * 784 - 256 * 9)


def write_mnist(folder: Path, suffix: str = "") -> Path:
    """The four classic files, as LeCun's site had them."""
    folder.mkdir(exist_ok=True)
    for name, (file, header) in IDX.items():
        content = np.array(header, ">u4").tobytes() + getattr(load_digits(), name).tobytes()
        (folder / (file + suffix)).write_bytes(gzip.compress(content, 1) if suffix else content)
    return folder


def test_pack():
    digits = load_digits()
    assert digits is load_digits(None)
    for name, (_, (_, *shape)) in IDX.items():
        array = getattr(digits, name)
        assert array.shape == tuple(shape)
        assert array.dtype == np.uint8
        assert not array.flags.writeable
    np.testing.assert_array_equal(digits.train_labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    assert digits.fingerprint == "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"


@pytest.mark.parametrize("content, got", [(b"version https://git-lfs", "got [0-9a-f]{64}"), (None, "got no file")])
def test_damaged_pack(tmp_path, monkeypatch, content, got):
    path = tmp_path / "mnist.npz"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(module, "PACK", path)
    with pytest.raises(ValueError, match=rf"mnist.npz: expected sha256 {module.PACK_SHA256}, {got}; reinstall"):
        load_once.__wrapped__(None)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_equal_the_pack(tmp_path, suffix):
    digits = load_once.__wrapped__(write_mnist(tmp_path, suffix))
    for name in IDX:
        np.testing.assert_array_equal(getattr(digits, name), getattr(load_digits(), name))
    assert digits.fingerprint == load_digits().fingerprint


def test_missing_file_names_all_that_are_expected(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").touch()
    names = ".*".join(file for file, _ in IDX.values())
    with pytest.raises(ValueError, match=f"expected {names}.*with .gz; got no t10k-labels-idx1-ubyte"):
        find_idx(tmp_path, "t10k-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="truncated, expected 47040016 bytes, got 0"):
        load_digits(tmp_path)


def test_read_idx(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(SMALL)
    expected = np.frombuffer(SMALL[16:], np.uint8).reshape(3, 28, 28)
    np.testing.assert_array_equal(read_idx(path, HEADER), expected)


def altered(word: int, value: int) -> bytes:
    head = np.array(HEADER, ">u4")
    head[word] = value
    return head.tobytes() + SMALL[16:]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a", altered(0, 2049), "wrong magic number, expected 2051, got 2049; is it a?"),
        ("a", altered(1, 4), r"wrong dimensions, expected \[3, 28, 28\], got \[4, 28, 28\]; use the files of MNIST"),
        ("a", altered(3, 2**32 - 1), r"wrong dimensions, expected \[3, 28, 28\], got \[3, 28, 4294967295\]"),
        ("a", SMALL + b"x", "too long, expected 2368 bytes, got more; download it again"),
        ("a", b"", "truncated, expected 2368 bytes, got 0; download it again"),
        ("a.gz", gzip.compress(SMALL)[:-20], "expected a readable IDX file, got .*; download it again"),
        ("a.gz", SMALL, "expected a readable IDX file, got Not a gzipped file"),
        ("a.gz", gzip.compress(SMALL)[:40] + b"garbage" * 9, "expected a readable IDX file"),
        ("a.gz", gzip.compress(SMALL[:-1]), "truncated, expected 2368 bytes, got 2367"),
    ],
)
def test_bad_idx_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path, HEADER)


@given(st.integers(0, len(SMALL) - 1))
def test_any_truncation_is_noticed(tmp_path_factory, length):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(SMALL[:length])
    with pytest.raises(ValueError, match=f"truncated, expected 2368 bytes, got {length};"):
        read_idx(path, HEADER)


def test_labels_above_nine(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(np.array([2049, 3], ">u4").tobytes() + bytes([1, 10, 3]))
    with pytest.raises(ValueError, match="labels: expected labels in 0..9, got 10; use the files of MNIST"):
        read_idx(path, (2049, 3))


def test_a_bomb_is_not_inflated(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(SMALL + bytes(50_000_000), 1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too long"):
            read_idx(path, HEADER)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_pools():
    digits = load_digits()
    paper = {split: pools(digits, "paper", split) for split in ("train", "validation", "test")}
    assert {split: images.shape for split, (images, _) in paper.items()} == {
        "train": (50_000, 28, 28),
        "validation": (10_000, 28, 28),
        "test": (10_000, 28, 28),
    }
    np.testing.assert_array_equal(paper["train"][0], digits.train_images[:50_000])
    np.testing.assert_array_equal(paper["validation"][1], digits.train_labels[50_000:])
    np.testing.assert_array_equal(paper["test"][0], digits.test_images)
    for split in paper:
        images, labels = pools(digits, "authors", split)
        assert images.shape == (70_000, 28, 28)
        np.testing.assert_array_equal(images[60_000:], digits.test_images)
        np.testing.assert_array_equal(labels[:60_000], digits.train_labels)


def test_paper_splits_share_no_digit():
    """Not even two equal images among the 70,000 of different splits."""
    seen = [{image.tobytes() for image in pools(load_digits(), "paper", s)[0]} for s in ("train", "validation", "test")]
    assert [len(s) for s in seen] == [50_000, 10_000, 10_000]
    assert len(set.union(*seen)) == 70_000


def test_unknown_names():
    empty = Digits(*(np.zeros((0, 28, 28), np.uint8),) * 4)
    with pytest.raises(ValueError, match="unknown protocol 'Paper'; known: paper, authors"):
        pools(empty, "Paper", "train")
    with pytest.raises(ValueError, match="unknown split 'val'; known: train, validation, test"):
        pools(empty, "paper", "val")
