"""The web page in Chromium, opened as a file: it answers as Predictor does, asks nobody, and fits a phone."""

import io
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import browser
from matplotlib import colormaps
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from tiny_models import build

from progressive_attention import Predictor
from progressive_attention.cli import main
from progressive_attention.data.images import Fit
from progressive_attention.data.scenes import SceneSource
from progressive_attention.maps.shown_maps import COLOUR_MAP
from progressive_attention.metrics.pointing import highest_point
from progressive_attention.predict import export_web as web_page
from progressive_attention.predict.export import export
from progressive_attention.saved import describe, load, save

__all__ = ["browser"]  # a fixture
NAME = "mref-pan"
CLOSE = 1e-4
MAPS = ["flow", "gate 1", "gate 2", "gate 3", "softmax", "all"]
Open = Callable[..., Any]
BASE64 = "(array) => btoa(Array.from(new Uint8Array(array.buffer), (byte) => String.fromCharCode(byte)).join(''))"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(NAME, "cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the shipped network, as the command writes it."""
    path = tmp_path_factory.mktemp("page") / "mref.html"
    assert main(["export", "--weights", NAME, "--format", "web", "--out", str(path)]) == 0
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Open]:
    """Opens the page, without a network, and at the end looks at what it has asked for and complained of."""
    contexts, requests, complaints = [], [], []

    def open_page(script: str = "", ready: str = "#bars li", **options: Any) -> Any:
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend([message.text] * (message.type == "error")))
        page.add_init_script(script)
        page.goto(file.as_uri())
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert {url for url in requests if not url.startswith("blob:")} == {file.as_uri()}
    assert complaints == []


def told(page: Any) -> dict[str, float]:
    """Probabilities as the page tells them."""
    lines = page.locator("#bars li").all()
    return {one.locator("span").first.inner_text(): float(one.locator("data").get_attribute("value")) for one in lines}


def names_of(page: Any) -> list[str]:
    """The maps' names; the line below each holds its largest value."""
    return [text.splitlines()[0] for text in page.locator("#maps button").all_inner_texts()]


def point_of(page: Any) -> tuple[float, float] | None:
    """Centre of the ring in pixels of the network's 100 x 100; None where there is none."""
    if not page.locator("#point").is_visible():
        return None
    ring, stage = (page.locator(name).bounding_box() for name in ("#point", "#stage"))
    across = (ring["x"] + ring["width"] / 2 - stage["x"]) / stage["width"]
    down = (ring["y"] + ring["height"] / 2 - stage["y"]) / stage["height"]
    return 100 * across, 100 * down


def wait_for_answer(page: Any, query: str) -> None:
    page.wait_for_function("query => state.answer?.query === query", arg=query)


def numbers(page: Any, expression: str, given: Any = None) -> bytes:
    """The bytes of a typed array, which would be slow to carry as a list."""
    return b64decode(page.evaluate(f"(given) => ({BASE64})({expression})", given))


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    """RGB of a canvas as large as the network's image, (H, W, 3) uint8."""
    data = numbers(page, f"element('{canvas}').getContext('2d').getImageData(0, 0, 100, 100).data")
    return np.frombuffer(data, np.uint8).reshape(100, 100, 4)[..., :3]


def choose(page: Any, picture: Image.Image, format: str = "PNG", **options: Any) -> None:
    """Give the page a picture of one's own and wait until it is asked about."""
    content = io.BytesIO()
    picture.save(content, format, **options)
    before = page.evaluate_handle("() => state.answer")
    given = {"name": "own", "mimeType": f"image/{format.lower()}", "buffer": content.getvalue()}
    page.set_input_files("#file", given)
    page.wait_for_function("before => state.answer !== before", arg=before)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values)


# --- parts of the page ------------------------------------------------------------------------------------------------


def test_pictures_are_scaled_as_pillow_scales_them(browser: Any) -> None:
    page = browser.new_page()
    page.add_script_tag(path=web_page.SOURCES / "fit.js")
    for width, height in ((237, 141), (40, 90), (100, 100), (5, 400), (1, 1), (200, 3), (99, 101), (64, 300)):
        picture = noise(width, height)
        expected = Fit.into(100, width, height).image(picture)
        pixels = "Uint8ClampedArray.from(atob(given), (letter) => letter.charCodeAt(0))"
        data = numbers(page, f"fitted({pixels}, {height}, {width}, 100)", b64encode(picture.tobytes()).decode())
        assert_array_equal(np.frombuffer(data, np.uint8).reshape(100, 100, 3), expected, f"{width} x {height}")
    page.close()


