"""Trained networks on disk: bit for bit what was saved, and an error that names the file for anything broken."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from progressive_attention import saved as weights
from progressive_attention.files import read_json, write_json
from progressive_attention.network.backbone import BACKBONES, conv_stack
from progressive_attention.network.build import build_model, from_config
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.saved import network_folder

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


def test_layout_in_memory_changes_no_file_and_what_is_loaded_is_channels_last(tmp_path, model):
    other = from_config(model.config).to(memory_format=torch.contiguous_format)
    weights.save(tmp_path, other.state_dict(), weights.describe(model.config, **WORDS))
    for loaded in (weights.load(tmp_path).model, ProgressiveAttentionNetwork.from_pretrained(tmp_path)):
        assert_close(loaded.state_dict(), other.state_dict(), **EXACT)
        weight = loaded.stages[1][0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
        weights.save(tmp_path / "again", loaded.state_dict(), {})
        written = [(folder / "weights.safetensors").read_bytes() for folder in (tmp_path, tmp_path / "again")]
        assert written[0] == written[1]


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


@pytest.fixture
def clone(saved, monkeypatch, tmp_path):
    """A clone of the repository whose folder weights has a network; returns that folder's."""
    folder = tmp_path / "clone/weights/photographs-pan"
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns("clone"))
    (tmp_path / "clone/pyproject.toml").touch()
    monkeypatch.setattr(network_folder, "CLONE", tmp_path / "clone")
    return folder


def test_a_network_outside_the_package_goes_by_name_in_a_clone(clone, monkeypatch):
    assert weights.find("photographs-pan") == clone
    assert weights.pretrained() == {**{name: weights.SHIPPED / name for name in weights.shipped()}, clone.name: clone}
    assert "photographs-pan" not in weights.shipped()
    monkeypatch.setattr(network_folder, "find_spec", {"timm": None}.__getitem__)
    assert weights.pretrained()[clone.name] == clone
    with pytest.raises(ValueError, match=r"^photographs-pan needs timm, .*'progressive-attention\[photographs\]'$"):
        weights.load("photographs-pan")
    assert [name for name in weights.pretrained() if weights.missing(name)] == ["photographs-pan"]


@pytest.mark.parametrize("left_out", ["pyproject.toml", "weights/photographs-pan/config.json"])
def test_elsewhere_one_line_says_where_it_is(clone, monkeypatch, left_out, tmp_path):
    (tmp_path / "clone" / left_out).unlink()
    assert list(weights.pretrained()) == weights.shipped()
    with pytest.raises(ValueError, match=r"^photographs-pan .*weights/photographs-pan .*--weights FOLDER$"):
        weights.find("photographs-pan")


def test_half_precision_on_disk_is_a_float32_network(saved, model):
    halves = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    weights.save(saved, halves, read_json(saved / "config.json"))
    loaded = weights.load(saved).model.state_dict()
    expected = {name: t.float() if t.is_floating_point() else t for name, t in halves.items()}
    assert_close(loaded, expected, **EXACT)


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
    message = r"network in .*run can't be built: unknown backbone 'mine'; .*registered first, in .*backbone\.BACKBONES$"
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path / "run")


@pytest.mark.parametrize(
    "left_out, added, reason",
    [
        ("classifier.bias", {"classifier.bias": torch.zeros(4)}, r"size mismatch for classifier.bias.*\[4\].*\[3\]"),
        ("classifier.bias", {}, r"Missing key.*classifier.bias"),
        ("", {"another.bias": torch.zeros(4)}, r"Unexpected key.*another.bias"),
    ],
)
def test_weights_of_another_network(saved, left_out, added, reason):
    tensors = load_file(saved / "weights.safetensors")
    tensors.pop(left_out, None)
    save_file({**tensors, **added}, saved / "weights.safetensors")
    with pytest.raises(ValueError, match=rf"weights.safetensors does not hold this model's weights \({reason}"):
        weights.load(saved)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"attribute_names": ["a", "b"]}, "attribute_names must be 3 words, as in the model, each once; got"),
        ({"model": {"num_queries": 2}}, "num_attributes"),
        ({"model": {"num_queries": 2, "num_attributes": 3, "depth": 9}}, "depth"),
        ({"model": {"num_queries": 2, "num_attributes": 3, "radius": -1}}, "radius must be >= 0, got -1"),
        ({"model": {"num_queries": "2", "num_attributes": 3}}, "num_queries must be a whole number, got '2'"),
        ({"query_names": "ab"}, "query_names must be a list, got 'ab'"),
        ({"query_names": [1, 2]}, "query_names must be 2 words, as in the model, each once"),
        ({"query_names": ["cat", "cat"]}, "query_names must be 2 words, as in the model, each once"),
        ({"model": None}, "NoneType"),
    ],
)
def test_a_config_that_describes_no_model(saved, changes, reason):
    write_json(saved / "config.json", {**read_json(saved / "config.json"), **changes})
    with pytest.raises(ValueError, match=rf"config.json does not describe a model: .*{reason}"):
        weights.load(saved)
