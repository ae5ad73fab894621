"""`pan train --absent`, `pan absence` and what `pan predict` says then, as a user types them, on tiny data."""

import json
from pathlib import Path

import numpy as np
import pytest
from own_folder import own_folder
from PIL import Image
from wrong_commands import error_of

from progressive_attention.cli import main
from progressive_attention.evaluation import absence
from progressive_attention.files import read_json, write_json
from progressive_attention.saved import SHIPPED

__all__ = ["own_folder"]  # a fixture
CPU = ("--device", "cpu")


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few steps, and few questions, pass for better than a guess."""
    monkeypatch.setattr(absence, "auroc_interval", lambda *scores: (0.6, 0.9))


def asked(*arguments: str, out: pytest.CaptureFixture[str]) -> str:
    """What a command prints."""
    assert main(arguments) == 0
    return out.readouterr().out


def test_train_measure_predict(telling, capsys):
    train = "train", "--data", "mref", "--absent", "--images", "24", "--epochs", "1", "--batch", "8", "--out", "mine"
    asked(*train, *CPU, out=capsys)
    config = read_json(Path("mine/config.json"))
    assert config["attribute_names"][-1] == "absent"
    assert config["questions"] == 240  # all ten digits of each scene
    figures = json.loads(asked("absence", "--weights", "mine", "--images", "24", "--json", *CPU, out=capsys))
    assert read_json(Path("mine/config.json")) == {**config, "absence": figures}
    assert (figures["present"], figures["absent"], figures["keep"]) == (8, 8, 0.95)
    assert (figures["validation"], figures["test"]) == ("mref/validation", "mref/test")
    assert "not_absent" in figures["scores"]
    table = asked("absence", "--weights", "mine", "--images", "24", "--keep", "0.5", *CPU, out=capsys)
    assert "8 questions about what is there, 8 about what is not" in table
    assert "`pan predict` and `pan export` now use it" in table
    config = read_json(Path("mine/config.json"))
    assert config["absence"]["keep"] == 0.5

    Image.new("RGB", (100, 100)).save("black.png")
    predict = "predict", "--weights", "mine", "black.png", "--query", "7", *CPU
    for threshold, found in ((-1e9, True), (1e9, False)):
        write_json(Path("mine/config.json"), {**config, "absence": {"score": "magnitude", "threshold": threshold}})
        (answer,) = json.loads(asked(*predict, "--json", out=capsys))
        assert answer["found"] is found
        assert answer["presence"] >= 0
        printed = asked(*predict, out=capsys)
        said = f"7 -> not found [magnitude {answer['presence']:.4g}, found from 1e+09]; if it were there: "
        assert (said in printed) is not found
        assert answer["answer"] in printed


@pytest.mark.parametrize("many", [False, True])
def test_rows_of_ones_own(many, capsys):
    """Of pictures with a cat, a dog, or both, in a table with the rows that a network can't know without."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(f"{i}.png")
        split = ("train", "validation", "test")[i % 3]
        for query, word in (("cat", "dark"), ("dog", "absent" if i % 4 else "light")):
            attribute = {"attributes": [word]} if many else {"attribute": word}
            rows.append({"image": f"{i}.png", "query": query, "split": split, **attribute})
    Path("manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = "train", "--data", ".", "--model", "san", "--image-size", "62", "--epochs", "1", "--out", "mine", *CPU
    asked(*train, out=capsys)
    figures = json.loads(asked("absence", "--weights", "mine", "--data", ".", "--json", *CPU, out=capsys))
    assert figures["present"] + figures["absent"] == 16
    assert figures["absent"] == sum(i % 4 > 0 for i in range(2, 24, 3))
    assert (figures["accuracy"] is None) == many
    assert ("certainty" in figures["scores"]) != many


@pytest.mark.parametrize("interval", [(0.4, 0.7), (0.5, 0.7), (0.2, 0.4)])
def test_a_guess_is_no_threshold(monkeypatch, capsys, interval):
    monkeypatch.setattr(absence, "auroc_interval", lambda *scores: interval)
    asked(
        "train", "--data", "mref", "--model", "san", "--images", "9", "--epochs", "1", "--out", "mine", *CPU, out=capsys
    )
    before = Path("mine/config.json").read_bytes()
    assert main(["absence", "--weights", "mine", *CPU]) == 0
    out, err = capsys.readouterr()
    assert "guess (AUROC " in err
    assert f"95 % {interval[0]:.3f} to {interval[1]:.3f}), so no threshold is kept; train longer" in err
    assert "kept in" not in out
    assert Path("mine/config.json").read_bytes() == before


def test_what_ships_stays_as_it_is(telling, capsys):
    before = (SHIPPED / "mref-san" / "config.json").read_bytes()
    printed = asked("absence", "--weights", "mref-san", "--images", "9", *CPU, out=capsys)
    assert "best on validation: " in printed
    assert "kept in" not in printed
    assert (SHIPPED / "mref-san" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("absence", "--weights", "mref-san", "--keep", "95"),
            "expected a share in (0, 1], like 0.95 for 95 %, got '95'",
        ),
        (("absence", "--weights", "mref-san", "--keep", "0"), "0.95 for 95 %, got '0'"),
        (("absence", "--weights", "mref-san", "--data", "nowhere"), "unknown data 'nowhere'"),
        (("train", "--data", "mine", "--absent", "--out", "r"), "--absent is for mref, mdist, mbg; in your own data"),
    ],
)
def test_wrong_commands(arguments, message, capsys):
    assert message in error_of(capsys, *arguments)
