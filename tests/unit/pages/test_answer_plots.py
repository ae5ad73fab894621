"""Pictures of answers: the map shown first, what it lights, every layer, right and wrong."""

from dataclasses import replace

import numpy as np
import pytest
from fake_answers import FLOW, answer_of, scene_of
from read_page import pixels

from progressive_attention.maps.shown_maps import smoothed
from progressive_attention.pages import answer_plots
from progressive_attention.pages.answer_plots import (
    answer_figure,
    answer_text,
    attention_row,
    contact_sheet,
    panels_of,
    point_of,
    target_of,
)
from progressive_attention.pages.figures import RIGHT, WRONG


@pytest.fixture
def drawn(monkeypatch):
    """The rows of tiles in place of their PNG."""
    monkeypatch.setattr(answer_plots, "grid", lambda rows, *rest, **more: [rows, *rest])


def titles(rows) -> list[list[str]]:
    return [[tile.title.split(", largest")[0] for tile in row] for row in rows]


def test_the_ring_lies_on_the_map_shown_first():
    answer = answer_of()
    np.testing.assert_array_equal(point_of(answer), [26, 10])
    assert point_of(replace(answer, found=False)) is None, "nothing was found to point at"
    assert point_of(replace(answer, maps={})) is None
    assert point_of(replace(answer, maps={"last": np.zeros((40, 40))})) is None


@pytest.mark.parametrize(("count", "names"), [(1, []), (2, ["gate 1", "choice"]), (3, ["gate 1", "gate 2", "choice"])])
def test_layers_follow_the_map_shown_first(count, names):
    answer = answer_of(count)
    assert [panel.title for panel in panels_of(answer)] == ["where the answer came from", *names]
    np.testing.assert_array_equal(panels_of(answer)[0].values, answer.maps["flow"])
    assert panels_of(replace(answer, found=False))[0].title == "where the network looked"


def test_layers_are_smooth_and_their_largest_values_those_of_the_cells():
    values = np.zeros((40, 40))
    values[FLOW] = 0.1
    answer = replace(answer_of(2), layers=[values, values], cells=[(4, 4), (4, 4)])
    _, gate, choice = panels_of(answer)
    np.testing.assert_array_equal(gate.values, smoothed(values, (4, 4)))
    assert gate.values.max() < values.max()
    assert gate.largest == choice.largest == "largest 0.1"


def test_answer_figure_shows_the_image_its_source_what_was_kept_and_the_layers(drawn):
    answer = answer_of(5)
    rows, _, title, legend, _ = answer_figure(answer)
    assert titles(rows) == [
        ["the image", "where the answer came from", "what the network kept"],
        ["gate 1", "gate 2", "gate 3"],
        ["gate 4", "choice"],
    ]
    assert title == "7? red (99.1 %)"
    assert legend == ["ring: its highest point", "hatched: no cell"]
    image, source, kept = (tile.pixels for tile in rows[0])
    inside = np.zeros((40, 40), bool)
    inside[FLOW] = True
    assert image is answer.image
    assert np.ptp(source[~inside], -1).max() == pytest.approx(0), "grey where nothing came from"
    assert np.ptp(source[inside], -1).min() > 0.2
    np.testing.assert_allclose(kept[inside], image[inside] / 255)
    assert kept[~inside].max() == 0
    closing = replace(answer, layers=[answer.layers[0] / 32, *answer.layers[1:]])
    gate, closed = (figure[0][1][0] for figure in ([rows], answer_figure(closing)))
    np.testing.assert_allclose(gate.pixels, closed.pixels), "up to its own largest value, which stands beside it"
    assert gate.title != closed.title


def test_answer_figure_of_a_spatial_transformer_shows_its_region(drawn):
    region = np.zeros((40, 40))
    region[10:20, 10:30] = 1 / 200
    ((_, looked, kept),), *_ = answer_figure(answer_of(0, maps={"last": region, "accumulated": region}))
    assert looked.title == "where the network looked"
    assert kept.pixels[region == 0].max() == 0 < kept.pixels[region > 0].mean()


def test_answer_figure_of_a_network_without_attention_says_so(drawn):
    ((image,),), _, _, legend, _ = answer_figure(answer_of(0, maps={}))
    assert "no attention map" in image.title
    assert legend is None


def test_attention_row_marks_right_and_wrong_and_outlines_the_target(drawn):
    scene = scene_of()
    ((image, *tiles),), *_ = attention_row(scene)
    assert [words for words, _ in image.heading] == ["7?", "red"]
    heads = {tile.heading[0][0]: tile.heading[1] for tile in tiles if tile.heading}
    assert heads == {"pan-hard-ctx": ("red ✓ right", RIGHT), "san": ("white ✗ wrong", WRONG)}
    assert titles([tiles])[0][1:5] == ["gate 1", "gate 2", "gate 3", "choice"]
    assert all(tile.mask is scene.mask for tile in (image, *tiles))
    none = scene_of(mask=None, answers={"film": answer_of(0, maps={})})
    ((image, without),), *_ = attention_row(none)
    assert (image.title, without.title) == ("the image", "no attention map")


@pytest.mark.parametrize("figure", [lambda: answer_figure(answer_of()), lambda: attention_row(scene_of())])
def test_figures_are_the_same_every_time(figure):
    assert figure() == figure()
    assert pixels(figure()).std() > 10


def test_contact_sheet_holds_every_image(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 100, 100, 3), np.uint8)
    sheet = pixels(contact_sheet(images, [f"{i % 10}? red" for i in range(40)], tmp_path / "sheet.png", "mbg"))
    assert (tmp_path / "sheet.png").exists()
    for i, image in enumerate(images):
        y, x = 44 + 20 + i // 8 * 228, 8 + i % 8 * 208
        np.testing.assert_array_equal(sheet[y : y + 200 : 2, x : x + 200 : 2], image)


def test_words_of_an_answer():
    assert answer_text(answer_of(found=True)) == "red (99.1 %)"
    assert answer_text(answer_of(found=False)) == "not found; if it is there, red (99.1 %)"
    ranked = [("red", 0.991), ("old", 0.5), ("wet", 0.125), ("tall", 0.01)]
    assert answer_text(answer_of(likelihood="bernoulli", ranked=ranked)) == "red (99.1 %), old (50.0 %), wet (12.5 %)"


def test_target_is_the_mask_else_the_box(photograph_sets):
    train, _ = photograph_sets
    mask, box = target_of(train, 0), target_of(replace(train, masks=None), 0)
    assert mask is not None
    assert mask.sum() == train.masks[np.array([0])][0].sum() > 0
    x0, y0, x1, y1 = train.box[0]
    assert box is not None
    assert box.sum() == (x1 - x0) * (y1 - y0)
    assert target_of(replace(train, masks=None, box=None), 0) is None
