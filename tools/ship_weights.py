"""Put a finished run of ``pan reproduce``, with a model card, among the weights that ship.

    python tools/ship_weights.py results/weights/mref-pan-paper-fast-... mref-pan
    python tools/ship_weights.py                # writes the cards of all that ship again, from their config.json

The cards hold only what the run's row in table1.json and its config.json say; `pan absence --weights RUN`, run before,
adds what it measures of things that are not there.
"""

import argparse
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from progressive_attention.files import read_json, write_text
from progressive_attention.reproduce.runs import name_of, read_runs
from progressive_attention.saved import SHIPPED, load, save, shipped
from progressive_attention.saved.model_card import model_card

TOLD = ("command", "commit", "hardware", "torch", "seconds")
MEASURED = ("count", "accuracy", "count_by_scale", "pointing_", "tpr_")


def ship(run: Path, name: str) -> None:
    """Write a run's weights and config.json, with its figures from the table two folders up."""
    rows = {name_of(row): row for row in read_runs(run.parents[1] / "table1.json")}
    about, result = read_json(run / "config.json"), rows[run.name]
    test: dict[str, Any] = {key: value for key, value in result.items() if key.startswith(MEASURED)}
    about |= {"test": test, **{key: result[key] for key in TOLD}}
    save(SHIPPED / name, load_file(run / "weights.safetensors"), about)


def card(folder: Path) -> str:
    """The card of a network that ships; its licence is the code's."""
    model, about = load(folder).model, read_json(folder / "config.json")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return model_card({**about, "license": "apache-2.0"}, folder.name, parameters)


def main() -> None:
    """Write the run's files, if there is one, and all cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder, in runs/ or weights/ beside table1.json")
    parser.add_argument("name", nargs="?", help="what it shall be called")
    arguments = parser.parse_args()
    if arguments.run and not arguments.name:
        parser.error("give a run's folder and a name, or neither")
    if arguments.run:
        ship(arguments.run, arguments.name)
    for name in shipped():
        write_text(SHIPPED / name / "README.md", card(SHIPPED / name))
        print(SHIPPED / name / "README.md")


if __name__ == "__main__":
    main()
