"""Hard cases: test scenes where the pretrained networks err, hesitate, or see the smallest digits. Kept as seeds."""

from typing import NamedTuple

import numpy as np

from progressive_attention.data.scenes import Scene, SceneSource


class Case(NamedTuple):
    """One question about scene ``number`` of a test split, seed 0, and what ``network`` answered when it was found."""

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
