"""What questions share, against every question computed by itself, in float64: values, gradients, averages learnt."""

from copy import deepcopy
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from progressive_attention import build_model
from progressive_attention.network import sharing
from progressive_attention.network.equations import attend
from progressive_attention.network.sharing import (
    Apart,
    AskEachQuestion,
    GatedConvolution,
    gated_moments,
    gated_stage,
    shares_convolution,
    side_by_side,
)

COUNTS = [3, 1, 4]  # questions about each image
IMAGE = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
C, OUT, H, W = 3, 5, 7, 6


@pytest.fixture
def draw():
    """Normal float64 numbers of a shape, other ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def stage(kernel: int = 3, stride: int = 1, padding: int = 0, *behind: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(C, OUT, kernel, stride, padding), *behind).double()


def norm() -> nn.BatchNorm2d:
    torch.manual_seed(2)
    made = nn.BatchNorm2d(C, eps=0.01, momentum=0.5).double()
    for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    return made


def question_by_question(stage, norm, features, attention, image):
    return stage(norm(attend(features[image], attention)))


# --- the convolution --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    *(st.integers(1, 3) for _ in range(4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_gated_convolution_is_the_convolution_of_gated_features(images, questions, channels, outputs, kernel, stride):
    torch.manual_seed(0)
    features = torch.randn(images, channels, 6, 5, dtype=torch.float64)
    attention = torch.rand(images, questions, 6, 5, dtype=torch.float64)
    weight = torch.randn(outputs, channels, *kernel, dtype=torch.float64)
    each = [
        [torch.conv2d(f * gate, weight, stride=stride) for gate in gates]
        for f, gates in zip(features, attention, strict=True)
    ]
    offset = torch.randn(1, *each[0][0].shape, dtype=torch.float64)
    found = GatedConvolution.apply(features, attention, weight, offset, stride).unflatten(1, (questions, outputs))
    for n in range(images):
        for k in range(questions):
            assert_close(found[n, k], each[n][k] + offset[0])


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)], ids=str)
def test_gradient_of_the_gated_convolution(draw, stride):
    inputs = [draw(2, 3, 5, 4), draw(2, 2, 5, 4), draw(4, 3, 2, 3)]
    offset = draw(1, 4, *torch.conv2d(inputs[0], inputs[2], stride=stride).shape[2:])
    tensors = tuple(tensor.requires_grad_() for tensor in (*inputs, offset))
    assert gradcheck(lambda *given: GatedConvolution.apply(*given, stride), tensors)


# --- the stage --------------------------------------------------------------------------------------------------------

STAGES = {
    "conv, pool, ReLU": (stage(3, 1, 0, nn.MaxPool2d(2), nn.ReLU()), norm()),
    "as VGG": (
        stage(3, 1, 1, nn.ReLU(inplace=True), nn.Conv2d(OUT, 2, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Identity(),
    ),
    "padding and norm": (stage(3, 1, 1, nn.ReLU()), norm()),
    "stride, norm inside": (stage(2, 2, 1, nn.BatchNorm2d(OUT), nn.ReLU()), norm()),
    "convolution alone": (stage(1), norm()),
    "in place behind": (stage(3, 1, 0, nn.Hardtanh(inplace=True)), norm()),
}


@pytest.mark.parametrize("counts", [COUNTS, [2, 2, 2], [1, 1, 5]], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", STAGES)
def test_gated_stage_equals_each_question_by_itself(draw, name, training, counts):
    """Output, every gradient, and what the norms learn."""
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features, attention = draw(len(counts), C, H, W), draw(len(image), H, W).sigmoid()
    results = []
    for way in (question_by_question, gated_stage):
        parts = nn.ModuleList(deepcopy(STAGES[name])).train(training)
        given = [features.clone().requires_grad_(), attention.clone().requires_grad_()]
        output = way(*parts, *given, image)
        gradients = torch.autograd.grad(output.square().sum(), [*given, *parts.parameters()])
        results.append([output, *gradients, *parts.buffers()])
    assert len(results[0]) == len(results[1]) >= 5
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_gated_stage_under_autocast_is_as_exact_as_bfloat16_allows(draw):
    parts = nn.ModuleList(deepcopy(STAGES["conv, pool, ReLU"])).float()
    features, attention = draw(3, C, H, W).bfloat16(), draw(len(IMAGE), H, W).sigmoid().float()
    expected = question_by_question(*deepcopy(parts), features.float(), attention, IMAGE)
    with torch.autocast("cpu", torch.bfloat16):
        found = gated_stage(*parts, features, attention, IMAGE)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, rtol=0.03, atol=0.03)
    assert not torch.equal(found.float(), expected)


def test_a_kernel_larger_than_the_map_is_told_as_torch_does(draw):
    with pytest.raises(RuntimeError, match="input size"):
        gated_stage(*STAGES["conv, pool, ReLU"], draw(3, C, 2, 2), draw(len(IMAGE), 2, 2), IMAGE)


def test_moments_of_gated_features(draw):
    features, attention = draw(3, C, H, W), draw(len(IMAGE), H, W).sigmoid()
    gates, _ = side_by_side(attention, IMAGE, 3)
    mean, variance = gated_moments(features, gates, len(IMAGE))
    rows = attend(features[IMAGE], attention).transpose(0, 1).flatten(1)
    assert_close(mean, rows.mean(1))
    assert_close(variance, rows.var(1, correction=0))


def test_a_variance_is_never_negative():
    """Where all features are equal, rounding alone would decide its sign."""
    features, gates = torch.full((2, 4, 9, 9), 1000.1), torch.ones(2, 3, 9, 9)
    mean, variance = gated_moments(features, gates, 6)
    assert_close(mean, torch.full((4,), 1000.1), rtol=1e-5, atol=0)
    assert (variance >= 0).all()


# --- rows and images --------------------------------------------------------------------------------------------------


def test_side_by_side_and_apart_are_inverse(draw):
    attention = draw(len(IMAGE), H, W)
    maps, place = side_by_side(attention, IMAGE, 3)
    assert maps.shape == (3, 4, H, W)
    assert torch.equal(maps[0, 2], attention[2])
    assert torch.equal(maps[1, 0], attention[3])
    assert torch.equal(maps[1, 1:], torch.zeros(3, H, W))
    assert torch.equal(maps[2], attention[4:])
    assert torch.equal(Apart.apply(maps, place, 4), attention[:, None])


def test_apart_keeps_channels_last_and_its_gradient(draw):
    _, place = side_by_side(draw(len(IMAGE), 1, 1), IMAGE, 3)
    together = draw(3, 4 * OUT, 3, 2).requires_grad_()
    assert Apart.apply(together, place, 4).is_contiguous(memory_format=torch.channels_last)
    assert gradcheck(lambda given: Apart.apply(given, place, 4), (together,))


ASKED = {
    "some": [2, 1, 3],
    "none first": [0, 2, 1],
    "none between": [1, 0, 0, 2],
    "none last": [2, 1, 0],
    "no": [0, 0],
}


@pytest.mark.parametrize("counts", ASKED.values(), ids=ASKED.keys())
def test_ask_each_question_is_indexing(draw, counts):
    image = torch.repeat_interleave(torch.tensor(counts))
    shared = draw(len(counts), C, H, W).requires_grad_()
    asked, expected = AskEachQuestion.apply(shared, image), shared[image]
    assert_close(asked, expected, rtol=0, atol=0)
    upstream = draw(*expected.shape)
    (gradient,) = torch.autograd.grad(asked, shared, upstream)
    (gradient_expected,) = torch.autograd.grad(expected, shared, upstream)
    assert_close(gradient, gradient_expected)
    assert gradcheck(lambda features: AskEachQuestion.apply(features, image), (shared,))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_ask_each_question_takes_either_memory_layout(draw, layout):
    shared, image = draw(3, C, H, W).contiguous(memory_format=layout), torch.tensor([0, 0, 2])
    assert_close(AskEachQuestion.apply(shared, image), shared[image], rtol=0, atol=0)


# --- when -------------------------------------------------------------------------------------------------------------


def test_when_a_convolution_is_shared():
    features, pool = torch.randn(4, 32, H, W), nn.MaxPool2d(2)

    def chain(*behind: nn.Module, **options) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(32, 32, 3, **options), *behind)

    assert shares_convolution(chain(pool), nn.BatchNorm2d(32), features, 20)
    assert shares_convolution(chain(pool), nn.Identity(), features, 20)
    assert not shares_convolution(chain(pool), nn.Identity(), features, 19)  # too few questions
    assert not shares_convolution(chain(pool), nn.GroupNorm(1, 32), features, 20)
    assert not shares_convolution(nn.Sequential(pool, *chain()), nn.Identity(), features, 20)
    assert not shares_convolution(nn.Conv2d(32, 32, 3), nn.Identity(), features, 20)
    for options in ({"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect", "padding": 1}, {"padding": "same"}):
        assert not shares_convolution(chain(pool, **options), nn.Identity(), features, 20)
    for options in ({"affine": False}, {"track_running_stats": False}, {"momentum": None}):
        assert not shares_convolution(chain(pool), nn.BatchNorm2d(32, **options), features, 20)


def test_layers_that_compute_something_else_are_not_shared():
    class Standardised(nn.Conv2d):
        def forward(self, image):
            return self._conv_forward(image, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    class Activated(nn.BatchNorm2d):
        def forward(self, image):
            return super().forward(image).relu()

    features = torch.randn(4, 32, H, W)
    assert not shares_convolution(nn.Sequential(Standardised(32, 32, 3)), nn.Identity(), features, 20)
    assert not shares_convolution(nn.Sequential(nn.Conv2d(32, 32, 3)), Activated(32), features, 20)
    of_other_numbers = weight_norm(nn.Conv2d(32, 32, 3))  # a subclass, but the same convolution
    assert shares_convolution(nn.Sequential(of_other_numbers), nn.Identity(), features, 20)


def test_a_gradient_of_the_gradient_is_refused(draw):
    """What is kept for the backward has no graph of its own: a second derivative would be wrong without a word."""
    inputs = [one.requires_grad_() for one in (draw(1, 2, 3, 3), draw(1, 2, 3, 3), draw(2, 2, 2, 2), draw(1, 2, 2, 2))]
    output = GatedConvolution.apply(*inputs, (1, 1))
    (first, *_) = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize("options", [{}, {"attend_at": (1, 3)}, {"attend_at": (0, 2, 3)}], ids=str)
@pytest.mark.parametrize("name", ["pan-hard-ctx", "pan-soft"])
def test_a_network_answers_the_same_whichever_way(monkeypatch, name, options):
    """Answers, attention, gradients and averages of a whole training step, shared and question by question."""
    results = []
    for start in (2, 1000):
        monkeypatch.setattr(sharing, "SHARED_FROM", start)
        convolution = mock.Mock(wraps=GatedConvolution.apply)
        monkeypatch.setattr(GatedConvolution, "apply", convolution)
        torch.manual_seed(0)
        model = build_model(name, num_queries=10, num_attributes=5, dropout=0.0, **options).double()
        generator = torch.Generator().manual_seed(3)
        image = torch.rand(3, 3, 64, 60, generator=generator, dtype=torch.float64)
        query = torch.tensor([[1, 2, 3, 4], [5, -1, 6, -1], [7, 8, 9, 0]])
        prediction = model(image, query)
        assert convolution.called == (start == 2)
        prediction.logit.square().sum().backward()
        learnt = [parameter.grad for parameter in model.parameters()]
        results.append([prediction.logit, *prediction.attention, *learnt, *model.buffers()])
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected, rtol=1e-8, atol=1e-10)
