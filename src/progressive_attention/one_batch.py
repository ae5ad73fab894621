"""One batch dealt out to several processes: counts, norms and gradients are those of the whole.

Each process minimises its own part of the whole's loss, so sums over processes have sums as gradients. Alone, every
function here gives back what it was given. Legend: P processes, C channels, N images or rows, H x W cells.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from progressive_attention.processes import exchange, group, rank, world

LONE = (
    "in training a batch norm needs two questions at a time, got 1; ask more at once (a larger batch), or call .eval()"
)


class SumOverProcesses(torch.autograd.Function):
    """Sum of what each process has; what each has changes everyone's sum, so everyone's gradients add up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        with exchange():
            group().all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return summed(grad_outputs[0])


def summed(values: Tensor) -> Tensor:
    """Sum over processes of values of one shape, gradients included."""
    return values if world() == 1 else SumOverProcesses.apply(values)


def sum_gradients(model: nn.Module, loss: Tensor) -> Tensor:
    """Give each process the sum of all gradients, in place; returns the sum of the losses.

    One exchange of all at once: the papers' network has 60,000 weights, a VGG-16's 60 MB take a small part of its step.
    """
    if world() == 1:
        return loss.detach()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = summed(torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().reshape(1)]))
    *parts, total = flat.split([*(gradient.numel() for gradient in gradients), 1])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return total[0]


def moments_of_all(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor | int]:
    """Mean and variance (C,) of ``count`` values a channel -> those of all processes' values, and their count.

    A process without values counts nothing. Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979.
    """
    if world() == 1:
        return mean, variance, count
    own = torch.cat([mean, variance, mean.new_tensor([count])])
    everyones = summed(F.pad(own[None], (0, 0, rank(), world() - rank() - 1)))  # (P, 2 C + 1)
    means, variances, counts = everyones.split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, variance, total


def batch_norm(
    features: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch's function of this name, (N, C, ...) -> (N, C, ...), of the batch of all processes.

    Ioffe and Szegedy, "Batch Normalization", ICML 2015. torch's own SyncBatchNorm needs GPUs. Raises ValueError, in all
    processes, where they have one value a channel together: that has no variance.
    """
    if not training:
        return F.batch_norm(features, running_mean, running_var, weight, bias, False, momentum, eps)
    over = [0, *range(2, features.ndim)]
    values = features.to(torch.promote_types(features.dtype, torch.float32))
    own = features.numel() // features.shape[1]
    mean = values.sum(over) / max(1, own)
    variance = (values - per_channel(mean, values)).square().sum(over) / max(1, own)
    mean, variance, count = moments_of_all(mean, variance, own)
    if own < 2 and count < 2:  # who has two need not fetch the count
        raise ValueError(LONE)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt() if weight is None else (variance + eps).rsqrt() * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return (values * per_channel(scale, values) + per_channel(shift, values)).to(features.dtype)


def per_channel(values: Tensor, features: Tensor) -> Tensor:
    """(C,) -> (C, 1, ...), to stand beside features (N, C, ...)."""
    return values.view(-1, *[1] * (features.ndim - 2))


class NormsOfAll(TorchFunctionMode):
    """Within, batch norms see the batch of all processes: whatever module calls torch's ``batch_norm``, timm's too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def norms_of_all() -> AbstractContextManager:
    """``NormsOfAll`` where there are several processes."""
    return nullcontext() if world() == 1 else NormsOfAll()
