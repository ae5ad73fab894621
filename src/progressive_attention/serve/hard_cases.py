"""Hard cases: test scenes where the shipped networks err, hesitate, or see the smallest digits. Kept as seeds."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from progressive_attention.data.scenes import COLOURS, Scene, SceneSource
from progressive_attention.evaluation.ask import as_tensor
from progressive_attention.saved.weights import Trained

SEARCHED = 300  # test scenes, about 2,100 questions
WRONG = 2  # wrong answers shown of each network


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

    def caption(self) -> str:
        """What makes it hard."""
        return f"{self.query}? {self.network}: {self.said}, {self.kind}"


def search(network: str, trained: Trained, searched: int = SEARCHED) -> list[Case]:
    """The hard cases of a network among the first scenes of the test split that it was trained for.

    Every digit of every scene is asked for.
    """
    style = trained.about["data"]
    source = SceneSource(style, "test")
    found = []
    for number in range(searched):
        scene = source.scene(number)
        for digit, (said, probability) in zip(scene.digits, answers(trained, source, scene), strict=True):
            case = partial(Case, network, style, number, str(digit.number), said=COLOURS[said])
            found.append((case, said == digit.colour, probability, digit.size))
    wrong = sorted((one for one in found if not one[1]), key=lambda one: -one[2])[:WRONG]
    right = [one for one in found if one[1]]
    small = min(right, key=lambda one: one[3])  # the first of equals: their probabilities may differ by a rounding
    unsure = min(right, key=lambda one: one[2])
    return [*(case(kind="wrong") for case, *_ in wrong), small[0](kind="small"), unsure[0](kind="unsure")]


@torch.inference_mode()
def answers(trained: Trained, source: SceneSource, scene: Scene) -> list[tuple[int, float]]:
    """The likeliest colour, as its place in COLOURS, and its probability, for every digit of a scene."""
    image, _ = source.render(scene)
    ids = torch.tensor([[trained.query_names.index(str(digit.number)) for digit in scene.digits]])
    probability = trained.model(as_tensor(np.asarray(image)[None], torch.device("cpu")), ids).log_prob[0].exp()
    best = probability.argmax(-1).tolist()
    places = [COLOURS.index(name) for name in trained.attribute_names]
    return [(places[k], float(row[k])) for k, row in zip(best, probability, strict=True)]


# Written by `search` on each shipped network; a slow test searches again.
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
