"""Progress bars for long work: how far, at what rate, how long still."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Bars with a note (``add_task(..., note="")``) and the time left; warnings become lines above them."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    left = TimeRemainingColumn(elapsed_when_finished=True)
    progress = Progress(*columns, left, TextColumn("{task.fields[note]}"), console=console)
    show = warnings.showwarning
    warnings.showwarning = lambda message, *_: console.print(f"note: {message}", markup=False, soft_wrap=True)
    progress.start()
    try:
        yield progress
    finally:
        warnings.showwarning = show
        progress.live.transient |= not progress.tasks  # the end of an empty display would leave an empty line
        (progress if progress.tasks else progress.live).stop()


@contextmanager
def stopping() -> Iterator[Callable[[], None]]:
    """Ctrl-C once waits for the step in hand, so that it can be saved: KeyboardInterrupt comes from calling what is
    yielded. Twice ends at once. A process that ignores Ctrl-C, and any thread but the main one, stays as it is.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield check
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def counting(console: Console, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A ``show(done, total)`` callback whose bar appears at its first call: errors before it stay one line."""
    with bars(console) as progress:
        started = time.perf_counter()

        def show(done: int, total: int) -> None:
            if not progress.tasks:
                progress.add_task(title, total=total, note="")
            rate = done / (time.perf_counter() - started)
            progress.update(progress.task_ids[0], completed=done, note=f"{rate:,.0f} {unit}/s")

        yield show
