"""A port for a server or a job of processes that a test starts."""

import socket


def free_port() -> int:
    """One that nobody listens at, on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
