"""The demo page's endpoint for scripts, end to end: ``pan serve`` in a process of its own, asked over HTTP."""

import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlparse

import pytest
from served_page import EXAMPLE, WAIT, Served, png, started, two_networks

from progressive_attention.predict.predictor import Predictor

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


def upload(served: Served, content: bytes, name: str = "a.png") -> tuple[int, bytes]:
    """Status and body of an upload."""
    body = f'--X\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    url = f"{served.address}gradio_api/upload"
    return fetched(urllib.request.Request(url, body + content + b"\r\n--X--\r\n", headers))


def uploaded(served: Served, content: bytes) -> str:
    """The server's path of an uploaded file."""
    status, reply = upload(served, content)
    assert status == 200, reply
    return json.loads(reply)[0]


def asked(served: Served, picture: Any, query: Any, network: Any) -> tuple[str, Any]:
    """What docs/report.md does by hand: the event, "complete" or "error", and what came with it."""
    body = json.dumps({"data": [picture, query, network]}).encode()
    url = f"{served.address}gradio_api/call/ask"
    status, reply = fetched(urllib.request.Request(url, body, {"Content-Type": "application/json"}))
    assert status == 200, reply
    _, events = fetched(f"{url}/{json.loads(reply)['event_id']}")
    event, data = re.findall(r"event: (\w+)\ndata: (.*)", events.decode())[-1]
    return event, json.loads(data)


def test_a_script_asks(served):
    picture = {"path": uploaded(served, EXAMPLE.read_bytes()), "meta": FILE}
    event, (answer,) = asked(served, picture, "7", "mref-san")
    expected = Predictor("mref-san", "cpu").ask(EXAMPLE, "7")
    assert (event, answer["attribute"], answer["weights"]) == ("complete", "red", "mref-san")
    assert answer["probabilities"] == pytest.approx(expected.probabilities)
    assert (answer["point"], answer["box"]) == (list(expected.point), list(expected.box()))
    client = pytest.importorskip("gradio_client")
    through = client.Client(served.address, verbose=False)
    again = through.predict(client.handle_file(str(EXAMPLE)), "7", "mref-san", api_name="/ask")
    assert again == answer
    assert list(through.view_api(return_format="dict")["named_endpoints"]) == ["/ask"]


def test_a_script_learns_what_is_wrong(served):
    path = uploaded(served, EXAMPLE.read_bytes())
    picture = {"path": path, "meta": FILE}
    for message, question in {
        "unknown query 'x'; this network knows": (picture, "x", "mref-san"),
        "has 5000 x 4000 pixels": ({"path": uploaded(served, png(5000, 4000)), "meta": FILE}, "7", "mref-san"),
    }.items():
        event, error = asked(served, *question)
        assert event == "error"
        assert message in error["error"]
    outside = [str(EXAMPLE), f"{path}/../../../{EXAMPLE}", "http://127.0.0.1/a.png", ""]
    for other in [{"path": name} for name in outside] + [{"path": str(EXAMPLE), "meta": FILE}]:
        assert asked(served, other, "7", "mref-san")[0] == "error"
    assert asked(served, {"path": path}, "7", "mref-san")[0] == "complete"  # and it still answers


def test_only_what_was_uploaded_can_be_read(served):
    path = uploaded(served, EXAMPLE.read_bytes())
    files = f"{served.address}gradio_api/file="
    assert fetched(files + path) == (200, EXAMPLE.read_bytes())
    for other in (EXAMPLE, "README.md", f"{path}/../../../../../../../../etc/hostname"):
        assert fetched(f"{files}{other}")[0] in (403, 404)
    status, _ = upload(served, bytes(9 * 2**20))
    assert status == 413


@pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 this machine")
def test_only_loopback_is_bound(served):
    port = urlparse(served.address).port
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):  # a server on 0.0.0.0 would answer here, too
        socket.create_connection(("127.0.0.2", port))


def test_many_ask_at_once_good_and_bad(served):
    """20 clients: every good answer is the same, every bad question an error, and the server lives on."""
    picture = {"path": uploaded(served, EXAMPLE.read_bytes()), "meta": FILE}
    broken = {"path": uploaded(served, EXAMPLE.read_bytes()[:60]), "meta": FILE}
    good, bad = (picture, "7", "mref-pan"), [(broken, "7", "mref-pan"), (picture, "x", "mref-pan"), (picture, "7", 5)]
    questions = [bad[i % 3] if i % 4 == 3 else good for i in range(80)]
    with ThreadPoolExecutor(20) as clients:
        replies = list(clients.map(lambda question: asked(served, *question), questions))
    answers = [reply for question, reply in zip(questions, replies, strict=True) if question is good]
    assert answers == [answers[0]] * 60
    assert answers[0][0] == "complete"
    assert {event for question, (event, _) in zip(questions, replies, strict=True) if question is not good} == {"error"}
    assert served.process.poll() is None


def test_it_stops_and_leaves_nothing(tmp_path):
    page = started(tmp_path, "--weights", "mref-san")
    uploaded(page, EXAMPLE.read_bytes())
    assert list(tmp_path.glob("pan-serve-*"))
    page.process.send_signal(signal.SIGTERM)
    assert page.process.wait(60) == 130
    assert not list(tmp_path.glob("pan-serve-*"))
