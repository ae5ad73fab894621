"""Receptive fields against the input gradient of a linear copy of the network."""

import copy
from functools import lru_cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from progressive_attention.config import ModelConfig
from progressive_attention.maps.receptive_field import Field, behind, geometry
from progressive_attention.maps.stage_graph import LAST, steps_of
from progressive_attention.network.backbone import Backbone, build_backbone, conv_stack
from progressive_attention.network.build import build_model
from progressive_attention.network.pan import ProgressiveAttentionNetwork


class OnesConv(nn.Module):
    """A convolution's geometry alone: one channel, all weights the same and positive."""

    def __init__(self, conv):
        super().__init__()
        self.options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        self.weight = torch.full((1, 1, *conv.kernel_size), 1 / conv.weight[0, 0].numel(), dtype=torch.float64)

    def forward(self, x):
        return F.conv2d(x.mean(1, keepdim=True), self.weight, **self.options)


def linear_copy(module):
    """The same graph of average poolings, positive convolutions, sums and products, and nothing else."""
    if isinstance(module, nn.Conv2d):
        return OnesConv(module)
    if isinstance(module, nn.MaxPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.Dropout | nn.Sigmoid):
        return nn.Identity()
    twin = copy.copy(module)
    twin._modules = {name: linear_copy(child) for name, child in module.named_children()}
    return twin


def seen(twins, size, cell):
    """First and last row, first and last column that a cell (row, column) sees, and how many pixels in all."""
    image = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    features = nn.Sequential(*twins)(image)
    (gradient,) = torch.autograd.grad(features[0, :, cell[0], cell[1]].sum(), image)
    at = (gradient[0, 0] > 0).nonzero()
    return [(int(axis.min()), int(axis.max())) for axis in at.T if len(at)], len(at)


def stated(field, cell):
    return field.low + cell * field.stride, field.high + cell * field.stride


def clipped(field, cell, pixels):
    return max(0, stated(field, cell)[0]), min(pixels - 1, stated(field, cell)[1])


def only(stage):
    """A network of one attended stage."""
    return ProgressiveAttentionNetwork(ModelConfig(2, 2, attend_at=(0,)), Backbone([stage], ["only"], [3]))


def fields_of(stages, size=(128, 128)):
    steps, _ = steps_of(nn.Sequential(*stages), size)
    return tuple(behind(steps, Field(), axis) for axis in (0, 1))


@lru_cache
def timm_stages(name):
    pytest.importorskip("timm")
    return list(build_backbone(name).eval().stages)


def test_papers_network_by_hand():
    where = geometry(build_model("pan-hard-ctx", num_queries=10, num_attributes=5))
    assert where.image_size == (100, 100)
    by_hand = [Field(2, 0, 3), Field(4, 0, 9), Field(8, 0, 21), Field(16, 0, 45)]
    assert where.fields == [(field, field) for field in by_hand]
    assert [field.size for field, _ in where.fields] == [4, 10, 22, 46]
    assert [by_hand[-1].centre(cell) for cell in range(4)] == [22.5, 38.5, 54.5, 70.5]
    assert [field.centre(0) for field in by_hand] == [1.5, 4.5, 10.5, 22.5]
    model = build_model("han", num_queries=10, num_attributes=5)  # attends at its last layer only
    assert geometry(model, (80, 120)) == ([(Field(16, 0, 45), Field(16, 0, 45))], (80, 120), (), ())
    assert geometry(only(nn.MaxPool2d((3, 1), 1))).fields == [(Field(1, 0, 2), Field(1, 0, 0))]  # rows, columns


