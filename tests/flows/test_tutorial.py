"""docs/photographs.md, from the table to an answer, as a new user would run it."""

import json

import numpy as np
import pytest
from doc_pages import ROOT, copy_for_reader, run_page
from pyarrow import parquet
from test_docs import NEVER, of_commands

from progressive_attention import Predictor
from progressive_attention.cli import main

PAGE = ROOT / "docs" / "photographs.md"


def test_the_tutorial_runs_from_table_to_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(copy_for_reader(tmp_path))
    told, space = run_page(PAGE, capsys, of_commands(PAGE, NEVER))
    said = {" ".join(command.split()[1:3]): printed for command, printed in told.items()}
    assert set(space["answer"].probabilities) > {"blue", "orange", "sitting"}
    measured = json.loads(said["evaluate --weights"])  # the last one, with --json
    rows = parquet.read_table("runs/first/evaluation/photographs-test.parquet")
    assert measured["count"] == len(rows) == 25
    assert set(measured["by_query"]) == set(rows["query"].to_pylist())
    tpr = rows["tpr_box_last"].to_numpy()
    np.testing.assert_allclose(measured["tpr_box_last"], tpr.mean(), rtol=1e-12)
    assert 0 < measured["tpr_box_uniform"] < 1
    assert measured["tpr_mask_last"] is None  # the sample has boxes only
    for name in ("weighted_mean_ap", "mean_ap", "query_prior_weighted_mean_ap"):
        assert 0 < measured[name] < 1
    assert (tmp_path / "runs/predict/kingfisher-bird.png").stat().st_size > 10_000
    assert "kingfisher.jpg  bird -> " in said["predict examples/photographs/photos/kingfisher.jpg"]


def test_the_page_shows_the_sample_as_it_is():
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("photos/")]
    table = (ROOT / "examples" / "photographs" / "photographs.csv").read_text().splitlines()
    assert len(shown) == 2
    assert shown == table[1:3]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "vgg16"])
def test_backbones_of_three_families_go_from_table_to_answer(backbone, tmp_path, monkeypatch, capsys):
    """Built, trained for an epoch, asked, their attention placed on the image's pixels."""
    monkeypatch.chdir(tmp_path)
    table, picture = (ROOT / "examples/photographs" / name for name in ("photographs.csv", "photos/kingfisher.jpg"))
    assert main(["data", "import", "csv", str(table), "--out", "set"]) == 0
    options = ["--backbone", backbone, "--image-size", "96", "--epochs", "1", "--batch", "16", "--device", "cpu"]
    assert main(["train", "--data", "set", *options, "--out", "run"]) == 0
    assert main(["predict", "--weights", "run", str(picture), "--query", "bird"]) == 0
    assert (tmp_path / "runs/predict/kingfisher-bird.png").stat().st_size > 10_000
    answer = Predictor("run", "cpu").ask(picture, "bird")
    assert [layer.shape for layer in answer.layers] == [(96, 96)] * 3
    assert set(answer.maps) == {"last", "accumulated", "activation"}
    for drawn in answer.maps.values():
        np.testing.assert_allclose(drawn.sum(), 1, rtol=1e-6)
    assert "bird -> " in capsys.readouterr().out
