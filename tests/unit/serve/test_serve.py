"""The demo page without its server: scenes and clicks, HTML, networks and pictures, the events, the command."""

import json
from html.parser import HTMLParser
from pathlib import Path

import gradio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from wrong_commands import error_of

from progressive_attention import saved
from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.network.build import build_model
from progressive_attention.predict.export_web import digits_of
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.saved import describe, save, shipped
from progressive_attention.serve import networks as networks_module
from progressive_attention.serve.networks import LONGEST_QUERY, Networks, as_json
from progressive_attention.serve.page import Desk, build_page
from progressive_attention.serve.panel import Asked, attention, hatched, heat, notice, removed
from progressive_attention.serve.panel import answers as answers_html
from progressive_attention.serve.scene import CASES, SETS, Sliders, arranged, clicked, truth_of

EXAMPLE = Path(__file__).parents[3] / "src/progressive_attention/assets/examples/mref.png"


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource("mbg", "test")


@pytest.fixture(scope="module")
def pretrained() -> Networks:
    return Networks(["mref-pan", "mref-san"], "cpu")


@pytest.fixture(scope="module")
def desk(pretrained: Networks, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(pretrained, tmp_path_factory.mktemp("pictures"))


# --- scenes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 32), st.integers(0, 999_999))
def test_a_click_on_ink_finds_its_digit(source, digits, clutter, background, seed):
    scene = arranged(Sliders(digits, clutter, background, seed), source)
    image, owner = source.render(scene)
    drawn = digits_of(scene)
    assert image.shape == (100, 100, 3)
    assert len(drawn) == digits == len({digit["query"] for digit in drawn})
    assert len(scene.patches) == clutter
    for y, x in np.argwhere(owner):  # every inked pixel, against who inked it
        assert clicked(drawn, x + 0.5, y + 0.5) == drawn[owner[y, x] - 1]["query"]
    assert truth_of(drawn, drawn[scene.asked]["query"]) == COLOURS[scene.digits[scene.asked].colour]


def test_clicks_and_truth_by_hand():
    digits = [
        {"query": "0", "attribute": "red", "box": [0, 0, 50, 50]},
        {"query": "1", "attribute": "blue", "box": [10, 20, 30, 40]},
    ]
    assert clicked(digits, 10, 20) == clicked(digits, 29.9, 39.9) == "1"  # of two boxes the digit drawn last
    assert clicked(digits, 30, 39) == clicked(digits, 9.9, 20) == "0"
    assert clicked(digits, 50, 10) is clicked([], 5, 5) is None
    assert (truth_of(digits, "1"), truth_of(digits, "4"), truth_of(None, "1")) == ("blue", "", None)


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
    drawn = {style: arranged(sliders, source) for style, sliders in SETS.items()}
    assert {style: len(scene.patches) for style, scene in drawn.items()} == {"mref": 0, "mdist": 17, "mbg": 0}
    assert [scene.background is None for scene in drawn.values()] == [True, True, False]


@pytest.mark.parametrize("name", shipped())
def test_hard_cases_are_what_they_say(name):
    predictor, kinds = Predictor(name, "cpu"), []
    for case in (case for case in CASES if case.network == name):
        image, scene = case.drawn()
        digit = next(digit for digit in scene.digits if str(digit.number) == case.query)
        answer = predictor.ask(image, case.query)
        assert answer.attribute == case.said
        assert (answer.attribute == COLOURS[digit.colour]) == (case.kind != "wrong")
        assert case.kind != "unsure" or answer.probability < 0.6
        assert case.kind != "small" or digit.scale < 0.6
        kinds.append(case.kind)
    assert kinds == ["wrong", "wrong", "small", "unsure"]


# --- pixels -----------------------------------------------------------------------------------------------------------


def removed_by_loops(image, layers):
    """The slow twin: pixel by pixel."""
    height, width = image.shape[:2]
    parts, left = [], [[1.0] * width for _ in range(height)]
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
        parts.append((closed / reached, part))
    return parts


def test_removed_is_what_passed_the_layers_before():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 9, 3), np.uint8)
    layers = [rng.random((9, 9)) for _ in range(3)]
    for margin, layer in enumerate(layers[1:], 1):
        layer[:margin] = layer[-margin:] = np.nan
    for (share, part), (slow_share, slow) in zip(removed(image, layers), removed_by_loops(image, layers), strict=True):
        assert_array_equal(part, slow)
        assert_allclose(share, slow_share)
    nothing, unknown = (removed(image, [np.full((9, 9), value)])[0] for value in (0.0, np.nan))
    assert (nothing[0], unknown[0]) == (1, 0)
    assert_array_equal(nothing[1], image)
    assert_array_equal(unknown[1], hatched((9, 9)))


