"""What ``pan reproduce`` does around the jobs: plan, processes, a live table, and at last pages and figures."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from progressive_attention.config import TARGETS
from progressive_attention.experiments import FOLDER, Experiment, Job, read_experiment
from progressive_attention.files import write_json
from progressive_attention.gallery import draw_scenes
from progressive_attention.progress import counting
from progressive_attention.reproduce import Message, in_order, is_done, render, results, work
from progressive_attention.results_page import write_results
from progressive_attention.runs import read_runs

FIGURE_6 = ("san", "han", "pan-soft-ctx", "pan-hard-ctx")  # the networks of the papers' qualitative figures
LAST_WORDS = 20.0  # seconds kept of a time budget for tables and figures
SHOWN_DONE = 6


def plan(target: str, models: Sequence[str] | None, datasets: Sequence[str] | None, **changes: Any) -> list[Job]:
    """All jobs of a target; ``changes`` are Grid's fields. Raises ValueError for a model or set that is not in it."""
    experiments = [read_experiment(FOLDER / f"{name}.toml") for name in TARGETS[target]]
    if target == "figure6" and models is None:
        models = FIGURE_6
    whole = Experiment(target, tuple(grid for one in experiments for grid in one.grids))
    return whole.changed(models, datasets, **changes).jobs()


def reproduce(
    target: str,
    jobs: Sequence[Job],
    out: Path,
    device: torch.device,
    command: str,
    *,
    seconds: float | None = None,
    processes: int | None = None,
    console: Console | None = None,
) -> bool:
    """Train and measure what is not done yet, then write table1.json, pages and figures of all that is in ``out``.

    ``seconds`` is a budget of time, after which all stops, saved. Returns whether everything is done. Raises
    ValueError if a job failed, after all others have had their turn.
    """
    console = console or Console(stderr=True)
    until = time.monotonic() + (float("inf") if seconds is None else max(seconds - LAST_WORDS, seconds / 2))
    open_jobs = [job for job in in_order(jobs) if not is_done(job, out)]
    failed: dict[str, str] = {}
    if open_jobs:
        render(open_jobs, lambda title: bar(console, title))
        processes = min(processes or default_processes(device), len(open_jobs))
        console.print(
            f"{len(open_jobs)} of {len(in_order(jobs))} runs to do, {processes} at a time; state: {out / 'runs'}"
        )
        with board(console, jobs, out) as tell:
            for message in messages(open_jobs, out, device, until, command, processes):
                tell(message)
                if message.kind == "failed":
                    failed[message.job] = message.note
    write_pages(target, jobs, out, device, console)
    if failed:
        raise ValueError("; ".join(f"{name} failed: {why}" for name, why in failed.items()))
    return all(is_done(job, out) for job in jobs)


def write_pages(target: str, jobs: Sequence[Job], out: Path, device: torch.device, console: Console) -> None:
    """table1.json with these jobs' results beside those that other targets left there; pages and figures from it."""
    path = out / "table1.json"
    new = results(jobs, out)
    old = read_runs(path) if path.exists() else []
    known = {key(run) for run in new}
    runs = new + [run for run in old if key(run) not in known]
    if not runs:
        console.print("no run is finished yet; the same command goes on")
        return
    write_json(path, runs)
    if target in ("figure6", "all"):
        draw_scenes(
            [job for job in jobs if job.model in FIGURE_6 and not job.variant and is_done(job, out)], out, device
        )
    write_results(read_runs(path), out)
    console.print(f"{len(runs)} runs: {path}\npages: {out / 'README.md'}, {out / 'index.html'}", soft_wrap=True)


def key(run: Mapping[str, Any]) -> tuple:
    """What tells a run from others."""
    names = ("variant", "model", "dataset", "protocol", "recipe", "queries_per_image", "images", "epochs", "seed")
    return tuple(run[name] for name in names)


def default_processes(device: torch.device) -> int:
    """One for each core: side by side with one thread each, trainings disturb each other least. On a GPU: four, so
    that one's kernels fill the gaps of another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device.type == "cpu" else min(4, cores)


def messages(
    jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str, processes: int
) -> Iterator[Message]:
    """What all workers tell, as it comes. One process works here, with all threads; several share the cores."""
    if processes == 1:
        yield from work(jobs, out, device, until, command)
        return
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    threads = max(1, default_threads() // processes)
    left = until - time.monotonic()  # a child's clock need not be ours
    arguments = (list(jobs), out, str(device), left, command, threads, queue)
    workers = [context.Process(target=worker, args=arguments, daemon=True) for _ in range(processes)]
    for one in workers:
        one.start()
    while True:
        alive = any(one.is_alive() for one in workers)  # before looking: what a dead one said is in the queue
        try:
            yield queue.get(timeout=0.5)
        except Empty:
            if not alive:
                break
    for one in workers:
        one.join()
        if one.exitcode:
            raise OSError(f"a worker ended with exit code {one.exitcode}; nothing saved is lost, run the command again")


def default_threads() -> int:
    """Threads that torch would use here."""
    return torch.get_num_threads()


def worker(jobs: list[Job], out: Path, device: str, seconds: float, command: str, threads: int, queue: Any) -> None:
    """One process's share of the work."""
    torch.set_num_threads(threads)
    for message in work(jobs, out, torch.device(device), time.monotonic() + seconds, command):
        queue.put(message)


@contextmanager
def bar(console: Console, title: str) -> Iterator[Any]:
    """A bar for rendering."""
    with counting(console, title, "scenes") as show:
        yield show


@contextmanager
def board(console: Console, jobs: Sequence[Job], out: Path) -> Iterator[Any]:
    """A live table of what runs and what ended last; on no terminal, a line for each epoch and each end."""
    latest: dict[str, Message] = {}
    with Live(console=console, refresh_per_second=2, transient=True) as live:

        def tell(message: Message) -> None:
            latest.pop(message.job, None)
            latest[message.job] = message
            if message.epoch:
                console.print(f"{message.job}: {message.epoch}", soft_wrap=True, highlight=False)
            if message.kind in ("finished", "failed", "stopped"):
                console.print(f"{message.job}: {message.kind} {message.note}".rstrip(), soft_wrap=True, highlight=False)
            live.update(picture(latest, jobs, out))

        yield tell


def picture(latest: Mapping[str, Message], jobs: Sequence[Job], out: Path) -> Group:
    """The table: running jobs with time left, the last ended ones, and how many are done."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run")
    table.add_column("")
    table.add_column("done", justify="right")
    table.add_column("time left", justify="right")
    table.add_column("")
    running = [one for one in latest.values() if one.kind in ("training", "measuring")]
    ended = [one for one in latest.values() if one.kind not in ("training", "measuring")]
    for one in ended[-SHOWN_DONE:] + running:
        left = "" if one.left != one.left else f"{int(one.left // 60)}:{int(one.left % 60):02d}"
        table.add_row(one.job, one.kind, f"{one.share:.0%}", left, one.note)
    everything = in_order(jobs)
    count = sum(is_done(job, out) for job in everything)
    return Group(table, f"{count} of {len(everything)} runs done, {len(running)} running")
