"""Spatial transformers asked a question: where to crop, turn and scale (Jaderberg et al., NeurIPS 2015).

Legend: N images or rows, M questions, C channels, H x W cells, D features of the localisation network.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_attention.network.equations import at_least_float32, query_layer


class Localiser(nn.Module):
    """Localisation network's head: a two-layer perceptron on [what the image shows, query], giving an affine map.

    It starts as the identity, whatever the image and the query: section 3.1 of the reference has no rule, its code has.
    What then moves it first is the query, whose part starts large, and not what the image shows, whose part starts from
    nothing: while features do not tell objects apart yet, views that follow them only blur the question.
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

    Coordinates run from -1 to 1 over the outer edges of the map's cells. No matrix product: autocast would round it to
    bfloat16, which misplaces by up to half a cell.
    """
    x = (2 * torch.arange(width, device=transform.device, dtype=transform.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=transform.device, dtype=transform.dtype) + 1) / height - 1
    by_x, by_y, shift = transform[:, None, None].unbind(-1)  # (M, 1, 1, 2) each
    return by_x * x[:, None] + by_y * y[:, None, None] + shift


class ChannelsLast(torch.autograd.Function):
    """Features and their gradient, channels last: ``grid_sample`` hands on either in the other layout, in which the
    norms beside it take several times as long.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0].contiguous(memory_format=torch.channels_last)


def transformed(features: Tensor, transform: Tensor) -> Tensor:
    """Features sampled bilinearly where the affine map says, zeros outside: (M, C, H, W), (M, 2, 3) -> (M, C, H, W).

    Eq. (5), of the features in the precision of the coordinates.
    """
    grid = sampled_at(transform, *features.shape[2:])
    sampled = F.grid_sample(ChannelsLast.apply(features.to(grid.dtype)), grid, align_corners=False)
    return ChannelsLast.apply(sampled.to(features.dtype))
