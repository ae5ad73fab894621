"""The query once more, in front of the classifier: against the slow twin, and what it lets a network know."""

import pytest
import torch
from slow_networks import slow_forward
from tiny_models import EXACT, SCORING, build, flat, loss_of, pictures
from torch.testing import assert_close

from progressive_attention.config import MODELS

WITH_PRIOR = [name for name in MODELS if name not in ("film", "concat")]
every_model = pytest.mark.parametrize("name", WITH_PRIOR)
QUERY = torch.tensor([[4, 0, -1], [1, 2, 3]])


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli"])
@torch.no_grad()
def test_whole_network_against_a_slow_twin(name, likelihood):
    model, image, query = build(name, prior=True, likelihood=likelihood).eval(), pictures(2), QUERY.clamp(min=0)
    assert_close(tuple(flat(model(image, query))), tuple(flat(slow_forward(model, image, query))), **EXACT)


@every_model
def test_every_parameter_is_used_and_bfloat16_stays_out(name, tmp_path):
    model = build(name, dropout=0.0, prior=True, likelihood="bernoulli").float()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(pictures(3).float(), torch.tensor([[0, 1], [2, 3], [4, 0]]))
    assert prediction.logit.dtype == torch.float32
    loss_of(prediction, torch.tensor([[0, 1], [2, 0], [1, 2]])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    for key in ("prior.feature.weight", "prior.query.weight"):
        assert model.get_parameter(key).grad.abs().max() > 0


@pytest.mark.parametrize("name", ["han", "san", "stn-s"])
@torch.no_grad()
def test_without_it_one_image_seen_alike_is_answered_alike(name):
    """Where attention and transformers are made deaf to the query, it reaches the answer through the prior alone."""
    for prior in (False, True):
        model = build(name, prior=prior).eval()
        for key, parameter in model.named_parameters():
            if key.startswith(("scorers", "localisers")) and key.endswith("query.weight"):
                parameter.zero_()
        one, other = model(pictures(1), torch.tensor([[0, 1]])).logit[0]
        assert torch.equal(one, other) != prior


@pytest.mark.parametrize("name", ["film", "concat"])
def test_networks_whose_classifier_knows_the_query_refuse_it(name):
    with pytest.raises(ValueError, match=rf"that of {name} already knows it; leave prior False, or choose .*pan-\*"):
        build(name, prior=True)
