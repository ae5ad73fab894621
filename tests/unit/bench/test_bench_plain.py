"""The plain reading of the paper is our network written down with nothing clever; and the CNN beside it."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.bench.plain import AttentionFreeCNN, PlainScorer, as_plain
from progressive_attention.network.build import build_model, model_config

QUERY = torch.tensor([[3, 0, 5], [1, 1, 4]])


def twins(name="pan-hard-ctx", **changes):
    """Ours and the plain reading of the same weights, in float64, without dropout."""
    torch.manual_seed(0)
    ours = build_model(name, num_queries=6, num_attributes=5, dropout=0.0, **changes).double()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return ours, as_plain(ours)


def answers(ours, plain, side):
    """Both networks' log-probabilities (6, 5) for three questions about each of two images."""
    torch.manual_seed(1)
    image = torch.rand(2, 3, side, side, dtype=torch.float64)
    return ours(image, QUERY).logit.flatten(0, 1), plain(image.repeat_interleave(3, 0), QUERY.flatten())


def of_gradients(ours):
    """Our network with its gradients in the place of weights."""
    copy = deepcopy(ours)
    for parameter, own in zip(copy.parameters(), ours.parameters(), strict=True):
        parameter.data = own.grad
    return copy


CASES = [
    ("pan-hard-ctx", {}, 100),
    ("pan-hard-ctx", {"radius": 2, "hidden": 7}, 80),
    ("pan-hard", {"attend_at": (1, 2)}, 80),
    ("han", {}, 80),
    ("pan-hard-ctx", {"backbone": "vgg11", "attend_at": ("pool2", "pool3", "pool4")}, 32),
]


@pytest.mark.parametrize("name, changes, side", CASES)
def test_same_answers_and_gradients(name, changes, side):
    ours, plain = twins(name, **changes)
    for training in (False, True):
        found = answers(ours.train(training), plain.train(training), side)
        assert_close(*found, rtol=1e-10, atol=1e-10)
        assert_close(found[1].exp().sum(1), torch.ones(6, dtype=torch.float64))
    for logit in found:
        (-logit[torch.arange(6), torch.arange(6) % 5]).mean().backward()
    expected = as_plain(of_gradients(ours))
    for (part, wanted), got in zip(expected.named_parameters(), plain.parameters(), strict=True):
        assert_close(got.grad, wanted.data, rtol=1e-10, atol=1e-10, msg=lambda text, part=part: f"{part}: {text}")
        assert got.grad.abs().max() > 0, part


def test_same_averages_learnt():
    """Those behind a gate: the head's batch norm beside a timm backbone sees each image once with us."""
    ours, plain = twins()
    answers(ours.train(), plain.train(), 80)
    for own, other in zip(ours.norms, plain.norms, strict=True):
        assert_close(other.running_mean, own.running_mean, rtol=1e-10, atol=1e-10)
        assert_close(other.running_var, own.running_var, rtol=1e-10, atol=1e-10)
        assert not torch.equal(own.running_mean, torch.zeros_like(own.running_mean))


def test_plain_is_plain():
    ours, plain = twins()
    plain = as_plain(ours.float().to(memory_format=torch.channels_last))
    assert all(parameter.is_contiguous() for parameter in plain.parameters())
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}
    order = [[type(layer) for layer in stage] for stage in plain.stages]
    assert order == [[nn.Conv2d, nn.ReLU, nn.MaxPool2d]] * 4


@pytest.mark.parametrize("radius", [0, 1, 2])
@torch.no_grad()
def test_scorer_is_a_perceptron_on_neighbourhood_and_query(radius):
    torch.manual_seed(radius)
    scorer, features, query = PlainScorer(2, 4, 3, radius), torch.randn(2, 2, 4, 5), torch.tensor([2, 0])
    padded = F.pad(features, (radius,) * 4)
    near = 2 * radius + 1
    for row in range(2):
        asked = [float(query[row] == q) for q in range(4)]
        for i in range(4):
            for j in range(5):
                entering = torch.tensor([*padded[row, :, i : i + near, j : j + near].flatten().tolist(), *asked])
                hidden = [max(0.0, float(unit @ entering)) for unit in scorer.first.weight]
                expected = float(scorer.second.weight[0] @ torch.tensor(hidden)) + float(scorer.second.bias)
                assert_close(float(scorer(features, query)[row, i, j]), expected, rtol=1e-5, atol=1e-6)


def test_attention_free_cnn_is_trunk_mean_and_classifier():
    torch.manual_seed(0)
    model = AttentionFreeCNN(model_config("pan-hard-ctx", 6, 5)).double()
    image = torch.rand(2, 3, 60, 60, dtype=torch.float64)
    features = image
    for stage, norm in zip(model.stages, model.norms, strict=True):
        features = F.max_pool2d(F.conv2d(features, stage[0].weight, stage[0].bias).relu(), 2)
        mean, var = features.mean((0, 2, 3), keepdim=True), features.var((0, 2, 3), correction=0, keepdim=True)
        features = (features - mean) / (var + norm.eps).sqrt()
    pooled = torch.stack([channel.flatten(1).mean(1) for channel in features])
    logit = pooled @ model.classifier.weight.T + model.classifier.bias
    assert_close(model(image), logit - logit.logsumexp(1, keepdim=True), rtol=1e-10, atol=1e-10)
