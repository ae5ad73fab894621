"""MNIST (LeCun et al. 1998) as it comes with the library, and who may see which digit.

Legend: N digit images of 28 x 28 pixels, intensities 0..255, labels 0..9.
"""

import io
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

SIDE = 28
PACK = Path(__file__).parent.parent / "assets" / "mnist.npz"
PACK_SHA256 = "04264ff3782eb986c503d57b901e2b943c1a26ff3bd26d26606e38e7368df925"
FINGERPRINT = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"  # SHA-256 of the arrays, in order
VALIDATION_FROM = 50_000


@cache
def load_digits() -> dict[str, np.ndarray]:
    """``train_images`` (60000, 28, 28) uint8, ``train_labels`` (60000,), and 10,000 each of ``test_images`` and
    ``test_labels``, read-only; raises ValueError for a damaged installation.
    """
    content = PACK.read_bytes() if PACK.is_file() else b""
    if (got := sha256(content).hexdigest()) != PACK_SHA256:
        raise ValueError(f"{PACK}: expected sha256 {PACK_SHA256}, got {got}; reinstall progressive_attention")
    with np.load(io.BytesIO(content), allow_pickle=False) as pack:
        digits = {name: pack[name] for name in ("train_images", "train_labels", "test_images", "test_labels")}
    for array in digits.values():
        array.setflags(write=False)  # every caller shares them
    return digits


def pools(protocol: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) that the scenes of a split may use.

    ``paper``: train and validation from disjoint parts of MNIST's training split (50,000 and 10,000), test from its
    test split. ``authors``: all 70,000 for every split, as the 2016 code does.
    """
    train_images, train_labels, test_images, test_labels = load_digits().values()
    if protocol == "authors":
        return np.concatenate([train_images, test_images]), np.concatenate([train_labels, test_labels])
    if split == "test":
        return test_images, test_labels
    part = slice(VALIDATION_FROM) if split == "train" else slice(VALIDATION_FROM, None)
    return train_images[part], train_labels[part]
