"""Write an HTML page about a run: how it learnt, what it confuses, where it looks.

examples:
  pan report runs/mref
  pan report runs/mine --data my-folder --out mine.html
  pan report mref-pan
"""

import argparse
import sys

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan report``."""
    add = parser.add_argument
    add("run_or_name", type=shared.word, metavar="RUN", help="a run's folder, or a name of `pan list`")
    add("--out", type=shared.out_file(".html"), metavar="FILE", help="default: report.html in the run")
    add("--data", type=shared.word, help=f"{shared.DATA_HELP} (default: what the run or its evaluation used)")
    add("--split", type=shared.splits, metavar="SPLIT", help="default: test; all of an .npz")
    shared.add_shared(parser, "--query-embeddings", "--device")


def run(arguments: argparse.Namespace) -> None:
    """Write the page, and print where it is and what it lacks."""
    from rich.console import Console

    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.evaluation.kept import home_of
    from progressive_attention.files import write_text
    from progressive_attention.pages.report import render
    from progressive_attention.pages.run_results import gather
    from progressive_attention.predict.text_queries import encoder_of

    device = str(pick_device(arguments.device))
    encode = encoder_of(arguments.query_embeddings)
    name = arguments.run_or_name
    gathered = gather(name, arguments.data, arguments.split, device, Console(stderr=True), encode)
    out = arguments.out or home_of(name) / "report.html"
    write_text(out, render(gathered))
    for gap in gathered.missing:
        print(f"not in the report: {gap}", file=sys.stderr)
    print(f"report: {out}")
