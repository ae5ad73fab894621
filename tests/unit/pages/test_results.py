"""The results pages say what the runs say, nothing else, in Markdown and HTML alike."""

import json
import re

import pytest
from fake_runs import fake_run, fake_table
from test_report import Page

from progressive_attention.config import STYLES
from progressive_attention.pages import results
from progressive_attention.pages.results import Heading, Paragraph, Picture, blocks
from progressive_attention.pages.results_page import html_of, markdown_of, plain, write_pages, write_results
from progressive_attention.pages.results_tables import Entry, Table, percent
from progressive_attention.reproduce.published import NAMES, SCALE_BINS, STRENGTH_2016, TABLE_1
from progressive_attention.reproduce.runs import MAPS, ROWS, Estimate, cells


def section(parts, title: str) -> list:
    """The blocks below a heading, up to the next of its level or above."""
    start = next(i for i, part in enumerate(parts) if isinstance(part, Heading) and title in part.text)
    level = parts[start].level
    rest = parts[start + 1 :]
    end = next((i for i, part in enumerate(rest) if isinstance(part, Heading) and part.level <= level), len(rest))
    return rest[:end]


def tables_in(parts) -> list[Table]:
    return [part for part in parts if isinstance(part, Table)]


def texts(table: Table) -> dict[str, list[str]]:
    """Label -> the other entries of a row."""
    return {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}


def unmarked(text: str) -> str:
    return text.removesuffix(" ▲")


def cell_of(runs, model: str, dataset: str):
    return next((c for c in cells(runs) if (c.model, c.dataset, c.variant) == (model, dataset, "")), None)


def test_accuracies_are_those_of_runs_and_papers():
    runs = fake_table()
    table = texts(tables_in(section(blocks(runs), "Accuracy, beside"))[0])
    assert list(table) == ["Uniform", *NAMES.values()]
    assert table["Uniform"] == ["20.00", "20.00", "–", "–"] * 3
    for model, name in NAMES.items():
        for i, style in enumerate(STYLES):
            accuracies = [run["accuracy"] for run in runs if (run["model"], run["dataset"]) == (model, style)
                          and run["images"] == 30_000 and not run["variant"]]  # fmt: skip
            ours, papers, epochs, seeds = table[name][4 * i : 4 * i + 4]
            assert float(ours.split()[0]) == pytest.approx(100 * sum(accuracies) / 3, abs=0.0051)
            assert papers == f"{TABLE_1[style][model].accuracy:.2f}"
            assert (epochs, seeds) == ("12", "3")


def test_ratios_are_those_of_runs_and_papers():
    runs = fake_table()
    table = texts(tables_in(section(blocks(runs), "True-positive ratio, beside"))[0])
    for model, name in NAMES.items():
        for i, style in enumerate(STYLES):
            *ours, papers, old = table[name][6 * i : 6 * i + 6]
            cell = cell_of(runs, model, style)
            assert [unmarked(text) for text in ours] == [percent(cell.mean(f"tpr_{kind}")) for kind in MAPS]  # type: ignore
            assert papers == f"{TABLE_1[style][model].tpr:.2f}"
            assert old == (f"{STRENGTH_2016[style][model]:.2f}" if model in STRENGTH_2016[style] else "–")


def test_uniform_ratio_is_computed():
    runs = [fake_run(tpr_uniform=0.02), fake_run(seed=1, tpr_uniform=0.03)]
    table = texts(tables_in(section(blocks(runs), "True-positive ratio, beside"))[0])
    assert table["Uniform"][:6] == ["2.50", "2.50", "2.50", "2.50", "2.34", "2.34"]
    assert table["Uniform"][6:10] == ["–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "–"),
        (Estimate(0.98534, 0.98324, 0.98744, 3), "98.53 ± 0.21"),
        (Estimate(0.98534, 0.9828, 0.9875, 1), "98.53 (98.28–98.75)"),
        (Estimate(0.5, None, None, 1), "50.00"),
    ],
)
def test_numbers_as_printed(estimate, text):
    assert percent(estimate) == text


