"""The command ``pan data``: bring data sets in, and check them. The work is in data_commands.py."""

import argparse
from pathlib import Path
from typing import Any

from progressive_attention.commands.arguments import out_folder
from progressive_attention.config import SPLITS

Commands = Any  # what argparse's add_subparsers returns; it has no public name


def documented(commands: Commands, name: str, help: str, example: str) -> argparse.ArgumentParser:
    """A new command whose --help ends with examples."""
    return commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_data_command(commands: Commands) -> None:
    """``pan data import SOURCE``, ``pan data check`` and ``pan data export``."""
    data = documented(
        commands,
        "data",
        "import photographs with questions, check them, and export them",
        "  pan data import csv birds.csv --out birds\n  pan data check birds",
    )
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_import(actions)
    check = documented(
        actions,
        "check",
        "open every image and mask of a data set, and tell what is wrong with it; exit code 1 if rows can't be used",
        "  pan data check birds\n  pan data check birds --json > birds.json",
    )
    check.add_argument("folder", type=Path, metavar="DIR", help="an imported data set, or a folder with a manifest")
    check.add_argument("--json", action="store_true", help="print all that was found as JSON, not only the first few")
    export = documented(
        actions,
        "export",
        "write a data set as Parquet with the images inside, a file a split, for Hugging Face's datasets and its Hub",
        "  pan data export birds --out birds-parquet\n  pan data import parquet birds-parquet --out birds-again",
    )
    export.add_argument("folder", type=Path, metavar="DIR", help="an imported data set, or a folder with a manifest")
    export.add_argument(
        "--out", type=out_folder, required=True, metavar="DIR", help="folder for train.parquet and the others"
    )


def add_import(actions: Commands) -> None:
    """One source of data each."""
    parser = documented(
        actions,
        "import",
        "write a data set's folder, which goes wherever --data stands",
        "  pan data import csv birds.csv --out birds\n"
        "  pan data import visual-genome --annotations vg/ --images vg/ --out genome",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    genome = documented(
        sources,
        "visual-genome",
        "Visual Genome's published JSON files, or their zips",
        "  pan data import visual-genome --annotations vg/ --images vg/ --out genome\n"
        "  pan data import visual-genome --annotations vg/ --images vg/ --setting all --min-count 20 --out genome-20",
    )
    genome.add_argument(
        "--annotations", type=Path, required=True, metavar="DIR", help="image_data, objects and attributes .json"
    )
    images_option(genome, "VG_100K and VG_100K_2, or their zips")
    settings_help = (
        "the papers' selection, split as the paper of that year has it if the number of images is its own, else "
        "50 / 10 / 40 %%; or every class and attribute (default: 2018)"
    )
    genome.add_argument("--setting", choices=("2018", "2016", "all"), default="2018", help=settings_help)
    genome.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="classes and attributes seen N times or more (default: the papers' 101, of all 1)",
    )
    masks_help = "IMAGE_ID.png whose value k is the k-th object (default: masks beside the annotations, if there)"
    genome.add_argument("--masks", type=Path, metavar="DIR", help=masks_help)
    splits_help = f"JSON with image ids for {', '.join(SPLITS)} (default: splits.json there, else as by --setting)"
    genome.add_argument("--splits", type=Path, metavar="FILE", help=splits_help)

    voc = documented(
        sources,
        "voc",
        "PASCAL VOC 2007 in its official layout",
        "  pan data import voc --devkit VOCdevkit --out voc",
    )
    voc.add_argument("--devkit", type=Path, required=True, metavar="DIR", help="VOCdevkit, or VOCdevkit/VOC2007")
    task_help = "segmentation: a row for each class in an image, with its mask"
    voc.add_argument("--task", default="segmentation", help=task_help)

    coco = documented(
        sources,
        "coco",
        "a file of instances in COCO's form",
        "  pan data import coco --annotations instances_val2017.json --images val2017/ --out coco",
    )
    coco.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="instances_*.json")
    images_option(coco, "the images")
    coco.add_argument("--attributes", type=Path, metavar="FILE", help="attributes by annotation id, if in a file apart")

    for source, form in (("csv", "CSV"), ("jsonl", "JSON Lines"), ("parquet", "Parquet")):
        table = documented(
            sources,
            source,
            f"your own table as {form}: image, query, attributes, and what else you have (box, mask, split)",
            f"  pan data import {source} birds.{source} --out birds\n"
            f"  pan data import {source} birds.{source} --images photos/ --masks masks/ --out birds",
        )
        or_folder = ", or a folder of such files; images may be inside" if source == "parquet" else ""
        file_help = f"with the columns image, query, and attributes{or_folder}"
        table.add_argument("file", type=Path, metavar="FILE", help=file_help)
        table.add_argument("--images", type=Path, metavar="DIR", help="where its paths start (default: beside it)")
        table.add_argument(
            "--masks", type=Path, metavar="DIR", help="where its masks' paths start (default: beside it)"
        )
    for source in sources.choices.values():
        source.add_argument("--out", type=out_folder, required=True, metavar="DIR", help="the new data set's folder")


def images_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Where the images are."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=f"folder of {what}")
