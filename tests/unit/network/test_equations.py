"""Each equation against loops that can be checked with the paper in hand, in float64, and its gradient."""

import math
from itertools import pairwise, product

import pytest
import torch
from tiny_models import EXACT, build, pictures
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.config import MODELS
from progressive_attention.network.equations import (
    as_logit,
    attend,
    gate,
    marginalise,
    marginalise_log_odds,
    soft_pool,
    sparsemax,
    spatial_softmax,
)
from progressive_attention.network.question_network import Prediction

M, C, H, W, A = 2, 3, 4, 5, 3  # rows, channels, cells down and across, attributes
PLACES = list(product(range(H), range(W)))
PRECISION = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def draw():
    """Normal float64 numbers of a shape, other ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- equations --------------------------------------------------------------------------------------------------------


def test_gate_is_the_logistic_function_of_each_score(draw):
    score, expected = draw(M, H, W), torch.empty(M, H, W, dtype=torch.float64)
    for m, (i, j) in product(range(M), PLACES):
        expected[m, i, j] = 1 / (1 + math.exp(-score[m, i, j]))
    assert_close(gate(score), expected)


def slow_softmax(score: torch.Tensor) -> torch.Tensor:
    alpha = torch.empty_like(score)
    for m in range(len(score)):
        total = sum(math.exp(score[m, i, j]) for i, j in PLACES)
        for i, j in PLACES:
            alpha[m, i, j] = math.exp(score[m, i, j]) / total
    return alpha


def test_spatial_softmax_competes_over_the_whole_map(draw):
    score = draw(M, H, W)
    assert_close(spatial_softmax(score), slow_softmax(score))
    assert_close(spatial_softmax(score).sum((1, 2)), torch.ones(M, dtype=torch.float64))


def test_attend_scales_each_locations_feature(draw):
    features, alpha = draw(M, C, H, W), draw(M, H, W)
    expected = torch.empty_like(features)
    for m, (i, j) in product(range(M), PLACES):
        for c in range(C):
            expected[m, c, i, j] = alpha[m, i, j] * features[m, c, i, j]
    assert_close(attend(features, alpha), expected)


@pytest.mark.parametrize("reduction, divisor", [("sum", 1), ("mean", H * W)])
def test_soft_pool_adds_up_all_locations(draw, reduction, divisor):
    attended = draw(M, C, H, W)
    expected = torch.zeros(M, C, 1, 1, dtype=torch.float64)
    for m, (i, j) in product(range(M), PLACES):
        for c in range(C):
            expected[m, c] += attended[m, c, i, j] / divisor
    assert_close(soft_pool(attended, reduction), expected)


def test_marginalise_weighs_each_locations_answer_by_its_probability(draw):
    log_prob, score = draw(M, A, H, W).log_softmax(1), draw(M, H, W)
    alpha, expected = slow_softmax(score), torch.empty(M, A, dtype=torch.float64)
    for m, a in product(range(M), range(A)):
        expected[m, a] = math.log(sum(math.exp(log_prob[m, a, i, j]) * alpha[m, i, j] for i, j in PLACES))
    answer = marginalise(log_prob, score)
    assert_close(answer, expected)
    assert_close(answer.logsumexp(1), torch.zeros(M, dtype=torch.float64))


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_scores_choose_one_location_and_stay_finite(draw, size, dtype):
    log_prob = (30 * draw(M, A, H, W)).log_softmax(1).to(dtype).requires_grad_()
    score = torch.full((M, H, W), -size, dtype=dtype)
    score[:, 1, 2] = size
    score[1] = size  # and a map where all are equally huge
    score.requires_grad_()
    alpha, answer = spatial_softmax(score), marginalise(log_prob, score)
    for gradient in torch.autograd.grad(answer.sum() + alpha.square().sum(), (log_prob, score)):
        assert gradient.isfinite().all()
    assert_close(alpha.sum((1, 2)), torch.ones(M, dtype=dtype))
    assert_close(alpha[1], torch.full((H, W), 1 / (H * W), dtype=dtype))
    if size > 0:
        assert_close(alpha[0, 1, 2], torch.ones((), dtype=dtype))
        assert_close(answer[0], log_prob[0, :, 1, 2])
    else:
        assert_close(alpha[0, 1, 2], torch.zeros((), dtype=dtype))
    assert answer.isfinite().all()


def test_gradients_of_the_equations(draw):
    score, features = draw(M, H, W).requires_grad_(), draw(M, C, H, W).requires_grad_()
    assert gradcheck(gate, (score,))
    assert gradcheck(spatial_softmax, (score,))
    assert gradcheck(attend, (features, score))
    assert gradcheck(soft_pool, (features, "sum"))
    assert gradcheck(soft_pool, (features, "mean"))
    assert gradcheck(lambda x, s: marginalise(x.log_softmax(1), s), (features, score))
    for size in (0.05, 1, 5):  # all locations, some, one
        assert gradcheck(sparsemax, ((size * draw(3, H, W)).requires_grad_(),))
    for size in (1, 10):
        assert gradcheck(marginalise_log_odds, ((size * draw(M, A, H, W)).requires_grad_(), score))


# --- sparsemax --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score, expected",
    [
        ([0.5, 0.3, -1.0], [0.6, 0.4, 0.0]),  # the threshold is (0.5 + 0.3 - 1) / 2 = -0.1
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),  # a lead of one is all
        ([0.9, 0.0, 0.0], [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]),  # the threshold is (0.9 - 1) / 3
        ([7.0, 7.0, 7.0], [1 / 3] * 3),
        ([1e9, 1e9 - 256, -1e9], [1.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparsemax_by_hand(score, expected, dtype):
    alpha = sparsemax(torch.tensor(score, dtype=dtype).view(1, 1, 3))
    assert_close(alpha, torch.tensor(expected, dtype=dtype).view(1, 1, 3), check_dtype=True)


@pytest.mark.parametrize("size", [0.01, 0.3, 1.0, 30.0])
def test_sparsemax_is_the_nearest_point_of_the_simplex(draw, size):
    score, expected = size * draw(9, H, W), torch.empty(9, H, W, dtype=torch.float64)
    for m in range(9):
        low, high = score[m].max() - 1, score[m].max()
        for _ in range(80):  # the one threshold that leaves a sum of one
            middle = (low + high) / 2
            if (score[m] - middle).clamp(min=0).sum() > 1:
                low = middle
            else:
                high = middle
        expected[m] = (score[m] - low).clamp(min=0)
    alpha = sparsemax(score)
    assert_close(alpha, expected)
    assert_close(alpha.sum((1, 2)), torch.ones(9, dtype=torch.float64))
    others = torch.stack([spatial_softmax(3 * draw(9, H, W)) for _ in range(50)])
    distance = (alpha - score).square().sum((-2, -1))
    assert ((others - score).square().sum((-2, -1)) >= distance).all()


@pytest.mark.parametrize("other", [1e9, -1e9, math.nan])
def test_sparsemax_of_a_map_knows_nothing_of_the_others(other):
    score = torch.tensor([[[0.5, 0.3, -1.0]], [[other, 0.0, 0.0]]])
    assert_close(sparsemax(score)[0], torch.tensor([[0.6, 0.4, 0.0]]))


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
