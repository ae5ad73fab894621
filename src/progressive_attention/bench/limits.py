"""How fast the machine could be: its arithmetic and its memory, and what each part of the network asks of them.

Legend: N images, M questions, C channels, H x W cells. *Operations* are the multiplications and additions of
convolutions and matrix products (two a multiply-add), in one step; *bytes* what a part at least reads and writes if no
cache keeps it. All else (ReLU, sigmoid, comparisons) is arithmetic that a pass over memory hides. Parts follow each
other: where maps stay in a cache, or one pass does two parts' work, a step can be faster than the sum of their floors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from progressive_attention.bench.measure import interleaved
from progressive_attention.bench.plain import PlainReading, PlainScorer

Shape = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True)
class Part:
    """One pass of the network over its features: operations and bytes, forward and backward, in one step."""

    name: str
    operations: float
    bytes: float
    backward_operations: float
    backward_bytes: float


@dataclass(frozen=True)
class Limits:
    """What the machine was measured to do: operations a second in a matrix product, bytes a second in a copy."""

    operations: float
    bytes: float

    def floor(self, part: Part, training: bool) -> float:
        """Seconds that a part takes at least: arithmetic and memory may overlap, forward and backward may not."""
        seconds = max(part.operations / self.operations, part.bytes / self.bytes)
        if training:
            seconds += max(part.backward_operations / self.operations, part.backward_bytes / self.bytes)
        return seconds


def measured_limits(device: torch.device, dtype: torch.dtype, rounds: int) -> tuple[list[float], list[float], Limits]:
    """Operations a second of a large matrix product and bytes a second, read and written, of a large copy, by round.

    The limits are the best of them: what the machine has done once, it can do.
    """
    side, length = (2048, 2**28) if device.type == "cpu" else (8192, 2**31)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(length // dtype.itemsize, device=device, dtype=dtype)
    target = torch.empty_like(source)

    def finished(result: object) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    jobs = {"product": lambda: finished(left @ right), "copy": lambda: finished(target.copy_(source))}
    seconds = interleaved(jobs, rounds)
    products = [2 * side**3 / one for one in seconds["product"]]
    copies = [2 * source.nbytes / one for one in seconds["copy"]]
    return products, copies, Limits(max(products), max(copies))


# --- what each part asks for ------------------------------------------------------------------------------------------


def cells(shape: Shape) -> int:
    """Values of one map (C, H, W)."""
    return shape[0] * shape[1] * shape[2]


def product_part(
    name: str, before: Shape, after: Shape, kernel: int, rows: int, size: int, first: bool = False
) -> Part:
    """A convolution with ``kernel`` values a channel and output, or a linear layer at each location (kernel 1).

    Backward is two more: for the weights, and for what came in, unless that was the image (``first``). Each reads the
    outputs' gradients once more.
    """
    operations = 2.0 * rows * cells(after) * kernel * before[0]
    read, written = rows * cells(before) * size, rows * cells(after) * size
    weights = kernel * before[0] * after[0] * size
    forward = read + written + weights
    if first:
        return Part(name, operations, forward, operations, read + written + weights)
    return Part(name, operations, forward, 2 * operations, 2 * read + 2 * written + 2 * weights)


def gated_product_part(name: str, before: Shape, after: Shape, kernel: int, images: int, rows: int, size: int) -> Part:
    """The convolution of N images' features, gated by M maps, each tap once an image.

    Every tap's product once per image, at every cell, and for each question a sum over taps weighed by the gate.
    """
    products = 2.0 * images * before[1] * before[2] * kernel * before[0] * after[0]
    sums = 2.0 * rows * cells(after) * kernel
    gates = 4 * rows * before[1] * before[2]
    moved = images * cells(before) * size + gates + rows * cells(after) * size + kernel * before[0] * after[0] * size
    return Part(name, products + sums, moved, 2 * (products + sums), 2 * moved)


def gated_norm_part(name: str, shape: Shape, images: int, rows: int, size: int, training: bool) -> Part:
    """Batch norm before such a convolution, whose weights take it in: only the statistics need N images and M gates.

    Backward reads both, and writes the gradients of both.
    """
    moved = images * cells(shape) * size + 4 * rows * shape[1] * shape[2]
    return Part(name, 0, moved * training, 0, 2 * moved)


def pooling_part(name: str, before: Shape, after: Shape, rows: int, size: int) -> Part:
    """Max pooling with its ReLU: whole maps are read, pooled ones written; backward the other way round.

    Backward must know where each maximum was: an index of a byte a pooled cell would do.
    """
    whole, pooled = rows * cells(before), rows * cells(after)
    return Part(name, 0, (whole + pooled) * size + pooled, 0, (whole + pooled) * size + pooled)


def norm_part(name: str, shape: Shape, rows: int, size: int, training: bool) -> Part:
    """Batch norm: in training features are read for the statistics, then once more, and written; else read and written.

    Backward reads features and gradients for two sums, reads both once more, and writes.
    """
    features = rows * cells(shape) * size
    return Part(name, 0, (3 if training else 2) * features, 0, 5 * features)


def gate_part(name: str, shape: Shape, shared: int, rows: int, size: int) -> Part:
    """Eq. (1): features, of N images or M questions (``shared``), and float32 scores are read, attended ones written.

    Backward reads all of them but the scores' gradients, and writes features' and scores' gradients.
    """
    score = 4 * rows * shape[1] * shape[2]
    read, written = shared * cells(shape) * size, rows * cells(shape) * size
    return Part(name, 0, read + written + score, 0, 2 * read + written + 2 * score)


def score_part(name: str, shape: Shape, shared: int, rows: int, size: int) -> Part:
    """The scorer behind its context: query added, ReLU, one output a location. Reads N or M maps, writes M scores.

    Backward: for the weights and for the hidden layer, whose gradients are those of its N or M maps.
    """
    score = 4 * rows * shape[1] * shape[2]
    operations = 2.0 * rows * cells(shape)
    hidden = shared * cells(shape) * size
    return Part(name, operations, hidden + score, 2 * operations, 2 * hidden + score)


def after_convolution(layer: nn.Conv2d, before: Shape) -> Shape:
    """The map (C, H, W) behind a convolution."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in before[1:])
    return layer.out_channels, height, width


