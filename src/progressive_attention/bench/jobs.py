"""What is timed: ours, the plain reading and the attention-free CNN, each as a training step or forward alone.

Legend: N images, K questions about each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from progressive_attention.bench.plain import AttentionFreeCNN, PlainReading
from progressive_attention.config import RECIPES, ModelConfig, Recipe
from progressive_attention.evaluation.ask import as_bytes, as_floats, precision
from progressive_attention.network.build import from_config, model_config
from progressive_attention.training.learner import finite
from progressive_attention.training.objectives import answers_only
from progressive_attention.training.optimizers import make_optimizer, parameter_groups

NAME, QUERIES, ATTRIBUTES = "pan-hard-ctx", 10, 5  # as on MREF
Job = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What is measured side by side: N images of ``side`` pixels, with each number of questions in ``queries``."""

    side: int
    images: int
    queries: tuple[int, ...]
    training: bool  # or forward alone
    backbone: str = "conv-stack"
    rounds: int = 7
    alone: bool = False  # measure the plain reading in a process of its own, too

    @property
    def config(self) -> ModelConfig:
        return model_config(NAME, QUERIES, ATTRIBUTES, backbone=self.backbone, image_size=self.side)

    @property
    def recipe(self) -> Recipe:
        return RECIPES["fast" if self.backbone == "conv-stack" else "photographs"]


def our_job(setting: Setting, queries: int, dtype: torch.dtype, device: torch.device) -> Job:
    """The package as it trains and evaluates: K questions about every image in one step."""
    torch.manual_seed(0)
    pixels, query, attribute = noise(setting, queries, device)
    query = query.cpu()  # where training has it
    model = from_config(setting.config).to(device).to(memory_format=torch.channels_last)

    def answer():
        with precision(device, dtype == torch.bfloat16):
            return model(as_floats(pixels), query)

    optimizer = make_optimizer(setting.recipe, parameter_groups(setting.recipe, model))
    return job_of(setting, model, answer, partial(answers_only, attribute=attribute), optimizer)


def plain_job(setting: Setting, device: torch.device) -> Job:
    """The plain reading, one question about every image: float32, torch's default layout, RMSprop as in the paper."""
    torch.manual_seed(0)
    pixels, query, attribute = noise(setting, 1, device)
    rows, asked = pixels.permute(0, 3, 1, 2).contiguous(), query[:, 0]
    model = PlainReading(setting.config).to(device)
    optimizer = torch.optim.RMSprop(model.parameters())
    loss = partial(nll_loss, target=attribute[:, 0])
    return job_of(setting, model, lambda: model(rows.float() / 255, asked), loss, optimizer)


def free_job(setting: Setting, dtype: torch.dtype, device: torch.device) -> Job:
    """The attention-free CNN with all that makes ours fast: layout, precision, optimiser."""
    torch.manual_seed(0)
    pixels, _, attribute = noise(setting, 1, device)
    model = AttentionFreeCNN(setting.config).to(device).to(memory_format=torch.channels_last)

    def answer() -> Tensor:
        with precision(device, dtype == torch.bfloat16):
            return model(as_floats(pixels))

    optimizer = make_optimizer(setting.recipe, parameter_groups(setting.recipe, model))
    return job_of(setting, model, answer, partial(nll_loss, target=attribute[:, 0]), optimizer)


def noise(setting: Setting, queries: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (N, side, side, 3) uint8, query and attribute ids (N, K); no time depends on what they show."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (setting.images, setting.side, setting.side, 3), dtype=np.uint8)
    query = torch.from_numpy(rng.integers(0, QUERIES, (setting.images, queries))).to(device)
    return as_bytes(pixels, device), query, query % ATTRIBUTES


def job_of(
    setting: Setting,
    model: nn.Module,
    answer: Callable[[], Any],
    loss: Callable[[Any], Tensor],
    optimizer: torch.optim.Optimizer,
) -> Job:
    """One training step, or forward alone, finished at the end: training and evaluation fetch from each, too."""
    model.train(setting.training)
    device = next(model.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # all rounds see the same weights

    def learn() -> None:
        """As in ``training.training``."""
        value = loss(answer())
        optimizer.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), setting.recipe.clip)
        finite(value, norm, 0)  # for which a GPU is waited for
        optimizer.step()

    step = learn if setting.training else torch.inference_mode()(answer)

    def job() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return job
