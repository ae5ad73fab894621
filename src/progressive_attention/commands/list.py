"""Show models, trained weights and data sets.

examples:
  pan list
  pan list --json
"""

import argparse
import json
from typing import Any

from progressive_attention.commands import arguments as shared
from progressive_attention.config import ALIASES, MODELS, PROTOCOLS, RECIPES

DATA = {
    "mref": "coloured digits on black",
    "mdist": "coloured digits over distractors",
    "mbg": "coloured digits over photographs",
}


def add_options(parser: shared.Parser) -> None:
    """The option of ``pan list``."""
    shared.add_shared(parser, "--json")


def run(arguments: argparse.Namespace) -> None:
    """Print what this installation knows, by kind."""
    from progressive_attention.files import read_json
    from progressive_attention.saved import SHIPPED, shipped

    about = {name: read_json(SHIPPED / name / "config.json") for name in shipped()}
    keys = {"model": "name", "data": "data", "test": "test"}
    known: dict[str, Any] = {
        "models": list(MODELS),
        "aliases": ALIASES,
        "weights": {name: {key: card.get(old) for key, old in keys.items()} for name, card in about.items()},
        "data": DATA,
        "protocols": list(PROTOCOLS),
        "recipes": list(RECIPES),
    }
    if arguments.json:
        print(json.dumps(known))
        return
    print("models:   " + ", ".join(MODELS))
    print("          " + ", ".join(f"{old} ({name}'s name of 2016)" for old, name in ALIASES.items()))
    print("data:     " + ", ".join(f"{name} ({what})" for name, what in DATA.items()))
    print("          or a folder with a manifest, or an .npz file")
    print("recipes:  " + ", ".join(RECIPES) + "; protocols: " + ", ".join(PROTOCOLS))
    print("weights:")
    for name, card in known["weights"].items():
        accuracy = (card["test"] or {}).get("accuracy")
        measured = "not measured" if accuracy is None else f"test accuracy {accuracy:.2%}"
        print(f"  {name:22s} {card['model']} on {card['data']}, {measured}")
