"""Pictures of any size as square pixels, with one geometry for image, mask and box.

A picture keeps its shape: it is scaled to fit into the square and centred there, the rest is black.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

T = TypeVar("T")
# What is decoded at all. Pillow knows forty more, seldom used and seldom looked at: their holes are not ours.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 100_000_000  # reading one takes up to 1.6 GB (docs/trust.md)
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange width and height


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
        x, y = (round(low + share * (high - low)) for (low, high), share in zip(room, (across, down), strict=True))
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
        x0, y0, x1, y1 = np.asarray(box, float) * np.array([self.w / width, self.h / height] * 2)
        if self.mirrored:
            x0, x1 = self.w - x1, self.w - x0
        return np.array([x0, y0, x1, y1]) + np.array([self.x, self.y] * 2)

    def unplaced(self, box: np.ndarray, width: int, height: int) -> np.ndarray:
        """(4,) x0 y0 x1 y1 in the square's pixels -> in the (width, height) picture's, possibly beyond it."""
        x0, y0, x1, y1 = np.asarray(box, float) - np.array([self.x, self.y] * 2)
        if self.mirrored:
            x0, x1 = self.w - x1, self.w - x0
        return np.array([x0, y0, x1, y1]) * np.array([width, height] * 2) / np.array([self.w, self.h] * 2)


def open_picture(path: Path | str, near: int | None = None) -> Image.Image:
    """An image file as upright RGB; transparent parts become black. Raises ValueError for anything else.

    ``near`` pixels are what its longer side is needed in: a larger JPEG is decoded to no less than twice that.
    """
    return opened(path, str(path), to_rgb, near)[0]


def opened(
    file: Path | str | BinaryIO,
    name: str,
    convert: Callable[[Image.Image], Image.Image],
    near: int | None = None,
    most: int | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """An image turned upright and converted, and its (width, height) in the file; raises ValueError naming it.

    More than ``most`` pixels (MAX_PIXELS) are refused by the header alone.
    """

    def upright(picture: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
        size = upright_size(picture)
        if near:
            scale = 2 * near / max(size)
            picture.draft(None, (math.ceil(picture.width * scale), math.ceil(picture.height * scale)))
        ImageOps.exif_transpose(picture, in_place=True)  # else it copies pictures that are upright, too
        return convert(picture), size

    return examined(file, name, upright, most)


def picture_size(file: Path | str | BinaryIO, name: str) -> tuple[int, int]:
    """(width, height) of an image held upright, by its header (a PNG is decoded); raises ValueError naming it."""
    return examined(file, name, upright_size)


def examined(file: Path | str | BinaryIO, name: str, examine: Callable[[Image.Image], T], most: int | None = None) -> T:
    """What is found in an image file of at most ``most`` pixels (MAX_PIXELS); raises ValueError naming it."""
    most = most or MAX_PIXELS
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height <= most:
                return examine(picture)
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist; give the path of an image file or of a folder with images") from error
    except Exception as error:  # Pillow raises whatever a damaged file runs into
        reason = f"{name} can't be read as an image ({why(error)})"
        raise ValueError(f"{reason}; expected {', '.join(FORMATS)}") from error
    raise ValueError(f"{name} has {width} x {height} pixels, expected at most {most:,}")


def why(error: Exception) -> str:
    """Pillow's reason, without the address of a file in memory, which differs from run to run."""
    return "of no known format" if isinstance(error, UnidentifiedImageError) else str(error)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) after turning as EXIF says."""
    turned = picture.getexif().get(ORIENTATION, 1) in QUARTER_TURNS and picture.format != "TIFF"  # Pillow turns these
    return (picture.height, picture.width) if turned else (picture.width, picture.height)


def labelled(mask: Image.Image) -> Image.Image:
    """A mask's values as they are, palette indices too; raises ValueError for a picture in colours."""
    if mask.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "F"):
        raise ValueError(f"its mode is {mask.mode}, expected a palette or grey picture whose pixels are numbers")
    return mask.copy()


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
    wide = mask.mode.startswith("I") or mask.mode == "F"  # small values there would be black as RGB
    if wide:
        inside = np.asarray(mask) != 0
    else:
        red, green, blue = np.moveaxis(np.asarray(to_rgb(mask)), -1, 0)
        inside = (red | green | blue) != 0  # numpy's any() over so short an axis takes ten times as long
    return Image.fromarray(np.asarray(inside, np.uint8) * 255)
