"""A named network on a named set, ready to train: weights from the seed, all of it written down."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import ALL, TRAIN, VALIDATION
from torch import nn
from torch.testing import assert_close

from progressive_attention.data.questions import Labels
from progressive_attention.files import read_json
from progressive_attention.network.backbone import BACKBONES, Backbone
from progressive_attention.network.build import build_model, from_config, model_config
from progressive_attention.saved import weights
from progressive_attention.training.loop import fit
from progressive_attention.training.setup import prepared, start_at_shares

SMALL = {"hidden": 4, "attend_at": (0, 1)}


def ready(out, model="pan-soft-ctx", recipe=ALL, train=TRAIN, protocol="paper", seed=3, changes=SMALL):
    about = {"data": "squares", "protocol": protocol}
    device = torch.device("cpu")
    return prepared(model, train, VALIDATION, recipe, out, **about, seed=seed, device=device, changes=changes)


@pytest.mark.parametrize("protocol, reduction", [("paper", "sum"), ("authors", "mean")])
def test_config_json_tells_all(tmp_path, protocol, reduction):
    list(ready(tmp_path, protocol=protocol))
    about = read_json(tmp_path / "config.json")
    expected = {"name": "pan-soft-ctx", "data": "squares", "protocol": protocol, "images": 10, "questions": 15}
    assert {key: about[key] for key in expected} == expected
    assert (about["seed"], about["recipe"]["name"]) == (3, "all")
    assert (about["query_names"], about["attribute_names"]) == (["left", "right"], ["red", "green", "blue"])
    trained = weights.load(tmp_path)
    assert trained.model.config == model_config(
        "pan-soft-ctx", 2, 3, image_size=14, soft_reduction=reduction, hidden=4, attend_at=(0, 1)
    )


def test_a_change_outdoes_the_protocol(tmp_path):
    list(ready(tmp_path, protocol="authors", changes={**SMALL, "soft_reduction": "sum"}))
    assert read_json(tmp_path / "config.json")["model"]["soft_reduction"] == "sum"


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


def test_nothing_is_written_before_the_first_step(tmp_path):
    run = ready(tmp_path)
    assert inspect.getgeneratorstate(run) == inspect.GEN_CREATED
    assert not list(tmp_path.iterdir())


def test_the_recipes_prices_count(tmp_path):
    losses = [
        next(ready(tmp_path / str(price), recipe=replace(ALL, mask_price=price))).loss for price in (0.0, 1.0, 2.0)
    ]
    assert losses[0] < losses[1]
    assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-5, atol=0)


def test_wrong_choices_are_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="unknown model 'x'; known: .*pan-hard-ctx"):
        ready(tmp_path, model="x")
    large = replace(TRAIN, images=np.zeros((10, 100, 100, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="ConcatenationNetwork has none: set both to 0"):
        ready(tmp_path, model="concat", recipe=replace(ALL, gate_price=1.0), train=large, changes={})
    assert not list(tmp_path.iterdir())


class Uneven(nn.Module):
    """Branches that halve a map, one by rounding up."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, image):
        return self.one(image) + self.other(image)


@pytest.mark.parametrize("model", ["pan-hard-ctx", "san", "stn-m"])
def test_a_network_without_maps_is_not_trained(tmp_path, model, monkeypatch):
    """As no command could measure, ask or export it."""
    stages = [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)]
    monkeypatch.setitem(BACKBONES, "growing", lambda: Backbone(stages, ["a", "b", "c"], [4] * 3))
    message = "interpolate.* is unknown; so there are no maps on the image: choose .* such as resnet18"
    with pytest.raises(ValueError, match=message):
        ready(tmp_path, model=model, changes={"backbone": "growing", "hidden": 4})
    assert not list(tmp_path.iterdir())


def test_images_that_do_not_fit_the_backbone_are_told_at_once(tmp_path, monkeypatch):
    stage = nn.Sequential(nn.Conv2d(3, 4, 2), Uneven())
    monkeypatch.setitem(BACKBONES, "joining", lambda: Backbone([stage], ["a"], [4]))
    with pytest.raises(ValueError, match=r"of 14 x 14 pixels don't fit this backbone \(.*\); try a multiple of 32"):
        ready(tmp_path, changes={"backbone": "joining", "hidden": 4})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["pan-hard", "pan-soft", "stn-s"])
def test_a_network_that_knows_nothing_answers_the_attributes_shares(model):
    labels = Labels(np.array([0, 2, 3, 3, 4]), np.array([0, 1, 0, 1]), np.array([1, 1, 1, 0]), 3)
    network = build_model(model, num_queries=2, num_attributes=3, likelihood="bernoulli", image_size=46).eval()
    start_at_shares(network, labels)
    with torch.no_grad():
        network.classifier.weight.zero_()
        prediction = network(torch.rand(2, 3, 46, 46), torch.tensor([[0, 1], [1, -1]]))
    shares = torch.tensor([2.5, 1.5, 0.5]) / 5  # half a row of each kind joins the four
    assert_close(prediction.log_prob[0, 0].exp(), shares)
