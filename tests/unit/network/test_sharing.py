"""An image's features, handed to each of its questions: indexing, gradients included, in channels-last order."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.network.question_network import for_each_question

ASKED = {
    "some": [2, 1, 3],
    "none first": [0, 2, 1],
    "none between": [1, 0, 0, 2],
    "none last": [2, 1, 0],
    "no": [0, 0],
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("counts", ASKED.values(), ids=ASKED.keys())
def test_ask_each_question_is_indexing(counts, layout):
    image = torch.repeat_interleave(torch.tensor(counts))
    shared = draw(len(counts), 3, 7, 6).contiguous(memory_format=layout).requires_grad_()
    asked, expected = for_each_question(shared, image), shared[image]
    assert_close(asked, expected, rtol=0, atol=0)
    assert asked.is_contiguous(memory_format=torch.channels_last)
    upstream = draw(*expected.shape, seed=1)
    (gradient,) = torch.autograd.grad(asked, shared, upstream)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    (gradient_expected,) = torch.autograd.grad(expected, shared, upstream)
    assert_close(gradient, gradient_expected)
    assert gradcheck(lambda features: for_each_question(features, image), (shared,))
