"""Networks as ordered stages, each ending where attention may be attached.

Legend: N images or rows, C channels, H x W cells.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

# Torch's words for branches that differ by a cell where they join, and maps that can't be cut into windows.
MISFIT = re.compile("[Ss]izes? of tensor|invalid for input of size")


class Backbone(nn.Module):
    """Ordered stages, with ``names`` and ``channels``: stage i maps (N, C_{i-1}, H, W) -> (N, C_i, H', W').

    ``norm(channels)`` builds what follows a stage's gate (nothing in pretrained networks), ``head_norm(channels)`` what
    new layers beside the stages read features through. ``pretrained``: the weights are not random ones.
    """

    def __init__(
        self,
        stages: list[nn.Module],
        names: list[str],
        channels: list[int],
        norm: Callable[[int], nn.Module] | None = None,
        head_norm: Callable[[int], nn.Module] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.names = names
        self.channels = channels
        self.norm = norm or nn.Identity
        self.head_norm = head_norm or nn.Identity
        self.query_std = 1.0 if head_norm else 0.1  # beside normalised features a smaller query is not heard at first
        self.pretrained = pretrained

    def index(self, stage: int | str, option: str = "attend_at") -> int:
        """Position of a stage given by index or name; raises ValueError naming the stages that ``option`` takes."""
        if isinstance(stage, str) and stage in self.names:
            return self.names.index(stage)
        if isinstance(stage, int) and not isinstance(stage, bool) and 0 <= stage < len(self.names):
            return stage
        known = ", ".join(f"{i} or {name!r}" for i, name in enumerate(self.names))
        raise ValueError(f"this backbone has no stage {stage!r}; {option} takes: {known}")

    def positions(self, stages: Sequence[int | str]) -> list[int]:
        """Positions of several stages; raises ValueError unless they are in order, each once."""
        places = [self.index(stage) for stage in stages]
        if places != sorted(set(places)):
            raise ValueError(f"attend_at must name stages in order, each once; got {tuple(stages)}")
        return places

    def until(self, last: int) -> tuple[nn.ModuleList, nn.ModuleList]:
        """The stages up to and with position ``last``, and a fresh norm for each; what follows is a new layer."""
        norms = [self.norm(channels) for channels in self.channels[: last + 1]]
        if isinstance(norms[-1], nn.Identity):
            norms[-1] = self.head_norm(self.channels[last])
        return nn.ModuleList(list(self.stages)[: last + 1]), nn.ModuleList(norms)

    @torch.no_grad()
    def map_sizes(self, side: int) -> list[tuple[int, int, int]]:
        """(C, H, W) behind every stage for images of ``side`` x ``side`` pixels; ValueError if they don't fit."""
        image, sizes, was_training = torch.zeros(1, 3, side, side), [], self.training
        features = image
        self.eval()  # black pixels may not enter the running averages of batch norms
        try:
            for stage in self.stages:
                features = staged(stage, features, image)
                sizes.append((features.shape[1], features.shape[2], features.shape[3]))
        finally:
            self.train(was_training)
        return sizes


def staged(stage: Callable[[Tensor], Tensor], features: Tensor, given: Tensor) -> Tensor:
    """One stage's output; raises ValueError where the images ``given``, or their features, are of no size for it."""
    try:
        return stage(features)
    except RuntimeError as error:
        got = f"{given.shape[2]} x {given.shape[3]} {'pixels' if given.shape[1] == 3 else 'cells of a stage'}"
        if "input size" in str(error):  # how torch's convolutions and poolings complain of too few pixels
            raise ValueError(
                f"image is too small for this network: got {got}, of which {features.shape[2]} x {features.shape[3]} "
                "cells are left before a stage that needs more; enlarge it, or attend at an earlier stage"
            ) from error
        if MISFIT.search(str(error)):
            raise ValueError(
                f"images of {got} don't fit this backbone ({first_line(error)}); try a multiple of 32, or another "
                "backbone such as resnet18"
            ) from error
        raise


def first_line(error: Exception) -> str:
    """What went wrong, in a line."""
    return str(error).partition("\n")[0] or type(error).__name__


def conv_stack(channels: int = 32, depth: int = 4, padding: int = 0, norm_first: bool = False) -> Backbone:
    """The papers' CNN for MREF: 3x3 convolution without padding, ReLU, 2x2 max pooling, four times.

    100 px images give maps of 49, 23, 10 and 4 cells a side. Batch norm after each gate as in the 2016 code; with
    ``norm_first`` before it, inside of the stage.
    """
    norm = partial(nn.BatchNorm2d, eps=0.01, momentum=0.5)
    stages: list[nn.Module] = []
    for i in range(depth):
        # ReLU after pooling: both keep order, so the result is the same for a quarter of the work.
        layers = [nn.Conv2d(channels if i else 3, channels, 3, padding=padding), nn.MaxPool2d(2)]
        stages.append(nn.Sequential(*layers, *[norm(channels)] * norm_first, nn.ReLU()))
    return Backbone(stages, [f"pool{i + 1}" for i in range(depth)], [channels] * depth, None if norm_first else norm)


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "conv-stack": conv_stack,
    # What the papers leave open, for the protocol study.
    "conv-stack-padded": partial(conv_stack, padding=1),
    "conv-stack-norm-first": partial(conv_stack, norm_first=True),
}


def build_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A network of ``BACKBONES``, such as the papers' ``"conv-stack"``, else timm's of that name; raises ValueError.

    ``weights``: the path of a .safetensors file with timm's names of tensors (of VGG and ResNet torchvision's are the
    same), an installed package of ``pretrained.PACKAGES``, or a name that timm knows, such as vgg16.tv_in1k; else
    random, from torch's global generator.
    """
    if name not in BACKBONES:
        from progressive_attention.network.timm_chain import timm_backbone  # only now: it builds on this module

        return timm_backbone(name, weights)
    if weights is not None:
        raise ValueError(f"backbone {name!r} has no pretrained weights, got {str(weights)!r}; choose e.g. vgg16")
    return BACKBONES[name]()