def test_heat_is_paint_up_to_the_largest_value():
    paint = heat(np.array([[0.0, 0.5], [0.25, np.nan]]))
    assert paint[0, 0, 3] == 0  # nothing: the image alone
    assert_array_equal(paint[0, 1], [240, 249, 33, 191])  # the largest: plasma's yellow, three quarters opaque
    assert 80 < paint[1, 0, 3] < 191
    assert_array_equal(paint[1, 1], [*hatched((2, 2))[1, 1], 255])


# --- HTML -------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Addresses of pictures, classes and text of a piece of HTML, which must be balanced."""

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
    flow = np.zeros((4, 4))
    flow[1, 2] = 1
    fields = {
        "query": "7",
        "attribute": "red",
        "probability": 0.75,
        "probabilities": {"red": 0.75, "blue": 0.25},
        "image": np.zeros((4, 4, 3), np.uint8),
        "layers": [np.full((4, 4), 0.5), np.eye(4) / 4],
        "maps": {"accumulated": np.eye(4) / 4, "flow": flow},
    }
    return Answer(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes, truth, verdict",
    [
        ({}, "red", "✓ right"),
        ({}, "blue", "✗ wrong, the 7 is blue"),
        ({}, "", "there is no 7 in this scene: softmax attention always points somewhere"),
        ({}, None, "your own picture"),
        ({"found": False}, "", "✓ right, there is no 7 in this scene"),
        ({"found": False}, "red", "✗ wrong, the 7 is red"),
        ({"found": True}, "red", "✓ right"),
    ],
)
def test_verdict(changes, truth, verdict):
    page = Page(answers_html([Asked("mine", "mref", answer_of(**changes))], truth))
    assert verdict in page.text
    assert ("not found" in page.text) == (changes.get("found") is False)
    assert all(text in page.text for text in ("7 → ", "75.0 %", "trained on MREF"))


def test_several_attributes_where_several_may_be_true():
    probabilities = {"old": 0.9, "wet": 0.8, "red": 0.2, "new": 0.1}
    page = Page(answers_html([Asked("mine", "", answer_of(probabilities=probabilities, likelihood="bernoulli"))], None))
    assert "7 → old 90.0 %, wet 80.0 %, red 20.0 %" in page.text


def test_pictures_of_each_layer_are_inside():
    html = attention([Asked("mine", "mref", answer_of())])
    page = Page(html)
    assert len(page.sources) == 3 * 2 + 1 + 2  # a map over its image, thrice; what was kept; what two layers removed
    assert page.kinds.count("heat") == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    texts = ["where the answer came from", "what the network kept", "gate 1", "largest 0.5", "gate 1 removed"]
    places = [page.text.index(text) for text in [*texts, "0 % of what reached it", "choice", "largest 0.25"]]
    assert places == sorted(places)
    assert "style='left:62.50%;top:37.50%'" in html  # the ring: the middle of the third pixel of four, of the second
    assert "ring'" not in attention([Asked("mine", "mref", answer_of(found=False))])
    single = answer_of(layers=[np.eye(4) / 4])
    assert len(Page(attention([Asked("san", "mref", single)])).sources) == 2 + 1 + 1
    both = [Asked(name, "mref", answer_of()) for name in ("one", "other")]
    assert len(Page(attention(both)).sources) == 2 * 9
    assert "one" in Page(attention(both)).text


