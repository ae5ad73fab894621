"""Pictures of any size as square pixels, with one geometry for image, mask and box.

A picture keeps its shape: it is scaled to fit into the square and centred there, the rest is black.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000  # a decoded picture of this size takes 300 MB


class Fit(NamedTuple):
    """Where a (width, height) picture lies in a square of ``side`` pixels: scaled to (w, h), top left at (x, y)."""

    side: int
    x: int
    y: int
    w: int
    h: int

    @classmethod
    def into(cls, side: int, width: int, height: int) -> "Fit":
        """The largest centred place with the picture's own shape; raises ValueError for a picture without pixels."""
        if not width or not height:
            raise ValueError(f"the picture is {width} x {height} pixels: there is nothing in it")
        scale = side / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(side, (side - w) // 2, (side - h) // 2, w, h)

    def image(self, picture: Image.Image) -> np.ndarray:
        """RGB picture -> (side, side, 3) uint8."""
        square = Image.new("RGB", (self.side, self.side))
        square.paste(picture.resize((self.w, self.h), Image.Resampling.BILINEAR), (self.x, self.y))
        return np.array(square)

    def mask(self, mask: Image.Image) -> np.ndarray:
        """Picture whose non-zero pixels are the target -> (side, side) bool."""
        square = Image.new("L", (self.side, self.side))
        square.paste(target(mask).resize((self.w, self.h), Image.Resampling.NEAREST), (self.x, self.y))
        return np.asarray(square) > 0

    def box(self, box: np.ndarray, width: int, height: int) -> np.ndarray:
        """(4,) x0 y0 x1 y1 in the picture's pixels -> in the square's."""
        scale = np.array([self.w / width, self.h / height] * 2)
        return np.asarray(box, float) * scale + np.array([self.x, self.y] * 2)


def open_picture(path: Path | str) -> Image.Image:
    """An image file as upright RGB; transparent parts become black. Raises ValueError for anything else."""
    return opened(path, to_rgb)


def open_mask(path: Path | str) -> Image.Image:
    """An image file as upright ``target`` pixels. Raises ValueError for anything else."""
    return opened(path, target)


def opened(path: Path | str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image file turned upright and converted; raises ValueError naming the file."""
    try:
        with Image.open(path) as file:
            if file.width * file.height <= MAX_PIXELS:
                return convert(ImageOps.exif_transpose(file))
            size = f"{file.width} x {file.height}"
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give the path of an image file or of a folder with images") from error
    except Exception as error:  # Pillow raises whatever a damaged file runs into
        raise ValueError(f"{path} can't be read as an image ({error}); expected PNG, JPEG, WebP or another") from error
    raise ValueError(f"{path} has {size} pixels, expected at most {MAX_PIXELS:,}")


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over black, 16 bits a channel scaled to 8."""
    if picture.mode.startswith("I"):
        bright = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(bright.astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB")
    return picture.convert("RGB")


def target(mask: Image.Image) -> Image.Image:
    """Any mode as 255 where a pixel is not zero in some channel, else 0 (mode L)."""
    wide = mask.mode.startswith("I") or mask.mode == "F"  # small values there would be black as RGB
    inside = np.asarray(mask) != 0 if wide else np.asarray(to_rgb(mask)).any(-1)
    return Image.fromarray(inside.astype(np.uint8) * 255)
