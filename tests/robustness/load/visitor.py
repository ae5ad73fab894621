"""A visitor of a running page: HTTP as the page and as scripts speak it, each request in a connection of its own."""

import json
import re
import socket
import time
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

API = "/gradio_api"
FILE = {"_type": "gradio.FileData"}
SECONDS = 60.0  # an answer that takes longer is none


class Reply(NamedTuple):
    """What came back: the HTTP status (0: the connection was closed without an answer) and the body."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class Visitor:
    """Speaks to ``host``:``port``; raises OSError or HTTPException where the server does not keep to HTTP."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request; an underscore in a header's name stands for a hyphen."""
        connection = HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            came, until = bytearray(), time.monotonic() + SECONDS
            while part := reply.read1(2**20):
                came += part
                if time.monotonic() > until:  # a stream may beat for ever
                    raise TimeoutError(f"no end after {SECONDS:g} s")
            return Reply(reply.status, bytes(came))
        finally:
            connection.close()

    def raw(self, sent: bytes) -> Reply:
        """Bytes that need not be HTTP, and what comes back until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=SECONDS) as connection:
            connection.sendall(sent)
            came = b""
            try:
                while part := connection.recv(65536):
                    came += part
            except ConnectionResetError:
                pass
        status = re.match(rb"HTTP/1.1 (\d+)", came)
        return Reply(int(status[1]) if status else 0, came.partition(b"\r\n\r\n")[2])

    def post(self, path: str, content: Any) -> Reply:
        """JSON, or bytes that claim to be JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, Content_Type="application/json")

    @cached_property
    def events(self) -> dict[int, int]:
        """The page's first event of so many inputs: of 5 it asks, of 4 it draws."""
        found: dict[int, int] = {}
        for one in json.loads(self.send("GET", "/config").body)["dependencies"]:
            found.setdefault(len(one["inputs"]), one["id"])
        return found

    def upload(self, content: bytes, name: str = "a.png") -> Reply:
        """A picture, or what claims to be one; the reply lists its path."""
        head = f'--X\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + content + b"\r\n--X--\r\n"
        return self.send("POST", f"{API}/upload", body, Content_Type="multipart/form-data; boundary=X")

    def uploaded(self, content: bytes, name: str = "a.png") -> dict[str, Any]:
        """An uploaded picture as questions name it."""
        reply = self.upload(content, name)
        if reply.status != 200:
            raise HTTPException(f"upload refused: {reply.status} {reply.text[:200]}")
        return {"path": json.loads(reply.body)[0], "meta": FILE}

    def call(self, content: Any) -> Reply:
        """A script's question; the reply is its last event, "complete" or "error", or that nothing was begun."""
        reply = self.post(f"{API}/call/ask", content)
        return self.event(f"{API}/call/ask/{json.loads(reply.body)['event_id']}") if reply.status == 200 else reply

    def event(self, path: str) -> Reply:
        """The last event of a script's stream, as {"event": ..., "data": ...}."""
        reply = self.send("GET", path)
        events = re.findall(r"event: (\w+)\ndata: (.*)", reply.text)
        if reply.status != 200 or not events:
            return reply
        event, data = events[-1]
        return Reply(200, json.dumps({"event": event, "data": json.loads(data)}).encode())

    def join(self, session: str, content: dict[str, Any]) -> Reply:
        """An event of the page; the reply is what came of it."""
        reply = self.post(f"{API}/queue/join", {"session_hash": session, **content})
        if reply.status != 200:
            return reply
        reply = self.send("GET", f"{API}/queue/data?session_hash={session}")
        told = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
        done = [one for one in told if one["msg"] == "process_completed"]
        return Reply(200, json.dumps(done[-1]).encode()) if done else reply
