"""`pan data` as a user types it: import a table or COCO's JSON, check what came of it, and every mistake one line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from wrong_commands import error_of

from progressive_attention.cli import main
from progressive_attention.commands.data_check import line, printable, words

PHOTOGRAPHS = Path(__file__).parents[2] / "examples" / "photographs" / "photographs.csv"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def pets() -> list[dict[str, str]]:
    """A table of twelve pictures, and the pictures in pets/."""
    Path("pets").mkdir()
    rows = []
    for i in range(12):
        Image.new("RGB", (64, 48), (20 * i, 90, 9)).save(f"pets/{i}.png")
        split = ("train",) * 8 + ("validation",) * 2 + ("test",) * 2
        pet = {"query": ("cat", "dog")[i % 2], "attributes": ("dark;small", "light")[i % 2], "split": split[i]}
        rows.append({"image": f"{i}.png", **pet, "x0": "1", "y0": "1", "x1": "60", "y1": "40"})
    return rows


def write_csv(rows: list[dict[str, str]], path: str = "pets/pets.csv") -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_import_csv_and_check(pets: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    write_csv([*pets, {**pets[0], "image": "gone.png"}, {**pets[1], "x1": "0"}, {**pets[2], "x1": "99"}])
    assert main(["data", "import", "csv", "pets/pets.csv", "--out", "set"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for shown in (
        "set, from csv",
        "train │ 9 │ 8 │ 2 │ 3",
        "boxes clipped to the image: 1",
        "set/rejected.parquet",
        "image file missing: 1",
        "empty box: 1",
        "next: pan data check set",
    ):
        assert shown in out, shown
    assert pa.parquet.read_table("set/rejected.parquet")["reason"].to_pylist() == ["image file missing", "empty box"]

    assert main(["data", "check", "set"]) == 0
    checked = " ".join(capsys.readouterr().out.split())
    assert "train │ 9 │ 9 │ 8 │ 2 │ 3" in checked
    assert "query: 2 words: cat 7, dog 6" in checked
    assert "0 errors, 0 warnings, 2 notes; 13 of 13 rows can be used" in checked
    assert "rejected before, by the import: 2, in rejected.parquet" in checked
    assert "set holds an imported data set" in error_of(capsys, "train", "--data", "set", "--out", "set")
    assert "note: rare query dog: train 4, validation 1, test 1" in checked
    assert "next: pan train --data set --out runs/mine" in checked


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_other_forms_and_folders(pets: list[dict[str, str]], capsys: pytest.CaptureFixture[str], form: str) -> None:
    rows = [{"image": row["image"], "query": row["query"], "attributes": row["attributes"].split(";")} for row in pets]
    for row in rows:
        row["mask"] = "a.png"
    Path("masks").mkdir()
    Image.new("L", (64, 48), 1).save("masks/a.png")
    if form == "jsonl":
        Path("table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), "table.parquet")
    folders = ["--images", "pets", "--masks", "masks"]
    assert main(["data", "import", form, f"table.{form}", *folders, "--out", "set"]) == 0
    capsys.readouterr()
    assert main(["data", "check", "set", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["images"], report["masks"], report["errors"]) == (12, 12, 1, 0)


def test_import_coco(pets: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    instances = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(12)],
        "categories": [{"id": 1, "name": "pet"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(12)],
    }
    Path("instances.json").write_text(json.dumps(instances))
    assert (
        main(["data", "import", "coco", "--annotations", "instances.json", "--images", "pets", "--out", "boxes"]) == 0
    )
    capsys.readouterr()
    assert main(["data", "check", "boxes"]) == 0
    checked = capsys.readouterr().out
    assert "note: no attributes in any row" in checked
    assert "pan train" not in checked


def test_check_reports_errors(pets: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    pets[7]["x1"] = "0"
    pets[11]["attributes"] = "[red]\x1b"
    pets[9]["image"] = pets[8]["image"]
    write_csv(pets, "pets/manifest.csv")
    for i in range(5):
        Path(f"pets/{i}.png").write_bytes(b"no picture")
    assert main(["data", "check", "pets"]) == 1
    out = capsys.readouterr().out
    lines = [one.strip() for one in out.splitlines()]
    for shown in (
        "error: image unreadable (5)",
        "0.png (row 1): 0.png can't be read as an image (of no known format); expected PNG, JPEG, WEBP, BMP, GIF, TIFF",
        "and 2 more: --json gives all",
        "error: too many unusable images",
        "train: 5 of 8 images (62%), expected at most 5%",
        "error: empty box",
        "7.png (row 8): box (1.0, 1.0, 0.0, 40.0) in an image of 64 x 48",
        "warning: attribute never in train",
        "[red]\\x1b: test 1",  # a name is neither markup nor a command to the terminal
        "7 errors, 1 warning, 5 notes; 6 of 12 rows can be used",
        "rows count from 1, the first in pets/manifest.csv",
    ):
        assert shown in lines, shown
    assert any(one.startswith("0.png (row 1): ") for one in lines)
    assert "\x1b" not in out
    assert "next:" not in out
    assert main(["data", "check", "pets", "--json"]) == 1
    unreadable = json.loads(capsys.readouterr().out)["findings"][0]
    assert (unreadable["kind"], unreadable["severity"]) == ("image unreadable", "error")
    assert [item["subjects"] for item in unreadable["items"]] == [[f"{i}.png"] for i in range(5)]


def test_lines_stay_short() -> None:
    item = {"subjects": ["a", "b", "c", "d", "e"], "rows": list(range(1, 12)), "detail": "train 11"}
    assert line(item) == "a, b, c and 2 more (rows 1, 2, 3, 4, 5, 6, 7, 8 and 3 more): train 11"
    assert line({"subjects": [], "rows": [], "detail": "all"}) == "all"
    counts = {f"w{i}": {"train": i, "test": 1000} for i in range(12)}
    assert words(counts).startswith("12 words: w11 1,011, w10 1,010, ")
    assert words(counts).endswith("w2 1,002 and 2 more")
    assert words({}) == "no words"
    assert printable("é\n\x1b[2J") == "é\\n\\x1b[2J"


@pytest.mark.skipif(not PHOTOGRAPHS.is_file(), reason="the examples are not in this installation")
def test_the_example_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", "csv", str(PHOTOGRAPHS), "--out", "photographs"]) == 0
    assert "rejected" not in capsys.readouterr().out
    assert main(["data", "check", "photographs", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["errors"], report["warnings"]) == (0, 0)
    assert report["rows"] == len(PHOTOGRAPHS.read_text().splitlines()) - 1


GENOME = ["visual-genome", "--annotations", "a", "--images", "i", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "import"], "required: SOURCE"),
        (["data", "import", "csv", "gone.csv", "--out", "o"], "gone.csv"),
        (["data", "import", "jsonl", "pets/pets.csv", "--out", "o"], "pets/pets.csv must end with .jsonl"),
        (["data", "import", "csv", "pets/pets.csv", "--images", "none", "--out", "o"], "none is not a folder"),
        (["data", "import", "csv", "pets/pets.csv", "--out", "pets"], "pets is there already and not empty"),
        (["data", "import", "csv", "pets/pets.csv", "--masks", "none", "--out", "o"], "has no column mask"),
        (["data", "import", "csv", "bad.csv", "--out", "o"], "unknown column 'animal'"),
        (["data", "import", "coco", "--annotations", "bad.csv", "--images", "pets", "--out", "o"], "bad.csv"),
        (["data", "import", "voc", "--devkit", "pets", "--out", "o"], "pets lacks the folders"),
        (["data", "import", "voc", "--devkit", "pets", "--task", "detection", "--out", "o"], "--task was dropped"),
        (["data", "import", *GENOME[:-1], "o", "--min-count", "0"], "min_count must be >= 1, got 0"),
        (["data", "import", *GENOME], "image_data.json"),
        (["data", "check", "nowhere"], "nowhere is no folder"),
        (["data", "check", "broken"], "manifest.csv has an unknown column 'animal'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    pets: list[dict[str, str]], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_csv(pets)
    Path("broken").mkdir()
    for path in ("bad.csv", "broken/manifest.csv"):
        Path(path).write_text("image,query,attribute,animal\n0.png,a,b,c\n")
    before = sorted(Path().rglob("*"))
    assert message in error_of(capsys, *arguments)
    assert sorted(Path().rglob("*")) == before  # nothing half made


def test_help_shows_examples_and_needs_neither_torch_nor_pyarrow() -> None:
    code = "import sys; from progressive_attention.cli import main\ntry: main(['data', *sys.argv[1:], '--help'])\n"
    code += "except SystemExit: print({'torch', 'pyarrow', 'rich', 'numpy'} & set(sys.modules))"
    for action, example in {
        ("import", "visual-genome"): "pan data import visual-genome --annotations vg/ --images vg/ --setting all",
        ("check",): "exit code 1",
    }.items():
        command = [sys.executable, "-c", code, *action]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        assert example in result.stdout
        assert result.stdout.strip().endswith("set()")
