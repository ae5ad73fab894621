"""Scenes of coloured digits: sample, then render. MREF (black), MDIST (distractors), MBG (photographs).

A scene is a pure function of its key (seed, split, index), and the three styles share the digits of a key. It is drawn
from the raw integers of a bit generator, whose stream numpy keeps for ever, and never from ``Generator`` methods,
whose streams it does not. Rendering holds no randomness and computes in integers: the same pixels on every machine
(MBG: as far as its JPEG decoder agrees).

Legend: images are SIZE x SIZE; a glyph is a digit resized to (size, size) uint8; (x, y) is a top left corner in pixels.
"""

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

import numpy as np

from progressive_attention.config import PROTOCOLS, SPLITS, STYLES, checked_seed, one_of
from progressive_attention.data.backgrounds import Photographs
from progressive_attention.data.digits import FINGERPRINT, SIDE, pools

SIZE = 100
COLOURS = ("red", "green", "blue", "yellow", "white")
RGB = ((0x92, 0x10, 0x10), (0x10, 0xA6, 0x51), (0x10, 0x62, 0xC0), (0xFF, 0xF1, 0x4E), (0xE0, 0xE0, 0xE0))
NOISE = NormalDist(0, 10)
FEWEST, MOST = 5, 9  # digits
PATCHES, PATCH_SIDE = 17, 5
MAX_TRIES = 10_000

Raw = TypeVar("Raw", int, np.ndarray)


class Digit(NamedTuple):
    """``number`` 0..9; ``sample`` in the pool; ``colour`` in COLOURS; ``offset`` added to all channels; size px."""

    number: int
    sample: int
    colour: int
    offset: int
    scale: float
    x: int
    y: int
    size: int


class Patch(NamedTuple):
    """MDIST distractor: the 5 x 5 crop at (``row``, ``column``) of a digit of the pool, coloured as digits are."""

    sample: int
    row: int
    column: int
    colour: int
    offset: int
    scale: float
    x: int
    y: int
    size: int


class Scene(NamedTuple):
    """All that determines an image. ``background``: (photograph, x, y); ``asked``: the digit of the one question."""

    style: str
    digits: tuple[Digit, ...]
    patches: tuple[Patch, ...]
    background: tuple[int, int, int] | None
    asked: int


class Pool:
    """Digit images that scenes may use: ``images`` (N, 28, 28) uint8, ``labels`` (N,) in 0..9, every number present."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.of_number = [np.flatnonzero(labels == number) for number in range(10)]
        self.glyph = lru_cache(maxsize=64)(self._glyph)  # sampling asks for the support, rendering for the pixels

    def _glyph(self, sample: int, size: int) -> np.ndarray:
        """Digit ``sample`` as (size, size) uint8."""
        return resize(self.images[sample], size)


class SceneSource:
    """Scenes of one style, split and protocol: ``image, owner = source.render(source.scene(index))``.

    Protocol ``authors`` has one pool of scenes for every split. ``backgrounds`` (MBG only) replaces the embedded
    photographs. ``fingerprint`` identifies digits and photographs.
    """

    def __init__(
        self, style: str, split: str, protocol: str = "paper", seed: int = 0, backgrounds: Path | None = None
    ) -> None:
        self.style = one_of("style", style, STYLES)
        one_of("split", split, SPLITS)
        one_of("protocol", protocol, PROTOCOLS)
        checked_seed("seed", seed)
        if backgrounds and style != "mbg":
            raise ValueError(f"backgrounds are for mbg, got them for {style}; leave --backgrounds out")
        if backgrounds:
            backgrounds = Path(backgrounds).expanduser().resolve()  # workers may have another working directory
        self.arguments = style, split, protocol, seed, backgrounds
        self.split = "pool" if protocol == "authors" else split
        self.key = seed, (*SPLITS, "pool").index(self.split)
        self.pool = Pool(*pools(protocol, split))
        self.photographs = Photographs(split, protocol, backgrounds, SIZE) if style == "mbg" else None
        self.fingerprint = [FINGERPRINT, self.photographs.fingerprint if self.photographs else ""]

    def __reduce__(self) -> tuple:
        return source_of, self.arguments  # digits and photographs do not travel to workers

    def scene(self, index: int) -> Scene:
        """The scene of an index >= 0."""
        sizes = self.photographs.sizes if self.photographs else ()
        return sample_scene(self.style, (*self.key, index), self.pool, sizes)

    def render(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Image (100, 100, 3) uint8 and owner (100, 100) uint8."""
        return render_scene(scene, self.pool, self.photographs)


