"""The predictor: any picture in, and out what the network says when asked by hand."""

import io

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from progressive_attention.maps.pixel_maps import pixel_maps, region_map
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.build import build_model
from progressive_attention.pages.answer_plots import answer_figure
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.saved import describe, load, save

SIDE = 62  # four layers of 30, 14, 6 and 2 cells a side
QUERIES, ATTRIBUTES = ("7", "car", "dog"), ("red", "old", "wet", "new")
# First and last pixel of each layer's cells, by hand: strides 2, 4, 8, 16, first centres at 1.5, 4.5, 10.5, 22.5.
KNOWN = [(1, 60), (3, 58), (7, 54), (15, 46)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, as training leaves it."""
    torch.manual_seed(4)
    model = build_model("pan-hard-ctx", num_queries=3, num_attributes=4, image_size=SIDE)
    with torch.no_grad():
        for scorer in model.scorers.values():
            scorer.query.weight.mul_(10)
        for _ in range(10):  # running averages
            model(torch.rand(6, 3, SIDE, SIDE), torch.arange(6)[:, None] % 3)
    folder = tmp_path_factory.mktemp("run")
    save(folder, model.state_dict(), describe(model.config, QUERIES, ATTRIBUTES))
    return folder


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run, "cpu")


@pytest.fixture(scope="module")
def pixels():
    """A photograph-like picture of the network's own size."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE)))


def same_answer(one, other):
    assert (one.query, one.attribute) == (other.query, other.attribute)
    assert_allclose(one.probability, other.probability, rtol=2e-5)
    assert list(one.probabilities) == list(other.probabilities)
    assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), rtol=2e-5)
    assert_array_equal(one.image, other.image)
    for mine, its in zip(one.layers, other.layers, strict=True):
        assert_allclose(mine, its, rtol=2e-5)
    assert list(one.maps) == list(other.maps)
    for name, drawn in one.maps.items():
        assert_allclose(drawn, other.maps[name], rtol=1e-4, atol=1e-9)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_answer_is_the_models(run, predictor, pixels):
    model = load(run).model
    image = torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        prediction = model(image, torch.tensor([1]))
    probability = prediction.logit[0, 0].double().exp().numpy()
    answer = predictor.ask(pixels, "car")
    assert predictor.side == SIDE
    assert answer.query == "car"
    assert answer.attribute == ATTRIBUTES[int(probability.argmax())]
    assert_allclose(answer.probability, probability.max(), rtol=1e-6)
    assert list(answer.probabilities) == list(ATTRIBUTES)
    assert_allclose(list(answer.probabilities.values()), probability, rtol=1e-6)
    assert_allclose(sum(answer.probabilities.values()), 1, rtol=1e-6)
    assert_array_equal(answer.image, pixels)
    maps = pixel_maps(prediction, geometry(model))
    assert list(answer.maps) == ["last", "accumulated", "activation", "flow"]
    assert answer.shown is answer.maps["flow"]
    for name, drawn in answer.maps.items():
        assert (drawn.shape, drawn.dtype) == ((SIDE, SIDE), np.float64)
        assert_allclose(drawn, maps[name][0, 0].numpy(), rtol=1e-5, atol=1e-12)
        assert_allclose(drawn.sum(), 1, rtol=1e-6)


def test_layers_lie_on_their_cells(run, predictor, pixels):
    with torch.no_grad():
        image = torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]
        prediction = load(run).model(image, torch.tensor([0]))
    answer = predictor.ask(pixels, 7)
    for layer, attention, (first, last) in zip(answer.layers, prediction.attention, KNOWN, strict=True):
        known = np.zeros((SIDE, SIDE), bool)
        known[first : last + 1, first : last + 1] = True
        assert_array_equal(np.isnan(layer), ~known)
        stride = (last + 1 - first) // attention.shape[-1]
        by_hand = np.kron(attention[0, 0].numpy(), np.ones((stride, stride)))
        assert_allclose(layer[known].reshape(by_hand.shape), by_hand, rtol=1e-5, atol=1e-12)
        assert 0 <= np.nanmin(layer) <= np.nanmax(layer) <= 1


def test_all_together_is_each_alone(predictor, pixels):
    queries = ["dog", 7, "7", "car", "dog"]
    answers = predictor.ask_all(pixels, queries)
    assert [answer.query for answer in answers] == ["dog", "7", "7", "car", "dog"]
    for query, answer in zip(queries, answers, strict=True):
        same_answer(answer, predictor.ask(pixels, query))
    own = sorted(answers[i].probabilities["red"] for i in (0, 1, 3))
    assert np.diff(own).min() > 1e-3  # three different questions


