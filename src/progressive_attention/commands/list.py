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
    from progressive_attention.saved import OUTSIDE, missing, pretrained

    keys, weights = {"model": "name", "data": "data", "test": "test"}, {}
    for name, folder in pretrained().items():
        card = read_json(folder / "config.json")
        weights[name] = {**{key: card.get(old) for key, old in keys.items()}, "missing": missing(name)}
    known: dict[str, Any] = {
        "models": list(MODELS),
        "aliases": ALIASES,
        "weights": weights,
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
        print(f"  {name:22s} {card['model']} on {card['data']}, {measured(card['test'] or {})}")
        if card["missing"]:
            print(f"  {'':22s} {card['missing']}")
    for name in sorted(OUTSIDE.keys() - known["weights"].keys()):
        print(f"  {name:22s} not in the package; in the project's repository: weights/{name}")


def measured(test: dict[str, Any]) -> str:
    """The main figure of an evaluation, in words."""
    scores = {"accuracy": "test accuracy", "weighted_mean_ap": "test mAP weighted by frequency"}
    named = [f"{title} {test[key]:.2%}" for key, title in scores.items() if test.get(key) is not None]
    return named[0] if named else "not measured"
