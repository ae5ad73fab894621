"""Would a narrower κ make the flow map the best one on photographs? Asked of VOC's training half.

    python benchmarks/choose_flow_on_photographs.py weights/photographs-pan data/voc

κ: walks through the network, or a Gaussian between the cells' centres, so many strides of the upper layer wide. Prints
true-positive ratio, pointing game and best IoU in per cent. docs/attention-maps.md says what was chosen.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.answers import askable
from progressive_attention.evaluation.ask import predictions
from progressive_attention.maps.pixel_maps import Reach, as_density, pixel_maps
from progressive_attention.maps.receptive_field import Field, Geometry, geometry
from progressive_attention.metrics.attention import OverlapCurves, pointing_game, true_positive_ratio
from progressive_attention.network.question_network import Prediction
from progressive_attention.saved import load

WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of a cell, from its attention a and magnitude m
    "a": lambda a, m: a,
    "a m": lambda a, m: a * m,
    "a m^2": lambda a, m: a * m**2,
    "a m^4": lambda a, m: a * m**4,
    "m^2": lambda a, m: m**2,
}
WIDTHS = (0.25, 0.5, 1.0, 2.0)


def gaussian(above: Field, below: Field, cells: tuple[int, int], width: float) -> Tensor:
    """How near the cells of two layers are along an axis: (cells above, cells below) float64."""
    upper, lower = (
        torch.tensor([field.centre(i) for i in range(count)], dtype=torch.float64)
        for field, count in zip((above, below), cells, strict=True)
    )
    return torch.exp(-(((upper[:, None] - lower) / (width * above.stride)) ** 2) / 2)


def kappas(where: Geometry, sizes: list[tuple[int, int]]) -> dict[str, list[Tensor]]:
    """κ between each two attended layers by name: (h' w', h w) float64 each."""
    links: dict[str, list[Tensor]] = {"walks": []}
    for i, size in enumerate(sizes[:-1]):
        ends = torch.eye(size[0] * size[1], dtype=torch.float64).view(-1, *size)
        links["walks"].append(Reach(where.paths[i], size, torch.device("cpu")).up(ends).flatten(1).T)
        for width in WIDTHS:
            pairs = zip(where.fields[i + 1], where.fields[i], zip(sizes[i + 1], size, strict=True), strict=True)
            rows, columns = (gaussian(above, below, cells, width) for above, below, cells in pairs)
            links.setdefault(f"gaussian {width}", []).append(torch.kron(rows, columns))
    return links


def variants(prediction: Prediction, where: Geometry, spread: dict[str, list[Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The flow map by each κ and weight."""
    for kappa, links in spread.items():
        for name, weigh in WEIGHTS.items():
            share = prediction.attention[-1].double().flatten(-2)
            for i in reversed(range(len(links))):
                magnitude = prediction.magnitude[i].double()
                strength = magnitude / magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)
                passed = weigh(prediction.attention[i].double(), strength).flatten(-2)
                share = passed * ((share / (passed @ links[i].T).clamp(min=1e-290)) @ links[i])
            drawn = share.view_as(prediction.attention[0])
            yield f"{kappa}, {name}", as_density(drawn, where.fields[0], where.image_size)


@torch.inference_mode()
def main() -> None:
    """Print a line for each map."""
    trained = load(sys.argv[1])
    where, curves, scores = geometry(trained.model), OverlapCurves(), {}
    questions, _ = askable(load_questions(sys.argv[2], "train", image_size=where.image_size[0]), trained)
    assert questions.masks is not None
    assert questions.void is not None
    spread: dict[str, list[Tensor]] = {}
    for asked, prediction in predictions(trained.model, questions, torch.device("cpu")):
        real = asked.row >= 0
        masks, void = questions.masks[asked.row[real]], questions.void[asked.row[real]]
        spread = spread or kappas(where, [(map_.shape[-2], map_.shape[-1]) for map_ in prediction.attention])
        for name, drawn in [*pixel_maps(prediction, where).items(), *variants(prediction, where, spread)]:
            attention = drawn.numpy()[real]
            curves.add(name, attention, masks, void)
            of_each = (
                true_positive_ratio(attention * ~void, masks & ~void),
                pointing_game(attention * ~void, masks & ~void),
            )
            scores.setdefault(name, []).append(np.stack(of_each))
    for name, curve in curves.summary().items():
        ratio, pointing = np.nanmean(np.concatenate(scores[name], 1), 1)
        print(f"{name:22s} ratio {100 * ratio:.1f}, pointing {100 * pointing:.1f}, IoU {100 * curve['best_iou']:.1f}")


if __name__ == "__main__":
    main()
