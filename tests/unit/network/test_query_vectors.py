"""Networks whose queries have vectors: equal to those that learn them where they can be; other words are asked, too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import BY_TEXT, EXACT, QUERIES, build, every_likelihood, flat, loss_of, pictures
from tiny_text import WORDS, asked_by_letters, letters
from torch import nn
from torch.testing import assert_close

from progressive_attention.config import MODELS
from progressive_attention.network.build import build_model
from progressive_attention.predict.text_queries import knowing, unit_vectors

# --- the same equations -----------------------------------------------------------------------------------------------


KNOW_THE_QUERY = ("film", "concat", "pooled")
WITH_PRIOR = [name for name in MODELS if MODELS[name].get("network") not in KNOW_THE_QUERY]


@pytest.mark.parametrize("name, prior", [*((name, False) for name in MODELS), *((name, True) for name in WITH_PRIOR)])
def test_one_hot_vectors_are_learnt_vectors(name, prior):
    changes = {"dropout": 0.0, "prior": prior}
    learnt, asked = build(name, **changes), build(name, query_vectors=torch.eye(QUERIES), **changes)
    rest = {key: value for key, value in learnt.state_dict().items() if key in asked.state_dict()}
    layers = {key: one for key, one in learnt.named_modules() if isinstance(one, nn.Embedding)}
    rest = {key: value for key, value in rest.items() if key.removesuffix(".weight") not in layers}
    asked.load_state_dict(rest, strict=False)
    for key, layer in layers.items():
        linear = asked.get_submodule(key)
        linear.bias.data.normal_()
        linear.weight.data.copy_((layer.weight.data - linear.bias.data).T)
    image, query, attribute = (
        pictures(3),
        torch.tensor([[0, 4], [3, -1], [1, 2]]),
        torch.tensor([[0, 1], [2, -1], [1, 0]]),
    )
    outputs = [model(image, query) for model in (learnt, asked)]
    assert_close(flat(outputs[1]), flat(outputs[0]), **EXACT)
    for output in outputs:
        loss_of(output, attribute).backward()
    same = {key: one.grad for key, one in learnt.named_parameters() if key in rest}
    assert_close({key: asked.get_parameter(key).grad for key in same}, same, rtol=1e-9, atol=1e-9)
    assert layers
    for key, layer in layers.items():
        linear = asked.get_submodule(key)
        assert_close(linear.weight.grad.T, layer.weight.grad, rtol=1e-9, atol=1e-9)
        assert_close(linear.bias.grad, layer.weight.grad.sum(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [f"{name}{BY_TEXT}" for name in ("pan-hard-ctx", "stn-s", "film")])
@torch.no_grad()
def test_another_table_shares_the_weights(name):
    model, image = build(name).eval(), pictures(2)
    table = torch.cat([model.query_vectors[[3, 0]], torch.randn(5, 7).double()])
    other = model.asked_by(table)
    assert [one.data_ptr() for one in other.parameters()] == [one.data_ptr() for one in model.parameters()]
    assert (model.config.num_queries, other.config.num_queries) == (QUERIES, 7)
    expected = flat(model(image, torch.tensor([[3, 0], [0, -1]])))
    assert_close(flat(other(image, torch.tensor([[0, 1], [1, -1]]))), expected, **EXACT)
    assert other(image, torch.tensor([6, 6])).logit.isfinite().all()
    with pytest.raises(ValueError, match=r"in 0..4, .* got 6..6"):
        model(image, torch.tensor([6, 6]))


@pytest.mark.parametrize(
    "name, shape", [("pan-soft", (3, 7)), ("pan-hard-ctx by text", (3, 6)), ("film by text", (7,))]
)
def test_a_table_of_another_size_is_refused(name, shape):
    with pytest.raises(ValueError, match="query vectors must be \\(n, query_size\\), got"):
        build(name).asked_by(torch.zeros(shape))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"query_size": 4}, "query_size 4 needs query_vectors"),
        ({"query_vectors": torch.eye(3)}, "a vector for each of 5 queries, got 3"),
    ],
)
def test_a_network_needs_its_vectors(changes, told):
    with pytest.raises(ValueError, match=told):
        build_model("san", num_queries=5, num_attributes=3, **changes)


# --- words that training did not know ---------------------------------------------------------------------------------


@every_likelihood
@torch.no_grad()
def test_new_words_are_asked_beside_the_known(likelihood):
    known = asked_by_letters(likelihood=likelihood)
    more = knowing(known, ["cat", "a horse", "7", "a horse", "Käse"], letters)
    assert more.query_names == (*WORDS, "a horse", "Käse")
    assert known.query_names == WORDS
    image, ids = pictures(2), torch.tensor([[2, 5, 6], [-1, 3, 5]])
    vectors = unit_vectors(["cat", "a horse", "Käse", "7"], letters).double()
    by_hand = known.model.asked_by(vectors)
    assert_close(flat(more.model(image, ids)), flat(by_hand(image, torch.tensor([[0, 1, 2], [-1, 3, 1]]))), **EXACT)
    assert not torch.equal(more.model(image, ids).logit[0, 0], more.model(image, ids).logit[0, 1])
    assert knowing(known, ["dog", "7"]) is known  # and needs no encoder


def test_words_are_refused_where_they_cannot_be_asked():
    learnt = replace(asked_by_letters(), model=build("pan-hard-ctx"))
    with pytest.raises(ValueError, match="unknown query 'a horse'; this network knows: car, dog, cat, 7, house"):
        knowing(learnt, ["car", "a horse"], letters)
    with pytest.raises(ValueError, match="unknown query 'a horse', .* those of 'letters': give its vector in a file"):
        knowing(asked_by_letters(), ["a horse"])
    for wrong in (lambda texts: letters(texts)[:, ::-1], lambda texts: letters(texts)[:, :5]):
        with pytest.raises(ValueError, match="the vector of 'car' is another one than in training, by 'letters'"):
            knowing(asked_by_letters(), ["a horse"], wrong)


@pytest.mark.parametrize(
    "vectors, told",
    [
        (np.zeros((2, 3)), "the vector of 'a' is zero or not finite"),
        (np.array([[1.0, 2], [np.nan, 1]]), "the vector of 'b' is zero or not finite"),
        (np.ones((3, 2)), r"vectors \(2, D\) of 2 queries, got \(3, 2\)"),
        (np.ones(2), r"vectors \(2, D\) of 2 queries, got \(2,\)"),
    ],
)
def test_what_is_no_vector_is_refused(vectors, told):
    with pytest.raises(ValueError, match=told):
        unit_vectors(["a", "b"], lambda texts: vectors)