@pytest.mark.parametrize(
    ("accuracy", "beats", "short"), [(0.9854, True, False), (0.9853, False, False), (0.9852, False, True)]
)
def test_what_beats_the_papers_is_marked_and_what_falls_short_is_named(accuracy, beats, short):
    """The papers' number is 98.53; as many, to the last printed digit, is neither."""
    parts = blocks([fake_run(accuracy=accuracy, tpr_flow=0.99)])
    table = tables_in(section(parts, "Accuracy, beside"))[0]
    entry = next(row for row in table.rows if row[0].text == "PAN[H]+CTX")[1]
    assert (entry.strong, entry.text.endswith("▲")) == (beats, beats)
    titles = [part.text for part in parts if isinstance(part, Heading)]
    assert ("Where we fall short of the papers" in titles) == short


def test_margins_to_san_and_han():
    runs = [
        fake_run("pan-hard-ctx", accuracy=0.99),
        fake_run("san", accuracy=0.80),
        fake_run("han", "mbg", accuracy=0.5),
    ]
    table = texts(tables_in(section(blocks(runs), "Accuracy, beside"))[1])
    assert table["PAN[H]+CTX − SAN"] == ["+19.00 ▲", "+15.59", "–", "+20.09", "–", "+30.85"]
    assert table["PAN[H]+CTX − HAN"] == ["–", "+16.69", "–", "+17.33", "–", "+28.78"]


def test_missing_cells_are_dashes():
    parts = blocks([fake_run("san", "mdist")])
    accuracy, ratio = (
        texts(tables_in(section(parts, f"{kind}, beside"))[0]) for kind in ("Accuracy", "True-positive ratio")
    )
    assert accuracy["SAN"][:4] == ["– not run", "82.94", "–", "–"]
    assert accuracy["HAN"][4:8] == ["– not run", "78.49", "–", "–"]
    assert ratio["SAN"][:5] == ["–", "–", "–", "–", "13.83"]


def test_budgets_have_tables_of_their_own_largest_first():
    runs = [*fake_table(), fake_run(recipe="paper"), fake_run(protocol="authors")]
    titles = [part.text for part in blocks(runs) if isinstance(part, Heading) and part.level == 2]
    assert titles == [
        "30,000 images, fast recipe, authors protocol, every digit of an image asked",
        "30,000 images, fast recipe, paper protocol, every digit of an image asked",
        "30,000 images, paper recipe, paper protocol, every digit of an image asked",
        "15,000 images, fast recipe, paper protocol, one digit an image asked",
        "Every run",
    ]


@pytest.mark.parametrize("queries", ["one", "all", "rows"])
def test_questions_an_image_are_told(queries):
    words = markdown_of(blocks([fake_run(queries_per_image=queries)])[4])
    assert words == plain(results.LEARNT_FROM[queries])


def test_other_rows_and_variants_stand_apart():
    runs = fake_table()
    parts = blocks(runs)
    others = texts(tables_in(section(parts, "Rows that the papers lack"))[0])
    assert list(others) == [name for model, name in ROWS.items() if model not in NAMES]
    variants = texts(tables_in(section(parts, "Variants"))[0])
    assert list(variants) == ["PAN[H]+CTX", "PAN[H]+CTX, closing gates"]
    main = texts(tables_in(section(parts, "Accuracy, beside"))[0])
    assert variants["PAN[H]+CTX"][0] == main["PAN[H]+CTX"][0]
    assert variants["PAN[H]+CTX, closing gates"][0].startswith("99.01 (")


def test_variant_without_its_plain_run():
    parts = blocks([fake_run(variant="masks supervised")])
    variants = texts(tables_in(section(parts, "Variants"))[0])
    assert variants["PAN[H]+CTX"] == ["– not run", "–", "–"] * 3
    assert variants["PAN[H]+CTX, masks supervised"][1:3] == ["12", "1"]
    assert "beside the papers'" not in " ".join(part.text for part in parts if isinstance(part, Heading))


