"""The flow map against a twin that walks every path in two dimensions, its mass, and where it is another map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build, every_scoring_model, pictures
from torch import nn
from torch.testing import assert_close

from progressive_attention.maps.pixel_maps import Reach, as_density, flow_map, handed_down, last_map
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.maps.stage_graph import steps_of
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import Prediction


class Residual(nn.Module):
    """What enters, added to what layers make of it, times a global factor (squeeze-and-excite)."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        y = self.layers(x)
        return (x + y * y.mean((2, 3), keepdim=True).sigmoid()).relu()


def sizes_of(layers, size):
    """What each layer of a chain reads and gives: (h, w), first the chain's own."""
    sizes, x = [size], torch.zeros(1, 1, *size)
    for layer in layers:
        x = layer(x)
        sizes.append(tuple(x.shape[2:]))
    return sizes


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def walk(layers, size, cell):
    """Every walk from a cell of a chain's output down to what enters: chances by cell, as a dict."""
    places, sizes = {cell: 1.0}, sizes_of(layers, size)
    for layer, below in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
        reached = {}
        for (i, j), chance in places.items():
            if isinstance(layer, Residual):
                ends = {(i, j): 0.5}
                for at, share in walk(list(layer.layers), below, (i, j)).items():
                    ends[at] = ends.get(at, 0.0) + share / 2
            elif isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                (kh, kw), (sh, sw), (ph, pw) = map(pair, (layer.kernel_size, layer.stride, layer.padding))
                cells = [(i * sh - ph + a, j * sw - pw + b) for a in range(kh) for b in range(kw)]
                ends = {at: 1 / (kh * kw) for at in cells if 0 <= at[0] < below[0] and 0 <= at[1] < below[1]}
            else:
                ends = {(i, j): 1.0}
            for at, share in ends.items():
                reached[at] = reached.get(at, 0.0) + chance * share
        places = reached
    return places


def handed_down_slowly(share, energy, layers):
    """``handed_down`` of one map, cell by cell."""
    size, result = tuple(energy.shape), torch.zeros_like(energy)
    for i in range(share.shape[0]):
        for j in range(share.shape[1]):
            chances = walk(layers, size, (i, j))
            if sum(chance * energy[at] for at, chance in chances.items()) > 0:
                chances = {at: chance * energy[at] for at, chance in chances.items()}
            total = sum(chances.values())
            for at, chance in chances.items():
                result[at] += share[i, j] * chance / total
    return result


CHAINS = {
    "valid": [nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.ReLU()],
    "padded": [nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(1, 1, (1, 3), padding=(0, 1))],
    "residual": [nn.MaxPool2d(2), Residual(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1))],
}


@pytest.mark.parametrize("name", CHAINS)
def test_shares_are_handed_down_along_every_path(name):
    layers, size = CHAINS[name], (9, 11)
    above = sizes_of(layers, size)[-1]
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(2, *above, generator=generator, dtype=torch.float64)
    energy = torch.rand(2, *size, generator=generator, dtype=torch.float64)
    energy[1, :, :6] = 0  # below some cells there is none at all
    paths = (steps_of(nn.Sequential(*layers), size)[0],)
    expected = torch.stack([handed_down_slowly(*both, layers) for both in zip(share, energy, strict=True)])
    assert_close(handed_down(share, energy, paths), expected, rtol=0, atol=1e-12)
    halves, given = [], size
    for layer in layers:
        steps, given = steps_of(layer, given)
        halves.append(steps)  # stages without attention between two attended ones
    assert_close(handed_down(share, energy, tuple(halves)), expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.booleans(), st.integers(8, 13), st.integers(0, 99))
def test_a_layer_is_reached_as_torch_reads_it(kernel, stride, padding, ceil, side, seed):
    layer = nn.AvgPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=ceil, divisor_override=kernel**2)
    cells = torch.rand(1, 1, side, side + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reach = Reach((steps_of(layer, (side, side + 2))[0],), (side, side + 2), cells.device)
    cells.requires_grad_()
    above = layer(cells)
    assert_close(reach.up(cells), above)
    below = torch.rand_like(above)
    assert_close(reach.down(below), torch.autograd.grad(above, cells, below)[0])


@every_scoring_model
@torch.no_grad()
def test_mass_is_conserved_and_one_layer_has_its_last_map(name):
    model = build(name).eval()
    prediction, where = model(pictures(2), torch.tensor([[0, 1], [2, -1]])), geometry(model)
    flow = flow_map(prediction, where)
    assert_close(flow.sum((-2, -1)), torch.tensor([[1, 1], [1, 0]]).double(), rtol=0, atol=1e-12)
    if len(prediction.attention) == 1:
        assert_close(flow, last_map(prediction, where), rtol=0, atol=0)


@torch.no_grad()
def test_each_gate_weighs_by_its_attention_and_the_magnitudes_fourth_power():
    model = build("pan-hard-ctx").double().eval()
    prediction, where = model(pictures(1).double(), torch.tensor([[1]])), geometry(model)
    *gates, share = [layer[0, 0] for layer in prediction.attention]
    for gate, magnitude in reversed(list(zip(gates, prediction.magnitude[:-1], strict=True))):
        share = handed_down_slowly(share, gate * magnitude[0, 0] ** 4, [nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)])
    expected = as_density(share[None, None], where.fields[0], where.image_size)
    assert_close(flow_map(prediction, where), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 1e-300, 1e-160, 1e150, 1e300])
def test_energies_of_any_size_conserve_mass(factor):
    where = geometry(build_model("pan-hard", num_queries=2, num_attributes=2))
    generator = torch.Generator().manual_seed(0)
    cells = [torch.rand(1, 1, n, n, generator=generator, dtype=torch.float64) for n in (49, 23, 10, 4)]
    magnitude = [layer * factor for layer in cells]
    prediction = Prediction(torch.zeros(1, 1, 2), [*cells[:-1], cells[-1] / cells[-1].sum()], magnitude)
    assert_close(flow_map(prediction, where).sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-12)
