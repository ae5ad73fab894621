"""Import a published data set or your own table into a folder for --data.

examples:
  pan data import csv birds.csv --out birds
  pan data import visual-genome --annotations vg/ --images vg/ --out genome
"""

import argparse
from pathlib import Path
from typing import Any

from progressive_attention.commands import arguments as shared
from progressive_attention.commands.data_check import print_plain, size_table
from progressive_attention.config import SPLITS

GENOME = """Visual Genome's published JSON files, or their zips.

examples:
  pan data import visual-genome --annotations vg/ --images vg/ --out genome
  pan data import visual-genome --annotations vg/ --images vg/ --setting all --min-count 20 --out genome-20
"""
VOC = "PASCAL VOC 2007 in its official layout."
COCO = "A file of instances in COCO's form."
VAW = "Visual Attributes in the Wild: its authors' JSON files, with Visual Genome's images."
TABLE = """Your own table as {form}: image, query, attributes, and optionally box, mask, split.

examples:
  pan data import {source} birds.{source} --out birds
  pan data import {source} birds.{source} --images photos/ --masks masks/ --out birds
"""
FORMS = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet"}


def add_options(parser: shared.Parser) -> None:
    """A subcommand for each source."""
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    shared.add_command(sources, "visual-genome", GENOME, genome_options, run)
    shared.add_command(sources, "voc", VOC, voc_options, run)
    shared.add_command(sources, "coco", COCO, coco_options, run)
    shared.add_command(sources, "vaw", VAW, vaw_options, run)
    for source, form in FORMS.items():
        shared.add_command(sources, source, TABLE.format(source=source, form=form), table_options, run)
    for parser in sources.choices.values():
        parser.add_argument("--out", type=shared.out_folder, required=True, metavar="DIR", help="new folder to write")


def genome_options(parser: shared.Parser) -> None:
    """Visual Genome."""
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="DIR", help="image_data, objects and attributes .json")
    add("--images", type=Path, required=True, metavar="DIR", help="folder of VG_100K and VG_100K_2, or their zips")
    settings_help = "the papers' selection (the same for both), or every class and attribute (default: 2018)"
    add("--setting", choices=("2018", "2016", "all"), default="2018", help=settings_help)
    count_help = "classes and attributes seen N times or more (default: the papers' 101; 1 for all)"
    add("--min-count", type=int, metavar="N", help=count_help)
    masks_help = "IMAGE_ID.png whose value k is the k-th object (default: masks beside the annotations, if any)"
    add("--masks", type=Path, metavar="DIR", help=masks_help)
    splits_help = (
        f"JSON with image ids for {', '.join(SPLITS)} (default: splits.json there, else 50 / 10 / 40 %% by a hash)"
    )
    add("--splits", type=Path, metavar="FILE", help=splits_help)


def voc_options(parser: shared.Parser) -> None:
    """PASCAL VOC 2007."""
    add = parser.add_argument
    add("--devkit", type=Path, required=True, metavar="DIR", help="VOCdevkit, or VOCdevkit/VOC2007")


def coco_options(parser: shared.Parser) -> None:
    """COCO."""
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="FILE", help="instances_*.json")
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the images")


def vaw_options(parser: shared.Parser) -> None:
    """VAW."""
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="DIR", help="train_part1, train_part2, val and test .json")
    add("--images", type=Path, required=True, metavar="DIR", help="folder of VG_100K and VG_100K_2, or their zips")


def table_options(parser: shared.Parser) -> None:
    """The user's own table."""
    add = parser.add_argument
    file_help = "table with the columns image, query and attributes; for Parquet also a folder, with images inside"
    add("file", type=Path, metavar="FILE", help=file_help)
    add("--images", type=Path, metavar="DIR", help="folder its image paths are relative to (default: the table's)")
    add("--masks", type=Path, metavar="DIR", help="folder its mask paths are relative to (default: the table's)")


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, and print what it has and what was left out."""
    from rich.console import Console

    from progressive_attention.data.audit import sizes
    from progressive_attention.data.manifest import read_manifest
    from progressive_attention.data.table import REJECTED_TABLE, check_free
    from progressive_attention.progress import counting

    out, console = arguments.out, Console()
    check_free(out)  # now, not after a long reading
    unit = "instances" if arguments.source == "vaw" else "images"
    with counting(Console(stderr=True), f"reading {arguments.source}", unit) as progress:
        about = import_source(arguments, progress)
    console.print(size_table(sizes(read_manifest(out).table), f"{out}, from {about['source']}"))
    rejected = f"rejected, each row with its reason in {out / REJECTED_TABLE}"
    lines = []
    for title, counts in (("repaired", about["mended"]), (rejected, about["rejected"])):
        items = [f"  {what}: {count:,}" for what, count in counts.items() if count]
        lines += [title, *items] if items else []
    for line in [*lines, *(f"note: {note}" for note in about["notes"]), f"next: pan data check {out}"]:
        print_plain(console, line)


def import_source(arguments: argparse.Namespace, progress: Any) -> dict[str, Any]:
    """Import from ``arguments.source``; returns the importer's account. Raises ValueError as the importers do."""
    match arguments.source:
        case "visual-genome":
            from progressive_attention.data.visual_genome import import_visual_genome

            options = {name: getattr(arguments, name) for name in ("setting", "min_count", "masks", "splits", "out")}
            return import_visual_genome(arguments.annotations, arguments.images, **options, progress=progress)
        case "voc":
            from progressive_attention.data.voc import import_voc

            return import_voc(arguments.devkit, arguments.out)
        case "coco":
            from progressive_attention.data.coco import import_coco

            return import_coco(arguments.annotations, arguments.images, arguments.out)
        case "vaw":
            from progressive_attention.data.vaw import import_vaw

            return import_vaw(arguments.annotations, arguments.images, arguments.out, progress=progress)
    from progressive_attention.data.rows import import_table
    from progressive_attention.data.table import ending

    if ending(arguments.file) != f".{arguments.source}":
        raise ValueError(f"{arguments.file} must end with .{arguments.source}; for other forms: pan data import --help")
    return import_table(arguments.file, arguments.out, images=arguments.images, masks=arguments.masks)
