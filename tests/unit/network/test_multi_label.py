"""Attributes that are each there or not: odds against sums of probabilities, and where float32 would lose them."""

import math
from itertools import pairwise, product

import pytest
import torch
from tiny_models import ATTRIBUTES, EXACT, QUERIES, build, loss_of, pictures
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.config import MODELS
from progressive_attention.network.equations import as_logit, marginalise_log_odds
from progressive_attention.network.question_network import Prediction

M, A, H, W = 2, 3, 4, 5  # rows, attributes, cells down and across
PRECISION = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def draw():
    """Normal float64 numbers of a shape, other ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- the marginal's odds ----------------------------------------------------------------------------------------------


def test_odds_are_those_of_the_marginal_probability(draw):
    log_odds, score = 2 * draw(M, A, H, W), draw(M, H, W)
    expected = torch.empty(M, A, dtype=torch.float64)
    for m, a in product(range(M), range(A)):
        there = total = 0.0
        for i, j in product(range(H), range(W)):
            weight = math.exp(score[m, i, j])
            there += weight / (1 + math.exp(-log_odds[m, a, i, j]))
            total += weight
        expected[m, a] = math.log(there / (total - there))
    assert_close(marginalise_log_odds(log_odds, score), expected)


def test_one_location_keeps_its_odds(draw):
    log_odds = 30 * draw(M, A, 1, 1)
    assert_close(marginalise_log_odds(log_odds, draw(M, 1, 1)), log_odds[..., 0, 0])


def test_gradient_of_the_odds(draw):
    for size in (1, 10):
        log_odds, score = (size * draw(M, A, H, W)).requires_grad_(), draw(M, H, W).requires_grad_()
        assert gradcheck(marginalise_log_odds, (log_odds, score))


@PRECISION
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_scores_choose_one_locations_odds(draw, dtype, size):
    log_odds = (40 * draw(M, A, H, W)).clamp(-100, 100).to(dtype).requires_grad_()
    score = torch.full((M, H, W), -size, dtype=dtype)
    score[:, 1, 2] = size
    score[1] = size  # and a map where all are equally huge
    score.requires_grad_()
    answer = marginalise_log_odds(log_odds, score)
    assert answer.isfinite().all()
    for gradient in torch.autograd.grad(answer.sum(), (log_odds, score)):
        assert gradient.isfinite().all()
    if size > 0:
        assert_close(answer[0], log_odds[0, :, 1, 2])
    everywhere = log_odds[1].detach().double().sigmoid().flatten(1).mean(1)
    assert_close(answer[1].double().sigmoid(), everywhere)


@PRECISION
@pytest.mark.parametrize("sign", [1, -1])
def test_sure_answers_keep_their_order(draw, dtype, sign):
    """Attribute a has odds of a quarter more than the one before it, where probabilities have long rounded to 1."""
    sure = sign * torch.arange(-400, 401, dtype=dtype).div(4).view(1, -1, 1, 1)
    score = draw(1, H, W).to(dtype)
    assert_close(marginalise_log_odds(sure.expand(1, -1, H, W), score)[0], sure.flatten(), rtol=1e-5, atol=1e-5)
    some = sure[:, 400:].repeat(1, 1, H, W)
    some[..., 0, 0] = sign * 100  # one location that is surer than the others
    answers = (sign * marginalise_log_odds(some, score)[0]).tolist()
    assert all(one < other for one, other in pairwise(answers))


def test_a_location_that_nobody_looks_at_changes_nothing():
    log_odds = torch.tensor([-100.0, 100.0, 3.0]).view(1, 1, 1, 3)
    score = torch.tensor([-1e4, -1e4, 1e4]).view(1, 1, 3)
    assert_close(marginalise_log_odds(log_odds, score), torch.tensor([[3.0]]))


# --- what networks give -----------------------------------------------------------------------------------------------


def test_a_classifiers_output_is_log_odds_already(draw):
    output = draw(M, A, H, W)
    assert as_logit(output, "bernoulli") is output
    assert_close(as_logit(output, "softmax").exp().sum(1), torch.ones(M, H, W, dtype=torch.float64))
    assert as_logit(output.bfloat16(), "bernoulli").dtype == torch.float32


def test_log_prob_is_the_log_of_the_attributes_probability():
    logit = torch.tensor([[[0.0, 100.0, -100.0, 1.5]]])
    assert_close(
        Prediction(logit, [], [], (), "bernoulli").log_prob,
        torch.tensor([[[-math.log(2), 0.0, -100.0, -math.log(1 + math.exp(-1.5))]]]),
    )
    assert Prediction(logit, [], []).log_prob is logit


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row.get("pooling") != "hard"])
@torch.no_grad()
def test_likelihoods_differ_in_the_last_step_only(name):
    both = [build(name, likelihood=likelihood).eval() for likelihood in ("softmax", "bernoulli")]
    softmax, bernoulli = (model(pictures(2), torch.tensor([[0, 1], [2, 3]])) for model in both)
    assert_close(bernoulli.logit.log_softmax(-1), softmax.logit, **EXACT)
    assert_close([*bernoulli.attention, *bernoulli.transform], [*softmax.attention, *softmax.transform], **EXACT)
    assert bernoulli.logit.exp().sum(-1).sub(1).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["pan-hard-ctx", "san"])
def test_eight_images_can_be_memorised(name):
    model = build(name, dropout=0.0, likelihood="bernoulli").float().train()
    image, query, attribute = pictures(8).float(), torch.arange(8) % QUERIES, torch.arange(8)[:, None] % ATTRIBUTES
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        loss = loss_of(model(image, query), attribute)
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"the loss is still {loss:.3f}")
