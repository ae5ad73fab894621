"""The work of ``pan remeasure``: the runs of a table1.json measured again from their weights, without training.

So runs of an earlier version get the figures that are new since. What training left (time, machine, commit, command)
stays; every figure that was there is compared with the new one, and what changed is kept with the run.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from progressive_attention.evaluation.measured import load_with_bar, measure
from progressive_attention.evaluation.summaries import percent
from progressive_attention.files import write_json
from progressive_attention.pages.results_page import write_results
from progressive_attention.reproduce.board import PLAIN
from progressive_attention.reproduce.campaign import beside, cell_of, earlier_runs
from progressive_attention.reproduce.jobs import RESULT, read_result
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.reproduce.runs import LATER, Run, place_of
from progressive_attention.saved import weights

REPORT = "remeasured.json"
TOLERANCE = 1e-6  # less than one question of a million; sums of float32 differ by less between machines


class Comparison(NamedTuple):
    """Old figures beside new ones: how many, how many are the same to the last bit, and those beyond TOLERANCE.

    A change is the ``key`` of a figure, with ``old`` and ``new``; of a curve only its largest.
    """

    compared: int
    identical: int
    changes: list[dict[str, Any]]


def remeasure(out: Path, device: torch.device, command: str, console: Console) -> None:
    """Measure what lacks a figure of today's, then write table1.json, pages and REPORT of all that is in ``out``.

    Several calls may share a folder: each run is held by a lock, and who ends last writes the pages. Raises ValueError
    for a folder without runs, and, after all others have had their turn, where runs could not be measured.
    """
    folders = run_folders(out)
    todo = {name: folder for name, folder in folders.items() if not is_current(read_result(folder / RESULT))}
    console.print(f"{len(todo)} of {len(folders)} runs to measure", **PLAIN)
    failed, held = {}, []
    for i, (name, folder) in enumerate(todo.items(), 1):
        try:
            with FileLock(folder / ".lock", timeout=0):
                if not is_current(read_result(folder / RESULT)):
                    again = measured_again(folder, device, command, console)
                    write_json(folder / RESULT, again)
                    console.print(f"{i} of {len(todo)}: {name}: {in_words(again)}", **PLAIN)
        except Timeout:
            held.append(name)
        except ValueError as error:
            failed[name] = str(error)
    if any(not is_current(read_result(folders[name] / RESULT)) for name in held):
        console.print(f"{len(held)} runs are another process's, which writes the pages", **PLAIN)
    else:
        write_pages({name: read_result(folder / RESULT) for name, folder in folders.items()}, out)
    if failed:
        raise ValueError("; ".join(f"{name} can't be measured: {reason}" for name, reason in failed.items()))


def run_folders(out: Path) -> dict[str, Path]:
    """The folders of the runs in table1.json by name, largest budget first, then in the tables' order.

    Raises ValueError where there are none.
    """
    known = {cell_of(run) for run in earlier_runs(out)}
    results = {path.parent: read_result(path) for path in (out / "runs").glob(f"*/{RESULT}")}
    found = [folder for folder, result in results.items() if cell_of(result) in known]
    if not found:
        raise ValueError(f"{out} holds no table1.json with runs/*/{RESULT}; give a folder that 'pan reproduce' wrote")
    return {folder.name: folder for folder in sorted(found, key=lambda folder: place_in_table(results[folder]))}


def place_in_table(run: Run) -> tuple[Any, ...]:
    """The order of runs."""
    return -run["images"], place_of(run["model"]), place_of(run["dataset"]), run["variant"], run["seed"]


def is_current(result: Run) -> bool:
    """Whether it has all that is measured today."""
    return {*LATER} <= result.keys()


def measured_again(folder: Path, device: torch.device, command: str, console: Console) -> dict[str, Any]:
    """A run's result with the figures of today's measurement, and under "measured" where these come from, beside what
    changed by it. Raises ValueError as ``weights.load`` does.
    """
    old, network = read_result(folder / RESULT), weights.load(folder, device)
    scenes = {"protocol": old["protocol"], "seed": old["seed"], "images": old["images"]}
    test = load_with_bar(console, old["dataset"], "test", **scenes)
    figures = measure(network, test, scenes, device, console).figures
    machine = {"hardware": hardware(device), "torch": torch.__version__, "commit": commit(), "command": command}
    return {**old, **figures, "measured": {**machine, **compare(old, figures)._asdict()}}


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """The figures that both have."""
    before = dict(series(old))
    compared, identical, changes = 0, 0, []
    for key, values in series(new):
        if key in before:
            pairs = list(zip(before[key], values, strict=True))
            compared, identical = compared + len(pairs), identical + sum(a == b for a, b in pairs)
            worst = max(pairs, key=difference)
            if difference(worst) > TOLERANCE:
                changes.append({"key": key, "old": worst[0], "new": worst[1]})
    return Comparison(compared, identical, changes)


def series(figures: Any, key: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every figure and every list of them that is not empty, with its key: "precision_recall/last/iou"."""
    if isinstance(figures, Mapping):
        for name, value in figures.items():
            yield from series(value, f"{key}/{name}".strip("/"))
    elif figures != []:
        yield key, figures if isinstance(figures, list) else [figures]


def difference(pair: tuple[float | None, float | None]) -> float:
    """How far two figures are apart; infinitely if only one is there."""
    old, new = pair
    return 0.0 if old == new else math.inf if old is None or new is None else abs(new - old)


def in_words(result: Run) -> str:
    """What a new measurement gave."""
    found = result["measured"]
    text = f"accuracy {percent(result['accuracy'])}, {found['identical']} of {found['compared']} figures as they were"
    changes = [f"{one['key']} {one['old']} -> {one['new']}" for one in found["changes"]]
    return "; ".join([text, *changes])


def write_pages(results: Mapping[str, Run], out: Path) -> None:
    """REPORT, table1.json, pages and figures of all runs, given by name."""
    with FileLock(out / ".pages.lock"):
        write_json(out / REPORT, report(results))
        write_json(out / "table1.json", beside(list(results.values()), earlier_runs(out)))
        write_results(earlier_runs(out), out)


def report(results: Mapping[str, Run]) -> dict[str, Any]:
    """How many runs were measured again and figures compared, on which machines, and what changed in each run."""
    found = {name: run["measured"] for name, run in results.items() if "measured" in run}
    return {
        "runs": len(found),
        "hardware": sorted({one["hardware"] for one in found.values()}),
        "tolerance": TOLERANCE,
        "compared": sum(one["compared"] for one in found.values()),
        "identical": sum(one["identical"] for one in found.values()),
        "changes": {name: one["changes"] for name, one in found.items() if one["changes"]},
    }
