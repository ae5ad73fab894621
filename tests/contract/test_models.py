"""One contract for every model, on tiny images: shapes, maps, gradients, questions together or one at a time.

62 px is the smallest side that leaves the papers' network more than one cell (2 x 2) to choose from in its last map.
"""

import copy

import pytest
import torch
from slow_networks import slow_forward
from tiny_models import (
    ATTRIBUTES,
    BY_TEXT,
    EXACT,
    QUERIES,
    SCORING,
    build,
    every_likelihood,
    every_model,
    flat,
    loss_of,
    pictures,
    sides,
)
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention.network.question_network import Prediction
from progressive_attention.saved import describe, load, save
from progressive_attention.training.objectives import answer_loss

# --- what comes out ---------------------------------------------------------------------------------------------------


def assert_probabilities(prediction: Prediction, likelihood: str, **tolerance: float) -> None:
    """Of all attributes they sum to one, or each is that of its odds."""
    assert prediction.likelihood == likelihood
    if likelihood == "softmax":
        assert prediction.log_prob is prediction.logit
        total = prediction.log_prob.logsumexp(-1)
        assert_close(total, torch.zeros_like(total), **tolerance)
    else:
        assert_close(prediction.log_prob.exp(), 1 / (1 + (-prediction.logit).exp()), **tolerance)


@every_model
@pytest.mark.parametrize("likelihood, shape, train", [("softmax", (3,), True), ("bernoulli", (3, 2), False)])
def test_outputs_keep_k_and_maps_are_attention(name, likelihood, shape, train):
    model, k = build(name, likelihood=likelihood).train(train), 1 if len(shape) == 1 else shape[1]
    prediction = model(pictures(3), torch.arange(3 * k).view(shape) % QUERIES)
    assert prediction.logit.shape == (3, k, ATTRIBUTES)
    assert [tuple(alpha.shape) for alpha in prediction.attention] == [(3, k, side, side) for side in sides(name)]
    assert [m.shape for m in prediction.magnitude] == [alpha.shape for alpha in prediction.attention]
    assert_probabilities(prediction, likelihood)
    for alpha, magnitude in zip(prediction.attention, prediction.magnitude, strict=True):
        assert ((alpha >= 0) & (alpha <= 1)).all()
        assert (magnitude >= 0).all()
    for alpha in prediction.attention[-1:]:  # the others are gates; no map where there is none
        assert_close(alpha.sum((-2, -1)), torch.ones(3, k, dtype=torch.float64))
    transforms = {"stn-s": 1, "stn-m": 4}.get(name.removesuffix(BY_TEXT), 0)
    assert [tuple(transform.shape) for transform in prediction.transform] == [(3, k, 2, 3)] * transforms


@every_model
@every_likelihood
def test_bfloat16_arithmetic_still_gives_float32_probabilities(name, likelihood):
    model = build(name, likelihood=likelihood).float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(pictures(2).float(), torch.tensor([[0, 1], [2, 3]]))
    assert {values.dtype for values in flat(prediction)} == {torch.float32}
    assert_probabilities(prediction, likelihood, rtol=0, atol=1e-5)
    for alpha in prediction.attention[-1:]:
        assert_close(alpha.sum((-2, -1)), torch.ones(2, 2))


@torch.no_grad()
@pytest.mark.parametrize("name, radius", [*((name, None) for name in SCORING), ("pan-hard-ctx", 2)])
@pytest.mark.parametrize("likelihood, prior", [("softmax", False), ("softmax", True), ("bernoulli", True)])
def test_whole_network_against_a_slow_twin(name, radius, likelihood, prior):
    changes = {} if radius is None else {"radius": radius}
    model, image = build(name, likelihood=likelihood, prior=prior, **changes).eval(), pictures(2)
    query = torch.tensor([[4, 0, 4], [1, 2, 3]])
    assert_close(tuple(flat(model(image, query))), tuple(flat(slow_forward(model, image, query))), **EXACT)


@every_model
@torch.no_grad()
def test_channels_last_by_itself_with_the_same_answers(name):
    model, image, query = build(name).eval(), pictures(2), torch.tensor([[0, 1], [2, 3]])
    outputs = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 2:
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    prediction = model(image, query)
    assert len(outputs) >= 8
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in outputs)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    rows = plain.answer(image, plain.question(query.flatten()), torch.tensor([0, 0, 1, 1]), 0)
    assert_close([values.flatten(0, 1) for values in flat(prediction)], flat(rows), **EXACT)


# --- questions together, alone, or missing ----------------------------------------------------------------------------


@every_model
@every_likelihood
@torch.no_grad()
def test_k_questions_at_once_are_answered_as_one_at_a_time(name, likelihood):
    model, image = build(name, likelihood=likelihood).eval(), pictures(3)
    query = torch.tensor([[0, 1, 2], [3, 3, 4], [4, 0, 1]])
    together = flat(model(image, query))
    for k in range(3):
        for b in range(3):
            alone = flat(model(image[b : b + 1], query[b : b + 1, k]))
            assert_close([values[b, k] for values in together], [values[0, 0] for values in alone], **EXACT)


def after_a_step(model: nn.Module, image: torch.Tensor, query: torch.Tensor) -> tuple[list, dict, dict]:
    """Outputs in training mode, the buffers they leave behind, and gradients of some loss of the outputs."""
    model = copy.deepcopy(model).train()
    torch.manual_seed(1)  # dropout
    prediction = model(image, query)
    sum(values.square().sum() for values in (prediction.logit, *prediction.attention, *prediction.transform)).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    return flat(prediction), dict(model.named_buffers()), gradients


