"""MNIST: the digits that came with the library, whole, and splits of `paper` that share none."""

from hashlib import sha256

import numpy as np
import pytest

from progressive_attention.data import digits as module
from progressive_attention.data.digits import load_digits, pools


def test_pack():
    digits = load_digits()
    assert {name: array.shape for name, array in digits.items()} == {
        "train_images": (60_000, 28, 28),
        "train_labels": (60_000,),
        "test_images": (10_000, 28, 28),
        "test_labels": (10_000,),
    }
    assert all(array.dtype == np.uint8 and not array.flags.writeable for array in digits.values())
    assert digits["train_labels"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert sha256(b"".join(array.tobytes() for array in digits.values())).hexdigest() == module.FINGERPRINT


@pytest.mark.parametrize("content", [b"version https://git-lfs", None])
def test_damaged_pack(tmp_path, monkeypatch, content):
    path = tmp_path / "mnist.npz"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(module, "PACK", path)
    with pytest.raises(ValueError, match=rf"mnist.npz: expected sha256 {module.PACK_SHA256}, got .*; reinstall"):
        load_digits.__wrapped__()


def test_pools():
    digits = load_digits()
    paper = {split: pools("paper", split) for split in ("train", "validation", "test")}
    np.testing.assert_array_equal(paper["train"][0], digits["train_images"][:50_000])
    np.testing.assert_array_equal(paper["train"][1], digits["train_labels"][:50_000])
    np.testing.assert_array_equal(paper["validation"][0], digits["train_images"][50_000:])
    np.testing.assert_array_equal(paper["validation"][1], digits["train_labels"][50_000:])
    np.testing.assert_array_equal(paper["test"][0], digits["test_images"])
    np.testing.assert_array_equal(paper["test"][1], digits["test_labels"])
    for split in paper:
        images, labels = pools("authors", split)
        np.testing.assert_array_equal(images, np.concatenate([digits["train_images"], digits["test_images"]]))
        np.testing.assert_array_equal(labels, np.concatenate([digits["train_labels"], digits["test_labels"]]))


def test_paper_splits_share_no_digit():
    """Not even two equal images among the 70,000 of different splits."""
    seen = [{image.tobytes() for image in pools("paper", split)[0]} for split in ("train", "validation", "test")]
    assert [len(images) for images in seen] == [50_000, 10_000, 10_000]
    assert len(set.union(*seen)) == 70_000
