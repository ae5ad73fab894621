"""Recipes and network configurations: what they take, what they refuse, and that old files still describe a network."""

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progressive_attention.config import RECIPES, ModelConfig, Recipe

PLAIN = RECIPES["fast"]


def with_rates(*pairs) -> Recipe:
    return PLAIN.with_changes(module_rates=pairs)


# --- rates by module --------------------------------------------------------------------------------------------------


def test_the_innermost_module_named_sets_the_rate():
    recipe = with_rates(("stages", 0.1), ("stages.1", 0), ("stages.1.0.weight", 2), ("scorers", 3))
    expected = {
        "stages.0.0.weight": 0.1,
        "stages.1.0.bias": 0,
        "stages.1.0.weight": 2,
        "stages.10.0.weight": 0.1,  # stages.1 is another module
        "scorers.3.query.weight": 3,
        "scorer.weight": 1,
        "classifier.bias": 1,
    }
    assert {name: recipe.rate_factor(name) for name in expected} == expected
    assert {PLAIN.rate_factor(name) for name in expected} == {1}


@given(st.permutations([("a", 0.5), ("a.b", 0.0), ("a.b.c", 2.0), ("b", 3.0)]))
def test_the_order_of_rates_changes_nothing(pairs):
    factors = {"a.x": 0.5, "a.b": 0.0, "a.b.x": 0.0, "a.b.c.x": 2.0, "b.a": 3.0, "ab": 1.0}
    assert {name: with_rates(*pairs).rate_factor(name) for name in factors} == factors


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (None, "module_rates must be a list, got None; give pairs of a module's name"),
        ([("stages", 0.1, 2)], r"module_rates\[0\] must be of length 2"),
        ([(0.1, "stages")], r"module_rates\[0\]\[0\] must be text"),
        ([("stages", 0.1), ("stages", 1)], "module_rates must name each module once; got .*stages.*stages"),
        ([("a", 1), ("stages", -0.1)], r"module_rates\[1\]\[1\] must be >= 0"),
        ([("stages", math.inf)], r"module_rates\[0\]\[1\] must be < 1e\+300"),
    ],
)
def test_rates_that_are_none(rates, message):
    with pytest.raises(ValueError, match=message):
        Recipe("r", "adam", 0.1, "step", 1, 1, "all", module_rates=rates)


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_recipe_comes_back_from_json_and_can_be_a_key(recipe):
    fields = json.loads(json.dumps(asdict(recipe)))
    assert {recipe: recipe.name}[Recipe(**fields)] in RECIPES
    del fields["module_rates"], fields["augment"]  # old files know neither
    assert Recipe(**fields) == replace(recipe, module_rates=(), augment="none")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; known: rmsprop, adam, adamw, muon"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"mask_price": -1.0}, r"mask_price must be >= 0\.0, got -1\.0; 0 charges nothing"),
        ({"gate_price": math.nan}, "gate_price must be >= 0.0, got nan"),
        ({"patience": -1}, "patience must be >= 0, got -1; 0 never stops early"),
        ({"learning_rate": math.inf}, "learning_rate must be < .*, got inf"),
        ({"batch": "a"}, "batch must be a whole number, got 'a'"),
        ({"clip": True}, "clip must be a number, got True"),
        ({"bf16": 1}, "bf16 must be true or false, got 1"),
    ],
)
def test_recipes_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        PLAIN.with_changes(**changes)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_comes_back_from_json():
    config = ModelConfig(5, 3, ("pool3", "pool5"), likelihood="bernoulli", prior=True)
    fields = json.loads(json.dumps(asdict(config)))
    assert ModelConfig(**fields) == config
    del fields["likelihood"], fields["prior"]  # old files are softmax without prior
    assert ModelConfig(**fields) == replace(config, likelihood="softmax", prior=False)


def test_lists_of_json_become_tuples_and_whole_numbers_stay():
    """A number that changed its type would change the names of runs."""
    recipe = PLAIN.with_changes(module_rates=[["stages", 1]], gate_price=1)
    assert recipe.module_rates == (("stages", 1),)
    assert (type(recipe.gate_price), type(ModelConfig(5, 3, [1]).attend_at)) == (int, tuple)
