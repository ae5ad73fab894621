"""A tiny data set and run that the tests of training share."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from progressive_attention.config import Recipe
from progressive_attention.data.questions import OwnerMasks, QuestionSet
from progressive_attention.files import read_json
from progressive_attention.network.build import build_model
from progressive_attention.saved import describe
from progressive_attention.training.loop import order_in_epoch, read_log, training

COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=np.uint8)
ROWS = Recipe("rows", "rmsprop", 0.003, "step", 4, 3, "rows", decay=0.5, decay_start=1, decay_every=2)
ALL = Recipe("all", "adamw", 0.01, "one-cycle", 3, 4, "all", weight_decay=0.01)
MUON = Recipe("muon", "muon", 0.01, "one-cycle", 3, 4, "all", weight_decay=0.01)
RUNS = {"rmsprop, rows": ROWS, "adamw, all": ALL, "muon, all": MUON}


def squares(name: str, images: int, seed: int) -> QuestionSet:
    """14 px pictures with one square in each half; what colour is the left (0), the right (1) one? 1 or 2 questions."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 3, (images, 2))
    pixels = rng.integers(0, 40, (images, 14, 14, 3), dtype=np.uint8)
    owner = np.zeros((images, 14, 14), dtype=np.uint8)
    rows = []
    for i in range(images):
        for side in range(2):
            pixels[i, 4:10, 1 + 7 * side : 6 + 7 * side] = COLOURS[colour[i, side]]
            owner[i, 4:10, 1 + 7 * side : 6 + 7 * side] = 1 + side
        rows += [(i, side, colour[i, side]) for side in rng.permutation(2)[: 1 + i % 2]]
    image, query, attribute = np.array(rows, dtype=np.int64).T
    names = ("left", "right"), ("red", "green", "blue")
    return QuestionSet(name, pixels, image, query, attribute, *names, masks=OwnerMasks(owner, image, 1 + query))


TRAIN, VALIDATION = squares("squares", 10, 0), squares("squares-validation", 6, 1)  # 15 and 9 questions


def network(seed: int = 0) -> nn.Module:
    """A PAN of two layers with dropout and batch norm: all that a resumed run must get right."""
    torch.manual_seed(seed)
    return build_model("pan-hard-ctx", num_queries=2, num_attributes=3, hidden=4, attend_at=(0, 1))


def about(model: nn.Module) -> dict:
    return describe(model.config, TRAIN.query_names, TRAIN.attribute_names)


def start(out: Path, recipe: Recipe, model: nn.Module | None = None, **changes):
    model = network() if model is None else model
    return training(model, TRAIN, VALIDATION, recipe, out, about(model), **changes)


def results(out: Path) -> tuple[bytes, dict, list[dict], dict]:
    """All that a run leaves, but for the seconds that it took: best weights, last state, log, config."""

    def timeless(record: dict) -> dict:
        return {key: value for key, value in record.items() if not key.endswith("seconds")}

    config = read_json(out / "config.json")
    config["best"] = timeless(config["best"])
    state = {key: value.numpy().tobytes() for key, value in load_file(out / "checkpoint.safetensors").items()}
    return (out / "weights.safetensors").read_bytes(), state, [*map(timeless, read_log(out / "log.jsonl"))], config


class ByHalves(nn.Module):
    """Linear in each half's mean colour: no attention, no convolution, no config."""

    def __init__(self, attributes: int = 3) -> None:
        super().__init__()
        self.answer = nn.Linear(3, attributes)

    def forward(self, image: torch.Tensor, query: torch.Tensor) -> SimpleNamespace:
        halves = torch.stack([image[..., :7].mean((2, 3)), image[..., 7:].mean((2, 3))], 1)  # (B, 2, 3)
        chosen = halves[torch.arange(len(image))[:, None], query.clamp(min=0)]
        return SimpleNamespace(logit=self.answer(chosen).log_softmax(-1))


def questions_in_epoch(questions: QuestionSet, recipe: Recipe, seed: int, epoch: int) -> list[list[np.ndarray]]:
    """The groups of rows that each step asks."""
    groups = questions.groups(together=recipe.queries == "all")
    return [[groups[i] for i in step] for step in order_in_epoch(len(groups), recipe, seed, epoch)]
