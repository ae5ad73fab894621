"""Plots of one run: the numbers that are drawn, by hand and against loops, and that they are what is seen."""

import numpy as np
import pytest
from fake_answers import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from read_page import pixels

from progressive_attention.pages import run_plots
from progressive_attention.pages.run_plots import (
    MOST_CONFUSED,
    MOST_RANKED,
    OTHERS,
    SHARES,
    WIDTH,
    ScaleSeries,
    ap_figure,
    confusion,
    confusion_figure,
    entropy_figure,
    line_figure,
    on_axis,
    quantiles,
    ranked_attributes,
    scale_curve,
)
from progressive_attention.reproduce.published import SCALE_BINS

RANKED = [
    ("red", {"count": 9, "ap": 0.75, "query_prior_ap": 0.5}),
    ("old", {"count": 2, "ap": 0.25, "query_prior_ap": None}),
]


@pytest.fixture
def drawn(monkeypatch):
    """Figures in place of their PNGs."""
    monkeypatch.setattr(run_plots, "finish", lambda figure: figure)


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


def test_quantiles_by_hand():
    entropy = np.array([[0.0, np.nan, 1], [1, np.nan, np.nan], [0.5, np.nan, 1]])
    found = quantiles(entropy)
    assert_allclose(found[:, 0], SHARES)  # of 0, 0.5 and 1: linear
    assert np.isnan(found[:, 1]).all()
    assert_allclose(found[:, 2], 1)


def test_entropy_is_drawn_by_group_and_layer(drawn):
    rng = np.random.default_rng(0)
    right, wrong = rng.random((40, 3)), rng.random((7, 3))
    (axes,) = entropy_figure({"right": right, "wrong": wrong}, ["gate", "gate", "softmax"]).axes
    for line, entropy in zip(axes.lines, (right, wrong), strict=True):
        assert_allclose(line.get_ydata(), 100 * np.median(entropy, 0))
    whiskers, halves = axes.collections[:2]
    for bars, (low, high) in ((whiskers, (0.05, 0.95)), (halves, (0.25, 0.75))):
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert_allclose(ends, 100 * np.quantile(right, (low, high), 0).T)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["right (n = 40)", "wrong (n = 7)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "layer 1\ngate",
        "layer 2\ngate",
        "layer 3\nsoftmax",
    ]


def test_most_frequent_attributes_come_first_and_those_that_never_hold_not_at_all():
    each = {f"a{i}": {"count": i, "ap": None if i == 0 else 0.5, "query_prior_ap": None} for i in range(40)}
    assert [name for name, _ in ranked_attributes(each)] == [f"a{i}" for i in range(39, 39 - MOST_RANKED, -1)]
    assert ranked_attributes({"none": each["a0"]}) == []


def test_aps_are_drawn(drawn):
    (axes,) = ap_figure(RANKED).axes
    alone, network = axes.lines
    assert_array_equal(network.get_xydata(), [[75, 0], [25, 1]])
    assert_array_equal(alone.get_xydata()[0], [50, 0])
    assert np.isnan(alone.get_xdata()[1])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["red (9)", "old (2)"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["query alone", "network"]
    (axes,) = ap_figure(RANKED[1:]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["network"]


def series_of(name: str, value: float | None = 0.5, published=None) -> ScaleSeries:
    ends = (0.0, 1.0) if value is None else (value - 0.1, value + 0.1)
    return ScaleSeries(name, dict.fromkeys(SCALE_BINS, value), dict.fromkeys(SCALE_BINS, ends), published)


def test_scales_are_drawn_with_their_intervals_and_the_papers_values(drawn):
    theirs = dict(zip(SCALE_BINS, (90.0, 91.0, 92.0, 93.0, 94.0), strict=True))
    shown = [series_of("pan", 0.8, theirs), series_of("san", None, 70.0)]
    (axes,) = scale_curve(shown, "title", dict.fromkeys(SCALE_BINS, 3)).axes
    pan, papers, san, all_scales = (line.get_ydata() for line in axes.lines)
    assert_allclose(pan, on_axis([0.8] * 5))
    assert_allclose(papers, on_axis([value / 100 for value in theirs.values()]))
    assert np.isnan(san).all(), "no question of any scale"
    assert_allclose(all_scales, on_axis(0.7))
    bars = np.array([segment[:, 1] for segment in axes.collections[0].get_segments()])
    assert_allclose(bars, on_axis([[0.7, 0.9]] * 5))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["pan, here", "pan, papers", "san, here", "san, papers, all scales"]
    assert axes.get_xticklabels()[0].get_text() == "0.5–1.0\nn = 3"
    low, high = axes.get_ylim()
    assert low < on_axis(0.7) < on_axis(0.94) < high


def test_accuracy_axis():
    assert_allclose(on_axis([0.0, 0.9, 0.99, 1.0, 1.2]), [-2, -1, 0, 1, 1], atol=1e-12)
    assert np.isnan(on_axis([None])).all()


def figures(word: str) -> list[bytes]:
    return [
        line_figure(word, word, [3, 4], 1),
        confusion_figure([word, "other"], np.eye(2, dtype=int)),
        confusion_figure([f"{word}{i}" for i in range(12)], np.eye(12, dtype=int)),
        entropy_figure({"right": np.full((2, 1), 0.5), "wrong": np.zeros((0, 1))}, ["softmax"]),
        ap_figure([(word, RANKED[0][1])]),
        scale_curve([series_of(word, 0.5, 50.0)], word, dict.fromkeys(SCALE_BINS, 1)),
    ]


def test_every_figure_fits_a_phone_takes_words_as_they_are_and_is_the_same_every_time():
    drawn = figures(HOSTILE)
    assert drawn == figures(HOSTILE)
    for png in drawn:
        height, width, _ = pixels(png).shape
        assert width == WIDTH
        assert 100 < height < 1200
