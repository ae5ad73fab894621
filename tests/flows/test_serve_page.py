"""The demo page end to end: ``pan serve`` in a process of its own, driven by a headless Chromium."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlparse

import pytest
from chromium import browser
from served_page import EXAMPLE, WAIT, Served, two_networks

from progressive_attention.serve.scene import CASES

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
expect = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, to drive Chromium").expect
pytestmark = pytest.mark.slow  # a server and a browser have to start

__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two networks, for all tests of this file."""
    with two_networks(tmp_path_factory.mktemp("served")) as page:
        yield page


@pytest.fixture
def opened(served: Served, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page, asks nothing yet; afterwards no request may have left for another machine."""
    contexts, asked = [], []

    def open_page(width: int = 1280, height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(WAIT)
        context.on("request", lambda request: asked.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.goto(served.address)
        expect(page.locator("#maps .tiles")).to_be_visible(timeout=WAIT)
        return page

    yield open_page
    for context in contexts:
        context.close()
    hosts = {urlparse(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def click_at(page: Any, x: float, y: float) -> None:
    """Click a pixel of the scene."""
    box = page.locator("#picture img").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.click(left + x * side / 100, top + y * side / 100)


def said(page: Any, text: str | re.Pattern) -> None:
    """Wait until the answer tells so."""
    expect(page.locator("#said")).to_contain_text(text, timeout=WAIT)


def ask(page: Any, query: str) -> None:
    page.locator("#query").get_by_role("textbox").fill(query)
    page.locator("#ask").click()


def test_open_click_and_see(opened):
    page = opened()
    said(page, "7 → white")  # scene 0 of MREF, and the question it asks itself
    said(page, "✓ right")
    click_at(page, 86, 28)
    said(page, "9 → blue")
    expect(page.locator("#query").get_by_role("textbox")).to_have_value("9")
    click_at(page, 50, 50)
    said(page, re.compile("6 → .*red"))  # or "not found; if it is there, red"
    assert page.locator("#maps figure").count() == 10  # the flow, what was kept, four layers and what they removed
    click_at(page, 99, 99)
    expect(page.get_by_text("There is no digit; click on one.")).to_be_visible(timeout=WAIT)


def test_roll_and_sliders_draw_anew(opened):
    page = opened()
    pictures = [page.locator("#picture img").get_attribute("src")]

    def changed() -> None:
        expect(page.locator("#picture img")).not_to_have_attribute("src", pictures[-1], timeout=WAIT)
        pictures.append(page.locator("#picture img").get_attribute("src"))

    page.locator("#roll").click()
    changed()
    for name, value in (("digits", "2"), ("clutter", "30"), ("background", "5"), ("seed", "77")):
        page.locator(f"#{name}").get_by_role("spinbutton").fill(value)
        page.locator(f"#{name}").get_by_role("spinbutton").blur()
        changed()
    page.get_by_label("mdist").click()
    changed()
    expect(page.locator("#clutter").get_by_role("spinbutton")).to_have_value("17")
    expect(page.locator("#digits").get_by_role("spinbutton")).to_have_value("7")
    assert len(set(pictures)) == len(pictures)


def test_typed_queries(opened):
    page = opened()
    ask(page, "5")
    said(page, "5 → white")
    ask(page, "4")  # not in this scene
    said(page, "there is no 4 in this scene")
    ask(page, "<b>car</b>")
    said(page, "unknown query '<b>car</b>'; this network knows: 0, 1, 2")
    expect(page.locator("#maps .tiles")).to_have_count(0)
    page.locator("#query").get_by_role("textbox").fill("6")
    page.keyboard.press("Enter")
    said(page, re.compile("6 → .*red"))  # or "not found; if it is there, red"


def drop(page: Any, content: bytes, name: str) -> None:
    """Drop a file on the picture."""
    make = """text => { const data = new DataTransfer();
      const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
      data.items.add(new File([bytes], '%s', {type: 'image/png'})); return data; }"""
    data = page.evaluate_handle(make % name, base64.b64encode(content).decode())
    page.locator("#picture .upload-container").first.dispatch_event("drop", {"dataTransfer": data})


def test_drop_a_picture(opened):
    page = opened()
    drop(page, EXAMPLE.read_bytes(), "mine.png")
    said(page, "7 → red")
    said(page, "your own picture")
    click_at(page, 50, 50)
    expect(page.get_by_text("Clicks ask about digits of drawn scenes")).to_be_visible(timeout=WAIT)
    drop(page, b"no picture", "broken.png")
    said(page, "the picture can't be read as an image")
    page.get_by_label("Remove Image").click()
    said(page, "there is no picture; drop one, or draw a scene")
    page.locator("#roll").click()
    said(page, "✓ right")


def test_two_networks_side_by_side(opened):
    page = opened()
    page.locator("#second input").click()
    page.get_by_role("option", name="mref-san").click()
    expect(page.locator("#said section")).to_have_count(2, timeout=WAIT)
    first, second = (page.locator("#said section").nth(i).bounding_box() for i in range(2))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    assert page.locator("#maps figure").count() == 10 + 3  # SAN has one layer


def test_opacity_changes_the_overlay(opened):
    page = opened()
    tile, plain = (page.locator("#maps .square").nth(i) for i in (0, 1))
    seen = []
    for value in ("0", "1"):
        page.locator("#opacity").get_by_role("spinbutton").fill(value)
        page.locator("#opacity").get_by_role("spinbutton").blur()
        expect(tile.locator(".heat")).to_have_css("opacity", value, timeout=WAIT)
        seen.append((tile.screenshot(), plain.screenshot()))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] == seen[1][1]  # what was removed is no overlay


def test_hard_cases(opened):
    page = opened()
    page.locator("#hard").get_by_text("Hard cases").click()
    expect(page.locator("#cases .thumbnail-item")).to_have_count(16, timeout=WAIT)
    place, case = next((i, case) for i, case in enumerate(CASES) if case.network == "mref-san" and case.kind == "wrong")
    page.locator("#cases .thumbnail-item").nth(place).click()
    said(page, "✗ wrong")
    said(page, re.compile(f"{case.query} → .*{case.said}"))
    expect(page.locator("#first input")).to_have_value("mref-san")


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_pages_do_not_scroll_sideways(opened, width):
    page = opened(width, 844)
    page.locator("#second input").click()
    page.get_by_role("option", name="mref-san").click()
    expect(page.locator("#said section")).to_have_count(2, timeout=WAIT)
    page.locator("#hard").get_by_text("Hard cases").click()
    expect(page.locator("#cases .thumbnail-item").last).to_be_visible(timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in ("#picture", "#ask", "#said", "#maps", "#opacity", "#roll", "#cases"):
        box = page.locator(place).bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width, place
