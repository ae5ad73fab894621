"""Bad requests, one function or table a kind, and whether each was refused in words."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from .visitor import API, FILE, Reply, Visitor

DEEP = b"[" * 50_000 + b"]" * 50_000
HUGE = b'{"data": ["' + b"x" * 190_000 + b'", "7", "mref-san"]}'


@dataclass(frozen=True)
class Traps:
    """What nobody may read: files outside of the server's folder that hold ``secret``, and a good picture."""

    secret: str
    paths: tuple[Path, ...]
    picture: bytes


Send = Callable[[Visitor, Random, Traps], Reply]


def png(width: int, height: int, *, claimed: tuple[int, int] | None = None) -> bytes:
    """A black PNG of one bit a pixel; ``claimed`` is what its header says instead."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "png")
    content = bytearray(buffer.getvalue())
    if claimed:
        content[16:24] = struct.pack(">II", *claimed)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def exif_turned() -> bytes:
    """A JPEG whose EXIF is not EXIF."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40)
    return buffer.getvalue()[:-20]


PICTURES: dict[str, Callable[[Random, Traps], bytes]] = {
    "bomb by its pixels": lambda rng, traps: png(5000, 4000),
    "bomb by its header": lambda rng, traps: png(1, 1, claimed=(2**31 - 1, 2**31 - 1)),
    "zero pixels": lambda rng, traps: png(1, 1, claimed=(0, 0)),
    "truncated": lambda rng, traps: traps.picture[: rng.randrange(20, len(traps.picture) // 2)],
    "flipped header": lambda rng, traps: b"\x88" + traps.picture[1:],
    "noise": lambda rng, traps: rng.randbytes(rng.randrange(1, 5000)),
    "empty": lambda rng, traps: b"",
    "text": lambda rng, traps: b"no picture at all\n" * rng.randrange(1, 100),
    "SVG": lambda rng, traps: f'<svg><image href="file://{traps.paths[0]}"/></svg>'.encode(),
    "PostScript": lambda rng, traps: (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({traps.paths[0]}) run\n%%EOF\n".encode()
    ),
    "HTML": lambda rng, traps: b"<html><script>alert(1)</script></html>",
    "zip": lambda rng, traps: b"PK\3\4" + rng.randbytes(200),
    "broken EXIF": lambda rng, traps: exif_turned(),
}


def ask_of_picture(visitor: Visitor, rng: Random, traps: Traps, make: Callable[[Random, Traps], bytes]) -> Reply:
    return visitor.call({"data": [visitor.uploaded(make(rng, traps)), "7", "mref-san"]})


def paths_elsewhere(traps: Traps) -> list[Any]:
    """Pictures that a request names instead of one that was uploaded."""
    outside = [str(path) for path in traps.paths]
    named: list[Any] = [
        *outside,
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "file:///etc/passwd",
        "",
        ".",
        "..",
        "\0",
    ]
    named += [f"./{'../' * 12}{traps.paths[0]}", "http://127.0.0.1:9/a.png", "a" * 5000, None, 7, ["a"], {"path": "a"}]
    return [{"path": path, **extra} for path in named for extra in ({}, {"meta": FILE}, {"url": "http://127.0.0.1:9/"})]


STRANGE: list[Any] = [7, -1.5, True, [], {}, [[]], {"a": 1}, "\0", 10**300, [None] * 1000]
QUERIES: list[Any] = [
    *STRANGE,
    None,
    "",
    " ",
    "x",
    "7 7",
    "7" * 101,
    "é" * 5000,
    "<script>",
    "\ud800",
    "../7",
    {"path": "/etc/passwd", "meta": FILE},
]
NETWORKS: list[Any] = [*STRANGE, None, "", "x", "../mref-san", "/etc/passwd", "x" * 100_000, "MREF-SAN", "\ud800"]
BODIES: list[bytes] = [
    b"", b"null", b"7", b"[]", b"{}", b"{", b"\xff\xfe", b"not json", DEEP, b'{"data": ' + DEEP + b"}", HUGE,
    b'{"data": null}', b'{"data": {}}', b'{"data": "abc"}', b'{"data": []}', b'{"data": [1, 2]}', b'{"data": [1, 2, 3, 4]}',
    b'{"data": [null, null, null]}', b'{"data": [NaN, Infinity, -Infinity]}', b'{"data": [' + b"9" * 5000 + b', "7", "x"]}',
    b'{"data": [1e999, "7", "mref-san"]}', b'{"data": ["x", "7", "mref-san"], "simple_format": 7}',
    b'{"data": [null, "7", "mref-san"], "session_hash": 7}', b'{"data": [null, "7", "mref-san"], "oauth_token": "x"}',
    b'{"data": [' + b"{}," * 60_000 + b"{}]}",
]  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"fn_index": index, "data": data}
    for index in (-1, 0, 1, 2, 10, 13, 16, 18, 26, 28, 29, 30, 999, 10**30, "1", None, [1], True)
    for data in ([], [None], ["x"] * 4, [{}] * 5, [1e308] * 4, [None] * 50, "x", None)
    if (index, data) not in ((0, []), (18, []), (28, []))  # these are good
    and not (index in (0, 13, 18, 28, 29, True) and isinstance(data, list))  # these take whatever comes
    and not (index == 16 and data and data[0] is None)  # a click on a picture of one's own
] + [
    {"fn_index": index, "data": data, "event_data": event}
    for index, data in ((16, [[{"query": "1", "box": [0, 0, 9, 9]}]]), (26, []))
    for event in (None, 7, "x", [], {}, {"index": "x"}, {"index": 99}, {"index": -99}, {"index": [1, 2]}, {"x": "a", "y": None})
]  # fmt: skip
ADDRESSES = (
    "/monitoring", "/monitoring/summary", "/openapi.json", "/docs", "/redoc", f"{API}/openapi.json", f"{API}/runs", f"{API}/dev/reload",
    f"{API}/vibe-code", f"{API}/profiling/traces", f"{API}/user/../../etc/passwd", f"{API}/proxy=http://127.0.0.1:9/", f"{API}/proxy=x.hf.space/a",
    f"{API}/custom_component/1/client/component/..%2f..%2fsetup.py", "/svelte/../../../etc/passwd", "/static/%2e%2e/%2e%2e/__init__.py",
    "/assets/..%2f..%2f..%2f__init__.py", "/nothing", "//etc/passwd", "/%00", "/%ff%fe", "/" + "a" * 9000, f"{API}/call/ask/nothing",
    f"{API}/call/nothing/x", f"{API}/queue/data", f"{API}/queue/data?session_hash=nobody", f"{API}/stream/a/b/1/playlist.m3u8",
    f"{API}/stream/a/b/1/s.ts", f"{API}/deep_link?session_hash=x", "/gradio_api/deep_link", f"{API}/upload_progress?upload_id=x",
    "/?deep_link=x", "/?__theme=../../x", f"{API}/file/etc/passwd", "/logout", "/login",
)  # fmt: skip
GOOD_ADDRESSES = ("/?deep_link=x", "/?__theme=../../x")  # the page itself, whatever is asked of it
POSTS = (
    f"{API}/component_server", f"{API}/process_recording", f"{API}/vibe-edit", f"{API}/vibe-code", f"{API}/undo-vibe-edit", f"{API}/run/ask",
    f"{API}/api/ask", f"{API}/call/nothing", f"{API}/call/v2/ask", f"{API}/call/v2/nothing", f"{API}/stream/x", f"{API}/stream/x/close",
    f"{API}/run-history/connect", "/login", "/", "/config", f"{API}/heartbeat/x", f"{API}/profiling/clear", f"{API}/call/ask/x",
)  # fmt: skip
METHODS = ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "GET")
RAW: list[bytes] = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), b"A" * 100_000,
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000,
    b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\nConnection: close\r\n\r\n",
    b"POST /gradio_api/call/ask HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /gradio_api/call/ask HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /gradio_api/call/ask HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    b"POST /gradio_api/call/ask HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
]  # fmt: skip
FORMS: list[tuple[str, bytes]] = [
    ("multipart/form-data", b"--X\r\n"),
    ("multipart/form-data; boundary=", b"--\r\n"),
    ("multipart/form-data; boundary=X", b"no part"),
    ("multipart/form-data; boundary=X", b'--X\r\nContent-Disposition: form-data; name="files"\r\n\r\nno file\r\n--X--\r\n'),
    ("multipart/form-data; boundary=X", b'--X\r\nContent-Disposition: form-data; filename="a"\r\n\r\na\r\n--X--\r\n'),
    ("multipart/form-data; boundary=X", b'--X\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n' + b"H: " + b"x" * 20_000 + b"\r\n\r\na\r\n--X--\r\n"),
    ("multipart/form-data; boundary=X", b'--X\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\na\r\n' * 1100 + b"--X--\r\n"),
    ("multipart/form-data; boundary=X", b'--X\r\nContent-Disposition: form-data; name="files"; filename="' + b"a" * 5000 + b'.png"\r\n\r\na\r\n--X--\r\n'),
    ("multipart/form-data; boundary=X; charset=nothing", b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--X--\r\n'),
    ("application/json", b"{}"), ("text/plain", b"x"), ("", b""),
]  # fmt: skip


def file_addresses(traps: Traps) -> list[str]:
    """Ways to ask for a file outside."""
    ways = []
    for path in (*map(str, traps.paths), "/etc/passwd", "/proc/self/environ"):
        inside = f"/x/{'../' * 12}{path}"
        ways += [path, path.lstrip("/"), f"/{path}", inside, inside.replace(".", "%2e"), path.replace("/", "%2f")]
        ways += [
            path.replace("/", "%252f"),
            f"file://{path}",
            f"{path}%00.png",
            f"{path}/",
            f"~{path}",
            path.replace("/", "\\"),
        ]
    return [
        *ways,
        "http://127.0.0.1:9/a",
        "HTTP://127.0.0.1:9/",
        "http:/127.0.0.1:9/",
        "https://127.0.0.1:9/",
        "ftp://a/b",
        "",
        ".",
        "..",
        "/",
    ]


def file_asked(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    return visitor.send("GET", f"{API}/file={rng.choice(file_addresses(traps))}")


def odd_range(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    """A part of an uploaded file that is none."""
    path = visitor.uploaded(traps.picture)["path"]
    reply = visitor.send(
        "GET", f"{API}/file={path}", Range=rng.choice(["bytes=1-2-3", "bytes=9-1", "bytes=99999999-", "bytes=x-y"])
    )
    return Reply(400, b"harmless") if reply.status in (200, 206, 416) else reply


def bad_form(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    kind, body = rng.choice(FORMS)
    reply = visitor.send("POST", f"{API}/upload", body, Content_Type=kind)
    return Reply(400, b"there was no file") if reply == (200, b"[]") else reply


def raw(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    sent = rng.choice(RAW)
    reply = visitor.raw(sent)
    return Reply(400, b"the page, as anyone gets it") if sent[:6] == b"GET / " and reply.status == 200 else reply


def odd_name(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    """A file name that leads elsewhere; it may be kept, under another name."""
    name = rng.choice(
        ["../../up.png", "/etc/up.png", "..", ".", "con", "a\0b", "up.html", "%2e%2e%2fup", "..\\up.png", "é" * 50]
    )
    reply = visitor.upload(traps.picture, name)
    kept = reply.status == 200 and re.search(r'/pan-serve-[^/"]+/[0-9a-f]{64}/[^/"]+"\]$', reply.text)
    return Reply(400, b"kept inside") if kept else reply


def too_large(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    """A body above its limit: an upload, or a question."""
    if rng.random() < 0.5:
        return visitor.upload(bytes(9 * 2**20))
    return visitor.post(f"{API}/call/ask", b'{"data": ["' + bytes(300_000) + b'"]}')


def pick_question(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    """A question with one part that is wrong."""
    picture, query, network = visitor.uploaded(traps.picture), "7", "mref-san"
    which = rng.randrange(3)
    if which == 0:
        picture = rng.choice([*STRANGE, "x", None, *paths_elsewhere(traps)])
    elif which == 1:
        query = rng.choice([one for one in QUERIES if one != 7])
    else:
        network = rng.choice(NETWORKS)
    return visitor.call({"data": [picture, query, network]})


def pick_event(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    return visitor.join(f"{rng.getrandbits(64):x}", rng.choice(EVENTS))


def pick_address(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    return visitor.send("GET", rng.choice([one for one in ADDRESSES if one not in GOOD_ADDRESSES]))


def pick_post(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    body = rng.choice(
        [b"{}", b'{"data": []}', b'{"data": {}, "component_id": 5, "session_hash": "x", "fn_name": "ls"}', b"\xff"]
    )
    return visitor.post(rng.choice(POSTS), body)


def pick_method(visitor: Visitor, rng: Random, traps: Traps) -> Reply:
    return visitor.send(
        rng.choice(METHODS), rng.choice([f"{API}/call/ask", f"{API}/upload", f"{API}/queue/join"]), b"{}"
    )


BAD: dict[str, Send] = {
    **{f"picture, {name}": partial(ask_of_picture, make=make) for name, make in PICTURES.items()},
    "wrong question": pick_question,
    "malformed question": lambda visitor, rng, traps: visitor.call(rng.choice(BODIES)),
    "wrong event": pick_event,
    "wrong address": pick_address,
    "wrong post": pick_post,
    "wrong method": pick_method,
    "file outside": file_asked,
    "odd range": odd_range,
    "no HTTP": raw,
    "no form": bad_form,
    "odd file name": odd_name,
    "too large": too_large,
}


def wrong(reply: Reply) -> str:
    """Whether a reply refuses in words: "" or what is wrong with it."""
    told = reply.text
    if "Traceback" in told or 'File "' in told:
        return f"a traceback: {told[:300]}"
    if reply.status == 0:
        return "closed without a word"
    if reply.status >= 400:
        return "" if re.search("[A-Za-z]{4}", told) else f"{reply.status} without words: {told[:300]}"
    try:
        done = json.loads(reply.body)
    except ValueError:
        return f"{reply.status} for a bad request: {told[:300]}"
    if not isinstance(done, dict):
        return f"{reply.status} for a bad request: {told[:300]}"
    if "event" in done:
        words = done["data"].get("error") if done["event"] == "error" and isinstance(done["data"], dict) else None
    else:
        output = done.get("output") or {}
        words = output.get("error") if not done.get("success") else notice_of(output.get("data"))
    return "" if words else f"no words: {told[:300]}"


def notice_of(data: Any) -> str | None:
    """The page's message instead of an answer, None if it is none."""
    return data[0] if isinstance(data, list) and data and "notice" in str(data[0]) else None
