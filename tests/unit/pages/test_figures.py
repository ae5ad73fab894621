"""The papers' figures: pixels placed by receptive fields, the same bytes every time, every value shown."""

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from progressive_attention.config import STYLES
from progressive_attention.pages import figures
from progressive_attention.pages.figures import (
    Example,
    Looked,
    on_axis,
    qualitative_figure,
    rescaled,
    spread_over_fields,
)
from progressive_attention.reproduce.published import MBG_BY_SCALE, NAMES, SCALE_BINS
from progressive_attention.reproduce.runs import cells

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


def test_spread_of_a_global_cell_is_the_whole_image():
    field = (0, 0, 0)
    np.testing.assert_array_equal(spread_over_fields(np.array([[3.0]]), (field, field), (2, 3)), np.full((2, 3), 3.0))


def test_spread_takes_many_maps_at_once():
    values = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)
    field = ((16, 0, 45), (16, 0, 45))  # the last map of the papers' network
    together = spread_over_fields(values, field, (100, 100))
    assert together.shape == (2, 3, 100, 100)
    np.testing.assert_array_equal(together[1, 2], spread_over_fields(values[1, 2], field, (100, 100)))


def test_spread_keeps_a_constant_map():
    field = ((16, 0, 45), (16, 0, 45))
    spread = spread_over_fields(np.full((4, 4), 0.3), field, (94, 94))
    np.testing.assert_allclose(spread, 0.3)


