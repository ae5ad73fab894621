"""Put a finished run of ``pan reproduce``, with a model card, among the pretrained weights.

    python tools/ship_weights.py results/weights/mref-pan-paper-fast-... mref-pan
    python tools/ship_weights.py results/photographs/runs/flickr8k-attributes-pan-... photographs-pan
    python tools/ship_weights.py                # writes all cards again, from their config.json

The cards hold only what the run's row in table1.json or table2.json, its config.json and tools/cards say; `pan absence
--weights RUN`, run before, adds what it measures of things that are not there. A network outside the package goes to
the repository's folder weights, as float16, and is asked about examples/photographs.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from progressive_attention.config import SPLITS
from progressive_attention.data.rows import import_table
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.evaluate import evaluate
from progressive_attention.files import read_json, write_json, write_text
from progressive_attention.reproduce.campaign import read_table
from progressive_attention.reproduce.runs import name_of
from progressive_attention.saved import CLONE, OUTSIDE, SHIPPED, Trained, load, pretrained, save
from progressive_attention.saved.model_card import model_card

CARDS = Path(__file__).parent / "cards"  # what a card says beyond its config.json
SAMPLE = CLONE / "examples" / "photographs" / "photographs.csv"
SPELLINGS = {"grey": "gray"}  # the sample's word -> that of the captions
TOLD = ("command", "commit", "hardware", "torch", "seconds")
MEASURED = ("count", "accuracy", "count_by_scale", "pointing_", "tpr_")
OF_LABELS = (*MEASURED, "weighted_mean_ap", "mean_ap", "query_prior_", "vaw_", "point_on_", "iou_", "box_iou")


def ship(run: Path, name: str) -> None:
    """Write a run's weights and config.json, with its figures from the table two folders up."""
    table = next(path for path in map(run.parents[1].joinpath, ("table1.json", "table2.json")) if path.exists())
    rows = {name_of(row): row for row in read_table(table)}
    about, result = read_json(run / "config.json"), rows[run.name]
    kept = OF_LABELS if name in OUTSIDE else MEASURED
    test: dict[str, Any] = {key: value for key, value in result.items() if key.startswith(kept)}
    about |= {"test": test, **{key: result[key] for key in TOLD}}
    tensors = load_file(run / "weights.safetensors")
    if name not in OUTSIDE:
        save(SHIPPED / name, tensors, about)
        return
    if paths := [text for text in texts_of(about) if text.startswith("/") or " /" in text or "shared" in text]:
        raise ValueError(f"{run / 'config.json'} or its row names this machine's folders: {paths}; run from one below")
    folder = CLONE / "weights" / name
    save(folder, {key: halved(key, tensor) for key, tensor in tensors.items()}, about)
    write_json(folder / "config.json", {**about, "sample": sample_figures(load(folder))})


def texts_of(value: Any) -> list[str]:
    """All text in a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts_of(part)]


def halved(name: str, tensor: Tensor) -> Tensor:
    """A tensor of floats as float16; raises ValueError for a value that is too large for it."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not half.isfinite().all():
        raise ValueError(f"{name} has values up to {tensor.abs().max():g}, too large for float16 (65,504)")
    return half


def sample_figures(trained: Trained) -> dict[str, Any]:
    """A network's figures on the project's own photographs, all splits together: shares in [0, 1], None for none.

    "count" questions are asked; the others, "rows_with_unknown_query", have no query of the network. Attributes that it
    doesn't know are left out of the questions, "labels_with_unknown_attribute" of them.
    """
    with TemporaryDirectory() as folder:
        import_table(SAMPLE, Path(folder) / "sample")
        side = trained.model.config.image_size
        questions = load_questions(Path(folder) / "sample", ",".join(SPLITS), image_size=side)
        names = tuple(SPELLINGS.get(name, name) for name in questions.attribute_names)
        figures = evaluate(trained, replace(questions, attribute_names=names))
    kept = {key: value for key, value in figures.items() if key.startswith((*OF_LABELS, "rows_", "labels_"))}
    return {key: value for key, value in kept.items() if "mask" not in key}  # the sample has boxes


def card(folder: Path) -> str:
    """The card of a pretrained network, and what tools/cards adds to it."""
    model, about = load(folder).model, read_json(folder / "config.json")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if folder.name not in OUTSIDE:
        return model_card({**about, "license": "apache-2.0"}, folder.name, parameters)
    more = (CARDS / f"{folder.name}.md").read_text(encoding="utf-8")
    return model_card({**about, "license": "other"}, folder.name, parameters, "float16") + "\n" + more


def main() -> None:
    """Write the run's files, if there is one, and all cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder, in runs/ or weights/ beside its table")
    parser.add_argument("name", nargs="?", help="what it shall be called")
    arguments = parser.parse_args()
    if arguments.run and not arguments.name:
        parser.error("give a run's folder and a name, or neither")
    if arguments.run:
        ship(arguments.run, arguments.name)
    for folder in pretrained().values():
        write_text(folder / "README.md", card(folder))
        print(folder / "README.md")


if __name__ == "__main__":
    main()
