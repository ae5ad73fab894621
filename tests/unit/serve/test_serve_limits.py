"""What the server of the page lets through, and what it keeps: without a socket."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
import gradio as gr
from starlette.requests import ClientDisconnect
from tiny_app import no_content

from progressive_attention.serve import limits
from progressive_attention.serve.limits import NOT_UNDERSTOOD, Limits, in_words
from progressive_attention.serve.networks import inside
from progressive_attention.serve.room import make_room

# --- what is let through ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies need not wait."""
    monkeypatch.setattr(limits, "BULK_RATE", 1e15)


def sent_for(method: str, path: str, app: Any = no_content, folder: Path = Path("."), **headers: str) -> list[Any]:
    """The messages of the middleware; status 204 comes from behind it. The request's body is without end."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(1_000_000), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Limits(app, folder)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "method, path, length, status",
    [
        ("GET", "/", None, 204),
        ("GET", "/assets/index.js", None, 204),
        ("POST", "/gradio_api/upload", "8588608", 204),
        ("POST", "/gradio_api/upload", "8588609", 413),
        ("POST", "/gradio_api/upload/", "99999999999", 413),
        ("POST", "/gradio_api/call/ask", "200000", 204),
        ("POST", "/gradio_api/call/ask", "200001", 413),
        ("POST", "/gradio_api/call/ask", None, 411),
        ("POST", "/gradio_api/call/ask", "-1", 411),
        ("GET", "/gradio_api/file=http://example.com/a.png", None, 403),
        ("HEAD", "/gradio_api/proxy=a.hf.space/a", None, 403),
        ("GET", "/gradio_api/file=/etc/passwd", None, 403),
        ("POST", "/gradio_api/component_server", "2", 404),
        ("POST", "/gradio_api/process_recording", "2", 404),
        ("GET", "/monitoring", None, 404),
    ],
)
def test_limits(method, path, length, status):
    start = sent_for(method, path, **({} if length is None else {"content_length": length}))[0]
    assert start["status"] == status
    assert "default-src 'self'" in dict(start["headers"])[b"content-security-policy"].decode()


def test_chunks_are_refused_whatever_length_they_claim():
    refused = sent_for("POST", "/gradio_api/call/ask", content_length="5", transfer_encoding="chunked")
    assert refused[0]["status"] == 411


def test_no_uploads_on_a_full_disk(monkeypatch):
    monkeypatch.setattr(limits, "FREE_BYTES", 10**18)
    assert sent_for("POST", "/gradio_api/upload", content_length="10")[0]["status"] == 507
    assert sent_for("POST", "/gradio_api/call/ask", content_length="10")[0]["status"] == 204


def test_what_uploads_under_way_will_bring_is_counted(monkeypatch):
    free = limits.shutil.disk_usage(".").free
    middleware = Limits(no_content, Path("."))
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [(b"content-length", b"10")]}
    middleware.coming = free
    assert (middleware.refusal(scope) or (0,))[0] == 507
    middleware.coming = 0
    monkeypatch.setattr(limits, "FREE_BYTES", 0)
    assert middleware.refusal(scope) is None


def test_large_bodies_wait_for_each_other_and_small_ones_do_not(monkeypatch):
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(limits, "BULK_RATE", 2**20)
    monkeypatch.setattr(limits.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(limits.asyncio, "sleep", sleep)
    middleware = Limits(no_content, Path("."))

    async def take(sizes: list[int]) -> None:
        parts = iter(sizes)

        async def receive() -> Any:
            return {"body": bytes(next(parts))}

        paced = middleware.paced(receive)
        for _ in sizes:
            await paced()

    asyncio.run(take([2**19, 2**19]))  # a mebibyte
    assert slept == []
    asyncio.run(take([2**20, 2**20, 2**20]))
    asyncio.run(take([2**21]))
    assert slept == [1.0, 2.0, 4.0]


def test_an_error_is_told_in_words_and_in_one_line(caplog):
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError(-1)

    start, body = sent_for("POST", "/gradio_api/queue/join", fails, content_length="10")
    assert start["status"] == 400
    assert NOT_UNDERSTOOD.encode() in body["body"]
    (line,) = caplog.messages
    assert line.startswith("refused POST '/gradio_api/queue/join': KeyError: '-1' (test_serve_limits.py:")


def test_an_error_amid_an_answer_ends_it(caplog):
    async def fails_late(scope: Any, receive: Any, send: Any) -> None:
        await no_content(scope, receive, send)
        raise RuntimeError("late")

    assert [message["type"] for message in sent_for("GET", "/", fails_late)] == [
        "http.response.start",
        "http.response.body",
    ]
    assert len(caplog.messages) == 1


def test_who_leaves_is_told_nothing(caplog):
    async def alone(scope: Any, receive: Any, send: Any) -> None:
        raise ClientDisconnect

    assert sent_for("POST", "/gradio_api/upload", alone, content_length="10") == []
    assert caplog.messages == []


@pytest.mark.parametrize(
    "error, told", [(TypeError("secret\npart"), NOT_UNDERSTOOD), (gr.Error("too many"), "too many")]
)
def test_what_an_event_runs_into_is_told(error, told, caplog):
    async def process() -> None:
        raise error

    caplog.set_level(logging.WARNING)
    with pytest.raises(gr.Error) as raised:
        asyncio.run(in_words(process)())
    assert raised.value.message == told
    assert not raised.value.print_exception
    assert len(caplog.messages) == isinstance(error, TypeError)
    assert "\n" not in caplog.text.rstrip()


def test_inside_is_a_file_of_the_folder(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out.png"
    folder.mkdir()
    for path in (folder / "a.png", outside):
        path.touch()
    (folder / "link.png").symlink_to(outside)
    assert inside(f"{folder}/../in/a.png", folder)
    for path in ("../out.png", "link.png", "", "gone.png", "a.png\0", "a" * 5000, "../" * 2000):
        assert not inside(f"{folder}/{path}", folder), path
    assert not inside("", folder)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_oldest_pictures_make_room(tmp_path):
    for age, name in enumerate(("new", "middle", "old", "own")):
        path = tmp_path / name / "a.png"
        path.parent.mkdir()
        path.write_bytes(bytes(4000))  # with its folder two blocks of 4,096
        os.utime(path, (2e9 - age, 2e9 - age))
    own = frozenset([tmp_path / "own" / "a.png"])
    make_room(tmp_path, own, most=3 * 8192)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "new", "old", "own"]
    make_room(tmp_path, own, most=2 * 8192)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "new", "own"]
    make_room(tmp_path, own, most=0)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_what_a_broken_upload_left_goes_after_two_hours(tmp_path):
    for name, changed in (("tmpold", 1e9), ("tmpnew", 3e9)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (changed, changed))
    make_room(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tmpnew"]
