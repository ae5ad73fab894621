"""The results page says what the runs say, and nothing else."""

import re
from pathlib import Path

import pytest
from fake_answers import HOSTILE
from fake_runs import fake_run, fake_table
from markdown_it import MarkdownIt

from progressive_attention.config import MODELS, STYLES
from progressive_attention.pages.table1 import beside, figures_of, number, results_page, write_results
from progressive_attention.reproduce.published import NAMES, TABLE_1
from progressive_attention.reproduce.runs import Estimate, cells, models_in_order, title_of

NOWHERE = Path("nowhere")
Table = dict[str, list[str]]


def tables_of(text: str) -> list[Table]:
    """The tables of a page, as a reader sees them: label -> the other cells of a row, marks removed."""
    tables: list[Table] = []
    for lines in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        rows = [re.split(r"(?<!\\) \| ", line.strip()[2:-2]) for line in lines.splitlines()]
        assert len({*map(len, rows)}) == 1, "a table is whole"
        tables.append({row[0].replace("\\", ""): row[1:] for row in rows if not row[0].startswith(":")})
    return tables


def cell_of(runs, model: str, dataset: str):
    return next((c for c in cells(runs) if (c.model, c.dataset, c.variant) == (model, dataset, "")), None)


def test_first_comes_accuracy_and_attention_beside_the_papers():
    runs = fake_table()
    first, *_ = tables_of(results_page(runs, NOWHERE))
    assert list(first) == ["network", *NAMES.values(), "Uniform"]
    assert first["Uniform"][1:3] == ["20.00 (20.00)", "2.47 (2.34)"]
    for model, name in NAMES.items():
        assert first[name][0] == "3×12", "seeds and epochs"
        for i, style in enumerate(STYLES):
            papers, cell = TABLE_1[style][model], cell_of(runs, model, style)
            accuracy, attention, last = first[name][1 + 3 * i : 4 + 3 * i]
            attended = cell.mean("tpr_last" if model.startswith("stn") else "tpr_flow")
            assert accuracy == beside(cell.accuracy(), papers.accuracy)
            assert attention == beside(attended, papers.tpr)
            assert last == number(cell.mean("tpr_last"))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "–"),
        (Estimate(0.98534, 0.98324, 0.98744, 3), "98.53 ± 0.21"),
        (Estimate(0.98534, 0.9828, 0.9875, 1), "98.53"),
        (Estimate(0.5, None, None, 1), "50.00"),
    ],
)
def test_numbers_as_printed(estimate, text):
    assert number(estimate) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.9854, "**98.54** (98.53)"), (0.98534, "98.53 (98.53)"), (None, "– (98.53)")]
)
def test_what_is_above_the_papers_is_bold(share, text):
    """As many, to the last printed digit, is not above."""
    assert beside(share and Estimate(share, None, None, 1), 98.53) == text


def test_other_rows_variants_and_budgets_stand_below():
    page = results_page(fake_table(), NOWHERE)
    _, same, smaller = tables_of(page)
    others = [title_of(model) for model in models_in_order() if model not in NAMES]
    assert list(same) == ["network", "PAN[H]+CTX, closing gates", *others]
    assert same["PAN[H]+CTX, closing gates"][1] == "99.01"
    assert list(smaller) == ["network", "SAN", "PAN[H]+CTX"]
    assert smaller["SAN"][0] == "2×6"
    assert smaller["SAN"][4:] == ["–"] * 6
    assert "15,000 images, fast recipe, paper protocol, one digit an image asked:" in page


def test_a_new_row_of_models_stands_in_the_tables(monkeypatch):
    """One line in MODELS is enough: its title names it, below all others."""
    monkeypatch.setitem(MODELS, "mine", {"title": "My network", "network": "film"})
    run = {**fake_run("film"), "model": "mine"}
    assert list(tables_of(results_page([fake_run("film"), run], NOWHERE))[0])[1:] == ["FiLM", "My network"]


def test_where_the_numbers_come_from():
    runs = fake_table()
    assert f"{len(runs)} runs took 8.9 hours in all. Machines: 2 cores, 8 GiB." in results_page(runs, NOWHERE)
    again = results_page([fake_run(measured={"hardware": "1 core"}), fake_run(seed=1)], NOWHERE)
    assert "1 were measured again from their weights. Machines: 1 core." in again


def test_figures_are_of_the_largest_budget_the_papers_rows_and_others_apart(tmp_path):
    runs = fake_table()
    shown = {name: {cell.model for cell in of_figure} for name, of_figure in figures_of(cells(runs)).items()}
    assert shown == {"paper-fast-all-30000": {*NAMES}, "paper-fast-all-30000-others": {*MODELS} - {*NAMES}}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "qualitative-mref.png").touch()
    write_results(runs, tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\((figures/[^)]+\.png)\)", page)
    assert sorted(linked) == sorted(f"figures/{path.name}" for path in (tmp_path / "figures").iterdir())
    assert len(linked) == 5
    assert results_page(runs[::-1], tmp_path) == page, "in any order"


def test_text_is_escaped():
    page = results_page([fake_run(variant=HOSTILE, hardware=HOSTILE, commit=HOSTILE, command=HOSTILE)], NOWHERE)
    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(page)
    kinds = {child.type for token in tokens for child in token.children or []}
    assert not kinds & {"link_open", "html_inline", "code_inline", "em_open"}
    tables_of(page)
