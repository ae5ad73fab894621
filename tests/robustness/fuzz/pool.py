"""Workers, each a process for a few hundred cases of one reader: one that dies or hangs is told, and costs a case."""

import math
import multiprocessing
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.cases import WALL, Bench, Finding, limit_memory, make_case
from fuzz.readers import Reader

CHUNK = 250
PATIENCE = 2 * WALL  # seconds without a case done, after which a worker is ended
Tally = dict[str, Counter[str]]


class Chunk(NamedTuple):
    """Cases start to stop of a reader."""

    name: str
    start: int
    stop: int


def chunks(readers: Mapping[str, Reader], cases: int) -> Iterator[Chunk]:
    """All cases by the readers' shares, a chunk of each in turn; together no fewer."""
    shares = sum(reader.share for reader in readers.values())
    counts = {name: math.ceil(cases * reader.share / shares) for name, reader in readers.items()}
    for start in range(0, max(counts.values()), CHUNK):
        for name, count in counts.items():
            if start < count:
                yield Chunk(name, start, min(start + CHUNK, count))


def work(
    reader: Reader, seeds: list[Any], seed: int, chunk: Chunk, seconds: float, home: str, pipe: Connection
) -> None:
    """Run a chunk, telling each case's outcome, after its number, through the pipe."""
    limit_memory()
    bench = Bench(Path(home), seconds)
    for case in range(chunk.start, chunk.stop):
        files = make_case(reader, seeds, seed, chunk.name, case)
        outcome, told = bench.run(reader, files, f"{seed} {case}")
        pipe.send((case, outcome, told.encode(errors="backslashreplace")))
        if outcome == "fault" and told.startswith("memory"):
            break  # another begins with a low peak
    pipe.close()


class Worker:
    """A running chunk: its process, and which case it is at."""

    def __init__(self, reader: Reader, seeds: list[Any], seed: int, chunk: Chunk, seconds: float) -> None:
        context = multiprocessing.get_context("fork")  # the seeds and all imports are there already
        self.pipe, there = context.Pipe(duplex=False)
        self.home = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)
        arguments = (reader, seeds, seed, chunk, seconds, f"{self.home.name}/home", there)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.chunk, self.next, self.heard = chunk, chunk.start, time.monotonic()
        self.process.start()
        there.close()

    def results(self) -> Iterator[tuple[int, str, str]]:
        """What it has told since; if it has died or hangs, that is the fault of the case it was at."""
        try:
            while self.pipe.poll():
                case, outcome, told = self.pipe.recv()
                self.next, self.heard = case + 1, time.monotonic()
                yield case, outcome, told.decode(errors="replace")
        except EOFError:
            self.process.join()
            if self.process.exitcode:
                yield self.next, "fault", f"the process died, exit code {self.process.exitcode}"
                self.next += 1
            self.close()
        if self.running and time.monotonic() - self.heard > PATIENCE:
            self.close()
            yield self.next, "fault", f"TooLong: nothing happened in {PATIENCE:g} s, not even a signal was answered"
            self.next += 1

    @property
    def running(self) -> bool:
        return not self.pipe.closed

    def close(self) -> None:
        """End it, and take away its folder."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.home.cleanup()


def fuzz(
    readers: Mapping[str, Reader],
    cases: int,
    seed: int,
    *,
    workers: int,
    seconds: float,
    until: float = float("inf"),
    tell: Callable[[Tally], None] = lambda tally: None,
    found: Callable[[Finding], None] = lambda finding: None,
) -> tuple[Tally, list[Finding]]:
    """Run cases until all are done, or ``until`` (time.monotonic()); what became of them by reader, and the faults."""
    seeds = {name: reader.seeds() for name, reader in readers.items()}
    waiting, running = list(chunks(readers, cases))[::-1], []
    tally: Tally = defaultdict(Counter)
    findings = []
    try:
        while (waiting or running) and time.monotonic() < until:
            while waiting and len(running) < workers:
                chunk = waiting.pop()
                running.append(Worker(readers[chunk.name], seeds[chunk.name], seed, chunk, seconds))
            wait([worker.pipe for worker in running], timeout=1)
            for worker in list(running):
                name = worker.chunk.name
                for case, outcome, told in worker.results():
                    tally[name][outcome] += 1
                    if outcome == "fault":
                        files = make_case(readers[name], seeds[name], seed, name, case)
                        findings.append(Finding(name, seed, case, told, files))
                        found(findings[-1])
                if not worker.running:
                    running.remove(worker)
                    if worker.next < worker.chunk.stop:
                        waiting.append(worker.chunk._replace(start=worker.next))
            tell(tally)
    finally:
        for worker in running:
            worker.close()
    return tally, findings
