"""Attention maps on image pixels: against loops over cells, their sums, and magnitudes without bounds."""

import pytest
import torch
from test_receptive_field import drawn
from torch.testing import assert_close

from progressive_attention import receptive_field as rf
from progressive_attention.models import Prediction, build_model
from progressive_attention.receptive_field import geometry


@pytest.fixture(scope="module")
def asked():
    torch.manual_seed(3)
    model = build_model("pan-soft-ctx", num_queries=10, num_attributes=5, attend_at=(1, 2, 3)).eval()
    with torch.inference_mode():
        prediction = model(torch.rand(2, 3, 100, 100), torch.tensor([[3, -1, 7], [0, 9, -1]]))
    return prediction, geometry(model)


def test_maps_are_the_loops(asked):
    prediction, (fields, size, _) = asked
    attention = [layer[0, 2].double() for layer in prediction.attention]
    attended = [a * layer[0, 2].double() for a, layer in zip(attention, prediction.magnitude, strict=True)]
    assert_close(rf.last_map(*asked)[0, 2], drawn(attention[-1], fields[-1], size, density=True))
    accumulated = torch.stack([drawn(a, field, size) for a, field in zip(attention, fields, strict=True)]).prod(0)
    activation = torch.stack([drawn(a, field, size) for a, field in zip(attended, fields, strict=True)]).prod(0)
    assert_close(rf.accumulated_map(*asked)[0, 2], accumulated / accumulated.sum())
    assert_close(rf.activation_map(*asked)[0, 2], activation / activation.sum())


def test_maps_sum_to_one_and_are_zero_without_a_question(asked):
    maps = rf.pixel_maps(*asked)
    assert list(maps) == list(rf.PIXEL_MAPS) == ["last", "accumulated", "activation"]
    sums = torch.tensor([[1, 0, 1], [1, 1, 0]]).double()
    for pixels in maps.values():
        assert (pixels.shape, pixels.dtype) == ((2, 3, 100, 100), torch.float64)
        assert float(pixels.min()) >= 0
        assert_close(pixels.sum((-2, -1)), sums, rtol=0, atol=1e-6)  # the network's softmax is float32
        assert_close(pixels[sums == 0], torch.zeros(2, 100, 100).double(), rtol=0, atol=0)


def test_activation_map_stands_any_magnitude():
    where = geometry(build_model("pan-hard", num_queries=2, num_attributes=2))
    attention = [torch.rand(1, 2, n, n, generator=torch.Generator().manual_seed(n)).double() for n in (49, 23, 10, 4)]
    factors = torch.tensor([[1e150, 1e-150, 1e200, 1e180], [1e-150, 1e-200, 1e-100, 1e-150]], dtype=torch.float64)
    scaled = [a * factor[:, None, None] for a, factor in zip(attention, factors.T, strict=True)]
    expected = rf.activation_map(Prediction(torch.zeros(1, 2, 2), attention, attention), where)
    assert_close(rf.activation_map(Prediction(torch.zeros(1, 2, 2), attention, scaled), where), expected)
