"""What ``pan reproduce`` does around the jobs: plan, processes, and at last pages and figures."""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console

from progressive_attention.config import ALIASES, DEFAULT_MODEL, MODELS, SPLITS, TARGETS, one_of
from progressive_attention.data.manifest import find_manifest, read_manifest
from progressive_attention.files import read_json, write_json
from progressive_attention.pages.gallery import draw_photographs, draw_scenes
from progressive_attention.pages.label_results import write_label_results
from progressive_attention.pages.results_page import write_results
from progressive_attention.progress import counting
from progressive_attention.reproduce.board import PLAIN, board
from progressive_attention.reproduce.experiments import FOLDER, USERS_OWN, Experiment, Job, read_experiment
from progressive_attention.reproduce.jobs import (
    CELL,
    VOC_SPLITS,
    Message,
    Tell,
    TimeIsUp,
    failures,
    forget_failures,
    has_diverged,
    in_order,
    is_done,
    render,
    results,
    work,
)
from progressive_attention.reproduce.runs import Run, read_runs

FIGURE_6 = ("san", "han", "pan-soft-ctx", "pan-hard-ctx")  # the networks of the papers' qualitative figures
WITH_MAPS = tuple(name for name, row in MODELS.items() if row.get("network", "pan") == "pan")
LAST_WORDS = 30.0  # seconds kept of a time budget for tables and figures
GRACE = 10.0  # seconds that workers have to save and end after an interruption


def plan(
    target: str,
    models: Sequence[str] | None,
    datasets: Sequence[str] | None,
    data: Path | None = None,
    backbone_weights: str | None = None,
    voc: Path | None = None,
    **changes: Any,
) -> list[Job]:
    """All jobs of a target of ``config.TARGETS``, or of an experiment's file; ``changes`` are Grid's fields.

    ``data`` is the folder of an experiment on the user's own data. Raises ValueError for a file that is not understood,
    and a model or set that is not in it.
    """
    files = [FOLDER / f"{name}.toml" for name in TARGETS[target]] if target in TARGETS else [Path(target)]
    if target == "figure6":
        models = [ALIASES.get(name, name) for name in models or FIGURE_6]
        models = [one_of("model with attention maps", name, WITH_MAPS) for name in models]
    whole = Experiment(target, tuple(grid for file in files for grid in read_experiment(file).grids))
    jobs = whole.changed(models, datasets, **changes).jobs()
    if not any(job.dataset == USERS_OWN for job in jobs):
        if any(one is not None for one in (data, voc, backbone_weights)):
            raise ValueError(
                f"{target} trains on scenes that it draws itself; leave out --data, --voc and --backbone-weights"
            )
        return jobs
    if data is None or any(job.dataset != USERS_OWN for job in jobs):
        raise ValueError(f"{target} trains on a data set of yours, all its grids: name its folder with --data DIR")
    if changes.get("images") is not None:
        raise ValueError(f"{target} trains on all images of {data}; leave out --images, or import fewer")
    if voc is not None:  # what is wrong with it is told before hours of training
        rows = read_manifest(voc).rows_of(VOC_SPLITS)
        if "mask" not in rows.table.column_names or rows.table["mask"].null_count == len(rows.table):
            raise ValueError(f"{voc} has no masks to measure attention in; import VOC with pan data import voc")
        asked = rows.names("query")
        if not set(asked) & set(known := read_manifest(data).names("query")):
            raise ValueError(f"{voc} asks for {', '.join(asked)}, but {data} teaches none of these: {', '.join(known)}")
    return [on_folder(job, data, backbone_weights, voc) for job in jobs]


