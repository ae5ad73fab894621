"""A tiny folder of pictures with a table of questions, and runs on it, that several tests share."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from progressive_attention.config import Recipe
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.questions import QuestionSet
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import QuestionNetwork
from progressive_attention.saved import describe
from progressive_attention.training.loop import training

SIDE = 14
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
PLACES = {"left": (1, 4, 6, 10), "right": (8, 4, 13, 10)}  # x0 y0 x1 y1 of the squares, in pixels of 14 x 14
VOID = 9  # the value of what lies between the squares
SMALL = {"hidden": 4, "image_size": SIDE, "attend_at": (0, 1)}


def write_photographs(
    folder: Path, images: int = 12, seed: int = 0, broken: tuple[int, ...] = (), many: bool = True
) -> None:
    """Pictures with a coloured square in each half, and what is asked about them: what is it like, left and right?

    ``many``: a list of attributes, its colour and whether it is warm or cold; else its colour. Every third image is
    twice as large; those in ``broken`` are no pictures. The first two thirds are for training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(images):
        scale = 1 + (i % 3 == 2)
        pixels = rng.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
        owner = np.zeros((SIDE, SIDE), np.uint8)
        owner[:, 6:8] = VOID
        for value, (query, (x0, y0, x1, y1)) in enumerate(PLACES.items(), 1):
            colour = str(rng.choice(list(COLOURS)))
            pixels[y0:y1, x0:x1] = COLOURS[colour]
            owner[y0:y1, x0:x1] = value
            if (i + value) % 4:  # some images have one question only
                listed = [colour, "warm" if colour == "red" else "cold"]
                words = {"attributes": listed} if many else {"attribute": colour}
                box = dict(zip(("x0", "y0", "x1", "y1"), np.array([x0, y0, x1, y1]) * scale, strict=True))
                size = {"width": SIDE * scale, "height": SIDE * scale}
                mask = {"mask": f"{i}-mask.png", "mask_value": value, "mask_void": VOID}
                split = "train" if i < images * 2 / 3 else "validation"
                rows.append({"image": f"{i}.png", "query": query, "split": split, **words, **box, **size, **mask})
        for name, array in {f"{i}.png": pixels, f"{i}-mask.png": owner}.items():
            Image.fromarray(array.repeat(scale, 0).repeat(scale, 1)).save(folder / name)
        if i in broken:
            (folder / f"{i}.png").write_text("no picture")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row, default=int) + "\n" for row in rows))


def photographs(folder: Path, side: int = SIDE) -> tuple[QuestionSet, QuestionSet]:
    """Training and validation set of ``write_photographs``, opened anew."""
    return from_folder(folder, "train", side), from_folder(folder, "validation", side)


def network(train: QuestionSet, name: str = "pan-hard-ctx", seed: int = 0, **changes) -> QuestionNetwork:
    """A small one that fits the set."""
    torch.manual_seed(seed)
    options = {**SMALL, "likelihood": train.likelihood, **changes}
    return build_model(name, num_queries=len(train.query_names), num_attributes=len(train.attribute_names), **options)


def about(model: QuestionNetwork, train: QuestionSet) -> dict:
    return describe(model.config, train.query_names, train.attribute_names)


RECIPE = Recipe("photographs", "adam", 0.01, "step", 3, 3, "all", decay=0.5, decay_start=1)
FROZEN = replace(RECIPE, module_rates=(("stages.0", 0.0), ("classifier", 0.5)))


def run(folder, recipe, out, seed=0, name="pan-hard-ctx", **changes):
    """The training of a network drawn from ``seed``; ``changes`` are ModelConfig's fields."""
    train, validation = photographs(folder, changes.get("image_size", SIDE))
    model = network(train, name, seed, **changes)
    return training(model, train, validation, recipe, out, about(model, train))


def finish(*args, **options):
    for _ in run(*args, **options):
        pass