@pytest.mark.parametrize("depth, cells", [(1, 49), (2, 23), (3, 10), (4, 4)])
def test_conv_stack_sees_what_is_said(depth, cells):
    stages = list(conv_stack().stages)[:depth]
    twins = [linear_copy(stage) for stage in stages]
    field, _ = fields_of(stages)
    for cell in {(0, 0), (0, cells - 1), (cells - 1, cells // 2), (cells // 2, 1)}:
        hulls, count = seen(twins, (100, 100), cell)
        assert hulls == [stated(field, at) for at in cell]
        assert count == field.size**2


NETWORKS = [
    ("vgg16", 5, 224, [0, 3, 6]),
    ("resnet18", 1, 64, [0, 9, 31]),
    ("resnet18", 5, 448, [0, 6, 7, 13]),
    ("densenet121", 3, 288, [0, 17, 18, 35]),
]


@pytest.mark.parametrize("name, depth, side, cells", NETWORKS)
def test_timm_networks_see_what_is_said(name, depth, side, cells):
    stages = timm_stages(name)[:depth]
    twins = [linear_copy(stage) for stage in stages]
    rows, columns = fields_of(stages)
    assert rows == columns
    assert not rows.whole
    inside = 0
    for row, column in zip(cells, reversed(cells), strict=True):
        hulls, _ = seen(twins, (side, side), (row, column))
        assert hulls == [clipped(rows, row, side), clipped(columns, column, side)]
        inside += hulls[0] == stated(rows, row)
    assert inside, "no cell of this test sees all that it could: choose a larger image"


def test_squeeze_and_excite_sees_everything():
    stages = timm_stages("seresnet18")[:2]
    assert [fields_of(stages[:depth])[0].whole for depth in (1, 2)] == [False, True]
    rows, columns = fields_of(stages)
    twins = [linear_copy(stage) for stage in stages]
    assert seen(twins, (96, 96), (12, 0)) == ([(0, 95), (0, 95)], 96 * 96)
    for block in twins[1].modules():
        if getattr(block, "se", None) is not None:
            block.se = nn.Identity()
    hulls, _ = seen(twins, (96, 96), (12, 0))
    assert hulls == [clipped(rows, 12, 96), clipped(columns, 0, 96)]
    assert rows._replace(whole=False) == fields_of(timm_stages("resnet18")[:2])[0]


@st.composite
def layers(draw):
    """A convolution or a pooling, different along the two axes."""

    def pair(least, most):
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    kind, how = draw(st.sampled_from(["conv", "conv", "max", "avg"])), draw(st.sampled_from(["", "", "same", "valid"]))
    kernel, stride, padding, ceil = pair(1, 5), pair(1, 3), pair(0, 2), draw(st.booleans())
    if kind == "conv":
        return nn.Conv2d(1, 1, kernel, (1, 1) if how == "same" else stride, how or padding, pair(1, 2))
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))  # torch's limit
    return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(kernel, stride, padding, ceil_mode=ceil)


@settings(max_examples=60, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=3), st.data())
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_random_stacks_see_what_is_said(stack, data):
    size = (67, 90)
    twins = [linear_copy(layer) for layer in stack]
    try:
        shape = tuple(nn.Sequential(*twins)(torch.zeros(1, 1, *size, dtype=torch.float64)).shape[2:])
    except RuntimeError as error:
        assume("size" not in str(error))  # nothing is left of the image
        raise
    assert steps_of(nn.Sequential(*stack), size)[1] == shape
    cell = [data.draw(st.integers(0, n - 1)) for n in shape]
    hulls, count = seen(twins, size, cell)
    says = [stated(field, at) for field, at in zip(fields_of(stack, size), cell, strict=True)]
    inside = [low >= 0 and high < pixels for (low, high), pixels in zip(says, size, strict=True)]
    assert count or not all(inside)  # a cell may see nothing but padding
    for (low, high), hull, interior, pixels in zip(says, hulls, inside, size, strict=bool(count)):
        if interior:
            assert hull == (low, high)
        else:  # at the border, padding between two layers may hide what a cell could see
            assert max(0, low) <= hull[0] <= hull[1] <= min(pixels - 1, high)


class Branches(nn.Module):
    """Several ways through, joined by a function."""

    def __init__(self, join, *ways):
        super().__init__()
        self.join, self.ways = join, nn.ModuleList(ways)

    def forward(self, x):
        return self.join(*[way(x) for way in self.ways])