def on_folder(job: Job, folder: Path, backbone_weights: str | None, voc: Path | None) -> Job:
    """The job on the user's own data set.

    Raises ValueError as ``read_manifest`` does, for a missing split, and for one attribute a row, whose measures this
    page has not.
    """
    manifest = read_manifest(folder)
    if "attributes" not in manifest.table.column_names:
        raise ValueError(
            f"{folder} holds one attribute a row, and here lists of them are measured (a column attributes); train on "
            "it with 'pan train', and measure it with 'pan evaluate'"
        )
    images = {split: len(manifest.rows_of(split).table["image"].unique()) for split in SPLITS}["train"]
    own = {"dataset": manifest.name, "images": images, "folder": str(folder), "backbone_weights": backbone_weights}
    own["content"] = digest_of(folder)
    if voc is not None:
        own |= {"voc": str(voc), "voc_content": digest_of(voc)}
    return replace(
        job, **own, candidates=tuple(on_folder(one, folder, backbone_weights, voc) for one in job.candidates)
    )


def digest_of(folder: Path) -> str:
    """Of a data set's table."""
    return sha256(find_manifest(folder).read_bytes()).hexdigest()


def check_against(job: Job, earlier: Sequence[Run], out: Path) -> None:
    """Raises ValueError if a job would stand in one table with an earlier run of other data, in one row with one that
    was trained differently, or in its place.
    """
    for run in earlier:
        alike = cell_of({**run, "seed": job.seed}) == job.cell
        of_set = {"content": job.told["content"]} if job.folder and run["dataset"] == job.dataset else {}
        for key, value in (job.told if alike else of_set).items():
            if run.get(key, value) != value:
                raise ValueError(
                    f"{out} holds a run of {run['model']} on {run['dataset']}, seed {run['seed']}, with {key} "
                    f"{run[key]}, and {job.name} has {value}; choose another --out, or tell them apart by their variant"
                )


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

    ``seconds`` is a budget of time, after which all stops, saved. Returns whether everything is done. Raises, after
    all others have had their turn, ValueError if a job failed, and OSError if jobs are left because workers died.
    """
    console = console or Console(stderr=True)
    until = time.monotonic() + (math.inf if seconds is None else max(seconds - LAST_WORDS, seconds / 2))
    (out / "runs").mkdir(parents=True, exist_ok=True)
    everything = in_order(jobs)
    mine, others = ("table2.json", "table1.json") if jobs[0].folder else ("table1.json", "table2.json")
    if (out / others).exists():
        raise ValueError(f"{out} holds {others}, whose README.md that of {mine} would replace; choose another --out")
    earlier = earlier_label_runs if jobs[0].folder else earlier_runs
    known = earlier(out)  # a broken file is told now, not after hours
    for job in jobs:
        check_against(job, known, out)
    results(everything, out)  # likewise
    forget_failures(jobs, out)
    everything = [job for job in everything if not has_diverged(job, out)]
    todo = [job for job in everything if not is_done(job, out)]
    dead: list[int] = []
    if todo:
        processes = min(processes or default_processes(device), len(todo))
        console.print(f"{len(todo)} of {len(everything)} runs to do, {processes} at a time", **PLAIN)
        with suppress(TimeIsUp):
            render(todo, until, lambda title: counting(console, title, "scenes"))
            with board(console, everything, out, processes) as tell:
                if processes == 1:  # here, with all threads
                    work(jobs, out, device, until, command, tell)
                else:
                    dead = in_processes(processes, jobs, out, device, until, command, tell)
    pages = write_label_pages if jobs[0].folder else write_pages
    pages(target, jobs, out, device, console)
    if failed := failures(jobs, out):
        raise ValueError("; ".join(f"{name} failed: {reason}" for name, reason in failed.items()))
    done = all(is_done(job, out) for job in jobs)
    if dead and not done:
        codes = ", ".join(map(str, dead))
        raise OSError(
            f"{len(dead)} of {processes} workers died (exit code {codes}; -9 is often want of memory: try fewer "
            "--processes); nothing saved is lost, and the same command goes on"
        )
    return done


def earlier_runs(out: Path) -> list[Run]:
    """The runs of table1.json, none if there is no such file; raises ValueError as ``read_runs``."""
    path = out / "table1.json"
    return read_runs(path) if path.exists() else []


def earlier_label_runs(out: Path) -> list[Run]:
    """The runs of table2.json, none if there is no such file; raises ValueError where one isn't told from others."""
    path = out / "table2.json"
    found = read_json(path) if path.exists() else []
    if not isinstance(found, list) or any(not isinstance(run, dict) or {*CELL} - run.keys() for run in found):
        raise ValueError(f"{path} is no list of runs; remove it, and the same command writes it again")
    return found


