"""Ask a pretrained network, train a small one, compare it with pretrained ones, write a report.

examples:
  pan quickstart --out runs/quickstart
"""

import argparse
from pathlib import Path

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan quickstart``."""
    default = Path("runs/quickstart")
    parser.add_argument("--out", type=shared.out_folder, default=default, metavar="DIR", help=f"default: {default}")
    shared.device_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run it all."""
    from progressive_attention.commands.quickstart_work import quickstart

    quickstart(arguments.out, device=arguments.device)
