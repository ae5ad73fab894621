"""What ``pan report`` does."""

import argparse
import sys

from rich.console import Console

from progressive_attention.evaluation.ask import pick_device
from progressive_attention.evaluation.measured import home_of
from progressive_attention.files import write_text
from progressive_attention.pages.run_page import run_page
from progressive_attention.pages.run_report import gather
from progressive_attention.predict.text_queries import encoder_of


def report(arguments: argparse.Namespace) -> None:
    """Write the page, and tell where it is and what it lacks."""
    device = str(pick_device(arguments.device))
    encode = encoder_of(arguments.query_embeddings)
    found = gather(arguments.run, arguments.data, arguments.split, device, Console(stderr=True), encode)
    out = arguments.out or home_of(arguments.run) / "report.html"
    write_text(out, run_page(found))
    for one in found.missing:
        remedy = f"; `{one.remedy}` supplies it" if one.remedy else ""
        print(f"not in the report: {one.what}: {one.why}{remedy}", file=sys.stderr)
    print(f"report: {out}")
