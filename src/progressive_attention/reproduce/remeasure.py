"""The work of ``pan remeasure``: the runs of a table1.json measured again from their weights, without training.

So runs of an earlier version get the figures that are new since. What training left (time, machine, commit, command)
stays; "measured" says where the new figures come from.
"""

from pathlib import Path

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from progressive_attention.evaluation.kept import load_with_bar, measure
from progressive_attention.evaluation.summaries import percent
from progressive_attention.reproduce.campaign import add_to_table, print_plain, read_table
from progressive_attention.reproduce.jobs import weights_of
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.reproduce.runs import LATER, Run, name_of
from progressive_attention.saved import load


def remeasure(out: Path, device: torch.device, command: str, console: Console) -> dict[str, str]:
    """Measure the runs that have weights and lack a figure of today's; returns why runs failed, by name.

    Each run goes into table1.json when it is measured, and is held by a lock, so that several calls may share a
    folder. Raises ValueError for a folder without weights.
    """
    kept = {name: run for name, run in named(out).items() if weights_of(name, out).exists()}
    if not kept:
        raise ValueError(f"{out} holds no table1.json with weights of its runs; give a folder of 'pan reproduce'")
    todo = [name for name, run in kept.items() if not is_current(run)]
    print_plain(console, f"{len(todo)} of {len(kept)} runs to measure")
    failed = {}
    for i, name in enumerate(todo, 1):
        try:
            with FileLock(weights_of(name, out) / ".lock", timeout=0):
                run = named(out)[name]  # another process may have measured it since
                if not is_current(run):
                    again = measured_again(run, out, device, command, console)
                    add_to_table([again], out / "table1.json")
                    print_plain(console, f"{i} of {len(todo)}: {name}: accuracy {percent(again['accuracy'])}")
        except Timeout:
            print_plain(console, f"{name} is another process's")
        except ValueError as error:
            failed[name] = str(error)
    return failed


def named(out: Path) -> dict[str, Run]:
    """The runs of a folder's table1.json by their names."""
    return {name_of(run): run for run in read_table(out / "table1.json")}


def is_current(run: Run) -> bool:
    """Whether it has all that is measured today."""
    return {*LATER} <= run.keys()


def measured_again(run: Run, out: Path, device: torch.device, command: str, console: Console) -> Run:
    """The run with the figures of today's measurement. Raises ValueError as ``load`` does."""
    network = load(weights_of(name_of(run), out), device)
    scenes = {"protocol": run["protocol"], "seed": run["seed"], "images": run["images"]}
    test = load_with_bar(console, run["dataset"], "test", **scenes)
    figures, _ = measure(network, test, scenes, device, console)
    machine = {"hardware": hardware(device), "torch": torch.__version__, "commit": commit(), "command": command}
    return {**run, **figures, "measured": machine}
