"""What the tests of several processes run, by torchrun in each process or alone: ``in_processes.py JOB FOLDER``."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from safetensors.torch import save_file
from tiny_photographs import FROZEN, photographs
from tiny_photographs import RECIPE as PHOTOGRAPHS
from tiny_photographs import network as photograph_network
from tiny_runs import MUON, ROWS, TRAIN, VALIDATION, about, network
from torch import Tensor, nn

from progressive_attention.config import MODELS, Recipe
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.processes import is_first, joined, rank, world
from progressive_attention.training import loop as training
from progressive_attention.training.objectives import objective

STEP = Recipe("step", "adamw", 0.01, "one-cycle", 1, 5, "all", clip=1e9)  # nothing is clipped
LONG = replace(ROWS, epochs=30)
PRICES = replace(STEP, gate_price=1.0, mask_price=0.5)


class Doubled(nn.Module):
    """A network in float64, though training gives it float32 images; ``fixed``: its batch norms never learn."""

    def __init__(self, network: nn.Module, fixed: bool = False) -> None:
        super().__init__()
        self.network, self.fixed = network.double(), fixed

    def forward(self, image: Tensor, query: Tensor):
        return self.network(image.double(), query)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.modules():
            if self.fixed and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


@dataclass(frozen=True)
class Case:
    """One training step: on which network, and how many questions are asked about each of two processes' images."""

    model: str
    asked: tuple[int, int]
    changes: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = STEP

    def network(self, fixed: bool) -> Doubled:
        return Doubled(tiny_models.build(self.model, **{"dropout": 0.0, **self.changes}), fixed)

    def questions(self) -> QuestionSet:
        """Images of noise, those of the first process, in the order of the step, at even places."""
        rng = np.random.default_rng(0)
        (order,) = training.order_in_epoch(self.recipe.batch, self.recipe, 0, 0)
        counts = np.zeros(len(order), np.int64)
        counts[order[::2]], counts[order[1::2]] = self.asked
        image = np.repeat(np.arange(len(order)), counts)
        rows, side = len(image), tiny_models.PIXELS
        attribute = rng.integers(0, tiny_models.ATTRIBUTES, rows)
        if "likelihood" in self.changes:  # of most rows one attribute is known, of some two, of some none
            known = np.arange(rows) % 3
            start = np.concatenate([[0], known.cumsum()])
            values = np.concatenate([np.arange(n) for n in known]), rng.integers(0, 2, start[-1])
            attribute = Labels(start, *values, 3, -1)
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


CASES = {
    **{name: Case(name, (2, 3)) for name in MODELS},
    "prices": Case("pan-soft-ctx", (2, 1), recipe=PRICES),
    "prices, labels": Case("pan-hard", (1, 3), {"likelihood": "bernoulli"}, PRICES),
    "labels": Case("pan-soft", (3, 1), {"likelihood": "bernoulli", "prior": True}),
    "a timm network": Case("pan-hard-ctx", (2, 1), {"backbone": "resnet18", "attend_at": ("layer1", "layer2")}),
    "nothing for one, prices": Case("pan-soft", (4, 0), recipe=replace(PRICES, batch=1)),
    "nothing for one, stn-m": Case("stn-m", (4, 0), recipe=replace(STEP, batch=1)),
}
NORMED = {  # whose batch norms learn, each process's from its own questions
    "uneven": Case("pan-soft-ctx", (2, 1), recipe=replace(STEP, batch=4)),
    "a single question": Case("pan-soft-ctx", (4, 1), recipe=replace(STEP, batch=2)),
    "nothing": Case("pan-soft-ctx", (4, 0), recipe=replace(STEP, batch=1)),
}


def gradients(case: Case, folder: Path, device: str = "cpu", fixed: bool = True) -> dict[str, Tensor]:
    """A training's gradient in its first step, and what its batch norms have learnt; on the CPU."""
    model, data = case.network(fixed), case.questions()
    loss = objective(case.recipe, model.network)
    next(training.training(model, data, data, case.recipe, folder, {}, device=device, loss=loss))
    gradient = {f"gradient of {key}": parameter.grad for key, parameter in model.named_parameters()}
    return {key: value.cpu().contiguous() for key, value in (gradient | dict(model.named_buffers())).items()}


def all_gradients(folder: Path, device: str = "cpu") -> None:
    """Those of every case, one file each; on GPUs batch norms learn, from the questions of all processes."""
    for name, case in {**CASES, **NORMED}.items():
        fixed = name in CASES and device == "cpu"
        values = gradients(case, folder / "runs" / name, str(pick_device(device)), fixed)
        if is_first():
            save_file(values, folder / f"{name}.safetensors")


def squares(out: Path):
    """A run of ``tiny_runs`` in float64, without what differs from process to process: dropout and batch norms."""
    model = Doubled(network(), fixed=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return training.training(model, TRAIN, VALIDATION, MUON, out, about(network()))


def whole(folder: Path) -> None:
    """Some runs to their ends; "begun" may have been."""
    for name in ("squares", "begun"):
        list(squares(folder / name))
    for name, recipe in {"photographs": PHOTOGRAPHS, "frozen": FROZEN}.items():
        train, validation = photographs(folder.parent / "photographs")
        model = photograph_network(train, dropout=0.0)
        recipe = replace(recipe, module_rates=(*recipe.module_rates, ("norms", 0.0)))
        training.fit(model, train, validation, recipe, folder / name, {})


def saving(each_step: Callable[[int], None], recipe: Recipe = MUON) -> Callable[[Path], None]:
    """A run that saves at every step, and does something after each."""

    def run(folder: Path) -> None:
        training.SAVE_EVERY = -1.0
        for progress in training.training(network(), TRAIN, VALIDATION, recipe, folder / "run", about(network())):
            each_step(progress.step)

    return run


def at_step(number: int, sent: int) -> Callable[[int], None]:
    """Send the last process a signal at a step, once: not when it was started again."""

    def each_step(step: int) -> None:
        if step == number and rank() == world() - 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), sent)

    return each_step


JOBS: dict[str, Callable[[Path], None]] = {
    "gradients": all_gradients,
    "gradients on GPUs": partial(all_gradients, device="cuda"),
    "whole": whole,
    "printed": saving(partial(print, flush=True), LONG),
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