@every_model
def test_no_question_is_zeros_and_leaves_the_others_as_they_are(name):
    model, image, asked = build(name), pictures(2), torch.tensor([[0, 2], [1, 3]])
    padded, places = torch.tensor([[0, -1, 2], [1, 3, -1]]), ([[0, 0], [1, 1]], [[0, 2], [0, 1]])
    outputs, buffers, gradients = after_a_step(model, image, padded)
    expected, buffers_expected, gradients_expected = after_a_step(model, image, asked)
    for values in outputs:
        assert_close(values[padded == -1], torch.zeros_like(values[padded == -1]), rtol=0, atol=0)
    assert_close([values[places] for values in outputs], expected, **EXACT)
    assert_close(buffers, buffers_expected, **EXACT)
    assert_close(gradients, gradients_expected, **EXACT)


@every_model
def test_an_image_that_nobody_asks_about_changes_nothing(name):
    model, image, query = build(name), pictures(3), torch.tensor([[0, 2], [-1, -1], [1, -1]])
    outputs, buffers, gradients = after_a_step(model, image, query)
    expected, buffers_expected, gradients_expected = after_a_step(model, image[[0, 2]], query[[0, 2]])
    for values in outputs:
        assert_close(values[1], torch.zeros_like(values[1]), rtol=0, atol=0)
    assert_close([values[[0, 2]] for values in outputs], expected, **EXACT)
    assert_close(buffers, buffers_expected, **EXACT)
    assert_close(gradients, gradients_expected, **EXACT)


@every_model
def test_no_question_at_all(name):
    model = build(name).eval()
    for b, k in ((2, 2), (2, 0), (0, 2)):
        logit = model(pictures(b), torch.full((b, k), -1)).logit
        assert_close(logit, torch.zeros(b, k, ATTRIBUTES, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("name, shared", [("pan-hard-ctx", 1), ("han", 4)])
def test_the_trunk_is_run_once_an_image(name, shared):
    model, rows = build(name).eval(), {}
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output, key=key: rows.update({key: len(output)}))
    model(pictures(2), torch.tensor([[0, 1, 2], [3, 4, -1]]))
    for layer in range(4):
        assert rows[f"stages.{layer}.0"] == (2 if layer < shared else 5)
    first = "0" if shared == 1 else "3"
    assert (rows[f"scorers.{first}.context"], rows[f"scorers.{first}.score"]) == (2, 5)


# --- learning ---------------------------------------------------------------------------------------------------------


@every_model
@every_likelihood
def test_every_parameter_is_used(name, likelihood):
    model = build(name, dropout=0.0, likelihood=likelihood)
    query, attribute = torch.tensor([[0, 1], [2, 3], [4, 0]]), torch.tensor([[0, 1], [2, 0], [1, 2]])
    loss_of(model(pictures(3), query), attribute).backward()
    unused = {"scorers.3.score.bias"}  # a softmax does not see what is added to all its scores
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        size = parameter.grad.abs().max().item()
        assert size < 1e-12 if key in unused else size > 1e-9, f"{key}: {size}"


@every_model
@pytest.mark.parametrize("train, likelihood", [(True, "softmax"), (False, "bernoulli")])
def test_gradient_of_the_loss(name, train, likelihood):
    model = build(name, dropout=0.0, likelihood=likelihood).train(train)
    image, query, attribute = pictures(2), torch.tensor([[0, 1], [2, -1]]), torch.tensor([[0, 1], [2, -1]])
    ends = ("query.weight", "score.weight", "affine.bias", "affine.weight", "film.1.weight")
    keys = [key for key, _ in model.named_parameters() if key.endswith(ends)]
    keys += ["classifier.bias", "stages.0.0.bias", "norms.0.weight"]
    whole = [model.get_parameter(key).detach() for key in keys]
    values = [weight.flatten()[:4].clone().requires_grad_() for weight in whole]  # a few of each

    def loss(*values: torch.Tensor) -> torch.Tensor:
        changed = {
            key: torch.cat([value, weight.flatten()[4:]]).view_as(weight)
            for key, value, weight in zip(keys, values, whole, strict=True)
        }
        return loss_of(torch.func.functional_call(model, changed, (image, query)), attribute)

    assert gradcheck(loss, values, eps=1e-8)  # so small that few maxima change place, few samples their cell


@every_model
def test_eight_images_can_be_memorised(name):
    model = build(name, dropout=0.0).float().train()
    image, query, attribute = pictures(8).float(), torch.arange(8) % QUERIES, torch.arange(8)[:, None] % ATTRIBUTES
    # A spatial transformer at the full rate may look beside the image, never to return; table1.toml has a tenth for it.
    rates = {key: 0.001 if key.startswith("locali") else 0.01 for key, _ in model.named_parameters()}
    optimizer = torch.optim.Adam([{"params": [model.get_parameter(key)], "lr": rate} for key, rate in rates.items()])
    for _ in range(150):
        loss = answer_loss(model(image, query).logit, attribute)
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"the loss is still {loss:.3f}")


@every_model
def test_same_seed_same_weights(name):
    one, same, other = (build(name, seed).state_dict() for seed in (3, 3, 4))
    assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


@every_model
@torch.no_grad()
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model = build(name, likelihood="bernoulli", prior=name in ("pan-hard-ctx", "stn-s")).float().eval()
    image, query = pictures(2).float(), torch.tensor([[0, 1], [2, -1]])
    words = [str(i) for i in range(QUERIES)], [str(i) for i in range(ATTRIBUTES)]
    save(tmp_path, model.state_dict(), describe(model.config, *map(tuple, words)))
    loaded = load(tmp_path).model
    assert loaded.config == model.config
    assert_close(flat(loaded(image, query)), flat(model(image, query)), rtol=0, atol=0)
