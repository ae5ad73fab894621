"""Ctrl-C once waits for the step in hand, twice it does not."""

import signal
import threading

import pytest

from progressive_attention.progress import stopping


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_once_waits_until_it_is_asked_for():
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        stop()
        interrupt()  # raises nothing
        with pytest.raises(KeyboardInterrupt):
            stop()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stopping():  # noqa: PT012
        interrupt()
        interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as stop:
            interrupt()
            interrupt()
            stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stopping() as stop:
            seen.append(signal.getsignal(signal.SIGINT))
            stop()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
