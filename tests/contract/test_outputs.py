"""What `pan` is to write is checked before it works; nothing of the user's is overwritten with something else."""

import json
from pathlib import Path

import pytest
import torch
from own_folder import own_folder, scenes
from PIL import Image
from wrong_commands import error_of

from progressive_attention.cli import main
from progressive_attention.commands import list as list_command
from progressive_attention.commands.arguments import out_folder

__all__ = ["own_folder", "scenes"]  # fixtures
EVALUATE = ("evaluate", "--weights", "mref-san", "--rows")
EXPORT = ("export", "--weights", "mref-san", "--out")
IMPORT = ("data", "import", "csv", "table.csv", "--out")
PREDICT = ("predict", "--weights", "mref-san", "mine.png", "--query", "7", "--out")
REPORT = ("report", "mref-san", "--out")
TRAIN = ("train", "--data", "mref", "--images", "9", "--out")


@pytest.fixture
def mine() -> dict[str, bytes]:
    """Files of the user's own, by name."""
    Image.new("RGB", (100, 100)).save("mine.png")
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    Path("run/table.parquet").write_bytes(b"no rows of ours")
    Path("run/notes.json").write_text("[]")
    return contents()


def contents() -> dict[str, bytes]:
    """All files here, by name."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [PREDICT, TRAIN, IMPORT, ("quickstart", "--out"), ("reproduce", "table1", "--plan", "--out")],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("out", ["mine.png", "mine.png/inside"])
def test_a_file_where_a_folder_is_wanted(mine, capsys, command, out):
    told = "argument --out: expected a folder, and mine.png is a file; choose another name"
    assert told in error_of(capsys, *command, out)
    assert contents() == mine


@pytest.mark.parametrize(
    ("command", "ending"),
    [(EVALUATE, ".parquet"), (REPORT, ".html"), (("render", "mref", "--out"), ".png")],
    ids=lambda words: words[0],
)
def test_a_file_is_wanted_and_one_of_that_kind(mine, capsys, command, ending):
    for path in ("run", "run/config.txt"):
        assert f"expected a file that ends in {ending}, got '{path}'" in error_of(capsys, *command, path)
    assert "expected a folder, and mine.png is a file" in error_of(capsys, *command, f"mine.png/new{ending}")
    assert contents() == mine


def test_an_export_ends_as_its_format(mine, capsys):
    assert "expected a file that ends in .onnx or .pt2 or .html, got 'mine.png'" in error_of(
        capsys, *EXPORT, "mine.png"
    )
    assert contents() == mine


@pytest.mark.parametrize(
    "words",
    [
        *([*command, ""] for command in (PREDICT, TRAIN, IMPORT, EVALUATE, REPORT, EXPORT)),
        ["render", "mref", "--out", ""],
        ["quickstart", "--out", " "],
        ["train", "--data", "", "--out", "r"],
        ["predict", "--weights", "", "mine.png", "--query", "7"],
        ["predict", "--weights", "mref-san", "", "--query", "7"],
        ["serve", "--host", ""],
        ["report", ""],
    ],
    ids=" ".join,
)
def test_an_empty_text_is_none(mine, capsys, words):
    assert "expected some text" in error_of(capsys, *words)
    assert contents() == mine


def test_a_folder_that_may_not_be_written_in(monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(Exception, match=r"no permission to write in \.; choose another folder"):
        out_folder("runs/new")


def test_rows_take_no_place_of_others(mine, capsys):
    for name in ("run/table", "run/config", "run/notes", "new/config"):
        error = error_of(capsys, *EVALUATE, f"{name}.parquet")
        assert f"{name}.parquet and {name}.json would replace what is not of an evaluation; choose another" in error
    assert contents() == mine


def test_rows_of_an_evaluation_may_be_written_again(scenes, capsys):
    evaluate = [*EVALUATE, "rows/a.parquet", "--data", str(scenes), "--device", "cpu"]
    assert main(evaluate) == 0
    before = contents()
    assert main(evaluate) == 0
    assert contents() == before
    assert "rows/a.json" in before


@pytest.mark.parametrize(
    "words", [[*TRAIN, "r"], ["render", "mref"], ["evaluate", "--weights", "mref-san"], ["absence", "--weights", "x"]]
)
@pytest.mark.parametrize("seed", ["-1", "99999999999999999999", "1.5"])
def test_seeds_are_told_at_once(mine, capsys, words, seed):
    error = error_of(capsys, *words, "--seed", seed)
    assert "argument --seed: " in error
    assert f"at most 100,000,000, got '{seed}'" in error
    assert contents() == mine


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["render", "mref", "--count", "100000"], "expected a whole number from 1 to 400, got '100000'"),
        (["reproduce", "table1", "--seeds", "0,-1", "--out", "x"], "at most 100,000,000, got '-1'"),
    ],
)
def test_numbers_that_are_too_large(capsys, words, told):
    assert told in error_of(capsys, *words)


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["bench", "--quick", "--suite", "step", "--json", "a.json"], "make bench SUITE=step QUICK=1 JSON=FILE.json"),
        ([*TRAIN, "r", "--trackio", "mine"], "--tensorboard"),
        (["render", "mref", "--mnist-dir", "mnist"], "leave it out"),
    ],
    ids=lambda words: words[0],
)
def test_what_was_dropped_names_what_to_use_instead(mine, capsys, words, instead):
    error = error_of(capsys, *words)
    assert "was dropped" in error
    assert instead in error
    assert contents() == mine


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "for an unknown purpose"),
        (MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to"), "CUDA out of memory. Tried to"),
        (RuntimeError("CPU: can't allocate memory: you"), "CPU: can't allocate memory: you"),
    ],
)
def test_too_little_memory(monkeypatch, capsys, error, text):
    def fail(arguments):
        raise error

    monkeypatch.setattr(list_command, "run", fail)
    told = f"pan list: error: not enough memory ({text}); free some, or train with a smaller --batch or --image-size"
    assert error_of(capsys, "list") == told


def test_torch_has_too_little_memory(monkeypatch, capsys):
    monkeypatch.setattr(list_command, "run", lambda arguments: torch.empty(2**60))
    assert "not enough memory (" in error_of(capsys, "list")


def test_a_mistake_of_ours_is_no_message(monkeypatch):
    monkeypatch.setattr(list_command, "run", lambda arguments: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["list"])


def test_pictures_that_cannot_be_read_keep_no_others_from_an_answer(mine, capsys):
    Path("broken.png").write_bytes(Path("mine.png").read_bytes()[:60])
    asked = ["predict", "--weights", "mref-san", "broken.png", "mine.png", "gone.png", "--query", "7"]
    for form in ([], ["--json"]):
        assert main([*asked, *form]) == 2
        out, err = capsys.readouterr()
        answered = [one["image"] for one in json.loads(out)] if form else [line.split()[0] for line in out.splitlines()]
        assert answered == ["mine.png"]
        first, second = err.splitlines()
        assert first.startswith("pan predict: error: broken.png can't be read as an image")
        assert second.startswith("pan predict: error: gone.png does not exist")
