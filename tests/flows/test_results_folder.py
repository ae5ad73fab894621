"""The pages in results/ are those of results/table1.json: nobody edits a number there."""

import re
import shutil
from pathlib import Path

import pytest
from fake_runs import fake_run, fake_table

from progressive_attention.config import STYLES
from progressive_attention.files import read_json, write_json
from progressive_attention.pages.figures import row_of
from progressive_attention.pages.results_page import write_pages, write_results
from progressive_attention.pages.shortfalls import notes_of, shortfalls
from progressive_attention.reproduce import published
from progressive_attention.reproduce.runs import Budget, Cell, cells, read_runs

RESULTS = Path(__file__).parents[2] / "results"
PAGES = ("README.md", "index.html")
with_results = pytest.mark.skipif(
    not (RESULTS / "table1.json").exists(), reason="no results/table1.json in this checkout"
)


def stale_pages(folder: Path, scratch: Path) -> list[str]:
    """The pages of a results folder that differ from what its runs, notes and pictures give."""
    (scratch / "figures").mkdir(parents=True)
    for path in [*folder.glob("notes.json"), *folder.glob("figures/*.png")]:
        shutil.copy(path, scratch / path.relative_to(folder))
    write_pages(read_runs(folder / "table1.json"), scratch)
    return [name for name in PAGES if (folder / name).read_bytes() != (scratch / name).read_bytes()]


@with_results
def test_results_are_those_of_their_runs(tmp_path):
    assert stale_pages(RESULTS, tmp_path) == []


@with_results
def test_every_figure_below_the_papers_is_explained():
    notes = notes_of(read_json(RESULTS / "notes.json"))
    by_images: dict[int, dict[tuple[str, str], dict[str, Cell]]] = {}
    for cell in cells(read_runs(RESULTS / "table1.json")):
        if cell.model in published.NAMES and not cell.variant:
            by_images.setdefault(cell.budget.images, {}).setdefault((cell.model, ""), {})[cell.dataset] = cell
    unexplained = [shortfalls(rows, images, notes).get("") for images, rows in by_images.items()]
    assert unexplained == [None] * len(by_images)


@with_results
def test_accuracies_in_the_readme_are_those_of_the_runs():
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| \| MREF \| paper .*?\n\|[-|]+\n(.*?)\n\n", text, re.S)
    assert table, "README.md has no table of accuracies"
    shown = {}
    for line in table[1].splitlines():
        name, *numbers = [re.sub(r"\[([^]]+)\]\([^)]+\)|\*\*", r"\1", entry).strip() for entry in line[1:-1].split("|")]
        shown |= {(name, dataset): tuple(numbers[2 * i : 2 * i + 2]) for i, dataset in enumerate(STYLES)}
    full = Budget("paper", "fast", "all", 30_000)
    found = {(row_of(c), c.dataset): c for c in cells(read_runs(RESULTS / "table1.json")) if c.budget == full}
    assert {*shown} >= {key for key, cell in found.items() if cell.model in published.NAMES and not cell.variant}
    theirs = {
        (name, set_): published.TABLE_1[set_][model] for model, name in published.NAMES.items() for set_ in STYLES
    }
    for key, numbers in shown.items():
        accuracy = found[key].accuracy() if key in found else None
        expected = (
            f"{100 * accuracy.value:.2f}" if accuracy else "–",
            f"{theirs[key].accuracy:.2f}" if key in theirs else "",
        )
        assert numbers == expected, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_json(folder / "table1.json", fake_table())
    write_results(read_runs(folder / "table1.json"), folder)
    return folder


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_fresh_pages_are_not_stale(folder, tmp_path):
    assert stale_pages(folder, tmp_path / "scratch") == []


def test_results_are_the_same_every_time(folder, tmp_path):
    write_results(fake_table()[::-1], tmp_path)
    files = [path.relative_to(folder) for path in folder.rglob("*.*") if path.name != "table1.json"]
    assert len(files) > 6
    assert [name for name in files if (folder / name).read_bytes() != (tmp_path / name).read_bytes()] == []


@pytest.mark.parametrize("name", PAGES)
def test_edited_number_is_found(folder, tmp_path, name):
    page = copy_of(folder, tmp_path) / name
    text = page.read_text(encoding="utf-8")
    assert "98.53" in text
    page.write_text(text.replace("98.53", "98.54", 1), encoding="utf-8")
    assert stale_pages(page.parent, tmp_path / "scratch") == [name]


def test_changed_run_is_found(folder, tmp_path):
    copy = copy_of(folder, tmp_path)
    runs = fake_table()
    runs[0] = fake_run("stn-s", accuracy=runs[0]["accuracy"] + 0.01)
    write_json(copy / "table1.json", runs)
    assert stale_pages(copy, tmp_path / "scratch") == list(PAGES)
