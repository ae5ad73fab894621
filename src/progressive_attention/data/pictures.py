"""Pictures of any size as square pixels, with one geometry for image, mask and box.

A picture keeps its shape: it is scaled to fit into the square and centred there, the rest is black.
"""

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
        """The largest centred place with the picture's own shape."""
        scale = side / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(side, (side - w) // 2, (side - h) // 2, w, h)

    def image(self, picture: Image.Image) -> np.ndarray:
        """RGB picture -> (side, side, 3) uint8."""
        square = Image.new("RGB", (self.side, self.side))
        square.paste(picture.resize((self.w, self.h), Image.Resampling.BILINEAR), (self.x, self.y))
        return np.asarray(square)

    def mask(self, mask: Image.Image) -> np.ndarray:
        """Picture whose non-zero pixels are the target -> (side, side) bool."""
        square = Image.new("L", (self.side, self.side))
        inside = mask.convert("L").point(lambda value: 255 if value else 0)
        square.paste(inside.resize((self.w, self.h), Image.Resampling.NEAREST), (self.x, self.y))
        return np.asarray(square) > 0

    def box(self, box: np.ndarray, width: int, height: int) -> np.ndarray:
        """(4,) x0 y0 x1 y1 in the picture's pixels -> in the square's."""
        scale = np.array([self.w / width, self.h / height] * 2)
        return np.asarray(box, float) * scale + np.array([self.x, self.y] * 2)


def open_picture(path: Path | str) -> Image.Image:
    """An image file as upright RGB; transparent parts become black. Raises ValueError for anything else."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{path} has {file.width} x {file.height} pixels, expected at most {MAX_PIXELS:,}")
            return to_rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give the path of an image file or of a folder with images") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be read as an image ({error}); expected PNG, JPEG, WebP or another") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over black, 16 bits a channel scaled to 8."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray((np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert(
            "RGB"
        )
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB")
    return picture.convert("RGB")
