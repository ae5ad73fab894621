"""The user's own scenes as one .npz of arrays, never a pickle."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.table import split_of

NEEDED = ("images", "query", "attribute", "attribute_names")


def plain_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, never a pickle; ValueError for anything else, broken words, and elements of no bytes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}  # of bytes, where a member is no .npy
        for name, array in arrays.items():
            if array.size and not array.nbytes:
                raise ValueError(f"{name} holds {array.size} elements of no bytes")
            if array.dtype.kind == "U":
                array.tolist()  # raises where it holds no characters
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give the path of an .npz file") from error
    except Exception as error:  # numpy, zipfile and zlib raise whatever a damaged file runs into
        pickled = "allow_pickle" in str(error)  # numpy's advice to set it would be a bad one
        why = "it is something else, or holds Python objects" if pickled else error
        raise ValueError(f"{path} can't be read as an .npz of plain arrays ({why}); numpy.savez writes one") from error
    return arrays


def from_npz(path: Path, split: str | None = None) -> QuestionSet:
    """Scenes from an .npz, all of them or one split (60 / 20 / 20 % by the hash of their place in it).

    Arrays: images (N, H, W, 3) uint8, query (N,), attribute (N,), attribute_names; optionally query_names, scale (N,),
    mask (N, H, W) bool. A query may be a name, or an id into query_names; without these an id is its own name (digit 7
    is "7"). Raises ValueError naming the array that is missing or of another shape.
    """
    arrays = plain_arrays(path)
    if missing := [name for name in NEEDED if name not in arrays]:
        raise ValueError(f"{path} lacks the arrays {missing}; it has {sorted(arrays)}")
    images = arrays["images"]
    if images.ndim != 4 or not len(images):
        raise ValueError(f"{path}: images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
    for name, axes in {"query": 1, "attribute": 1, "scale": 1, "mask": 3}.items():
        if name in arrays and arrays[name].shape != (shape := images.shape[:axes]):
            raise ValueError(f"{path}: {name} must be {shape} beside images {images.shape}, got {arrays[name].shape}")
    attribute, attribute_names = named(path, "attribute", arrays["attribute"], arrays["attribute_names"])
    query, query_names = named(path, "query", arrays["query"], arrays.get("query_names"))
    if "scale" in arrays and arrays["scale"].dtype.kind not in "iuf":
        raise ValueError(f"{path}: scale must hold numbers, got {arrays['scale'].dtype}")
    scale = arrays["scale"].astype(float) if "scale" in arrays else None
    masks = arrays["mask"].astype(bool) if "mask" in arrays else None
    image = np.arange(len(images))
    whole = QuestionSet(path.name, images, image, query, attribute, query_names, attribute_names, scale, None, masks)
    if split is None:
        return whole
    one_of("split", split, SPLITS)
    rows = np.array([i for i in image if split_of(str(i)) == split], np.int64)
    if not len(rows):
        raise ValueError(f"{path} has no images in split {split!r}: {len(images)} are too few to be split by hash")
    return replace(whole.rows(rows), name=f"{path.name}/{split}")


def named(path: Path, what: str, values: np.ndarray, names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Ids (N,) int64 into names, from ids or from the names themselves."""
    if values.dtype.kind not in "iuU":
        raise ValueError(f"{path}: {what} must hold integer ids or names, got {values.dtype}")
    words = list(map(str, values.tolist()))
    known = tuple(sorted(set(words)))
    if names is not None:
        known = tuple(map(str, names.tolist())) if names.ndim == 1 else ()
        if names.dtype.kind not in "iuU" or not 0 < len(known) == len(set(known)):
            raise ValueError(f"{path}: {what}_names must be distinct names (n,), got {names.dtype} {names.tolist()}")
        if values.dtype.kind in "iu":
            return values.astype(np.int64), known  # that these are known is checked by QuestionSet
    for word in dict.fromkeys(words):
        one_of(f"{what} in {path}", word, known)
    return np.array([known.index(word) for word in words], np.int64), known
