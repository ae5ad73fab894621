"""What every measurement shares: jobs timed side by side, a record of each figure, and the report they end in."""

import math
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from progressive_attention.files import write_json
from progressive_attention.reproduce.machine import commit, hardware

Key = TypeVar("Key")


@dataclass(frozen=True)
class Record:
    """One figure: the median of ours with the smallest and largest, and how it compares with something else.

    ``value``, ``low`` and ``high`` are in ``unit``, and None where nothing could be measured; ``details["skipped"]``
    then says why. ``ratio`` is the median over rounds of (other's time / our time) in the same round: above 1, ours is
    faster. ``threads`` are torch's, or processes where ``what`` says so.
    """

    suite: str
    what: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    repeats: int
    dtype: str  # "-" where none matters
    threads: int
    against: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def interleaved(jobs: Mapping[Key, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[Key, list[float]]:
    """Seconds of each call, one for each round, by the job's name.

    Every round calls each job once, and each begins with the next one: a machine that slows down slows all of them.
    The first ``warmup`` rounds, which fill caches and choose kernels, don't count. A job that works on a GPU waits for
    it itself. Raises ValueError where there is nothing to time.
    """
    if not jobs or rounds < 1:
        raise ValueError(f"expected at least one job and one round, got {len(jobs)} jobs and {rounds} rounds")
    names = list(jobs)
    seconds: dict[Key, list[float]] = {name: [] for name in names}
    for turn in range(warmup + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            jobs[name]()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


@contextmanager
def elsewhere(make: Callable[..., Callable[[], object]], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """A job that lives in a fresh process, which shares nothing with this one's memory: ``make(*arguments)``, built
    there; it returns what that job returns. Raises ChildProcessError where the process has died.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, make, arguments), daemon=True)
    process.start()
    there.close()

    def job() -> Any:
        try:
            here.send(None)
            return here.recv()
        except (EOFError, OSError) as error:
            raise ChildProcessError("the process that was to be measured has died; is there enough memory?") from error

    try:
        yield job
    finally:
        here.close()  # which ends the other
        process.join()


def serve(line: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    """The fresh process's life: do the job whenever asked, until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts tells the other process, which then hangs up
    job = make(*arguments)
    while True:
        try:
            line.recv()
        except EOFError:
            return
        line.send(job())


def compared(
    suite: str,
    what: str,
    unit: str,
    ours: Sequence[float],
    other: Sequence[float] | None,
    against: str | None,
    *,
    scale: float,
    dtype: str,
    threads: int,
    **details: Any,
) -> Record:
    """A record of our seconds a call, beside another's of the same rounds.

    The value is ``scale`` times the seconds, e.g. 1e3 / questions for "ms a question"; for a unit that ends in "/s" it
    is ``scale`` by the seconds, e.g. scenes in a call for "scenes/s". Raises ValueError where the rounds don't match.
    """
    if not ours or (other is not None and len(other) != len(ours)):
        raise ValueError(
            f"{what}: expected as many rounds of both, at least one; got {len(ours)} and "
            f"{len(ours) if other is None else len(other)}"
        )
    values = [scale / one if unit.endswith("/s") else scale * one for one in ours]
    ratios = [theirs / one for one, theirs in zip(ours, other, strict=True)] if other is not None else []
    return Record(
        *(suite, what, unit, *spread(values), len(values), dtype, threads, against),
        *(spread(ratios) if ratios else (None, None, None)),
        details=details,
    )


def skipped(suite: str, what: str, unit: str, why: str, *, dtype: str, threads: int, **details: Any) -> Record:
    """A record that nothing was measured, and why."""
    return Record(suite, what, unit, None, None, None, 0, dtype, threads, details={"skipped": why, **details})


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest."""
    return statistics.median(values), min(values), max(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that a ``share`` in (0, 1] of all don't exceed: nearest rank, never a made-up value."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def three_digits(value: float) -> str:
    """0.123, 1.23, 12.3, 123, 1,234: three digits, none of a whole number cut."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def origin(line: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """What a report tells of its making: hardware, commit, command, torch, date, and how long it took in seconds."""
    return {
        "hardware": hardware(device),
        "commit": commit(),
        "command": line,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def write_report(path: Path, records: Sequence[Record], about: dict[str, Any]) -> None:
    """Write {"about": ..., "records": [...]} as JSON, whole or not at all, in place of what was there."""
    write_json(path, {"about": about, "records": [asdict(record) for record in records]})
