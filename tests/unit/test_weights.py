"""Trained networks on disk: bit for bit what was saved, and an error that names the file for anything broken."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from progressive_attention.files import read_json, write_json
from progressive_attention.network.backbone import BACKBONES, conv_stack
from progressive_attention.network.build import ProgressiveAttentionNetwork, build_model, from_config
from progressive_attention.saved import network_folder, weights

WORDS = {"query_names": ("cat", "dog"), "attribute_names": ("red", "small", "wet")}
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(scope="module")
def model() -> ProgressiveAttentionNetwork:
    torch.manual_seed(0)
    return build_model("pan-hard-ctx", num_queries=2, num_attributes=3, hidden=4)


@pytest.fixture
def saved(tmp_path, model):
    """A folder with a whole trained network."""
    weights.save(tmp_path, model.state_dict(), weights.describe(model.config, **WORDS, data="made up", score=0.5))
    return tmp_path


def test_what_was_saved_comes_back_bit_for_bit(saved, model):
    trained = weights.load(saved)
    assert_close(trained.model.state_dict(), model.state_dict(), **EXACT)
    assert not trained.model.training
    assert trained.model.config == model.config
    assert (trained.query_names, trained.attribute_names) == tuple(WORDS.values())
    assert (trained.about["data"], trained.about["score"], trained.about["format"]) == ("made up", 0.5, weights.FORMAT)
    assert trained.about == read_json(saved / "config.json")
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "weights.safetensors"]


def test_saving_again_gives_the_same_bytes(saved, model, tmp_path):
    weights.save(tmp_path / "again", weights.load(saved).model.state_dict(), read_json(saved / "config.json"))
    for name in ("config.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_weights_in_another_memory_layout_are_saved(tmp_path, model):
    other = from_config(model.config).to(memory_format=torch.channels_last)
    weights.save(tmp_path, other.state_dict(), weights.describe(model.config, **WORDS))
    assert_close(weights.load(tmp_path).model.state_dict(), other.state_dict(), **EXACT)


def test_a_folder_may_be_given_as_text(saved):
    assert weights.find(str(saved)) == weights.find(saved) == saved


def test_shipped_networks_go_by_name(saved, monkeypatch, tmp_path):
    shipped = tmp_path / "shipped"
    shutil.copytree(saved, shipped / "mref-pan", ignore=shutil.ignore_patterns("shipped"))
    (shipped / "no-network").mkdir()
    monkeypatch.setattr(network_folder, "SHIPPED", shipped)
    assert weights.shipped() == ["mref-pan"]
    assert weights.find("mref-pan") == shipped / "mref-pan"
    weights.load("mref-pan")
    with pytest.raises(ValueError, match="no trained weights at 'mref-pam': expected a folder .*, or one of: mref-pan"):
        weights.load("mref-pam")


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_a_network_says_what_belongs_there(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "none")
    expected = "no trained weights at .*: expected a folder with config.json and weights.safetensors .*: none shipped"
    with pytest.raises(ValueError, match=expected):
        weights.load(tmp_path / folder)


# --- broken folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_truncated_weights(saved, keep):
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"weights.safetensors does not hold this model's weights .*may be truncated"):
        weights.load(saved)


def test_a_backbone_of_your_own_must_be_registered_first(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "mine", conv_stack)
    model = build_model("pan-soft", num_queries=2, num_attributes=3, hidden=4, backbone="mine")
    weights.save(tmp_path / "run", model.state_dict(), weights.describe(model.config, **WORDS))
    assert weights.load(tmp_path / "run").model.config == model.config
    monkeypatch.delitem(BACKBONES, "mine")
    message = (
        r"network in .*run can't be built: unknown backbone 'mine'; .*registered first, in .*backbones\.BACKBONES$"
    )
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path / "run")


def test_missing_weights(saved):
    (saved / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors does not exist; train again or copy the whole folder"):
        weights.load(saved)


def change_shape(tensors):
    tensors["classifier.bias"] = torch.zeros(4)


def leave_out(tensors):
    del tensors["classifier.bias"]


def add(tensors):
    tensors["another.bias"] = torch.zeros(4)


@pytest.mark.parametrize(
    "change, reason",
    [
        (change_shape, r"size mismatch for classifier.bias.*\[4\].*\[3\]"),
        (leave_out, r"Missing key.*classifier.bias"),
        (add, r"Unexpected key.*another.bias"),
    ],
)
def test_weights_of_another_network(saved, change, reason):
    tensors = load_file(saved / "weights.safetensors")
    change(tensors)
    save_file(tensors, saved / "weights.safetensors")
    with pytest.raises(ValueError, match=rf"weights.safetensors does not hold this model's weights \({reason}"):
        weights.load(saved)


def test_broken_config(saved):
    path = saved / "config.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"config.json is not valid JSON .*may be truncated"):
        weights.load(saved)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"query_names": ["cat"]}, "its names and the model's sizes differ"),
        ({"attribute_names": ["a", "b"]}, "its names and the model's sizes differ"),
        ({"model": {"num_queries": 2}}, "num_attributes"),
        ({"model": {"num_queries": 2, "num_attributes": 3, "depth": 9}}, "depth"),
        ({"model": {"num_queries": 2, "num_attributes": 3, "radius": -1}}, "radius must be >= 0, got -1"),
        ({"model": {"num_queries": "2", "num_attributes": 3}}, "num_queries must be a whole number, got '2'"),
        ({"model": {"num_queries": 2, "num_attributes": 3, "hidden": 2.5}}, "hidden must be a whole number, got 2.5"),
        (
            {"model": {"num_queries": 2, "num_attributes": 3, "attend_at": [[0]]}},
            r"attend_at\[\d\] must be a whole number or text",
        ),
        ({"model": {"num_queries": 2, "num_attributes": 3, "image_size": 10**6}}, "image_size must be <= 10000"),
        ({"query_names": "ab"}, "query_names must be a list, got 'ab'"),
        ({"query_names": [1, 2]}, "query_names must be words, each once"),
        ({"query_names": ["cat", "cat"]}, "query_names must be words, each once"),
        ({"model": None}, "NoneType"),
        ({"query_names": None}, "NoneType"),
    ],
)
def test_a_config_that_describes_no_model(saved, changes, reason):
    write_json(saved / "config.json", {**read_json(saved / "config.json"), **changes})
    with pytest.raises(ValueError, match=rf"config.json does not describe a model: .*{reason}"):
        weights.load(saved)


@pytest.mark.parametrize("about", [{}, [], None, "text"])
def test_a_config_that_is_something_else(saved, about):
    (saved / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"config.json does not describe a model: "):
        weights.load(saved)


@pytest.mark.parametrize("name, size", [("hidden", 4097), ("hidden", 10**30), ("radius", 10**6), ("image_size", 10**6)])
def test_absurd_sizes_take_no_memory(saved, name, size):
    about = read_json(saved / "config.json")
    write_json(saved / "config.json", {**about, "model": {**about["model"], name: size}})
    for load in (weights.load, ProgressiveAttentionNetwork.from_pretrained):
        with pytest.raises(ValueError, match=f"config.json does not describe a model: {name} must be <= "):
            load(saved)


@pytest.mark.parametrize("old, new", network_folder.REPLACED.items())
def test_a_replaced_name_points_to_the_new_one(old, new):
    with pytest.raises(ValueError, match=f"{old} no longer comes with the package; use {new}"):
        weights.load(old)
    assert new in weights.shipped()
