"""What the demo page shows, without a server: scenes, clicks, what layers removed, answers as HTML, limits."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from progressive_attention import weights
from progressive_attention.cli import main
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.synthetic import SceneSource
from progressive_attention.models import build_model
from progressive_attention.predictor import Answer, Predictor
from progressive_attention.serve import networks as networks_module
from progressive_attention.serve.hard_cases import CASES, answers, search
from progressive_attention.serve.layers import hatched, heat, passed, removed
from progressive_attention.serve.networks import LONGEST_QUERY, Networks, as_json, read_picture
from progressive_attention.serve.panel import Asked, attention, notice
from progressive_attention.serve.panel import answers as answers_html
from progressive_attention.serve.scene import Sliders, arranged, clicked, digits_of, sliders_of, truth_of

EXAMPLE = Path(__file__).parents[1] / "src/progressive_attention/assets/examples/mref.png"


@pytest.fixture(scope="module")
def source():
    return SceneSource("mbg", "test")


@pytest.fixture(scope="module")
def shipped():
    return Networks(["mref-pan-hard-ctx", "mref-san"], "cpu")


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
    assert_array_equal(passed(np.zeros((2, 2))), np.zeros((2, 2)))
    image = np.full((2, 2, 3), 9, np.uint8)
    unknown = removed(image, [np.full((2, 2), np.nan)])[0]
    assert unknown.share == 0
    assert_array_equal(unknown.picture, hatched((2, 2)))


def test_heat_runs_from_dark_to_yellow():
    shown = heat(np.array([[0.0, 0.5], [0.25, np.nan]]))
    assert_array_equal(shown[0], [[68, 1, 84], [253, 231, 36]])  # viridis' ends
    assert_array_equal(shown[1, 0], [32, 144, 140])  # and its middle
    assert_array_equal(shown[1, 1], hatched((2, 2))[1, 1])


# --- HTML -------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, addresses of pictures and text of a piece of HTML, which must be balanced."""

    def __init__(self, html):
        super().__init__()
        self.open, self.sources, self.text, self.kinds = [], [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.kinds.append(dict(attrs).get("class"))
        self.sources += [dict(attrs)["src"]] if tag == "img" else []
        self.open += [tag] if tag not in ("img", "br") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def answer_of(**changes) -> Answer:
    """A made-up answer."""
    layers = [np.full((4, 4), 0.5), np.eye(4) / 4]
    fields = {"query": "7", "attribute": "red", "probability": 0.75, "probabilities": {"red": 0.75, "blue": 0.25}}
    own = {"image": np.zeros((4, 4, 3), np.uint8), "layers": layers, "maps": {"accumulated": np.eye(4) / 4}}
    return Answer(**{**fields, **own, **changes})


@pytest.mark.parametrize(
    "changes, truth, told",
    [
        ({}, "red", "✓ right"),
        ({}, "blue", "✗ wrong, the 7 is blue"),
        ({}, "", "there is no 7 in this scene: softmax attention always points somewhere"),
        ({}, None, "your own picture: nobody has told what is right"),
        ({"found": False}, "", "✓ right, there is no 7 in this scene"),
        ({"found": False}, "red", "✗ wrong, the 7 is red"),
        ({"found": True}, "red", "✓ right"),
    ],
)
def test_verdict(changes, truth, told):
    page = Page(answers_html([Asked("mine", "mref", answer_of(**changes))], truth))
    assert told in page.text
    assert ("not found" in page.text) == (changes.get("found") is False)
    assert "7 → " in page.text
    assert "75.0 %" in page.text
    assert "trained on MREF" in page.text


def test_several_attributes_are_told_where_several_may_hold():
    probabilities = {"old": 0.9, "wet": 0.8, "red": 0.2, "new": 0.1}
    page = Page(answers_html([Asked("mine", "", answer_of(probabilities=probabilities, likelihood="bernoulli"))], None))
    assert "7 → old 90 %, wet 80 %, red 20 %" in page.text


def test_pictures_of_each_layer_are_inside():
    page = Page(attention([Asked("mine", "mref", answer_of())]))
    assert len(page.sources) == 3 * 2 + 2  # a map over its image, thrice; what each of two layers removed
    assert page.kinds.count("heat") == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for words in ("layer 1, gate", "layer 1 removed", "0 % of what reached it", "layer 2, softmax", "accumulated"):
        assert words in page.text


def test_one_layer_is_shown_once_and_none_is_said():
    one = answer_of(layers=[np.eye(4) / 4])
    assert len(Page(attention([Asked("san", "mref", one)])).sources) == 3
    none = answer_of(layers=[], maps={})
    assert "no attention map" in Page(attention([Asked("film", "mref", none)])).text


def test_two_networks_stand_side_by_side():
    asked = [Asked(name, "mref", answer_of()) for name in ("one", "other")]
    for html in (answers_html(asked, "red"), attention(asked)):
        page = Page(html)
        assert "one" in page.text
        assert "other" in page.text
    assert len(Page(attention(asked)).sources) == 2 * 8


def test_strange_words_stay_text():
    mark = "<img src=x onerror=alert(1)>"
    answer = answer_of(query=mark, attribute=mark, probabilities={mark: 1.0})
    shown = Asked(mark, mark, answer)
    for html in (answers_html([shown], mark), answers_html([shown], ""), notice(mark)):
        page = Page(html)
        assert not page.sources
        assert mark in page.text


# --- networks and pictures --------------------------------------------------------------------------------------------


def test_answers_are_the_predictors(shipped):
    asked = shipped.ask(EXAMPLE, " 7 ", "mref-san")
    its = Predictor("mref-san", "cpu").ask(EXAMPLE, "7")
    assert (asked.network, asked.trained_on, asked.answer.attribute) == ("mref-san", "mref", its.attribute)
    told = as_json(asked)
    assert json.loads(json.dumps(told)) == told
    assert told["probabilities"] == its.probabilities
    assert (told["found"], told["presence"]) == (its.found, its.presence)


@pytest.mark.parametrize(
    "picture, query, name, told",
    [
        (EXAMPLE, "x", "mref-san", "unknown query 'x'; this network knows: 0, 1, 2"),
        (EXAMPLE, "", "mref-san", "expected a query of 1 to 100 letters; this network knows: 0, 1"),
        (EXAMPLE, None, "mref-san", "expected a query of 1 to 100 letters"),
        (EXAMPLE, "7" * (LONGEST_QUERY + 1), "mref-san", "expected a query of 1 to 100 letters"),
        (EXAMPLE, "7", "../mref-san", r"unknown network '../mref-san'; here there are: mref-pan-hard-ctx, mref"),
        (EXAMPLE, "7", "x" * 500, "unknown network 'x{100}…'"),
        (None, "7", "mref-san", "there is no picture; drop one, or draw a scene"),
        (Path("nowhere.png"), "7", "mref-san", "the picture does not exist"),
        (Path(__file__), "7", "mref-san", "the picture can't be read as an image"),
    ],
)
def test_what_can_not_be_answered_is_told(shipped, picture, query, name, told):
    with pytest.raises(ValueError, match=told):
        shipped.ask(picture, query, name)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    Image.new("L", (5000, 4000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="the picture has 5000 x 4000 pixels, expected at most 16,000,000"):
        read_picture(tmp_path / "bomb.png", 100)


def test_networks_are_named_by_their_folder(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(networks_module, "Predictor", lambda one, device: loaded.append(one) or one)
    assert Networks().names == weights.shipped()
    monkeypatch.chdir(tmp_path)
    assert Networks(["runs/mine", str(tmp_path / "other"), "mref-san"]).names == ["mine", "other", "mref-san"]
    with pytest.raises(ValueError, match="two networks are named 'mine'; give each once"):
        Networks(["a/mine", "b/mine/"])


def test_a_network_of_other_words_answers(tmp_path):
    torch.manual_seed(0)
    model = build_model("film", num_queries=2, num_attributes=2, image_size=62, likelihood="bernoulli")
    weights.save(tmp_path / "mine", model.state_dict(), weights.describe(model.config, ("car", "dog"), ("old", "wet")))
    networks = Networks([str(tmp_path / "mine")], "cpu")
    asked = networks.ask(EXAMPLE, "dog", "mine")
    assert asked.trained_on == ""
    assert "no attention map" in attention([asked])
    with pytest.raises(ValueError, match="unknown query '7'; this network knows: car, dog"):
        networks.ask(EXAMPLE, "7", "mine")


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


# --- the page, without its server -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(shipped, tmp_path_factory):
    page = pytest.importorskip("progressive_attention.serve.page", reason="pip install -e '.[dev]' brings Gradio")
    return page.Desk(shipped, tmp_path_factory.mktemp("pictures"))


def test_a_scene_is_drawn_and_asked(desk):
    path, digits, query = desk.draw(5, 0, 0, 3)
    assert query in [one["query"] for one in digits]
    picture = {"path": path}
    said, maps = desk.answer(picture, query, "mref-pan-hard-ctx", "nobody", digits)
    assert "right" in Page(said).kinds
    assert maps == attention([desk.networks.ask(Path(path), query, "mref-pan-hard-ctx")])
    both, _ = desk.answer(picture, query, "mref-pan-hard-ctx", "mref-san", digits)
    assert "mref-san" in Page(both).text
    said, maps = desk.answer(picture, "seven", "mref-pan-hard-ctx", "mref-san", digits)
    assert "unknown query 'seven'; this network knows: 0, 1" in Page(said).text
    assert maps == ""
    same = desk.answer(picture, query, "mref-san", "mref-san", None)[0]
    assert Page(same).text.count("mref-san") == 1


def test_only_uploaded_pictures_are_asked_about(desk, tmp_path):
    inside, outside = desk.folder / "mine.png", tmp_path / "theirs.png"
    for path in (inside, outside):
        path.write_bytes(EXAMPLE.read_bytes())
    assert desk.ask({"path": str(inside)}, 7, "mref-san")["attribute"] == "red"
    (desk.folder / "link.png").symlink_to(outside)
    strange = [str(outside), f"{desk.folder}/../{tmp_path.name}/theirs.png", str(desk.folder / "link.png")]
    for path in [*strange, str(desk.folder / "gone.png"), str(desk.folder), "", None, "http://127.0.0.1/a.png", 7]:
        with pytest.raises(Exception, match="expected a picture that was uploaded") as error:
            desk.ask({"path": path, "url": "data:image/png;base64,AAAA"}, "7", "mref-san")
        assert type(error.value).__name__ == "Error"
        said, _ = desk.answer({"path": path}, "7", "mref-san", "nobody", None)
        assert "expected a picture that was uploaded" in said


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (5, 99, 0, 0), (5, 0, 33, 0), (5, 0, 0, -1), (None, 0, 0, 0)])
def test_sliders_beyond_their_ends_are_refused(desk, values):
    with pytest.raises(Exception, match="must be") as error:
        desk.draw(*values)
    assert type(error.value).__name__ == "Error"  # Gradio's, which the page shows


def test_a_hard_case_brings_its_picture_and_network(desk):
    events = pytest.importorskip("gradio").SelectData
    for index, case in enumerate(CASES):
        path, digits, query, network = desk.pick(events(None, {"index": index, "value": None}))
        assert query == case.query
        assert truth_of(digits, query) in COLOURS
        assert_array_equal(np.asarray(Image.open(path)), case.drawn()[0])
        assert (network == case.network) == (case.network in desk.networks.names)


def test_scripts_may_ask_and_nothing_else(shipped):
    page = pytest.importorskip("progressive_attention.serve.page", reason="pip install -e '.[dev]' brings Gradio")
    built = page.build_page(shipped, Path())
    assert [fn.api_name for fn in built.fns.values() if fn.api_visibility == "public" and fn.fn] == ["ask"]
    assert not built.analytics_enabled
    assert {fn.concurrency_id for fn in built.fns.values() if fn.fn} == {"ask"}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, told",
    [
        ("--weights nothing-like-it", "no trained weights at 'nothing-like-it'"),
        ("--weights mref-san --port 70000", "can't listen at 127.0.0.1 port 70000"),
        ("--weights mref-san --host 192.0.2.1", "can't listen at 192.0.2.1 port 7860"),
    ],
)
def test_mistakes_are_one_line(capsys, line, told):
    assert main(["serve", *line.split()]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_without_gradio_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setattr("progressive_attention.serve_command.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "pip install 'progressive-attention[demo]'" in capsys.readouterr().err