def test_the_protocol_study_is_one_table_whatever_its_budgets():
    plain = fake_run(images=10_000, epochs=2, count=3333, accuracy=0.96)
    small = {"epochs": 14, "variant": "rows of few images", "queries_per_image": "rows"}
    seeds = [fake_run(seed=seed, images=1433, count=477, accuracy=a, **small) for seed, a in enumerate((0.93, 0.94))]
    other_size = fake_run(images=999, accuracy=0.5, **small)
    parts = blocks([fake_run("san"), plain, *seeds, other_size])
    found = texts(tables_in(section(parts, "each choice of protocol"))[0])
    assert list(found)[:2] == ["PAN[H]+CTX", "PAN[S]+CTX"]
    assert "PAN[S]+CTX, soft head averages" in found
    assert found["PAN[H]+CTX"][:6] == ["MREF", "10,000 × 2", percent(cells([plain])[0].accuracy()), "–", "1", "3,333"]
    row = found["PAN[H]+CTX, rows of few images"]
    assert row[1:6] == ["1,433 × 14", "93.50 ± 6.35", "-2.50", "2", "477"]
    assert float(row[6].split(" ±")[0]) == pytest.approx(50 * sum(run["tpr_last"] for run in seeds), abs=0.01)
    assert found["PAN[H]+CTX, norm before the gate"][1:6] == ["10,000 × 2", "– not run", "–", "–", "–"]
    headings = [part.text for part in parts if isinstance(part, Heading) and part.level == 2]
    assert [text.split(" images")[0] for text in headings] == [
        *("30,000", "10,000", "999", "What each choice of protocol is worth", "Every run")
    ]
    assert not any(isinstance(part, Picture) and "1433" in part.name for part in parts)
    assert not any("each choice of protocol" in part.text for part in blocks([plain]) if isinstance(part, Heading))


def test_scales_of_every_set_and_the_papers_of_mbg():
    runs = fake_table()
    parts = section(blocks(runs), "Accuracy by the target's scale")
    for table, style in zip(tables_in(parts), STYLES, strict=True):
        width = 2 if style == "mbg" else 1
        assert [text for text, _ in table.groups[1:3]] == ["0.5–1.0 (n = 5,100)", "1.0–1.5 (n = 2,300)"]
        row = texts(table)["STN-M"]
        cell = cell_of(runs, "stn-m", style)
        assert [unmarked(text) for text in row[::width]] == [percent(cell.accuracy(s)) for s in SCALE_BINS]  # type: ignore
        if width == 2:
            assert row[1::2] == ["51.8", "58.3", "55.3", "58.5", "61.7"]


def test_different_test_sets_are_told():
    other = fake_run(seed=1, count_by_scale=dict.fromkeys(SCALE_BINS, 7))
    table = tables_in(section(blocks([fake_run(), other]), "Accuracy by the target's scale"))[0]
    assert table.groups[1][0] == "0.5–1.0 (n = 7 or 5,100)"


def test_overlap_by_hand():
    run = fake_run(pointing_last=0.5, tpr_clipped=0.03, point_on_target=0.75, box_iou=0.125)
    run["precision_recall"] = {
        "last": {
            **{"threshold": [0.9, 0.5, 0.1], "precision": [None, 0.6, 0.2], "recall": [0, 0.3, 1.0]},
            **{"iou": [0.0, 0.25, 0.2], "best_iou": 0.25, "best_threshold": 0.5},
        }
    }
    row = texts(tables_in(section(blocks([run]), "Overlap"))[0])["PAN[H]+CTX"]
    assert row[:5] == ["25.00 (60.0 / 30.0)", "–", "–", "–", "50.00"]
    assert row[-3:] == ["3.00", "75.00", "12.50"]


def test_every_run_is_listed_with_its_cost():
    runs = fake_table()
    (table,) = tables_in(section(blocks(runs), "Every run"))
    assert len(table.rows) == len(runs)
    assert sorted(row[-1].text for row in table.rows) == sorted(run["command"] for run in runs)
    assert {"5.4 min", "2 cores, 8 GiB", "0123abc", "2.11.0", "43,210", "0.005"} <= {e.text for e in table.rows[0]}
    total = section(blocks(runs), "Every run")[0].text
    assert total == "97 runs took 8.7 hours together, on: 2 cores, 8 GiB."
    assert pytest.approx(8.4, abs=0.05) == 94 * 321.5 / 3600


