"""What scorers share among the questions about an image, and how they start; tests/contract has their slow twins."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from progressive_attention.network.scorers import SCORERS, query_layer, start_queries

C = 3


@pytest.mark.parametrize("name", SCORERS)
def test_an_images_part_is_shared_among_its_questions(name):
    torch.manual_seed(0)
    scorer = SCORERS[name](C, num_queries=4, hidden=6, radius=2).double()
    features, image, query = torch.randn(3, C, 4, 5).double(), torch.tensor([0, 0, 2]), torch.tensor([1, 3, 1])
    score = scorer(features, query, image)
    assert score.shape == (3, 4, 5)
    for row in range(3):
        alone = scorer(features[image[row]][None], query[row][None])
        assert_close(score[row], alone[0])


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
