"""What ships is what its card says."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from progressive_attention import Predictor
from progressive_attention import saved as weights
from progressive_attention.data.scenes import SceneSource
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.absence import figures_of, scored
from progressive_attention.evaluation.evaluate import evaluate
from progressive_attention.files import read_json
from progressive_attention.saved import network_folder
from progressive_attention.saved.model_card import when_absent

NAMES = weights.shipped()
EXAMPLE = weights.SHIPPED.parent / "examples" / "mref.png"
ROOT = Path(__file__).parents[2]
SHIP = runpy.run_path(str(ROOT / "tools/ship_weights.py"))


@pytest.mark.parametrize("name", NAMES)
def test_card_and_config_agree(name: str) -> None:
    """The card is the one that the config gives: with accuracy, command, and how absent things are recognised."""
    folder = weights.SHIPPED / name
    about, card = read_json(folder / "config.json"), (folder / "README.md").read_text(encoding="utf-8")
    assert card == SHIP["card"](folder)
    accuracy = f"| accuracy | {about['test']['accuracy']:.2%} (95 %"
    for part in (accuracy, about["command"], when_absent(about["absence"])):
        assert part in card
    assert about["test"]["count"] == 10_000
    assert (folder / "weights.safetensors").stat().st_size < 1_000_000
    assert name == f"{about['data']}-{about['name']}"


def test_a_run_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run among the results becomes what ships, but for what was measured later."""
    monkeypatch.setattr(network_folder, "SHIPPED", tmp_path)
    monkeypatch.setitem(SHIP["main"].__globals__, "SHIPPED", tmp_path)
    run = next((ROOT / "results/weights").glob("mref-san-*"))
    monkeypatch.setattr(sys, "argv", ["ship_weights.py", str(run), "it"])
    SHIP["main"]()
    assert str(tmp_path / "it") in capsys.readouterr().out
    shipped = read_json(EXAMPLE.parents[1] / "weights/mref-san/config.json")
    assert read_json(tmp_path / "it/config.json").items() <= shipped.items()
    assert "\n# it\n" in (tmp_path / "it/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-pan")])
def test_answers_questions_about_a_new_scene(name: str) -> None:
    """A few scenes drawn here: far better than the 20 % of a guess, with attention on the target."""
    source = SceneSource(name.split("-")[0], "test", seed=77)
    predictor = Predictor(name)
    right, ratio, uniform = [], [], []
    for index in range(12):
        scene = source.scene(index)
        image, owner = source.render(scene)
        answers = predictor.ask_all(image, [digit.number for digit in scene.digits])
        for label, (digit, answer) in enumerate(zip(scene.digits, answers, strict=True), 1):
            right.append(answer.attribute == predictor.trained.attribute_names[digit.colour])
            ratio.append(answer.maps["activation"][owner == label].sum())
            uniform.append((owner == label).mean())
    assert np.mean(right) > 0.75
    assert np.mean(ratio) > 3 * np.mean(uniform)


def test_the_pretrained_network_knows_the_example_picture() -> None:
    assert Predictor("mref-pan").ask(EXAMPLE, "7").attribute == "red"
    assert EXAMPLE.stat().st_size < 100_000


@pytest.mark.parametrize("name", NAMES)
def test_the_page_on_absence_tells_what_the_configs_hold(name: str) -> None:
    page = (ROOT / "docs" / "absence.md").read_text(encoding="utf-8")
    entry = read_json(weights.SHIPPED / name / "config.json")["absence"]
    for score, figures in entry["scores"].items():
        shares = " / ".join(f"{figures[key]:.1%}"[:-1] for key in ("told", "kept", "accuracy_kept"))
        cells = "{auroc:.4f} ({auroc_ci95[0]:.4f} to {auroc_ci95[1]:.4f})".format(**figures), f"{shares} %"
        for cell in cells:
            assert any(line.startswith(f"| `{score}` |") and cell in line for line in page.splitlines()), cell
            assert score != entry["score"] or f"**{cell}**" in page
    assert entry == {**entry, **entry["scores"][entry["score"]]}
    assert entry["score"] == max(entry["scores"], key=lambda score: entry["scores"][score]["validation_auroc"])
    assert (entry["present"], entry["absent"]) == (10_000, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_figures_on_fresh_scenes_are_the_cards(name: str) -> None:
    """10,000 scenes of another seed: both figures carry sampling error, so four standard errors of their difference."""
    about, network = read_json(weights.SHIPPED / name / "config.json"), weights.load(name)
    options = {"protocol": about["protocol"], "seed": about["seed"] + 1000}
    measured, stated = evaluate(network, load_questions(about["data"], "test", **options)), about["test"]
    error = np.sqrt(2 * stated["accuracy"] * (1 - stated["accuracy"]) / stated["count"])
    assert abs(measured["accuracy"] - stated["accuracy"]) < 4 * error
    assert measured["tpr_activation"] == pytest.approx(stated["tpr_activation"], rel=0.05)
    fresh, entry = load_questions(about["data"], "test", absent=True, **options), about["absence"]
    found = figures_of(entry["score"], scored(network, fresh, torch.device("cpu")), entry["threshold"])
    low, high = entry["auroc_ci95"]
    assert abs(found["auroc"] - entry["auroc"]) < 4 * np.sqrt(2) * (high - low) / (2 * 1.96)
    for key, count in (("kept", entry["present"]), ("told", entry["absent"])):
        assert abs(found[key] - entry[key]) < 4 * np.sqrt(2 * entry[key] * (1 - entry[key]) / count)
