"""Image files as square pixels: opened safely and upright, with one geometry for image, mask and box.

A picture keeps its shape: it is scaled to fit into the square and centred there, the rest is black.
Legend: N images, n of them, R rows (one question each), S x S pixels.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from progressive_attention.data.image_root import ImageRoot
from progressive_attention.processes import gathered, share

# All that is decoded. Pillow knows forty more formats, seldom used and seldom checked: their holes are not ours.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 100_000_000  # reading one picture takes up to 1.6 GB (docs/trust.md)
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange width and height
UNREADABLE_SHARE = 0.05  # of a split's images; with more, something is wrong with the folder, not with a picture
KEEP_BYTES = 2 * 2**30  # decoded pixels up to this size are kept, more are decoded each time


class Fit(NamedTuple):
    """Where a (width, height) picture lies in a square of ``side`` pixels: scaled to (w, h), top left at (x, y).

    What reaches beyond the square is cut off. ``mirrored``: left and right are exchanged before.
    """

    side: int
    x: int
    y: int
    w: int
    h: int
    mirrored: bool = False

    @classmethod
    def into(cls, side: int, width: int, height: int) -> "Fit":
        """The largest centred place with the picture's own shape; raises ValueError for a picture without pixels."""
        if not width or not height:
            raise ValueError(f"the picture is {width} x {height} pixels: there is nothing in it")
        scale = side / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(side, (side - w) // 2, (side - h) // 2, w, h)

    def drawn(self, zoom: float, across: float, down: float, mirrored: bool) -> "Fit":
        """Another place: enlarged by ``zoom`` >= 1, and moved by shares in [0, 1] of the room that there is then."""
        w, h = round(self.w * zoom), round(self.h * zoom)
        room = [(min(0, self.side - size), max(0, self.side - size)) for size in (w, h)]
        x, y = (round(low + part * (high - low)) for (low, high), part in zip(room, (across, down), strict=True))
        return Fit(self.side, x, y, w, h, mirrored)

    def image(self, picture: Image.Image) -> np.ndarray:
        """RGB picture -> (side, side, 3) uint8."""
        return np.array(self.placed(picture, "RGB", Image.Resampling.BILINEAR))

    def mask(self, mask: Image.Image) -> np.ndarray:
        """Picture whose non-zero pixels are the target -> (side, side) bool."""
        return np.asarray(self.placed(target(mask), "L", Image.Resampling.NEAREST)) > 0

    def placed(self, picture: Image.Image, mode: str, resampling: Image.Resampling) -> Image.Image:
        """The picture in its place, black around it."""
        square = Image.new(mode, (self.side, self.side))
        scaled = picture.resize((self.w, self.h), resampling)
        square.paste(ImageOps.mirror(scaled) if self.mirrored else scaled, (self.x, self.y))
        return square

    def box(self, box: np.ndarray, width: int, height: int) -> np.ndarray:
        """(4,) x0 y0 x1 y1 in the picture's pixels -> in the square's, possibly beyond it."""
        scaled = np.asarray(box, float) * np.array([self.w / width, self.h / height] * 2)
        return self.turned(scaled) + np.array([self.x, self.y] * 2)

    def unplaced(self, box: np.ndarray, width: int, height: int) -> np.ndarray:
        """(4,) x0 y0 x1 y1 in the square's pixels -> in the (width, height) picture's, possibly beyond it."""
        moved = np.asarray(box, float) - np.array([self.x, self.y] * 2)
        return self.turned(moved) * np.array([width, height] * 2) / np.array([self.w, self.h] * 2)

    def turned(self, box: np.ndarray) -> np.ndarray:
        """A box of the scaled picture, left and right exchanged where the picture is mirrored."""
        x0, y0, x1, y1 = box
        return np.array([self.w - x1, y0, self.w - x0, y1]) if self.mirrored else box


def open_picture(path: Path | str) -> Image.Image:
    """An image file as upright RGB; transparent parts become black. Raises ValueError for anything else."""
    with opened(path, str(path)) as picture:
        return to_rgb(upright(picture))


@contextmanager
def opened(file: Path | str | BinaryIO, name: str, most: int | None = None) -> Iterator[Image.Image]:
    """An image file's header; ValueError for what goes wrong in the block, and above ``most`` (MAX_PIXELS) pixels."""
    most = most or MAX_PIXELS
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height <= most:
                yield picture
                return
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist; give the path of an image file or of a folder with images") from error
    except Exception as error:  # Pillow raises whatever a damaged file runs into, at times with an address in memory
        why = "of no known format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{name} can't be read as an image ({why}); expected {', '.join(FORMATS)}") from error
    raise ValueError(f"{name} has {width} x {height} pixels, expected at most {most:,}")


