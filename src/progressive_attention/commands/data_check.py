"""Open every image and mask of a data set and report what is wrong; exit code 1 if rows are unusable.

examples:
  pan data check birds
  pan data check birds --json > birds.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.commands import arguments as shared

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN, SHOWN_SUBJECTS, SHOWN_ROWS, SHOWN_WORDS = 3, 3, 8, 10  # of each finding, item, ...; --json gives all


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan data check``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="an imported data set, or a folder with a manifest")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON, not only the first few")


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong with a data set; returns 1 if that keeps rows from being used, else 0."""
    from rich.console import Console

    from progressive_attention.data.audit import audit
    from progressive_attention.progress import counting

    with counting(Console(stderr=True), f"opening {arguments.folder}", "files") as progress:
        report = audit(arguments.folder, progress)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)
    return 1 if report["errors"] else 0


def show(report: Mapping[str, Any]) -> None:
    """An audit's report for a person: sizes, words, findings, and what comes next."""
    from rich.console import Console

    from progressive_attention.data.table import REJECTED_TABLE

    Console().print(size_table(report["splits"], f"{report['folder']}, {report['images']:,} images"))
    lines = [f"{kind}: {words(counts)}" for kind, counts in report["words"].items()]
    for finding in report["findings"]:
        items = finding["items"]
        number = f" ({len(items):,})" if len(items) > 1 else ""
        lines += [
            "",
            f"{finding['severity']}: {finding['kind']}{number}",
            *(f"  {line(item)}" for item in items[:SHOWN]),
        ]
        if len(items) > SHOWN:
            lines.append(f"  and {len(items) - SHOWN:,} more: --json gives all")
        lines.append(f"  what to do: {finding['remedy']}")
    counts = ((report[f"{severity}s"], severity) for severity in ("error", "warning", "note"))
    total = ", ".join(f"{count:,} {severity}{'' if count == 1 else 's'}" for count, severity in counts)
    usable = sum(split["usable"] for split in report["splits"].values())
    lines += ["", f"{total}; {usable:,} of {report['rows']:,} rows can be used"]
    if report["rejected"]:
        lines.append(f"rejected before, by the import: {report['rejected']:,}, in {REJECTED_TABLE} with the reasons")
    if any(item["rows"] for finding in report["findings"] for item in finding["items"]):
        lines.append(f"rows count from 1, the first in {report['table']}")
    can_train = report["words"]["attribute"] and all(report["splits"][name]["rows"] for name in ("train", "validation"))
    if can_train and not report["errors"]:
        lines.append(f"next: pan train --data {report['folder']} --out runs/mine")
    print(*map(printable, lines), sep="\n")


def size_table(splits: Mapping[str, Mapping[str, int]], title: str) -> "Table":
    """One row for each split, one column for each of its counts."""
    from rich.table import Table
    from rich.text import Text

    table = Table("split", title=Text(printable(title)), title_justify="left")
    for name in next(iter(splits.values())):
        table.add_column(name, justify="right")
    for split, counts in splits.items():
        table.add_row(split, *(f"{count:,}" for count in counts.values()))
    return table


def words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many words there are, and the most frequent with their rows."""
    rows = {word: sum(by_split.values()) for word, by_split in counts.items()}
    frequent = [f"{word} {rows[word]:,}" for word in sorted(rows, key=lambda word: -rows[word])]
    return f"{len(rows):,} words: {listing(frequent, SHOWN_WORDS)}" if rows else "no words"


def line(item: Mapping[str, Any]) -> str:
    """An item of a finding: what it is about, its rows, and what is the matter."""
    rows = item["rows"]
    where = f" (row{'s' if len(rows) > 1 else ''} {listing(rows, SHOWN_ROWS)})" if rows else ""
    about = listing(item["subjects"], SHOWN_SUBJECTS) + where
    return ": ".join(part for part in (about, item["detail"]) if part)


def listing(things: Sequence[Any], shown: int) -> str:
    """The first of some things, and whether there are more."""
    more = len(things) - shown
    return ", ".join(map(str, things[:shown])) + (f" and {more:,} more" if more > 0 else "")


def print_plain(console: "Console", text: str) -> None:
    """A line as it is: no markup, and no control characters from somebody's file names."""
    console.print(printable(text), soft_wrap=True, markup=False, highlight=False)


def printable(text: str) -> str:
    """The text with whatever can't be printed, as control characters of file names, written as Python would."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
