"""The results as two pages of the same blocks: README.md for the repository, index.html in one file.

Nothing but the runs, the notes and the pictures in the folder goes in: the same folder gives the same bytes.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from progressive_attention.files import read_json, write_text
from progressive_attention.pages.figures import accuracy_by_scale_figure, precision_recall_figure
from progressive_attention.pages.report import page, picture
from progressive_attention.pages.results import Block, Bullets, Heading, Paragraph, Picture, blocks, figures_of
from progressive_attention.pages.results_tables import Entry, Table
from progressive_attention.pages.shortfalls import notes_of
from progressive_attention.reproduce.runs import Run, cells

FIGURES = "figures"
STYLE = """
body { max-width: 84rem; } p, ul { max-width: 60rem; } figure { max-width: 52rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; } h4 { font-size: .95rem; margin: 1rem 0 .3rem; }
table { font-size: .78rem; } th, td { padding: .3rem .22rem; } .numbers thead th[scope=colgroup] { text-align: center; }
.numbers thead th:first-child { text-align: left; } .numbers tbody th { white-space: nowrap; font-weight: 400; }
td b { color: var(--right); } code { font-size: .85em; }
"""


def write_results(runs: Sequence[Run], folder: Path) -> None:
    """Draw the figures into ``folder``/figures, then write the pages. Raises ValueError as ``write_pages``."""
    for name, shown in figures_of(cells(runs)).items():
        accuracy_by_scale_figure(shown, folder / FIGURES, f"accuracy-by-scale-{name}")
        precision_recall_figure(shown, folder / FIGURES, f"precision-recall-{name}")
    write_pages(runs, folder)


def write_pages(runs: Sequence[Run], folder: Path) -> None:
    """Write ``folder``/README.md and index.html from the runs, the pictures in figures/, and notes.json if it is there.

    notes.json explains where we fall short: [{"figure": "tpr", "cells": ["mbg/pan-*"], "text": "..."}]. Pictures named
    qualitative-*.png are shown. Raises ValueError for no runs, for a missing picture, and as ``notes_of``.
    """
    notes = notes_of(read_json(folder / "notes.json")) if (folder / "notes.json").exists() else []
    scenes = sorted(path.stem for path in (folder / FIGURES).glob("qualitative-*.png"))
    parts = blocks(runs, notes, scenes)
    pages = {"README.md": markdown(parts), "index.html": html(parts, folder / FIGURES)}
    for name, text in pages.items():
        write_text(folder / name, text)


def markdown(parts: Sequence[Block]) -> str:
    """The page for a repository."""
    return "\n\n".join(markdown_of(part) for part in parts) + "\n"


def markdown_of(part: Block) -> str:
    """One block in Markdown; what stands over several columns of a table is repeated in each."""
    match part:
        case Heading(level, text):
            return "#" * level + " " + plain(text)
        case Paragraph(text):
            return plain(text)
        case Bullets(items):
            return "\n".join(f"- {plain(item)}" for item in items)
        case Picture(name, alt, caption):
            return f"![{plain(alt)}]({FIGURES}/{name}.png)\n\n{plain(caption)}"
        case Table(groups, head, rows):
            over = [text for text, width in groups for _ in range(width)] or [""] * len(head)
            first = [plain(f"{text} {name}".strip()) for text, name in zip(over, head, strict=True)]
            rule = [":---", *["---:"] * (len(head) - 1)]
            lines = [first, rule, *([markdown_entry(entry) for entry in row] for row in rows)]
            return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_entry(entry: Entry) -> str:
    """A table's cell in Markdown."""
    if entry.code:
        return "<code>" + plain(entry.text) + "</code>" if entry.text else ""
    return f"**{plain(entry.text)}**" if entry.strong else plain(entry.text)


def plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    return re.sub(r"([\\`*_<>\[\]|&])", r"\\\1", " ".join(text.split()))


def html(parts: Sequence[Block], figures: Path) -> str:
    """The page in one file, pictures inside."""
    title = next(part.text for part in parts if isinstance(part, Heading))
    return page(title, [html_of(part, figures) for part in parts], STYLE)


def html_of(part: Block, figures: Path) -> str:
    """One block in HTML; raises ValueError for a picture that is not there."""
    match part:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"
        case Picture(name, alt, caption):
            path = figures / f"{name}.png"
            if not path.exists():
                raise ValueError(f"{path} does not exist; draw the figures first, by 'pan reproduce'")
            return picture(path.read_bytes(), alt, escape(caption))
        case Table(groups, head, rows):
            over = "".join(f"<th scope='colgroup' colspan='{width}'>{escape(text)}</th>" for text, width in groups)
            names = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
            heads = (f"<tr>{over}</tr>\n" if over else "") + f"<tr>{names}</tr>"
            lines = "\n".join(html_row(row) for row in rows)
            return (
                "<div class='wide'><table class='numbers'>\n"
                f"<thead>{heads}</thead>\n<tbody>\n{lines}\n</tbody></table></div>"
            )


def html_row(row: Sequence[Entry]) -> str:
    """A table's line, its first entry the label."""
    label, *entries = row
    return f"<tr><th scope='row'>{escape(label.text)}</th>" + "".join(map(html_entry, entries)) + "</tr>"


def html_entry(entry: Entry) -> str:
    """A table's cell in HTML."""
    text = escape(entry.text)
    if entry.code:
        return f"<td><code>{text}</code></td>"
    return f"<td><b>{text}</b></td>" if entry.strong else f"<td>{text}</td>"