def test_branches_see_together():
    ways = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, (7, 1), padding=(3, 0)), nn.Identity()

    def joined(join, *ways, axis=0):
        return behind(steps_of(Branches(join, *ways), (9, 9))[0], Field(), axis)

    assert joined(lambda *x: torch.cat(x, 1), *ways) == Field(1, -3, 3)
    assert joined(lambda *x: torch.cat(x, dim=-3), *ways, axis=1) == Field(1, -1, 1)
    assert joined(lambda a, b, c: a + b * c, *ways) == Field(1, -3, 3)
    assert joined(lambda a: a * a.mean(1, keepdim=True).sigmoid(), ways[0]) == Field(1, -1, 1)
    assert joined(lambda a: a * a.mean((2, 3), keepdim=True).sigmoid(), ways[0]) == Field(1, -1, 1, True)
    assert joined(lambda a: a * F.adaptive_avg_pool2d(a, output_size=[1, 1]), ways[0]) == Field(1, -1, 1, True)
    assert joined(lambda a: a.to(a.device, a.dtype) * a.size(1) / a.shape[1] / a.dim() / a.ndim, ways[0]) == Field(
        1, -1, 1
    )
    assert joined(lambda a: torch.cat([a.split(2, 1)[0], torch.chunk(a, 2, dim=1)[1]], 1), ways[0]) == Field(1, -1, 1)
    assert joined(lambda a: a.split(2, dim=1)[0] + a[:, 2:] + a[:, ::2, :, :], ways[0]) == Field(1, -1, 1)
    assert fields_of([ways[0], nn.AdaptiveMaxPool2d((1, 1)), nn.Conv2d(1, 1, 1, 2)]) == (Field(0, 0, 0, True),) * 2
    assert fields_of([nn.BatchNorm2d(4), nn.GELU()])[0] == Field()  # other norms than this see all of an image
    assert fields_of([nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 3)])[0] == Field(1, 0, 2, True)
    assert fields_of([nn.GroupNorm(1, 4)])[0] == fields_of([nn.LayerNorm((4, 9, 9))])[0] == Field(1, 0, 0, True)


def test_features_may_stand_with_channels_last():
    def turned(join, *ways):
        return fields_of([nn.Conv2d(1, 4, 3, padding=1), Branches(join, *ways)])[0]

    norm, linear = nn.LayerNorm(4), nn.Linear(4, 4)
    assert turned(lambda a: (a * 2).permute(0, 3, 1, 2), Turned(LAST, norm, linear, nn.GELU())) == Field(1, -1, 1)
    assert turned(lambda a: a.permute((0, 2, 3, 1)).relu().permute(dims=(0, 3, 1, 2)), nn.Identity()) == Field(1, -1, 1)
    seen_whole = turned(lambda a: (a * a.norm(p=2, dim=(1, 2), keepdim=True)).permute(0, 3, 1, 2), Turned(LAST, norm))
    assert seen_whole == Field(1, -1, 1, True)
    assert turned(lambda a: (a * a.mean(-1, keepdim=True)).permute(0, 3, 1, 2), Turned(LAST, linear)) == Field(1, -1, 1)
    assert turned(lambda a: torch.cat(a.split(2, -1), -1).permute(0, 3, 1, 2), Turned(LAST, norm)) == Field(1, -1, 1)


class Turned(nn.Sequential):
    """Layers behind a turn of N, C, H, W to these axes."""

    def __init__(self, axes, *layers):
        super().__init__(*layers)
        self.axes = axes

    def forward(self, input):
        return super().forward(input.permute(self.axes))


def positive_copy(module):
    """The same graph with all channels, so that they may be split: positive weights, nothing that is not linear."""
    twin = copy.deepcopy(module).double()
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data.fill_(1 / layer.weight[0].numel())
            layer.bias = None
        elif isinstance(layer, nn.MaxPool2d):
            twin.set_submodule(name, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode))
        elif isinstance(layer, nn.LayerNorm | nn.BatchNorm2d | nn.GELU | nn.ReLU | nn.SiLU | nn.Sigmoid):
            twin.set_submodule(name, nn.Identity())
    for name, scale in twin.named_parameters():
        if name.endswith("gamma"):
            scale.data.fill_(1.0)
    return twin


