"""Names that people typed: written one way, rare plurals read as singulars, and those kept that are seen often."""

import unicodedata
from collections.abc import Iterator, Mapping

import numpy as np

EDGE = " .,;:!?'\"`“”‘’«»"  # stripped from both ends of a name; inside, as in "t.v" or "bull's eye", it stays
RARE_PLURAL = 10  # a plural is a slip where the singular is seen this many times as often, else a class of its own
ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))


def normalise(name: str) -> str:
    """One way of writing: NFKC, case folded, blanks collapsed, no invisible characters, no punctuation at the ends."""
    while True:
        folded = unicodedata.normalize("NFKC", name).casefold()
        shown = "".join(c for c in folded if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
        result = unicodedata.normalize("NFKC", " ".join(shown.split()).strip(EDGE))
        if result == name:
            return result
        name = result


def singulars(name: str) -> Iterator[str]:
    """What a name would be the plural of, three letters or more: fishes -> fish, fishe."""
    if name.endswith("ss"):
        return
    for ending, replacement in ENDINGS:
        singular = name.removesuffix(ending) + replacement
        if name.endswith(ending) and len(singular) >= 3:
            yield singular


def rare_plurals(count: Mapping[str, int]) -> dict[str, str]:
    """Plural -> singular, among names and how often each is seen: at most one "fishes" for RARE_PLURAL "fish".

    Of several singulars the most frequent one counts.
    """
    found = {}
    for name, seen in count.items():
        best = max(singulars(name), key=lambda singular: (count.get(singular, 0), singular), default="")
        if count.get(best, 0) >= RARE_PLURAL * max(seen, 1):
            found[name] = best
    # A singular may itself be a rare plural; counts grow at every step, so this ends.
    return {name: follow(found, name) for name in found}


def follow(step: Mapping[str, str], name: str) -> str:
    """Where a chain of steps from ``name`` ends."""
    while name in step:
        name = step[name]
    return name


def frequent(name: np.ndarray, owner: np.ndarray, mention: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest choice of classes and attributes that are each seen ``least`` times or more *in what is chosen*.

    name (R,) class of each object, owner (M,) the object of each mention of an attribute, mention (M,) which attribute;
    an object has an attribute once at most. Returns the masks of classes (C,) and mentions (M,) that stay; an object
    stays with at least one mention. Both are left out in turns until nothing changes, in any order the same.
    """
    stay = np.ones(len(mention), bool)
    while True:
        objects = np.bincount(owner[stay], minlength=len(name)) > 0
        classes = np.bincount(name[objects], minlength=name.max(initial=-1) + 1) >= least
        attributes = np.bincount(mention[stay], minlength=mention.max(initial=-1) + 1) >= least
        fewer = stay & classes[name[owner]] & attributes[mention]
        if (fewer == stay).all():
            return classes, stay
        stay = fewer
