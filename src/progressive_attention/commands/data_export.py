"""Write a data set as Parquet with the images inside, a file a split, for Hugging Face's datasets and its Hub.

examples:
  pan data export birds --out birds-parquet
  pan data import parquet birds-parquet --out birds-again
"""

import argparse
from pathlib import Path

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan data export``."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="an imported data set, or a folder with a manifest")
    add("--out", type=shared.out_folder, required=True, metavar="DIR", help="folder for train.parquet and the others")


def run(arguments: argparse.Namespace) -> None:
    """Write the files and print their sizes."""
    from rich.console import Console

    from progressive_attention.data.hub_parquet import export_parquet
    from progressive_attention.progress import counting

    with counting(Console(stderr=True), f"writing {arguments.out}", "rows") as progress:
        written = export_parquet(arguments.folder, arguments.out, progress)
    print(f"{arguments.out}: {', '.join(f'{split}.parquet {rows:,} rows' for split, rows in written.items())}")
    print(f'next: datasets.load_dataset("parquet", data_dir="{arguments.out}")')
