"""Import photographs with questions, check them, and export them.

examples:
  pan data import csv birds.csv --out birds
  pan data check birds
"""

import argparse
from pathlib import Path

from progressive_attention.commands import arguments as shared
from progressive_attention.commands import data_check, data_import

EXPORT = """Write a data set as Parquet with the images inside, a file a split, for Hugging Face's datasets and its Hub.

examples:
  pan data export birds --out birds-parquet
  pan data import parquet birds-parquet --out birds-again
"""


def add_options(parser: shared.Parser) -> None:
    """The actions of ``pan data``; each sets its own ``run``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shared.add_command(actions, "import", data_import.__doc__, data_import.add_options, data_import.run)
    shared.add_command(actions, "check", data_check.__doc__, data_check.add_options, data_check.run)
    shared.add_command(actions, "export", EXPORT, export_options, run)


def export_options(parser: shared.Parser) -> None:
    """The options of ``pan data export``."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="an imported data set, or a folder with a manifest")
    add("--out", type=shared.out_folder, required=True, metavar="DIR", help="folder for train.parquet and the others")


def run(arguments: argparse.Namespace) -> None:
    """Export: write the files and print their sizes."""
    from rich.console import Console

    from progressive_attention.data.hub_parquet import export_parquet
    from progressive_attention.progress import counting

    with counting(Console(stderr=True), f"writing {arguments.out}", "rows") as progress:
        written = export_parquet(arguments.folder, arguments.out, progress)
    print(f"{arguments.out}: {', '.join(f'{split}.parquet {rows:,} rows' for split, rows in written.items())}")
    print(f'next: datasets.load_dataset("parquet", data_dir="{arguments.out}")')
