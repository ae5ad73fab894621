"""What the flow map could have been: ways to spread a cell's share (κ) and to weigh the cells below, on validation.

    python benchmarks/choose_flow.py results/weights/mref-pan-hard-ctx-paper-fast-30000x3-b32-lr0.01-s0 mref 300
    python benchmarks/choose_flow.py RUN FOLDER_WITH_MASKS 1000 --out vgg.json

Prints, and with --out writes as JSON, the best mean IoU at one threshold, the true-positive ratio and the pointing game
of each variant, in per cent. For chains of convolutions and poolings. docs/attention-maps.md says what was chosen.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_attention.config import STYLES
from progressive_attention.data.sources import in_words_of, load_questions
from progressive_attention.evaluation.ask import predictions
from progressive_attention.files import write_json
from progressive_attention.maps.pixel_maps import as_density, pixel_maps
from progressive_attention.maps.receptive_field import Geometry, geometry
from progressive_attention.metrics.attention import OverlapCurves, pointing_game, true_positive_ratio
from progressive_attention.network.question_network import Prediction
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.saved import load

WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of a cell, from its attention a and magnitude m
    "a m": lambda a, m: a * m,
    "(a m)^2": lambda a, m: (a * m) ** 2,
    "a m^2": lambda a, m: a * m**2,
    "a m^3": lambda a, m: a * m**3,
    "a m^4": lambda a, m: a * m**4,
    "m^2": lambda a, m: m**2,
    "m^4": lambda a, m: m**4,
}
KAPPAS = ("paths", "kernel norms")


def kernel(layer: Any, kappa: str) -> Tensor:
    """How a window's cells count, (rows, columns), of sum one: all alike, or by the energy of a convolution's taps."""
    if kappa == "kernel norms" and isinstance(layer, nn.Conv2d):
        values = layer.weight.detach().double().square().sum((0, 1))
    else:
        size = layer.kernel_size
        values = torch.ones(size if isinstance(size, tuple) else (size, size), dtype=torch.float64)
    return values / values.sum()


def links(layers: list[Any], size: tuple[int, int], kappa: str) -> Tensor:
    """κ of a chain between cells (h, w) and the cells above: (h' w', h w) float64."""
    cells = torch.eye(size[0] * size[1], dtype=torch.float64).view(-1, 1, *size)
    for layer in layers:
        cells = F.conv2d(cells, kernel(layer, kappa)[None, None], stride=layer.stride, padding=layer.padding)
    return cells.flatten(1).T


def links_of(model: Any, prediction: Prediction, kappa: str) -> list[Tensor]:
    """κ between each two attended layers."""
    found = []
    for start, end, attention in zip(model.attended, model.attended[1:], prediction.attention, strict=False):
        stages = nn.Sequential(*list(model.stages)[start + 1 : end + 1])
        layers = [one for one in stages.modules() if isinstance(one, nn.Conv2d | nn.MaxPool2d)]
        found.append(links(layers, (attention.shape[-2], attention.shape[-1]), kappa))
    return found


def flow(prediction: Prediction, where: Geometry, spread: list[Tensor], weigh: Callable[..., Tensor]) -> Tensor:
    """``image_maps.flow_map`` with another κ and other weights: (B, K, H, W) float64."""
    share = prediction.attention[-1].double().flatten(-2)
    layers = zip(prediction.attention[:-1], prediction.magnitude[:-1], spread, strict=True)
    for attention, magnitude, kappa in reversed(list(layers)):
        strength = magnitude.double() / magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)
        passed = weigh(attention.double(), strength).flatten(-2)
        share = passed * ((share / (passed @ kappa.T).clamp(min=1e-290)) @ kappa)
    return as_density(share.view_as(prediction.attention[0]), where.fields[0], where.image_size)


@torch.inference_mode()
def compare(folder: str, data: str, count: int) -> dict[str, dict[str, float]]:
    """The figures of each map by its name, of the first ``count`` validation questions with a mask."""
    trained = load(folder)
    options = {} if data in STYLES else {"image_size": trained.model.config.image_size}
    questions = load_questions(data, "validation", **options)
    questions = in_words_of(
        questions.rows(np.arange(len(questions)) < count), trained.query_names, trained.attribute_names
    )
    where, curves, scores = geometry(trained.model), OverlapCurves(), {}
    spread: dict[str, list[Tensor]] = {}
    for asked, prediction in predictions(trained.model, questions, torch.device("cpu")):
        real = asked.row >= 0
        assert questions.masks is not None
        masks = questions.masks[asked.row[real]]
        spread = spread or {kappa: links_of(trained.model, prediction, kappa) for kappa in KAPPAS}
        maps = pixel_maps(prediction, where)
        for kappa in KAPPAS:
            for name, weigh in WEIGHTS.items():
                maps[f"{kappa}, {name}"] = flow(prediction, where, spread[kappa], weigh)
        for name, drawn in maps.items():
            attention = drawn.numpy()[real]
            curves.add(name, attention, masks)
            pair = true_positive_ratio(attention, masks), pointing_game(attention, masks)
            scores.setdefault(name, []).append(np.stack(pair))
    best = {name: curve["best_iou"] for name, curve in curves.summary().items()}
    return {
        name: dict(zip(("iou", "tpr", "pointing"), (best[name], *np.nanmean(np.concatenate(parts, 1), 1)), strict=True))
        for name, parts in scores.items()
    }


def main() -> None:
    """Print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a pretrained name or a run's folder")
    parser.add_argument("data", help="mref, mdist, mbg, or a folder with masks")
    parser.add_argument("count", type=int, help="validation questions")
    parser.add_argument("--out", type=Path, help="a .json file to write")
    arguments = parser.parse_args()
    figures = compare(arguments.weights, arguments.data, arguments.count)
    for name, values in figures.items():
        print(f"{name:24s}", *(f"{key} {100 * value:5.1f}" for key, value in values.items()))
    if arguments.out:
        about = {"weights": Path(arguments.weights).name, "data": Path(arguments.data).name, "count": arguments.count}
        about |= {"hardware": hardware(torch.device("cpu")), "commit": commit()}
        write_json(arguments.out, {**about, "figures": figures})


if __name__ == "__main__":
    main()
