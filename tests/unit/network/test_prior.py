"""The query once more, in front of the classifier: against the slow twin, and what it lets a network know."""

from itertools import pairwise

import pytest
import torch
from test_models import slow_forward
from tiny_models import ATTRIBUTES, EXACT, QUERIES, SCORING, build, flat, loss_of, pictures
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.config import MODELS, ModelConfig
from progressive_attention.network.scorers import QueryPrior
from progressive_attention.saved import weights

WITH_PRIOR = [name for name in MODELS if name not in ("film", "concat")]
every_model = pytest.mark.parametrize("name", WITH_PRIOR)
QUERY = torch.tensor([[4, 0, -1], [1, 2, 3]])


def test_each_location_is_fused_with_the_querys_vector():
    torch.manual_seed(0)
    prior, features, query = QueryPrior(3, 4, QUERIES).double(), torch.randn(2, 3, 2, 5).double(), [4, 1]
    fused = prior(features, torch.tensor(query))
    assert fused.shape == (2, 4, 2, 5)
    for m in range(2):
        for i in range(2):
            for j in range(5):
                expected = prior.feature.weight[:, :, 0, 0] @ features[m, :, i, j] + prior.query.weight[query[m]]
                assert_close(fused[m, :, i, j], expected.clamp(min=0))


def test_fusion_keeps_the_precision_of_the_features():
    with torch.autocast("cpu", torch.bfloat16):
        assert QueryPrior(3, 4, QUERIES)(torch.ones(1, 3, 2, 2), torch.tensor([0])).dtype == torch.bfloat16


def test_gradient_of_the_fusion():
    torch.manual_seed(0)
    prior, features = QueryPrior(3, 4, QUERIES).double(), torch.randn(2, 3, 2, 2).double().requires_grad_()
    names, values = zip(*prior.named_parameters(), strict=True)

    def fused(features: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(prior, changed, (features, torch.tensor([1, 1])))

    assert gradcheck(fused, (features, *values))


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("likelihood", ["softmax", "bernoulli"])
@torch.no_grad()
def test_whole_network_against_a_slow_twin(name, likelihood):
    model, image, query = build(name, prior=True, likelihood=likelihood).eval(), pictures(2), QUERY.clamp(min=0)
    assert_close(tuple(flat(model(image, query))), tuple(flat(slow_forward(model, image, query))), **EXACT)


@every_model
@torch.no_grad()
def test_k_questions_at_once_are_answered_as_one_at_a_time(name):
    model, image = build(name, prior=True).eval(), pictures(2)
    together = model(image, QUERY)
    assert_close(together.logit[0, 2], torch.zeros(ATTRIBUTES, dtype=torch.float64), rtol=0, atol=0)
    for b, k in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]:
        alone = model(image[b : b + 1], QUERY[b : b + 1, k])
        assert_close(together.logit[b, k], alone.logit[0, 0], **EXACT)


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


@pytest.mark.parametrize("name", ["pan-hard-ctx", "stn-s"])
@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model, image = build(name, prior=True).float().eval(), pictures(2).float()
    words = [tuple(str(i) for i in range(count)) for count in (QUERIES, ATTRIBUTES)]
    weights.save(tmp_path, model.state_dict(), weights.describe(model.config, *words))
    loaded = weights.load(tmp_path).model
    assert loaded.config.prior
    assert_close(flat(loaded(image, QUERY)), flat(model(image, QUERY)), rtol=0, atol=0)


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


def test_its_width_is_the_last_maps_channels():
    for name, entered in (("pan-soft", 32), ("han", 32), ("stn-m", 32 * 2 * 2)):
        model = build(name, prior=True)
        assert model.prior.feature.weight.shape == (32, entered, 1, 1)
        assert model.prior.query.weight.shape == (QUERIES, 32)
        assert model.classifier.weight.shape[1] == 32
        assert build(name).prior is None


def test_dropout_and_norm_keep_their_places():
    """Norm, fusion, dropout, classifier."""
    model, order = build("pan-hard", prior=True), []
    for key, module in model.named_modules():
        if key in ("norms.3", "prior", "dropout", "classifier"):
            module.register_forward_hook(lambda module, inputs, output, key=key: order.append((key, inputs[0], output)))
    model(pictures(2), torch.tensor([0, 1]))
    assert [key for key, _, _ in order] == ["norms.3", "prior", "dropout", "classifier"]
    for (_, _, given), (_, taken, _) in pairwise(order):
        assert given is taken


@pytest.mark.parametrize("name", ["film", "concat"])
def test_networks_whose_classifier_knows_the_query_refuse_it(name):
    with pytest.raises(ValueError, match=rf"that of {name} already knows it; leave prior False, or choose .*pan-\*"):
        build(name, prior=True)


def test_no_prior_unless_asked_for():
    assert not ModelConfig(2, 2).prior
    assert isinstance(build("san").classifier, nn.Conv2d)