@pytest.mark.parametrize("name, maps", [("stn-m", ["last", "accumulated"]), ("film", []), ("concat", [])])
def test_networks_that_score_no_location(tmp_path, pixels, name, maps):
    torch.manual_seed(4)
    model = build_model(name, num_queries=3, num_attributes=4, image_size=SIDE)
    for localiser in model.localisers.values() if name == "stn-m" else ():
        torch.nn.init.normal_(localiser.affine.weight, std=0.3)
    save(tmp_path, model.state_dict(), describe(model.config, QUERIES, ATTRIBUTES))
    asked = Predictor(tmp_path, "cpu")
    answers = asked.ask_all(pixels, ["car", "7"])
    with torch.no_grad():
        image = torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]
        prediction = load(tmp_path).model(image, torch.tensor([[1, 0]]))
    for k, answer in enumerate(answers):
        assert answer.layers == []
        assert list(answer.maps) == maps
        for drawn in answer.maps.values():
            assert_allclose(drawn, region_map(prediction, geometry(model))[0, k], rtol=1e-4, atol=1e-9)
        assert_allclose(list(answer.probabilities.values()), prediction.logit[0, k].double().exp(), rtol=1e-5)
        same_answer(answer, asked.ask(pixels, answer.query))
        assert (answer.shown is None) == (not maps)
        if maps:
            assert_allclose(answer.shown, answer.maps["last"], rtol=0, atol=0)
        if maps and answer.shown.any():
            x, y = map(int, answer.point)
            assert_allclose(answer.shown[y, x], answer.shown.max(), rtol=1e-6)  # inside the region
        else:  # a region outside the picture, or no map
            assert (answer.point, answer.box()) == (None, None)
        assert answer_figure(answer).startswith(b"\x89PNG")


# --- where it points --------------------------------------------------------------------------------------------------


def pointing_at(rows: slice, columns: slice, size: tuple[int, int] | None) -> Answer:
    """An answer about a picture of this size whose attention lies evenly on a block of the network's SIDE pixels."""
    drawn = np.zeros((SIDE, SIDE))
    drawn[rows, columns] = 1
    drawn /= drawn.sum()
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    return Answer("7", "red", 1.0, {"red": 1.0}, black, [], {"last": drawn[::-1], "flow": drawn}, size=size)


# The block's columns 40 to 43 and rows 20 to 23, in pictures of other sizes; Fit.into places these as test_pictures.py
# checks: 124 x 62 as 62 x 31 at (0, 15), 62 x 124 as 31 x 62 at (15, 0), 5 x 9 as 34 x 62 at (14, 0).
IN_PICTURES = [
    (None, (42, 22), (40, 20, 44, 24)),
    ((62, 62), (42, 22), (40, 20, 44, 24)),
    ((310, 310), (210, 110), (200, 100, 220, 120)),
    ((31, 31), (21, 11), (20, 10, 22, 12)),
    ((124, 62), (84, 14), (80, 10, 88, 18)),
    ((62, 124), (54, 44), (50, 40, 58, 48)),
    ((5, 9), (28 * 5 / 34, 22 * 9 / 62), (3, 2, 5, 4)),  # box from (3.8, 2.9) to (4.4, 3.5)
]


@pytest.mark.parametrize("size, point, box", IN_PICTURES)
def test_point_and_box_are_in_the_picture_given(size, point, box):
    answer = pointing_at(slice(20, 24), slice(40, 44), size)
    assert_allclose(answer.point, point, rtol=1e-12)
    assert answer.box(1) == box
    assert answer.box() == box  # 15 of the 16 pixels reach as far
    assert {type(edge) for edge in answer.box()} == {int}


def test_point_and_box_beside_the_picture_are_moved_onto_it():
    wide, high = (pointing_at(slice(2, 6), slice(56, 62), size) for size in ((124, 62), (62, 124)))
    assert (wide.point, wide.box()) == ((118, 0.5), (112, 0, 124, 1))
    assert (high.point, high.box()) == ((61.5, 8), (61, 4, 62, 12))


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_path_picture_and_array_are_one(tmp_path, predictor, pixels):
    answer = predictor.ask(pixels, "dog")
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path)
    for same in (path, str(path), Image.fromarray(pixels), Image.open(path), pixels[::-1][::-1], pixels.copy("F")):
        same_answer(predictor.ask(same, "dog"), answer)


def test_cameras_orientation_counts_once(predictor, tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright, so the stored picture lies on its left
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    for given in (path, Image.open(path), Image.fromarray(predictor.ask(path, "7").image)):
        assert_array_equal(predictor.ask(given, "7").image, pixels)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["plane", 8, "", "Car"])
def test_unknown_query(predictor, pixels, query):
    with pytest.raises(ValueError, match=f"^unknown query '{query}'; this network knows: 7, car, dog$"):
        predictor.ask_all(pixels, ["car", query])


WRONG = [
    (np.zeros((3, 62, 62), np.uint8), r"\(3, 62, 62\) uint8"),
    (np.zeros((62, 62, 3)), r"\(62, 62, 3\) float64"),
    (np.zeros((0, 62, 3), np.uint8), r"\(0, 62, 3\) uint8"),
]


@pytest.mark.parametrize("array, got", WRONG)
def test_wrong_arrays(predictor, array, got):
    with pytest.raises(ValueError, match=rf"^an image array must be \(H, W, 3\) uint8, got {got}$"):
        predictor.ask(array, "7")


def test_unreadable_pictures(predictor, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        predictor.ask(tmp_path / "gone.png", "7")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt can't be read as an image"):
        predictor.ask(tmp_path / "notes.txt", "7")
    with pytest.raises(ValueError, match="the picture is 0 x 5 pixels: there is nothing in it"):
        predictor.ask(Image.new("RGB", (0, 5)), "7")
    whole = io.BytesIO()
    Image.effect_noise((90, 90), 60).save(whole, "JPEG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:-900]))  # Pillow reads no further than the header until asked
    with pytest.raises(ValueError, match=r"the picture can't be read \(.*truncated.*\)"):
        predictor.ask(cut, "7")
