"""How fast the package is here, side by side with what else there is: `make bench SUITE=step QUICK=1 JSON=step.json`.

The report is written after each figure: {"about": where it comes from, "records": [timing.Record, ...]}.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.growth import draw_growth, growth_records
from benchmarks.pipeline import load_records, render_records
from benchmarks.steps import step_records
from benchmarks.timing import Record, Watch, three_digits
from benchmarks.waiting import accuracy_records, latency_records
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.files import write_json
from progressive_attention.progress import bars
from progressive_attention.reproduce.machine import commit, hardware

NEVER_QUICK = ("time-to-accuracy", "growth")
SUITES = {
    "step": "training steps beside the plain reading of the paper, the attention-free CNN and the machine's limit",
    "inference": "forward alone beside the same, latency, cold start and import",
    "render": "scenes a second",
    "load": "images a second, and a whole evaluation",
    "time-to-accuracy": "wall seconds from an empty process to 98.5 % on MREF",
    "growth": "time and memory by images, questions, queries, attributes and pixels",
}


def records_of(suite: str, quick: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """The records of a suite, one by one."""
    if suite in ("step", "inference"):
        yield from step_records(quick, suite == "step", device, watch)
    if suite == "inference":
        yield from latency_records(quick, device, watch)
    if suite == "render":
        yield from render_records(quick, watch)
    if suite == "load":
        yield from load_records(quick, device, watch)
    if suite == "time-to-accuracy":
        yield from accuracy_records(device, watch)
    if suite == "growth":
        yield from growth_records(device, watch)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the report after each figure, end with a table."""
    started, words = time.monotonic(), list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words)
    asked = list(SUITES) if arguments.suite == "all" else [arguments.suite]
    names = [name for name in asked if not (arguments.quick and name in NEVER_QUICK)]
    if not names:
        parser().error(f"suite {arguments.suite} has no quick form; leave QUICK out, or choose another suite")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a process that is measured ends then, too
    device, records = pick_device(arguments.device), []
    command, date = shlex.join(["python", "-m", "benchmarks.bench", *words]), datetime.now(UTC)
    about: dict[str, Any] = {"hardware": hardware(device), "commit": commit(), "command": command}
    about |= {"torch": torch.__version__, "date": date.isoformat(timespec="seconds")}
    with bars(Console(stderr=True)) as progress:
        task = progress.add_task("bench", total=len(names), note="")
        for name in names:
            for record in records_of(name, arguments.quick, device, lambda text: progress.update(task, note=text)):
                records.append(record)
                about["seconds"] = round(time.monotonic() - started, 1)
                write_json(arguments.json, {"about": about, "records": [asdict(record) for record in records]})
            progress.advance(task)
    if "growth" in names:
        draw_growth(records, about["hardware"], arguments.json.with_suffix(".png"))
    console = Console()
    if not console.is_terminal:  # a file has no width
        console.width = 180
    console.print(table_of(records))
    print(f"all figures, and what was measured where: {arguments.json}")


def parser() -> argparse.ArgumentParser:
    """The options, with every suite in the help."""
    suites = "".join(f"\n  {name:18s}{about}" for name, about in SUITES.items())
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benchmarks.bench", epilog=f"suites:{suites}", formatter_class=form)
    parser.add_argument("--suite", choices=[*SUITES, "all"], default="all", metavar="SUITE", help="default: all")
    parser.add_argument("--quick", action="store_true", help="about a minute: few figures, some suites left out")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the report")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    return parser


def table_of(records: Sequence[Record]) -> Table:
    """A line for each record: the median, its smallest and largest, and the ratio with what it is compared with."""
    table = Table("measured", "median", "ratio", "compared with", box=SIMPLE_HEAD)
    table.title = "a ratio above 1: ours is faster"
    last = None
    for record in records:
        what = record.what if record.dtype == "-" else f"{record.what}, {record.dtype}"
        value = f"{figures(record.value, record.low, record.high)} {record.unit}"
        ratio = "" if record.ratio is None else figures(record.ratio, record.ratio_low, record.ratio_high)
        same = (what, value) == last
        table.add_row("" if same else what, "" if same else value, ratio, record.against or "")
        last = what, value
    return table


def figures(median: float, low: float | None, high: float | None) -> str:
    """Three digits each: "12.3 (11.9 to 13.0)"; one figure where there is no spread."""
    if low is None or high is None or low == high:
        return three_digits(median)
    return f"{three_digits(median)} ({three_digits(low)} to {three_digits(high)})"


if __name__ == "__main__":
    main()
