"""Measure finished runs of `pan reproduce` again where they lack a figure, without training.

examples:
  pan remeasure runs/table1
"""

import argparse

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan remeasure``."""
    parser.add_argument("out", type=shared.out_folder, metavar="DIR", help="what `pan reproduce` wrote")
    shared.add_shared(parser, "--device")


def run(arguments: argparse.Namespace) -> None:
    """Measure runs from their weights, each into table1.json when it is done, and write the pages again.

    What training left (time, machine, commit, command) stays; "measured" says where the new figures come from. A run is
    held by a lock, so that several calls may share a folder.
    """
    import torch
    from filelock import FileLock, Timeout
    from rich.console import Console

    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.evaluation.kept import load_with_bar, measure
    from progressive_attention.evaluation.summaries import percent
    from progressive_attention.pages.table1 import write_results
    from progressive_attention.reproduce.campaign import add_to_table, print_plain, read_table
    from progressive_attention.reproduce.jobs import weights_of
    from progressive_attention.reproduce.machine import commit, hardware
    from progressive_attention.reproduce.runs import LATER, name_of
    from progressive_attention.saved import load

    out, device, console = arguments.out, pick_device(arguments.device), Console(stderr=True)
    machine = {"hardware": hardware(device), "torch": torch.__version__, "commit": commit(), "command": arguments.line}
    kept = {name_of(run): run for run in read_table(out / "table1.json") if weights_of(name_of(run), out).exists()}
    if not kept:
        raise ValueError(f"{out} holds no table1.json with weights of its runs; give a folder of 'pan reproduce'")
    todo = {name: run for name, run in kept.items() if not {*LATER} <= run.keys()}
    print_plain(console, f"{len(todo)} of {len(kept)} runs to measure")
    failed = []
    for name, run in todo.items():
        weights, scenes = weights_of(name, out), {key: run[key] for key in ("protocol", "seed", "images")}
        try:
            with FileLock(weights / ".lock", timeout=0):
                network = load(weights, device)
                test = load_with_bar(console, run["dataset"], "test", **scenes)
                figures, _ = measure(network, test, scenes, device, console)
                add_to_table([{**run, **figures, "measured": machine}], out / "table1.json")
                print_plain(console, f"{name}: accuracy {percent(figures['accuracy'])}")
        except Timeout:
            print_plain(console, f"{name} is another process's")
        except ValueError as error:
            failed.append(f"{name} can't be measured: {error}")
    write_results(read_table(out / "table1.json"), out)
    if failed:
        raise ValueError("; ".join(failed))
