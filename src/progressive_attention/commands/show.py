"""What the commands do that show what there is, ``pan render`` and ``pan list``; they need no torch."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from progressive_attention.config import ALIASES, MODELS, PROTOCOLS, RECIPES, STYLES
from progressive_attention.data.scenes import COLOURS, SceneSource
from progressive_attention.files import read_json
from progressive_attention.pages.plots import contact_sheet
from progressive_attention.saved import weights

SCENE_OPTIONS = ("protocol", "seed", "images", "backgrounds")


def scene_arguments(
    arguments: argparse.Namespace, learnt: Mapping[str, Any] | None = None, data: str | None = None
) -> dict[str, Any]:
    """The options that all commands share about scenes; where not given those of the training, ``learnt``, if known.

    Raises ValueError for options that ``data``, no scenes, would ignore; a training takes its seed for itself as well.
    """
    ignored = [name for name in SCENE_OPTIONS if learnt is not None or name != "seed"]
    given = [name for name in ignored if getattr(arguments, name, None) is not None]
    if data is not None and data not in STYLES and given:
        told = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{told} is about scenes that are drawn ({', '.join(STYLES)}), not about {data}; leave it out")
    options = {"backgrounds": arguments.backgrounds}
    for name, value in {"protocol": PROTOCOLS[0], "seed": 0, "images": None}.items():
        given = getattr(arguments, name, None)
        options[name] = given if given is not None else (learnt or {}).get(name, value)
    return {name: value for name, value in options.items() if name != "images" or value is not None}


def render(arguments: argparse.Namespace) -> None:
    """A contact sheet of the first scenes of a split."""
    from rich.console import Console  # only now: `pan list` needs none

    from progressive_attention.progress import counting

    options = scene_arguments(arguments)
    images, captions = [], []
    with counting(Console(stderr=True), f"rendering {arguments.style}", "scenes") as progress:
        source = SceneSource(arguments.style, arguments.split, **options)
        for index in range(arguments.count):
            scene = source.scene(index)
            images.append(source.render(scene)[0])
            asked = scene.digits[scene.asked]
            captions.append(f"{asked.number}? {COLOURS[asked.colour]}")
            progress(index + 1, arguments.count)
    part = "one pool for all splits" if source.split == "pool" else f"{arguments.split} split"
    title = f"{arguments.style} · {part} · protocol {options['protocol']} · seed {options['seed']}"
    contact_sheet(images, captions, arguments.out, title)
    print(f"{arguments.count} scenes with question and answer: {arguments.out}")


def listing() -> dict[str, Any]:
    """What this installation knows."""
    shipped = {}
    for name in weights.shipped():
        about = read_json(weights.SHIPPED / name / "config.json")
        shipped[name] = {"model": about.get("name"), "data": about.get("data"), "test": about.get("test")}
    return {
        "models": list(MODELS),
        "aliases": ALIASES,
        "weights": shipped,
        "data": {
            "mref": "coloured digits on black",
            "mdist": "coloured digits over distractors",
            "mbg": "coloured digits over photographs",
        },
        "protocols": list(PROTOCOLS),
        "recipes": list(RECIPES),
    }


def show_list(arguments: argparse.Namespace) -> None:
    """Models, weights and data sets."""
    known = listing()
    if arguments.json:
        print(json.dumps(known))
        return
    print("models:   " + ", ".join(known["models"]))
    print("          " + ", ".join(f"{old} ({name}'s name of 2016)" for old, name in known["aliases"].items()))
    print("data:     " + ", ".join(f"{name} ({what})" for name, what in known["data"].items()))
    print("          or a folder with a manifest, or an .npz file")
    print("recipes:  " + ", ".join(known["recipes"]) + "; protocols: " + ", ".join(known["protocols"]))
    print("weights:")
    for name, card in known["weights"].items():
        accuracy = (card["test"] or {}).get("accuracy")
        measured = "not measured" if accuracy is None else f"test accuracy {accuracy:.2%}"
        print(f"  {name:22s} {card['model']} on {card['data']}, {measured}")


COMMANDS = {"render": render, "list": show_list}
