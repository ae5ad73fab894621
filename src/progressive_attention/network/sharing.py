"""Hand an image's features to each question about it.

Legend: N images, M questions, C channels, H x W cells.
"""

from typing import Any

import torch
from torch import Tensor


class AskEachQuestion(torch.autograd.Function):
    """``shared[image]`` for sorted ``image``: (N, C, H, W), the image of each question (M,) -> (M, C, H, W).

    Indexing does the same, but its backward copies through another layout; this one keeps channels last both ways.
    """

    @staticmethod
    def forward(ctx: Any, shared: Tensor, image: Tensor) -> Tensor:
        ctx.images = shared.shape[0]
        ctx.save_for_backward(image)
        # index_select alone would return, and the next convolution convert, another layout.
        return shared.permute(0, 2, 3, 1).index_select(0, image).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        rows = grad.permute(0, 2, 3, 1)
        total = rows.new_zeros((ctx.images, *rows.shape[1:]))
        return total.index_add_(0, ctx.saved_tensors[0], rows).permute(0, 3, 1, 2), None