def test_strange_words_stay_text():
    mark = "<img src=x onerror=alert(1)>"
    shown = Asked(mark, mark, answer_of(query=mark, attribute=mark, probabilities={mark: 1.0}))
    for html in (answers_html([shown], mark), answers_html([shown], ""), notice(mark)):
        page = Page(html)
        assert not page.sources
        assert mark in page.text


# --- networks and pictures --------------------------------------------------------------------------------------------


def test_answers_are_the_predictors(pretrained, tmp_path):
    Image.open(EXAMPLE).resize((300, 150)).save(tmp_path / "wide.png")
    asked = pretrained.ask({"path": str(tmp_path / "wide.png")}, tmp_path, " 7 ", "mref-pan")
    answer = Predictor("mref-pan", "cpu").ask(tmp_path / "wide.png", "7")
    assert (asked.network, asked.trained_on, asked.answer.attribute) == ("mref-pan", "mref", answer.attribute)
    record = as_json(asked)
    assert json.loads(json.dumps(record)) == {**record, "point": list(answer.point), "box": list(answer.box())}
    assert record["probabilities"] == answer.probabilities
    assert (record["found"], record["presence"]) == (answer.found, answer.presence)


@pytest.mark.parametrize(
    "picture, query, name, message",
    [
        (EXAMPLE, "x", "mref-san", "unknown query 'x'; this network knows: 0, 1, 2"),
        (EXAMPLE, None, "mref-san", "expected a query of 1 to 100 letters; this network knows: 0, 1"),
        (EXAMPLE, "7" * (LONGEST_QUERY + 1), "mref-san", "expected a query of 1 to 100 letters"),
        (EXAMPLE, "7", "../mref-san", "unknown network '../mref-san'; known: mref-pan, mref"),
        (EXAMPLE, "7", "x" * 500, "unknown network 'x{100}'"),
        (None, "7", "mref-san", "there is no picture; drop one, or draw a scene"),
        (Path(__file__), "7", "mref-san", "the picture can't be read as an image"),
    ],
)
def test_what_can_not_be_answered(pretrained, picture, query, name, message):
    with pytest.raises(ValueError, match=message):
        pretrained.ask(picture and {"path": picture}, Path("/"), query, name)


