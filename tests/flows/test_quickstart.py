"""The quickstart, whole but tiny: a network trained for a few steps beside two that are not trained at all."""

import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from progressive_attention.commands import quickstart_work as quickstart
from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.network.build import build_model
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import describe, load, network_folder, save
from progressive_attention.training import loop as training

ABOUT = {"images": 30, "questions": 210, "best": {"train_seconds": 1.0, "validation_accuracy": 0.2}}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A quickstart of 24 images and 3 steps; networks without training stand for the pretrained ones."""
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "shipped")
    for name in quickstart.PRETRAINED:
        torch.manual_seed(0)
        model = build_model(name.partition("-")[2], num_queries=10, num_attributes=5)
        recipe = {"epochs": 3, "optimizer": "muon", "learning_rate": 0.01, "batch": 32}
        about = describe(model.config, tuple("0123456789"), COLOURS, recipe=recipe, **ABOUT)
        save(tmp_path / "shipped" / name, model.state_dict(), about)
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quickstart, "RECIPE", quickstart.RECIPE.with_changes(batch=8))
    sizes = {"IMAGES": 24, "TEST": 12, "VALIDATION": 24, "SHOWN": 2, "SHOWN_WRONG": 1, "EXAMPLE_QUERIES": ("7",)}
    for name, value in sizes.items():
        monkeypatch.setattr(quickstart, name, value)
    return tmp_path / "out"


def run(out, **options) -> tuple[str, dict]:
    """What it printed, and its figures."""
    printed = io.StringIO()
    path = quickstart.quickstart(out, device="cpu", console=Console(file=printed, width=100), **options)
    assert path == out / "report.html"
    return printed.getvalue(), json.loads((out / "quickstart.json").read_text())


def test_quickstart(tiny):
    printed, figures = run(tiny)
    assert printed.splitlines()[-1] == f"report: {tiny / 'report.html'}"
    page = (tiny / "report.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub("<[^>]*>", "", page))
    assert page.count("data:image/png;base64,") == 1 + 2 + 1  # curve, scenes, answers
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
    assert "query 7, answer" in page
    (tiny / "pan" / "mine.txt").write_text("keep me")
    assert run(tiny)[1] == figures  # nothing is trained again
    assert (tiny / "pan" / "mine.txt").read_text() == "keep me"


def test_an_interrupted_quickstart_goes_on(tiny, monkeypatch):
    whole = run(tiny.with_name("whole"))[1]["results"][quickstart.SMALL]["test"]
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    prepared = quickstart.prepared

    def cut(*arguments, **options):
        for step in prepared(*arguments, **options):
            yield step
            if step.step == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "prepared", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tiny)
    assert not (tiny / "report.html").exists()
    monkeypatch.setattr(quickstart, "prepared", prepared)
    assert run(tiny)[1]["results"][quickstart.SMALL]["test"] == whole


def test_missing_weights_are_reported_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no trained weights at 'mref-pan'"):
        quickstart.quickstart(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scenes_to_show():
    correct = np.ones(30, bool)
    correct[[1, 20, 25]] = False
    first = list(range(quickstart.SHOWN - quickstart.SHOWN_WRONG))
    assert quickstart.scenes_to_show(correct) == [*first, len(first), 20, 25]
    assert quickstart.scenes_to_show(np.ones(2, bool)) == [0, 1]


def test_example_is_the_scene_that_it_says():
    """Drawn by the library itself from digits of MNIST's test split, with every colour in it."""
    source = SceneSource("mref", "test", seed=2026)
    scene = source.scene(1133)
    with Image.open(quickstart.EXAMPLE) as picture:
        np.testing.assert_array_equal(np.asarray(picture), source.render(scene)[0])
    assert {digit.colour for digit in scene.digits} == set(range(len(COLOURS)))
    truth = {str(digit.number): COLOURS[digit.colour] for digit in scene.digits}
    for name in quickstart.PRETRAINED[:1]:
        for answer in Predictor(name, "cpu").ask_all(quickstart.EXAMPLE, list(quickstart.EXAMPLE_QUERIES)):
            assert answer.attribute == truth[answer.query]
