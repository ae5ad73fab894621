"""The papers' figures: pixels placed by receptive fields, every value shown, the same bytes every time."""

import numpy as np
import pytest
from fake_answers import HOSTILE, answer_of, scene_of
from fake_runs import fake_run
from hypothesis import given
from hypothesis import strategies as st
from read_page import pixels

from progressive_attention.config import STYLES
from progressive_attention.maps.shown_maps import attended_image, light, over_image
from progressive_attention.pages import paper_figures
from progressive_attention.pages.answer_plots import Scene
from progressive_attention.pages.figures import RIGHT, WRONG, coloured
from progressive_attention.pages.paper_figures import (
    Looked,
    accuracy_by_scale_figure,
    attribute_figure,
    looks_of,
    on_axis,
    precision_recall_figure,
    qualitative_figure,
    rescaled,
    so_far,
    spread_over_fields,
)
from progressive_attention.reproduce.published import MBG_BY_SCALE, NAMES, SCALE_BINS
from progressive_attention.reproduce.runs import cells, models_in_order

FIELDS = st.tuples(st.integers(1, 5), st.integers(-4, 6), st.integers(0, 9)).map(lambda f: (f[0], f[1], f[1] + f[2]))


def spread_slowly(values, field, image_size):
    """Pixel by pixel: the mean of all cells that see it, each weighing less towards the ends of its field."""
    out = np.zeros(image_size)
    for y, x in np.ndindex(*image_size):
        total = weights = 0.0
        for i, j in np.ndindex(*values.shape):
            weight = 1.0
            for at, cell, (stride, low, high) in zip((y, x), (i, j), field, strict=True):
                first, last = low + cell * stride, high + cell * stride
                if first <= at <= last:
                    weight *= min(at - first + 1, last - at + 1) / ((last - first) / 2 + 1)
                else:
                    weight = 0.0
            total, weights = total + weight * values[i, j], weights + weight
        out[y, x] = total / weights if weights else 0
    return out


@given(st.tuples(FIELDS, FIELDS), st.tuples(st.integers(1, 4), st.integers(1, 5)), st.integers(0, 1000))
def test_spread_equals_its_slow_twin(field, shape, seed):
    values = np.random.default_rng(seed).random(shape)
    np.testing.assert_allclose(spread_over_fields(values, field, (11, 14)), spread_slowly(values, field, (11, 14)))


def test_spread_by_hand():
    """Two cells of 3 pixels, 2 apart: the middle pixel is seen by both alike, the last by none."""
    rows, columns = (1, 0, 0), (2, 0, 2)
    spread = spread_over_fields(np.array([[4.0, 8.0]]), (rows, columns), (1, 6))
    np.testing.assert_array_equal(spread, [[4, 4, 6, 8, 8, 0]])
    everywhere = spread_over_fields(np.array([[3.0]]), ((0, 0, 0), (0, 0, 0)), (2, 3))
    np.testing.assert_array_equal(everywhere, np.full((2, 3), 3.0))


