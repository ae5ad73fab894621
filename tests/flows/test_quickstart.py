"""The quickstart, whole but tiny: a network trained for a few steps beside two that are not trained at all."""

import html
import json
import re

import numpy as np
import pytest
import torch
from own_folder import own_folder
from PIL import Image

from progressive_attention.cli import main
from progressive_attention.commands import quickstart
from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.network.build import build_model
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import describe, load, network_folder, save
from progressive_attention.training import loop as training

__all__ = ["own_folder"]  # a fixture
RUN = ["quickstart", "--out", "out", "--device", "cpu"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A quickstart of 24 images and 3 steps; networks without training stand for the pretrained ones."""
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "shipped")
    for name in quickstart.PRETRAINED:
        torch.manual_seed(0)
        model = build_model(name.partition("-")[2], num_queries=10, num_attributes=5)
        save(tmp_path / "shipped" / name, model.state_dict(), describe(model.config, tuple("0123456789"), COLOURS))
    monkeypatch.setattr(quickstart, "TRAINING", {**quickstart.TRAINING, "images": 24, "batch": 8})
    monkeypatch.setattr(quickstart, "TEST", 12)
    return tmp_path / "out"


def test_quickstart_twice(tiny, capsys):
    assert main(RUN) == 0
    printed, page = capsys.readouterr().out, (tiny / "report.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub("<[^>]*>", "", page))
    figures = json.loads((tiny / "quickstart.json").read_text())
    assert list(figures["results"]) == [quickstart.SMALL, *quickstart.PRETRAINED]
    for result in figures["results"].values():
        assert result["test"]["count"] == 12
        accuracy = f"{100 * result['test']['accuracy']:.1f} %"
        assert accuracy in text
        assert accuracy in printed
    assert figures["results"][quickstart.SMALL]["training"]["training images"] == "24"
    assert load(tiny / "pan").about["recipe"]["gate_price"] == 0.03
    with Image.open(tiny / "answers" / "mref-7.png") as picture:
        assert picture.width > 500
    (tiny / "pan" / "mine.txt").write_text("keep me")
    assert main(RUN) == 0
    assert json.loads((tiny / "quickstart.json").read_text()) == figures  # nothing is trained again
    assert (tiny / "pan" / "mine.txt").read_text() == "keep me"


def test_an_interrupted_quickstart_goes_on(tiny, monkeypatch):
    assert main([*RUN[:2], "whole", *RUN[3:]]) == 0
    whole = json.loads((tiny.with_name("whole") / "quickstart.json").read_text())
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    watch = quickstart.train.watch

    def cut(steps, *arguments):
        def some():
            for step in steps:
                yield step
                if step.step == 2:
                    raise KeyboardInterrupt

        watch(some(), *arguments)

    monkeypatch.setattr(quickstart.train, "watch", cut)
    assert main(RUN) == 130
    assert not (tiny / "report.html").exists()
    monkeypatch.setattr(quickstart.train, "watch", watch)
    assert main(RUN) == 0
    results = json.loads((tiny / "quickstart.json").read_text())["results"]
    assert results[quickstart.SMALL]["test"] == whole["results"][quickstart.SMALL]["test"]


def test_missing_weights_are_reported_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "none")
    assert main(RUN) == 2
    assert "no trained weights at 'mref-pan'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_example_is_the_scene_that_it_says():
    """Drawn by the library itself from digits of MNIST's test split, with every colour in it."""
    source = SceneSource("mref", "test", seed=2026)
    scene = source.scene(1133)
    with Image.open(quickstart.EXAMPLE) as picture:
        np.testing.assert_array_equal(np.asarray(picture), source.render(scene)[0])
    assert {digit.colour for digit in scene.digits} == set(range(len(COLOURS)))
    truth = {str(digit.number): COLOURS[digit.colour] for digit in scene.digits}
    for answer in Predictor(quickstart.PRETRAINED[0], "cpu").ask_all(quickstart.EXAMPLE, list(quickstart.QUERIES)):
        assert answer.attribute == truth[answer.query]
