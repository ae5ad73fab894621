"""``pan report`` as a user types it, on tiny runs: synthetic, photographs with one attribute and with several."""

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from read_page import Page
from rich.console import Console
from tiny_photographs import write_photographs

from progressive_attention.cli import main
from progressive_attention.evaluation.kept import read_notes
from progressive_attention.files import read_tensors, write_tensors
from progressive_attention.pages import run_results
from progressive_attention.pages.report import Network, Report, render
from progressive_attention.pages.run_results import FIRST, SUREST, gather
from progressive_attention.saved import network_folder


def pan(*arguments: str) -> None:
    assert main(arguments) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run on each kind of data, none of them evaluated, and the data beside them."""
    here = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("PAN_CACHE", str(here / "cache"))
        options = ["--epochs", "2", "--batch", "8", "--device", "cpu"]
        pan("train", "--data", "mref", "--model", "pan-hard-ctx", "--images", "24", *options, "--out", "runs/mref")
        pan("train", "--data", "mref", "--images", "9", "--model", "film", *options, "--out", "runs/film")
        for name, many in (("one", False), ("many", True)):
            write_photographs(Path("data", name), images=12, many=many)
            pan("train", "--data", f"data/{name}", "--model", "san", *options, "--out", f"runs/{name}")
    return here


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it to work in."""
    here = tmp_path / "place"
    shutil.copytree(made, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PAN_CACHE", str(here / "cache"))
    return here


def gathered(run: str, data: str | None = None, split: str | None = None) -> Report:
    """What the page would show, nothing drawn."""
    return gather(run, data, split, "cpu", Console(file=StringIO()))


def network_of(*arguments) -> Network:
    (network,) = gathered(*arguments).networks
    return network


def missing_of(report: Report) -> list[str]:
    return [lack for lack in report.missing if not lack.startswith("accuracy by scale")]


def page_of(*arguments: str) -> Page:
    pan("report", *arguments, "--device", "cpu")
    out = Path(arguments[arguments.index("--out") + 1] if "--out" in arguments else f"{arguments[0]}/report.html")
    return Page(out.read_text(encoding="utf-8"))


def sections(page: Page) -> list[str]:
    return re.findall(r"<h2>([^:<]*)", page.html)


def test_synthetic_run(place, capsys, monkeypatch):
    monkeypatch.setattr(run_results, "FIRST", 2)
    page = page_of("runs/mref")
    assert sections(page) == ["Learning", "Measured", "Where the network looks", "What was trained here"]
    assert capsys.readouterr().out == "report: runs/mref/report.html\n"
    table = pyarrow.parquet.read_table("runs/mref/evaluation/mref-test.parquet")
    figures = json.loads(Path("runs/mref/evaluation/mref-test.json").read_text())
    assert len(table) == figures["count"] == 8  # a third of the training's images
    assert f"answers {100 * figures['accuracy']:.1f} % of 8 new questions correctly" in page.text
    wrong = int((~table["correct"].to_numpy()).sum())
    shown = 2 + min(SUREST, int((~table["correct"].to_numpy()[2:]).sum()))
    assert "The first 2 questions" in page.text
    assert f"of {wrong} wrong answers" in page.text
    assert len(page.pictures) == len(page.values("alt")) == 2 + 1 + shown  # learning; confusion; examples
    log = [json.loads(line) for line in Path("runs/mref/log.jsonl").read_text().splitlines()]
    assert any(f"Training loss from {log[0]['loss']:.4g} (epoch 1)" in alt for alt in page.values("alt"))
    assert re.search(rf"attention entropy, layer 2\s*{100 * figures['entropy'][1]:.1f} %", page.text)
    for text in ("98.53 %", "24", "muon, rate up to 0.01, one-cycle", "2 of 2", "runs/mref"):
        assert text in page.text


def test_photographs_with_one_attribute(place):
    page = page_of("runs/one", "--data", "data/one", "--split", "validation")
    assert sections(page) == [
        *("Learning", "Measured", "Where the network looks", "Not in this report", "What was trained here")
    ]
    assert page.values("alt")[2].startswith("Confusion")
    assert "accuracy by scale: these questions have no scale" in page.text
    assert "left: what is it like?" in page.text
    assert "papers" not in page.text
    assert Path("runs/one/evaluation/one-validation.parquet").exists()


def test_photographs_with_several_attributes(place):
    page = page_of("runs/many", "--data", "data/many", "--split", "validation", "--out", "pages/many.html")
    assert sections(page) == ["Learning", "Measured", "Where the network looks", "What was trained here"]
    figures = json.loads(Path("runs/many/evaluation/many-validation.json").read_text())
    words = f"weighted mAP of {100 * figures['weighted_mean_ap']:.1f} %"
    assert words in page.text
    assert f"the query alone reaches {100 * figures['query_prior_weighted_mean_ap']:.1f} %" in page.text
    for name, each in figures["by_attribute"].items():
        assert (each["ap"] is None) or re.search(rf"{name}\s*{each['count']}\s*{100 * each['ap']:.1f} %", page.text)
    assert "true-positive ratio, last map in the box" in page.text


def test_shipped_weights_by_name(place, monkeypatch):
    monkeypatch.setattr(network_folder, "SHIPPED", place / "shipped")
    shutil.copytree("runs/film", "shipped/tiny", ignore=shutil.ignore_patterns("log.jsonl", "checkpoint*"))
    pan("report", "tiny", "--device", "cpu")
    found = sorted(path.name for path in Path("runs/evaluate/tiny").iterdir())
    assert found == ["mref-test.json", "mref-test.parquet", "report.html"]
    assert sorted(path.name for path in Path("shipped/tiny").iterdir()) == ["config.json", "weights.safetensors"]
    assert "log.jsonl, which training writes, does not exist" in Path("runs/evaluate/tiny/report.html").read_text()


def test_examples_show_what_was_asked(place):
    found = gathered("runs/many", "data/many", "validation")
    rows = pyarrow.parquet.read_table("runs/many/evaluation/many-validation.parquet").to_pylist()
    assert len(found.scenes) >= FIRST
    for scene, row in zip(found.scenes[:FIRST], rows, strict=False):
        assert (scene.query, list(scene.truth)) == (row["query"], row["attributes"])
        (answer,) = scene.answers.values()
        assert answer.attribute == row["top"][0]
        with Image.open(f"data/many/{row['image']}") as picture:
            small = np.asarray(picture.convert("RGB").resize((14, 14)), float)
        assert np.abs(small - np.asarray(Image.fromarray(scene.image).resize((14, 14)), float)).mean() < 12


def changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_rows_are_read_where_they_are_and_made_again_where_they_are_of_another_network(place):
    rows = Path("runs/film/evaluation/mref-test.parquet")
    pan("evaluate", "--weights", "runs/film", "--images", "15", "--seed", "3", "--device", "cpu")
    before = changed(rows)
    network = network_of("runs/film")
    assert network.summary["count"] == 5  # those that were asked, not a third of the training's images
    assert len(network.table) == 5
    assert changed(rows) == before
    path = Path("runs/film/weights.safetensors")
    tensors, _ = read_tensors(path)
    write_tensors(path, tensors, {"another": "network"})
    assert network_of("runs/film").summary["count"] == 5
    assert changed(rows) != before
    figures = rows.with_suffix(".json")
    for damaged in rows, figures:
        whole = damaged.read_bytes()
        damaged.write_bytes(whole.replace(b"1", b"2", 1) if damaged is figures else whole[:9] + b"x" + whole[10:])
        assert read_notes(rows) == {}
        damaged.write_bytes(whole)
    assert read_notes(rows) != {}
    rows.with_suffix(".json").unlink()
    assert network_of("runs/film").summary["count"] == 3  # half an evaluation is none


def test_an_evaluation_notes_where_the_data_are(place):
    pan("evaluate", "--weights", "runs/many", "--data", "data/many", "--split", "validation", "--device", "cpu")
    assert gathered("runs/many", split="validation").scenes
    table = Path("data/many/manifest.jsonl")
    table.write_text(table.read_text().replace('"warm"', '"hot"'))
    assert gathered("runs/many", split="validation").missing == []  # labels have changed: asked again
    rows = pyarrow.parquet.read_table("runs/many/evaluation/many-validation.parquet")
    assert not any("warm" in holds for holds in rows["attributes"].to_pylist())


def test_data_and_images_that_are_not_at_hand(place, capsys):
    page = page_of("runs/many")
    assert sections(page) == ["Learning", "Not in this report", "What was trained here"]
    assert "Not measured yet" in page.text
    assert "an evaluation, and examples: unknown data 'many'" in page.text
    assert "'pan report runs/many --data DATA' supplies it" in page.text
    assert "pan report runs/many --data DATA" in capsys.readouterr().err
    assert gathered("runs/many", "data/many", "validation").missing == []
    for path in Path("data/many").glob("*.png"):
        path.unlink()
    (why,) = missing_of(gathered("runs/many", split="validation"))
    assert re.match(r"examples: \d+ of \d+ images can't be used", why)
    shutil.rmtree("data")
    report = gathered("runs/many", split="validation")
    assert report.networks[0].table is not None
    assert list(report.scenes) == []
    (why,) = missing_of(report)
    assert why.startswith("examples: unknown data 'data/many'")


def test_run_of_reproduce_without_weights_shows_its_result(place):
    folder = Path("runs/film")
    result = {**network_of("runs/film").summary, "command": "pan reproduce table1"}
    (folder / "result.json").write_text(json.dumps(result))
    shutil.rmtree(folder / "evaluation")
    (folder / "weights.safetensors").unlink()
    page = page_of("runs/film")
    assert sections(page) == ["Learning", "Measured", "Not in this report", "What was trained here"]
    assert "weights.safetensors does not exist" in page.text
    assert "pan reproduce table1" in page.text
    assert "result.json" in page.text


def test_log_that_is_missing_or_broken(place):
    path = Path("runs/film/log.jsonl")
    path.write_text('{"epoch": 1')
    assert f"training curves: {path} is broken" in missing_of(gathered("runs/film"))[0]
    path.unlink()
    assert missing_of(gathered("runs/film"))[0].startswith(f"training curves: {path}, which training writes, does not")


def test_run_that_lacks_its_data_or_recipe(place):
    config = Path("runs/film/config.json")
    about = json.loads(config.read_text())
    for key in ("data", "name", "recipe", "best", "images", "questions", "seed"):
        del about[key]
    config.write_text(json.dumps(about))
    found = gathered("runs/film")
    assert missing_of(found)[0].startswith("an evaluation, and examples: config.json doesn't say what the network was")
    alts = Page(render(found)).values("alt")
    assert [alt.split(" from")[0] for alt in alts] == ["Training loss", "Validation accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "no trained weights at 'nobody'"),
        (["runs/mref", "--data", "data/many"], "many has no rows of split 'test'"),
        (["runs/one", "--data", "data/many", "--split", "validation"], "trained for softmax"),
        (["runs/mref", "--split", "dev"], "expected train, validation, test"),
    ],
)
def test_wrong_input_is_one_line_and_no_page(place, capsys, arguments, message):
    try:
        code = main(["report", *arguments, "--out", "page.html"])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert message in error
    assert not Path("page.html").exists()
