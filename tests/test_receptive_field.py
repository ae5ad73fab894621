"""Receptive fields against the input gradient of a linear copy of the network, and maps against loops over pixels."""

import copy
from functools import lru_cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.backbones import Backbone, build_backbone, conv_stack
from progressive_attention.config import ModelConfig
from progressive_attention.models import ProgressiveAttentionNetwork, build_model
from progressive_attention.receptive_field import Field, as_density, as_values, coverage, geometry, through_stage

# --- the twin: where does the input gradient of a linear, one-channel copy of the network not vanish? -----------------


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


def fields_of(stages):
    return tuple(through_stage(nn.Sequential(*stages), Field(), axis) for axis in (0, 1))


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
    assert geometry(model, (80, 120)) == ([(Field(16, 0, 45), Field(16, 0, 45))], (80, 120), ())
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
    *[("vgg16", 3, 96, [0, 5, 11]), ("vgg16", 4, 160, [0, 5, 9]), ("vgg16", 5, 224, [0, 3, 6])],
    *[("resnet18", 1, 64, [0, 9, 31]), ("resnet18", 2, 96, [0, 12, 23]), ("resnet18", 3, 160, [0, 10, 19])],
    *[("resnet18", 5, 448, [0, 6, 7, 13]), ("densenet121", 2, 96, [0, 11, 12, 23])],
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
        shape = nn.Sequential(*twins)(torch.zeros(1, 1, *size, dtype=torch.float64)).shape[2:]
    except RuntimeError as error:
        assume("size" not in str(error))  # nothing is left of the image
        raise
    cell = [data.draw(st.integers(0, n - 1)) for n in shape]
    hulls, count = seen(twins, size, cell)
    says = [stated(field, at) for field, at in zip(fields_of(stack), cell, strict=True)]
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
        return through_stage(Branches(join, *ways), Field(), axis)

    assert joined(lambda *x: torch.cat(x, 1), *ways) == Field(1, -3, 3)
    assert joined(lambda *x: torch.cat(x, dim=-3), *ways, axis=1) == Field(1, -1, 1)
    assert joined(lambda a, b, c: a + b * c, *ways) == Field(1, -3, 3)
    assert joined(lambda a: a * a.mean(1, keepdim=True).sigmoid(), ways[0]) == Field(1, -1, 1)
    assert joined(lambda a: a * a.mean((2, 3), keepdim=True).sigmoid(), ways[0]) == Field(1, -1, 1, True)
    assert joined(lambda a: a * F.adaptive_avg_pool2d(a, output_size=[1, 1]), ways[0]) == Field(1, -1, 1, True)
    assert joined(lambda a: a.to(a.device, a.dtype) * a.size(1) / a.shape[1] / a.dim() / a.ndim, ways[0]) == Field(
        1, -1, 1
    )
    assert fields_of([ways[0], nn.AdaptiveMaxPool2d((1, 1)), nn.Conv2d(1, 1, 1, 2)]) == (Field(0, 0, 0, True),) * 2
    assert fields_of([nn.BatchNorm2d(4), nn.GELU()])[0] == Field()  # other norms than this see all of an image
    assert fields_of([nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 3)])[0] == Field(1, 0, 2, True)
    assert fields_of([nn.GroupNorm(1, 4)])[0] == fields_of([nn.LayerNorm((4, 9, 9))])[0] == Field(1, 0, 0, True)


class OwnPadding(nn.Conv2d):
    """As timm's Conv2dSame: declares no padding, then pads by the size of what comes."""

    def forward(self, input):
        return super().forward(F.pad(input, [1, 1, 1, 1]))


def refused(join, *ways):
    return Branches(join, *ways or [nn.MaxPool2d(2)])


REFUSED = [
    (nn.Upsample(2), r"of interpolate\(.*\) is unknown"),
    (nn.Fold((4, 4), 2), r"of fold\(.*\) is unknown"),
    (OwnPadding(1, 1, 3), "of OwnPadding is unknown; expected convolutions, poolings and layers that act on each"),
    (nn.AdaptiveAvgPool2d(7), "adaptive pooling to 7 cells has .*only pooling to 1 is known"),
    (refused(lambda a: F.adaptive_max_pool2d(a, (2, 1))), r"adaptive pooling to \(2, 1\) cells"),
    (refused(torch.add, nn.MaxPool2d(2), nn.Identity()), r"branches of different strides can't be joined: \[1, 2\]"),
    (refused(lambda a: torch.cat([a, a], 2)), r"of cat\(.*, 2\) is unknown"),
    (refused(lambda a: torch.cat([a, a])), r"of cat\(.*\) is unknown"),
    (refused(lambda a: a.mean(2, keepdim=True)), r"of mean\(.*, 2\) is unknown"),
    (refused(lambda a: a[:, :, ::2]), r"of getitem\(.*\) is unknown"),
    (refused(lambda a: a.mT), r"of getattr\(.*, mT\) is unknown"),
    (refused(lambda a: (a, a)), "of Branches is unknown: it must give one map of features"),
    (refused(lambda a: a if a.sum() > 0 else -a), "of Branches can't be traced: .*control flow"),
]


