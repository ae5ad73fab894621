"""Attention maps on image pixels: against loops over cells and pixels, their sums, and magnitudes without bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from progressive_attention.maps import pixel_maps as image_maps
from progressive_attention.maps.pixel_maps import as_density, as_values, coverage
from progressive_attention.maps.receptive_field import Field, geometry
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import Prediction


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
    outside = (Field(1, -3, -3),) * 2  # behind a convolution of one pixel with a padding of three
    message = "^276 of the layer's 26 x 26 cells .* image of 20 x 20 .*; pad each layer by at most half its kernel$"
    with pytest.raises(ValueError, match=message):
        as_density(torch.full((26, 26), 1 / 676), outside, (20, 20))


@pytest.fixture(scope="module")
def asked():
    torch.manual_seed(3)
    model = build_model("pan-soft-ctx", num_queries=10, num_attributes=5, attend_at=(1, 2, 3)).eval()
    with torch.inference_mode():
        prediction = model(torch.rand(2, 3, 100, 100), torch.tensor([[3, -1, 7], [0, 9, -1]]))
    return prediction, geometry(model)


def test_maps_are_the_loops(asked):
    prediction, (fields, size, *_) = asked
    attention = [layer[0, 2].double() for layer in prediction.attention]
    attended = [a * layer[0, 2].double() for a, layer in zip(attention, prediction.magnitude, strict=True)]
    assert_close(image_maps.last_map(*asked)[0, 2], drawn(attention[-1], fields[-1], size, density=True))
    accumulated = torch.stack([drawn(a, field, size) for a, field in zip(attention, fields, strict=True)]).prod(0)
    activation = torch.stack([drawn(a, field, size) for a, field in zip(attended, fields, strict=True)]).prod(0)
    assert_close(image_maps.accumulated_map(*asked)[0, 2], accumulated / accumulated.sum())
    assert_close(image_maps.activation_map(*asked)[0, 2], activation / activation.sum())


def test_activation_map_stands_any_magnitude():
    where = geometry(build_model("pan-hard", num_queries=2, num_attributes=2))
    attention = [torch.rand(1, 2, n, n, generator=torch.Generator().manual_seed(n)).double() for n in (49, 23, 10, 4)]
    factors = torch.tensor([[1e150, 1e-150, 1e200, 1e180], [1e-150, 1e-200, 1e-100, 1e-150]], dtype=torch.float64)
    scaled = [a * factor[:, None, None] for a, factor in zip(attention, factors.T, strict=True)]
    expected = image_maps.activation_map(Prediction(torch.zeros(1, 2, 2), attention, attention), where)
    assert_close(image_maps.activation_map(Prediction(torch.zeros(1, 2, 2), attention, scaled), where), expected)
