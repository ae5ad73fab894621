"""Every network at its edges: no NaN, no infinity, in answers, maps, pixel maps and gradients."""

import math

import numpy as np
import pytest
import torch
from tiny_models import (
    ATTRIBUTES,
    QUERIES,
    ROWS,
    build,
    every_likelihood,
    every_model,
    every_scoring_model,
    flat,
    loss_of,
    pictures,
)
from torch import nn
from torch.nn import functional as F

from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.network.question_network import Prediction, QuestionNetwork

LEAST_PIXELS = 46  # one cell is left in the last map of the papers' network
SHUT = -1e4  # exp(-1e4) is zero in float64, too


def assert_finite_maps(model: QuestionNetwork, prediction: Prediction) -> None:
    """All outputs, and the maps on pixels, which sum to one or, where nothing is attended, to zero."""
    for values in flat(prediction):
        assert values.isfinite().all()
    for name, drawn in pixel_maps(prediction, geometry(model)).items():
        assert drawn.isfinite().all(), name
        assert (drawn >= 0).all(), name
        total = drawn.sum((-2, -1))
        assert ((total < 1 + 1e-6) & (total > -1e-6)).all(), name


def assert_learns(model: QuestionNetwork, image: torch.Tensor, query: torch.Tensor) -> None:
    """Its loss and all gradients are finite."""
    prediction = model.train()(image, query)
    attribute = torch.where(query >= 0, query % ATTRIBUTES, -1)
    loss = loss_of(prediction, attribute)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def stretched(score: torch.Tensor, size: float) -> torch.Tensor:
    """Scores with ``size`` added to that of the first cell and taken from that of the last, evenly in between."""
    added = torch.linspace(size, -size, score[0].numel(), dtype=score.dtype)
    return score + added.view_as(score[0])


@every_scoring_model
@pytest.mark.parametrize(
    ("size", "likelihood", "bf16"), [(1e4, "softmax", False), (SHUT, "bernoulli", False), (1e4, "bernoulli", True)]
)
def test_scores_of_ten_thousand(name, likelihood, size, bf16):
    model = build(name, likelihood=likelihood).float()
    for scorer in model.scorers.values():
        scorer.register_forward_hook(lambda scorer, given, score: stretched(score, size))
    image, query = pictures(3).float(), torch.tensor([[0, 1], [2, -1], [3, 4]])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prediction = model.eval()(image, query)
        for alpha in prediction.attention:
            assert (alpha[query >= 0] == 1).any()
        assert_finite_maps(model, prediction)
        assert_learns(model, image, query)


@every_scoring_model
@every_likelihood
def test_closed_gates(name, likelihood):
    """Nothing passes: what is left is the norms' constants, an answer that does not depend on the image."""
    model = build(name, likelihood=likelihood)
    gates = list(model.scorers.values())[:-1]
    for scorer in gates:
        scorer.score.weight.data.zero_()
        scorer.score.bias.data.fill_(SHUT)
    prediction = model.eval()(pictures(2), torch.tensor([[1], [1]]))
    for alpha in prediction.attention[:-1]:
        assert not alpha.any()
    if gates:
        torch.testing.assert_close(prediction.logit[0], prediction.logit[1])
        assert not pixel_maps(prediction, geometry(model))["accumulated"].any()
    assert_finite_maps(model, prediction)
    assert_learns(model, pictures(2), torch.tensor([[1, 2], [0, -1]]))


@every_model
def test_maps_of_one_cell_of_black_and_white_images(name):
    model = build(name, image_size=LEAST_PIXELS)
    image = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 3, LEAST_PIXELS, LEAST_PIXELS)
    prediction = model.eval()(image, torch.tensor([[0, 1], [2, 3]]))
    for alpha in prediction.attention[-1:]:
        if "backbone" not in ROWS[name]:  # padding leaves more
            torch.testing.assert_close(alpha, torch.ones(2, 2, 1, 1, dtype=torch.float64))
    assert_finite_maps(model, prediction)
    assert_learns(model, image, torch.tensor([[0, 1], [2, 3]]))


@every_model
def test_sixty_four_questions(name):
    """Most of them asked more than once: they get the answers that each gets alone."""
    model, image = build(name), pictures(2)
    query = torch.arange(128).view(2, 64) % QUERIES
    prediction = model.eval()(image, query)
    assert prediction.logit.shape == (2, 64, ATTRIBUTES)
    assert_finite_maps(model, prediction)
    for b in range(2):
        alone = model(image[b : b + 1], query[b : b + 1, -1:])
        torch.testing.assert_close(prediction.logit[b, -1], alone.logit[0, 0], rtol=0, atol=1e-10)
    assert_learns(model, image, query)


@every_model
def test_an_attribute_that_no_object_has(name):
    """Its odds fall without end, but no step, and no figure, becomes NaN; its AP alone is unknown."""
    model, image, query = build(name, likelihood="bernoulli", dropout=0.0), pictures(4), torch.arange(4)[:, None]
    truth = F.one_hot(torch.tensor([0, 1, 0, 1]), ATTRIBUTES).double()  # the last attribute, never
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        logit = model.train()(image, query).logit[:, 0]
        loss = F.binary_cross_entropy_with_logits(logit, truth)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert loss.isfinite()
    scores = RankingScores(ATTRIBUTES)
    scores.add(logit.detach().numpy(), truth.numpy().astype(np.int8))
    summary = scores.summary()
    assert summary["weighted_mean_ap"] is not None
    assert math.isfinite(summary["weighted_mean_ap"])
    found = scores.per_attribute().eleven_point_ap
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[-1])
