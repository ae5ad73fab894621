"""The pages in results/ are those of results/table1.json: nobody edits a number there."""

import re
from pathlib import Path

import pytest

from progressive_attention.config import STYLES
from progressive_attention.pages.table1 import results_page, row_name
from progressive_attention.reproduce import published
from progressive_attention.reproduce.runs import Budget, cells, read_runs

RESULTS = Path(__file__).parents[2] / "results"
RUNS = read_runs(RESULTS / "table1.json")


def test_the_page_is_that_of_its_runs():
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert page == results_page(RUNS, RESULTS)
    assert len(page.split()) <= 2_500
    for name in re.findall(r"\((figures/[^)]+)\)", page):
        assert (RESULTS / name).exists()


PRIVATE = re.compile(r"(?<![\w-])shared/|/shared\b|(?<![\w.:/~<)`])/(?:[\w.-]+/)+[\w.-]|\b[A-Z]:\\\\")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("--data ../shared/data/set", True),
        ('"folder": "/home/me/set"', True),
        ("pan train --data data/vg --out runs/vg", False),
        ("</td></tr>, 1/2, https://example.org/a/b", False),
    ],
)
def test_paths_of_one_machine_are_known(text, wrong):
    assert bool(PRIVATE.search(text)) == wrong


def test_no_result_names_a_folder_of_one_machine():
    """Research data is imported into a folder that git ignores, and measured by a relative path."""
    texts = {path: path.read_bytes() for path in RESULTS.rglob("*") if path.is_file()}
    texts = {path: content.decode() for path, content in texts.items() if b"\0" not in content}
    assert RESULTS / "table1.json" in texts
    wrong = {str(path.relative_to(RESULTS)): PRIVATE.search(text) for path, text in texts.items()}
    assert not {path: match[0] for path, match in wrong.items() if match}


def test_accuracies_in_the_readme_are_those_of_the_runs():
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| \| MREF \| paper .*?\n\|[-|]+\n(.*?)\n\n", text, re.S)
    assert table, "README.md has no table of accuracies"
    shown = {}
    for line in table[1].splitlines():
        name, *numbers = [re.sub(r"\[([^]]+)\]\([^)]+\)|\*\*", r"\1", entry).strip() for entry in line[1:-1].split("|")]
        shown |= {(name, dataset): tuple(numbers[2 * i : 2 * i + 2]) for i, dataset in enumerate(STYLES)}
    full = Budget("paper", "fast", "all", 30_000)
    ours = {(row_name(cell), cell.dataset): cell for cell in cells(RUNS) if cell.budget == full}
    assert {*shown} >= {key for key, cell in ours.items() if cell.model in published.NAMES and not cell.variant}
    for (name, dataset), numbers in shown.items():
        accuracy = ours[name, dataset].accuracy() if (name, dataset) in ours else None
        theirs = {called: published.TABLE_1[dataset][model] for model, called in published.NAMES.items()}.get(name)
        expected = f"{100 * accuracy.value:.2f}" if accuracy else "–", f"{theirs.accuracy:.2f}" if theirs else ""
        assert numbers == expected, (name, dataset)
