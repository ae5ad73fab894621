"""The figures of docs/faithfulness.md, with what they were measured on.

python benchmarks/faithfulness.py mref-pan --out results/faithfulness/mref-pan.json [--limit 1000]

`pan evaluate --weights mref-pan --faithfulness` prints the same figures; this leaves out the other 9,000 test
questions, and writes down machine, commit, command and seed.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console

from progressive_attention.evaluation.ask import pick_device
from progressive_attention.evaluation.faithfulness import LIMIT, evaluate_faithfulness
from progressive_attention.evaluation.kept import fingerprint_of_weights, load_with_bar, source_of
from progressive_attention.files import write_json
from progressive_attention.progress import counting
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.saved import load


def main() -> None:
    """Measure one network on test questions of the set that it was trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a shipped name, or a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="FILE.json")
    parser.add_argument("--limit", type=int, default=LIMIT, help="test questions")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    device, console, started = pick_device("cpu"), Console(stderr=True), time.monotonic()
    trained = load(arguments.weights, device)
    source = {**source_of(trained.about), "split": arguments.split}
    questions = load_with_bar(console, **source)
    with counting(console, f"deleting and inserting, {questions.name}", "questions") as progress:
        limit, seed = arguments.limit, source["seed"]
        figures = evaluate_faithfulness(trained, questions, device, limit=limit, seed=seed, progress=progress)
    about = {
        "weights": Path(arguments.weights).name,
        "weights_sha256": fingerprint_of_weights(arguments.weights),
        "data": questions.name,
        "seed": source["seed"],
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": hardware(device),
        "seconds": round(time.monotonic() - started),
    }
    write_json(arguments.out, {**about, **figures})


if __name__ == "__main__":
    main()
