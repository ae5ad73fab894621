"""A named network on a named set, ready to train: weights from the seed, all of it written down."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_photographs import RECIPE as PHOTOGRAPHS
from tiny_runs import ALL, TRAIN, VALIDATION
from torch import nn
from torch.testing import assert_close

from progressive_attention.config import MODELS
from progressive_attention.data.questions import Labels
from progressive_attention.files import read_json
from progressive_attention.network.backbone import BACKBONES, Backbone
from progressive_attention.network.build import build_model, from_config, model_config
from progressive_attention.saved import load
from progressive_attention.training.loop import fit
from progressive_attention.training.setup import prepared, start_at_shares

SMALL = {"hidden": 4, "attend_at": (0, 1)}


def ready(out, model="pan-soft-ctx", recipe=ALL, train=TRAIN, protocol="paper", seed=3, changes=SMALL):
    about = {"data": "squares", "protocol": protocol}
    device = torch.device("cpu")
    return prepared(model, train, VALIDATION, recipe, out, **about, seed=seed, device=device, changes=changes)


@pytest.mark.parametrize(
    "protocol, changes, reduction",
    [("paper", {}, "sum"), ("authors", {}, "mean"), ("authors", {"soft_reduction": "sum"}, "sum")],
)
def test_config_json_holds_all(tmp_path, protocol, changes, reduction):
    list(ready(tmp_path, protocol=protocol, changes={**SMALL, **changes}))
    about = read_json(tmp_path / "config.json")
    expected = {"name": "pan-soft-ctx", "data": "squares", "protocol": protocol, "images": 10, "questions": 15}
    assert {key: about[key] for key in expected} == expected
    assert (about["seed"], about["recipe"]["name"]) == (3, "all")
    assert (about["query_names"], about["attribute_names"]) == (["left", "right"], ["red", "green", "blue"])
    trained = load(tmp_path)
    assert trained.model.config == model_config(
        "pan-soft-ctx", 2, 3, image_size=14, soft_reduction=reduction, hidden=4, attend_at=(0, 1)
    )


def test_it_is_the_training_of_a_network_drawn_from_the_seed(tmp_path):
    torch.rand(7)  # whatever was drawn before
    list(ready(tmp_path / "prepared"))
    torch.manual_seed(3)
    model = from_config(model_config("pan-soft-ctx", 2, 3, image_size=14, **SMALL))
    fit(model, TRAIN, VALIDATION, ALL, tmp_path / "by hand", {}, seed=3)
    found, expected = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("prepared", "by hand"))
    assert found == expected
    list(ready(tmp_path / "other", seed=4))
    assert (tmp_path / "other" / "weights.safetensors").read_bytes() != expected


def test_the_recipes_prices_count(tmp_path):
    losses = [
        next(ready(tmp_path / str(price), recipe=replace(ALL, mask_price=price))).loss for price in (0.0, 1.0, 2.0)
    ]
    assert losses[0] < losses[1]
    assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-5, atol=0)


def test_wrong_choices_are_reported_at_once(tmp_path):
    with pytest.raises(ValueError, match="unknown model 'x'"):
        ready(tmp_path, model="x")
    large = replace(TRAIN, images=np.zeros((10, 100, 100, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="ConcatenationNetwork has none"):
        ready(tmp_path, model="concat", recipe=replace(ALL, gate_price=1.0), train=large, changes={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["pan-hard-ctx", "san", "stn-m"])
def test_a_network_without_maps_is_not_trained(tmp_path, model, monkeypatch):
    """As no command could measure, ask or export it."""
    stages = [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)]
    monkeypatch.setitem(BACKBONES, "growing", lambda: Backbone(stages, ["a", "b", "c"], [4] * 3))
    with pytest.raises(ValueError, match="no maps on the image"):
        ready(tmp_path, model=model, changes={"backbone": "growing", "hidden": 4})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", MODELS)
def test_the_classifier_starts_at_the_attributes_shares(model):
    labels = Labels(np.array([0, 1, 3, 3, 4]), np.array([0, 0, 1, 0]), np.array([1, 1, 1, 1], np.int8), 3)
    network = build_model(model, num_queries=2, num_attributes=3, likelihood="bernoulli")
    start_at_shares(network, labels)  # half a row of each kind joins the four
    assert_close(network.classifier.bias.detach(), torch.tensor([3.5 / 1.5, 1.5 / 3.5, 0.5 / 4.5]).log())
    start_at_shares(network, replace(labels, unlisted=-1, value=np.array([1, 0, 1, 1], np.int8)))
    assert_close(network.classifier.bias.detach(), torch.tensor([2.5 / 1.5, 1.5 / 0.5, 1.0]).log())


def test_prepared_trainings_start_there(photograph_sets, tmp_path):
    train, validation = photograph_sets
    recipe = replace(PHOTOGRAPHS, learning_rate=1e-9, epochs=1)
    names = {"data": "set", "protocol": "paper", "seed": 0, "device": torch.device("cpu")}
    list(prepared("pan-hard-ctx", train, validation, recipe, tmp_path, changes=SMALL, **names))
    true, known = train.attribute.totals
    expected = torch.from_numpy(np.log((true + 0.5) / (known - true + 0.5))).float()
    assert_close(load(tmp_path).model.classifier.bias.detach(), expected, rtol=0, atol=1e-6)
