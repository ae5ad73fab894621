"""What ``pan reproduce`` does around the jobs: plan, processes, and the table of what is finished."""

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import torch
from filelock import FileLock
from rich.console import Console

from progressive_attention.config import ALIASES, MODELS, SPLITS, TARGETS, one_of
from progressive_attention.data.manifest import find_manifest, read_manifest
from progressive_attention.files import read_json, write_json
from progressive_attention.network.build import recipe_on
from progressive_attention.network.pretrained import package_of
from progressive_attention.progress import bars, counting
from progressive_attention.reproduce.experiments import FOLDER, USERS_OWN, Experiment, Job, read_experiment
from progressive_attention.reproduce.jobs import (
    FAILURE,
    VOC_SPLITS,
    News,
    Report,
    TimeIsUp,
    failure_of,
    folder_of,
    is_done,
    render,
    results,
    work,
)
from progressive_attention.reproduce.runs import CELL, Run, cell_of, read_runs, write_runs

FIGURE_6 = ("san", "han", "pan-soft-ctx", "pan-hard-ctx")  # the networks of the papers' qualitative figures
LAST_WORDS = 30.0  # seconds kept of a time budget for tables and figures


def plan(
    target: str,
    models: Sequence[str] | None,
    datasets: Sequence[str] | None,
    data: Path | None = None,
    backbone_weights: str | None = None,
    voc: Path | None = None,
    backbone: str | None = None,
    **changes: Any,
) -> list[Job]:
    """All jobs of a target of ``config.TARGETS``, or of an experiment's file; ``changes`` are Grid's fields.

    ``data`` is the folder of an experiment on the user's own data. Another ``backbone`` brings the weights of the
    package that has its, and to table2 its ``recipe_on``, unless others are given. Raises ValueError for a file that
    is not understood, and a model or set that is not in it.
    """
    files = [FOLDER / f"{name}.toml" for name in TARGETS[target]] if target in TARGETS else [Path(target)]
    if target == "figure6":
        with_maps = tuple(name for name, row in MODELS.items() if row.get("network", "pan") == "pan")
        models = [
            one_of("model with attention maps", ALIASES.get(name, name), with_maps) for name in models or FIGURE_6
        ]
    whole = Experiment(target, tuple(grid for file in files for grid in read_experiment(file).grids))
    if backbone is not None and target == "table2" and changes.get("recipe") is None:
        changes["recipe"] = recipe_on(backbone)
    if backbone is not None and backbone_weights is None:
        backbone_weights = package_of(backbone)
    jobs = whole.changed(models, datasets, backbone, **changes).jobs()
    needs = {job.dataset == USERS_OWN for job in jobs}
    if needs == {False}:
        if (data, voc, backbone, backbone_weights) != (None, None, None, None):
            options = "--data, --voc, --backbone and --backbone-weights"
            raise ValueError(f"{target} draws its scenes itself; leave out {options}")
        return jobs
    if data is None or False in needs:
        raise ValueError(f"{target} trains on a data set of yours, all its grids: name its folder with --data DIR")
    return on_folder(jobs, data, backbone_weights, voc)


def check_voc(voc: Path, known: Sequence[str]) -> None:
    """Raises ValueError for a folder without masks, or that asks none of the known queries."""
    rows = read_manifest(voc).rows_of(VOC_SPLITS)
    if "mask" not in rows.table.column_names or rows.table["mask"].null_count == len(rows.table):
        raise ValueError(f"{voc} has no masks to measure attention in; import VOC with pan data import voc")
    asked = rows.names("query")
    if not any({query, *rows.synonyms.get(query, ())} & {*known} for query in asked):
        raise ValueError(f"{voc} asks for {', '.join(asked)}, and the data teach none of these: {', '.join(known)}")


