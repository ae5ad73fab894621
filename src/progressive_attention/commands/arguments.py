"""What the command line is made of: commands, the types of their options, and options that several commands share.

Only the standard library and ``config`` are imported here and at the top of each command's module: ``--help`` and
mistakes are answered at once.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from progressive_attention.config import LARGEST_SEED, PROTOCOLS, SPLITS, STYLES, TARGETS

T = TypeVar("T")
UNITS = {"s": 1, "m": 60, "h": 3600}
DATA_HELP = f"{', '.join(STYLES)}, a folder with a manifest, or an .npz file"
WEIGHTS_HELP = "a pretrained network's name (see `pan list`), a run's folder, or owner/name on the Hugging Face Hub"
SCENE_OPTIONS = ("protocol", "seed", "images", "backgrounds")


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_command(
    commands: Any,
    name: str,
    doc: str | None,
    add_options: Callable[[Parser], None],
    run: Callable[[argparse.Namespace], int | None],
) -> None:
    """Add a command to what ``add_subparsers`` returned; ``doc`` is one line, then examples."""
    text, _, examples = (doc or name).partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=text.rstrip("."), description=text, epilog=examples, formatter_class=form)
    parser.set_defaults(run=run)
    add_options(parser)


# --- types ------------------------------------------------------------------------------------------------------------


def option(read: Callable[[str], T], is_allowed: Callable[[T], bool], expected: str) -> Callable[[str], T]:
    """An option's type: ``read`` from text (ValueError where it can't be), and allowed."""

    def parse(text: str) -> T:
        try:
            if is_allowed(value := read(text)):
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def seconds(text: str) -> float:
    """Seconds of "90s", "9m", "2h" or "540"."""
    return float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)


def listed(kind: Callable[[str], int]) -> Callable[[str], list[int]]:
    """Reads several of a kind between commas."""
    return lambda text: [kind(number) for number in words(text)]


positive = option(int, lambda value: value >= 1, "a whole number >= 1")
price = option(float, lambda value: 0 <= value < float("inf"), "a number >= 0")
share = option(float, lambda value: 0 < value <= 1, "a share in (0, 1], like 0.95 for 95 %")
seed = option(int, lambda value: 0 <= value <= LARGEST_SEED, f"a whole number >= 0 and at most {LARGEST_SEED:,}")
word = option(str, lambda text: bool(text.strip()), "some text (a shell variable may be unset)")
words = option(names, bool, "names between commas")
known_splits = f"{', '.join(SPLITS)}, or several between commas"
splits = option(lambda text: ",".join(names(text)), lambda text: {*text.split(",")} <= {*SPLITS}, known_splits)
known_targets = f"one of {', '.join(TARGETS)}, or a file NAME.toml"
target = option(str, lambda text: text in TARGETS or text.endswith(".toml"), known_targets)
duration = option(seconds, lambda value: 0 < value < float("inf"), "a time above zero, like 90s, 9m or 2h")
seeds, epochs = listed(seed), listed(positive)


def out_folder(text: str) -> Path:
    """A folder to write into, which may not exist yet."""
    path = Path(word(text))
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, and {there} is a file; choose another name")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"no permission to write in {there}; choose another folder")
    return path


def out_file(*endings: str) -> Callable[[str], Path]:
    """Reads the path of a file to write, which has one of these endings."""

    def file(text: str) -> Path:
        path = Path(word(text))
        if path.is_dir() or path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(endings)}, got {text!r}")
        out_folder(str(path.parent))
        return path

    return file


# --- options that several commands share ------------------------------------------------------------------------------

SHARED: dict[str, dict[str, Any]] = {
    "--weights": {"type": word, "required": True, "metavar": "NAME_OR_DIR", "help": WEIGHTS_HELP},
    "--data": {"type": word, "help": f"{DATA_HELP} (default: what the network was trained on)"},
    "--device": {"help": "cpu, cuda, cuda:0, ... (default: a GPU if there is one)"},
    "--json": {"action": "store_true", "help": "print the result as JSON, shares in 0..1"},
    "--query-embeddings": {
        "type": Path,
        "metavar": "FILE",
        "help": "an .npz of vectors for new words, from the same encoder",
    },
}


def add_shared(parser: Parser, *options: str) -> None:
    """Add options of ``SHARED``."""
    for name in options:
        parser.add_argument(name, **SHARED[name])


def scene_options(parser: Parser, trained: bool = False) -> None:
    """Options of the synthetic sets; for a ``trained`` network those of its training are the default."""
    add, before = parser.add_argument, "the training's, else " if trained else ""
    add("--protocol", choices=PROTOCOLS, help=f"how the set is made: docs/protocols.md (default: {before}paper)")
    if trained:
        size = "training images; validation and test have a third as many scenes (default: the training's, else 30000)"
        add("--images", type=positive, help=size)
    add("--seed", type=seed, help=f"of scenes{'' if trained else ' and training'} (default: {before}0)")
    add("--backgrounds", type=Path, metavar="DIR", help="background photographs for mbg (default: the package's)")


def scene_arguments(
    arguments: argparse.Namespace, learnt: Mapping[str, Any] | None = None, data: str | None = None
) -> dict[str, Any]:
    """What ``scene_options`` read; where not given, the values of the training, ``learnt``, if known.

    Raises ValueError for options that ``data``, if not scenes, would ignore; a training also uses its seed itself.
    """
    given = {name: value for name in SCENE_OPTIONS if (value := getattr(arguments, name, None)) is not None}
    ignored = [f"--{name}" for name in given if learnt is not None or name != "seed"]
    if ignored and data is not None and data not in STYLES:
        options, drawn = ", ".join(ignored), ", ".join(STYLES)
        raise ValueError(f"{options} is about scenes that are drawn ({drawn}), not about {data}; leave it out")
    known = {"protocol": PROTOCOLS[0], "seed": 0, "backgrounds": None, **(learnt or {}), **given}
    return {name: known[name] for name in SCENE_OPTIONS if name in known}
