"""The networks that progressive attention is compared with, against themselves written out one question at a time."""

from itertools import product

import pytest
import torch
from slow_networks import slow_sample
from tiny_models import EXACT, PIXELS, QUERIES, build, every_likelihood, flat, pictures
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from progressive_attention.network.build import build_model
from progressive_attention.network.no_attention import grad_cam

QUERY = torch.tensor([[4, 0], [1, 4]])

# --- one question at a time -------------------------------------------------------------------------------------------


def conv(stage: nn.Sequential, features: torch.Tensor) -> torch.Tensor:
    """One stage of the papers' network, (C, H, W) -> (C, H', W')."""
    return F.max_pool2d(F.conv2d(features[None], stage[0].weight, stage[0].bias).relu(), 2)[0]


def normalise(norm: nn.BatchNorm2d, features: torch.Tensor) -> torch.Tensor:
    mean, variance, scale, shift = (
        values[:, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (features - mean) / (variance + 0.01).sqrt() * scale + shift


def classified(model, features: torch.Tensor) -> torch.Tensor:
    answer = model.classifier.weight @ features.flatten() + model.classifier.bias
    return answer.softmax(0).log() if model.config.likelihood == "softmax" else answer


def slow_film(model, image: torch.Tensor, question: int) -> torch.Tensor:
    features = image
    for stage, norm, film in zip(model.stages, model.norms, model.film, strict=True):
        features = normalise(norm, conv(stage, features))
        for c in range(32):
            gamma, beta = 1 + film.weight[question, c], film.weight[question, 32 + c]
            features[c] = (gamma * features[c] + beta).clamp(min=0)
    return classified(model, features)


def slow_concat(model, image: torch.Tensor, question: int) -> torch.Tensor:
    features = image
    for stage, norm in zip(model.stages, model.norms, strict=True):
        features = normalise(norm, conv(stage, features))
    one_hot = torch.zeros(QUERIES, dtype=torch.float64)
    one_hot[question] = 1
    first = torch.cat([model.context.weight, model.query.weight.T], 1)
    return classified(model, (first @ torch.cat([features.flatten(), one_hot])).clamp(min=0))


def slow_pooled(model, image: torch.Tensor, question: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer, and Grad-CAM by autograd: features weighed by the mean gradient of the top attribute's score."""
    features = image
    for stage, norm in zip(model.stages, model.norms, strict=True):
        features = normalise(norm, conv(stage, features))
    features = features.detach().requires_grad_()
    means = torch.stack([channel.sum() / channel.numel() for channel in features])
    hidden = (model.context.weight @ means + model.query.weight[question]).clamp(min=0)
    score = model.classifier.weight @ hidden + model.classifier.bias
    (gradient,) = torch.autograd.grad(score.max(), features)
    cells = (gradient.mean((1, 2), keepdim=True) * features).sum(0).clamp(min=0)
    if not cells.any():
        cells += 1
    return classified(model, hidden), (cells / cells.sum()).detach()


def slow_stn(model, image: torch.Tensor, question: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    features, transforms = image, []
    for i in range(4):
        if str(i) in model.localisers:
            shown, layers = features, list(model.localisation[str(i)])
            for stage, norm in zip(layers[0:-1:2], layers[1:-1:2], strict=True):
                shown = normalise(norm, conv(stage, shown))
            head = model.localisers[str(i)]
            hidden = (head.context.weight @ shown.flatten() + head.query.weight[question]).clamp(min=0)
            transforms.append((head.affine.weight @ hidden + head.affine.bias).view(2, 3))
            features = slow_sample(features, transforms[-1])
        features = normalise(model.norms[i], conv(model.stages[i], features))
    if model.config.prior:
        fused = model.prior.feature.weight.flatten(1) @ features.flatten() + model.prior.query.weight[question]
        features = fused.clamp(min=0)
    return classified(model, features), transforms


@pytest.mark.parametrize("name, slow", [("film", slow_film), ("concat", slow_concat)])
@every_likelihood
@torch.no_grad()
def test_networks_without_attention_are_the_loops(name, slow, likelihood):
    model, image = build(name, likelihood=likelihood).eval(), pictures(2)
    prediction = model(image, QUERY)
    for b, k in product(range(2), repeat=2):
        assert_close(prediction.logit[b, k], slow(model, image[b].clone(), int(QUERY[b, k])))
    assert flat(prediction) == [prediction.logit]


@every_likelihood
def test_the_pooled_network_is_the_loop_and_its_map_is_grad_cam(likelihood):
    model, image = build("pooled", likelihood=likelihood).eval(), pictures(2)
    with torch.inference_mode():
        prediction = model(image, QUERY)
    for b, k in product(range(2), repeat=2):
        logit, cells = slow_pooled(model, image[b], int(QUERY[b, k]))
        assert_close(prediction.logit[b, k], logit)
        assert_close(prediction.attention[0][b, k], cells)
    assert prediction.attention[0].std((0, 1)).max() > 0.01  # not one map for all


def test_grad_cam_by_hand():
    """Two channels on 1 x 3 cells: for the first answer the first channel speaks, and the second one against it."""
    features = torch.tensor([[[[1.0, 3.0, 0.0]], [[0.0, 1.0, 2.0]]]]).expand(2, 2, 1, 3)
    maps = grad_cam(features, torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))
    assert_close(maps[0], torch.tensor([[1 / 3, 2 / 3, 0]]))
    assert_close(maps[1], torch.full((1, 3), 1 / 3))  # nothing speaks for the second one


@pytest.mark.parametrize("name", ["stn-s", "stn-m"])
@pytest.mark.parametrize("likelihood, prior", [("softmax", False), ("bernoulli", True)])
@torch.no_grad()
def test_transformer_networks_are_the_loops(name, likelihood, prior):
    model, image = build(name, likelihood=likelihood, prior=prior).eval(), pictures(2)
    prediction = model(image, QUERY)
    for b, k in [(0, 0), (1, 1)]:
        logit, transforms = slow_stn(model, image[b], int(QUERY[b, k]))
        assert_close(prediction.logit[b, k], logit)
        assert_close([transform[b, k] for transform in prediction.transform], transforms)
        assert (transforms[0] - torch.eye(2, 3)).abs().max() > 0.1  # far from doing nothing


# --- where it starts, what it shares ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stn-s", "stn-m"])
@pytest.mark.parametrize("train", [True, False])
def test_transformers_start_by_doing_nothing(name, train):
    torch.manual_seed(0)
    model = build_model(name, num_queries=5, num_attributes=3, image_size=PIXELS, dropout=0.0).double().train(train)
    plain = nn.Sequential(*[layer for pair in zip(model.stages, model.norms, strict=True) for layer in pair])
    image = pictures(3)
    prediction = model(image, torch.tensor([0, 1, 4]))
    for transform in prediction.transform:
        assert_close(transform, torch.eye(2, 3, dtype=torch.float64).expand(3, 1, 2, 3), rtol=0, atol=0)
    expected = model.classifier(plain(image).flatten(1)).log_softmax(1)
    assert_close(prediction.logit[:, 0], expected, **EXACT)


@pytest.mark.parametrize(
    "name, rows",
    [
        ("concat", {"stages": [2, 2, 2, 2]}),
        ("pooled", {"stages": [2, 2, 2, 2]}),
        ("film", {"stages": [2, 5, 5, 5]}),
        ("stn-s", {"stages": [5, 5, 5, 5], "localisation.0": [2, 2, 2, 2]}),
        ("stn-m", {"localisation.0": [2, 2, 2, 2], "localisation.1": [5, 5, 5], "localisation.3": [5]}),
    ],
)
def test_what_precedes_the_question_is_run_once_an_image(name, rows):
    model, found = build(name).eval(), {}
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            part = key.removesuffix(".0").rpartition(".")[0]
            module.register_forward_hook(
                lambda module, inputs, output, part=part: found.setdefault(part, []).append(len(output))
            )
    model(pictures(2), torch.tensor([[0, 1, 2], [3, 4, -1]]))
    assert {part: found[part] for part in rows} == rows
