"""What skipping closed regions could save: how much of real gates is shut, and what zero there does to the answers.

python benchmarks/closed_regions.py mref-pan-hard-ctx [runs/mine ...] [--data mref] [--count 2000]

For each threshold: share of each gate's cells below it, share of its 4 x 4 blocks that are wholly below (what code for
blocks could skip), and accuracy with all cells below set to zero, all in per cent.
"""

import argparse
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from progressive_attention import attention, weights
from progressive_attention.config import STYLES
from progressive_attention.data.sources import load_questions
from progressive_attention.inference import accuracy, predictions

BLOCK = 4  # cells
THRESHOLDS = (0.001, 0.003, 0.01, 0.05)


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
        maps = [torch.cat(kept) for kept in gates]
        print(f"{name}: accuracy {100 * accuracy(model, questions, device):.2f} %")
        for threshold in THRESHOLDS:
            with mock.patch.object(attention, "gate", lambda score, t=threshold: F.threshold(score.sigmoid(), t, 0.0)):
                answered = 100 * accuracy(model, questions, device)
            cells = [100 * (gate < threshold).double().mean() for gate in maps]
            blocks = [100 * (F.max_pool2d(gate, BLOCK) < threshold).double().mean() for gate in maps]
            shares = ", ".join(f"{cell:.1f} / {block:.1f}" for cell, block in zip(cells, blocks, strict=True))
            print(f"  below {threshold}: cells / blocks of each gate {shares}; accuracy without them {answered:.2f} %")


if __name__ == "__main__":
    main()
