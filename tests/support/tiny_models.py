"""Small models and pictures that the tests of networks share.

62 px is the smallest side that leaves the papers' network more than one cell (2 x 2) to choose from in its last map.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from progressive_attention.config import MODELS
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import Prediction
from progressive_attention.network.spatial_transformer import Localiser
from progressive_attention.training.objectives import answer_loss

QUERIES, ATTRIBUTES, PIXELS = 5, 3, 62
SIDES = [30, 14, 6, 2]
PADDED_SIDES = [31, 15, 7, 3]
EXACT = {"rtol": 0, "atol": 1e-10}
BY_TEXT = " by text"  # behind a model's name: its queries have vectors
NAMES = [
    *MODELS,
    *(f"{one}{BY_TEXT}" for one in ("pan-hard-ctx", "stn-s", "concat", "pooled", "film", "cbam", "cross-attention")),
]
ROWS = {name: MODELS[name.removesuffix(BY_TEXT)] for name in NAMES}
SCORING = [name for name, row in ROWS.items() if row.get("network", "pan") == "pan"]  # every location, into maps
every_model = pytest.mark.parametrize("name", NAMES)
every_likelihood = pytest.mark.parametrize("likelihood", ["softmax", "bernoulli"])
every_scoring_model = pytest.mark.parametrize("name", SCORING)


def build(name: str, seed: int = 0, **changes):
    """A small float64 model with norms, running averages and transformers unlike their initial values."""
    torch.manual_seed(seed)
    changes = {"hidden": 4, "image_size": PIXELS, **changes}
    if name.endswith(BY_TEXT):
        changes["query_vectors"] = F.normalize(torch.randn(QUERIES, 7))
    model = build_model(name.removesuffix(BY_TEXT), num_queries=QUERIES, num_attributes=ATTRIBUTES, **changes).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.normal_()
        if isinstance(module, Localiser):
            module.context.reset_parameters()
            module.affine.weight.data.normal_(std=0.1)
            # By no round numbers: those would sample exactly on cells, where bilinear interpolation has a kink.
            module.affine.bias.data += math.pi * torch.tensor([-0.06, 0.03, 0.02, -0.03, -0.06, 0.03])
    return model


def pictures(count: int, seed: int = 0, pixels: int = PIXELS) -> torch.Tensor:
    return torch.rand(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(prediction: Prediction, attribute: torch.Tensor) -> torch.Tensor:
    """Of attribute ids (B, K), -1 where nothing is asked; under bernoulli each is the only one that is there."""
    if prediction.likelihood == "softmax":
        return answer_loss(prediction.logit, attribute)
    asked = attribute >= 0
    there = F.one_hot(attribute[asked], ATTRIBUTES).to(prediction.logit.dtype)
    return F.binary_cross_entropy_with_logits(prediction.logit[asked], there)


def flat(prediction: Prediction) -> list[torch.Tensor]:
    return [prediction.logit, *prediction.attention, *prediction.magnitude, *prediction.transform]


def sides(name: str) -> list[int]:
    """Of the attention maps."""
    if name.removesuffix(BY_TEXT) == "pooled":  # Grad-CAM's
        return SIDES[-1:]
    if name not in SCORING:
        return []
    own = PADDED_SIDES if "backbone" in ROWS[name] else SIDES
    return own[-1:] if ROWS[name].get("only") == "last" else own
