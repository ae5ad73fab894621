"""Connections that wait only so long: for a request, for its body, for a reader. Slow clients cost others nothing."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # until a request's headers are there
BODY_SECONDS = 60.0  # until its body is there: 8 MiB at 1.1 Mbit/s
READ_SECONDS = 60.0  # until a client has read 48 KB of what waits for it
CONNECTIONS = 500  # open at a time; one more ends the one that has kept us waiting the longest
WAITS = {h11.IDLE: HEAD_SECONDS, h11.SEND_BODY: BODY_SECONDS}


class Patient(H11Protocol):
    """Uvicorn's HTTP/1.1 with these limits, which it lacks: its own timer runs only between two requests."""

    state: Any = None  # of the client: IDLE, it sends headers; SEND_BODY; any other, it is answered
    since = 0.0
    sending: Any = None
    reading: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.watch()
        if len(self.connections) > CONNECTIONS:
            others = self.connections - {self}
            min(others, key=lambda one: (one.state not in WAITS, one.since)).transport.abort()  # pyright: ignore

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.watch()

    def watch(self) -> None:
        """Start the timer anew wherever the client has come a step further."""
        if self.conn.their_state is self.state:
            return
        self.state, self.since = self.conn.their_state, self.loop.time()
        self.sending = restarted(self.sending)
        if self.state in WAITS:
            self.sending = self.loop.call_later(WAITS[self.state], self.give_up)

    def give_up(self) -> None:
        """End the connection, with words if a request was begun."""
        begun = self.state is h11.SEND_BODY or self.conn.trailing_data[0]
        if begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.send_400_response("The request took too long.")
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.reading = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.reading = restarted(self.reading)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sending, self.reading = restarted(self.sending), restarted(self.reading)
        super().connection_lost(exc)


def restarted(timer: Any) -> None:
    """Stop a timer, if it runs."""
    if timer is not None:
        timer.cancel()
