"""Spatial transformers against the sums of their paper and against torch's own grid, in float64."""

import pytest
import torch
from slow_networks import slow_sample
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.network.spatial_transformer import sampled_at, transformed

M, C, H, W = 3, 2, 5, 7  # rows, channels, cells down and across
IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)


@pytest.fixture
def draw():
    """Normal float64 numbers of a shape, other ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(5, 7), (1, 1), (4, 1)])
def test_grid_is_torchs(draw, height, width):
    transform = draw(M, 2, 3)
    assert_close(sampled_at(transform, height, width), F.affine_grid(transform, [M, 1, height, width], False))


def test_sampling_is_the_papers_sum(draw):
    features, transform = draw(9, C, H, W), IDENTITY + draw(9, 2, 3) / 2
    expected = torch.stack([slow_sample(u, theta) for u, theta in zip(features, transform, strict=True)])
    assert_close(transformed(features, transform), expected)


def test_by_hand():
    features = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)

    def through(*rows: list[float]) -> list[list[float]]:
        return transformed(features, torch.tensor([rows], dtype=torch.float64))[0, 0].tolist()

    assert through([1, 0, 0], [0, 1, 0]) == features[0, 0].tolist()
    right = [[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0], [13, 14, 15, 0]]
    assert through([1, 0, 0.5], [0, 1, 0]) == right  # half a unit of two is one cell of four
    assert through([-1, 0, 0], [0, 1, 0]) == features[0, 0].flip(1).tolist()
    assert through([0, 1, 0], [1, 0, 0]) == features[0, 0].T.tolist()
    # Twice as near: cells at -3/4, -1/4, 1/4, 3/4 come from half that, which are 3/4, 5/4, 7/4 and 9/4.
    assert through([0.5, 0, 0], [0, 0.5, 0])[0] == [3.75, 4.25, 4.75, 5.25]
    assert through([1, 0, 4], [0, 1, 0]) == [[0] * 4] * 4  # wholly outside


def test_gradient_of_sampling(draw):
    features, transform = draw(M, C, H, W).requires_grad_(), (IDENTITY + draw(M, 2, 3) / 3).requires_grad_()
    assert gradcheck(transformed, (features, transform))


def test_keeps_channels_last_both_ways(draw):
    features = draw(M, C, H, W).contiguous(memory_format=torch.channels_last).requires_grad_()
    sampled = transformed(features, IDENTITY + draw(M, 2, 3) / 3)
    (gradient,) = torch.autograd.grad(sampled.square().sum(), features)
    for one in (sampled, gradient):
        assert one.stride() == features.stride()


def test_bfloat16_does_not_move_the_samples(draw):
    features, transform = draw(M, C, 49, 49), (IDENTITY + draw(M, 2, 3) / 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        sampled = transformed(features.bfloat16(), transform)
    assert sampled.dtype == torch.bfloat16
    exact = transformed(features.bfloat16().double(), transform.double())
    assert_close(sampled.double(), exact, rtol=2**-8, atol=1e-3)  # rounded once, at the end
