"""README and docs as programs: their fenced blocks in order, and what runs them."""

import re
import shlex
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from progressive_attention.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
PICTURE = "src/progressive_attention/assets/examples/mref.png"


class Block(NamedTuple):
    """A fenced block, the line of its page where its code starts, and the block of ``text`` right below it."""

    language: str
    code: str
    line: int
    shown: str = ""


def blocks(page: Path, *languages: str) -> list[Block]:
    """A page's fenced blocks in order, of these languages or all."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = -1
    for match in FENCE.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        if match["language"] == "text" and not text[end : match.start()].strip() and found:
            found[-1] = found[-1]._replace(shown=code)
        found.append(Block(match["language"], code, text.count("\n", 0, match.start()) + 2))
        end = match.end()
    return [block for block in found if not languages or block.language in languages]


def commands(code: str) -> list[str]:
    """The commands of a block of bash, one a line, without comments; a backslash at the end joins lines."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def name_of(page: Path) -> str:
    """README.md, docs/tour.md, ..."""
    return page.relative_to(ROOT).as_posix()


def copy_for_reader(folder: Path) -> Path:
    """What a reader has who stands in a clone: code, examples, and a picture.png of one's own."""
    (folder / "src").symlink_to(ROOT / "src")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns(".*"))
    shutil.copyfile(ROOT / PICTURE, folder / "picture.png")
    return folder


def run_page(
    page: Path, capsys: pytest.CaptureFixture[str], left_out: Container[str] = ()
) -> tuple[dict[str, str], dict[str, Any]]:
    """Run a page in the working directory, in order, in one namespace; what each command printed, and the namespace.

    Every block of Python and every command ``pan``, but those in ``left_out``. Any that fails, fails; and so does a block
    of text right below one, if a line of it is not in what was printed.
    """
    said: dict[str, str] = {}
    space: dict[str, Any] = {}
    for block in blocks(page, "python", "bash"):
        place = f"{name_of(page)}, line {block.line}"
        capsys.readouterr()
        printed = ""
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), space)
            printed = capsys.readouterr().out
        else:
            for command in commands(block.code):
                if command.startswith("pan ") and command not in left_out:
                    code = main(shlex.split(command)[1:])
                    told = capsys.readouterr()
                    assert code == 0, f"{place}: {command}: {told.err}"
                    said[command] = told.out
                    printed += told.out
        for line in block.shown.splitlines() if printed else ():
            assert line in printed, f"{place}: shows {line!r}, printed was {printed}"
    return said, space
