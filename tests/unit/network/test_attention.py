"""Each equation against loops that can be checked with the paper in hand, in float64, and its gradient."""

import inspect
import math
from itertools import product

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.network.equations import (
    at_least_float32,
    attend,
    gate,
    marginalise,
    soft_pool,
    sparsemax,
    spatial_softmax,
)
from progressive_attention.network.scorers import SCORERS, AttentionScorer, ChannelPoolScorer, DotProductScorer

M, C, H, W, A = 2, 3, 4, 5, 3  # rows, channels, cells down and across, attributes
PLACES = list(product(range(H), range(W)))
QUERIES, HIDDEN = 4, 6


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


def test_attend_keeps_the_precision_of_the_features(draw):
    assert attend(draw(M, C, H, W).bfloat16(), draw(M, H, W).float()).dtype == torch.bfloat16


@pytest.mark.parametrize("reduction, divisor", [("sum", 1), ("mean", H * W)])
def test_soft_pool_adds_up_all_locations(draw, reduction, divisor):
    attended = draw(M, C, H, W)
    expected = torch.zeros(M, C, 1, 1, dtype=torch.float64)
    for m, (i, j) in product(range(M), PLACES):
        for c in range(C):
            expected[m, c] += attended[m, c, i, j] / divisor
    assert_close(soft_pool(attended, reduction), expected)


def test_soft_pool_sums_unless_told(draw):
    attended = draw(M, C, H, W)
    assert_close(soft_pool(attended), soft_pool(attended, "sum"))


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_have_at_least_float32(dtype):
    assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == torch.promote_types(dtype, torch.float32)


def test_gradients_of_the_equations(draw):
    score, features = draw(M, H, W).requires_grad_(), draw(M, C, H, W).requires_grad_()
    assert gradcheck(gate, (score,))
    assert gradcheck(spatial_softmax, (score,))
    assert gradcheck(attend, (features, score))
    assert gradcheck(soft_pool, (features, "sum"))
    assert gradcheck(soft_pool, (features, "mean"))
    assert gradcheck(lambda x, s: marginalise(x.log_softmax(1), s), (features, score))


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


def test_sparsemax_ignores_what_is_added_to_all_and_lets_nan_through(draw):
    score = draw(M, H, W)
    assert_close(sparsemax(score + 5), sparsemax(score))
    assert sparsemax(score * math.nan).isnan().all()
    assert (sparsemax(3 * score) == 0).any()


@pytest.mark.parametrize("other", [1e9, -1e9, math.nan])
def test_sparsemax_of_a_map_knows_nothing_of_the_others(other):
    score = torch.tensor([[[0.5, 0.3, -1.0]], [[other, 0.0, 0.0]]])
    assert_close(sparsemax(score)[0], torch.tensor([[0.6, 0.4, 0.0]]))


def test_gradient_of_sparsemax(draw):
    for size in (0.05, 1, 5):  # all locations, some, one
        assert gradcheck(sparsemax, ((size * draw(3, H, W)).requires_grad_(),))


# --- g_att ------------------------------------------------------------------------------------------------------------


