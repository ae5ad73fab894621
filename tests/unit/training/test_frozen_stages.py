"""What never changes is computed once and changes nothing; what learns does so at its module's rate."""

from dataclasses import replace

import pytest
import torch
from tiny_photographs import FROZEN, RECIPE, SMALL, about, finish, network, run
from tiny_runs import results
from torch import nn

from progressive_attention.evaluation import ask
from progressive_attention.training import learner
from progressive_attention.training.learner import frozen_modules, frozen_stages
from progressive_attention.training.loop import fit, training
from progressive_attention.training.optimizers import parameter_groups

# --- frozen stages ----------------------------------------------------------------------------------------------------

FROM_STAGE = {"backbone": "conv-stack-padded", "image_size": 16, "attend_at": (2, 3)}  # norms 0 and 1 lie in the trunk
NORMED_INSIDE = {**SMALL, "backbone": "conv-stack-norm-first"}


@pytest.mark.parametrize(
    "changes, frozen, stages",
    [
        (SMALL, [], 0),
        (SMALL, ["stages.0"], 1),
        (SMALL, ["stages"], 1),  # what the first attended stage gives is the last that no question reached
        (SMALL, ["stages.1"], 0),
        ({**SMALL, "attend_at": (1,)}, ["stages"], 0),  # the norm behind the first one learns
        ({**SMALL, "attend_at": (1,)}, ["stages", "norms"], 2),
        (FROM_STAGE, ["stages.0", "stages.1"], 0),
        (FROM_STAGE, ["stages.0", "stages.1", "norms.0"], 1),
        (FROM_STAGE, ["stages", "norms"], 3),
        (FROM_STAGE, ["stages.0", "stages.2", "norms"], 1),
        (NORMED_INSIDE, ["stages"], 1),
    ],
)
def test_stages_that_never_change(photograph_sets, changes, frozen, stages):
    model = network(photograph_sets[0], **changes)
    parameter_groups(replace(RECIPE, module_rates=tuple((name, 0.0) for name in frozen)), model)
    assert frozen_stages(model) == stages
    assert frozen_stages(nn.Linear(2, 2)) == 0


@pytest.mark.parametrize("name", ["pan-hard-ctx", "pan-soft-ctx", "san", "stn-m"])
@pytest.mark.parametrize("augment", ["none", "crop"])
def test_stages_that_are_not_computed_again(photograph_folder, name, augment, tmp_path, monkeypatch):
    """Features computed at every step, without gradient, give what the whole network gives, to the last bit."""
    recipe = replace(RECIPE, module_rates=(("stages", 0.0), ("norms", 0.0)), augment=augment, epochs=2)
    changes = {"backbone": "conv-stack-padded", "image_size": 16, "attend_at": (1, 2)}
    monkeypatch.setattr(ask, "KEEP_FEATURES", 0)
    finish(photograph_folder, recipe, tmp_path / "skipped", name=name, **changes)
    monkeypatch.setattr(learner, "frozen_stages", lambda model: 0)
    finish(photograph_folder, recipe, tmp_path / "whole", name=name, **changes)
    assert results(tmp_path / "skipped") == results(tmp_path / "whole")


def test_kept_features_are_those_to_half_precision(photograph_folder, tmp_path, monkeypatch):
    losses = []
    for room in (2**20, 0):
        monkeypatch.setattr(ask, "KEEP_FEATURES", room)
        losses.append([progress.loss for progress in run(photograph_folder, FROZEN, tmp_path / str(room))])
    assert losses[0] != losses[1]  # so they were kept
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_kept_features_spare_the_trunk(photograph_sets, monkeypatch, tmp_path):
    train, validation = photograph_sets
    model, seen = network(train), []
    trunk = model.trunk
    monkeypatch.setattr(model, "trunk", lambda image, stages: seen.append(len(image)) or trunk(image, stages))
    fit(model, train, validation, FROZEN, tmp_path, {})
    assert sum(seen) == len(train.images) + len(validation.images)  # in three epochs


@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize("changes", [SMALL, NORMED_INSIDE], ids=["norms behind", "norms inside"])
def test_frozen_modules_stay_as_they_are(photograph_sets, tmp_path, changes, augment):
    """Parameters and averages; all others change."""
    train, validation = photograph_sets
    frozen = (("stages.0", 0.0), ("norms.0", 0.0), ("scorers.0.query", 0.0))
    model = network(train, **changes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = replace(RECIPE, module_rates=frozen, augment=augment)
    fit(model, train, validation, recipe, tmp_path, about(model, train))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    expected = {name for name in before if not name.startswith(tuple(f"{name}." for name, _ in frozen))}
    assert changed == expected
    assert any("running_mean" in name for name in expected)


def test_only_whole_modules_keep_their_averages():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), nn.ReLU())
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    assert frozen_modules(model) == [model[1], model[1][0]]
    frozen_modules(model)[0].eval()
    assert not model[1][1].training


# --- rates of modules -------------------------------------------------------------------------------------------------


def test_rates_of_modules_reach_the_optimizer(photograph_sets, tmp_path, monkeypatch):
    recipe = replace(RECIPE, module_rates=(("stages", 0.1), ("stages.1", 0.0), ("classifier", 3.0)))
    made, rates = [], []
    make = learner.make_optimizer
    monkeypatch.setattr(learner, "make_optimizer", lambda *args: made.append(make(*args)) or made[0])
    model = network(photograph_sets[0])
    for _ in training(model, *photograph_sets, recipe, tmp_path, {}):
        rates.append([group["lr"] for group in made[0].param_groups])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(p)] for p in group["params"]} for group in made[0].param_groups]
    stages = {name for name in names.values() if name.startswith("stages.0.")}
    others = {name for name in names.values() if not name.startswith(("stages.", "classifier."))}
    assert groups == [stages, others, {"classifier.weight", "classifier.bias"}]
    assert [group["factor"] for group in made[0].param_groups] == [0.1, 1, 3]
    steps = [0.01] * 3 + [0.005] * 3 + [0.0025] * 3  # halved at every epoch
    assert rates == [pytest.approx([0.1 * rate, rate, 3 * rate], rel=1e-12) for rate in steps]
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {name for name in names.values() if name.startswith("stages.1.")}
    parameter_groups(replace(recipe, module_rates=()), model)  # what was frozen may learn again
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["stage", "stages.2", "classifier.", "Classifier"])
def test_rates_of_modules_that_the_network_lacks(photograph_sets, name):
    model = network(photograph_sets[0])
    known = "stages, stages.0, stages.1, norms, norms.0, .*, classifier"
    with pytest.raises(ValueError, match=rf"module_rates names '{name}', .*; it has {known}$"):
        parameter_groups(replace(RECIPE, module_rates=(("stages.0", 0.5), (name, 0.1))), model)


@pytest.mark.parametrize("name", ["pan-hard-ctx", "stn-m"])
def test_rates_of_transformers_go_with_any_network(photograph_sets, name):
    model = network(photograph_sets[0], name, backbone="conv-stack-padded", image_size=16, attend_at=(1, 2))
    groups = parameter_groups(replace(RECIPE, module_rates=(("localisation", 0.5),)), model)
    assert {group["factor"] for group in groups} == ({1.0, 0.5} if name == "stn-m" else {1.0})
