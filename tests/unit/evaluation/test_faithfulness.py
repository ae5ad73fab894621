"""Deletion and insertion on a network whose answer depends on pixels that we know."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from progressive_attention.evaluation.faithfulness import (
    BASELINES,
    area,
    curves,
    deletion_insertion,
    places,
    rank_correlation,
)
from progressive_attention.network.question_network import Prediction

SIDE = 8
QUERY = torch.tensor([0, 1, 4])


class Linear(nn.Module):
    """Two answers, the log-odds of the first a weighed sum of the pixels less 6; the query shifts the weights' rows."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def log_odds(self, image: Tensor, query: Tensor) -> Tensor:
        weight = torch.stack([self.weight.roll(int(shift), -2) for shift in query])
        return (image * weight).sum((1, 2, 3)) - 6

    def forward(self, image: Tensor, query: Tensor) -> Prediction:
        odds = self.log_odds(image, query)
        return Prediction(torch.stack([odds, -odds], -1).div(2).log_softmax(-1)[:, None], [], [])


@pytest.fixture
def linear() -> Linear:
    weight = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    weight[:, 2, 1:6] = torch.arange(1, 6) / 3
    return Linear(weight)


@pytest.fixture
def image() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) / 5
    for i, shift in enumerate(QUERY):
        image[i, :, (2 + shift) % SIDE, 1:6] += 0.8
    return image


def true_maps(linear: Linear, image: Tensor) -> Tensor:
    weight = torch.stack([linear.weight.detach().roll(int(shift), -2) for shift in QUERY])
    return (image * weight).sum(1)


def test_the_map_of_what_the_answer_depends_on_wins(linear, image):
    true = true_maps(linear, image)
    maps = {"true": true, "turned": -true, "random": torch.zeros_like(true)}
    areas = deletion_insertion(linear, image, QUERY, maps)
    for baseline in BASELINES:
        best, worst, random = (areas[name][baseline] for name in maps)
        assert (best["deletion"] < random["deletion"]).all()
        assert (random["deletion"] < worst["deletion"]).all()
        assert (best["insertion"] > random["insertion"]).all()
        assert (random["insertion"] > worst["insertion"]).all()


def test_curves_and_areas_as_a_slow_twin_has_them(linear, image):
    steps, black = 7, torch.zeros_like(image[0])  # 64 pixels can't be cut into seven equal parts
    true = true_maps(linear, image)
    areas = deletion_insertion(linear, image, QUERY, {"true": true}, steps=steps)["true"]["black"]
    for i, query in enumerate(QUERY):
        order = sorted(range(SIDE**2), key=lambda pixel: -true[i].flatten()[pixel])
        known = len(true[i].nonzero())  # the order of the others is drawn, and changes nothing
        probabilities = {"deletion": [], "insertion": []}
        for step in range(steps + 1):
            count = 0
            while count < SIDE**2 * step / steps:
                count += 1
            without, only = image[i].clone(), black.clone()
            for pixel in order[: min(count, known)]:
                row, column = divmod(pixel, SIDE)
                without[:, row, column] = 0
                only[:, row, column] = image[i, :, row, column]
            for kind, picture in (("deletion", without), ("insertion", only)):
                odds = sum((linear.weight.detach().roll(int(query), -2) * picture).flatten().tolist()) - 6
                probabilities[kind].append(1 / (1 + np.exp(-odds)))
        for kind, values in probabilities.items():
            slow = sum((one + other) / 2 / steps for one, other in pairwise(values))
            assert areas[kind][i].item() == pytest.approx(slow, abs=1e-12)


def test_curves_share_their_ends(linear, image):
    baseline = image.mean((2, 3), keepdim=True).expand_as(image)
    place = places(true_maps(linear, image), np.random.PCG64(0))
    deletion, insertion = curves(lambda given: linear.log_odds(given, QUERY[:1]), image[0], baseline[0], place[0])
    whole, none = (linear.log_odds(given[:1], QUERY[:1])[0] for given in (image, baseline))
    assert torch.allclose(torch.stack([deletion[0], insertion[-1]]), whole)
    assert torch.allclose(torch.stack([deletion[-1], insertion[0]]), none)
    assert torch.allclose(deletion + insertion, whole + none)  # of a linear answer, what one lacks the other has


def test_area_is_that_under_a_straight_line_exactly():
    assert area(torch.linspace(1, 0, 21, dtype=torch.float64)).item() == pytest.approx(0.5)


def test_ties_are_broken_by_the_seed():
    levels = torch.arange(SIDE**2).view(SIDE, SIDE) // 16  # four levels of sixteen equal pixels
    maps = torch.stack([levels, -levels, torch.zeros_like(levels)]).double()
    one, same, other = (places(maps, np.random.PCG64(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    for place in one:
        assert torch.equal(place.sort().values, torch.arange(SIDE**2))
    highest_first = levels.flatten()[one[0].argsort()]
    assert torch.equal(highest_first, levels.flatten().sort(descending=True).values)
    for level in range(4):  # equal pixels come in the order of the random map, whatever their level
        pixels = (levels.flatten() == level).nonzero()[:, 0]
        ranks = [place[pixels].argsort() for place in one]
        assert torch.equal(ranks[0], ranks[2])
        assert torch.equal(ranks[1], ranks[2])


def test_each_question_has_ties_of_its_own(linear, image):
    same = image[:1].expand_as(image)
    areas = deletion_insertion(linear, same, QUERY[:1].expand(3), {"random": torch.zeros(3, SIDE, SIDE)})
    assert len(set(areas["random"]["black"]["deletion"].tolist())) == 3


def test_a_map_of_another_size_is_rejected(linear, image):
    with pytest.raises(ValueError, match=r"map 'last' must be .*\(3, 8, 8\), got \(3, 4, 4\)"):
        deletion_insertion(linear, image, QUERY, {"last": torch.zeros(3, 4, 4)})


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, SIDE, SIDE))
    few, fewer = rng.integers(0, 5, (SIDE, SIDE)), rng.integers(0, 2, (SIDE, SIDE))  # with many ties
    for a, b in ((one, other), (one, few), (few, fewer), (one, np.exp(one)), (few, -few)):
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    assert rank_correlation(one, np.ones_like(one)) == 0  # where Spearman's is undefined