def test_runs_that_were_measured_again_are_counted_with_their_machine():
    def words(*runs):
        return [part.text for part in section(blocks(runs), "Every run") if isinstance(part, Paragraph)]

    assert len(words(fake_run())) == 1
    _, again = words(fake_run(measured={"hardware": "1 core"}), fake_run(seed=1))
    assert re.match("1 of them .* from their weights, on: 1 core; remeasured.json", again)


def test_both_pages_hold_every_entry(tmp_path):
    runs = fake_table()
    write_results(runs, tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    for part in blocks(runs):
        if isinstance(part, Table):
            for row in part.rows:
                assert "".join(entry.text for entry in row) in page.text
            assert markdown_of(part) in readme
        elif isinstance(part, Picture):
            assert f"(figures/{part.name}.png)" in readme
            assert (tmp_path / "figures" / f"{part.name}.png").read_bytes() in page.pictures
            assert (tmp_path / "figures" / f"{part.name}.svg").exists()


def test_markdown_tables_are_whole():
    for part in blocks(fake_table()):
        if isinstance(part, Table):
            lines = markdown_of(part).splitlines()
            assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(part.head) + 1}
            assert {len(row) for row in part.rows} == {len(part.head)}
            assert not part.groups or sum(width for _, width in part.groups) == len(part.head)


def test_html_is_one_file_for_light_and_dark(tmp_path):
    write_results([fake_run()], tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link", re.sub(r"base64,[\w+/=]+", "", text))
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text


def test_text_is_escaped(tmp_path):
    evil = "<script>|*_`[x](y)\n&amp;"
    write_results([fake_run(variant=evil, hardware=evil, commit=evil, command=evil, torch=evil)], tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.text.count(evil) >= 5
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[x", readme)
    assert markdown_of(Table([], ["a", "b"], [[Entry("|"), Entry("x_y | z", code=True)]])).splitlines()[-1] == (
        r"| \| | <code>x\_y \| z</code> |"
    )


def test_notes_and_scenes_of_the_folder_are_shown(tmp_path):
    run = fake_run("san", accuracy=0.5)
    write_results([run], tmp_path)
    (tmp_path / "notes.json").write_text(
        json.dumps([{"figure": "accuracy", "cells": ["mref/san"], "text": "Its gate is at layer 4 only."}])
    )
    picture = next((tmp_path / "figures").glob("*.png")).read_bytes()
    (tmp_path / "figures" / "qualitative-mref.png").write_bytes(picture)
    write_pages([run], tmp_path)
    for name in ("README.md", "index.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Its gate is at layer 4 only." in text
        assert "Where the networks look" in text
    assert "(figures/qualitative-mref.png)" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"accuracy-by-scale-\S+\.png does not exist; draw the figures first"):
        write_pages([fake_run()], tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match="no run to report; train some by 'pan reproduce'"):
        write_results([], tmp_path)


def test_html_entry_marks():
    table = html_of(Table([], ["model", "x"], [[Entry("SAN"), Entry("1 ▲", strong=True)]]), None)  # type: ignore
    assert "<th scope='row'>SAN</th><td><b>1 ▲</b></td>" in table


def test_a_figure_has_no_more_rows_than_its_legend_holds():
    """Twelve prices of one network: all are drawn, each once, beside the plain network of every figure."""
    prices = {f"price {number}" for number in range(12)}
    runs = [fake_run(), fake_run("san"), *(fake_run(variant=price) for price in prices)]
    figures = results.figures_of(cells(runs))
    assert [name.removeprefix("paper-fast-all-30000") for name in figures] == ["", "-others", "-others-2", "-others-3"]
    papers, *others = ([cell.variant for cell in shown] for shown in figures.values())
    assert papers == ["", ""]
    assert all(shown.count("") == 1 and len(shown) <= 1 + results.AT_ONCE for shown in others)
    assert sorted(variant for shown in others for variant in shown if variant) == sorted(prices)
