"""The live table of ``pan reproduce``: what runs, what ended last, and about how long all of it takes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.jobs import RESULT, Message, Tell, folder_of, is_done, read_result

SHOWN_ENDED = 6
PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}  # how lines are printed
RUNNING, ENDED = ("training", "measuring"), ("finished", "failed", "stopped")


@contextmanager
def board(console: Console, jobs: Sequence[Job], out: Path, processes: int) -> Iterator[Tell]:
    """A live table of what runs and what ended last; everywhere a line for each epoch and each end."""
    latest: dict[str, Message] = {}
    with Live(console=console, refresh_per_second=2, transient=True) as live:

        def tell(message: Message) -> None:
            if message.kind not in (*RUNNING, *ENDED):
                return
            latest.pop(message.job, None)
            latest[message.job] = message
            summary = summary_of(jobs, out, latest, processes)
            if message.epoch:
                console.print(f"{message.job}: {message.epoch}; {summary}", **PLAIN)
            if message.kind in ENDED:
                ending = ": ".join(filter(None, (message.job, message.kind, message.note)))
                console.print(f"{ending}; {summary}", **PLAIN)
            live.update(Group(table_of(latest), summary))

        yield tell


def table_of(latest: Mapping[str, Message]) -> Table:
    """The last ended runs, and below them the running ones with the time that each still takes."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("run", "left"), ("", "left"), ("done", "right"), ("time left", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    running = [one for one in latest.values() if one.kind in RUNNING]
    ended = [one for one in latest.values() if one.kind in ENDED]
    for one in ended[-SHOWN_ENDED:] + running:
        left = f"{int(one.left // 60)}:{int(one.left % 60):02d}" if one.left > 0 else ""
        table.add_row(one.job, one.kind, f"{one.share:.0%}", left, escape(one.note))
    return table


def summary_of(jobs: Sequence[Job], out: Path, latest: Mapping[str, Message], processes: int) -> str:
    """How many runs are done, and about how long the others take."""
    spent = {job: seconds_of(folder_of(job, out) / RESULT) for job in jobs if is_done(job, out)}
    text = f"{len(spent)} of {len(jobs)} runs done"
    left = seconds_left(jobs, spent, latest, processes)
    return f"{text}, about {in_words(left)} left" if left > 0 else text


@cache
def seconds_of(result: Path) -> float:
    """What a finished run took, read once."""
    return read_result(result)["seconds"]


def seconds_left(
    jobs: Sequence[Job], spent: Mapping[Job, float], latest: Mapping[str, Message], processes: int
) -> float:
    """Until all jobs are done, so many at a time; NaN while nothing is known.

    A run that waits takes, for each of its images and epochs, what finished and running ones of the same model take,
    or else the mean of all.
    """

    def size(job: Job) -> int:
        return job.images * job.recipe.epochs

    costs = [(job, seconds / size(job)) for job, seconds in spent.items()]
    left: dict[Job, float] = {}
    for job in jobs:
        news = latest.get(job.name)
        if job in spent or news is None or news.kind not in RUNNING:
            continue
        if news.kind == "measuring":
            left[job] = news.left if news.left > 0 else 0.0
        elif news.left >= 0 and news.share < 1:
            left[job] = news.left
            costs.append((job, news.left / (1 - news.share) / size(job)))
    if not costs:
        return math.nan
    for job in jobs:
        if job not in spent and job not in left and not (job.name in latest and latest[job.name].kind == "failed"):
            alike = [cost for other, cost in costs if other.model == job.model]
            left[job] = size(job) * fmean(alike or [cost for _, cost in costs])
    return max([sum(left.values()) / processes, *left.values()], default=0.0)


def in_words(seconds: float) -> str:
    """A time to the next minute: "2 h 10 min"."""
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
