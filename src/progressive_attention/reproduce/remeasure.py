"""The work of ``pan remeasure``: the runs of a table1.json measured again from their weights, without training.

So runs of an earlier version get the figures that are new since. What training left (time, machine, commit, command)
stays; every figure that was there is compared with the new one, and what changed is kept with the run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from progressive_attention.evaluation.kept import load_with_bar, measure
from progressive_attention.evaluation.summaries import percent
from progressive_attention.files import write_json
from progressive_attention.reproduce.campaign import add_to_table, print_plain, read_table
from progressive_attention.reproduce.jobs import weights_of
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.reproduce.runs import LATER, Run, name_of, place_of
from progressive_attention.saved import load

REPORT = "remeasured.json"
TOLERANCE = 1e-6  # less than one question of a million; sums of float32 differ by less between machines


class Comparison(NamedTuple):
    """Old figures beside new ones: how many, how many are the same to the last bit, and those beyond TOLERANCE.

    A change is the ``key`` of a figure, with ``old`` and ``new``; of a curve only its largest.
    """

    compared: int
    identical: int
    changes: list[dict[str, Any]]


def remeasure(out: Path, device: torch.device, command: str, console: Console) -> dict[str, str]:
    """Measure the runs that have weights and lack a figure of today's, then write REPORT; returns why runs failed.

    Each run goes into table1.json when it is measured, and is held by a lock, so that several calls may share a
    folder. Raises ValueError for a folder without weights.
    """
    kept = with_weights(out)
    todo = [name for name, (run, _) in kept.items() if not is_current(run)]
    print_plain(console, f"{len(todo)} of {len(kept)} runs to measure")
    failed = {}
    for i, name in enumerate(todo, 1):
        folder = kept[name][1]
        try:
            with FileLock(folder / ".lock", timeout=0):
                run = with_weights(out)[name][0]  # another process may have measured it since
                if not is_current(run):
                    again = measured_again(run, folder, device, command, console)
                    add_to_table([again], out / "table1.json")
                    print_plain(console, f"{i} of {len(todo)}: {name}: {in_words(again)}")
        except Timeout:
            print_plain(console, f"{name} is another process's")
        except ValueError as error:
            failed[name] = str(error)
    write_json(out / REPORT, report_of(read_table(out / "table1.json")))
    return failed


def with_weights(out: Path) -> dict[str, tuple[Run, Path]]:
    """The runs of table1.json and the folders of their weights by name, largest budget first, in the tables' order.

    Raises ValueError where there are none.
    """
    runs = sorted(read_table(out / "table1.json"), key=place_in_table)
    kept = {name_of(run): (run, weights_of(name_of(run), out)) for run in runs}
    kept = {name: (run, folder) for name, (run, folder) in kept.items() if folder.exists()}
    if not kept:
        raise ValueError(f"{out} holds no table1.json with weights of its runs; give a folder of 'pan reproduce'")
    return kept


def place_in_table(run: Run) -> tuple[Any, ...]:
    """The order of runs."""
    return -run["images"], place_of(run["model"]), place_of(run["dataset"]), run["variant"], run["seed"]


def is_current(run: Run) -> bool:
    """Whether it has all that is measured today."""
    return {*LATER} <= run.keys()


def measured_again(run: Run, folder: Path, device: torch.device, command: str, console: Console) -> Run:
    """The run with the figures of today's measurement, and under "measured" where these come from, beside what changed
    by it. Raises ValueError as ``load`` does.
    """
    network = load(folder, device)
    scenes = {"protocol": run["protocol"], "seed": run["seed"], "images": run["images"]}
    test = load_with_bar(console, run["dataset"], "test", **scenes)
    figures, _ = measure(network, test, scenes, device, console)
    machine = {"hardware": hardware(device), "torch": torch.__version__, "commit": commit(), "command": command}
    return {**run, **figures, "measured": {**machine, **compare(run, figures)._asdict()}}


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


def in_words(run: Run) -> str:
    """What a new measurement gave."""
    measured = run["measured"]
    text = f"accuracy {percent(run['accuracy'])}, {measured['identical']} of {measured['compared']} figures as before"
    changes = [f"{change['key']} {change['old']} -> {change['new']}" for change in measured["changes"]]
    return "; ".join([text, *changes])


def report_of(runs: Sequence[Run]) -> dict[str, Any]:
    """How many runs were measured again and figures compared, on which machines, and what changed in each run."""
    measured = {name_of(run): run["measured"] for run in runs if "measured" in run}
    return {
        "runs": len(measured),
        "hardware": sorted({again["hardware"] for again in measured.values()}),
        "tolerance": TOLERANCE,
        "compared": sum(again["compared"] for again in measured.values()),
        "identical": sum(again["identical"] for again in measured.values()),
        "changes": {name: again["changes"] for name, again in measured.items() if again["changes"]},
    }
