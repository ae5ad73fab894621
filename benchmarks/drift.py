"""How far results part where the last bit can't be the same: other thread counts, processors and precisions.

python benchmarks/drift.py benchmarks/measured/drift.json

Trains one small network from a few seeds, and asks one that ships, each time in a process with other settings, and
compares with one thread in float32. docs/trust.md shows the figures;
tests/flows/test_drift.py compares the two.
"""

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progressive_attention.config import RECIPES
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.ask import predictions
from progressive_attention.files import write_json
from progressive_attention.network.build import build_model
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.saved import load
from progressive_attention.training.loop import training

CPU = torch.device("cpu")
SHIPPED = "mref-pan"
IMAGES, HIDDEN, TEST, ASKED, SEEDS = 1_600, 16, 1_000, 2_000, (0, 1, 2)
RECIPE = RECIPES["fast"].with_changes(epochs=1, batch=8, learning_rate=0.005)


BF16 = "bfloat16"
SETTINGS = {  # the environment that differs from one thread, all instructions that the processor has, float32
    "the same again": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "convolutions in AVX2 (oneDNN)": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "all else in AVX2 (PyTorch)": {"ATEN_CPU_CAPABILITY": "avx2"},
    BF16: {},
}


def flat(tensors: list[torch.Tensor]) -> np.ndarray:
    """All values of some tensors, one after the other, (n,) float64."""
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors]).numpy()


def asked(model: torch.nn.Module, questions: QuestionSet, bf16: bool) -> np.ndarray:
    """Probabilities (R, attributes) that a network gives."""
    found = np.zeros((len(questions), len(questions.attribute_names)))
    with torch.inference_mode():
        for batch, prediction in predictions(model, questions, CPU, bf16=bf16):
            real = batch.row >= 0
            found[batch.row[real]] = prediction.logit.double().softmax(-1).numpy()[real]
    return found


def measure(out: Path, bf16: bool) -> None:
    """Train and ask in this process, as it was started; the arrays go into ``out``."""
    train = synthetic("mref", "train", queries="all", images=IMAGES)
    validation, test = (synthetic("mref", split, images=3 * TEST) for split in ("validation", "test"))
    arrays = {"truth": test.attribute}
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = build_model("pan-hard-ctx", num_queries=10, num_attributes=5, hidden=HIDDEN)
        with tempfile.TemporaryDirectory() as folder:
            recipe = RECIPE.with_changes(bf16=bf16)
            for step in training(model, train, validation, recipe, Path(folder), {}, seed=seed):
                if step.step == 1:
                    arrays[f"gradient {seed}"] = flat([p.grad for p in model.parameters() if p.grad is not None])
        arrays[f"weights {seed}"] = flat(list(model.parameters()))
        arrays[f"answers {seed}"] = asked(model, test, bf16).argmax(-1)
    questions = synthetic("mref", "test", images=3 * ASKED)
    arrays["shipped"] = asked(load(SHIPPED, CPU).model, questions, bf16)
    np.savez(out, **arrays)


def in_process(setting: str, folder: Path) -> dict[str, np.ndarray]:
    """``measure`` in a process of that setting."""
    out = folder / f"{setting}.npz"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **SETTINGS[setting]}
    command = [sys.executable, __file__, str(out), "--measure", *(["--bf16"] if setting == BF16 else [])]
    subprocess.run(command, env=environment, check=True)
    with np.load(out) as arrays:
        return dict(arrays)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The length of the difference, as a share of the length of ``one``."""
    return float(np.linalg.norm(other - one) / np.linalg.norm(one))


def compared(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, Any]:
    """How far two processes' results are apart: largest distances, accuracies (percent) by seed, answers."""
    accuracies = [100 * float((other[f"answers {seed}"] == other["truth"]).mean()) for seed in SEEDS]
    return {
        "gradient": max(distance(one[f"gradient {seed}"], other[f"gradient {seed}"]) for seed in SEEDS),
        "weights": max(distance(one[f"weights {seed}"], other[f"weights {seed}"]) for seed in SEEDS),
        "answers": [int((one[f"answers {seed}"] != other[f"answers {seed}"]).sum()) for seed in SEEDS],
        "accuracy": accuracies,
        "shipped_answers": int((one["shipped"].argmax(-1) != other["shipped"].argmax(-1)).sum()),
        "shipped_probability": float(np.abs(one["shipped"] - other["shipped"]).max()),
    }


def rows(found: dict[str, Any]) -> list[str]:
    """The lines of the page's table."""
    lines = []
    for name, one in [("one thread, float32", found["base"]), *found["settings"].items()]:
        accuracy = ", ".join(f"{value:.1f}" for value in one["accuracy"])
        apart = ["", "", ""]
        if one is not found["base"]:
            changed = f"{one['shipped_answers']}; {one['shipped_probability']:.1g}"
            apart = [f"{one['gradient']:.1g}", f"{one['weights']:.1g}", changed]
        lines.append(f"| {name} | {apart[0]} | {apart[1]} | {accuracy} | {apart[2]} |")
    between = f"{found['between_seeds']:.1g}"
    return [*lines, f"| *another seed, for comparison* | | {between} | | |"]


def main() -> None:
    """Measure all settings, write a JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--measure", action="store_true", help="what each process does, for itself")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.out, arguments.bf16)
    with tempfile.TemporaryDirectory() as folder:
        base = in_process("the same again", Path(folder))
        settings = {name: compared(base, in_process(name, Path(folder))) for name in SETTINGS}
    first, *others = (base[f"weights {seed}"] for seed in SEEDS)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = {
        "about": {"hardware": hardware(CPU, 1), "commit": commit(), "torch": torch.__version__, "date": date},
        "sizes": {"images": IMAGES, "hidden": HIDDEN, "test": TEST, "asked": ASKED, "seeds": len(SEEDS)},
        "base": compared(base, base),
        "settings": settings,
        "between_seeds": min(distance(first, other) for other in others),
    }
    write_json(arguments.out, found)
    print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