def test_the_highest_cell_is_the_one_that_predictor_points_at(browser: Any) -> None:
    page = browser.new_page()
    page.add_script_tag(path=web_page.SOURCES / "maps.js")
    maps = np.random.default_rng(0).integers(1, 4, (40, 6, 6)).astype(float)  # plateaus of any shape, at any side
    maps[0] = 0
    for values, (x, y) in zip(maps, highest_point(maps), strict=True):
        point = page.evaluate("(values) => highestPoint(Float64Array.from(values), 6)", values.ravel().tolist())
        assert point == (None if np.isnan(x) else {"x": pytest.approx(x), "y": pytest.approx(y)})
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, likelihood", [("pan-hard-ctx", "bernoulli"), ("stn-s", "softmax"), ("concat", "softmax")]
)
def test_any_network_of_ones_own(name: str, likelihood: str, browser: Any, tmp_path: Path) -> None:
    """Other words than digits, other likelihoods, networks with a region or with no map at all."""
    queries, attributes = ("bird", "small bird", "<b>car</b>", "tree", "7"), ("red", "large", "</script>")
    model = build(name, likelihood=likelihood).float()
    about = describe(model.config, queries, attributes, name=name, data=str(tmp_path))
    save(tmp_path, model.state_dict(), about)
    export(load(tmp_path), tmp_path / "it.html", "web")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "it.html").as_uri())
    page.wait_for_selector("#ask:visible")
    assert not page.locator("#next").is_visible()
    assert str(tmp_path) not in page.inner_text("body")
    picture = noise(80, 120)
    choose(page, picture)
    for query in queries:
        page.locator("#queries").get_by_text(query, exact=True).click()
        wait_for_answer(page, query)
        answer = Predictor(tmp_path, "cpu").ask(picture, query)
        assert told(page) == pytest.approx(answer.probabilities, abs=CLOSE)
        assert page.inner_text("#answer").count("%") == (3 if likelihood == "bernoulli" else 1)
        shown = MAPS if answer.layers else ["region"] if answer.maps else []
        assert names_of(page) == shown
        assert page.locator("#explained").is_visible() == bool(answer.layers)
        assert page.locator("#attention").is_visible() == bool(shown)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    page.close()


# --- the whole page ---------------------------------------------------------------------------------------------------


def free_pixel(digit: dict, digits: list[dict]) -> tuple[int, int]:
    """(x, y) in a digit's box and in no smaller one."""
    x0, y0, x1, y1 = digit["box"]
    smaller = [one["box"] for one in digits if one["box"][2] - one["box"][0] < x1 - x0]
    inside = ((x, y) for y in range(y0, y1) for x in range(x0, x1))
    return next((x, y) for x, y in inside if not any(a <= x < c and b <= y < d for a, b, c, d in smaller))


@pytest.mark.slow
def test_every_digit_clicked_is_answered_as_predictor_answers(opened: Open, predictor: Predictor) -> None:
    page = opened()
    source = SceneSource("mref", "test")
    for index in range(2):
        image, _ = source.render(source.scene(index))
        assert_array_equal(pixels_of(page, "picture"), image)
        digits = page.evaluate("() => state.digits")
        answers = predictor.ask_all(image, [digit["query"] for digit in digits])
        for digit, answer in zip(digits, answers, strict=True):
            x, y = free_pixel(digit, digits)
            scale = page.locator("#picture").bounding_box()["width"] / 100
            page.locator("#picture").click(position={"x": (x + 0.5) * scale, "y": (y + 0.5) * scale})
            wait_for_answer(page, answer.query)
            assert told(page) == pytest.approx(answer.probabilities, abs=CLOSE)
            maybe = "" if answer.found else "not found; if it were there: "
            assert page.inner_text("#answer").startswith(f"{answer.query} → {maybe}{answer.attribute} (")
            mark = "✓ Right" if answer.found and answer.attribute == digit["attribute"] else "✗ Wrong"
            assert page.inner_text("#truth") == f"{mark}: it is {digit['attribute']}."
            assert page.locator("#queries [aria-pressed=true]").inner_text() == answer.query
            maps = numbers(page, "Float64Array.from(state.answer.maps.flatMap((map) => [...map.values]))")
            flow, *layers, accumulated = np.frombuffer(maps).reshape(-1, 100, 100)
            assert point_of(page) == (None if answer.denied else pytest.approx(answer.point, abs=0.1))
            assert_allclose(flow, answer.maps["flow"], rtol=0, atol=CLOSE)
            assert_allclose(layers, answer.layers, rtol=0, atol=CLOSE)
            assert_allclose(accumulated, answer.maps["accumulated"], rtol=0, atol=CLOSE)
        before = page.evaluate_handle("() => state.answer")
        page.click("#next")
        page.wait_for_function("before => state.answer !== before", arg=before)