@lru_cache(maxsize=1)
def source_of(*arguments: Any) -> SceneSource:
    """A worker's source, opened once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller has warned of skipped photographs already
        return SceneSource(*arguments)


class Stream:
    """The raw 64-bit integers of one key. Reading ahead changes nothing: only ``take`` and ``skip`` consume."""

    def __init__(self, key: tuple[int, ...]) -> None:
        self.bits = np.random.PCG64(np.random.SeedSequence(key))
        self.ahead = self.bits.random_raw(512)

    def peek(self, n: int) -> np.ndarray:
        """The next n integers, (n,) uint64, not consumed."""
        if n > len(self.ahead):
            self.ahead = np.concatenate([self.ahead, self.bits.random_raw(max(512, n - len(self.ahead)))])
        return self.ahead[:n]

    def skip(self, n: int) -> None:
        """Consume n integers that were peeked at."""
        self.ahead = self.ahead[n:]

    def take(self, n: int) -> list[int]:
        """Consume the next n integers."""
        values = self.peek(n).tolist()
        self.skip(n)
        return values


def below(raw: Raw, n: Raw) -> Raw:
    """Integers 0..n-1 from raw ones, n < 2**32, by multiply and shift (Lemire 2019, bias below n / 2**32)."""
    return (raw >> 32) * n >> 32


def scale_of(raw: Any) -> Any:
    """Scale uniform in [0.5, 3.0]."""
    return 0.5 + 2.5 * ((raw >> 11) * 2.0**-53)


def offset_of(raw: int) -> int:
    """Gaussian colour offset of standard deviation 10, rounded; 52 bits and a half keep the quantile inside (0, 1)."""
    return round(NOISE.inv_cdf(((raw >> 12) + 0.5) * 2.0**-52))


def sample_scene(
    style: str, key: tuple[int, ...], pool: Pool, photograph_sizes: Sequence[tuple[int, int]] = ()
) -> Scene:
    """The scene of a key (integers >= 0); MBG needs the photographs' (height, width)."""
    stream = Stream(key)
    while (digits := sample_digits(stream, pool)) is None:
        pass
    asked = below(stream.take(1)[0], len(digits))
    patches = tuple(sample_patch(stream, pool) for _ in range(PATCHES)) if style == "mdist" else ()
    background = None
    if style == "mbg":
        which, x, y = stream.take(3)
        photograph = below(which, len(photograph_sizes))
        height, width = photograph_sizes[photograph]
        background = photograph, below(x, width - SIZE + 1), below(y, height - SIZE + 1)
    return Scene(style, digits, patches, background, asked)


def sample_digits(stream: Stream, pool: Pool, count: int | None = None) -> tuple[Digit, ...] | None:
    """``count`` (else 5 to 9) digits of distinct numbers, no box on earlier ink; None if one found no place."""
    if count is None:
        count = FEWEST + below(stream.take(1)[0], MOST - FEWEST + 1)
    left = list(range(10))
    ink = np.zeros((SIZE + 1, SIZE + 1), np.int32)  # summed-area table: ink[y, x] = inked pixels above and left
    digits: list[Digit] = []
    for _ in range(count):
        which, sample, colour, offset = stream.take(4)
        number = left.pop(below(which, len(left)))
        place = find_place(stream, ink)
        if place is None:
            return None
        samples = pool.of_number[number]
        sample = int(samples[below(sample, len(samples))])
        digits.append(Digit(number, sample, below(colour, len(COLOURS)), offset_of(offset), *place))
        add_ink(ink, pool.glyph(sample, digits[-1].size) > 0, digits[-1].x, digits[-1].y)
    return tuple(digits)


def find_place(stream: Stream, ink: np.ndarray) -> tuple[float, int, int, int] | None:
    """Scale, x, y, size of the first try whose box holds no ink; None after MAX_TRIES, a try being three integers.

    Tries are tested in growing blocks, but only those up to the accepted one are consumed.
    """
    tried, block = 0, 32
    flat, stride = ink.reshape(-1), ink.shape[1]
    while tried < MAX_TRIES:
        block = min(block, MAX_TRIES - tried)
        raw = stream.peek(3 * block).reshape(block, 3)
        scale = scale_of(raw[:, 0])
        size = (SIDE * scale + 0.5).astype(np.uint64)
        x, y = below(raw[:, 1:], (SIZE + 1 - size)[:, None]).T
        corner = (y * stride + x).astype(np.intp)
        size = size.astype(np.intp)
        lower = corner + size * stride
        inside = flat[lower + size] - flat[lower] - flat[corner + size] + flat[corner]
        first = int(inside.argmin())
        if not inside[first]:
            stream.skip(3 * (first + 1))
            return float(scale[first]), int(x[first]), int(y[first]), int(size[first])
        stream.skip(3 * block)
        tried, block = tried + block, 4 * block
    return None


