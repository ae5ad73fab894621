"""Where the accumulated map's attention lies, and what is missing to the papers' true-positive ratios.

python benchmarks/where_attention_goes.py --data mref mref-pan runs/mref [--count 500]

Shares of the accumulated map, in per cent, mean over test questions: on the target's ink, on other digits' ink, within
two pixels of the target, elsewhere; then the target's share if the map were zero off every digit's ink ("ink only"):
what gates that close exactly on the background would give, all else the same. Then each gate's mean value on the
target, on other ink, off ink.
"""

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from progressive_attention.config import STYLES
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.ask import as_tensor
from progressive_attention.maps.pixel_maps import as_values, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.saved import load

NEAR = 2  # pixels around the target


def ink_of(questions: QuestionSet, rows: np.ndarray) -> torch.Tensor:
    """Pixels (R, H, W) that belong to any digit of the row's image."""
    ink = []
    for image in questions.image[rows]:
        masks = questions.masks[np.flatnonzero(questions.image == image)]
        ink.append(torch.from_numpy(masks.any(0)))
    return torch.stack(ink)


@torch.inference_mode()
def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--data", choices=STYLES, default="mref")
    parser.add_argument("--count", type=int, default=500, help="test questions")
    arguments = parser.parse_args()
    every = load_questions(arguments.data, "test", queries="all")
    asked = load_questions(arguments.data, "test", queries="one")
    rows = np.arange(arguments.count)
    mask = torch.from_numpy(asked.masks[rows])
    first = np.array([np.flatnonzero(every.image == image)[0] for image in asked.image[rows]])
    ink = ink_of(every, first)
    near = F.max_pool2d(mask.float()[:, None], 2 * NEAR + 1, 1, NEAR)[:, 0] > 0
    places = {"target": mask, "other ink": ink & ~mask, "near target": near & ~ink, "elsewhere": ~near & ~ink}
    for name in arguments.weights:
        trained = load(name)
        where = geometry(trained.model)
        pixels = as_tensor(asked.images[asked.image[rows]], torch.device("cpu"))
        prediction = trained.model(pixels, torch.from_numpy(asked.query[rows]))
        accumulated = pixel_maps(prediction, where)["accumulated"][:, 0]
        print(f"{name}, {arguments.count} test questions of {arguments.data}")
        for place, inside in places.items():
            print(f"  accumulated map, {place:12s}{100 * (accumulated * inside).sum((-2, -1)).mean():6.1f} %")
        on_ink = accumulated * ink
        share = (on_ink * mask).sum((-2, -1)) / on_ink.sum((-2, -1)).clamp(min=1e-30)
        print(f"  target's share, ink only     {100 * share.mean():6.1f} %")
        for i, (gate, field) in enumerate(zip(prediction.attention[:-1], where.fields, strict=False), 1):
            values = as_values(gate[:, 0], field, where.image_size)
            known = as_values(torch.ones_like(gate[:, 0]), field, where.image_size) > 0.99
            means = [values[inside & known].mean() for inside in (mask, ink & ~mask, ~ink)]
            print(f"  gate {i}: on target {means[0]:.3f}, on other ink {means[1]:.3f}, off ink {means[2]:.3f}")


if __name__ == "__main__":
    main()
