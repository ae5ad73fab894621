"""Work of a second or two that faults are injected into: commands of ``pan``, and what any run of them must leave."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from progressive_attention import cli
from progressive_attention.data import scene_cache
from progressive_attention.training import loop as training

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """``prepare`` fills a folder (given a folder of finished training); ``do``, in it, returns an exit code.

    ``outcome`` is what must be there after a run, however often it was disturbed before.
    """

    name: str
    prepare: Callable[[Path, Path], None]
    do: Callable[[], int]
    outcome: Callable[[Path], Outcome]


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """All but the seconds that it took."""
    return {key: value for key, value in record.items() if not key.endswith("seconds")}


def scenes(folder: Path, _: Path) -> None:
    """60 pictures of 60 px, each with a square that is red or blue, asked on which side it lies."""
    rng = np.random.Generator(np.random.PCG64(0))
    side, red = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    images = rng.integers(0, 60, (60, 60, 60, 3), dtype=np.uint8)
    for i in range(60):
        images[i, 20:40, 5 + 30 * side[i] : 25 + 30 * side[i], 2 * red[i]] = 220
    names = {"query_names": ["blue", "red"], "attribute_names": ["left", "right"]}
    np.savez(folder / "squares.npz", images=images, query=red, attribute=side, **names)


TRAIN = ["train", "--data", "squares.npz", "--model", "pan-hard-ctx", "--batch", "9", "--device", "cpu", "--out", "run"]


def train() -> int:
    training.SAVE_EVERY = -1.0  # after each step, so that most moments have something to lose
    return cli.main([*TRAIN, "--epochs", "2"])


def trained(folder: Path) -> Outcome:
    run = folder / "run"
    tensors = load_file(run / "checkpoint.safetensors")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "weights": digest(run / "weights.safetensors"),
        "best": timeless(json.loads((run / "config.json").read_text())["best"]),
        "log": [timeless(line) for line in log],
        "last": {name: sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in sorted(tensors.items())},
    }


def with_run(folder: Path, finished: Path) -> None:
    """A finished training."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)


def evaluate() -> int:
    return cli.main(["evaluate", "--weights", "run", "--data", "squares.npz", "--device", "cpu"])


def evaluated(folder: Path) -> Outcome:
    rows = [path for path in sorted((folder / "run").rglob("*.parquet"))]
    return {path.stem: path.with_suffix(".json").read_text() for path in rows}


def nothing(folder: Path, _: Path) -> None:
    """Nothing is needed."""


def render() -> int:
    """The scene cache that PAN_CACHE names; errors as the commands report them."""
    scene_cache.CHUNK = 10
    try:
        scene_cache.synthetic("mbg", "train", images=120, workers=1)
    except (ValueError, OSError) as error:
        print(f"pan render: error: {cli.one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pan render: stopped", file=sys.stderr)
        return 130
    return 0


def rendered(folder: Path) -> Outcome:
    return {str(path.relative_to(folder)): digest(path) for path in sorted((folder / "cache").rglob("*.*"))}


def table(folder: Path, _: Path) -> None:
    """A table of 150 pictures, one of which is missing."""
    rng = np.random.Generator(np.random.PCG64(1))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "query", "attributes"])
        for i in range(150):
            writer.writerow([f"{i}.png", "thing", "red; old" if i % 2 else "new"])
            if i:
                Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def import_table() -> int:
    if Path("set").exists():  # an import never replaces another; the outcome tells whether it is whole
        return 0
    return cli.main(["data", "import", "csv", "table.csv", "--out", "set"])


def imported(folder: Path) -> Outcome:
    tables = {
        path.name: str(parquet.read_table(path).to_pylist()) for path in sorted((folder / "set").glob("*.parquet"))
    }
    texts = {**tables, "about": (folder / "set" / "dataset.json").read_text()}
    return {name: text.replace(str(folder.resolve()), "") for name, text in texts.items()}


def report() -> int:
    return cli.main(["report", "run", "--data", "squares.npz", "--device", "cpu"])


def reported(folder: Path) -> Outcome:
    return {"page": digest(folder / "run" / "report.html"), **evaluated(folder)}


WORKS = {
    work.name: work
    for work in (
        Work("training", scenes, train, trained),
        Work("rendering", nothing, render, rendered),
        Work("importing", table, import_table, imported),
        Work("evaluation", with_run, evaluate, evaluated),
        Work("report", with_run, report, reported),
    )
}