def test_rescaled_reaches_from_0_to_1():
    np.testing.assert_allclose(rescaled(np.array([[2.0, 3.0], [4.0, 6.0]])), [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(rescaled(np.full((2, 2), 7.0)), np.zeros((2, 2)))


def test_maps_so_far_are_products():
    layers = [np.array([[0.5, np.nan]]), np.array([[0.5, 1.0]]), np.array([[0.25, 0.75]])]
    np.testing.assert_array_equal(np.stack(so_far(layers))[:, 0], [[0.5, 0], [0.25, 0], [0.0625, 0]])


def papers_runs() -> list[dict]:
    return [fake_run(model, style, seed) for model in NAMES for style in STYLES for seed in (0, 1)]


@pytest.fixture
def axes_of(monkeypatch, tmp_path):
    """The axes of a figure of runs, as it is drawn."""

    def draw(figure, runs):
        kept = []
        finish = paper_figures.finish
        monkeypatch.setattr(paper_figures, "finish", lambda drawn, path: (kept.append(drawn), finish(drawn, path)))
        figure(cells(runs), tmp_path / "figure.png")
        return kept[0].axes

    return draw


def test_accuracy_axis():
    np.testing.assert_allclose(on_axis([0.0, 0.9, 0.99, 1.0, 1.2]), [-2, -1, 0, 1, 1], atol=1e-12)
    assert np.isnan(on_axis([None])).all()


@pytest.mark.parametrize("figure", [accuracy_by_scale_figure, precision_recall_figure])
def test_same_runs_same_bytes_in_any_order(tmp_path, figure):
    runs = papers_runs()
    for name, some in (("a", runs), ("b", runs[::-1])):
        figure(cells(some), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_accuracy_by_scale_shows_every_mean_interval_and_published_value(axes_of):
    runs = papers_runs()
    axes = axes_of(accuracy_by_scale_figure, runs)
    for panel, style in zip(axes, STYLES, strict=False):
        solid = [line.get_ydata() for line in panel.lines if line.get_linestyle() == "-"]
        dashed = [line.get_ydata() for line in panel.lines if line.get_linestyle() == "--"]
        ours = [cell for cell in cells(runs) if cell.dataset == style]
        expected = [on_axis([cell.accuracy(scale).value for scale in SCALE_BINS]) for cell in ours]
        np.testing.assert_allclose(solid, expected)
        theirs = [on_axis(np.array(row) / 100) for row in MBG_BY_SCALE.values()] if style == "mbg" else []
        np.testing.assert_allclose(dashed, theirs)
        bars = [[tuple(segment[:, 1]) for segment in bar.get_segments()] for bar in panel.collections]
        ends = [[(e.low, e.high) for s in SCALE_BINS if (e := cell.accuracy(s))] for cell in ours]
        np.testing.assert_allclose(bars, [[on_axis(pair) for pair in row] for row in ends])
    assert "hollow" in axes[-1].texts[0].get_text()
    assert "hollow" not in axes_of(accuracy_by_scale_figure, [fake_run("san")])[-1].texts[0].get_text()


def test_precision_recall_shows_every_curve_and_its_best(axes_of):
    runs = papers_runs()
    axes = axes_of(precision_recall_figure, runs)
    for panel, style in zip(axes, STYLES, strict=False):
        for i, cell in enumerate(cell for cell in cells(runs) if cell.dataset == style):
            curve = cell.curve("last" if cell.model.startswith("stn") else "flow")
            assert curve is not None
            recall, precision, iou = (100 * np.array(curve[key], float) for key in ("recall", "precision", "iou"))
            line, best = panel.lines[2 * i], panel.lines[2 * i + 1]
            np.testing.assert_allclose(line.get_xdata(), recall)
            np.testing.assert_allclose(line.get_ydata(), precision)
            assert (best.get_xdata()[0], best.get_ydata()[0]) == (recall[iou.argmax()], precision[iou.argmax()])
    without = axes_of(precision_recall_figure, [fake_run("film")])
    assert [len(panel.lines) for panel in without] == [0, 0]
    assert "no such map: FiLM" in without[-1].texts[-1].get_text()


@pytest.mark.parametrize("shown", [["mbg"], ["mref", "mbg"], ["mref", "mdist", "mbg"]])
def test_a_panel_for_each_set_with_runs_then_the_legend(shown, axes_of):
    axes = axes_of(precision_recall_figure, [fake_run("san", dataset) for dataset in shown])
    assert [panel.get_title("left") for panel in axes] == [*(name.upper() for name in shown), ""]
    assert [text.get_text() for text in axes[-1].get_legend().get_texts()] == ["SAN"]


def test_every_row_looks_different():
    looks = looks_of(models_in_order())
    assert len({*looks.values()}) == len(models_in_order())
    assert looks["san"] == looks_of(["film", "san"])["san"], "the papers' rows look alike in every figure"


def looked(answer: str = "red", layers: int = 4) -> Looked:
    rng = np.random.default_rng(0)
    return Looked(answer, list(rng.random((layers, 20, 20))), list(rng.random((layers, 20, 20))), rng.random((20, 20)))


@pytest.fixture
def rows_of(monkeypatch, tmp_path):
    """The rows of tiles of a figure."""

    def draw(figure, shown):
        kept = []
        monkeypatch.setattr(paper_figures, "grid", lambda rows, *rest, **more: kept.extend(rows))
        figure(shown, tmp_path / "figure.png")
        return kept

    return draw


def test_qualitative_figure_shows_features_before_and_behind_the_gates(rows_of):
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    pan = looked()
    scene = Scene(image, None, "7", ("red",), {"SAN": looked("blue", 1), "PAN": pan})
    above, below = rows_of(qualitative_figure, [scene])
    assert [tile.title for tile in above] == [
        "",
        "(a) layer 1 of 1",
        "flow",
        "(a) layer 3 of 4",
        "(a) layer 4 of 4",
        "flow",
    ]
    assert [tile.title for tile in below][1:3] == ["(b) layer 1 of 1", "attended"]
    heads = [tile.heading for tile in above if tile.heading]
    assert heads[0][1][0] == "7? red"
    assert [head[1] for head in heads[1:]] == [("blue ✗", WRONG), ("red ✓", RIGHT)]
    np.testing.assert_array_equal(above[4].pixels, coloured(rescaled(pan.before[-1])))
    np.testing.assert_array_equal(below[4].pixels, coloured(rescaled(pan.after[-1])))
    np.testing.assert_array_equal(above[5].pixels, over_image(image, light(pan.shown)))
    np.testing.assert_array_equal(below[5].pixels, attended_image(image, pan.after[-1]))


def test_attribute_figure_marks_what_is_true(rows_of):
    ranked = [("red", 0.9), ("old", 0.25), ("wet", 0.125), ("tall", 0.01)]
    answer = answer_of(3, ranked=ranked)
    ((question, source, attended, before, last),) = rows_of(
        attribute_figure, [scene_of(truth=["red", "wet"], answers={"HAN": answer})]
    )
    assert [words for words, _ in question.notes] == ["7?", "red", "wet"]
    assert source.notes == [("red 90% ✓", RIGHT), ("old 25% ✗", WRONG), ("wet 12% ✓", RIGHT)]
    maps = so_far(answer.layers)
    np.testing.assert_array_equal(source.pixels, over_image(answer.image, light(answer.maps["flow"])))
    np.testing.assert_array_equal(attended.pixels, attended_image(answer.image, maps[-1]))
    for tile, values in ((before, maps[-2]), (last, maps[-1])):
        np.testing.assert_array_equal(tile.pixels, coloured(rescaled(values)))


def test_pictures_are_drawn_with_any_words(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    qualitative_figure([Scene(image, None, HOSTILE, [HOSTILE], {HOSTILE: looked(HOSTILE)})], tmp_path / "a.png")
    attribute_figure(
        [scene_of(query=HOSTILE, answers={HOSTILE: answer_of(ranked=[(HOSTILE, 1.0)])})], tmp_path / "b.png"
    )
    for name in ("a.png", "b.png"):
        assert pixels((tmp_path / name).read_bytes()).std() > 10
