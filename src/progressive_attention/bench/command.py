"""``pan bench``: run suites, write the report after each figure, end with a table."""

import argparse
import signal
import time
from collections.abc import Iterator, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from progressive_attention.bench import NEVER_QUICK, SUITES
from progressive_attention.bench.accuracy import accuracy_records
from progressive_attention.bench.growth import growth_records
from progressive_attention.bench.growth_page import growth_figure
from progressive_attention.bench.inference import inference_records
from progressive_attention.bench.latency import latency_records
from progressive_attention.bench.measure import Record, origin, three_digits, write_report
from progressive_attention.bench.rendering import load_records, render_records
from progressive_attention.bench.steps import step_records
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.files import read_json
from progressive_attention.progress import bars

RECORDS = {
    "step": (step_records,),
    "inference": (inference_records, latency_records),
    "render": (render_records,),
    "load": (load_records,),
    "time-to-accuracy": (accuracy_records,),
    "growth": (growth_records,),
}
WIDTH = 180  # characters of a table that goes into a file


def bench(arguments: argparse.Namespace) -> None:
    """Measure what ``arguments.suite`` names; raises ValueError where it has no quick form."""
    asked = [*SUITES] if arguments.suite == "all" else [arguments.suite]
    names = [name for name in asked if not (arguments.quick and name in NEVER_QUICK)]
    if not names:
        raise ValueError(f"--suite {arguments.suite} has no quick form; leave --quick out, or choose another suite")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the process that is measured ends then, too
    device, records = pick_device(arguments.device), []
    for record in measured(names, arguments.quick, device):
        records.append(record)
        write_report(arguments.json, records, origin(arguments.line, device, time.monotonic() - arguments.started))
    picture = arguments.json.with_suffix(".png")
    if "growth" in names:
        growth_figure(read_json(arguments.json), picture)
    console = Console()
    if not console.is_terminal:  # nobody's window tells how wide
        console.width = WIDTH
    console.print(table_of(records))
    if left_out := [name for name in asked if name not in names]:
        console.print(f"left out because they have no quick form: {', '.join(left_out)}")
    if "growth" in names:
        console.print(f"growth drawn: {picture}", markup=False, highlight=False)
    console.print(f"all figures, and what was measured where: {arguments.json}", markup=False, highlight=False)


def measured(names: Sequence[str], quick: bool, device: torch.device) -> Iterator[Record]:
    """The records of suites, with a bar that tells what is being measured."""
    with bars(Console(stderr=True)) as progress:
        task = progress.add_task("pan bench", total=len(names), note="")

        def watch(text: str) -> None:
            progress.update(task, note=text)

        for name in names:
            for suite in RECORDS[name]:
                yield from suite(quick, device, watch)
            progress.advance(task)


def table_of(records: Sequence[Record]) -> Table:
    """A line for each record: the median, its smallest and largest, and the ratio with what it is compared with."""
    table = Table(box=SIMPLE_HEAD, title="a ratio above 1: ours is faster, or smaller", title_justify="left")
    for heading, style in (("measured", "left"), ("median", "right"), ("ratio", "right"), ("compared with", "left")):
        table.add_column(heading, justify=style)  # type: ignore[arg-type] (one of rich's words)
    last = None
    for record in records:
        what = f"{record.what}, {record.dtype}" if record.dtype != "-" else record.what
        value = "skipped" if record.value is None else f"{figures(record.value, record.low, record.high)} {record.unit}"
        ratio = "" if record.ratio is None else figures(record.ratio, record.ratio_low, record.ratio_high)
        shown = ("", "") if (what, value) == last else (what, value)
        table.add_row(*shown, ratio, record.against or record.details.get("skipped", ""))
        last = what, value
    return table


def figures(median: float, low: float | None, high: float | None) -> str:
    """Three digits each: "12.3 (11.9 to 13.0)"; one figure where there is no spread."""
    if low is None or high is None or low == high:
        return three_digits(median)
    return f"{three_digits(median)} ({three_digits(low)} to {three_digits(high)})"
