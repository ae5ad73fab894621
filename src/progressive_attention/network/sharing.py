"""What the questions about one image share: its features, and the convolution behind its first gate.

Legend: N images, K questions per image at most, M questions in all, C channels in, O channels out, H x W cells,
H' x W' cells behind a convolution, T taps of its kernel.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

from progressive_attention.one_batch import moments_of_all

SHARED_FROM = 5  # questions an image from which on sharing a convolution pays (benchmarks/NOTES.md)
CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.ReLU, nn.Identity)  # each channel by itself, and all of them alike


class AskEachQuestion(torch.autograd.Function):
    """``shared[image]`` for sorted ``image``: hand an image's features to each of its questions.

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


class GatedConvolution(torch.autograd.Function):
    """The convolution of every question's gated features, (N, C, H, W) and (N, K, H, W) -> (N, K O, H', W').

    A convolution is linear, and a gate has no channels: Σ_t W_t (α f)(p + t) = Σ_t α(p + t) (W_t f)(p + t). So each
    tap's product with the features is computed once per image, and a question costs a sum of T products, not of T C.
    ``weight`` is (O, C, h, w), ``offset`` (1, O, H', W') what is added for every question. No padding. Channels last.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, attention: Tensor, weight: Tensor, offset: Tensor, stride: tuple[int, int]
    ) -> Tensor:
        images, channels, height, width = features.shape
        outputs, _, *kernel = weight.shape
        rows, columns = offset.shape[2:]
        taps = met_by_taps(kernel, stride, rows, columns)
        pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
        kernels = weight.permute(1, 2, 3, 0).reshape(channels, -1)
        products = (pixels @ kernels).view(images, height, width, len(taps), outputs)
        maps = attention.permute(0, 2, 3, 1)
        near = features.new_empty(images, rows, columns, len(taps) + 1, outputs)
        gates = features.new_ones(images, rows, columns, attention.shape[1], len(taps) + 1)
        for tap, cells in enumerate(taps):
            near[..., tap, :] = products[cells][..., tap, :]
            gates[..., tap] = maps[cells]
        near[..., -1, :] = offset.permute(0, 2, 3, 1)
        ctx.save_for_backward(pixels, kernels, near, gates)
        ctx.shape, ctx.kernel, ctx.taps = (images, height, width), kernel, taps
        output = channels_last(features, (images, attention.shape[1] * outputs, rows, columns))
        where = output.permute(0, 2, 3, 1).view(-1, attention.shape[1], outputs)
        torch.bmm(gates.flatten(0, 2), near.flatten(0, 2), out=where)
        return output

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override] (the decorator's ctx has no name)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        pixels, kernels, near, gates = ctx.saved_tensors
        questions, outputs = gates.shape[3], near.shape[-1]
        grad = grad_outputs[0].permute(0, 2, 3, 1).reshape(-1, questions, outputs)
        of_near = torch.bmm(gates.flatten(0, 2).mT, grad).view_as(near)
        of_gates = torch.bmm(grad, near.flatten(0, 2).mT).view_as(gates)
        of_products = near.new_zeros(*ctx.shape, len(ctx.taps), outputs)
        of_maps = near.new_zeros(*ctx.shape, questions, dtype=torch.promote_types(near.dtype, torch.float32))
        for tap, cells in enumerate(ctx.taps):
            of_products[cells][..., tap, :] = of_near[..., tap, :]
            of_maps[cells] += of_gates[..., tap]
        of_products = of_products.view(len(pixels), -1)
        of_pixels = (of_products @ kernels.T).view(*ctx.shape, -1).permute(0, 3, 1, 2)
        of_kernels = (pixels.T @ of_products).view(-1, *ctx.kernel, outputs).permute(3, 0, 1, 2)
        of_offset = of_near[..., -1, :].sum(0, keepdim=True).permute(0, 3, 1, 2)
        return of_pixels, of_maps.permute(0, 3, 1, 2), of_kernels, of_offset, None


def channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Room for a function's output. Were that a view of something, layers that work in place (VGG's ReLU) could not
    follow.
    """
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def met_by_taps(kernel: list[int], stride: tuple[int, int], rows: int, columns: int) -> list[tuple[slice, ...]]:
    """For every tap of a kernel, row by row, the cells of maps (N, H, W, ...) that it meets."""
    return [
        (slice(None), slice(i, i + stride[0] * rows, stride[0]), slice(j, j + stride[1] * columns, stride[1]))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def gated_moments(features: Tensor, gates: Tensor, questions: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all questions' gated features: (N, C, H, W), (N, K, H, W) -> (C,), (C,).

    Gates of the K that are not asked must be zero; ``questions`` counts those that are. Σ_k (α_k f)² = f² Σ_k α_k², so
    no question's features are needed.
    """
    flat = features.permute(0, 2, 3, 1).flatten(0, 2).to(gates.dtype)
    count = questions * features.shape[2] * features.shape[3]
    with torch.autocast(features.device.type, enabled=False):  # sums of many small numbers
        mean = gates.sum(1).flatten() @ flat / count
        square = gates.square().sum(1).flatten() @ flat.square() / count
    return mean, (square - mean.square()).clamp(min=0)


def scale_and_shift(norm: nn.BatchNorm2d, features: Tensor, gates: Tensor, questions: int) -> tuple[Tensor, Tensor]:
    """What a batch norm does to each channel of the gated features, (C,) and (C,); in training it learns its averages.

    Arguments as ``gated_moments``. Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    if norm.training:
        average, count = (mean, variance), questions * features.shape[2] * features.shape[3]
        mean, variance, count = moments_of_all(*gated_moments(features, gates, questions), count)
        with torch.no_grad():
            average[0].lerp_(mean, norm.momentum)
            average[1].lerp_(variance * (count / (count - 1)), norm.momentum)
            norm.num_batches_tracked += 1
    scale = (variance + norm.eps).rsqrt() * norm.weight
    return scale, norm.bias - mean * scale


def scales_and_shifts(norm: nn.Module) -> bool:
    """Whether ``scale_and_shift`` can stand for this norm."""
    if not isinstance(norm, nn.BatchNorm2d) or type(norm).forward is not nn.BatchNorm2d.forward:
        return False
    return norm.affine and norm.track_running_stats and norm.momentum is not None


def shares_convolution(stage: nn.Module, norm: nn.Module, features: Tensor, questions: int) -> TypeGuard[nn.Sequential]:
    """Whether ``gated_stage`` can do this stage, and pays: not for few questions, nor (nobody measured it) on a GPU."""
    first = next(iter(stage.children()), None)
    return (
        isinstance(stage, nn.Sequential)
        and isinstance(first, nn.Conv2d)
        and type(first).forward is nn.Conv2d.forward  # else a subclass computes something else
        and first.groups == 1
        and first.dilation == (1, 1)
        and first.padding_mode == "zeros"
        and not isinstance(first.padding, str)
        and (type(norm) is nn.Identity or scales_and_shifts(norm))
        and features.device.type == "cpu"
        and questions >= max(1, SHARED_FROM * len(features))  # none where all are another process's
    )


def gated_stage(stage: nn.Sequential, norm: nn.Module, features: Tensor, attention: Tensor, image: Tensor) -> Tensor:
    """The stage behind the first gate: (N, C, H, W), attention (M, H, W), sorted image of each (M,) -> (M, O, H', W').

    Equals ``stage(norm(attend(features[image], attention)))``, the norm's averages included.
    """
    convolution, *layers = stage
    assert isinstance(convolution, nn.Conv2d)
    assert not isinstance(convolution.padding, str)
    gates, place = side_by_side(attention, image, len(features))
    weight, shift = convolution.weight, features.new_zeros(features.shape[1])
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = scale_and_shift(norm, features, gates, len(image))
        weight = weight * scale[:, None, None]
    # The shift is no feature's: it passes the convolution once for all, and stops at the borders as it would have.
    shifted = shift.to(weight.dtype)[None, :, None, None].expand(-1, -1, *features.shape[2:])
    offset = conv2d(shifted, convolution.weight, convolution.bias, convolution.stride, convolution.padding)
    down, across = convolution.padding
    border = (across, across, down, down)
    features, gates = pad(features, border), pad(gates.to(features.dtype), border)
    weight, offset = weight.to(features.dtype), offset.to(features.dtype)
    output = GatedConvolution.apply(features, gates, weight, offset, convolution.stride)
    while layers and type(layers[0]) in CHANNELWISE:  # before the questions part: smaller, and no copy
        output = layers.pop(0)(output)
    output = Apart.apply(output, place, gates.shape[1])
    for layer in layers:
        output = layer(output)
    return output


def side_by_side(attention: Tensor, image: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Maps (M, H, W) of sorted images (M,) -> (N, K, H, W), zero where one has fewer, and their places (M,) in N K."""
    counts = image.bincount(minlength=images)
    first = counts.cumsum(0) - counts
    most = int(counts.max())
    place = image * most + torch.arange(len(image), device=image.device) - first[image]
    if len(image) == images * most:
        return attention.unflatten(0, (images, most)), place
    maps = attention.new_zeros(images * most, *attention.shape[1:]).index_copy(0, place, attention)
    return maps.unflatten(0, (images, most)), place


class Apart(torch.autograd.Function):
    """Questions side by side in an image's channels become rows: (N, K O, H, W), places (M,) -> (M, O, H, W).

    Channels last both ways; the backward of indexing would not be.
    """

    @staticmethod
    def forward(ctx: Any, together: Tensor, place: Tensor, questions: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.shape = (len(together), questions)
        rows = together.permute(0, 2, 3, 1).unflatten(-1, (questions, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        output = channels_last(together, (len(place), rows.shape[3], *rows.shape[1:3]))
        torch.index_select(rows, 0, place, out=output.permute(0, 2, 3, 1))
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        rows = grad_outputs[0].permute(0, 2, 3, 1)
        (place,), (images, questions) = ctx.saved_tensors, ctx.shape
        if len(place) < images * questions:
            rows = rows.new_zeros(images * questions, *rows.shape[1:]).index_copy_(0, place, rows)
        together = rows.unflatten(0, (images, questions)).permute(0, 2, 3, 1, 4).flatten(3)
        return together.permute(0, 3, 1, 2), None, None
