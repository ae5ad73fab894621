"""The image and mask files that a table names: opened once each, in threads, and what is wrong with them.

Legend: R rows.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from progressive_attention.data.checks import Finding, Findings
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import labelled, opened, target, to_rgb, upright, upright_size
from progressive_attention.data.table import numbers, rows_by

T = TypeVar("T")
CHUNK = 512  # files under way at a time
BAND = 64  # lines of pixels hashed at a time: a copy of all would double what a large image takes
Progress = Callable[[int, int], None]


class Rejection(ValueError):
    """Why something can't be used: ``reason``, one of ``checks.KINDS``, and ``detail``, what was there."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Opened(NamedTuple):
    """A file's (width, height), upright, and the hash of its pixels, or which of the values asked for a mask has."""

    size: tuple[int, int]
    content: Any


Files = dict[str, Opened | Rejection]  # by path


def open_files(
    table: pa.Table,
    images: ImageRoot,
    masks: ImageRoot | None,
    read: Callable[[Image.Image], Opened],
    progress: Progress | None = None,
) -> tuple[Files, Files]:
    """Every image of a table by ``read``, and every mask, by its path."""
    paths = table["image"].drop_null().unique().to_pylist()
    asked = asked_values(table) if masks else {}
    jobs = [partial(look, images, "image", read, path) for path in paths]
    if masks:
        jobs += [partial(look, masks, "mask", partial(mask_values, values), path) for path, values in asked.items()]
    files = in_threads(jobs, progress)
    return dict(zip(paths, files, strict=False)), dict(zip(asked, files[len(paths) :], strict=True))


def in_threads(jobs: Sequence[Callable[[], T]], progress: Progress | None = None) -> list[T | Rejection]:
    """What each job returns, or the Rejection that it raises; a limited number is under way at a time."""

    def attempt(job: Callable[[], T]) -> T | Rejection:
        try:
            return job()
        except Rejection as rejection:
            return rejection

    done: list[T | Rejection] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(jobs), CHUNK):
            for result in threads.map(attempt, jobs[start : start + CHUNK]):
                done.append(result)
                if progress:
                    progress(len(done), len(jobs))
    return done


def look(root: ImageRoot, kind: str, read: Callable[[Image.Image], T], path: str) -> T:
    """What ``read`` takes from an image file, ``kind`` "image" or "mask"; raises Rejection where it can't."""
    try:
        root.check(path)
    except ValueError as error:
        raise Rejection(f"{kind} outside", str(error)) from error
    if not root.has(path):
        raise Rejection(f"{kind} file missing", f"{path!r} is no file below {root.root}")
    try:
        with root.open(path) as file, opened(file, path) as picture:
            return read(picture)
    except ValueError as error:
        raise Rejection("image unreadable" if kind == "image" else "mask unusable", str(error)) from error


def headed(picture: Image.Image) -> Opened:
    """An image's size, by its header."""
    return Opened(upright_size(picture), None)


def decoded(picture: Image.Image) -> Opened:
    """An image's size and pixels, all of them."""
    pixels = to_rgb(upright(picture))
    digest = blake2b(repr(pixels.size).encode(), digest_size=16)
    for top in range(0, pixels.height, BAND):
        digest.update(pixels.crop((0, top, pixels.width, min(top + BAND, pixels.height))).tobytes())
    return Opened(pixels.size, digest.digest())


def image_sizes(table: pa.Table, images: Files) -> np.ndarray:
    """(R, 2) width and height of each row's image, 0 where it can't be used."""
    sizes = {path: file.size for path, file in images.items() if isinstance(file, Opened)}
    return np.array([sizes.get(path, (0, 0)) for path in table["image"].to_pylist()], np.int64).reshape(-1, 2)


def stated_values(table: pa.Table) -> list[int | None]:
    """(R,) the values of the targets' pixels, None (all but zero) where none is stated."""
    return [int(value) if value >= 0 else None for value in numbers(table, "mask_value", missing=-1)[:, 0]]


def asked_values(table: pa.Table) -> dict[str, set[int | None]]:
    """Mask file -> all values that rows ask for, None for all but zero; void ones too, which need not be there."""
    asked: dict[str, set[int | None]] = defaultdict(set)
    if "mask" in table.column_names:
        voids = numbers(table, "mask_void", missing=-1)[:, 0]
        for path, value, void in zip(table["mask"].to_pylist(), stated_values(table), voids, strict=True):
            if path is not None:
                asked[path] |= {value} if void < 0 else {value, int(void)}
    return dict(asked)


def mask_values(asked: set[int | None], picture: Image.Image) -> Opened:
    """Which of the values asked for a mask has; raises ValueError for one whose pixels are no numbers."""
    mask = upright(picture)
    present = set(np.unique(np.asarray(labelled(mask))).tolist()) if asked - {None} else set()
    nonzero = {None} if None in asked and target(mask).getbbox() else set()
    return Opened(mask.size, present | nonzero)


def unusable(table: pa.Table, column: str, files: Files) -> Findings:
    """The files of a column, "image" or "mask", that can't be used."""
    rows_of = rows_by(table[column]) if files else {}
    for path, file in files.items():
        if isinstance(file, Rejection):
            yield Finding(file.reason, [path], rows_of[path], file.detail)


def mask_faults(table: pa.Table, sizes: np.ndarray, masks: Files) -> Findings:
    """Masks that can't be used, are not of their image's size (R, 2), or lack the value that their row wants."""
    yield from unusable(table, "mask", masks)
    rows_of, wanted = rows_by(table["mask"]) if masks else {}, stated_values(table)
    for path, mask in masks.items():
        if isinstance(mask, Rejection):
            continue
        known = [row for row in rows_of[path] if sizes[row].all()]
        if other := [row for row in known if tuple(sizes[row]) != mask.size]:
            width, height = sizes[other[0]]
            detail = f"{mask.size[0]} x {mask.size[1]} pixels, its image {width} x {height}"
            yield Finding("mask of another size", [path], other, detail)
        for row in set(rows_of[path]) - set(other):
            if wanted[row] not in mask.content:
                detail = "all its pixels are zero" if wanted[row] is None else f"no pixel of it is {wanted[row]}"
                yield Finding("mask without its target", [path], [row], detail)
