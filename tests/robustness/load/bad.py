"""Bad requests, one function or table a kind, and whether each was refused in words."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from PIL import Image

from .payloads import (
    ADDRESSES,
    BODIES,
    EVENTS,
    FORMS,
    METHODS,
    NETWORKS,
    POSTS,
    QUERIES,
    RAW,
    STRANGE,
    Traps,
    file_addresses,
    paths_elsewhere,
)
from .visitor import API, Reply, Visitor

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
    reply = visitor.send("GET", rng.choice(ADDRESSES))
    return Reply(404, reply.body) if "404: Not Found" in reply.text else reply  # as an event


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
