"""How a recipe moves the weights: its learning rate at each step, which parameters learn, and its optimiser.

That of the ``fast`` recipe is Muon for convolutions, AdamW for all else. torch.optim.Muon takes matrices only, and
convolution kernels are nearly all of our weights.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from progressive_attention.config import Recipe

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the reference's coefficients
STEPS = 5
OUTPUTS = 16  # kernels with fewer outputs, such as a score's, have too few directions to balance


def learning_rate(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """The recipe's rate at a step counted from 0. One-cycle: up in a fifth of the run, down by a cosine to nothing; a
    run of a single step takes it whole.
    """
    if recipe.schedule == "step":
        late = step // steps_per_epoch - recipe.decay_start
        return recipe.learning_rate * (recipe.decay ** (late // recipe.decay_every + 1) if late >= 0 else 1.0)
    if steps == 1:
        return recipe.learning_rate
    at = (step + 1) / steps
    if at < 0.2:
        return recipe.learning_rate * at / 0.2
    return recipe.learning_rate * (1 + math.cos(math.pi * (at - 0.2) / 0.8)) / 2


def parameter_groups(recipe: Recipe, model: nn.Module) -> list[dict[str, Any]]:
    """The parameters that learn, those with one factor on their learning rate together; the others are frozen.

    Raises ValueError for a rate of a module that the network lacks, except for "localisation", which only spatial
    transformers have: a recipe is for any network.
    """
    modules = dict(model.named_modules())
    for name, _ in recipe.module_rates:
        if name not in {*modules, *dict(model.named_parameters()), "localisation"}:
            known = ", ".join(module for module in modules if module and module.count(".") < 2)
            raise ValueError(f"module_rates names {name!r}, which {type(model).__name__} lacks; it has {known}")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if factor := recipe.rate_factor(name):
            groups.setdefault(factor, []).append(parameter)
        parameter.requires_grad_(factor > 0)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def make_optimizer(recipe: Recipe, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """The recipe's optimiser for parameters, or groups of them; their rate is set at every step."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    if recipe.optimizer == "muon":
        return Muon(parameters, rate, decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices: (..., n, m) -> (..., n, m), singular values of about 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[-2] <= matrix.shape[-1] else wide.mT


def is_kernel(parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: convolution kernels with enough outputs."""
    return parameter.ndim == 4 and len(parameter) >= OUTPUTS


class Muon(torch.optim.Optimizer):
    """Muon for convolution kernels, AdamW for all other parameters, which take ``lr``; kernels take ``ratio`` times it.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Loshchilov and Hutter, "Decoupled
    Weight Decay Regularization", ICLR 2019. State per parameter: ``first`` and, for AdamW, ``second`` and ``step``.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, weight_decay=0.01, ratio=4.0, momentum=0.9) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "ratio": ratio, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}  # kernels of one shape are balanced at once, being small
            for parameter in group["params"]:
                if parameter.grad is not None and is_kernel(parameter):
                    alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
                elif parameter.grad is not None:
                    change(parameter, self.adam(parameter, group), group["lr"], group)
            for (outputs, inputs), kernels in alike.items():
                balanced = orthogonalised(torch.stack([self.ahead(kernel, group) for kernel in kernels]))
                balanced = max(1.0, outputs / inputs) ** 0.5 * balanced
                for kernel, update in zip(kernels, balanced, strict=True):
                    change(kernel, update.view_as(kernel), group["ratio"] * group["lr"], group)

    def ahead(self, kernel: Tensor, group: dict) -> Tensor:
        """Nesterov momentum of a kernel (O, C, h, w), as a matrix (O, C h w)."""
        state = self.state[kernel]
        if not state:
            state["first"] = torch.zeros_like(kernel)
        state["first"].mul_(group["momentum"]).add_(kernel.grad)
        return (kernel.grad + group["momentum"] * state["first"]).flatten(1)

    def adam(self, parameter: Tensor, group: dict, beta: float = 0.99, eps: float = 1e-8) -> Tensor:
        """Adam's update, both means corrected for their start at zero."""
        gradient, state, decay = parameter.grad, self.state[parameter], group["momentum"]
        assert gradient is not None
        if not state:
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = torch.zeros((), dtype=torch.float64)  # float32 would make 1 - 0.99 wrong in the sixth digit
        state["step"] += 1
        state["first"].lerp_(gradient, 1 - decay)
        state["second"].lerp_(gradient.square(), 1 - beta)
        first, second = (state[name] / (1 - b ** state["step"]) for name, b in (("first", decay), ("second", beta)))
        return first / (second.sqrt() + eps)


def change(parameter: Tensor, update: Tensor, rate: float, group: dict) -> None:
    """Decoupled weight decay at the group's rate, then the update at its own."""
    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
