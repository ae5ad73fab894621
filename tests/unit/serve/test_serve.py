"""What the demo page answers, without a server: HTML, networks and pictures, refusals, the command."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.cli import main
from progressive_attention.data.scenes import COLOURS
from progressive_attention.network.build import build_model
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.saved import weights
from progressive_attention.serve import networks as networks_module
from progressive_attention.serve.hard_cases import CASES
from progressive_attention.serve.networks import LONGEST_QUERY, Networks, as_json, read_picture
from progressive_attention.serve.panel import Asked, attention, notice
from progressive_attention.serve.panel import answers as answers_html
from progressive_attention.serve.scene import truth_of

EXAMPLE = Path(__file__).parents[3] / "src/progressive_attention/assets/examples/mref.png"


@pytest.fixture(scope="module")
def shipped():
    return Networks(["mref-pan", "mref-san"], "cpu")


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
    flow = np.zeros((4, 4))
    flow[1, 2] = 1
    own = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "layers": layers,
        "maps": {"accumulated": np.eye(4) / 4, "flow": flow},
    }
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
    assert len(page.sources) == 3 * 2 + 1 + 2  # a map over its image, thrice; what was kept; what two layers removed
    assert page.kinds.count("heat") == 3
    assert page.kinds.index("ring") == page.kinds.index("heat") + 1  # in the first picture, which the flow is in
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    told = ["where the answer came from", "what the network kept", "gate 1", "largest 0.5", "gate 1 removed"]
    places = [page.text.index(words) for words in [*told, "0 % of what reached it", "choice", "largest 0.25"]]
    assert places == sorted(places)


def test_the_ring_lies_on_the_highest_point():
    html = attention([Asked("mine", "mref", answer_of())])
    assert "style='left:62.50%;top:37.50%'" in html  # the middle of the third pixel of four, and of the second
    assert "ring'" not in attention([Asked("mine", "mref", answer_of(found=False))])


def test_one_layer_is_shown_once_and_none_is_said():
    one = answer_of(layers=[np.eye(4) / 4])
    assert len(Page(attention([Asked("san", "mref", one)])).sources) == 2 + 1 + 1
    none = answer_of(layers=[], maps={})
    assert "no attention map" in Page(attention([Asked("film", "mref", none)])).text


def test_two_networks_stand_side_by_side():
    asked = [Asked(name, "mref", answer_of()) for name in ("one", "other")]
    for html in (answers_html(asked, "red"), attention(asked)):
        page = Page(html)
        assert "one" in page.text
        assert "other" in page.text
    assert len(Page(attention(asked)).sources) == 2 * 9


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
        (EXAMPLE, "7", "../mref-san", r"unknown network '../mref-san'; here there are: mref-pan, mref"),
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


# --- the page, without its server -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(shipped, tmp_path_factory):
    page = pytest.importorskip("progressive_attention.serve.page", reason="pip install -e '.[dev]' brings Gradio")
    return page.Desk(shipped, tmp_path_factory.mktemp("pictures"))


def test_a_scene_is_drawn_and_asked(desk):
    path, digits, query = desk.draw(5, 0, 0, 3)
    assert query in [one["query"] for one in digits]
    picture = {"path": path}
    said, maps = desk.answer(picture, query, "mref-pan", "nobody", digits)
    assert "right" in Page(said).kinds
    assert maps == attention([desk.networks.ask(Path(path), query, "mref-pan")])
    both, _ = desk.answer(picture, query, "mref-pan", "mref-san", digits)
    assert "mref-san" in Page(both).text
    said, maps = desk.answer(picture, "seven", "mref-pan", "mref-san", digits)
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
    monkeypatch.setattr("progressive_attention.commands.serve.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "pip install 'progressive-attention[demo]'" in capsys.readouterr().err
