"""The image and mask files that a table names: opened once each, in threads, and what is wrong with them.

Legend: R rows, N images.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from progressive_attention.data.cells import codes, numbers
from progressive_attention.data.checks import Finding, Findings
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FORMATS, MAX_PIXELS, labelled, target, to_rgb, upright_size

T = TypeVar("T")
CHUNK = 512  # files under way at a time
BAND = 64  # lines of pixels hashed at a time: a copy of all would double what a large image takes
Progress = Callable[[int, int], None]


class Refusal(ValueError):
    """Why something can't be used: ``reason``, one of ``checks.KINDS``, and ``detail``, what was there."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Pixels(NamedTuple):
    """An image's (width, height), upright, and the hash of its RGB pixels, None if they were not decoded."""

    size: tuple[int, int]
    digest: bytes | None


class Values(NamedTuple):
    """A mask's (width, height), upright, and which of the values asked for it has; None: anything but zero."""

    size: tuple[int, int]
    present: frozenset[int | None]


@dataclass(frozen=True)
class Pictures:
    """The N images of a table: their paths, which of them each row is about (-1 for none), and what was opened."""

    paths: list[str]
    image: np.ndarray  # (R,)
    opened: Sequence[Pixels | Refusal]

    @cached_property
    def sizes(self) -> np.ndarray:
        """(R, 2) width and height of each row's image, 0 where it can't be used."""
        known = [(0, 0) if isinstance(one, Refusal) else one.size for one in self.opened]
        return np.array([*known, (0, 0)], np.int64)[self.image]

    def faults(self) -> Findings:
        """Images that can't be used."""
        for i, pixels in enumerate(self.opened):
            if isinstance(pixels, Refusal):
                rows = np.flatnonzero(self.image == i).tolist()
                yield Finding(pixels.reason, [self.paths[i]], rows, pixels.detail)


def open_files(
    table: pa.Table,
    images: ImageRoot,
    masks: ImageRoot | None,
    read: Callable[[Image.Image], Pixels],
    progress: Progress | None = None,
) -> tuple[Pictures, dict[str, Values | Refusal]]:
    """Every image by ``read``, and every mask, by its path."""
    coded = table["image"].combine_chunks().dictionary_encode()
    paths, asked = coded.dictionary.to_pylist(), {} if masks is None else asked_values(table)
    jobs: list[Callable[[], Any]] = [partial(look, images, "image", read, path) for path in paths]
    if masks is not None:
        jobs += [partial(look, masks, "mask", partial(mask_values, values), path) for path, values in asked.items()]
    opened = in_threads(jobs, progress)
    return Pictures(paths, codes(coded) - 1, opened[: len(paths)]), dict(zip(asked, opened[len(paths) :], strict=True))


def in_threads(jobs: Sequence[Callable[[], T]], progress: Progress | None = None) -> list[T | Refusal]:
    """What each job returns, or the Refusal that it raises; a limited number is under way at a time."""

    def attempt(job: Callable[[], T]) -> T | Refusal:
        try:
            return job()
        except Refusal as refusal:
            return refusal

    done: list[T | Refusal] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(jobs), CHUNK):
            for result in threads.map(attempt, jobs[start : start + CHUNK]):
                done.append(result)
                if progress:
                    progress(len(done), len(jobs))
    return done


def look(root: ImageRoot, kind: str, read: Callable[[Image.Image], T], path: str) -> T:
    """What ``read`` takes from an image file, ``kind`` "image" or "mask"; raises Refusal for one that can't be used."""
    try:
        root.check(path)
    except (ValueError, OSError, RuntimeError) as error:  # links that lead out, or in circles
        raise Refusal(f"{kind} outside", str(error)) from error
    if not root.has(path):
        raise Refusal(f"{kind} file missing", f"{path!r} is no file below {root.root}")
    broken = {"image": "image unreadable", "mask": "mask unusable"}[kind]
    try:
        with root.open(path) as file, Image.open(file, formats=FORMATS) as picture:
            size = f"{picture.width} x {picture.height} pixels"
            if 0 < picture.width * picture.height <= MAX_PIXELS:
                return read(picture)
    except Image.DecompressionBombError as error:
        raise Refusal(f"{kind} too large", f"{path!r}: {error}") from error
    except UnidentifiedImageError as error:
        raise Refusal(broken, f"{path!r} is no image; expected {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises whatever a damaged file runs into
        raise Refusal(broken, f"{path!r}: {error}") from error
    raise Refusal(f"{kind} too large", f"{path!r} has {size}, expected 1 to {MAX_PIXELS:,}")


def headed(picture: Image.Image) -> Pixels:
    """An image's size, by its header."""
    return Pixels(upright_size(picture), None)


def decoded(picture: Image.Image) -> Pixels:
    """An image's size and pixels, all of them."""
    upright = to_rgb(ImageOps.exif_transpose(picture))
    digest = blake2b(repr(upright.size).encode(), digest_size=16)
    for top in range(0, upright.height, BAND):
        digest.update(upright.crop((0, top, upright.width, min(top + BAND, upright.height))).tobytes())
    return Pixels(upright.size, digest.digest())


# --- masks ------------------------------------------------------------------------------------------------------------


def wanted_values(table: pa.Table) -> list[int | None]:
    """(R,) the value of each row's target in its mask, None where it is all that is not zero."""
    return [int(value) if value >= 0 else None for value in numbers(table, "mask_value", missing=-1)[:, 0]]


def asked_values(table: pa.Table) -> dict[str, set[int | None]]:
    """Mask file -> all values that rows want of it; those of void pixels too, which need not be there."""
    asked: dict[str, set[int | None]] = defaultdict(set)
    if "mask" in table.column_names:
        void = numbers(table, "mask_void", missing=-1)[:, 0].tolist()
        for path, value, ignored in zip(table["mask"].to_pylist(), wanted_values(table), void, strict=True):
            if path is not None:
                asked[path] |= {value} | ({int(ignored)} if ignored >= 0 else set())
    return dict(asked)


def mask_values(asked: set[int | None], picture: Image.Image) -> Values:
    """Which of the values asked for a mask has; raises ValueError for one whose pixels are no numbers."""
    upright = ImageOps.exif_transpose(picture)
    wanted = asked - {None}
    present = wanted & set(np.unique(np.asarray(labelled(upright))).tolist()) if wanted else set()
    nonzero = {None} if None in asked and target(upright).getbbox() else set()
    return Values(upright.size, frozenset(present | nonzero))


def mask_faults(table: pa.Table, sizes: np.ndarray, masks: Mapping[str, Values | Refusal]) -> Findings:
    """Masks that can't be used, are not of their image's size (R, 2), or lack the value that their row wants."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(table["mask"].to_pylist() if masks else ()):
        rows_of[path].append(row)
    wanted = wanted_values(table)
    for path, mask in masks.items():
        if isinstance(mask, Refusal):
            yield Finding(mask.reason, [path], rows_of[path], mask.detail)
            continue
        other = [row for row in rows_of[path] if (sizes[row] > 0).all() and tuple(sizes[row]) != mask.size]
        if other:
            detail = f"{mask.size[0]} x {mask.size[1]} pixels, its image {sizes[other[0]][0]} x {sizes[other[0]][1]}"
            yield Finding("mask of another size", [path], other, detail)
        for row in set(rows_of[path]) - set(other):
            if wanted[row] not in mask.present:
                detail = "all its pixels are zero" if wanted[row] is None else f"no pixel of it is {wanted[row]}"
                yield Finding("mask without its target", [path], [row], detail)
