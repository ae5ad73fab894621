"""One step of a training: ask, compare, change the weights; by one process, or by several that share the questions."""

import math
import sys

import numpy as np
import torch
from torch import Tensor, nn

from progressive_attention.config import Recipe
from progressive_attention.data.questions import Batch
from progressive_attention.evaluation.ask import Entrance, precision
from progressive_attention.network.question_network import QuestionNetwork
from progressive_attention.processes import average, exchange, summed, world
from progressive_attention.training.objectives import Loss
from progressive_attention.training.optimizers import make_optimizer, parameter_groups


class Diverged(ValueError):
    """A loss or a gradient's norm is no finite number, before the step it would spoil."""


class Learner:
    """A network that learns by a recipe.

    Of several processes each has its part of a step's questions, possibly none. Its loss is its part of the loss of
    all, so gradients add up to those of one process that has all questions. Batch norms see all questions on GPUs, on
    CPUs those of their own process; what they have learnt is averaged after each step.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, loss: Loss, device: torch.device) -> None:
        self.recipe, self.loss, self.device = recipe, loss, device
        model.to(device).to(memory_format=torch.channels_last)
        if world() > 1 and device.type == "cuda":
            synchronise_norms(model)
        self.model = model
        self.optimizer = make_optimizer(recipe, parameter_groups(recipe, model))
        self.frozen, self.skip = frozen_modules(model), frozen_stages(model)
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
        self.norms = [module for module in model.modules() if isinstance(module, kinds) and module not in self.frozen]
        self.shared = model
        if world() > 1:
            from torch.nn.parallel import DistributedDataParallel

            with exchange():
                self.shared = DistributedDataParallel(model)  # each parameter's gradient is the mean over processes
            # ``step`` averages what batch norms learn. The argument has another name in newer versions of torch.
            self.shared.broadcast_buffers = False

    def step(
        self, entrance: Entrance, batch: Batch, pixels: np.ndarray | None, mask: Tensor | None, rate: float, number: int
    ) -> float:
        """Change the weights by a batch (what ``ask.loaded`` gives) at a learning rate; returns the loss of all.

        ``mask`` (B, K, H, W) bool where the loss needs it. Raises Diverged, naming the step's number.
        """
        self.model.train()
        for module in self.frozen:
            module.eval()
        if world() > 1 and (batch.query >= 0).sum() < 2:  # which have no variance
            for module in self.norms:
                module.eval()
        with precision(self.device, self.recipe.bf16):
            entering, query = entrance(batch, pixels), torch.from_numpy(batch.query)
            skipping = {"skip": self.skip} if self.skip else {}  # any network may be trained, and most skip nothing
            prediction = self.shared(entering, query, **skipping)
        value = self.loss(prediction, torch.from_numpy(batch.attribute).to(self.device), mask)
        self.optimizer.zero_grad()
        with exchange():
            (value * world()).backward()  # DistributedDataParallel takes the mean of the processes' gradients
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        loss = finite(summed(value.detach()), norm, number)
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * rate
        self.optimizer.step()
        statistics = [values for norm in self.norms for values in (norm.running_mean, norm.running_var)]
        average([values for values in statistics if values is not None])
        return loss


def synchronise_norms(model: nn.Module) -> None:
    """Let batch norms see the questions of all processes, in place; torch can do so on GPUs only."""
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if "timm" in sys.modules:  # its batch norms may hold an activation, which torch would drop
        from timm.layers.norm_act import convert_sync_batchnorm as convert
    convert(model)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules none of whose parameters learn: their batch norms keep their averages."""
    parameters = {module: list(module.parameters()) for module in model.modules()}
    return [m for m, inside in parameters.items() if inside and not any(p.requires_grad for p in inside)]


def frozen_stages(model: nn.Module) -> int:
    """How many first stages never change, nor depend on the question: their output can be computed once."""
    if not isinstance(model, QuestionNetwork):
        return 0
    first = model.attended[0]
    trunk = [(model.stages[i], *[model.norms[i]] * (i < first)) for i in range(model.skippable)]  # as in run_trunk
    changing = [any(p.requires_grad for part in parts for p in part.parameters()) for parts in trunk]
    return changing.index(True) if True in changing else len(changing)


def finite(loss: Tensor, norm: Tensor, step: int) -> float:
    """The loss as a number; raises Diverged, before a bad step reaches the weights, if it or the norm is none.

    Both are fetched at once: each fetch makes a GPU wait.
    """
    numbers = torch.stack([loss.float(), norm.float()]).tolist()
    for name, number in zip(("loss", "gradient's norm"), numbers, strict=True):
        if not math.isfinite(number):
            raise Diverged(
                f"the {name} is {number} at step {step}: training diverged; try a lower learning rate (pan train --lr, "
                "or an experiment's learning_rates). What was saved before is unharmed"
            )
    return numbers[0]
