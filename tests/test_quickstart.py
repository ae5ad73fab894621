"""The quickstart, whole but tiny: two networks trained for a few steps."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from test_report import Page

from progressive_attention import network_folder, pacing, quickstart, training, weights
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.synthetic import SceneSource
from progressive_attention.models import build_model
from progressive_attention.predictor import Predictor


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped weights with an untrained network in it."""
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "shipped")
    torch.manual_seed(0)
    model = build_model("pan-hard-ctx", num_queries=10, num_attributes=5)
    about = weights.describe(model.config, tuple("0123456789"), COLOURS)
    weights.save(tmp_path / "shipped" / quickstart.SHIPPED, model.state_dict(), about)
    return tmp_path / "shipped"


@pytest.fixture
def tiny(shipped, tmp_path, monkeypatch):
    """A quickstart of 24 images, 6 steps a network."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quickstart, "RECIPE", quickstart.RECIPE.with_changes(batch=8, epochs=2))
    for module, name, value in (
        *((quickstart, "TEST", 12), (quickstart, "VALIDATION", 24), (quickstart, "SHOWN", 2)),
        *(
            (quickstart, "EXAMPLE_QUERIES", ("7",)),
            (quickstart, "SHOWN_WRONG", 1),
            (pacing, "FEWEST", 8),
            (pacing, "MOST", 24),
            (pacing, "UNIT", 8),
        ),
        *((pacing, "WARM_UP", 1), (pacing, "TIMED", 1)),
    ):
        monkeypatch.setattr(module, name, value)
    return tmp_path / "out"


def run(out, **options) -> tuple[str, dict]:
    """What it printed, and its figures."""
    told = io.StringIO()
    path = quickstart.quickstart(out, device="cpu", console=Console(file=told, width=100), **options)
    assert path == out / "report.html"
    return told.getvalue(), json.loads((out / "quickstart.json").read_text())


def test_quickstart(tiny):
    told, results = run(tiny)
    assert told.splitlines()[-1] == f"report: {tiny / 'report.html'}"
    assert results["finished"]
    assert (results["plan"]["images"], results["plan"]["epochs"]) == (24, 2)
    page = Page((tiny / "report.html").read_text(encoding="utf-8"))
    assert len(page.pictures) == 1 + 2 + 1  # curve, scenes, answers
    for name in quickstart.NETWORKS:
        figures = results["results"][name]
        assert figures["test"]["count"] == 12
        accuracy = f"{100 * figures['test']['accuracy']:.1f} %"
        assert accuracy in page.text
        assert accuracy in told
        assert figures["training"]["steps"] == "6 of 8 images"
        assert figures["training"]["training images"] == "24"
        assert weights.load(tiny / name).about["best"]["validation_accuracy"] >= 0
    assert "24 images x 2 epochs" in page.text
    assert "12 scenes" in page.text
    for query in quickstart.EXAMPLE_QUERIES:
        with Image.open(tiny / "answers" / f"mref-{query}.png") as picture:
            assert picture.width > 500
        assert f"query {query}, answer" in str(page.attributes)


def test_again_starts_cleanly_and_repeats(tiny):
    _, first = run(tiny)
    (tiny / "san" / "mine.txt").write_text("keep me")
    told, second = run(tiny)
    assert "going on" not in told
    assert first["results"]["san"]["test"] == second["results"]["san"]["test"]
    assert first["results"]["pan-hard-ctx"]["test"] == second["results"]["pan-hard-ctx"]["test"]
    assert (tiny / "san" / "mine.txt").read_text() == "keep me"
    _, other = run(tiny, seed=1)  # a different one takes the place of what was there
    assert other["plan"]["seed"] == 1
    assert weights.load(tiny / "san").about["seed"] == 1


def test_interrupted_quickstart_goes_on(tiny, monkeypatch):
    whole = run(tiny.with_name("whole"))[1]["results"]
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    side_by_side = pacing.side_by_side

    def cut(runs, show, limit):
        def until_third(name, step, seconds):
            show(name, step, seconds)
            if step.step == 4:
                raise KeyboardInterrupt

        return side_by_side(runs, until_third, limit)

    monkeypatch.setattr(pacing, "side_by_side", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tiny)
    assert not (tiny / "report.html").exists()
    monkeypatch.setattr(pacing, "side_by_side", side_by_side)
    told, results = run(tiny)
    assert "going on with 24 images x 2 epochs" in told
    for name in quickstart.NETWORKS:
        assert results["results"][name]["test"] == whole[name]["test"]
        assert results["results"][name]["training"]["steps"] == "6 of 8 images"


def test_stops_when_time_is_up(tiny, monkeypatch):
    """A machine that became slower than it was when timed: the report tells what was left out."""
    monkeypatch.setattr(pacing, "side_by_side", lambda runs, show, limit, real=pacing.side_by_side: real(runs, show, 0))
    told, results = run(tiny)
    assert "time is up: san stops at step 1 of 6" in told
    assert results["results"]["san"]["training"]["steps"] == "1 of 6 of 8 images"
    assert results["results"]["san"]["training"]["validation accuracy"] == "–"
    assert "1 of 6" in (tiny / "report.html").read_text(encoding="utf-8")


def test_missing_weights_are_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no trained weights at 'mref-pan-hard-ctx'"):
        quickstart.quickstart(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_must_be_a_time(tmp_path, minutes):
    with pytest.raises(ValueError, match=f"minutes must be > 0, got {minutes}"):
        quickstart.quickstart(tmp_path, minutes=minutes)


def test_too_few_minutes(tiny, monkeypatch):
    monkeypatch.setattr(pacing, "FEWEST", 10**9)
    with pytest.raises(ValueError, match=r"too little time: even 1,000,000,000 .* at least [\d.]+e?\+?\d* times"):
        run(tiny)


@pytest.mark.parametrize(
    ("each", "budget", "expected"),
    [
        (0.01, 10.0, (1_000, 1)),
        (0.01, 10.1, (1_000, 1)),
        (0.01, 270.0, (27_000, 1)),
        (0.01, 300.0, (30_000, 1)),
        (0.0077, 270.0, (17_500, 2)),
        (0.0001, 270.0, (30_000, 6)),
    ],
)
def test_size_fits(each, budget, expected):
    assert pacing.choose_size(each, budget, 6) == expected
    images, epochs = expected
    assert images * epochs * each <= budget * (1 + 1e-9)


def test_side_by_side_keeps_shares_level():
    order = []

    def steps(count):
        return (SimpleNamespace(step=i + 1, steps=count) for i in range(count))

    runs = {"long": steps(6), "short": steps(3)}
    assert pacing.side_by_side(runs, lambda name, step, seconds: order.append(name), 60) == []
    assert order == ["long", "short", "long", "long", "short", "long", "long", "short", "long"]
    assert pacing.side_by_side({"a": steps(3), "b": steps(3)}, lambda *told: None, 0) == ["a", "b"]


def test_scenes_to_show():
    assert quickstart.scenes_to_show(np.ones(20, bool)) == list(range(10))
    some = np.ones(40, bool)
    some[[3, 20, 30, 35, 39]] = False
    assert quickstart.scenes_to_show(some) == [*range(7), 20, 30, 35]
    some[[30, 35, 39]] = True
    assert quickstart.scenes_to_show(some) == [*range(7), 7, 8, 20]
    assert quickstart.scenes_to_show(np.zeros(4, bool)) == [0, 1, 2, 3]


def test_example_is_the_scene_that_it_says():
    """Drawn by the library itself from digits of MNIST's test split, with every colour in it."""
    source = SceneSource("mref", "test", seed=2026)
    scene = source.scene(1133)
    with Image.open(quickstart.EXAMPLE) as picture:
        np.testing.assert_array_equal(np.asarray(picture), source.render(scene)[0])
    assert {digit.colour for digit in scene.digits} == set(range(len(COLOURS)))
    assert set(quickstart.EXAMPLE_QUERIES) <= {str(digit.number) for digit in scene.digits}


@pytest.mark.skipif(quickstart.SHIPPED not in weights.shipped(), reason="no shipped weights yet")
def test_shipped_network_knows_the_example():
    source = SceneSource("mref", "test", seed=2026)
    truth = {str(digit.number): COLOURS[digit.colour] for digit in source.scene(1133).digits}
    for answer in Predictor(quickstart.SHIPPED, "cpu").ask_all(quickstart.EXAMPLE, list(quickstart.EXAMPLE_QUERIES)):
        assert answer.attribute == truth[answer.query]
