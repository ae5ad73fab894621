"""What the tests of several processes run, by torchrun in each process or alone: ``in_processes.py JOB FOLDER``."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tiny_models
import torch
from safetensors.torch import save_file
from tiny_photographs import FROZEN, photographs
from tiny_photographs import RECIPE as PHOTOGRAPHS
from tiny_photographs import network as photograph_network
from tiny_runs import MUON, TRAIN, VALIDATION, about, network
from torch import Tensor, nn

from progressive_attention.config import MODELS, Recipe
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.processes import is_first, joined, rank, world
from progressive_attention.training import loop as training
from progressive_attention.training.objectives import objective

STEP = Recipe("step", "adamw", 0.01, "one-cycle", 1, 5, "all", clip=1e9)  # nothing is clipped


class Doubled(nn.Module):
    """A network in float64, though training gives it float32 images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, image: Tensor, query: Tensor):
        return self.network(image.double(), query)


def questions(likelihood: str, recipe: Recipe, asked: tuple[int, int]) -> QuestionSet:
    """One step's images of noise, ``asked`` questions about those that the first process gets, and the others."""
    rng = np.random.default_rng(0)
    (order,) = training.order_in_epoch(recipe.batch, recipe, 0, 0)
    counts = np.zeros(len(order), np.int64)
    counts[order[::2]], counts[order[1::2]] = asked
    image = np.repeat(np.arange(len(order)), counts)
    rows, side = len(image), tiny_models.PIXELS
    attribute = rng.integers(0, tiny_models.ATTRIBUTES, rows)
    if likelihood == "bernoulli":  # of most rows one attribute is known, of some two, of some none
        known = np.arange(rows) % 3
        start = np.concatenate([[0], known.cumsum()])
        attribute = Labels(start, np.concatenate([np.arange(n) for n in known]), rng.integers(0, 2, start[-1]), 3, -1)
    return QuestionSet(
        name="noise",
        images=rng.integers(0, 256, (len(order), side, side, 3), dtype=np.uint8),
        image=image,
        query=rng.integers(0, tiny_models.QUERIES, rows),
        attribute=attribute,
        query_names=tuple("abcde"),
        attribute_names=tuple("xyz"),
        masks=rng.random((rows, side, side)) < 0.3,  # type: ignore[arg-type] (an array is indexed alike)
    )


PRICES = replace(STEP, gate_price=1.0, mask_price=0.5)
CASES: dict[str, tuple[str, dict, Recipe, tuple[int, int]]] = {
    **{name: (name, {}, STEP, (2, 3)) for name in MODELS},
    "one shares the convolution, the other not": ("pan-hard-ctx", {}, STEP, (8, 1)),
    "both share it": ("pan-soft-ctx", {}, STEP, (6, 5)),
    "prices": ("pan-soft-ctx", {}, PRICES, (2, 1)),
    "prices, labels": ("pan-hard", {"likelihood": "bernoulli"}, PRICES, (1, 3)),
    "labels": ("pan-soft", {"likelihood": "bernoulli", "prior": True}, STEP, (3, 1)),
    "a timm network": ("pan-hard-ctx", {"backbone": "resnet18", "attend_at": ("layer1", "layer2")}, STEP, (2, 1)),
    **{
        f"one has nothing, {name}": (name, {}, replace(PRICES if name == "pan-soft" else STEP, batch=1), (4, 0))
        for name in ("pan-soft", "pan-hard-ctx", "stn-m", "film")
    },
}


def gradients(name: str, folder: Path, device: str = "cpu") -> dict[str, Tensor]:
    """A training's gradient in its first step, and what its batch norms have learnt; on the CPU."""
    model, changes, recipe, asked = CASES[name]
    network = tiny_models.build(model, **{"dropout": 0.0, **changes})
    data = questions(network.config.likelihood, recipe, asked)
    doubled = Doubled(network)
    run = training.training(
        doubled, data, data, recipe, folder / name, {}, device=device, loss=objective(recipe, network)
    )
    next(run)
    gradient = {f"gradient of {key}": parameter.grad for key, parameter in doubled.named_parameters()}
    return {key: value.cpu() for key, value in (gradient | dict(doubled.named_buffers())).items()}


def all_gradients(folder: Path, device: str | None = "cpu") -> None:
    """Those of every case, one file each."""
    for name in CASES:
        found = gradients(name, folder / "runs", str(pick_device(device)))
        if is_first():
            save_file({key: value.contiguous() for key, value in found.items()}, folder / f"{name}.safetensors")


def still() -> nn.Module:
    """``tiny_runs.network`` without dropout, whose draws differ from process to process."""
    model = network()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def squares(out: Path):
    """A run of ``tiny_runs`` in float64: of any gradient but zero Adam makes steps, of rounding too."""
    return training.training(Doubled(still()), TRAIN, VALIDATION, MUON, out, about(network()))


def whole(folder: Path) -> None:
    """Some runs to their ends; "begun" may have been."""
    for name in ("squares", "begun"):
        list(squares(folder / name))
    for name, recipe in {"photographs": PHOTOGRAPHS, "frozen": FROZEN}.items():
        train, validation = photographs(folder.parent / "photographs")
        model = photograph_network(train, dropout=0.0)
        training.fit(model, train, validation, recipe, folder / name, {})


def saving(each_step: Callable[[int], None]) -> Callable[[Path], None]:
    """A run that saves at every step, and does something after each."""

    def run(folder: Path) -> None:
        training.SAVE_EVERY = -1.0
        for progress in training.training(network(), TRAIN, VALIDATION, MUON, folder / "run", about(network())):
            each_step(progress.step)

    return run


def at_step(number: int, what: int) -> Callable[[int], None]:
    """Send the last process a signal at a step, once: not when it was started again."""

    def each_step(step: int) -> None:
        if step == number and rank() == world() - 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), what)

    return each_step


JOBS: dict[str, Callable[[Path], None]] = {
    "gradients": all_gradients,
    "gradients on GPUs": partial(all_gradients, device="cuda"),
    "whole": whole,
    "undisturbed": saving(lambda step: None),
    "killed": saving(at_step(5, signal.SIGKILL)),
    "stopped": saving(at_step(5, signal.SIGSTOP)),
}


def main(arguments: Iterable[str]) -> None:
    job, folder = arguments
    torch.set_num_threads(1)
    with joined():
        JOBS[job](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
