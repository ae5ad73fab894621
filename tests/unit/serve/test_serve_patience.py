"""How long the server of the page waits, and for whom: without a socket, the clock by hand."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
from tiny_app import no_content
from uvicorn import Config
from uvicorn.server import ServerState

from progressive_attention.serve import patience
from progressive_attention.serve.patience import BODY_SECONDS, HEAD_SECONDS, READ_SECONDS, Patient


class Timer:
    def __init__(self, seconds: float, ring: Any) -> None:
        self.seconds, self.ring, self.runs = seconds, ring, True

    def cancel(self) -> None:
        self.runs = False


class Loop:
    """An event loop whose clock stands still; tasks are not run."""

    def __init__(self) -> None:
        self.now, self.timers = 0.0, []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, ring: Any) -> Timer:
        self.timers.append(Timer(seconds, ring))
        return self.timers[-1]

    def create_task(self, task: Any) -> Any:
        task.close()
        return asyncio.Future(loop=asyncio.new_event_loop())

    @property
    def running(self) -> list[float]:
        return [timer.seconds for timer in self.timers if timer.runs]

    def ring(self) -> None:
        """The only timer that runs rings."""
        (timer,) = [timer for timer in self.timers if timer.runs]
        timer.ring()


class Transport:
    """Notes what becomes of it."""

    def __init__(self) -> None:
        self.written, self.ended = b"", ""

    def write(self, part: bytes) -> None:
        self.written += part

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def connected(state: ServerState | None = None, loop: Loop | None = None) -> tuple[Patient, Transport, Loop]:
    loop, transport = loop or Loop(), Transport()
    config = Config(no_content, ws="none", log_config=None)
    protocol = Patient(config, state or ServerState(), {}, loop)  # pyright: ignore[reportArgumentType]
    protocol.connection_made(transport)  # pyright: ignore[reportArgumentType]
    return protocol, transport, loop


HEAD = b"POST /gradio_api/call/ask HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"


def test_silence_is_ended_without_words():
    _, transport, loop = connected()
    assert loop.running == [HEAD_SECONDS]
    loop.ring()
    assert (transport.ended, transport.written) == ("closed", b"")


@pytest.mark.parametrize(
    "parts, seconds", [([HEAD[:9], HEAD[9:20]], HEAD_SECONDS), ([HEAD + b"\r\n", b"7"], BODY_SECONDS)]
)
def test_dribbling_does_not_wind_the_clock_and_is_ended_in_words(parts, seconds):
    protocol, transport, loop = connected()
    for part in parts:
        protocol.data_received(part)
    assert loop.running == [seconds]
    assert len(loop.timers) == 1 + (seconds == BODY_SECONDS)
    loop.ring()
    assert transport.ended == "closed"
    assert transport.written.startswith(b"HTTP/1.1 400")
    assert b"The request took too long." in transport.written


def test_a_whole_request_is_waited_for_no_longer_and_the_next_one_anew():
    protocol, _, loop = connected()
    protocol.data_received(HEAD + b"\r\n77")
    assert loop.running == []
    asyncio.run(answer(protocol))
    assert sorted(loop.running) == sorted([HEAD_SECONDS, protocol.timeout_keep_alive])


async def answer(protocol: Patient) -> None:
    await protocol.cycle.send({"type": "http.response.start", "status": 204, "headers": []})
    await protocol.cycle.send({"type": "http.response.body", "body": b"", "more_body": False})


def test_who_does_not_read_is_thrown_out():
    protocol, transport, loop = connected()
    protocol.data_received(HEAD + b"\r\n77")
    protocol.pause_writing()
    protocol.resume_writing()
    assert loop.running == []
    protocol.pause_writing()
    assert loop.running == [READ_SECONDS]
    loop.ring()
    assert transport.ended == "aborted"


def test_no_clock_runs_for_who_has_left():
    protocol, _, loop = connected()
    protocol.data_received(HEAD + b"\r\n")
    protocol.pause_writing()
    protocol.connection_lost(None)
    assert loop.running == []


def test_one_too_many_ends_who_has_kept_us_waiting_the_longest(monkeypatch):
    monkeypatch.setattr(patience, "CONNECTIONS", 3)
    state, loop = ServerState(), Loop()
    answered = connected(state, loop)
    answered[0].data_received(HEAD + b"\r\n77")
    loop.now = 1.0
    first = connected(state, loop)
    loop.now = 2.0
    second = connected(state, loop)
    first[0].data_received(HEAD)  # a step, but not yet a request
    loop.now = 3.0
    connected(state, loop)
    assert [one[1].ended for one in (answered, first, second)] == ["", "aborted", ""]
