"""What bad requests are made of: questions, events, addresses, forms and bytes that are none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .visitor import API, FILE

DEEP = b"[" * 50_000 + b"]" * 50_000
HUGE = b'{"data": ["' + b"x" * 190_000 + b'", "7", "mref-san"]}'


@dataclass(frozen=True)
class Traps:
    """What nobody may read: files outside of the server's folder that hold ``secret``, and a good picture."""

    secret: str
    paths: tuple[Path, ...]
    picture: bytes


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
    *(b"", b"null", b"7", b"[]", b"{}", b"{", b"\xff\xfe", b"not json", DEEP, b'{"data": ' + DEEP + b"}", HUGE),
    *(b'{"data": null}', b'{"data": {}}', b'{"data": "abc"}', b'{"data": []}', b'{"data": [1, 2]}'),
    *(b'{"data": [1, 2, 3, 4]}', b'{"data": [null, null, null]}', b'{"data": [NaN, Infinity, -Infinity]}'),
    b'{"data": [' + b"9" * 5000 + b', "7", "x"]}',
    b'{"data": [1e999, "7", "mref-san"]}',
    b'{"data": ["x", "7", "mref-san"], "simple_format": 7}',
    b'{"data": [null, "7", "mref-san"], "session_hash": 7}',
    b'{"data": [null, "7", "mref-san"], "oauth_token": "x"}',
    b'{"data": [' + b"{}," * 60_000 + b"{}]}",
]
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
    for event in (
        None,
        7,
        "x",
        [],
        {},
        {"index": "x"},
        {"index": 99},
        {"index": -99},
        {"index": [1, 2]},
        {"x": "a", "y": None},
    )
]
ADDRESSES = (
    *("/monitoring", "/monitoring/summary", "/openapi.json", "/docs", "/redoc", "/logout", "/login", "/nothing"),
    *("//etc/passwd", "/%00", "/%ff%fe", "/" + "a" * 9000, "/static/%2e%2e/%2e%2e/__init__.py"),
    *("/svelte/../../../etc/passwd", "/assets/..%2f..%2f..%2f__init__.py"),
    *(
        f"{API}/{name}"
        for name in (
            *(
                "openapi.json",
                "runs",
                "dev/reload",
                "vibe-code",
                "profiling/traces",
                "user/../../etc/passwd",
                "queue/data",
            ),
            *(
                "proxy=http://127.0.0.1:9/",
                "proxy=x.hf.space/a",
                "custom_component/1/client/component/..%2f..%2fsetup.py",
            ),
            *("call/ask/nothing", "call/nothing/x", "queue/data?session_hash=nobody", "stream/a/b/1/playlist.m3u8"),
            *("stream/a/b/1/s.ts", "deep_link?session_hash=x", "upload_progress?upload_id=x", "file/etc/passwd"),
        )
    ),
)
POSTS = (
    *("/", "/config", "/login"),
    *(
        f"{API}/{name}"
        for name in (
            *(
                "component_server",
                "process_recording",
                "vibe-edit",
                "vibe-code",
                "undo-vibe-edit",
                "run/ask",
                "api/ask",
            ),
            *("call/nothing", "call/v2/ask", "call/v2/nothing", "call/ask/x", "stream/x", "stream/x/close"),
            *("run-history/connect", "heartbeat/x", "profiling/clear"),
        )
    ),
)
METHODS = ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "GET")


def http(first: str, *headers: str, body: str = "") -> bytes:
    """A request as it is sent; headers beside that of the host."""
    return "\r\n".join([first, "Host: a", *headers, "", body]).encode()


POST = f"POST {API}/call/ask HTTP/1.1"
RAW: list[bytes] = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"A" * 100_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    http("GET / HTTP/9.9", "Connection: close"),
    http("GET / HTTP/1.1", "Connection: close", *["X: y"] * 20_000),
    http("GET / HTTP/1.1", "X: " + "y" * 100_000),
    http("GET / HTTP/1.1", "Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    http("GET http://127.0.0.1:9/ HTTP/1.1", "Connection: close"),
    http("OPTIONS * HTTP/1.1", "Connection: close"),
    http(POST, "Content-Length: 5", "Content-Length: 6", body="hello"),
    http(POST, "Content-Length: -5", body="hello"),
    http(POST, "Connection: close", "Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\n\r\n"),
    http(POST, "Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
]
MULTIPART = "multipart/form-data; boundary=X"


def part(about: str, more: str = "") -> bytes:
    """A form's part of one letter."""
    return f"--X\r\nContent-Disposition: form-data; {about}\r\n{more}\r\na\r\n".encode()


END = b"--X--\r\n"
FORMS: list[tuple[str, bytes]] = [
    ("multipart/form-data", b"--X\r\n"),
    ("multipart/form-data; boundary=", b"--\r\n"),
    (MULTIPART, b"no part"),
    (MULTIPART, part('name="files"') + END),
    (MULTIPART, part('filename="a"') + END),
    (MULTIPART, part('name="files"; filename="a"', f"H: {'x' * 20_000}\r\n") + END),
    (MULTIPART, part('name="files"; filename="a"') * 1100 + END),
    (MULTIPART, part(f'name="files"; filename="{"a" * 5000}.png"') + END),
    (f"{MULTIPART}; charset=nothing", part('name="a"') + END),
    ("application/json", b"{}"),
    ("text/plain", b"x"),
    ("", b""),
]


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