def add_ink(table: np.ndarray, ink: np.ndarray, x: int, y: int) -> None:
    """Add a (size, size) bool support at (x, y) to a summed-area table, in place."""
    added = ink.cumsum(0, dtype=table.dtype).cumsum(1)
    right, bottom = x + len(ink) + 1, y + len(ink) + 1
    table[y + 1 : bottom, x + 1 : right] += added
    table[y + 1 : bottom, right:] += added[:, -1:]
    table[bottom:, x + 1 : right] += added[-1]
    table[bottom:, right:] += added[-1, -1]


def sample_patch(stream: Stream, pool: Pool) -> Patch:
    """One distractor, anywhere in the image."""
    sample, row, column, colour, offset, scale, x, y = stream.take(8)
    scale = scale_of(scale)
    size = int(PATCH_SIDE * scale + 0.5)
    sample = below(sample, len(pool.images))
    row, column = (below(raw, SIDE - PATCH_SIDE + 1) for raw in (row, column))
    x, y = (below(raw, SIZE - size + 1) for raw in (x, y))
    return Patch(sample, row, column, below(colour, len(COLOURS)), offset_of(offset), scale, x, y, size)


def render_scene(scene: Scene, pool: Pool, photographs: Photographs | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image (100, 100, 3) uint8 and owner (100, 100) uint8: 1 + position in ``scene.digits``, 0 where no digit is."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    owner = np.zeros((SIZE, SIZE), np.uint8)
    if scene.background is not None:
        assert photographs is not None, "an MBG scene needs the photographs that it was sampled with"
        which, x, y = scene.background
        image[:] = photographs.load(which)[y : y + SIZE, x : x + SIZE]
    for patch in scene.patches:
        crop = pool.images[patch.sample, patch.row : patch.row + PATCH_SIDE, patch.column : patch.column + PATCH_SIDE]
        under = image[patch.y : patch.y + patch.size, patch.x : patch.x + patch.size]
        light = blend(np.zeros_like(under), resize(crop, patch.size), colour_of(patch))
        under[:] = np.minimum(under, 255 - light) + light  # a sum that stops at 255
    for label, digit in enumerate(scene.digits, 1):
        here = slice(digit.y, digit.y + digit.size), slice(digit.x, digit.x + digit.size)
        glyph = pool.glyph(digit.sample, digit.size)
        image[here] = blend(image[here], glyph, colour_of(digit))
        owner[here][glyph > 0] = label
    return image, owner


def colour_of(item: Digit | Patch) -> np.ndarray:
    """(3,) uint16 in 0..255: the reference colour plus the offset, clipped."""
    return np.array([min(max(channel + item.offset, 0), 255) for channel in RGB[item.colour]], np.uint16)


def blend(under: np.ndarray, glyph: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Colour over (size, size, 3) uint8 with alpha = glyph / 255, rounded; 255 * 255 + 127 still fits 16 bits."""
    alpha = np.repeat(glyph, 3).reshape(*glyph.shape, 3).astype(np.uint16)
    return ((alpha * colour + (255 - alpha) * under + 127) // 255).astype(np.uint8)


@cache
def resize_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32, triangle filter widened when shrinking (as Pillow's), in 1/128ths; rows sum to one.

    The filter is exact in integers: output i and input j are |(2j + 1) target - (2i + 1) source| / (2 target) apart.
    Rounding the running sum, not each weight, keeps each row's total.
    """
    i, j = np.arange(target)[:, None], np.arange(source)
    weight = (2 * max(source, target) - abs((2 * j + 1) * target - (2 * i + 1) * source)).clip(0)
    total = weight.sum(1, keepdims=True)
    running = (256 * weight.cumsum(1) + total) // (2 * total)
    return (np.diff(running, prepend=0) / 128).astype(np.float32)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(n, n) uint8 -> (size, size) uint8, bilinear.

    All partial sums are multiples of 2**-14 below 2**8, so float32 products are exact whatever BLAS orders them.
    """
    weights = resize_weights(len(image), size)
    return (weights @ image.astype(np.float32) @ weights.T + np.float32(0.5)).astype(np.uint8)
