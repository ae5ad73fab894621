"""Made-up answers and scenes for pictures and pages."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from progressive_attention.pages.answer_plots import Scene

FLOW = np.s_[8:12, 24:28]  # the one cell that answers come from
HOSTILE = "<script>alert('&\"')</script> $x^ |*_`[x](y)\\frac{ #"


@dataclass(frozen=True)
class FakeAnswer:
    """What pictures need of ``predictor.Answer``."""

    query: str = "7"
    attribute: str = "red"
    probability: float = 0.991
    image: np.ndarray = field(default_factory=lambda: np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    layers: list[np.ndarray] = field(default_factory=list)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    likelihood: str = "softmax"
    ranked: list[tuple[str, float]] = field(default_factory=list)
    found: bool | None = None
    cells: list[tuple[int, int]] = field(default_factory=list)


def answer_of(layers: int = 4, **changes: Any) -> Any:
    """An answer with random layers, their border NaN, as where a layer has no cell; its flow is one cell, FLOW."""
    rng = np.random.default_rng(0)
    drawn = list(rng.random((layers, 40, 40)))
    for layer in drawn:
        layer[[0, -1]] = layer[:, [0, -1]] = np.nan
    flow, accumulated = np.zeros((40, 40)), rng.random((40, 40))
    flow[FLOW] = 1 / flow[FLOW].size
    maps = {"accumulated": accumulated / accumulated.sum(), "flow": flow}
    return FakeAnswer(**{"layers": drawn, "maps": maps, **changes})


def scene_of(**changes: Any) -> Scene:
    """A scene that one network answers right and another wrong."""
    mask = np.zeros((40, 40), bool)
    mask[30:, 35:] = True
    answers = {"pan-hard-ctx": answer_of(), "san": answer_of(1, attribute="white")}
    return Scene(answer_of().image, mask, "7", ("red",), answers)._replace(**changes)
