"""The command ``pan``: lists the commands, parses, and turns errors into one line. Each command has its module."""

import argparse
import gc
import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from progressive_attention.commands.arguments import Parser, add_command

COMMANDS = (
    "render",
    "data",
    "train",
    "evaluate",
    "absence",
    "predict",
    "report",
    "export",
    "serve",
    "list",
    "quickstart",
    "reproduce",
    "remeasure",
)
DROPPED = {
    "bench": "in a checkout, use `make bench SUITE=step QUICK=1 JSON=FILE.json`",
    "data export": "`datasets` opens manifest.parquet and takes the pictures in: docs/extending.md",
    "--trackio": "use --tensorboard, or log.jsonl in the run's folder",
    "--mnist-dir": "scenes are drawn from the MNIST digits that come with the package: leave it out",
    "--task": "VOC's segmentation is imported: leave it out",
    "--attributes": "put each annotation's attributes into the file of --annotations",
}
WITHOUT_TORCH = ("render", "data", "list")
DISTRIBUTED = ("train", "evaluate")  # what several processes do together
NO_MEMORY = ("allocate memory", "out of memory", "not enough memory")  # torch's words, in RuntimeErrors of many kinds


class ShowVersion(argparse.Action):
    """Looks the version up only when asked for: that costs more than the rest of a --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from progressive_attention import __version__

        print(f"progressive_attention {__version__}")
        parser.exit()


def build_parser() -> Parser:
    """All commands with their options."""
    parser = Parser(
        prog="pan", description="Ask an image about one object; get its attribute and the attention that led there."
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        module = import_module(f"progressive_attention.commands.{name}")
        add_command(commands, name, module.__doc__, module.add_options, module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 2 with one line on what was wrong, 130 if interrupted, or 141 if nobody reads on.

    If there are several processes, the first one prints errors; another one only what ends it alone.
    """
    started, name = time.monotonic(), "pan"
    several = (os.environ.get("WORLD_SIZE") or "1") != "1"
    number = os.environ.get("RANK", "0") if several else "0"
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        check_dropped(words)
        arguments = build_parser().parse_args(words if words or argv is not None else ["--help"])
        name = f"pan {arguments.command}"
        arguments.started, arguments.line = started, shlex.join(["pan", *words])
        code = run(arguments, several)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if (text := one_line(error)) is None:
            raise
        if number != "0" and not isinstance(error, ConnectionError):
            time.sleep(2)  # the first process reports an error that all have; its end ends the others
        process = f"process {number}: " if number != "0" else ""
        print(f"{name}: error: {process}{text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if number == "0":
            print(f"{name}: stopped", file=sys.stderr)
        return 130


def check_dropped(words: Sequence[str]) -> None:
    """Raises ValueError for a command or option of earlier versions, naming what to use instead."""
    for word in [*words[:1], " ".join(words[:2]), *(word.partition("=")[0] for word in words if word.startswith("--"))]:
        if word in DROPPED:
            raise ValueError(f"{word} was dropped; {DROPPED[word]}")


def run(arguments: argparse.Namespace, several: bool) -> int:
    """Do the command's work, as one of ``several`` processes that torchrun started or alone; returns its exit code."""
    if several and arguments.command not in DISTRIBUTED:
        raise ValueError(f"only {' and '.join(DISTRIBUTED)} can be shared by several processes; start it by pan alone")
    if arguments.command not in WITHOUT_TORCH:
        import_torch()
    if not several:
        return arguments.run(arguments) or 0
    from progressive_attention.processes import joined

    with joined():
        return arguments.run(arguments) or 0


def import_torch() -> None:
    """Import torch, never to be searched for garbage: all of it stays, and the end would take half a second longer."""
    if "torch" not in sys.modules:
        gc.disable()
        import_module("torch")
        gc.freeze()
        gc.enable()


def one_line(error: Exception) -> str | None:
    """What was wrong, without line breaks; None for a mistake of ours, whose traceback is wanted."""
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError | RuntimeError):
        return text
    if isinstance(error, RuntimeError) and not any(words in text for words in NO_MEMORY):
        return None
    what = text or "for an unknown purpose"
    return f"not enough memory ({what}); free some, or train with a smaller --batch or --image-size"