def slow_scores(scorer: AttentionScorer, radius: int, features: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Figure 5b at every location: two layers on [the stacked local context F_ij, the one-hot query]; eq. (7)."""
    around = list(product(range(-radius, radius + 1), repeat=2))
    blocks = [scorer.context.weight[:, :, di + radius, dj + radius] for di, dj in around]
    first = torch.cat([*blocks, scorer.query.weight.T], 1)  # (hidden, (2δ+1)² C + queries)
    rows, _, height, width = features.shape
    scores = torch.empty(rows, height, width, dtype=features.dtype)
    for m, i, j in product(range(rows), range(height), range(width)):
        stacked = []
        for di, dj in around:
            inside = 0 <= i + di < height and 0 <= j + dj < width
            stacked.append(features[m, :, i + di, j + dj] if inside else torch.zeros_like(features[m, :, 0, 0]))
        one_hot = torch.zeros(len(scorer.query.weight), dtype=features.dtype)
        one_hot[query[m]] = 1
        hidden = (first @ torch.cat([*stacked, one_hot])).clamp(min=0)
        scores[m, i, j] = scorer.score.weight[0, :, 0, 0] @ hidden + scorer.score.bias[0]
    return scores


@pytest.fixture(params=[0, 1, 2], ids=lambda radius: f"radius {radius}")
def radius(request):
    return request.param


@pytest.fixture
def scorer(radius):
    torch.manual_seed(0)
    return AttentionScorer(C, QUERIES, HIDDEN, radius).double()


def test_scorer_is_the_perceptron_on_the_stacked_neighbourhood(draw, scorer, radius):
    features, query = draw(3, C, H, W), torch.tensor([2, 0, 3])
    assert_close(scorer(features, query), slow_scores(scorer, radius, features, query))


def test_scorer_has_no_context_and_small_queries_unless_told():
    plain, loud = AttentionScorer(C, 500, HIDDEN), AttentionScorer(C, 500, HIDDEN, radius=2, query_std=1.0)
    assert (plain.context.kernel_size, loud.context.kernel_size) == ((1, 1), (5, 5))
    assert plain.query.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert loud.query.weight.std().item() == pytest.approx(1, rel=0.1)


def test_scorer_reads_no_farther_than_its_radius(draw, scorer, radius):
    features = draw(1, C, 9, 9).requires_grad_()
    scorer(features, torch.tensor([0]))[0, 4, 4].backward()
    touched = features.grad.abs().sum((0, 1)) > 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[4 - radius : 5 + radius, 4 - radius : 5 + radius] = True
    assert_close(touched, expected)


def test_scorer_shares_an_images_part_among_its_questions(draw, scorer):
    shared, image, query = draw(3, C, H, W), torch.tensor([0, 0, 2]), torch.tensor([1, 3, 1])
    assert_close(scorer(shared, query, image), scorer(shared[image], query))


def test_gradient_of_the_scorer(draw, scorer):
    shared, image, query = draw(2, C, H, W).requires_grad_(), torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    names, values = zip(*scorer.named_parameters(), strict=True)

    def scores(features: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(scorer, dict(zip(names, values, strict=True)), (features, query, image))

    assert gradcheck(scores, (shared, *values))


def test_scorer_gives_float32_under_bfloat16(scorer):
    with torch.autocast("cpu", torch.bfloat16):
        assert scorer.float()(torch.ones(1, C, H, W), torch.tensor([0])).dtype == torch.float32


# --- other scorers ----------------------------------------------------------------------------------------------------


def slow_channel_pool(scorer: ChannelPoolScorer, features: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    scores = torch.empty(len(features), H, W, dtype=features.dtype)
    for m, (i, j) in product(range(len(features)), PLACES):
        total = scorer.score.bias[0].clone()
        for di, dj in product(range(-3, 4), repeat=2):
            if 0 <= i + di < H and 0 <= j + dj < W:
                weighed = [features[m, c, i + di, j + dj] * scorer.query.weight[query[m], c] for c in range(C)]
                pooled = sum(weighed) / C, max(weighed)
                total += sum(scorer.score.weight[0, n, di + 3, dj + 3] * pooled[n] for n in range(2))
        scores[m, i, j] = total
    return scores


def slow_dot(scorer: DotProductScorer, features: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    scores = torch.empty(len(features), H, W, dtype=features.dtype)
    for m, (i, j) in product(range(len(features)), PLACES):
        key = scorer.key.weight[:, :, 0, 0] @ features[m, :, i, j]
        scores[m, i, j] = sum(key[d] * scorer.query.weight[query[m], d] for d in range(HIDDEN)) / math.sqrt(HIDDEN)
    return scores


OTHERS = pytest.mark.parametrize("name, slow", [("cbam", slow_channel_pool), ("dot", slow_dot)])


@OTHERS
def test_other_scorers_are_the_loops_and_share_an_images_part(draw, name, slow):
    torch.manual_seed(0)
    scorer = SCORERS[name](C, QUERIES, HIDDEN, 2).double()
    shared, image, query = draw(3, C, H, W), torch.tensor([0, 0, 2]), torch.tensor([1, 3, 1])
    with torch.no_grad():
        assert_close(scorer(shared, query), slow(scorer, shared, query))
        assert_close(scorer(shared, query, image), slow(scorer, shared[image], query))


def test_one_scorer_may_stand_for_another():
    assert len({str(inspect.signature(scorer)) for scorer in SCORERS.values()}) == 1


@pytest.mark.parametrize("name, width, mean, std", [("mlp", 32, 0, 0.1), ("cbam", C, 1, 0.1), ("dot", 32, 0, 1)])
def test_what_queries_bring_at_first(name, width, mean, std):
    torch.manual_seed(0)
    drawn = SCORERS[name](C, num_queries=2000).query.weight.detach()  # cbam: a channel passes as it is, nearly
    assert drawn.shape == (2000, width)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.05 * std)
    assert float(drawn.std()) == pytest.approx(std, rel=0.05)


@OTHERS
def test_gradient_of_other_scorers(draw, name, slow):
    scorer = SCORERS[name](C, QUERIES, HIDDEN).double()
    shared, image, query = draw(2, C, H, W).requires_grad_(), torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    names, values = zip(*scorer.named_parameters(), strict=True)

    def scores(features: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(scorer, dict(zip(names, values, strict=True)), (features, query, image))

    assert gradcheck(scores, (shared, *values))


@OTHERS
def test_other_scorers_give_float32_under_bfloat16(name, slow):
    with torch.autocast("cpu", torch.bfloat16):
        assert SCORERS[name](C, QUERIES)(torch.ones(1, C, H, W), torch.tensor([0])).dtype == torch.float32
