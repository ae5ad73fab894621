"""Spatial transformers asked a question: where to crop, turn and scale (Jaderberg et al., NeurIPS 2015).

Legend: N images or rows, M questions, C channels, H x W cells, D features of the localisation network.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, build_backbone, staged
from progressive_attention.network.equations import at_least_float32
from progressive_attention.network.question_network import Baseline, Prediction, for_each_question
from progressive_attention.network.scorers import QueryPrior, query_layer


class Localiser(nn.Module):
    """Localisation network's head: a two-layer perceptron on [what the image shows, query], giving an affine map.

    It starts as the identity, as in the reference's code. The query moves it first, for its part starts large and that
    of the image from nothing: views that follow features blur the question while these cannot distinguish objects yet.
    """

    def __init__(self, features: int, num_queries: int, hidden: int = 32, query_size: int = 0) -> None:
        super().__init__()
        self.context = nn.Linear(features, hidden, bias=False)  # each query brings its own
        self.query = query_layer(num_queries, query_size, hidden)
        self.affine = nn.Linear(hidden, 6)
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, shown: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """(M, D), queries as a scorer's -> affine maps (M, 2, 3); with ``image`` (M,) ``shown`` is that of N images."""
        hidden = self.context(shown)
        if image is not None:
            hidden = hidden[image]
        hidden = (hidden + self.query(query).to(hidden.dtype)).relu()
        return at_least_float32(self.affine(hidden)).view(-1, 2, 3)


def sampled_at(transform: Tensor, height: int, width: int) -> Tensor:
    """Where each cell of the output is sampled: affine maps (M, 2, 3) -> (M, H, W, 2), x before y. Eq. (1).

    Coordinates run from -1 to 1 over the map's outer edges. No matrix product, which autocast would round to bfloat16.
    """
    x = (2 * torch.arange(width, device=transform.device, dtype=transform.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=transform.device, dtype=transform.dtype) + 1) / height - 1
    by_x, by_y, shift = transform[:, None, None].unbind(-1)  # (M, 1, 1, 2) each
    return by_x * x[:, None] + by_y * y[:, None, None] + shift


class ChannelsLast(torch.autograd.Function):
    """Features and their gradient, channels last: in ``grid_sample``'s layout the norms beside it take far longer."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0].contiguous(memory_format=torch.channels_last)


def transformed(features: Tensor, transform: Tensor) -> Tensor:
    """Features sampled bilinearly, zeros outside: (M, C, H, W), affine maps (M, 2, 3) -> (M, C, H, W). Eq. (5)."""
    grid = sampled_at(transform, *features.shape[2:])
    sampled = F.grid_sample(ChannelsLast.apply(features.to(grid.dtype)), grid, align_corners=False)
    return ChannelsLast.apply(sampled.to(features.dtype))


class SpatialTransformerNetwork(Baseline):
    """A query-conditioned spatial transformer before each attended stage: of the first, STN-S; of all, STN-M.

    Each transformer's localisation network has the architecture of the stages still to come, weights of its own (which
    start as a pretrained backbone's, as in section 4.3 of the reference), and the query in its head. The prior fuses
    the flattened last map into as many units as that has channels. Raises ValueError for a backbone that is not
    ``config.backbone``'s.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.skippable = self.attended[0]
        self.localisation = nn.ModuleDict()
        self.localisers = nn.ModuleDict()
        for i in self.attended:
            other = deepcopy(backbone) if backbone.pretrained else build_backbone(config.backbone)
            if (other.names, other.channels) != (backbone.names, backbone.channels):
                raise ValueError(
                    f"the backbone has stages {backbone.names} of {backbone.channels} channels, the localisation "
                    f"networks of {config.backbone!r} {other.names} of {other.channels}; register yours in BACKBONES, "
                    "and put its name into the configuration"
                )
            stages, norms = other.until(len(other.stages) - 1)
            layers = [layer for pair in zip(stages, norms, strict=True) for layer in pair]
            self.localisation[str(i)] = nn.Sequential(*layers[2 * i :], nn.Flatten())
            self.localisers[str(i)] = Localiser(self.flattened, config.num_queries, config.hidden, config.query_size)
        self.prior = None
        if config.prior:
            units = self.channels[-1]
            self.prior = QueryPrior(self.flattened, units, config.num_queries, config.query_size)
            self.classifier = nn.Linear(units, config.num_attributes)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        features = self.run_trunk(image, skip, self.skippable)  # (N, C, H, W), soon (M, C, H, W)
        transforms: list[Tensor] = []
        for i in range(self.attended[0], len(self.stages)):
            if i in self.attended:
                shared = i == self.attended[0]  # by all questions about an image
                shown = staged(self.localisation[str(i)], features, image)
                transforms.append(self.localisers[str(i)](shown, question, of_image if shared else None))
                if shared:
                    features = for_each_question(features, of_image)
                features = transformed(features, transforms[-1])
            features = self.norms[i](staged(self.stages[i], features, image))
        flat = features.flatten(1)
        if self.prior is not None:
            flat = self.prior(flat[..., None, None], question).flatten(1)
        return Prediction(self.classified(flat), [], [], tuple(transforms))