def test_rescaled_reaches_from_0_to_1():
    np.testing.assert_allclose(rescaled(np.array([[2.0, 3.0], [4.0, 6.0]])), [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(rescaled(np.full((2, 2), 7.0)), np.zeros((2, 2)))


def test_accuracy_axis():
    np.testing.assert_allclose(on_axis([0.0, 0.9, 0.99, 1.0, 1.2]), [-2, -1, 0, 1, 1], atol=1e-12)
    assert np.isnan(on_axis([None])).all()


def table(**changes) -> list[dict]:
    return [fake_run(model, style, seed) | changes for model in NAMES for style in STYLES for seed in (0, 1)]


def drawn(figure: Callable, *arguments) -> tuple[bytes, bytes]:
    """PNG and SVG."""
    figure(*arguments)
    return tuple(next(folder.glob(f"*.{kind}")).read_bytes() for folder in [arguments[1]] for kind in ("png", "svg"))


def by_scale(runs, *where) -> None:
    figures.accuracy_by_scale_figure(cells(runs), *where)


def precision_recall(runs, *where) -> None:
    figures.precision_recall_figure(cells(runs), *where)


FIGURES = [by_scale, precision_recall]


@pytest.mark.parametrize("figure", FIGURES)
def test_same_runs_same_bytes_in_any_order(tmp_path, figure):
    runs = table()
    assert drawn(figure, runs, tmp_path / "a") == drawn(figure, runs[::-1], tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_180_mm_wide(tmp_path, figure):
    png, svg = drawn(figure, table(), tmp_path)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width / picture.info["dpi"][0] * 25.4 == pytest.approx(180, abs=0.3)
    root = ET.fromstring(svg)
    assert float(root.attrib["width"].removesuffix("pt")) / 72 * 25.4 == pytest.approx(180, abs=0.3)
    assert b"date" not in svg


def test_a_row_keeps_its_name_whatever_is_drawn_with_it(monkeypatch, tmp_path):
    """A shorter run stays one where the longer is in another figure."""
    shorter = [cell for cell in cells([fake_run(epochs=6), fake_run(epochs=1)]) if cell.epochs == 1]
    axes = panels(monkeypatch, figures.accuracy_by_scale_figure, shorter, tmp_path)
    assert [text.get_text() for text in axes[-1].get_legend().get_texts()] == ["PAN[H]+CTX, 1 epoch"]


@pytest.mark.parametrize("figure", FIGURES)
def test_runs_of_two_budgets_are_refused(tmp_path, figure):
    with pytest.raises(ValueError, match=r"runs of one budget, got 2; draw one figure for each"):
        figure([fake_run(), fake_run(images=300)], tmp_path)
    with pytest.raises(ValueError, match=r"runs of one budget, got 0"):
        figure([], tmp_path)


def panels(monkeypatch, figure: Callable, runs, tmp_path) -> list:
    """The axes of a figure that was drawn."""
    kept = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda drawn, *where: (kept.append(drawn), save(drawn, *where)))
    figure(runs, tmp_path)
    return kept[0].axes


def test_accuracy_by_scale_shows_every_mean_interval_and_published_value(monkeypatch, tmp_path):
    runs = table()
    axes = panels(monkeypatch, by_scale, runs, tmp_path)
    for panel, style in zip(axes, STYLES, strict=False):
        solid = [line.get_ydata() for line in panel.lines if line.get_linestyle() == "-"]
        dashed = [line.get_ydata() for line in panel.lines if line.get_linestyle() == "--" and len(line.get_ydata())]
        ours = [cell for cell in cells(runs) if cell.dataset == style]
        expected = [on_axis([cell.accuracy(scale).value for scale in SCALE_BINS]) for cell in ours]  # type: ignore
        np.testing.assert_allclose(solid, expected)
        if style == "mbg":
            np.testing.assert_allclose(dashed, [on_axis(np.array(row) / 100) for row in MBG_BY_SCALE.values()])
        else:
            assert dashed == []
        bars = [[tuple(segment[:, 1]) for segment in bar.get_segments()] for bar in panel.collections]
        ends = [[(e.low, e.high) for s in SCALE_BINS if (e := cell.accuracy(s))] for cell in ours]
        np.testing.assert_allclose(bars, [[on_axis(pair) for pair in row] for row in ends])


@pytest.mark.parametrize(
    "run, told", [(fake_run("san", "mbg"), True), (fake_run("san"), False), (fake_run("film", "mbg"), False)]
)
def test_the_papers_values_are_told_where_they_are_shown(run, told, monkeypatch, tmp_path):
    axes = panels(monkeypatch, by_scale, [run], tmp_path)
    assert any(line.get_linestyle() == "--" and len(line.get_ydata()) for line in axes[0].lines) == told
    assert ("hollow" in axes[-1].texts[0].get_text()) == told


def test_all_values_lie_inside_the_panels(monkeypatch, tmp_path):
    runs = [*table(), fake_run("stn-s", accuracy_by_scale=dict.fromkeys(SCALE_BINS, 1.0), seed=9)]
    runs += [fake_run("stn-s", "mdist", accuracy_by_scale=dict.fromkeys(SCALE_BINS, 0.0), seed=9)]
    for panel in panels(monkeypatch, by_scale, runs, tmp_path)[:3]:
        low, high = panel.get_ylim()
        values = np.concatenate([line.get_ydata() for line in panel.lines])
        assert low < values.min() < values.max() < high


def test_precision_recall_shows_every_curve_and_its_best(monkeypatch, tmp_path):
    runs = table()
    axes = panels(monkeypatch, precision_recall, runs, tmp_path)
    for panel, style in zip(axes, STYLES, strict=False):
        for i, cell in enumerate(cell for cell in cells(runs) if cell.dataset == style):
            curve = cell.curve("last" if cell.model.startswith("stn") else "flow")
            assert curve is not None
            recall, precision, iou = (100 * np.array(curve[key], float) for key in ("recall", "precision", "iou"))
            line, best = panel.lines[2 * i], panel.lines[2 * i + 1]
            np.testing.assert_allclose(line.get_xdata(), recall)
            np.testing.assert_allclose(line.get_ydata(), precision)
            assert (best.get_xdata()[0], best.get_ydata()[0]) == (recall[iou.argmax()], precision[iou.argmax()])


def test_map_of_the_curves_can_be_chosen(tmp_path):
    runs = [fake_run()]
    precision_recall(runs, tmp_path, "a", ["accumulated"])
    precision_recall(runs, tmp_path, "b", ["last"])
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("shown", [["mref"], ["mbg"], ["mref", "mbg"], ["mref", "mdist", "mbg"]])
def test_a_panel_for_each_set_with_runs_then_the_legend(shown, monkeypatch, tmp_path):
    runs = [fake_run("san", dataset) for dataset in shown]
    axes = panels(monkeypatch, precision_recall, runs, tmp_path)
    rest = len(axes) - len(shown)
    assert [panel.get_title("left") for panel in axes] == [name.upper() for name in shown] + [""] * rest
    assert len(axes) == 2 * (1 + (len(shown) > 1)), "no empty row"
    assert [bool(panel.get_legend()) for panel in axes] == [False] * (len(axes) - 1) + [True]
    assert [panel.axison for panel in axes] == [True] * len(shown) + [False] * rest


def test_a_network_without_maps_has_no_curve(monkeypatch, tmp_path):
    axes = panels(monkeypatch, precision_recall, [fake_run("film")], tmp_path)
    assert [len(panel.lines) for panel in axes] == [0, 0]
    assert axes[-1].texts[-1].get_text().endswith("\nno such map: FiLM")


def test_every_row_looks_different():
    runs = [fake_run(model) for model in figures.ROWS] + [fake_run(variant=f"variant {i}") for i in range(6)]
    for shown in (runs[:8], [runs[7], *runs[8:]]):
        looks = figures.looks_of(cells(shown))
        assert len(looks) == len(shown)
        assert len({*looks.values()}) == len(shown)
    assert figures.looks_of(cells(runs[:8]))["PAN[H]+CTX"] == figures.looks_of(cells(runs))["PAN[H]+CTX"]


def looked(answer: str = "red", layers: int = 4, seed: int = 0) -> Looked:
    rng = np.random.default_rng(seed)
    return Looked(answer, list(rng.random((layers, 20, 20))), list(rng.random((layers, 20, 20))), rng.random((20, 20)))


def example(**changes) -> Example:
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:9, 4:12] = True
    networks = {"SAN": looked(layers=1), "PAN[H]+CTX": looked()}
    return Example(image, mask, "7", "red", networks)._replace(**changes)


def scenes_png(folder: Path, *scenes: Example, last: int = 2) -> bytes:
    qualitative_figure(scenes, folder, "qualitative-mref", last)
    return (folder / "qualitative-mref.png").read_bytes()


def test_qualitative_figure_is_the_same_every_time(tmp_path):
    first = scenes_png(tmp_path, example(), example(query="3"))
    svg = (tmp_path / "qualitative-mref.svg").read_bytes()
    assert scenes_png(tmp_path, example(), example(query="3")) == first
    assert (tmp_path / "qualitative-mref.svg").read_bytes() == svg


@pytest.mark.parametrize(
    "changes",
    [
        {"query": "3"},
        {"truth": "blue"},
        {"mask": None},
        {"image": np.zeros((20, 20, 3), np.uint8)},
        {"networks": {"SAN": looked("blue", 1), "PAN[H]+CTX": looked()}},
        {"networks": {"SAN": looked(layers=1), "PAN[H]+CTX": looked()._replace(before=looked(seed=5).before)}},
        {"networks": {"SAN": looked(layers=1), "PAN[H]+CTX": looked()._replace(after=looked(seed=5).after)}},
        {"networks": {"SAN": looked(layers=1), "PAN[H]+CTX": looked()._replace(shown=looked(seed=5).shown)}},
    ],
)
def test_qualitative_figure_shows_what_it_is_given(tmp_path, changes):
    assert scenes_png(tmp_path, example(**changes)) != scenes_png(tmp_path, example())


@pytest.mark.parametrize(("last", "pictures"), [(1, 4 + 4 + 1), (2, 4 + 6 + 1), (4, 4 + 10 + 1), (9, 4 + 10 + 1)])
def test_qualitative_figure_shows_so_many_layers(monkeypatch, tmp_path, last, pictures):
    """Before, behind, the flow and the attended image for each network; and the image itself."""
    axes = panels(
        monkeypatch, lambda scenes, folder: qualitative_figure(scenes, folder, "q", last), [example()], tmp_path
    )
    assert len(axes) == pictures
    assert all(panel.images for panel in axes)
    shown = [panel.images[0].get_array() for panel in axes]
    for values in (looked().before[-1], looked().after[-1]):
        assert any(one.shape == values.shape and np.allclose(one, rescaled(values)) for one in shown)


def test_qualitative_figure_without_examples(tmp_path):
    with pytest.raises(ValueError, match="at least one example and one layer, got 0 and 2"):
        qualitative_figure([], tmp_path, "q")
    with pytest.raises(ValueError, match="got 1 and 0"):
        qualitative_figure([example()], tmp_path, "q", 0)


def test_qualitative_figure_needs_the_same_networks(tmp_path):
    with pytest.raises(ValueError, match=r"the same networks: \['SAN', 'PAN\[H\]\+CTX'\], got \['SAN'\]"):
        qualitative_figure([example(), example(networks={"SAN": looked(layers=1)})], tmp_path, "q")


@pytest.mark.parametrize("word", ["$x^", "<b>", "a_b\\frac{"])
def test_words_are_taken_as_they_are(tmp_path, word):
    scenes_png(tmp_path, example(query=word, truth=word, networks={word: looked(word)}))
    by_scale([fake_run(variant=word)], tmp_path)
