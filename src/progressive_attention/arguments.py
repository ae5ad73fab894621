"""What may stand behind the options of ``pan``: text in, checked values out; and options that commands share."""

import argparse
from pathlib import Path

from progressive_attention.config import PROTOCOLS, SPLITS, TARGETS

UNITS = {"s": 1, "m": 60, "h": 3600}


def positive(text: str) -> int:
    """A whole number of at least one."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {value}")
    return value


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


def words(text: str) -> list[str]:
    """Names between commas, at least one."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"expected names between commas, got {text!r}")
    return found


def splits(text: str) -> str:
    """A split, or several between commas."""
    if unknown := [word for word in words(text) if word not in SPLITS]:
        raise argparse.ArgumentTypeError(f"expected {', '.join(SPLITS)}, or several between commas, got {unknown[0]!r}")
    return ",".join(words(text))


def target(text: str) -> str:
    """A target that ships, or the path of an experiment's file."""
    if text not in TARGETS and not text.endswith(".toml"):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(TARGETS)}, or a file NAME.toml, got {text!r}")
    return text


def seeds(text: str) -> list[int]:
    """Whole numbers between commas."""
    try:
        return [int(word) for word in words(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected whole numbers between commas, got {text!r}") from error


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


def scene_options(parser: argparse.ArgumentParser, trained: bool = False) -> None:
    """Options of the synthetic sets; of a ``trained`` network those of its training are the default."""
    before = "the training's, else " if trained else ""
    made = f"how the set is made: docs/protocols.md (default: {before}paper)"
    parser.add_argument("--protocol", choices=PROTOCOLS, help=made)
    if trained:
        held = "training images; validation and test hold a third as many scenes (default: the training's, else 30000)"
        parser.add_argument("--images", type=positive, help=held)
    drawn = f"of scenes{'' if trained else ' and training'} (default: {before}0)"
    parser.add_argument("--seed", type=int, help=drawn)
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="photographs for mbg, instead of the shipped")
    parser.add_argument("--mnist-dir", type=Path, metavar="DIR", help="the four MNIST files, instead of the shipped")