@pytest.mark.parametrize("stage, message", REFUSED, ids=[message for _, message in REFUSED])
def test_unknown_geometry_is_refused(stage, message):
    with pytest.raises(ValueError, match=message):
        geometry(only(stage))


def shares(field, cells, pixels):
    """``coverage``, pixel by pixel and cell by cell."""
    share = torch.zeros(pixels, cells, dtype=torch.float64)
    for pixel in range(pixels):
        for cell in range(cells):
            centre = (field.low + field.high) / 2 + cell * field.stride
            left, right = centre - field.stride / 2, centre + field.stride / 2
            share[pixel, cell] = max(0.0, min(pixel + 0.5, right) - max(pixel - 0.5, left))
    return share


def drawn(cells, field, size, density=False):
    """``as_values`` or ``as_density`` of cells (h, w), cell by cell."""
    rows, columns = shares(field[0], cells.shape[0], size[0]), shares(field[1], cells.shape[1], size[1])
    pixels = torch.zeros(size, dtype=torch.float64)
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            area = torch.outer(rows[:, i], columns[:, j])
            pixels += cells[i, j].double() * area / (area.sum() if density else 1)
    return pixels


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(-5, 5), st.integers(6, 13), st.integers(1, 6), st.integers(1, 25))
def test_coverage_is_the_loop(stride, low, high, cells, pixels):
    field = Field(stride, low, high)
    share = coverage(field, cells, pixels)
    assert_close(share, shares(field, cells, pixels), rtol=0, atol=0)
    assert float(share.sum(1).max()) <= 1
    wider = Field(stride, low - 60 * stride, high - 60 * stride)  # enough cells leave no gap, and no overlap
    assert_close(coverage(wider, 120, pixels).sum(1), torch.ones(pixels).double(), rtol=0, atol=0)


def test_coverage_by_hand():
    last = coverage(Field(16, 0, 45), 4, 100)
    assert_close(last.sum(0), torch.full((4,), 16.0).double())
    assert last.sum(1).nonzero().flatten().tolist() == list(range(15, 79))
    half_pixels = torch.tensor([[0.5, 0], [1, 0], [0.5, 0.5], [0, 1], [0, 0.5], [0, 0]]).double()
    assert_close(coverage(Field(2, 0, 2), 2, 6), half_pixels, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 5)] * 3, st.integers(-6, 3), st.integers(0, 999))
def test_cells_on_pixels_are_the_loops(h, w, stride, low, seed):
    field = Field(stride, low, low + 5), Field(stride + 1, -1, 2)
    size = stride * h + 5, (stride + 1) * w + 2
    cells = torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(seed))
    assert_close(as_values(cells, field, size)[1, 2], drawn(cells[1, 2], field, size))
    lost = sum(field[0].centre(i) + stride / 2 <= -0.5 for i in range(h))
    if lost:
        message = f"^{lost * w} of the layer's {h} x {w} cells lie wholly outside the image of {size[0]} x {size[1]}"
        with pytest.raises(ValueError, match=message):
            as_density(cells, field, size)
    else:
        assert_close(as_density(cells, field, size)[0, 1], drawn(cells[0, 1], field, size, density=True))
        assert_close(as_density(cells, field, size).sum((-2, -1)), cells.double().sum((-2, -1)))


def test_density_by_hand():
    corner = Field(4, -3, 4)  # centred at 0.5: its stride cell is -1.5 to 2.5, of which the image has 3 of 4 pixels
    expected = torch.zeros(5, 5).double()
    expected[:3, :3] = 1 / 9
    assert_close(as_density(torch.ones(1, 1), (corner, corner), (5, 5)), expected)
    one = Field(0, 0, 0, True)  # a single global cell is the whole image
    assert_close(as_density(torch.ones(1, 1), (one, one), (4, 5)), torch.full((4, 5), 1 / 20).double())
    assert_close(as_values(torch.full((1, 1), 0.25), (one, one), (4, 5)), torch.full((4, 5), 0.25).double())
    outside = fields_of([nn.Conv2d(1, 1, 1, padding=3)])
    message = "^276 of the layer's 26 x 26 cells .* image of 20 x 20 .*; pad each layer by at most half its kernel$"
    with pytest.raises(ValueError, match=message):
        as_density(torch.full((26, 26), 1 / 676), outside, (20, 20))
