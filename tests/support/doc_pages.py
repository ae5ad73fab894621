"""README and docs as programs: their fenced blocks in order, and what runs them."""

import doctest
import re
import shlex
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from progressive_attention.cli import main

ROOT = Path(__file__).parents[2]
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

    Every block of Python, every command ``pan`` but those in ``left_out``, and every transcript, of which all must be
    as it stands there. A block of text right below a block must hold only lines of what that printed.
    """
    said: dict[str, str] = {}
    space: dict[str, Any] = {}
    for block in blocks(page, "python", "bash", "console", "pycon"):
        place = f"{name_of(page)}, line {block.line}"
        capsys.readouterr()
        printed = ""
        if block.language == "console":
            run_transcript(block.code, place, capsys)
        elif block.language == "pycon":
            test = doctest.DocTestParser().get_doctest(block.code, space, place, str(page), block.line)
            complaints: list[str] = []
            failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=complaints.append)
            assert not failed, "".join(complaints)
        elif block.language == "python":
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


def run_transcript(code: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run each command behind ``$ ``; what is below it must be all that it says, ``...`` standing for anything.

    An error must be told in that one line, with exit code 2.
    """
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        code_given = main(shlex.split(command)[1:])
        told = capsys.readouterr()
        printed = told.err if code_given else told.out
        pattern = ".*".join(re.escape(piece) for piece in wanted.strip().split("..."))
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{place}: {command}: printed was {printed}"
        assert code_given == (2 if ": error: " in wanted else 0), f"{place}: {command}: exit code {code_given}"
