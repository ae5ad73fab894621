"""Measure the finished runs of `pan reproduce` again, without training, where they lack a figure of today's.

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
    """Measure them, and write the pages again."""
    from rich.console import Console

    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.pages.table1 import write_results
    from progressive_attention.reproduce.remeasure import remeasure
    from progressive_attention.reproduce.runs import read_runs

    failed = remeasure(arguments.out, pick_device(arguments.device), arguments.line, Console(stderr=True))
    write_results(read_runs(arguments.out / "table1.json"), arguments.out)
    if failed:
        raise ValueError("; ".join(f"{name} can't be measured: {reason}" for name, reason in failed.items()))
