"""The demo page end to end: ``pan serve`` in a process of its own, asked by a headless Chromium and by plain HTTP."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is driven by it: pip install -e '.[dev]'")
expect = playwright.expect
pytestmark = pytest.mark.slow  # a server and a browser have to start

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "src/progressive_attention/assets/examples/mref.png"
NETWORKS = ("mref-pan-hard-ctx", "mref-san")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OFFLINE = ("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
WAIT = 60_000  # ms; machines may be busy
FILE = {"_type": "gradio.FileData"}


class Served(NamedTuple):
    """A running page, its process, and the folder of its pictures."""

    address: str
    process: subprocess.Popen
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(folder: Path, *arguments: str) -> Served:
    """``pan serve`` once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "progressive_attention", "serve", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in line
    return Served(f"http://127.0.0.1:{port}/", process, folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two networks, for all tests of this file."""
    page = started(tmp_path_factory.mktemp("served"), "--weights", NETWORKS[0], "--weights", NETWORKS[1])
    yield page
    page.process.kill()
    page.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that can reach nothing but this machine."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *OFFLINE])
        yield browser
        browser.close()


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


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "png")
    return buffer.getvalue()


# --- in the browser ---------------------------------------------------------------------------------------------------


def test_open_click_and_see(opened):
    page = opened()
    said(page, "7 → white")  # scene 0 of MREF, and the question it asks itself
    said(page, "✓ right")
    click_at(page, 86, 28)
    said(page, "9 → blue")
    expect(page.locator("#query").get_by_role("textbox")).to_have_value("9")
    click_at(page, 50, 50)
    said(page, re.compile("6 → .*red"))  # or "not found; if it is there, red"
    assert page.locator("#maps figure").count() == 9  # four layers and what they removed, the accumulated map
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
    drop(page, png(5000, 4000), "bomb.png")
    said(page, "the picture has 5000 x 4000 pixels, expected at most 16,000,000")
    drop(page, b"no picture", "broken.png")
    said(page, "the picture can't be read as an image")
    page.get_by_label("Remove Image").click()
    said(page, "there is no picture; drop one, or draw a scene")
    page.locator("#roll").click()
    said(page, "✓ right")


def test_too_large_a_picture_is_refused(opened, served):
    page = opened()
    before = set(served.folder.rglob("*.png"))
    page.locator("#picture input[type=file]").set_input_files(
        {"name": "big.png", "mimeType": "image/png", "buffer": bytes(9 * 2**20)}
    )
    expect(page.get_by_text("exceed the maximum allowed size")).to_be_visible(timeout=WAIT)
    assert set(served.folder.rglob("*.png")) == before


def test_two_networks_side_by_side(opened):
    page = opened()
    page.locator("#second input").click()
    page.get_by_role("option", name="mref-san").click()
    expect(page.locator("#said section")).to_have_count(2, timeout=WAIT)
    first, second = (page.locator("#said section").nth(i).bounding_box() for i in range(2))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]
    assert page.locator("#maps figure").count() == 9 + 2  # SAN has one layer


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
    page.locator("#cases .thumbnail-item").nth(12).click()  # SAN, wrong
    said(page, "✗ wrong")
    said(page, re.compile("1 → .*red"))
    expect(page.locator("#first input")).to_have_value("mref-san")


@pytest.mark.parametrize("width", [390, 320, 768])
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


# --- for scripts ------------------------------------------------------------------------------------------------------


def fetched(request: str | urllib.request.Request) -> tuple[int, bytes]:
    """Status and body, whatever they are."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=WAIT / 1000) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def uploaded(served: Served, content: bytes, name: str = "a.png") -> str:
    """The server's path of an uploaded file."""
    body = f'--X\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    request = urllib.request.Request(f"{served.address}gradio_api/upload", body + content + b"\r\n--X--\r\n", headers)
    status, reply = fetched(request)
    assert status == 200, reply
    return json.loads(reply)[0]


def asked(served: Served, picture: Any, query: Any, network: Any) -> tuple[str, Any]:
    """What docs/demo.md does by hand: the event, "complete" or "error", and what came with it."""
    body = json.dumps({"data": [picture, query, network]}).encode()
    url = f"{served.address}gradio_api/call/ask"
    status, reply = fetched(urllib.request.Request(url, body, {"Content-Type": "application/json"}))
    assert status == 200, reply
    _, told = fetched(f"{url}/{json.loads(reply)['event_id']}")
    event, data = re.findall(r"event: (\w+)\ndata: (.*)", told.decode())[-1]
    return event, json.loads(data)


def test_a_script_asks(served):
    picture = {"path": uploaded(served, EXAMPLE.read_bytes()), "meta": FILE}
    event, (answer,) = asked(served, picture, "7", "mref-san")
    assert (event, answer["attribute"], answer["weights"]) == ("complete", "red", "mref-san")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    client = pytest.importorskip("gradio_client")
    through = client.Client(served.address, verbose=False)
    again = through.predict(client.handle_file(str(EXAMPLE)), "7", "mref-san", api_name="/ask")
    assert again == answer
    assert list(through.view_api(return_format="dict")["named_endpoints"]) == ["/ask"]


def test_a_script_is_told_what_is_wrong(served):
    path = uploaded(served, EXAMPLE.read_bytes())
    picture = {"path": path, "meta": FILE}
    strange = "expected a picture that was uploaded"
    for told, question in {
        "unknown query 'x'; this network knows": (picture, "x", "mref-san"),
        "unknown network 'x'; here there are": (picture, "7", "x"),
        "there is no picture": (None, "7", "mref-san"),
        "has 5000 x 4000 pixels": ({"path": uploaded(served, png(5000, 4000)), "meta": FILE}, "7", "mref-san"),
        "can't be read as an image": ({"path": uploaded(served, b"no"), "meta": FILE}, "7", "mref-san"),
    }.items():
        event, error = asked(served, *question)
        assert event == "error"
        assert told in error["error"]
    outside = [{"path": str(EXAMPLE)}, {"path": f"{path}/../../../{EXAMPLE}"}, {"path": "http://127.0.0.1/a.png"}]
    outside += [{"path": "http://127.0.0.1/a.png", "meta": FILE}, {"url": "data:image/png;base64,AAAA", "path": ""}]
    for picture in outside:
        event, error = asked(served, picture, "7", "mref-san")
        assert event == "error"
        assert strange in error["error"]
    assert asked(served, {"path": str(EXAMPLE), "meta": FILE}, "7", "mref-san")[0] == "error"
    assert asked(served, {"path": path}, {"path": "http://127.0.0.1/a", "meta": FILE}, "mref-san")[0] == "error"
    assert asked(served, {"path": path}, "7", "mref-san")[0] == "complete"  # and it still answers


def test_only_what_was_uploaded_can_be_read(served):
    path = uploaded(served, EXAMPLE.read_bytes())
    files = f"{served.address}gradio_api/file="
    assert fetched(files + path) == (200, EXAMPLE.read_bytes())
    for other in (EXAMPLE, "README.md", f"{path}/../../../../../../../../etc/hostname", "http://127.0.0.1/a.png"):
        assert fetched(f"{files}{other}")[0] in (403, 404)
    for page in ("monitoring", "openapi.json", "docs", "gradio_api/runs"):
        assert fetched(served.address + page)[0] in (403, 404), page
    body = bytes(9 * 2**20)
    assert fetched(urllib.request.Request(f"{served.address}gradio_api/upload", body))[0] == 413


@pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 this machine")
def test_only_loopback_is_bound(served):
    port = urlparse(served.address).port
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):  # a server on 0.0.0.0 would answer here, too
        socket.create_connection(("127.0.0.2", port))


def test_it_stops_and_leaves_nothing(tmp_path):
    page = started(tmp_path, "--weights", "mref-san")
    uploaded(page, EXAMPLE.read_bytes())
    assert list(tmp_path.glob("pan-serve-*"))
    page.process.send_signal(signal.SIGTERM)
    assert page.process.wait(60) == 130
    assert not list(tmp_path.glob("pan-serve-*"))