def upright(picture: Image.Image, near: int | None = None) -> Image.Image:
    """The opened picture, decoded, turned as EXIF says; a JPEG much larger than ``near`` to no less than twice that."""
    if near:
        scale = 2 * near / max(picture.size)
        picture.draft(None, (math.ceil(picture.width * scale), math.ceil(picture.height * scale)))
    ImageOps.exif_transpose(picture, in_place=True)  # else it copies pictures that are upright, too
    return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) after turning as EXIF says."""
    turned = picture.getexif().get(ORIENTATION, 1) in QUARTER_TURNS and picture.format != "TIFF"  # Pillow turns these
    return (picture.height, picture.width) if turned else (picture.width, picture.height)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over black, 16 bits a channel scaled to 8."""
    if picture.mode.startswith("I"):
        bright: np.ndarray = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(bright.astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB")
    return picture.convert("RGB")


def target(mask: Image.Image) -> Image.Image:
    """Any mode as 255 where a pixel is not zero in some channel, else 0 (mode L)."""
    if mask.mode.startswith("I") or mask.mode == "F":  # small values there would be black as RGB
        inside = np.asarray(mask) != 0
    else:
        red, green, blue = np.moveaxis(np.asarray(to_rgb(mask)), -1, 0)
        inside = (red | green | blue) != 0  # numpy's any() over so short an axis takes ten times as long
    return Image.fromarray(np.asarray(inside, np.uint8) * 255)


def labelled(mask: Image.Image) -> Image.Image:
    """A mask's values as they are, palette indices too; raises ValueError for a picture in colours."""
    if mask.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "F"):
        raise ValueError(f"its mode is {mask.mode}, expected a palette or grey picture whose pixels are numbers")
    return mask.copy()


