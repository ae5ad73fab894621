"""MNIST: the pack that ships with the library, or the user's own IDX files; and who may see which digit.

Legend: N digit images of 28 x 28 pixels, intensities 0..255, labels 0..9.
"""

import gzip
import io
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from progressive_attention.config import PROTOCOLS, SPLITS, one_of

SIDE = 28
PACK = Path(__file__).parent.parent / "assets" / "mnist.npz"
PACK_SHA256 = "04264ff3782eb986c503d57b901e2b943c1a26ff3bd26d26606e38e7368df925"
TRAIN, TEST, VALIDATION_FROM = 60_000, 10_000, 50_000
IDX = {  # array -> classic file name, header (magic, dimensions)
    "train_images": ("train-images-idx3-ubyte", (2051, TRAIN, SIDE, SIDE)),
    "train_labels": ("train-labels-idx1-ubyte", (2049, TRAIN)),
    "test_images": ("t10k-images-idx3-ubyte", (2051, TEST, SIDE, SIDE)),
    "test_labels": ("t10k-labels-idx1-ubyte", (2049, TEST)),
}


@dataclass(frozen=True, eq=False)
class Digits:
    """``*_images`` (60000 or 10000, 28, 28) uint8 and ``*_labels`` (same,) uint8 in 0..9. LeCun et al. 1998."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self) -> None:
        for name in IDX:
            getattr(self, name).setflags(write=False)  # every caller shares them

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the arrays: the same digits give the same scenes, whatever file they came from."""
        digest = sha256()
        for name in IDX:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()


def load_digits(mnist_dir: Path | None = None) -> Digits:
    """The embedded pack, or the four IDX files (plain or .gz) of ``mnist_dir``; ValueError if they are not whole."""
    return load_once(None if mnist_dir is None else Path(mnist_dir).expanduser().resolve())


@lru_cache(maxsize=2)
def load_once(folder: Path | None) -> Digits:
    """`load_digits` of an absolute path, remembered for as long as the process lives."""
    if folder is not None:
        return Digits(**{name: read_idx(find_idx(folder, file), head) for name, (file, head) in IDX.items()})
    content = PACK.read_bytes() if PACK.is_file() else b""
    if (got := sha256(content).hexdigest()) != PACK_SHA256:
        got = got if content else "no file"
        raise ValueError(f"{PACK}: expected sha256 {PACK_SHA256}, got {got}; reinstall progressive_attention")
    with np.load(io.BytesIO(content), allow_pickle=False) as pack:
        return Digits(**{name: pack[name] for name in IDX})


def find_idx(folder: Path, name: str) -> Path:
    """The file ``name`` or ``name.gz`` in the folder; ValueError naming what should be there."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    expected = ", ".join(file for file, _ in IDX.values())
    raise ValueError(f"{folder}: expected {expected}, each plain or with .gz; got no {name}")


def read_idx(path: Path, header: tuple[int, ...]) -> np.ndarray:
    """One IDX file as a uint8 array of the header's dimensions; never reads more than those need."""
    magic, *shape = header
    head_size, size = 4 * len(header), int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head, content = file.read(head_size), file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable IDX file, got {error}; download it again") from error
    if len(head) < head_size or len(content) < size:
        got = len(head) + len(content)
        raise ValueError(f"{path}: truncated, expected {head_size + size} bytes, got {got}; download it again")
    got_magic, *got_shape = np.frombuffer(head, ">u4").tolist()
    if got_magic != magic:
        raise ValueError(f"{path}: wrong magic number, expected {magic}, got {got_magic}; is it {path.name}?")
    if got_shape != shape:
        raise ValueError(f"{path}: wrong dimensions, expected {shape}, got {got_shape}; use the files of MNIST")
    if len(content) > size:
        raise ValueError(f"{path}: too long, expected {head_size + size} bytes, got more; download it again")
    array = np.frombuffer(content, np.uint8).reshape(shape)
    if len(shape) == 1 and array.max() > 9:
        raise ValueError(f"{path}: expected labels in 0..9, got {array.max()}; use the files of MNIST")
    return array


def pools(digits: Digits, protocol: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) that the scenes of a split may use.

    ``paper``: train and validation from disjoint parts of MNIST's training split (50,000 and 10,000), test from its
    test split. ``authors``: all 70,000 for every split, as the 2016 code does.
    """
    one_of("protocol", protocol, PROTOCOLS)
    one_of("split", split, SPLITS)
    if protocol == "authors":
        images = np.concatenate([digits.train_images, digits.test_images])
        return images, np.concatenate([digits.train_labels, digits.test_labels])
    if split == "test":
        return digits.test_images, digits.test_labels
    part = slice(VALIDATION_FROM) if split == "train" else slice(VALIDATION_FROM, None)
    return digits.train_images[part], digits.train_labels[part]