def on_folder(jobs: Sequence[Job], folder: Path, backbone_weights: str | None, voc: Path | None) -> list[Job]:
    """The jobs on the user's own data set.

    Raises ValueError as ``read_manifest`` does, for a missing split, and for one attribute a row, which is measured
    by other figures.
    """
    manifest = read_manifest(folder)
    if "attributes" not in manifest.table.column_names:
        raise ValueError(
            f"{folder} holds one attribute a row, and here lists of them are measured (a column attributes); train on "
            "it with 'pan train', and measure it with 'pan evaluate'"
        )
    if voc is not None:  # what is wrong with it is reported before hours of training
        check_voc(voc, manifest.names("query"))
    images = {split: len(manifest.rows_of(split).table["image"].unique()) for split in SPLITS}  # each must be there
    mine = {
        "dataset": manifest.name,
        "images": images["train"],
        "folder": str(folder),
        "content": digest_of(folder),
        "backbone_weights": backbone_weights,
        "voc": "" if voc is None else str(voc),
        "voc_content": "" if voc is None else digest_of(voc),
    }
    return [replace(job, **mine) for job in jobs]


def digest_of(folder: Path) -> str:
    """Of a data set's table."""
    return sha256(find_manifest(folder).read_bytes()).hexdigest()


def reproduce(
    jobs: Sequence[Job],
    out: Path,
    device: torch.device,
    command: str,
    console: Console,
    seconds: float | None = None,
    processes: int | None = None,
) -> list[int]:
    """Train and measure what is not done yet, and add it to the table in ``out``: table1.json, or table2.json.

    ``seconds`` is a budget of time, after which all stops, saved. What failed before is tried again. Returns the exit
    codes of workers that died. Raises ValueError, before anything is trained, for a broken file, and for jobs that
    don't go with what is in the table.
    """
    until = time.monotonic() + (math.inf if seconds is None else max(seconds - LAST_WORDS, seconds / 2))
    out.mkdir(parents=True, exist_ok=True)
    jobs = to_do(jobs, out)
    results(jobs, out)  # a broken one is reported now, not after hours
    for job in jobs:
        (folder_of(job, out) / FAILURE).unlink(missing_ok=True)
    todo = [job for job in jobs if not is_done(job, out)]
    died: list[int] = []
    if todo:
        # One a core, as trainings of one thread disturb each other least; on a GPU four, to fill each other's gaps.
        usual = joblib.cpu_count() if device.type == "cpu" else min(4, joblib.cpu_count())
        processes = min(processes or usual, len(todo))
        print_plain(console, f"runs to do: {len(todo)}, {processes} at a time")
        with suppress(TimeIsUp):
            render(todo, until, lambda title: counting(console, title, "scenes"))
            if processes == 1:  # here, with all threads
                with bar(console) as report:
                    work(jobs, out, device, until, command, report)
            else:
                died = in_processes(processes, jobs, out, device, until, command)
    if finished := results(jobs, out):
        add_to_table(finished, table_of(jobs[0], out))
    return died


def check_end(jobs: Sequence[Job], out: Path, died: Sequence[int]) -> bool:
    """Whether all is done; else time is up. Raises ValueError if a job failed, OSError if workers died."""
    ends = dict(states(jobs, out))
    if failed := [f"{name} failed: {end}" for name, end in ends.items() if end not in ("done", "to do")]:
        raise ValueError("; ".join(failed))
    if died and "to do" in ends.values():
        raise OSError(
            f"{len(died)} workers died (exit code {', '.join(map(str, died))}; -9 is often out of memory: try fewer "
            "--processes); nothing saved is lost, and the same command goes on"
        )
    return "to do" not in ends.values()


def to_do(jobs: Sequence[Job], out: Path) -> list[Job]:
    """The jobs that are not in the table in ``out``; raises ValueError for those that don't go with what is in it."""
    path = table_of(jobs[0], out)
    other = out / ("table1.json" if jobs[0].folder else "table2.json")
    if other.exists():
        raise ValueError(f"{out} holds {other.name}, whose README.md that of {path.name} would replace; choose another")
    rows = read_table(path)
    for job in jobs:
        check_against(job, rows, out)
    known = {cell_of(row): row.get("voc_content") for row in rows}
    return [job for job in jobs if job.cell not in known or (job.voc and known[job.cell] != job.voc_content)]


