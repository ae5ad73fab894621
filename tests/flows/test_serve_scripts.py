"""The demo page's server end to end: ``pan serve`` in a process of its own, asked by plain HTTP as scripts do."""

import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

import pytest
from served_page import EXAMPLE, WAIT, Served, png, started, two_networks

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
pytestmark = pytest.mark.slow  # a server has to start

FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two networks, for all tests of this file."""
    with two_networks(tmp_path_factory.mktemp("served")) as page:
        yield page


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
