"""Each scorer, and the prior, against loops that can be checked with the papers in hand, in float64."""

import math
from itertools import product

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from progressive_attention.network.scorers import (
    SCORERS,
    AttentionScorer,
    ChannelPoolScorer,
    DotProductScorer,
    QueryPrior,
    query_layer,
    start_queries,
)

M, C, H, W = 2, 3, 4, 5  # rows, channels, cells down and across
PLACES = list(product(range(H), range(W)))
QUERIES, HIDDEN = 4, 6


@pytest.fixture
def draw():
    """Normal float64 numbers of a shape, other ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


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
    features, image, query = draw(3, C, H, W), torch.tensor([0, 0, 2]), torch.tensor([2, 0, 3])
    assert_close(scorer(features, query), slow_scores(scorer, radius, features, query))
    assert_close(scorer(features, query, image), slow_scores(scorer, radius, features[image], query))


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


@pytest.mark.parametrize("name, width, mean, std", [("mlp", 32, 0, 0.1), ("cbam", C, 1, 0.1), ("dot", 32, 0, 1)])
def test_what_queries_bring_at_first(name, width, mean, std):
    torch.manual_seed(0)
    drawn = SCORERS[name](C, num_queries=2000).query.weight.detach()  # cbam: a channel passes as it is, nearly
    assert drawn.shape == (2000, width)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.05 * std)
    assert float(drawn.std()) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("size", [0, 7])
def test_both_start_from_the_same_distribution(size):
    torch.manual_seed(0)
    layer = query_layer(1, size, 40_000)
    query = normalize(torch.randn(1, size)) if size else torch.tensor([0])
    for mean, std, start in ((0.0, 1.0, lambda: None), (1.0, 0.1, lambda: start_queries(layer, mean=1.0))):
        start()
        values = layer(query).detach()
        assert float(values.mean()) == pytest.approx(mean, abs=4 * std / 200)
        assert float(values.std()) == pytest.approx(std, rel=0.02)


# --- the prior --------------------------------------------------------------------------------------------------------


def test_each_location_is_fused_with_the_querys_vector():
    torch.manual_seed(0)
    prior, features, query = QueryPrior(3, 4, QUERIES).double(), torch.randn(2, 3, 2, 5).double(), [3, 1]
    fused = prior(features, torch.tensor(query))
    assert fused.shape == (2, 4, 2, 5)
    for m in range(2):
        for i in range(2):
            for j in range(5):
                expected = prior.feature.weight[:, :, 0, 0] @ features[m, :, i, j] + prior.query.weight[query[m]]
                assert_close(fused[m, :, i, j], expected.clamp(min=0))
