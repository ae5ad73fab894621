"""A run that becomes the network of photographs: halved, asked about our photographs, with a card that says all."""

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from progressive_attention.files import read_json, write_json
from progressive_attention.network.build import build_model
from progressive_attention.reproduce.runs import CELL, name_of
from progressive_attention.saved import describe, load, network_folder, save

ROOT = Path(__file__).parents[2]
SHIP = runpy.run_path(str(ROOT / "tools/ship_weights.py"))
QUERIES, ATTRIBUTES = ("bird", "boat", "sky"), ("blue", "gray", "orange", "wet")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of Table 2 among its results, in a clone that has no weights yet."""
    for place in (vars(network_folder), SHIP["main"].__globals__):
        monkeypatch.setitem(place, "CLONE", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    row = {**dict.fromkeys(CELL, "it"), **dict.fromkeys(("images", "epochs", "seed"), 1), "learning_rate": 0.1}
    row |= {**dict.fromkeys(SHIP["TOLD"], "said"), "batch": 2, "recipe_changes": {}, "network_changes": {}}
    row |= {"seconds": 60, "count": 9, "weighted_mean_ap": 0.5, "tpr_mask_flow": 0.25, "by_query": {}}
    write_json(tmp_path / "results/table2.json", [row])
    torch.manual_seed(0)
    model = build_model("pan-hard", num_queries=3, num_attributes=4, hidden=4, image_size=62, likelihood="bernoulli")
    folder = tmp_path / "results/runs" / name_of(row)
    save(folder, model.state_dict(), describe(model.config, QUERIES, ATTRIBUTES, data="data/captions", name="pan"))
    return folder


def test_a_run_becomes_the_network_of_photographs(run: Path, tmp_path: Path) -> None:
    SHIP["ship"](run, "photographs-pan")
    folder = tmp_path / "weights/photographs-pan"
    stored, before = (load_file(path / "weights.safetensors") for path in (folder, run))
    assert {t.dtype for t in stored.values()} == {torch.float16, torch.int64}
    assert_close(load("photographs-pan").model.state_dict(), before, rtol=2**-11, atol=1e-7)
    about = read_json(folder / "config.json")
    assert about["test"] == {"count": 9, "weighted_mean_ap": 0.5, "tpr_mask_flow": 0.25}
    sample = about["sample"]
    assert sample["count"] + sample["rows_with_unknown_query"] == 102
    assert sample == SHIP["sample_figures"](load(folder))
    card = SHIP["card"](folder)
    shown = ["float16", "license: other", "Flickr8k", "non-commercial", "*People*", *QUERIES, *ATTRIBUTES, "50.00%"]
    shown += [f"{sample['count']} of its 102 questions", f"{sample['weighted_mean_ap']:.2%}"]
    assert not [text for text in shown if text not in card]


def test_grey_is_asked_as_gray(run: Path) -> None:
    """The network knows "gray" only: of the attributes of skies and birds it lacks all but three."""
    rows = [line.split(",") for line in SHIP["SAMPLE"].read_text(encoding="utf-8").splitlines()[1:]]
    given = [word for row in rows if row[1] in QUERIES for word in row[2].split(";")]
    figures = SHIP["sample_figures"](load(run))
    assert "grey" in given
    assert figures["labels_with_unknown_attribute"] == sum(word not in ("blue", "grey", "orange") for word in given)


@pytest.mark.parametrize("text", ["/home/me/data", "pan train --data /home/me/data", "../shared/data"])
def test_no_path_of_a_machine_is_shipped(run: Path, tmp_path: Path, text: str) -> None:
    about = read_json(run / "config.json")
    write_json(run / "config.json", {**about, "recipe": {"words": [text]}})
    with pytest.raises(ValueError, match=f"names this machine's folders: .*{text}"):
        SHIP["ship"](run, "photographs-pan")
    assert not (tmp_path / "weights").exists()


def test_a_value_too_large_for_half_precision_is_an_error() -> None:
    with pytest.raises(ValueError, match="scale has values up to 70000, too large for float16"):
        SHIP["halved"]("scale", torch.tensor([1.0, -7e4]))
