"""What may stand behind the options of ``pan``: text in, checked values out; and options that commands share."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from progressive_attention.config import PROTOCOLS, SPLITS, TARGETS, checked_seed

UNITS = {"s": 1, "m": 60, "h": 3600}


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from error


def positive(text: str) -> int:
    """A whole number of at least one."""
    if (value := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {value}")
    return value


def up_to(most: int) -> Callable[[str], int]:
    """What reads a whole number of at least one and at most ``most``."""

    def bounded(text: str) -> int:
        if (value := positive(text)) > most:
            raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {most:,}, got {value}")
        return value

    return bounded


def seed(text: str) -> int:
    """What random numbers start from."""
    try:
        return checked_seed("it", whole(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def price(text: str) -> float:
    """A number of at least zero."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from error
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number above zero, at most one."""
    if not 0 < (value := price(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a share in (0, 1], got {text!r}; 0.95 keeps 95 %")
    return value


def word(text: str) -> str:
    """Any text but none: an empty one, as of an unset variable of a shell, would be the folder one stands in."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected some text, got {text!r}; fill it in, a variable may be unset")
    return text


def out_folder(text: str) -> Path:
    """A folder to write into, there or not yet."""
    path = Path(word(text))
    there = next(one for one in (path, *path.parents) if one.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, and {there} is a file; choose another name")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"no permission to write in {there}; choose another folder")
    return path


def out_file(*endings: str) -> Callable[[str], Path]:
    """What reads the path of a file to write, which has one of these endings."""

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
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r}")
    return found


def splits(text: str) -> str:
    """A split, or several between commas."""
    if unknown := [one for one in words(text) if one not in SPLITS]:
        raise argparse.ArgumentTypeError(f"expected {', '.join(SPLITS)}, or several between commas, got {unknown[0]!r}")
    return ",".join(words(text))


def target(text: str) -> str:
    """A target that ships, or the path of an experiment's file."""
    if text not in TARGETS and not text.endswith(".toml"):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(TARGETS)}, or a file NAME.toml, got {text!r}")
    return text


def seeds(text: str) -> list[int]:
    """Seeds between commas."""
    return [seed(one) for one in words(text)]


def epochs(text: str) -> list[int]:
    """Epochs between commas, counted from 1."""
    return [positive(one) for one in words(text)]


def duration(text: str) -> float:
    """Seconds of "90s", "9m", "2h" or "540"."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a time like 90s, 9m or 2h, got {text!r}") from error
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time above zero, got {text!r}")
    return seconds


def device_option(parser: argparse.ArgumentParser) -> None:
    """Where the network computes."""
    parser.add_argument("--device", help="cpu, cuda, cuda:0, ... (default: a GPU where there is one)")


def scene_options(parser: argparse.ArgumentParser, trained: bool = False) -> None:
    """Options of the synthetic sets; of a ``trained`` network those of its training are the default."""
    before = "the training's, else " if trained else ""
    made = f"how the set is made: docs/protocols.md (default: {before}paper)"
    parser.add_argument("--protocol", choices=PROTOCOLS, help=made)
    if trained:
        held = "training images; validation and test hold a third as many scenes (default: the training's, else 30000)"
        parser.add_argument("--images", type=positive, help=held)
    drawn = f"of scenes{'' if trained else ' and training'} (default: {before}0)"
    parser.add_argument("--seed", type=seed, help=drawn)
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="photographs for mbg, instead of the shipped")
