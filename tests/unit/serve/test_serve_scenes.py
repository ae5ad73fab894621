"""What the demo page draws, without a server: scenes, clicks on them, hard cases, what layers removed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.saved import weights
from progressive_attention.serve.hard_cases import CASES, answers, search
from progressive_attention.serve.layers import hatched, heat, removed
from progressive_attention.serve.scene import Sliders, arranged, clicked, digits_of, sliders_of, truth_of


@pytest.fixture(scope="module")
def source():
    return SceneSource("mbg", "test")


# --- scenes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 32), st.integers(0, 999_999))
def test_a_click_on_ink_finds_its_digit(source, digits, clutter, background, seed):
    scene = arranged(Sliders(digits, clutter, background, seed), source)
    image, owner = source.render(scene)
    told = digits_of(scene)
    assert image.shape == (100, 100, 3)
    assert len(told) == digits == len({one["query"] for one in told})
    assert len(scene.patches) == clutter
    for y, x in np.argwhere(owner):  # every inked pixel, against who inked it
        assert clicked(told, x + 0.5, y + 0.5) == told[owner[y, x] - 1]["query"]
    assert truth_of(told, told[scene.asked]["query"]) == COLOURS[scene.digits[scene.asked].colour]


def test_a_click_beside_all_digits_finds_none():
    digits = [{"query": "3", "attribute": "red", "box": [10, 20, 30, 40]}]
    assert clicked(digits, 10, 20) == clicked(digits, 29.9, 39.9) == "3"
    assert clicked(digits, 9.9, 20) is clicked(digits, 30, 39) is clicked(digits, 12, 40) is None
    assert clicked([], 5, 5) is None


def test_of_two_boxes_the_digit_drawn_last():
    digits = [{"query": "0", "box": [0, 0, 50, 50]}, {"query": "1", "box": [10, 10, 20, 20]}]
    assert clicked(digits, 15, 15) == "1"
    assert clicked(digits, 25, 25) == "0"


def test_truth_is_told_as_far_as_it_is_known():
    digits = [{"query": "3", "attribute": "red", "box": [0, 0, 1, 1]}]
    assert (truth_of(digits, "3"), truth_of(digits, "4"), truth_of(None, "3")) == ("red", "", None)


def test_one_more_moves_nothing_else(source):
    few = arranged(Sliders(4, 10, 3, 7), source)
    assert arranged(Sliders(5, 10, 3, 7), source).digits[:4] == few.digits
    more = arranged(Sliders(4, 11, 3, 7), source)
    assert (more.digits, more.patches[:10], more.background) == (few.digits, few.patches, few.background)
    elsewhere = arranged(Sliders(4, 10, 4, 7), source)
    assert (elsewhere.digits, elsewhere.patches) == (few.digits, few.patches)
    assert elsewhere.background != few.background
    assert arranged(Sliders(4, 10, 3, 8), source).digits != few.digits


def test_the_sets_are_the_papers(source):
    drawn = {style: arranged(sliders_of(style), source) for style in ("mref", "mdist", "mbg")}
    assert [len(scene.patches) for scene in drawn.values()] == [0, 17, 0]
    assert [scene.background is None for scene in drawn.values()] == [True, True, False]
    with pytest.raises(ValueError, match="unknown set 'coco'; known: mref, mdist, mbg"):
        sliders_of("coco")


@pytest.mark.parametrize("name, value", [("digits", 0), ("digits", 10), ("clutter", 41), ("seed", -1), ("seed", 1e9)])
def test_sliders_have_ends(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a whole number in .*, got {value!r}"):
        Sliders(**{name: value})


def test_there_are_so_many_photographs(source):
    with pytest.raises(ValueError, match=r"background must be in 0\.\.32, got 33"):
        arranged(Sliders(background=33), source)


# --- hard cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", weights.shipped())
def test_hard_cases_are_what_they_say(name):
    trained = weights.load(name)
    kinds = []
    for case in (case for case in CASES if case.network == name):
        image, scene = case.drawn()
        place = [str(digit.number) for digit in scene.digits].index(case.query)
        said, probability = answers(trained, SceneSource(case.style, "test"), scene)[place]
        assert COLOURS[said] == case.said
        assert (said == scene.digits[place].colour) == (case.kind != "wrong")
        assert case.kind != "unsure" or probability < 0.6
        assert case.kind != "small" or scene.digits[place].scale < 0.6
        assert case.caption() == f"{case.query}? {name}: {case.said}, {case.kind}"
        assert image.shape == (100, 100, 3)
        kinds.append(case.kind)
    assert kinds == ["wrong", "wrong", "small", "unsure"]


@pytest.mark.slow
@pytest.mark.parametrize("name", weights.shipped())
def test_hard_cases_are_found_again(name):
    assert search(name, weights.load(name)) == [case for case in CASES if case.network == name]


# --- layers -----------------------------------------------------------------------------------------------------------


def removed_by_loops(image, layers):
    """The slow twin: pixel by pixel."""
    height, width = image.shape[:2]
    parts, shares = [], []
    left = [[1.0] * width for _ in range(height)]
    for layer in layers:
        most = max(value for value in layer.flat if not np.isnan(value))
        part = hatched((height, width)).astype(float)
        closed = reached = 0.0
        for y in range(height):
            for x in range(width):
                through = layer[y, x] / most
                if not np.isnan(left[y][x] * through):
                    part[y, x] = [int(left[y][x] * (1 - through) * channel + 0.5) for channel in image[y, x]]
                    closed += left[y][x] * (1 - through)
                    reached += left[y][x]
                left[y][x] *= through
        parts.append(part)
        shares.append(closed / reached)
    return parts, shares


def test_removed_is_what_passed_the_layers_before():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 9, 3), np.uint8)
    layers = [rng.random((9, 9)) for _ in range(3)]
    for margin, layer in enumerate(layers[1:], 1):
        layer[:margin] = layer[-margin:] = np.nan
    parts, shares = removed_by_loops(image, layers)
    for took, part, share in zip(removed(image, layers), parts, shares, strict=True):
        assert_array_equal(took.picture, part)
        assert_allclose(took.share, share)


def test_removed_by_hand():
    image = np.full((1, 2, 3), 200, np.uint8)
    first, second = removed(image, [np.array([[0.1, 0.2]]), np.array([[0.8, 0.2]])])
    assert_array_equal(first.picture[0, :, 0], [100, 0])  # half as open as the most open place: half of it goes
    assert_array_equal(second.picture[0, :, 0], [0, 150])
    assert_allclose([first.share, second.share], [0.25, 0.75 / 1.5])


def test_a_map_of_nothing_passes_nothing():
    image = np.full((2, 2, 3), 9, np.uint8)
    nothing = removed(image, [np.zeros((2, 2))])[0]
    assert nothing.share == 1
    assert_array_equal(nothing.picture, image)
    unknown = removed(image, [np.full((2, 2), np.nan)])[0]
    assert unknown.share == 0
    assert_array_equal(unknown.picture, hatched((2, 2)))


def test_heat_is_paint_up_to_the_largest_value():
    shown = heat(np.array([[0.0, 0.5], [0.25, np.nan]]))
    assert shown[0, 0, 3] == 0  # nothing: the image alone
    assert_array_equal(shown[0, 1], [240, 249, 33, 191])  # the largest: plasma's yellow, three quarters opaque
    assert 80 < shown[1, 0, 3] < 191
    assert_array_equal(shown[1, 1], [*hatched((2, 2))[1, 1], 255])
