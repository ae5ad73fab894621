"""A scene from sliders, or a hard case, and which of its digits was clicked.

Legend: images are SIZE x SIZE pixels; a box is x0 y0 x1 y1 in pixels, right and lower edge not in it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from progressive_attention.data import scenes
from progressive_attention.data.scenes import PATCHES, SIZE, Scene, SceneSource, Stream, below

LARGEST_SEED = 999_999
DIGITS_PART, CLUTTER_PART, CROP_PART = range(3)  # each has integers of its own: no slider moves what another one drew


class Sliders(NamedTuple):
    """What a scene is drawn from: 1 to 9 digits, 0 to 40 distractors, a photograph (1 is the first, 0 black), a seed.

    One digit or distractor more leaves the others where they are.
    """

    digits: int = 7
    clutter: int = 0
    background: int = 0
    seed: int = 0


SETS = {"mref": Sliders(), "mdist": Sliders(clutter=PATCHES), "mbg": Sliders(background=1)}  # scenes like each set's


def most(source: SceneSource) -> Sliders:
    """The largest values."""
    return Sliders(scenes.MOST, 40, len(source.photographs or ()), LARGEST_SEED)


def arranged(sliders: Sliders, source: SceneSource) -> Scene:
    """The scene of the sliders, of the source's digits and photographs, otherwise as ``sample_scene`` draws them."""
    stream = Stream((sliders.seed, DIGITS_PART))
    while (digits := scenes.sample_digits(stream, source.pool, sliders.digits)) is None:
        pass
    clutter = Stream((sliders.seed, CLUTTER_PART))
    patches = tuple(scenes.sample_patch(clutter, source.pool) for _ in range(sliders.clutter))
    background = None
    if sliders.background and source.photographs:
        height, width = source.photographs.sizes[sliders.background - 1]
        x, y = Stream((sliders.seed, CROP_PART)).take(2)
        background = sliders.background - 1, below(x, width - SIZE + 1), below(y, height - SIZE + 1)
    return Scene(source.style, digits, patches, background, below(stream.take(1)[0], len(digits)))


def clicked(digits: Sequence[dict[str, Any]], x: float, y: float) -> str | None:
    """The query of the digit at a pixel, None where there is none.

    Of several boxes the last drawn: no box lies on ink drawn before it, so on ink that digit is the right one.
    """
    for digit in reversed(digits):
        x0, y0, x1, y1 = digit["box"]
        if x0 <= x < x1 and y0 <= y < y1:
            return digit["query"]
    return None


def truth_of(digits: Sequence[dict[str, Any]] | None, query: str) -> str | None:
    """What colour a digit of a drawn scene has: "" where it has no such digit, None where nothing is known."""
    return None if digits is None else {digit["query"]: digit["attribute"] for digit in digits}.get(query, "")


class Case(NamedTuple):
    """A hard case: a question about scene ``number`` of a test split, seed 0, and what ``network`` answered then."""

    network: str
    style: str
    number: int
    query: str
    kind: str  # "wrong": it errs, surest first; "small": its smallest digit seen rightly; "unsure": right, hardly
    said: str

    def drawn(self) -> tuple[np.ndarray, Scene]:
        """The image (100, 100, 3) uint8 and its scene, made from the seed."""
        source = SceneSource(self.style, "test")
        scene = source.scene(self.number)
        return source.render(scene)[0], scene


# Of each network: among the first 300 test scenes, every digit asked for, the two surest wrong answers, the smallest
# digit answered rightly, and the least sure right answer.
CASES = (
    Case("mref-pan", "mref", 98, "2", "wrong", "white"),
    Case("mref-pan", "mref", 203, "9", "wrong", "blue"),
    Case("mref-pan", "mref", 8, "2", "small", "yellow"),
    Case("mref-pan", "mref", 6, "1", "unsure", "red"),
    Case("mdist-pan", "mdist", 98, "2", "wrong", "white"),
    Case("mdist-pan", "mdist", 288, "4", "wrong", "green"),
    Case("mdist-pan", "mdist", 8, "2", "small", "yellow"),
    Case("mdist-pan", "mdist", 58, "8", "unsure", "yellow"),
    Case("mbg-pan", "mbg", 94, "3", "wrong", "white"),
    Case("mbg-pan", "mbg", 102, "2", "wrong", "red"),
    Case("mbg-pan", "mbg", 8, "2", "small", "yellow"),
    Case("mbg-pan", "mbg", 69, "9", "unsure", "white"),
    Case("mref-san", "mref", 203, "9", "wrong", "blue"),
    Case("mref-san", "mref", 289, "9", "wrong", "white"),
    Case("mref-san", "mref", 8, "2", "small", "yellow"),
    Case("mref-san", "mref", 204, "8", "unsure", "green"),
)
