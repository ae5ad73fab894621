"""The project's own sample of open photographs, examples/photographs: in a clone only, never in the package."""

import csv
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from progressive_attention.saved import CLONE

SAMPLE = CLONE / "examples" / "photographs"


class Question(NamedTuple):
    """One object of a photograph: its query, the attributes that are true, and its box x0 y0 x1 y1 in the file."""

    query: str
    attributes: tuple[str, ...]
    box: tuple[int, int, int, int]


class Photograph(NamedTuple):
    """A file, whose it is, and the questions that can be asked about it."""

    path: Path
    credit: str
    questions: tuple[Question, ...]


def open_photographs(query_names: Collection[str]) -> list[Photograph]:
    """The photographs with questions in these words, in the table's order; none outside a clone."""
    if not (SAMPLE / "photographs.csv").is_file():
        return []
    questions: dict[str, list[Question]] = {}
    for row in rows_of("photographs.csv"):
        if row["query"] in query_names:
            x0, y0, x1, y1 = (int(row[side]) for side in ("x0", "y0", "x1", "y1"))
            question = Question(row["query"], tuple(row["attributes"].split(";")), (x0, y0, x1, y1))
            questions.setdefault(row["image"], []).append(question)
    credits = {row["file"]: credit(row) for row in rows_of("ATTRIBUTION.csv")}
    return [Photograph(SAMPLE / image, credits[image], tuple(asked)) for image, asked in questions.items()]


def credit(row: dict[str, str]) -> str:
    """What a licence asks to be said beside the picture."""
    return f"{row['title']} by {row['author']}, {row['licence']}"


def rows_of(name: str) -> list[dict[str, str]]:
    """A table of the sample."""
    with open(SAMPLE / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
