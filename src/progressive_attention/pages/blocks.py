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
from typing import Any, NamedTuple

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
    lines = [[table_cell(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, [":---", *["---:"] * (len(header) - 1)])
    return Markdown("\n".join("| " + " | ".join(cells) + " |" for cells in lines))


def table_cell(words: str) -> str:
    """The words of a cell, in which a bar ends nothing."""
    return re.sub(r"(?<!\\)\|", r"\\|", line(words))


def figure_text(figure: Figure, source: str) -> str:
    """A figure as Markdown, with the caption below it."""
    caption = "\\\n" + line(figure.caption) if figure.caption else ""
    return f"![{line(figure.alt)}]({source}){caption}"


def markdown_page(blocks: Iterable[Block]) -> str:
    """The blocks as a README; figures are files beside it."""
    texts = (figure_text(block, str(block.source)) if isinstance(block, Figure) else block for block in blocks)
    return "\n\n".join(texts) + "\n"


def html_page(title: str, blocks: Iterable[Block]) -> str:
    """The blocks as one HTML file, ``title`` its first heading; the figures' sources are PNGs."""
    from jinja2 import Environment
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    pictures: dict[str, tuple[bytes, str]] = {}  # PNG and words by the name that the Markdown has
    texts: list[str] = [heading(1, title)]
    for block in blocks:
        if isinstance(block, Figure):
            assert isinstance(block.source, bytes), "a page in HTML holds its pictures"
            name = f"picture-{len(pictures)}"
            pictures[name] = block.source, block.alt
            block = figure_text(block, name)
        texts.append(block)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", lambda _, tokens, i, *rest: image_tag(*pictures[tokens[i].attrs["src"]]))
    tokens = parser.parse("\n\n".join(texts))
    mark_figures(tokens, {name: png for name, (png, _) in pictures.items()})
    body = parser.renderer.render(tokens, parser.options, {})
    layout = Environment(autoescape=True).from_string(LAYOUT.read_text(encoding="utf-8"))
    return layout.render(title=title, body=Markup(body)) + "\n"


def image_tag(png: bytes, alt: str) -> str:
    """The picture itself, inside the page."""
    width, height = png_size(png)
    data = b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" height="{height}">'


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def mark_figures(tokens: Sequence[Any], pngs: dict[str, bytes]) -> None:
    """Make each paragraph that begins with a picture a figure, and what follows the picture its caption."""
    from markdown_it.token import Token

    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        children = inline.children if opening.type == "paragraph_open" else None
        if children and children[0].type == "image":
            width, _ = png_size(pngs[children[0].attrs["src"]])
            opening.tag = closing.tag = "figure"
            opening.attrSet("class", "half" if width <= HALF else "wide")
            begin, end = (Token("html_inline", "", 0, content=tag) for tag in ("<figcaption>", "</figcaption>"))
            inline.children = [children[0], *([begin, *children[2:], end] if len(children) > 1 else [])]
