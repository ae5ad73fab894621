"""What the command line is made of: commands, the types of their options, and options that several commands share.

Only the standard library and ``config`` are imported here and at the top of each command's module: ``--help`` and
mistakes are answered at once.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from progressive_attention.config import LARGEST_SEED, PROTOCOLS, SPLITS, STYLES, TARGETS

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
    formatter = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        name, help=text.rstrip("."), description=text, epilog=examples, formatter_class=formatter
    )
    parser.set_defaults(run=run)
    add_options(parser)


# --- types ------------------------------------------------------------------------------------------------------------


def number(kind: type, is_allowed: Callable[[Any], bool], expected: str, remedy: str = "") -> Callable[[str], Any]:
    """Reads a number of a kind, int or float, that is allowed."""
    name = "a whole number" if kind is int else "a number"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {name}, got {text!r}") from error
        if not is_allowed(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}{remedy}")
        return value

    return read


positive = number(int, lambda value: value >= 1, "a whole number >= 1")
price = number(float, lambda value: 0 <= value < float("inf"), "a number >= 0")
share = number(float, lambda value: 0 < value <= 1, "a share in (0, 1]", "; 0.95 keeps 95 %")
seed = number(int, lambda value: 0 <= value <= LARGEST_SEED, f"a whole number >= 0 and at most {LARGEST_SEED:,}")


def up_to(most: int) -> Callable[[str], int]:
    """Reads a whole number from one to ``most``."""
    return number(int, lambda value: 1 <= value <= most, f"a whole number from 1 to {most:,}")


def word(text: str) -> str:
    """Any text but an empty one: that of an unset shell variable would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected some text, got {text!r}; fill it in, a variable may be unset")
    return text


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
        if path.is_dir():
            example = path / f"name{endings[0]}"
            raise argparse.ArgumentTypeError(f"expected a file, and {path} is a folder; add a name, e.g. {example}")
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(endings)}, got {text!r}")
        out_folder(str(path.parent))
        return path

    return file


def words(text: str) -> list[str]:
    """Names between commas, at least one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r}")
    return names


def splits(text: str) -> str:
    """A split, or several between commas."""
    names = words(text)
    if unknown := [name for name in names if name not in SPLITS]:
        raise argparse.ArgumentTypeError(f"expected {', '.join(SPLITS)}, or several between commas, got {unknown[0]!r}")
    return ",".join(names)


def target(text: str) -> str:
    """A shipped target, or the path of an experiment's file."""
    if text not in TARGETS and not text.endswith(".toml"):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(TARGETS)}, or a file NAME.toml, got {text!r}")
    return text


def seeds(text: str) -> list[int]:
    """Seeds between commas."""
    return [seed(number) for number in words(text)]


def epochs(text: str) -> list[int]:
    """Epochs between commas, counted from 1."""
    return [positive(number) for number in words(text)]


def duration(text: str) -> float:
    """Seconds of "90s", "9m", "2h" or "540"."""
    digits, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(digits) * UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time above zero, like 90s, 9m or 2h, got {text!r}")
    return seconds


# --- options that several commands share ------------------------------------------------------------------------------


def dropped(parser: Parser, option: str, instead: str) -> None:
    """An option of earlier versions: using it is an error that names what to use instead."""

    def reject(text: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"this option was dropped; {instead}")

    parser.add_argument(option, type=reject, help=argparse.SUPPRESS)


def device_option(parser: Parser) -> None:
    """Where the network computes."""
    parser.add_argument("--device", help="cpu, cuda, cuda:0, ... (default: a GPU if there is one)")


def json_option(parser: Parser, what: str = "print the figures as JSON, shares in 0..1") -> None:
    """Figures for programs."""
    parser.add_argument("--json", action="store_true", help=what)


def weights_option(parser: Parser) -> None:
    """The trained network."""
    parser.add_argument("--weights", type=word, required=True, metavar="NAME_OR_DIR", help=WEIGHTS_HELP)


def data_option(parser: Parser) -> None:
    """Data for a trained network."""
    parser.add_argument("--data", type=word, help=f"{DATA_HELP} (default: what the network was trained on)")


def vectors_option(parser: Parser) -> None:
    """Words that a network asked by text has not been trained with."""
    more = "an .npz with vectors of words that the network was not trained with, by the same encoder"
    parser.add_argument("--query-embeddings", type=Path, metavar="FILE", help=more)


def scene_options(parser: Parser, trained: bool = False) -> None:
    """Options of the synthetic sets; for a ``trained`` network those of its training are the default."""
    before = "the training's, else " if trained else ""
    made = f"how the set is made: docs/protocols.md (default: {before}paper)"
    parser.add_argument("--protocol", choices=PROTOCOLS, help=made)
    if trained:
        size = "training images; validation and test have a third as many scenes (default: the training's, else 30000)"
        parser.add_argument("--images", type=positive, help=size)
    drawn = f"of scenes{'' if trained else ' and training'} (default: {before}0)"
    parser.add_argument("--seed", type=seed, help=drawn)
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="photographs for mbg, instead of the shipped")
    dropped(parser, "--mnist-dir", "scenes are drawn from the MNIST digits that come with the package: leave it out")


def scene_arguments(
    arguments: argparse.Namespace, learnt: Mapping[str, Any] | None = None, data: str | None = None
) -> dict[str, Any]:
    """What ``scene_options`` read; where not given, the values of the training, ``learnt``, if known.

    Raises ValueError for options that ``data``, if not scenes, would ignore; a training also uses its seed itself.
    """
    given = {name: getattr(arguments, name, None) for name in SCENE_OPTIONS}
    if data is not None and data not in STYLES:
        ignored = [
            name for name, value in given.items() if value is not None and (learnt is not None or name != "seed")
        ]
        if ignored:
            names = ", ".join(f"--{name}" for name in ignored)
            raise ValueError(
                f"{names} is about scenes that are drawn ({', '.join(STYLES)}), not about {data}; leave it out"
            )
    default = {"protocol": PROTOCOLS[0], "seed": 0, **(learnt or {})}
    options = {name: default.get(name) if value is None else value for name, value in given.items()}
    if options["images"] is None:
        del options["images"]
    return {**options, "backgrounds": arguments.backgrounds}