@pytest.mark.slow
def test_buttons_ask_and_an_absent_digit_is_said_to_be_absent(opened: Open, predictor: Predictor) -> None:
    page = opened()
    there = {digit["query"] for digit in page.evaluate("() => state.digits")}
    query = next(name for name in predictor.trained.query_names if name not in there)
    page.locator("#queries button", has_text=query).click()
    wait_for_answer(page, query)
    answer = predictor.ask(pixels_of(page, "picture"), query)
    assert told(page) == pytest.approx(answer.probabilities, abs=CLOSE)
    assert page.inner_text("#truth").endswith(f"there is no {query} in this scene.")
    assert not page.locator("#box").is_visible()
    assert page.locator("#point").is_visible() == answer.found


@pytest.mark.slow
def test_each_map_lies_over_the_picture_as_faint_as_one_likes(opened: Open, predictor: Predictor) -> None:
    page = opened()
    image = pixels_of(page, "picture")
    answer = predictor.ask(image, page.evaluate("() => state.query"))
    colours = colormaps[COLOUR_MAP](range(256), bytes=True)[:, :3].astype(int)
    maps = [answer.maps["flow"], *answer.layers, answer.maps["accumulated"]]
    buttons = page.locator("#maps button")
    assert names_of(page) == MAPS
    assert [one.get_attribute("aria-pressed") for one in buttons.all()] == ["true", *["false"] * 5]
    for i, values in enumerate(maps):
        buttons.nth(i).click()
        drawn = pixels_of(page, "overlay").astype(int)
        high = np.nanmax(values)  # of gates, too: those that close would be black from 0 to 1
        assert float(page.inner_text("#high")) == float(f"{high:.2g}")
        here = ~np.isnan(values)
        steps = np.abs(drawn[here][:, None] - colours).sum(-1)
        assert (steps.min(-1) == 0).all()
        assert_allclose(steps.argmin(-1), np.minimum(255, values[here] / high * 256 // 1), rtol=0, atol=1)
    page.fill("#opacity", "20")
    assert page.evaluate("() => getComputedStyle(element('overlay')).opacity") == "0.2"


@pytest.mark.slow
def test_a_picture_of_ones_own_is_seen_as_predictor_sees_it(opened: Open, predictor: Predictor) -> None:
    page = opened()
    for width, height in ((237, 141), (31, 80), (100, 100)):
        picture = noise(width, height)
        choose(page, picture)
        assert_array_equal(pixels_of(page, "picture"), predictor.fitted(picture))
        query = page.evaluate("() => state.query")
        assert told(page) == pytest.approx(predictor.ask(picture, query).probabilities, abs=CLOSE)
        assert page.inner_text("#truth") == ""
    see_through = noise(90, 50, "RGBA")
    choose(page, see_through)
    assert_allclose(pixels_of(page, "picture").astype(int), predictor.fitted(see_through), rtol=0, atol=2)
    lying, exif = Image.linear_gradient("L").resize((120, 60)).convert("RGB"), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    choose(page, lying, "JPEG", exif=exif, quality=95)
    turned = predictor.fitted(lying.transpose(Image.Transpose.ROTATE_270))
    assert_allclose(pixels_of(page, "picture").astype(int), turned, rtol=0, atol=4)


@pytest.mark.slow
def test_what_is_no_picture_is_told_and_changes_nothing(opened: Open) -> None:
    page = opened()
    before = pixels_of(page, "picture")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    page.wait_for_selector("#state:visible")
    assert page.inner_text("#state").startswith("notes.txt can't be opened as a picture: ")
    assert_array_equal(pixels_of(page, "picture"), before)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(opened: Open, scheme: str) -> None:
    page = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page.click("#licences summary")
    page.wait_for_function("() => element('notices').textContent.includes('Eigen')")
    assert "Microsoft Corporation" in page.inner_text("#notices")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    for control in page.locator("button, .button").all():
        box = control.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
        assert min(box["width"], box["height"]) >= 24


@pytest.mark.slow
def test_a_browser_too_old_says_so(opened: Open) -> None:
    page = opened("delete window.DecompressionStream", ready="#state:has-text('What failed')")
    assert "This browser can't run the page: it needs one of mid-2023 or later" in page.inner_text("#state")
    assert not page.locator("#ask").is_visible()


@pytest.mark.slow
def test_without_scripts_it_says_what_it_needs(browser: Any, file: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert "this browser is too old or has scripts turned off" in page.inner_text("#state")
    page.close()


@pytest.mark.slow
def test_any_static_host_serves_it(browser: Any, file: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(file.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    address = f"http://127.0.0.1:{server.server_port}/{file.name}"
    page.goto(address)
    page.wait_for_selector("#bars li")
    assert [url for url in requests if not url.startswith("blob:")] == [address]
    page.close()
    server.shutdown()
    server.server_close()
