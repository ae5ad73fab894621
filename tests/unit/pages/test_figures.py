"""The grid of all pictures: tiles where they belong, words as they are, the same bytes every time."""

import subprocess
import sys

import numpy as np
from fake_answers import HOSTILE
from read_page import pixels

from progressive_attention.pages.figures import (
    GAP,
    GROUP_GAP,
    OKABE_ITO,
    Tile,
    column_places,
    finish,
    grid,
    new_figure,
    plot_axes,
    row_places,
)

RNG = np.random.default_rng(0)
PICTURES = list(RNG.integers(0, 256, (5, 20, 20, 3), np.uint8))


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def test_every_tile_lies_in_its_place_pixel_by_pixel():
    black = [("network", "black")]
    rows = [[Tile(PICTURES[0]), Tile(PICTURES[1], heading=black)], [Tile(None), Tile(PICTURES[2]), Tile(PICTURES[3])]]
    drawn = pixels(grid(rows, 40, "title"))
    lefts = column_places(rows, 40)
    assert lefts == [GAP, 2 * GAP + 40 + GROUP_GAP, 3 * GAP + 80 + GROUP_GAP]
    tops, bottom = row_places(rows, 40, 44)
    assert drawn.shape == (bottom, lefts[-1] + 40 + GAP, 3)
    for picture, row, column in ((0, 0, 0), (1, 0, 1), (2, 1, 1), (3, 1, 2)):
        there = drawn[tops[row] : tops[row] + 40, lefts[column] : lefts[column] + 40]
        np.testing.assert_array_equal(there, PICTURES[picture].repeat(2, 0).repeat(2, 1))
    assert (drawn[tops[1] : tops[1] + 40, GAP : GAP + 40] == 255).all(), "an empty place"


def test_maps_are_drawn_as_light_in_0_to_1():
    values = RNG.random((20, 20, 3))
    top = row_places([[Tile(values)]], 20, GAP)[0][0]
    drawn = pixels(grid([[Tile(values)]], 20))[top : top + 20, GAP : GAP + 20]
    np.testing.assert_allclose(drawn, 255 * values, atol=0.51)


def test_a_ring_lies_around_the_point_and_a_line_around_the_mask():
    mask = np.zeros((20, 20), bool)
    mask[12:16, 2:8] = True
    black = np.zeros((20, 20, 3), np.uint8)
    drawn = pixels(grid([[Tile(black, point=np.array([14.5, 5.5]), mask=mask)]], 200))
    top = row_places([[Tile(black)]], 200, GAP)[0][0]
    drawn = drawn[top : top + 200, GAP : GAP + 200].astype(float)
    rows, columns = np.nonzero(np.abs(drawn - rgb(OKABE_ITO[5])).max(-1) < 40)
    assert abs(rows.mean() - 55) < 1
    assert abs(columns.mean() - 145) < 1
    rows, columns = np.nonzero((drawn > 200).all(-1))
    around = rows.min(), rows.max(), columns.min(), columns.max()
    np.testing.assert_allclose(around, (110, 170, 10, 90), atol=8)


def test_words_are_taken_as_they_are():
    """No mathematics in a dollar sign; words that are too long are cut or wrapped, not drawn over others."""
    words = HOSTILE * 9
    tile = Tile(PICTURES[0], words, [(words, "black")], [(words, "black")])
    assert pixels(grid([[tile, tile]], 90, words, [words])).shape[1] == 2 * 90 + 3 * GAP + GROUP_GAP
    figure = new_figure(300, 200)
    axes = plot_axes(figure, (50, 30, 200, 100), HOSTILE, "x", "y")
    axes.plot([0, 1], [0, 1], label=HOSTILE)
    axes.legend()
    assert pixels(finish(figure)).shape == (200, 300, 3)


def test_matplotlib_is_imported_only_to_draw_pyplot_and_torch_never():
    code = (
        "import sys, numpy as np\nfrom progressive_attention.pages import answer_plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "answer_plots.contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), ['7? red'])\n"
        "assert not {'matplotlib.pyplot', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