def folds(stage: nn.Module, shape: Shape, images: int, rows: int) -> bool:
    """Whether the gate before a stage, taken into its first convolution, saves operations."""
    layer = next(stage.children())
    assert isinstance(layer, nn.Conv2d)
    asked = "", shape, after_convolution(layer, shape), layer.kernel_size[0] ** 2
    return gated_product_part(*asked, images, rows, 1).operations < product_part(*asked, rows, 1).operations


def stage_parts(
    name: str, stage: nn.Module, shape: Shape, images: int, rows: int, size: int
) -> Iterator[tuple[Part, Shape]]:
    """Parts of a chain of convolutions, ReLUs and poolings, each with the map (C, H, W) behind it.

    Where M rows come from fewer images, the first convolution takes the gate in.
    """
    number = 0
    for layer in stage.children():
        if isinstance(layer, nn.Conv2d):
            number += 1
            after, kernel = after_convolution(layer, shape), layer.kernel_size[0] ** 2
            if number == 1 and images < rows:
                yield gated_product_part(f"{name} gated convolution", shape, after, kernel, images, rows, size), after
            else:
                what = f"{name} convolution {number}"
                yield product_part(what, shape, after, kernel, rows, size, first=shape[0] == 3), after
        elif isinstance(layer, nn.MaxPool2d):
            after = shape[0], shape[1] // 2, shape[2] // 2
            yield pooling_part(f"{name} ReLU and pooling", shape, after, rows, size), after
        else:  # it needs no pass of its own
            continue
        shape = after


def scorer_parts(name: str, scorer: PlainScorer, shape: Shape, shared: int, rows: int, size: int) -> list[Part]:
    """The context's convolution, the same for all questions of an image where maps are shared, then the score."""
    hidden = scorer.first.out_features, shape[1], shape[2]
    context = product_part(f"{name} context", shape, hidden, (2 * scorer.radius + 1) ** 2, shared, size)
    return [context, score_part(f"{name} score", hidden, shared, rows, size)]


def parts_of(plain: PlainReading, side: int, images: int, questions: int, size: int, training: bool) -> list[Part]:
    """All parts of PAN[H] for N images of ``side`` pixels and M questions; ``size`` bytes a value.

    All before the first gate is done once per image, and the convolution behind it in the way that needs the fewer
    operations. The plain reading tells the layers. Of no questions: the attention-free CNN on its trunk.
    """
    parts: list[Part] = []
    shape, rows, shared = (3, side, side), images, images
    for i, (stage, norm) in enumerate(zip(plain.stages, plain.norms, strict=True)):
        name = f"layer {i + 1}:"
        for part, behind in stage_parts(name, stage, shape, shared, rows, size):
            parts.append(part)
            shape = behind
        shared = rows
        if i in plain.attended and questions:
            rows = questions
            scorer = plain.scorers[str(i)]
            assert isinstance(scorer, PlainScorer)
            if isinstance(plain.head_norms[str(i)], nn.BatchNorm2d):
                parts.append(norm_part(f"{name} batch norm of the scorer", shape, shared, size, training))
            parts += scorer_parts(name, scorer, shape, shared, rows, size)
            if i < plain.last and not folds(plain.stages[i + 1], shape, shared, rows):
                parts.append(gate_part(f"{name} gate", shape, shared, rows, size))
                shared = rows
        if isinstance(norm, nn.BatchNorm2d):
            what = f"{name} batch norm"
            if shared < rows and i < plain.last:
                parts.append(gated_norm_part(what, shape, shared, rows, size, training))
            else:
                parts.append(norm_part(what, shape, rows, size, training))
    if not questions:
        pooled = rows * cells(shape) * size
        parts.append(Part("average pooling", 0, pooled, 0, pooled))
        shape = shape[0], 1, 1
    answers = plain.classifier.out_features, shape[1], shape[2]
    return [*parts, product_part("head", shape, answers, 1, rows, size)]


def operations(parts: list[Part], training: bool) -> float:
    """Of all parts together, in one step."""
    return sum(part.operations + training * part.backward_operations for part in parts)


def floors(parts: list[Part], limits: Limits, training: bool) -> tuple[float, dict[str, dict[str, Any]]]:
    """Seconds that all parts take at least, one after the other, and what each asks for, as a report tells it."""
    total, told = sum(limits.floor(part, training) for part in parts), {}
    for part in parts:
        seconds = limits.floor(part, training)
        wanted, moved = operations([part], training), part.bytes + training * part.backward_bytes
        told[part.name] = {
            "operations": wanted,
            "bytes": moved,
            "bound": "arithmetic" if wanted / limits.operations > moved / limits.bytes else "memory",
            "floor_ms": 1e3 * seconds,
            "share_of_floor": seconds / total,
        }
    return total, told
