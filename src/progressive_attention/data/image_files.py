"""Pixels and masks read from files when they are asked for, by one geometry.

Legend: N images, n of them, R rows (one question each), S x S pixels.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.pictures import Fit, labelled, opened, picture_size, target, to_rgb
from progressive_attention.processes import gathered, share

UNREADABLE_SHARE = 0.05  # of a split's images; with more, something is wrong with the folder, not with a picture
KEEP_BYTES = 2 * 2**30  # decoded pixels up to this size are kept, more are decoded each time


@dataclass
class FileImages:
    """N image files below ``root`` as (N, S, S, 3) uint8 in any order, each fitted into S x S pixels.

    ``files[images]`` decodes in threads. A file that can't be read, or is not of its stated size, gives black and is
    noted in ``unreadable``; ValueError when these are more than UNREADABLE_SHARE of all, those of other processes when
    a pass ends. ``sizes`` (N, 2) int: width and height of each, 0 where unknown (the file's header is read then).
    """

    root: ImageRoot
    paths: Sequence[str]
    side: int
    sizes: np.ndarray = field(repr=False)
    unreadable: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sizes = self.sizes.copy()
        self.threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
        unknown = np.flatnonzero((self.sizes <= 0).any(1))
        if len(unknown):
            self.read_sizes(share(unknown))
        self.check_share()
        if self.nbytes <= KEEP_BYTES:
            self.kept, self.known = np.zeros(self.shape, np.uint8), np.zeros(len(self), bool)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.side, self.side, 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * self.side * self.side * 3

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def fits(self) -> list[Fit]:
        """Where each picture lies in the square."""
        return [Fit.into(self.side, *size) for size in self.sizes.tolist()]

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """(n,) indices -> (n, S, S, 3) uint8; of one index (S, S, 3)."""
        images = np.arange(len(self))[images]
        if images.ndim == 0:
            return self[images[None]][0]
        if self.nbytes > KEEP_BYTES:
            return self.read(images, [self.fits[i] for i in images])
        new = np.unique(images[~self.known[images]])
        self.kept[new] = self.read(new, [self.fits[i] for i in new])
        self.known[new] = True
        return self.kept[images]

    def read(self, images: np.ndarray, fits: Sequence[Fit]) -> np.ndarray:
        """(n,) indices, and the place of each -> (n, S, S, 3) uint8, decoded anew."""
        pixels = np.zeros((len(images), self.side, self.side, 3), np.uint8)
        for square, drawn in zip(pixels, self.threads.map(self.decode, images.tolist(), fits), strict=True):
            if drawn is not None:
                square[:] = drawn
        self.check_share()
        return pixels

    def places(self, images: np.ndarray, augment: str, seed: int, epoch: int) -> tuple[Fit, ...]:
        """Where augmented images lie: mirrored by a coin, and with ``"crop"`` enlarged by up to 1.25 and moved.

        Drawn from (seed, epoch, image) alone, by raw integers: NumPy promises no stream of ``Generator.random``.
        """
        places = []
        for image in images.tolist():
            raw = np.random.PCG64([seed, epoch, image]).random_raw(4)
            zoom, across, down, coin = (raw >> 11) * 2.0**-53  # in [0, 1)
            fit, mirrored = self.fits[image], coin < 0.5
            crop = augment == "crop"
            places.append(fit.drawn(1 + zoom / 4, across, down, mirrored) if crop else fit._replace(mirrored=mirrored))
        return tuple(places)

    def decode(self, image: int, fit: Fit) -> np.ndarray | None:
        """One picture in its place, None if it is unreadable."""
        if image in self.unreadable:
            return None
        path = self.paths[image]
        try:
            with self.root.open(path) as file:
                picture, size = opened(file, path, to_rgb, max(fit.w, fit.h))
            if size != tuple(self.sizes[image]):
                stated = " x ".join(map(str, self.sizes[image]))
                raise ValueError(f"{path} is {size[0]} x {size[1]} pixels, but {stated} in the table")
            return fit.image(picture)
        except ValueError as error:
            self.unreadable[image] = str(error)
            return None

    def read_sizes(self, unknown: np.ndarray) -> None:
        """Those of some images (n,); of several processes each reads its share, and learns the others'."""
        found = np.array([*self.threads.map(self.read_size, unknown.tolist())], np.int64).reshape(-1, 2)
        for images, sizes, unreadable in gathered((unknown, found, self.unreadable)):
            self.sizes[images] = sizes
            self.unreadable |= unreadable

    def read_size(self, image: int) -> tuple[int, int]:
        """Width and height by the file's header; 1 x 1 if it is unreadable."""
        try:
            with self.root.open(self.paths[image]) as file:
                return picture_size(file, self.paths[image])
        except ValueError as error:
            self.unreadable[image] = str(error)
            return 1, 1

    def end_pass(self) -> None:
        """When all images have been asked for by some process: learn which ones the others could not read.

        Raises ValueError, in all processes, when these are too many together.
        """
        for theirs in gathered(self.unreadable):
            self.unreadable |= theirs
        self.check_share()

    def check_share(self) -> None:
        """Raises ValueError when too many images were unreadable."""
        if len(self.unreadable) > UNREADABLE_SHARE * len(self):
            raise ValueError(
                f"{len(self.unreadable)} of {len(self)} images can't be used, more than {UNREADABLE_SHARE:.0%}; the "
                f"first: {next(iter(self.unreadable.values()))}. Mend or drop them; `pan data check` lists all"
            )


@dataclass(frozen=True)
class FileMasks:
    """Masks (R, S, S) bool read from their files; a row without a file has an empty one.

    The target's pixels are those with the row's ``value``; where that is negative, all that are not zero. Asking raises
    ValueError for a file that can't be read, or is not of its image's size.
    """

    root: ImageRoot
    paths: Sequence[str | None]
    value: np.ndarray
    images: FileImages
    image: np.ndarray  # (R,) which image a row is about

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.read(rows, [self.images.fits[self.image[row]] for row in rows])

    def read(self, rows: np.ndarray, fits: Iterable[Fit]) -> np.ndarray:
        """(n,) row indices, and the place of each row's image -> (n, S, S) bool."""
        masks = np.zeros((len(rows), self.images.side, self.images.side), bool)
        open_now: dict[tuple[str, bool], tuple[Image.Image, tuple[int, int]]] = {}  # rows of an image may share a file
        for mask, row, fit in zip(masks, rows, fits, strict=True):
            if path := self.paths[row]:
                value = int(self.value[row])
                key = path, value < 0
                if key not in open_now:
                    with self.root.open(path) as file:
                        open_now[key] = opened(file, path, target if value < 0 else labelled)
                picture, size = open_now[key]
                self.check_size(row, size)
                if value >= 0:
                    picture = Image.fromarray((np.asarray(picture) == value).astype(np.uint8) * 255)
                mask[:] = fit.mask(picture)
        return masks

    def check_size(self, row: int, size: tuple[int, int]) -> None:
        """Raises ValueError for a mask that is not of its image's size, where this is known."""
        image = int(self.image[row])
        expected = tuple(self.images.sizes[image].tolist())
        if size != expected and image not in self.images.unreadable:
            raise ValueError(
                f"{self.paths[row]} is {size[0]} x {size[1]} pixels, but its image {expected[0]} x {expected[1]}; "
                "a mask must be of its image's size"
            )


@dataclass(frozen=True)
class BoxMasks:
    """Boxes (R, 4), x0 y0 x1 y1 in pixels of S x S, as masks: the pixels whose middle is inside, at least one.

    A box of NaN, without an area, or wholly outside the square gives an empty mask.
    """

    box: np.ndarray
    side: int

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        middle = np.arange(self.side) + 0.5
        masks = np.zeros((len(rows), self.side, self.side), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, self.box[rows].clip(0, self.side), strict=True):
            if x0 < x1 and y0 < y1:
                across, down = (middle >= x0) & (middle < x1), (middle >= y0) & (middle < y1)
                for line, low, high in ((across, x0, x1), (down, y0, y1)):
                    if not line.any():
                        line[int((low + high) / 2)] = True  # thinner than a pixel
                mask[:] = down[:, None] & across
        return masks
