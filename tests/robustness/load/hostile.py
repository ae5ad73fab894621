"""Clients that mean no answer: they wait, dribble, pour, vanish or do not read, as long as they are let."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

from .visitor import API

UPLOAD = f"POST {API}/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=X\r\nContent-Length: "
PART = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
LIMIT = 8 * 2**20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte a second of headers without end."""
    await dribble(writer, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 100)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One byte a second of an upload."""
    writer.write(f"{UPLOAD}{LIMIT}\r\n\r\n".encode() + PART)
    await dribble(writer, bytes(1000))


async def dribble(writer: asyncio.StreamWriter, content: bytes) -> None:
    for place in range(len(content)):
        writer.write(content[place : place + 1])
        await writer.drain()
        await asyncio.sleep(1)
        if writer.transport.is_closing():
            return


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int = 12 * LIMIT) -> None:
    """An upload far above the limit, as fast as it goes, whatever comes back."""
    writer.write(f"{UPLOAD}{size}\r\n\r\n".encode() + PART)
    for _ in range(size // 2**18):
        writer.write(bytes(2**18))
        await writer.drain()
    await reader.read()


async def fill(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upload just below the limit that never ends with its boundary."""
    await pour(reader, writer, LIMIT)


async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half an upload, then gone."""
    writer.write(f"{UPLOAD}{LIMIT}\r\n\r\n".encode() + PART + bytes(LIMIT // 2))
    await writer.drain()
    await asyncio.sleep(0.5)
    writer.transport.abort()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for the page again and again, and read none of it."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n" * 300)
    while not writer.transport.is_closing():
        writer.write(b"\r\n")  # would not notice otherwise that the server has gone
        await asyncio.sleep(1)


async def heartbeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A visitor's tab that is open, as far as the server can tell."""
    writer.write(f"GET {API}/heartbeat/{id(writer)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await reader.read()


Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
# How many at a time of each for one good client, and the seconds of rest before one comes again.
WAYS: dict[Way, tuple[float, float]] = {
    idle: (4, 0.1),
    slow_head: (1, 0.1),
    slow_body: (1, 0.1),
    pour: (0.06, 1),
    fill: (0.06, 1),
    vanish: (0.06, 1),
    deaf: (0.2, 1),
    heartbeat: (1, 0.1),
}


class Hostile:
    """While the block lasts, all of them at ``port``; ``tried`` counts connections, ``held`` is the longest (s)."""

    def __init__(self, host: str, port: int, clients: int) -> None:
        self.host, self.port, self.clients = host, port, clients
        self.tried: Counter[str] = Counter()
        self.held: dict[str, float] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.all()), daemon=True)

    def __enter__(self) -> "Hostile":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    async def all(self) -> None:
        counts = {way: (max(1, round(share * self.clients)), rest) for way, (share, rest) in WAYS.items()}
        tasks = [
            asyncio.create_task(self.again(way, rest)) for way, (count, rest) in counts.items() for _ in range(count)
        ]
        while not self.stop.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def again(self, way: Way, rest: float) -> None:
        """One client that comes back whenever it was thrown out."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                reader, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(rest)
                continue
            began = loop.time()
            self.tried[way.__name__] += 1
            try:
                await way(reader, writer)
            except OSError:
                pass
            finally:
                writer.transport.abort()
                self.held[way.__name__] = max(self.held.get(way.__name__, 0.0), loop.time() - began)
            await asyncio.sleep(rest)
