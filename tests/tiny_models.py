"""Small models and pictures that the tests of networks share.

62 px is the smallest side that leaves the papers' network more than one cell (2 x 2) to choose from in its last map.
"""

import pytest
import torch
from torch import nn

from progressive_attention.config import MODELS
from progressive_attention.models import Prediction, ProgressiveAttentionNetwork, build_model

QUERIES, ATTRIBUTES, PIXELS = 5, 3, 62
SIDES = [30, 14, 6, 2]
EXACT = {"rtol": 0, "atol": 1e-10}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, seed: int = 0, **changes) -> ProgressiveAttentionNetwork:
    """A small float64 model with norms, running averages and classifier unlike their initial values."""
    torch.manual_seed(seed)
    model = build_model(name, num_queries=QUERIES, num_attributes=ATTRIBUTES, **{"hidden": 4, **changes}).double()
    for norm in model.norms:
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_var):
                values.uniform_(0.5, 1.5)
            for values in (norm.bias.data, norm.running_mean):
                values.normal_()
    return model


def pictures(count: int, seed: int = 0, pixels: int = PIXELS) -> torch.Tensor:
    return torch.rand(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(prediction: Prediction) -> list[torch.Tensor]:
    return [prediction.logit, *prediction.attention, *prediction.magnitude]


def sides(name: str) -> list[int]:
    return SIDES[-1:] if MODELS[name].get("last_only") else SIDES
