"""The report: one file that holds everything, says what was measured, and trusts no text."""

import io
import re

import numpy as np
import pyarrow as pa
import pytest
from fake_answers import HOSTILE, answer_of, scene_of
from read_page import Page
from rich.console import Console

from progressive_attention.pages.report import (
    Network,
    Report,
    duration,
    headline,
    judged,
    measures,
    render,
    terminal_table,
)
from progressive_attention.reproduce.published import SCALE_BINS


def network_of(name: str, accuracy: float = 0.9137, **training: str) -> Network:
    summary = {
        "count": 1234,
        "accuracy": accuracy,
        "accuracy_ci95": [accuracy - 0.0211, accuracy + 0.012],
        "accuracy_by_scale": dict.fromkeys(SCALE_BINS, accuracy),
        "accuracy_by_scale_ci95": dict.fromkeys(SCALE_BINS, (accuracy - 0.05, accuracy + 0.05)),
        "count_by_scale": dict.fromkeys(SCALE_BINS, 246),
        "tpr_last": 0.2291,
        "tpr_accumulated": 0.2022,
        "tpr_activation": 0.4243,
        "tpr_uniform": 0.0236,
    }
    return Network(name, summary, {"training images": "17,500", "training time": "231 s", **training})


def report_of(**changes) -> Report:
    fields = {
        "data": "mref",
        "networks": [network_of("pan-hard-ctx"), network_of("san", 0.6042)],
        "facts": {"command": "pan quickstart", "hardware": "two cores"},
        "scenes": [scene_of(), scene_of(truth=("blue",))],
        "chosen": "The first two.",
    }
    return Report(**{**fields, **changes})


def test_page_says_what_was_measured_and_published():
    page = Page(render(report_of()))
    ours = ["91.4 % (98.53 %)", "89.3 – 92.6", "60.4 % (82.94 %)", "22.9 %", "20.2 %", "42.4 %", "2.4 % (2.34 %)"]
    papers = ["(62.36 %)", "(13.83 %)", "30,000 images", "300 epochs", "BMVC 2018, Table 1"]
    facts = [
        "1,234",
        "17,500",
        "231 s",
        "two cores",
        "pan quickstart",
        "red ✓ right",
        "white ✗ wrong",
        "The first two.",
    ]
    assert [text for text in ours + papers + facts if text not in page.text] == []
    assert len(page.pictures) == len(page.values("alt")) == 1 + 2  # accuracy by scale, scenes
    assert all(page.values("alt"))
    assert "scale 0.5-1.0 91.4 %" in page.values("alt")[0]


def test_text_is_escaped():
    network = network_of(HOSTILE, **{HOSTILE: HOSTILE})
    report = report_of(
        data=HOSTILE,
        networks=[network],
        facts={HOSTILE: HOSTILE},
        scenes=[scene_of(query=HOSTILE, truth=(HOSTILE,), answers={HOSTILE: answer_of(attribute=HOSTILE)})],
        chosen=HOSTILE,
        missing=[HOSTILE],
    )
    page = Page(render(report))
    assert page.text.count(HOSTILE) > 10
    assert HOSTILE in " ".join(page.values("alt"))
    assert not page.values("href")


def test_headline_gives_the_figures_and_concludes_nothing():
    pan, san = network_of("pan-hard-ctx", 0.91), network_of("san", 0.60)
    assert headline([pan, san]) == "pan-hard-ctx answers 91.0 % of 1,234 new questions correctly, san 60.0 %."
    assert headline([pan]) == "pan-hard-ctx answers 91.0 % of 1,234 new questions correctly."
    labels = Network("san", {"count": 1234, "weighted_mean_ap": 0.5, "query_prior_weighted_mean_ap": 0.25}, {})
    assert "1,234 questions with a weighted mAP of 50.0 %; the query alone reaches 25.0 %" in headline([labels])
    labels.summary.pop("query_prior_weighted_mean_ap")
    assert headline([labels]).endswith("weighted mAP of 50.0 %.")
    assert "Not measured" in headline([Network("san", {}, {})])


def test_missing_figures_are_left_out():
    """No masks and no scales: nothing to say about attention or size, and no curve."""
    nothing = {f"tpr_{name}": None for name in ("last", "accumulated", "activation", "uniform")}
    unknown = {"accuracy_by_scale": dict.fromkeys(SCALE_BINS), "count_by_scale": dict.fromkeys(SCALE_BINS, 0)}
    network = Network("mine", {**network_of("mine").summary, **nothing, **unknown}, {})
    report = Report("my folder", [network], {})
    assert Page(render(report)).pictures == []
    assert measures(report) == [["accuracy", "91.4 %"], ["95 % interval", "89.3 – 92.6"]]


def test_terminal_table_has_the_same_figures_in_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(report_of()))
    lines = console.export_text().splitlines()
    assert any(re.search(r"accuracy.*91\.4 % \(98\.53 %\).*60\.4 % \(82\.94 %\)", line) for line in lines)
    assert not [line for line in lines if "…" in line]


def test_judged_by_the_likeliest_of_several_attributes():
    columns = {
        "attributes": [["red", "old"], ["red"], []],
        "top": [["old", "wet"], ["wet", "red"], ["red", "old"]],
        "log_odds": [[2.5, 1.0], [-0.5, -1.0], [0.25, 0.0]],
    }
    right, sure = judged(pa.table(columns))
    assert right.tolist() == [True, False, False]
    assert sure.tolist() == [2.5, -0.5, 0.25]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89.4, "89 s"), (120, "2 min"), (2304, "38 min"), (9000, "2.5 h")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_a_layer_of_nan_is_drawn():
    empty = answer_of()
    empty.layers[1][:] = np.nan
    assert len(Page(render(report_of(scenes=[scene_of(answers={"pan": empty})]))).pictures) == 1 + 1