def test_a_bomb_is_rejected_by_its_header(pretrained, tmp_path, monkeypatch):
    Image.new("L", (5000, 4000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="the picture has 5000 x 4000 pixels, expected at most 16,000,000"):
        pretrained.ask({"path": tmp_path / "bomb.png"}, tmp_path, "7", "mref-pan")


def test_networks_are_named_by_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(networks_module, "Predictor", lambda path, device: path)
    assert Networks().names == list(saved.pretrained())
    with monkeypatch.context() as lacking:
        lacking.setattr(networks_module, "missing", {"mref-san": "mref-san needs a package"}.get)
        assert Networks().names == [name for name in saved.pretrained() if name != "mref-san"]
    monkeypatch.chdir(tmp_path)
    assert Networks(["runs/mine", str(tmp_path / "other"), "mref-san"]).names == ["mine", "other", "mref-san"]
    with pytest.raises(ValueError, match="two networks are named 'mine'; give each once"):
        Networks(["a/mine", "b/mine/"])


def test_our_photographs_are_offered_to_a_network_that_knows_their_words(tmp_path, pretrained):
    """Each with the credit of its licence; a copy is asked about, as only what lies among the pictures may be."""
    model = build_model("film", num_queries=2, num_attributes=2, image_size=62, likelihood="bernoulli")
    save(tmp_path / "mine", model.state_dict(), describe(model.config, ("bird", "tree"), ("blue", "wet")))
    desk = Desk(Networks(["mref-pan", str(tmp_path / "mine")], "cpu"), tmp_path)
    index = [photograph.path.stem for photograph in desk.photographs].index("kingfisher")
    assert desk.photographs[index].credit == "kingfisher by Frank-2.0, CC0-1.0"
    picture, scene, query, network = desk.pick_photograph(gradio.SelectData(None, {"index": index, "value": None}))
    assert (scene, query, network) == (None, "bird", "mine")
    said, _ = desk.answer({"path": picture}, query, network, "nobody", scene)
    assert "blue" in Page(said).text
    assert not Desk(pretrained, tmp_path).photographs


def test_a_network_of_other_words_answers(tmp_path):
    torch.manual_seed(0)
    model = build_model("film", num_queries=2, num_attributes=2, image_size=62, likelihood="bernoulli")
    save(tmp_path / "mine", model.state_dict(), describe(model.config, ("car", "dog"), ("old", "wet")))
    asked = Networks([str(tmp_path / "mine")], "cpu").ask({"path": EXAMPLE}, EXAMPLE.parent, "dog", "mine")
    assert (asked.trained_on, as_json(asked)["point"], as_json(asked)["box"]) == ("", None, None)
    assert "no attention map" in attention([asked])


# --- events -----------------------------------------------------------------------------------------------------------


def test_a_scene_is_drawn_and_asked(desk):
    path, digits, query = desk.draw(5, 0, 0, 3)
    assert query in [digit["query"] for digit in digits]
    said, maps = desk.answer({"path": path}, query, "mref-pan", "nobody", digits)
    assert "right" in Page(said).kinds
    assert maps == attention([desk.networks.ask({"path": path}, desk.folder, query, "mref-pan")])
    both, _ = desk.answer({"path": path}, query, "mref-pan", "mref-san", digits)
    assert "mref-san" in Page(both).text
    said, maps = desk.answer({"path": path}, "seven", "mref-pan", "mref-san", digits)
    assert "unknown query 'seven'; this network knows: 0, 1" in Page(said).text
    assert maps == ""


def test_only_uploaded_pictures_are_asked_about(desk, tmp_path):
    inside, outside = desk.folder / "mine.png", tmp_path / "theirs.png"
    for path in (inside, outside):
        path.write_bytes(EXAMPLE.read_bytes())
    assert desk.ask({"path": str(inside)}, 7, "mref-san")["attribute"] == "red"
    (desk.folder / "link.png").symlink_to(outside)
    strange = [str(outside), f"{desk.folder}/../{tmp_path.name}/theirs.png", str(desk.folder / "link.png"), "x" * 9999]
    for path in [*strange, str(desk.folder / "gone.png"), str(desk.folder), "", None, "\0", "http://127.0.0.1/a.png"]:
        with pytest.raises(gradio.Error, match="expected a picture that was uploaded"):
            desk.ask({"path": path, "url": "data:image/png;base64,AAAA"}, "7", "mref-san")
        said, _ = desk.answer({"path": path}, "7", "mref-san", "nobody", None)
        assert "expected a picture that was uploaded" in said


def test_a_hard_case_brings_its_picture_and_network(desk):
    for index, case in enumerate(CASES):
        event = gradio.SelectData(None, {"index": index, "value": None})
        path, digits, query, network = desk.pick(event)
        assert query == case.query
        assert truth_of(digits, query) in COLOURS
        assert_array_equal(np.asarray(Image.open(path)), case.drawn()[0])
        assert (network == case.network) == (case.network in desk.networks.names)


def test_scripts_may_ask_and_nothing_else(pretrained):
    page = build_page(pretrained, Path())
    assert [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn] == ["ask"]
    assert not page.analytics_enabled
    assert {fn.concurrency_id for fn in page.fns.values() if fn.fn} == {"ask"}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, message",
    [
        ("--weights nothing-like-it", "no trained weights at 'nothing-like-it'"),
        ("--weights mref-san --port 70000", "can't listen at 127.0.0.1 port 70000"),
        ("--weights mref-san --host 192.0.2.1", "can't listen at 192.0.2.1 port 7860"),
    ],
)
def test_mistakes_are_one_line(capsys, line, message):
    assert message in error_of(capsys, "serve", *line.split())


def test_without_gradio_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'progressive-attention[demo]'" in error_of(capsys, "serve")
