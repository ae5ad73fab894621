"""What skipping closed regions could save: how much of real gates is shut, and what zero there does to the answers.

python benchmarks/closed_regions.py mref-pan [runs/mine ...] [--data mref] [--count 2000]

For each threshold, in shares of a gate's own largest value (a batch norm follows, so the scale says nothing): share of
each gate's cells below it, share of its 4 x 4 blocks that are wholly below (what code for blocks could skip), and
accuracy with all cells below set to zero, all in per cent.
"""

import argparse
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from progressive_attention.config import STYLES
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.ask import predictions
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.network import equations as attention
from progressive_attention.saved import weights

BLOCK = 4  # cells
THRESHOLDS = (0.003, 0.01, 0.03, 0.1, 0.3)


def beside_widest(gate: Tensor) -> Tensor:
    """Each cell's value as a share of the largest of its map: (M, H, W) -> (M, H, W) in (0, 1]."""
    return gate / gate.amax((-2, -1), keepdim=True)


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--data", choices=STYLES, default="mref")
    parser.add_argument("--count", type=int, default=2000, help="test questions")
    arguments = parser.parse_args()
    device = torch.device("cpu")
    questions = load_questions(arguments.data, "test").rows(np.arange(arguments.count))
    for name in arguments.weights:
        model = weights.load(name, device).model
        with torch.inference_mode():
            gates = [[] for _ in model.attended[:-1]]
            for _, prediction in predictions(model, questions, device):
                for kept, gate in zip(gates, prediction.attention, strict=False):
                    kept.append(gate[:, 0])
        maps = [beside_widest(torch.cat(kept)) for kept in gates]
        print(f"{name}: accuracy {100 * validation_score(model, questions, device)[1]:.2f} %")
        for threshold in THRESHOLDS:

            def cut(score: Tensor, least: float = threshold) -> Tensor:
                gate = score.sigmoid()
                return gate * (beside_widest(gate) >= least)

            with mock.patch.object(attention, "gate", cut):
                answered = 100 * validation_score(model, questions, device)[1]
            cells = [100 * (gate < threshold).double().mean() for gate in maps]
            blocks = [100 * (F.max_pool2d(gate, BLOCK) < threshold).double().mean() for gate in maps]
            shares = ", ".join(f"{cell:.1f} / {block:.1f}" for cell, block in zip(cells, blocks, strict=True))
            below = f"  below {threshold:g} of the largest: cells / blocks of each gate {shares}"
            print(f"{below}; accuracy without them {answered:.2f} %")


if __name__ == "__main__":
    main()
