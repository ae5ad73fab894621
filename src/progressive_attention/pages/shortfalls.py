"""Where we fall short of the papers: every figure of ours below theirs is named, and explained by a note."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from progressive_attention.config import STYLES
from progressive_attention.pages.results_tables import Rows, papers_of, points_above
from progressive_attention.reproduce.runs import MAPS, ROWS, Estimate

FIGURES = ("accuracy", "tpr")
CELLS = [f"{dataset}/{model}" for dataset in STYLES for model in ROWS]


class Note(NamedTuple):
    """Why a figure of some cells falls short."""

    figure: str  # one of FIGURES
    cells: Sequence[str]  # patterns of data set and model: "mbg/san", "*/pan-*"
    text: str  # without results, which the runs give
    images: int | None = None  # only of runs with so many; None: of any

    def explains(self, figure: str, cell: str, images: int) -> bool:
        """Whether it is about this figure of a cell like "mbg/san", from runs with so many images."""
        matches = any(fnmatchcase(cell, pattern) for pattern in self.cells)
        return figure == self.figure and self.images in (None, images) and matches


def notes_of(written: Any) -> list[Note]:
    """What notes.json holds: a list of objects with a note's fields.

    Raises ValueError for another form, for patterns that no cell has, and for numbers, which must come from runs.
    """
    if not isinstance(written, list):
        raise ValueError(f"notes must be a list of objects with figure, cells and text, got {written!r}")
    return [note_of(one) for one in written]


def note_of(written: Any) -> Note:
    """One of them; raises ValueError as ``notes_of``."""
    fields = set(Note._fields)
    if not isinstance(written, Mapping) or not fields - {"images"} <= written.keys() <= fields:
        raise ValueError(f"notes: got {written!r}; write an object with figure, cells, text and perhaps images")
    note = Note(**written)
    if note.figure not in FIGURES:
        raise ValueError(f"notes: unknown figure {note.figure!r}; write one of {', '.join(FIGURES)}")
    if not isinstance(note.cells, list) or not note.cells:
        raise ValueError(f"notes: cells is {note.cells!r}; write a list of data sets and models, like {CELLS[0]}")
    for pattern in note.cells:
        if not isinstance(pattern, str) or not any(fnmatchcase(cell, pattern) for cell in CELLS):
            raise ValueError(f"notes: no cell is called {pattern!r}; write data set and model, like {CELLS[0]}")
    if not isinstance(note.text, str) or not note.text or re.search(r"\d[.,]\d|\d ?%", note.text):
        raise ValueError(
            f"notes: got the text {note.text!r}; write an explanation without results, which the runs give"
        )
    if note.images is not None and type(note.images) is not int:
        raise ValueError(f"notes: images is {note.images!r}; write how many the runs train on, like 30000")
    return note


def shortfalls(papers: Rows, images: int, notes: Sequence[Note]) -> dict[str, list[str]]:
    """Each figure below the papers' as a sentence, by the first note that explains it; "": those that none explains.

    ``papers``: the cells of the papers' rows, whose runs train on so many ``images``. True-positive ratios are those of
    the flow map, or of the best map where there is no such.
    """
    found: dict[str, list[str]] = {}
    for (model, _), sets in papers.items():
        for dataset, cell in sets.items():
            accuracy, ratio, _ = papers_of(dataset, model)
            ratios = {name: one for name in MAPS if (one := cell.mean(f"tpr_{name}"))}
            first = "flow" if "flow" in ratios else max(ratios, key=lambda name: ratios[name].value, default="")
            told = {
                "accuracy": below("accuracy", cell.accuracy(), accuracy),
                "tpr": below(f"TPR ({first} map)", ratios.get(first), ratio),
            }
            for figure, sentence in told.items():
                if sentence:
                    explained = (n.text for n in notes if n.explains(figure, f"{dataset}/{model}", images))
                    found.setdefault(next(explained, ""), []).append(f"{dataset.upper()}, {ROWS[model]}: {sentence}")
    return dict(sorted(found.items(), key=lambda item: item[0] != ""))  # else what none explains would seem to be


def below(what: str, found: Estimate | None, papers: float | None) -> str:
    """By how much ours is below the papers' number, "" where it is not."""
    if found is None or papers is None or points_above(found, papers) >= 0:
        return ""
    inside = found.high is not None and papers <= 100 * found.high
    text = f"{what} {100 * found.value:.2f}, {-points_above(found, papers):.2f} points below {papers:.2f}"
    return text + " (which lies in our 95 % interval)" * inside
