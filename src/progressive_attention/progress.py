"""Progress bars for long work: how far, at what rate, how long still."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Bars with a note (``add_task(..., note="")``) and the time left; warnings become lines above them."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    left = TimeRemainingColumn(elapsed_when_finished=True)
    progress = Progress(*columns, left, TextColumn("{task.fields[note]}"), console=console)
    show, warnings.showwarning = (
        warnings.showwarning,
        lambda message, *rest: console.print(f"note: {message}", markup=False),
    )
    progress.start()
    try:
        yield progress
    finally:
        warnings.showwarning = show
        if progress.tasks:
            progress.stop()
        else:  # the end of an empty display would leave an empty line
            progress.live.transient = True
            progress.live.stop()


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