def states(jobs: Sequence[Job], out: Path) -> Iterator[tuple[str, str]]:
    """Each job's name with "done", "to do", or why it failed."""
    left = to_do(jobs, out)
    for job in jobs:
        done = job not in left or is_done(job, out)
        yield job.name, "done" if done else failure_of(job, out) or "to do"


def check_against(job: Job, rows: Sequence[Run], out: Path) -> None:
    """Raises ValueError if a job would share a table with a run on other data, or share a row with, or replace, a run
    that was trained differently.
    """
    words = job.description
    for run in rows:
        if cell_of({**run, "seed": job.seed}) == job.cell:
            keys = [key for key in words if key not in CELL]
        else:
            keys = ["content"] if job.folder and run["dataset"] == job.dataset else []
        for key in keys:
            if run.get(key, words[key]) != words[key]:
                raise ValueError(
                    f"{out} holds a run of {run['model']} on {run['dataset']}, seed {run['seed']}, with {key} "
                    f"{run[key]}, and {job.name} has {words[key]}; choose another --out, or another variant"
                )


def table_of(job: Job, out: Path) -> Path:
    """Where results of such jobs stand."""
    return out / ("table2.json" if job.folder else "table1.json")


def read_table(path: Path) -> list[Run]:
    """The runs of a table, none if there is no such file; raises ValueError for a broken one."""
    if not path.exists():
        return []
    if path.name == "table1.json":
        return read_runs(path)
    rows = read_json(path)
    if not isinstance(rows, list) or any(not isinstance(run, dict) or {*CELL} - run.keys() for run in rows):
        raise ValueError(f"{path} is no list of runs; remove it, and the same command writes it again")
    return rows


def add_to_table(new: Sequence[Run], path: Path) -> None:
    """Put runs beside those of a table, in the place of runs of the same cell."""
    with FileLock(path.parent / ".pages.lock"):
        rows = {cell_of(run): run for run in (*read_table(path), *new)}
        runs = [rows[cell] for cell in sorted(rows)]  # in the same order, whichever call wrote last
        write = write_runs if path.name == "table1.json" else write_json
        write(path, runs)


def print_plain(console: Console, text: str) -> None:
    """A line as it is, however long."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def bar(console: Console) -> Iterator[Report]:
    """A bar of the run in hand, and a line for each epoch and each end."""
    with bars(console) as progress:
        progress.live.transient = True
        task = progress.add_task("", total=1.0, note="")

        def report(news: News) -> None:
            title = f"{news.job}: {news.what}"
            if progress.tasks[0].description != title:
                progress.reset(task, description=title)
            progress.update(task, completed=news.share, note=news.note)
            if news.line:
                print_plain(console, f"{news.job}: {news.line}")

        yield report


def in_processes(
    count: int, jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str
) -> list[int]:
    """``work`` in several processes, which share the cores; returns the exit codes of those that died."""
    context, threads = multiprocessing.get_context("spawn"), max(1, torch.get_num_threads() // count)
    arguments = (list(jobs), out, device, until, command, threads)
    workers = [context.Process(target=worker, args=arguments) for _ in range(count)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # until they can listen, Ctrl-C would print their traceback
    for process in workers:
        process.start()
    signal.signal(signal.SIGINT, before)
    for process in workers:
        process.join()
    return [process.exitcode for process in workers if process.exitcode]


def worker(jobs: list[Job], out: Path, device: torch.device, until: float, command: str, threads: int) -> None:
    """One process's share of the work, a line for each epoch and end; it ends, saved, by Ctrl-C or with its parent."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    console, parent = Console(stderr=True), multiprocessing.parent_process()

    def report(news: News) -> None:
        if parent is None or not parent.is_alive():
            sys.exit()
        if news.line:
            print_plain(console, f"{news.job}: {news.line}")

    try:
        work(jobs, out, device, until, command, report)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"a worker can't go on: {error}")
