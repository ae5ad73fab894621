"""The pages in results/ are those of results/table1.json: nobody edits a number there."""

import json
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


def test_the_readme_shows_the_runs_of_digits():
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| network \| MREF accuracy .*?\n\|[-|]+\n(.*?)\n\n", text, re.S)
    assert table, "README.md has no table of results"
    full = Budget("paper", "fast", "all", 30_000)
    ours = {(row_name(cell), cell.dataset): cell for cell in cells(RUNS) if cell.budget == full}
    models = {title: model for model, title in published.NAMES.items()}
    for line in table[1].splitlines():
        name, *shown = [entry.strip() for entry in line[1:-1].split("|")]
        expected = []
        for dataset in STYLES:
            cell, theirs = ours[name, dataset], published.TABLE_1[dataset].get(models.get(name, ""))
            for estimate, figure in ((cell.accuracy(), "accuracy"), (cell.mean("tpr_flow"), "tpr")):
                published_figure = f" ({getattr(theirs, figure):.1f})" if theirs else ""
                expected.append(f"{100 * estimate.value:.1f}{published_figure}")
        assert shown == expected, name


def test_the_readme_shows_the_runs_on_photographs():
    text = " ".join((RESULTS.parent / "README.md").read_text(encoding="utf-8").split())
    runs = {
        run["model"]: run for run in json.loads((RESULTS / "photographs/table2.json").read_text()) if run["seed"] == 0
    }
    san, pan = runs["san"], runs["pan-hard-ctx"]
    figures = [san["weighted_mean_ap"], pan["weighted_mean_ap"], pan["query_prior_weighted_mean_ap"]]
    figures += [pan["tpr_mask_activation"], san["tpr_mask_activation"], pan["tpr_mask_uniform"]]
    shown = re.findall(r"\d+\.\d", text[text.index("On captioned photographs") : text.index("[All results]")])
    assert shown == [f"{100 * figure:.1f}" for figure in figures]