def write_pages(target: str, jobs: Sequence[Job], out: Path, device: torch.device, console: Console) -> None:
    """table1.json with these jobs' results beside those that other targets left there; pages and figures from it."""
    with FileLock(out / ".pages.lock"):
        runs = beside(results(jobs, out), earlier_runs(out))
        if not runs:
            console.print("no run is finished yet")
            return
        write_json(out / "table1.json", runs)
        if target in ("figure6", "all"):
            pictured = WITH_MAPS if target == "figure6" else (*FIGURE_6, DEFAULT_MODEL)
            draw_scenes([job for job in jobs if job.model in pictured and is_done(job, out)], out, device)
        write_results(earlier_runs(out), out)
    pages = f"{out / 'table1.json'}, {out / 'README.md'}, {out / 'index.html'}"
    console.print(f"runs finished: {len(runs)}; see {pages}", **PLAIN)


def write_label_pages(target: str, jobs: Sequence[Job], out: Path, device: torch.device, console: Console) -> None:
    """table2.json of these jobs' results, and of others that are there; README.md, and the figure of test questions."""
    with FileLock(out / ".pages.lock"):
        path = out / "table2.json"
        runs = beside(results(jobs, out), earlier_label_runs(out))
        if not runs:
            console.print("no run is finished yet")
            return
        write_json(path, runs)
        draw_photographs([job for job in jobs if is_done(job, out)], out, device)
        write_label_results(runs, out)
    console.print(f"runs finished: {len(runs)}; see {path}, {out / 'README.md'}, {out / 'figures'}", **PLAIN)


def beside(new: Sequence[Run], earlier: Sequence[Run]) -> list[Run]:
    """New runs beside earlier ones, of two of one cell the new; in the same order, whichever call wrote last."""
    return sorted({cell_of(run): run for run in (*earlier, *new)}.values(), key=cell_of)


def cell_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a run from others, as ``Job.cell``."""
    return tuple(run[name] for name in CELL)


def default_processes(device: torch.device) -> int:
    """One a core, as trainings of one thread disturb each other least; on a GPU four, to fill each other's gaps."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device.type == "cpu" else min(4, cores)


def in_processes(
    count: int, jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str, tell: Tell
) -> list[int]:
    """``work`` in several processes, which share the cores; returns the exit codes of those that died."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // count)
    ends = time.time() + until - time.monotonic()  # another process's monotonic clock need not be ours
    workers = {}
    with deaf_to_interrupts():  # and so are those born now: Ctrl-C reaches all, but only we decide
        for _ in range(count):
            ours, theirs = context.Pipe(duplex=False)  # one each: who is killed while writing spoils only its own
            arguments = (list(jobs), out, str(device), ends, command, threads, theirs)
            workers[ours] = context.Process(target=worker, args=arguments, daemon=True)
            workers[ours].start()
            theirs.close()
    try:
        listening = list(workers)
        while listening:
            for connection in wait(listening):
                try:
                    tell(connection.recv())  # type: ignore[union-attr]
                except (EOFError, OSError):
                    listening.remove(connection)
    finally:
        for connection in workers:
            connection.close()  # a worker that still runs finds nobody listening, saves and ends
        for process in workers.values():
            process.join(GRACE)
        codes = [process.exitcode for process in workers.values()]  # None: slow to end, which is no death
        for process in workers.values():
            process.kill()
    return [code for code in codes if code]


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for a moment."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def worker(jobs: list[Job], out: Path, device: str, ends: float, command: str, threads: int, connection: Any) -> None:
    """One process's share of the work; it ends, saved, when nobody listens any more."""
    torch.set_num_threads(threads)

    def tell(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:
            sys.exit()

    try:
        work(jobs, out, torch.device(device), time.monotonic() + ends - time.time(), command, tell)
    except OSError as error:
        sys.exit(f"a worker can't go on: {error}")
