"""What ``pan data`` does: data sets in, an account of what is in them, and out again."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from progressive_attention.data.audit import SEVERITIES, audit, sizes
from progressive_attention.data.manifest import read_manifest
from progressive_attention.data.table import REJECTED_TABLE, check_free
from progressive_attention.progress import counting

SHOWN, SHOWN_SUBJECTS, SHOWN_ROWS, SHOWN_WORDS = 3, 3, 8, 10  # of each finding, item, ...; --json gives all
COLOURS = dict(zip(SEVERITIES, ("bold red", "bold yellow", "bold cyan"), strict=True))
Progress = Callable[[int, int], None]


def data(arguments: argparse.Namespace) -> int | None:
    """``pan data import``, ``pan data check`` and ``pan data export``."""
    return {"import": import_data, "check": check, "export": export}[arguments.action](arguments)


# --- import -----------------------------------------------------------------------------------------------------------


def import_data(arguments: argparse.Namespace) -> None:
    """Write a data set's folder, and tell what is in it and what isn't."""
    check_free(arguments.out)  # now, not after a long reading
    with counting(Console(stderr=True), f"reading {arguments.source}", "images") as progress:
        about = SOURCES[arguments.source](arguments, progress)
    console, out = Console(), arguments.out
    console.print(size_table(sizes(read_manifest(out).table), f"{out}, from {about['source']}"))
    for title, counts in (
        ("mended", about["mended"]),
        (f"rejected, each row with its reason in {out / REJECTED_TABLE}", about["rejected"]),
    ):
        if any(counts.values()):
            say(console, title)
        for what, count in counts.items():
            if count:
                say(console, f"  {what}: {count:,}")
    for note in about["notes"]:
        say(console, f"note: {note}")
    say(console, f"next: pan data check {out}")


def import_genome(arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Visual Genome."""
    from progressive_attention.data.visual_genome import import_visual_genome

    return import_visual_genome(
        *(arguments.annotations, arguments.images, arguments.out),
        **{name: getattr(arguments, name) for name in ("setting", "min_count", "masks", "splits")},
        progress=progress,
    )


def import_devkit(arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """PASCAL VOC 2007."""
    from progressive_attention.data.voc import import_voc

    return import_voc(arguments.devkit, arguments.out, task=arguments.task)


def import_instances(arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """COCO."""
    from progressive_attention.data.coco import import_coco

    return import_coco(arguments.annotations, arguments.images, arguments.out, attributes=arguments.attributes)


def import_own(arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The user's table; raises ValueError for a file of another form than was said."""
    from progressive_attention.data.table import ending
    from progressive_attention.data.tables import import_table

    if ending(arguments.file) != f".{arguments.source}":
        raise ValueError(f"{arguments.file} must end with .{arguments.source}; say what it is: pan data import --help")
    return import_table(arguments.file, arguments.out, images=arguments.images, masks=arguments.masks)


SOURCES: dict[str, Callable[[argparse.Namespace, Progress], dict[str, Any]]] = {
    "visual-genome": import_genome,
    "voc": import_devkit,
    "coco": import_instances,
    **dict.fromkeys(("csv", "jsonl", "parquet"), import_own),
}


# --- export -----------------------------------------------------------------------------------------------------------


def export(arguments: argparse.Namespace) -> None:
    """Write a data set as Parquet with its images inside."""
    from progressive_attention.data.hub_export import export_parquet

    with counting(Console(stderr=True), f"writing {arguments.out}", "rows") as progress:
        written = export_parquet(arguments.folder, arguments.out, progress)
    print(f"{arguments.out}: {', '.join(f'{split}.parquet {rows:,} rows' for split, rows in written.items())}")
    print(f'next: datasets.load_dataset("parquet", data_dir="{arguments.out}")')


# --- check ------------------------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> int:
    """Print what is wrong with a data set; 1 if that keeps rows from being used, else 0."""
    with counting(Console(stderr=True), f"opening {arguments.folder}", "files") as progress:
        report = audit(arguments.folder, progress)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(Console(), report)
    return 1 if report["errors"] else 0


def show(console: Console, report: Mapping[str, Any]) -> None:
    """An audit's report for a person: sizes, words, and each kind of finding with what to do about it."""
    console.print(size_table(report["splits"], f"{report['folder']}, {report['images']:,} images"))
    for kind, counts in report["words"].items():
        say(console, f"{kind}: {words(counts)}")
    for finding in report["findings"]:
        items = finding["items"]
        console.print()
        head = Text.assemble((finding["severity"], COLOURS[finding["severity"]]), f": {finding['kind']}")
        console.print(head.append(f" ({len(items):,})") if len(items) > 1 else head)
        for item in items[:SHOWN]:
            say(console, f"  {line(item)}")
        if len(items) > SHOWN:
            say(console, f"  and {len(items) - SHOWN:,} more: --json gives all")
        say(console, f"  what to do: {finding['remedy']}")
    told = ", ".join(f"{(n := report[f'{severity}s']):,} {severity}{'s' if n != 1 else ''}" for severity in SEVERITIES)
    usable = sum(split["usable"] for split in report["splits"].values())
    console.print()
    say(console, f"{told}; {usable:,} of {report['rows']:,} rows can be used")
    if any(item["rows"] for finding in report["findings"] for item in finding["items"]):
        say(console, f"rows count from 1, the first in {report['table']}")
    can_train = report["words"]["attribute"] and all(report["splits"][name]["rows"] for name in ("train", "validation"))
    if can_train and not report["errors"]:
        say(console, f"next: pan train --data {report['folder']} --out runs/mine")


def size_table(splits: Mapping[str, Mapping[str, int]], title: str) -> Table:
    """One row for each split, one column for each of its counts."""
    table = Table("split", title=Text(printable(title)), title_justify="left")
    for name in next(iter(splits.values())):
        table.add_column(name, justify="right")
    for split, counts in splits.items():
        table.add_row(split, *(f"{count:,}" for count in counts.values()))
    return table


def words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many words there are, and the most frequent with their rows."""
    rows = {word: sum(by_split.values()) for word, by_split in counts.items()}
    told = [f"{word} {rows[word]:,}" for word in sorted(rows, key=lambda word: -rows[word])]
    return f"{len(rows):,} words: {listing(told, SHOWN_WORDS)}" if rows else "no words"


def line(item: Mapping[str, Any]) -> str:
    """An item of a finding: what it is about, its rows, and what is the matter."""
    rows = item["rows"]
    where = f" (row{'s' if len(rows) > 1 else ''} {listing(rows, SHOWN_ROWS)})" if rows else ""
    about = listing(item["subjects"], SHOWN_SUBJECTS) + where
    return ": ".join(part for part in (about, item["detail"]) if part)


def listing(things: Sequence[Any], shown: int) -> str:
    """The first of some things, and whether there are more."""
    return ", ".join(map(str, things[:shown])) + (f" and {more:,} more" if (more := len(things) - shown) > 0 else "")


def say(console: Console, text: str) -> None:
    """A line as it is: no markup, and no control characters from somebody's file names."""
    console.print(Text(printable(text)), soft_wrap=True)


def printable(text: str) -> str:
    """The text with whatever can't be printed written as Python would."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
