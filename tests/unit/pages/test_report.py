"""The report: one file that holds everything, says what was measured, and trusts no text."""

import numpy as np
import pyarrow as pa
import pytest
from fake_answers import HOSTILE, answer_of, scene_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from read_page import Page, pixels

from progressive_attention.pages import report as report_module
from progressive_attention.pages.report import (
    MOST_CONFUSED,
    OTHERS,
    WIDTH,
    Network,
    Report,
    confusion,
    confusion_figure,
    duration,
    headline,
    judged,
    line_figure,
    measures,
    render,
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
        "entropy": [0.875] * (4 if name == "pan-hard-ctx" else 1),
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
    ours = [
        "91.4 % (98.53 %)",
        "89.3 – 92.6",
        "60.4 % (82.94 %)",
        "22.9 %",
        "20.2 %",
        "42.4 %",
        "2.4 % (2.34 %)",
    ]
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
    assert len(page.pictures) == len(page.values("alt")) == 2  # scenes
    assert all(page.values("alt"))
    assert ["accuracy, scale 0.5-1.0 (n = 246)", "91.4 %", "60.4 %"] in measures(report_of())
    assert ["attention entropy, layer 4", "87.5 %", "–"] in measures(report_of())
    on_mbg = measures(report_of(data="mbg"))
    assert ["accuracy, scale 0.5-1.0 (n = 246)", "91.4 % (84.2 %)", "60.4 % (49.1 %)"] in on_mbg


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
    network = Network("mine", {**network_of("mine").summary, **nothing, **unknown, "entropy": []}, {})
    report = Report("my folder", [network], {})
    assert Page(render(report)).pictures == []
    assert measures(report) == [["accuracy", "91.4 %"], ["95 % interval", "89.3 – 92.6"]]


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
    assert len(Page(render(report_of(scenes=[scene_of(answers={"pan": empty})]))).pictures) == 1


@pytest.fixture
def drawn(monkeypatch):
    """Figures in place of their PNGs."""
    monkeypatch.setattr(report_module, "finish", lambda figure: figure)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_line_is_drawn_and_its_best_point_marked(drawn):
    (axes,) = line_figure("Validation accuracy", "accuracy [%]", [25, 75, 50], 1).axes
    curve, mark = axes.lines
    assert_array_equal(curve.get_xydata(), [[1, 25], [2, 75], [3, 50]])
    assert_array_equal(mark.get_xydata(), [[2, 75]])
    assert texts(axes) == ["kept: 75.0 at epoch 2"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy [%]")


def test_few_epochs_are_points(drawn):
    for count, marker in ((1, "o"), (200, "None")):
        (curve,) = line_figure("Loss", "loss", list(range(count))).axes[0].lines
        assert curve.get_marker() == marker


def test_confusion_by_hand():
    answers = ["red", "blue", "blue", "white"]
    names, rows = confusion(["red", "red", "blue", "red"], answers, ["white", "blue", "green", "red"])
    assert names == ["white", "blue", "red"]
    assert_array_equal(rows, [[0, 0, 0], [0, 1, 0], [1, 1, 1]])


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=60))
def test_confusion_is_the_loop(rows):
    names = [f"colour {i}" for i in range(20)]
    truth, answer = ([names[i] for i in column] for column in zip(*rows, strict=True))
    shown, counted = confusion(truth, answer, names)
    assert len(shown) <= MOST_CONFUSED
    kept = [name for name in shown if name != OTHERS]
    assert kept == [name for name in names if name in kept]
    slow = np.zeros_like(counted)
    for pair in zip(truth, answer, strict=True):
        y, x = (shown.index(name if name in kept else OTHERS) for name in pair)
        slow[y, x] += 1
    assert_array_equal(counted, slow)
    left_out = [name for name in truth if name not in kept]
    if OTHERS in shown and left_out:  # nobody left out has more rows than one who is kept
        assert max(map(left_out.count, left_out)) <= min(truth.count(name) for name in kept)


def test_confusion_is_drawn(drawn):
    (axes,) = confusion_figure(["red", "very long name of a colour"], np.array([[3, 1], [0, 4]])).axes
    assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert texts(axes) == ["3\n75.0 %", "1\n25.0 %", "4\n100.0 %"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["red", "very long nam…"]


def figures(word: str) -> list[bytes]:
    return [
        line_figure(word, word, [3, 4], 1),
        confusion_figure([word, "other"], np.eye(2, dtype=int)),
        confusion_figure([f"{word}{i}" for i in range(12)], np.eye(12, dtype=int)),
    ]


def test_every_figure_fits_a_phone_takes_words_as_they_are_and_is_the_same_every_time():
    drawn = figures(HOSTILE)
    assert drawn == figures(HOSTILE)
    for png in drawn:
        height, width, _ = pixels(png).shape
        assert width == WIDTH
        assert 100 < height < 1200
