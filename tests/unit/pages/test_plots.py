"""Pictures of plain results: real PNGs of the right size, that show what they were given where it belongs."""

import io
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from PIL import Image

from progressive_attention.pages import plots
from progressive_attention.pages.plots import (
    OKABE_ITO,
    Scene,
    answer_figure,
    attention_row,
    contact_sheet,
    panels_of,
    point_of,
    told,
)
from progressive_attention.pages.run_plots import ScaleSeries, scale_curve

FLOW = np.s_[8:12, 24:28]
BINS = ("0.5-1.0", "1.0-1.5", "1.5-2.0", "2.0-2.5", "2.5-3.0")


@dataclass(frozen=True)
class Answer:
    query: str = "7"
    attribute: str = "red"
    probability: float = 0.991
    image: np.ndarray = field(default_factory=lambda: np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    layers: list[np.ndarray] = field(default_factory=list)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    likelihood: str = "softmax"
    ranked: list[tuple[str, float]] = field(default_factory=list)
    found: bool | None = None


def answer_of(layers: int = 4, seed: int = 0, **changes) -> Answer:
    """An answer with random layers, their border NaN, as where a layer has no cell; its flow is one cell, FLOW."""
    rng = np.random.default_rng(seed)
    drawn = list(rng.random((layers, 40, 40)))
    for layer in drawn:
        layer[[0, -1]] = layer[:, [0, -1]] = np.nan
    flow, accumulated = np.zeros((40, 40)), rng.random((40, 40))
    flow[FLOW] = 1 / flow[FLOW].size
    return Answer(layers=drawn, maps={"accumulated": accumulated / accumulated.sum(), "flow": flow}, **changes)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def series_of(name: str, value: float | None, published=None) -> ScaleSeries:
    interval = (0.0, 1.0) if value is None else (value - 0.1, value + 0.1)
    return ScaleSeries(name, dict.fromkeys(BINS, value), dict.fromkeys(BINS, interval), published)


def scene_of(**changes) -> Scene:
    answer = answer_of()
    mask = np.zeros((40, 40), bool)
    mask[30:, 35:] = True
    answers = {"pan-hard-ctx": answer, "san": answer_of(1, attribute="white")}
    return Scene(answer.image, mask, "7", "red", answers)._replace(**changes)


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never():
    code = (
        "import sys, numpy as np\nfrom progressive_attention import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), ['7? red'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def shown_at(png: bytes, left: int, top: int, side: int, image: int = 40) -> np.ndarray:
    """A picture (image x image) drawn at some place of a figure, each of its pixels from the middle of its square."""
    middles = ((np.arange(image) + 0.5) * side / image).astype(int)
    return pixels(png)[np.ix_(top + middles, left + middles)].astype(float)


def above(png: bytes) -> list[np.ndarray]:
    """The three pictures in the first line of an answer's figure."""
    return [shown_at(png, 12 + 292 * i, 74, 280) for i in range(3)]


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


@pytest.mark.parametrize(("layers", "sides"), [(1, []), (2, [280]), (3, [280]), (4, [207]), (5, [280, 280])])
def test_answer_figure_has_a_line_of_pictures_and_the_layers_below(layers, sides):
    png = answer_figure(answer_of(layers))
    assert pixels(png).shape == (44 + 310 + sum(30 + side for side in sides) + 12 + 40, 888, 3)
    assert np.abs(above(png)[0] - answer_of().image).max() <= 2


def test_answer_figure_shows_first_where_the_answer_came_from_and_what_that_lights():
    image, source, kept = above(answer_figure(answer_of()))
    inside, around = np.zeros((2, 40, 40), bool)
    inside[FLOW] = around[6:14, 22:30] = True
    colour = np.ptp(source, -1)
    assert colour[inside].min() > 60
    assert colour[~around].max() <= 2, "grey where nothing came from"
    assert source[~around].std() > 20, "and readable"
    rows, columns = np.nonzero(np.abs(source - rgb(OKABE_ITO[5])).max(-1) < 60)  # the ring
    assert abs(rows.mean() - 9.5) < 1
    assert abs(columns.mean() - 25.5) < 1
    np.testing.assert_allclose(kept[inside], image[inside], atol=2)
    assert kept[~inside].max() == 0


def test_the_ring_lies_on_the_map_shown_first():
    answer = answer_of()
    np.testing.assert_array_equal(point_of(answer), [26, 10])
    assert point_of(replace(answer, found=False)) is None, "nothing was found to point at"
    assert point_of(replace(answer, maps={})) is None
    assert point_of(replace(answer, maps={"last": np.zeros((40, 40))})) is None


@pytest.mark.parametrize(("count", "titles"), [(1, []), (2, ["gate 1", "choice"]), (3, ["gate 1", "gate 2", "choice"])])
def test_layers_follow_the_map_shown_first(count, titles):
    answer = answer_of(count)
    assert [title for title, _ in panels_of(answer)] == ["where the answer came from", *titles]
    assert panels_of(answer)[0][1] is answer.maps["flow"]
    assert panels_of(replace(answer, found=False))[0][0] == "where the network looked"


def test_answer_figure_of_a_spatial_transformer_shows_its_region():
    region = np.zeros((40, 40))
    region[10:20, 10:30] = 1 / 200
    answer = replace(answer_of(), layers=[], maps={"last": region, "accumulated": region})
    assert [title for title, _ in panels_of(answer)] == ["where the network looked"]
    kept = above(answer_figure(answer))[2]
    assert kept[region == 0].max() == 0 < kept[region > 0].mean()
    outside = answer_figure(replace(answer, maps={"last": 0 * region}))
    assert above(outside)[2].max() == 0


def test_answer_figure_of_a_network_without_attention_is_the_image_and_a_line(monkeypatch):
    answer, drawn = replace(answer_of(), layers=[], maps={}), []
    assert panels_of(answer) == []
    monkeypatch.setattr("matplotlib.figure.Figure.text", lambda figure, x, y, text, **style: drawn.append(text))
    image, *others = above(answer_figure(answer))
    assert np.abs(image - answer.image).max() <= 2
    assert all((other == 255).all() for other in others)
    assert sorted(drawn) == ["7? red (99.1 %)", "this network has no attention map"]


def test_a_closing_gate_is_drawn_as_clearly_as_an_open_one():
    """Up to its own largest value, which stands beside it."""
    answer = answer_of(3)
    closing = replace(answer, layers=[answer.layers[0] / 32, *answer.layers[1:]])
    gates = [shown_at(answer_figure(one), 12, 44 + 310 + 30, 280) for one in (answer, closing)]
    np.testing.assert_array_equal(*gates)
    assert np.ptp(gates[0], -1).max() > 60
    assert answer_figure(answer) != answer_figure(closing)


def test_figure_is_written_and_returned(tmp_path):
    path = tmp_path / "new" / "folder" / "answer.png"
    png = answer_figure(answer_of(), path)
    assert path.read_bytes() == png
    assert list(path.parent.iterdir()) == [path]
    assert answer_figure(answer_of()) == png, "the same input must give the same bytes"


@pytest.mark.parametrize(
    "changes", [{"query": "3"}, {"attribute": "blue"}, {"probability": 0.5}, {"image": np.zeros((40, 40, 3), np.uint8)}]
)
def test_answer_figure_shows_what_it_is_given(changes):
    answer = answer_of()
    assert answer_figure(replace(answer, **changes)) != answer_figure(answer)


@pytest.mark.parametrize("layer", range(4))
def test_answer_figure_shows_every_layer(layer):
    answer = answer_of()
    layers = [drawn[::-1] if i == layer else drawn for i, drawn in enumerate(answer.layers)]
    assert answer_figure(replace(answer, layers=layers)) != answer_figure(answer)


@pytest.mark.parametrize("word", ["$x^", "<b>", "Zebra ümlaut", "a_b\\frac{"])
def test_words_are_taken_as_they_are(word):
    """No mathematics in a dollar sign, in any picture."""
    pixels(answer_figure(answer_of(query=word, attribute=word)))
    pixels(contact_sheet(np.zeros((2, 10, 10, 3), np.uint8), [word, word], title=word))
    pixels(scale_curve([series_of(word, 0.5, 50.0)], title=word))
    pixels(attention_row(scene_of(query=word, truth=word)))


def test_attention_row_marks_right_and_wrong():
    right, wrong = scene_of(truth="red"), scene_of(truth="blue")
    assert attention_row(right) != attention_row(wrong)

    def has(png: bytes, colour: str) -> bool:
        return bool((np.abs(pixels(png)[:60].astype(int) - rgb(colour)).max(-1) < 8).any())

    both = Scene(right.image, right.mask, "7", "red", {"a": answer_of(), "b": answer_of()})
    assert has(attention_row(both), plots.RIGHT)
    assert not has(attention_row(both), plots.WRONG)
    assert has(attention_row(right), plots.WRONG), "the second network answers white"


def test_attention_row_is_as_wide_as_its_maps():
    wide, narrow = (pixels(attention_row(scene_of(answers={"n": answer_of(n)}))).shape for n in (4, 1))
    assert wide[0] == narrow[0]
    assert wide[1] - narrow[1] == 4 * 208  # the flow and four layers, against one map
    without = replace(answer_of(), layers=[], maps={})
    region = replace(without, maps={"last": np.ones((40, 40)) / 1600})
    for answer in (without, region):  # the image in place of a map, or the region
        assert pixels(attention_row(scene_of(answers={"n": answer}))).shape == narrow


@pytest.mark.parametrize("mask", [None, np.zeros((40, 40), bool), np.ones((40, 40), bool)])
def test_attention_row_without_an_ordinary_mask(mask):
    pixels(attention_row(scene_of(mask=mask)))


def test_outline_lies_around_the_target():
    assert attention_row(scene_of()) != attention_row(scene_of(mask=None))


def test_contact_sheet_holds_every_image(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 100, 100, 3), np.uint8)
    path = tmp_path / "sheet.png"
    sheet = pixels(contact_sheet(images, [f"{i % 10}? red" for i in range(40)], path, "mbg"))
    assert path.exists()
    assert sheet.shape == (5 * 230 + 44, 8 * 210, 3)
    for i, image in enumerate(images):
        y, x = 44 + i // 8 * 230, i % 8 * 210 + 5
        np.testing.assert_array_equal(sheet[y : y + 200 : 2, x : x + 200 : 2], image)


def test_contact_sheet_shows_its_captions():
    image = np.zeros((1, 50, 50, 3), np.uint8)
    assert contact_sheet(image, ["7? red"]) != contact_sheet(image, ["7? blue"])


@pytest.mark.parametrize(("images", "captions"), [([], []), (np.zeros((2, 8, 8, 3), np.uint8), ["7? red"])])
def test_contact_sheet_needs_a_caption_for_each_image(images, captions):
    with pytest.raises(ValueError, match=r"as many captions as images, at least one; got \d and \d"):
        contact_sheet(images, captions)


@pytest.mark.parametrize(
    "other",
    [series_of("pan", 0.6), series_of("san", 0.5), series_of("pan", 0.5, 70.0), series_of("pan", 0.5, {BINS[1]: 90.0})],
)
def test_scale_curve_shows_what_it_is_given(other):
    plain = scale_curve([series_of("pan", 0.5)])
    assert pixels(plain).shape == (606, 1000, 3)
    assert scale_curve([other]) != plain


def test_scale_curve_with_empty_bins():
    some = ScaleSeries(
        "san", {name: None if i else 0.4 for i, name in enumerate(BINS)}, dict.fromkeys(BINS, (0.3, 0.5))
    )
    pixels(scale_curve([some, series_of("pan", None)], count=dict.fromkeys(BINS, 3)))


def test_scale_curve_has_room_for_its_legend():
    many = [series_of(f"network {i}", i / 8, 50.0) for i in range(1, 8)]
    assert pixels(scale_curve(many)).shape == (606 + 6 * 26, 1000, 3)


def test_scale_curve_of_nothing():
    with pytest.raises(ValueError, match="no series"):
        scale_curve([])


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), ["7? red"], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_an_answer_of_several_attributes_tells_the_likeliest_three():
    assert told(answer_of()) == told(answer_of(found=True)) == "red (99.1 %)"
    assert told(answer_of(found=False)) == "not found; if it is there, red (99.1 %)"
    labels = [("absent", 0.9), ("old", 0.1)]
    given = answer_of(likelihood="bernoulli", ranked=labels[1:], found=False)
    assert told(given) == "not found; if it is there, old (10.0 %)"
    assert told(answer_of(likelihood="bernoulli", ranked=labels)) == "absent (90.0 %), old (10.0 %)"
    ranked = [("red", 0.991), ("old", 0.5), ("wet", 0.125), ("tall", 0.01)]
    assert told(answer_of(likelihood="bernoulli", ranked=ranked)) == "red (99.1 %), old (50.0 %), wet (12.5 %)"
