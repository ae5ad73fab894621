"""`pan train --backbone`: what starts from random weights says so, and what can't be had is told in a line."""

import json
from pathlib import Path

import pytest
import timm
from own_folder import own_folder
from safetensors.torch import save_file

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
        (
            ["--backbone", "resnet18", "--backbone-weights", "vgg16.tv_in1k"],
            "'vgg16.tv_in1k' are of another architecture than backbone 'resnet18'",
        ),
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
