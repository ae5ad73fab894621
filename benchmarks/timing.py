"""Timing: jobs side by side and in fresh processes, and a record of each figure. Memory is read as Linux reports it."""

import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from progressive_attention.evaluation.ask import has_fast_bf16

ROOT = Path(__file__).parents[1]
Key = TypeVar("Key")
Watch = Callable[[str], None]  # shows what is being measured


@dataclass(frozen=True)
class Record:
    """One figure: the median of ours with the smallest and largest, and how it compares with something else.

    ``value``, ``low`` and ``high`` are in ``unit``. ``ratio`` is the median over rounds of (other's time / our time) in
    the same round: above 1, ours is faster. ``threads`` are torch's, or processes where ``what`` says so.
    """

    suite: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    repeats: int
    dtype: str  # "-" where none matters
    threads: int
    against: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def recorded(suite: str, what: str, unit: str, values: Sequence[float], dtype: str = "-", **details: Any) -> Record:
    """A record of some values that is compared with nothing; ``details`` may hold ``threads``."""
    threads = details.pop("threads", torch.get_num_threads())
    return Record(suite, what, unit, *spread(values), len(values), dtype, threads, details=details)


def compared(
    suite: str,
    what: str,
    unit: str,
    ours: Sequence[float],
    other: Sequence[float] | None = None,
    against: str | None = None,
    *,
    scale: float,
    dtype: str = "-",
    **details: Any,
) -> Record:
    """A record of our seconds a call, beside another's of the same rounds.

    The value is ``scale`` times the seconds, e.g. 1e3 / questions for "ms a question"; for a unit that ends in "/s" it
    is ``scale`` by the seconds, e.g. scenes in a call for "scenes/s". Raises ValueError where the rounds don't match.
    """
    if not ours or (other is not None and len(other) != len(ours)):
        rounds = len(ours) if other is None else len(other)
        raise ValueError(f"{what}: expected as many rounds of both, at least one; got {len(ours)} and {rounds}")
    values = [scale / seconds if unit.endswith("/s") else scale * seconds for seconds in ours]
    alone = recorded(suite, what, unit, values, dtype, **details)
    if other is None:
        return alone
    ratios = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
    ratio, low, high = spread(ratios)
    return Record(**{**vars(alone), "against": against, "ratio": ratio, "ratio_low": low, "ratio_high": high})


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest."""
    return statistics.median(values), min(values), max(values)


def three_digits(value: float) -> str:
    """0.123, 1.23, 12.3, 123, 1,234: three digits, none of a whole number cut."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def trained_in(device: torch.device) -> str:
    """The precision of training."""
    return "bfloat16" if has_fast_bf16(device) else "float32"


# --- side by side -----------------------------------------------------------------------------------------------------


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


# --- fresh processes --------------------------------------------------------------------------------------------------


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other process, which then hangs up
    job = make(*arguments)
    while True:
        try:
            line.recv()
        except EOFError:
            return
        line.send(job())


def run_python(code: str, *arguments: str, **environment: str) -> tuple[list[str], float]:
    """Lines that a fresh Python printed on standard output, and its wall seconds; it may import this folder.

    Raises ChildProcessError with its last line of standard error if it fails.
    """
    threads = str(torch.get_num_threads())
    given = {**os.environ, "OMP_NUM_THREADS": threads, **environment}
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=given, cwd=ROOT, text=True, capture_output=True, check=False
    )
    seconds = time.perf_counter() - started
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ChildProcessError(f"python -c {code!r} ended with code {ended.returncode}: {reason}")
    return ended.stdout.splitlines(), seconds


PAN = """
import json, sys
from progressive_attention.cli import main
code = main(sys.argv[1:])
from benchmarks.timing import peak_memory
print(json.dumps(peak_memory()))
sys.exit(code)
"""


def run_pan(*arguments: str, **environment: str) -> tuple[float, float]:
    """Wall seconds of a ``pan`` command in a fresh process, and that process's largest memory [MiB]."""
    lines, seconds = run_python(PAN, *arguments, **environment)
    return seconds, json.loads(lines[-1])


def peak_memory() -> float:
    """Largest memory of this process so far, torch included [MiB]."""
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kibibytes) / 1024
