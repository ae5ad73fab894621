"""Every page is Markdown: these functions write its blocks, and ``html_page`` puts them into one HTML file.

Words are escaped unless they are ``Markdown`` already. So names that users wrote (files, queries, attributes) are shown
as they are, in a README and in HTML. The HTML file holds its style sheet and pictures, and fetches nothing.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

LAYOUT = Path(__file__).parents[1] / "assets" / "pages" / "layout.html.j2"
HALF = 900  # pixels: two figures up to this width stand side by side where there is room


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


class Figure(NamedTuple):
    """A picture: its PNG, or its file's path relative to the page; ``alt`` says in words what is to be seen."""

    source: bytes | str
    alt: str
    caption: str = ""


Block = Markdown | Figure


def markdown(words: str) -> Markdown:
    """Plain words as Markdown on one line, nothing in them a sign; what is Markdown already stays."""
    if isinstance(words, Markdown):
        return words
    line = re.sub(r"([\\`*_<>\[\]|&~])", r"\\\1", re.sub(r"\s+", " ", words))
    line = re.sub(r"^( ?)(#{1,6}(?= |$)|[-+]+(?= |$))", r"\1\\\2", line)  # what would begin a heading or list
    return Markdown(re.sub(r"^( ?\d{1,9})([.)](?= |$))", r"\1\\\2", line))


def line(*words: str) -> Markdown:
    """Words and Markdown one after the other."""
    return Markdown("".join(map(markdown, words)).strip())


def strong(words: str) -> Markdown:
    """Bold; in a caption in the colour of what is right."""
    return Markdown(f"**{line(words)}**")


def emphasis(words: str) -> Markdown:
    """Italic; in a caption in the colour of what is wrong."""
    return Markdown(f"*{line(words)}*")


def code(words: str) -> Markdown:
    """As code, backticks included."""
    longest = max(map(len, re.findall("`+", words)), default=0)
    fence = "`" * (longest + 1)
    space = " " * (longest > 0)
    return Markdown(fence + space + re.sub(r"\s+", " ", words) + space + fence)


def heading(level: int, words: str) -> Markdown:
    """Level 1 is the page's title."""
    return Markdown("#" * level + " " + re.sub(r"(#+)$", r"\\\1", line(words)))  # the last would close it


def bullets(items: Iterable[str]) -> Markdown:
    """Items below each other."""
    return Markdown("\n".join("- " + line(item) for item in items))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """A table whose first column holds the labels; the others stand to the right, as numbers do."""
    lines = [
        [re.sub(r"(?<!\\)\|", r"\\|", line(cell)) for cell in row] for row in (header, *rows)
    ]  # a bar ends nothing
    lines.insert(1, [":---", *["---:"] * (len(header) - 1)])
    return Markdown("\n".join("| " + " | ".join(cells) + " |" for cells in lines))


def markdown_page(blocks: Iterable[Block]) -> str:
    """The blocks as a README; figures are files beside it."""
    texts = []
    for block in blocks:
        if isinstance(block, Figure):
            caption = "\\\n" + line(block.caption) if block.caption else ""
            block = f"![{line(block.alt)}]({block.source}){caption}"
        texts.append(block)
    return "\n\n".join(texts) + "\n"


def html_page(title: str, blocks: Iterable[Block]) -> str:
    """The blocks as one HTML file, ``title`` its first heading; the figures' sources are PNGs."""
    from jinja2 import Environment
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = [
        html_figure(block, parser) if isinstance(block, Figure) else parser.render(block)
        for block in (heading(1, title), *blocks)
    ]
    layout = Environment(autoescape=True).from_string(LAYOUT.read_text(encoding="utf-8"))
    return layout.render(title=title, body=Markup("".join(body))) + "\n"


def html_figure(figure: Figure, parser: "MarkdownIt") -> str:
    """The picture itself, inside the page, and its caption."""
    assert isinstance(figure.source, bytes), "a page in HTML holds its pictures"
    width, height = struct.unpack(">II", figure.source[16:24])  # of a PNG
    source = f"data:image/png;base64,{b64encode(figure.source).decode()}"
    image = f'<img src="{source}" alt="{escape(figure.alt)}" width="{width}" height="{height}">'
    caption = f"<figcaption>{parser.renderInline(line(figure.caption))}</figcaption>" if figure.caption else ""
    return f'<figure class="{"half" if width <= HALF else "wide"}">{image}{caption}</figure>\n'