class FileImages:
    """N image files below ``root`` as (N, S, S, 3) uint8 in any order, each fitted into S x S pixels (``fits``).

    ``files[images]`` decodes in threads. A file that can't be read, or is not of its stated size, gives black and is
    noted in ``unreadable``; ValueError when these are more than UNREADABLE_SHARE of all, those of other processes when
    a pass ends. ``sizes`` (N, 2) int: width and height of each, 0 where unknown (the file's header is read then).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: ImageRoot, paths: Sequence[str], side: int, sizes: np.ndarray) -> None:
        self.root, self.paths, self.side, self.sizes = root, paths, side, sizes.copy()
        self.shape = len(paths), side, side, 3
        self.nbytes = math.prod(self.shape)
        self.unreadable: dict[int, str] = {}
        self.threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
        unknown = np.flatnonzero((sizes <= 0).any(1))
        if len(unknown):
            self.read_sizes(share(unknown))
        self.fits = [Fit.into(side, *size) for size in self.sizes.tolist()]
        self.kept = np.zeros(self.shape, np.uint8) if self.nbytes <= KEEP_BYTES else None
        self.known = np.zeros(len(self), bool)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """(n,) indices -> (n, S, S, 3) uint8; of one index (S, S, 3)."""
        images = np.arange(len(self))[images]
        if images.ndim == 0:
            return self[images[None]][0]
        if self.kept is None:
            return self.read(images, [self.fits[i] for i in images])
        new = np.unique(images[~self.known[images]])
        self.kept[new] = self.read(new, [self.fits[i] for i in new])
        self.known[new] = True
        return self.kept[images]

    def read(self, images: np.ndarray, fits: Sequence[Fit]) -> np.ndarray:
        """(n,) indices, and the place of each -> (n, S, S, 3) uint8, decoded now."""
        pixels = np.empty((len(images), *self.shape[1:]), np.uint8)
        for i, square in enumerate(self.threads.map(self.decode, images.tolist(), fits)):
            pixels[i] = square
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

    def decode(self, image: int, fit: Fit) -> np.ndarray:
        """One picture in its place, (S, S, 3) uint8; black if it is unreadable."""
        path = self.paths[image]
        if image not in self.unreadable:
            try:
                with self.root.open(path) as file, opened(file, path) as picture:
                    size = upright_size(picture)
                    rgb = to_rgb(upright(picture, max(fit.w, fit.h)))
                check_size(path, size, self.sizes[image], "the table says")
                return fit.image(rgb)
            except ValueError as error:
                self.unreadable[image] = str(error)
        return np.zeros(self.shape[1:], np.uint8)

    def read_sizes(self, unknown: np.ndarray) -> None:
        """Those of some images (n,); each process reads its share, and learns the others'."""
        sizes = np.array([*self.threads.map(self.read_size, unknown.tolist())], np.int64).reshape(-1, 2)
        for images, theirs in gathered((unknown, sizes)):
            self.sizes[images] = theirs
        self.end_pass()

    def read_size(self, image: int) -> tuple[int, int]:
        """Width and height by the file's header; 1 x 1 if it is unreadable."""
        try:
            with self.root.open(self.paths[image]) as file, opened(file, self.paths[image]) as picture:
                return upright_size(picture)
        except ValueError as error:
            self.unreadable[image] = str(error)
            return 1, 1

    def end_pass(self) -> None:
        """When a pass is done learn what other processes could not read; ValueError, in all, when it is too much."""
        for theirs in gathered(self.unreadable):
            self.unreadable |= theirs
        self.check_share()

    def check_share(self) -> None:
        """Raises ValueError when too many images were unreadable."""
        if len(self.unreadable) > UNREADABLE_SHARE * len(self):
            bad = f"{len(self.unreadable)} of {len(self)} images can't be used, more than {UNREADABLE_SHARE:.0%}"
            first = next(iter(self.unreadable.values()))
            raise ValueError(f"{bad}; the first: {first}. Repair or drop them; `pan data check` lists all")


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
        files: dict[tuple[str, bool], tuple[Image.Image, tuple[int, int]]] = {}  # rows of an image may share one
        for mask, row, fit in zip(masks, rows, fits, strict=True):
            path, value = self.paths[row], int(self.value[row])
            if not path:
                continue
            key = path, value < 0
            if key not in files:
                with self.root.open(path) as file, opened(file, path) as picture:
                    size = upright_size(picture)
                    files[key] = (target if value < 0 else labelled)(upright(picture)), size
            values, size = files[key]
            if self.image[row] not in self.images.unreadable:  # else its size is unknown
                check_size(path, size, self.images.sizes[self.image[row]], "its image is")
            if value >= 0:
                values = Image.fromarray((np.asarray(values) == value).astype(np.uint8) * 255)
            mask[:] = fit.mask(values)
        return masks


def check_size(path: str, size: tuple[int, int], expected: np.ndarray, where: str) -> None:
    """Raises ValueError for a file that is not as large as expected, (2,) int width and height."""
    if size != tuple(expected.tolist()):
        raise ValueError(f"{path} is {size[0]} x {size[1]} pixels, expected {expected[0]} x {expected[1]}, as {where}")


@dataclass(frozen=True)
class BoxMasks:
    """Boxes (R, 4), x0 y0 x1 y1 in pixels of S x S, as masks: the pixels whose middle is inside, at least one.

    A box of NaN, without an area, or wholly outside the square gives an empty mask.
    """

    box: np.ndarray
    side: int

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = self.box[rows].clip(0, self.side).T
        return self.pixels(y0, y1)[:, :, None] & self.pixels(x0, x1)[:, None]

    def pixels(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(n,) ends of intervals -> (n, side) bool: the pixels inside along one side."""
        middle = np.arange(self.side) + 0.5
        inside = (middle >= low[:, None]) & (middle < high[:, None])
        thin = np.flatnonzero((low < high) & ~inside.any(1))
        inside[thin, ((low + high) / 2)[thin].astype(int)] = True
        return inside