@pytest.mark.parametrize(
    ("name", "depth", "side", "cells"),
    [
        ("test_convnext", 2, 144, [0, 8, 17]),
        ("cs3darknet_s", 3, 128, [0, 7, 15]),
        ("res2net50_26w_4s", 2, 128, [0, 15, 31]),
        ("efficientnet_lite0", 3, 224, [0, 13, 27]),
        ("tf_efficientnet_lite0", 4, 400, [0, 12, 24]),  # padded by the size of each map, as TensorFlow does
        ("tf_efficientnet_lite0", 3, 150, [0, 9, 18]),
        ("mobilenetv2_100", 3, 96, [0, 5, 11]),
        ("tf_mixnet_s", 1, 63, [0, 15, 31]),
    ],
)
def test_networks_that_turn_split_or_pad_their_features_see_what_is_said(name, depth, side, cells):
    stages = timm_stages(name)[:depth]
    rows, columns = fields_of(stages, (side, side))
    assert rows == columns
    assert not rows.whole
    twins = [positive_copy(stage) for stage in stages]
    image = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    features, inside = nn.Sequential(*twins)(image), 0
    for row, column in zip(cells, reversed(cells), strict=True):
        (gradient,) = torch.autograd.grad(features[0, :, row, column].sum(), image, retain_graph=True)
        at = (gradient[0].sum(0) > 0).nonzero()
        hulls = [(int(axis.min()), int(axis.max())) for axis in at.T]
        assert hulls == [clipped(rows, row, side), clipped(columns, column, side)]
        inside += hulls[0] == stated(rows, row)
    assert inside, "no cell of this test sees all that it could: choose a larger image"


class OwnPadding(nn.Conv2d):
    """Declares no padding, then pads."""

    def forward(self, input):
        return super().forward(F.pad(input, [1, 1, 1, 1]))


def refused(join, *ways):
    return Branches(join, *ways or [nn.MaxPool2d(2)])


REFUSED = [
    (nn.Upsample(2), r"of interpolate\(.*\) is unknown"),
    (OwnPadding(1, 1, 3), "of OwnPadding is unknown; expected convolutions, poolings and layers that act on each"),
    (nn.AdaptiveAvgPool2d(7), "adaptive pooling to 7 cells has .*only pooling to 1 is known"),
    (refused(lambda a: F.adaptive_max_pool2d(a, (2, 1))), r"adaptive pooling to \(2, 1\) cells"),
    (refused(torch.add, nn.MaxPool2d(2), nn.Identity()), r"branches of different strides can't be joined: \[1, 2\]"),
    (refused(lambda a: torch.cat([a, a], 2)), r"of cat\(.*, 2\) is unknown"),
    (refused(lambda a: a.mean(2, keepdim=True)), r"of mean\(.*, 2\) is unknown"),
    (refused(lambda a: a[:, :, ::2]), r"of getitem\(.*\) is unknown"),
    (refused(lambda a: a.split(2, 2)[0]), r"of split\(.*, 2, 2\) is unknown"),
    (refused(lambda a: a.permute(0, 2, 3, 1)), "of Branches is unknown: it must give one map of features"),
    (refused(lambda a: a.permute(0, 2, 3, 1) + a), "add joins features whose axes are in different orders"),
    (refused(lambda a: a.permute(0, 1, 3, 2).mean(-1)), r"of mean\(.*\) is unknown"),
    (refused(lambda a: a.permute(0, 3, 1, 2), Turned(LAST, nn.Conv2d(4, 4, 3))), "of Conv2d is unknown; expected"),
    (refused(lambda a: a.permute(0, 1, 3, 2), Turned((0, 1, 3, 2), nn.Linear(9, 9))), "of Linear is unknown; expected"),
    (nn.Linear(9, 9), "of Linear is unknown; expected convolutions"),
    (nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), "of Conv2d is unknown; expected convolutions"),
    (refused(lambda a: a if a.sum() > 0 else -a), "of Branches can't be traced: .*control flow"),
]


@pytest.mark.parametrize("stage, message", REFUSED, ids=[message for _, message in REFUSED])
def test_unknown_geometry_is_refused(stage, message):
    with pytest.raises(ValueError, match=f"{message}.*: choose .*, such as resnet18, vgg16 or convnext_tiny"):
        geometry(only(stage))


@pytest.mark.parametrize("name", ["pan-hard", "stn-s"])
@pytest.mark.parametrize("size", [224, (224,), 0, (8, 8, 3)])
def test_an_image_size_is_a_pair(name, size):
    with pytest.raises(ValueError, match=r"image_size must be \(height, width\) in pixels, e.g. \(100, 100\), got"):
        geometry(build_model(name, num_queries=2, num_attributes=2), size)
