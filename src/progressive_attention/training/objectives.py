"""What training minimises: the answers' negative log-likelihood, and what a recipe charges for attention beside it.

Legend: B images, K queries per image, M questions (those of the B x K that are asked), A attributes, h x w cells of a
layer, H x W image pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from progressive_attention.config import Recipe
from progressive_attention.evaluation.answers import AnyOf, OneOf
from progressive_attention.maps.pixel_maps import coverage
from progressive_attention.maps.receptive_field import Field, Geometry, geometry
from progressive_attention.network.build import ProgressiveAttentionNetwork
from progressive_attention.processes import summed

Loss = Callable[[Any, Tensor, Tensor | None], Tensor]
"""(prediction, attribute ids (B, K) with -1 = not asked, target masks (B, K, H, W) bool or None) -> scalar.

Of a batch dealt out to several processes each gives its part: what is its own in the sum, over what there is in all.
"""


def mean_of_all(total: Tensor, count: Tensor) -> Tensor:
    """A process's part of a mean over all processes: its own sum, over everyone's count; zero where nothing counts."""
    return total / summed(count).clamp(min=1)


def answer_loss(logit: Tensor, attribute: Tensor) -> Tensor:
    """Mean negative log-likelihood of what is known about the answers; zero where nothing is.

    One attribute holds: log-probabilities (B, K, A) and ids (B, K), -1 = not asked; the mean over questions. Any number
    hold: log-odds (B, K, A) and labels (B, K, A) of 1 and 0, -1 = unknown or not asked; the mean over known labels.
    """
    logit = logit.to(torch.promote_types(logit.dtype, torch.float32))
    answers = OneOf if attribute.ndim == 2 else AnyOf
    return mean_of_all(*answers.loss(logit, attribute))


def answers_only(prediction: Any, attribute: Tensor, mask: Tensor | None = None) -> Tensor:
    """``answer_loss`` of any network's prediction, whatever its attention."""
    return answer_loss(prediction.logit, attribute)


def open_gates(gates: Sequence[Tensor], logit: Tensor, attribute: Tensor) -> Tensor:
    """What open gates cost: ``relative_openness``, summed over layers, for each question as far as its answer is known.

    ``gates`` (B, K, h, w) each. A question weighs the fourth power of its ``knowledge``: little is charged before it is
    all but sure, so that learning where to look comes first. Ours.
    """
    asked, known = knowledge(logit.detach(), attribute)
    cost = ((known**4 * relative_openness(gate[asked])).sum() for gate in gates)
    return mean_of_all(sum(cost, logit.new_zeros(())), asked.sum())


def relative_openness(gate: Tensor) -> Tensor:
    """Mean over cells of what a gate (M, h, w) lets through, beside its widest-open cell, which counts as a constant.

    (M,) in [0, 1]. The mean by itself would fade as all cells shrink together, which the norm behind a gate undoes;
    and if the widest cell could be taught, lifting that one alone would pay.
    """
    widest = gate.detach().amax((-2, -1), keepdim=True)
    return (gate / widest.clamp(min=1e-3)).mean((-2, -1))  # a gate closed everywhere is no reason to push on


def knowledge(logit: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
    """Which questions are asked, (B, K) bool, and how far the answer of each is known, (M,) in [0, 1].

    (p - 1/A) / (1 - 1/A), p the probability of the right answer, 1 where there is no other; of labels the mean
    probability of those that hold.
    """
    if attribute.ndim == 2:
        asked, chance = attribute >= 0, 1 / logit.shape[-1] if logit.shape[-1] > 1 else 0.0
        right = logit[asked].gather(1, attribute[asked][:, None])[:, 0].exp()
        return asked, ((right - chance) / (1 - chance)).clamp(min=0)
    asked, holds = (attribute >= 0).any(-1), attribute == 1
    right = (logit.sigmoid() * holds).sum(-1) / holds.sum(-1).clamp(min=1)
    return asked, right[asked]


def cells_of_target(mask: Tensor, layer: tuple[Field, Field], cells: tuple[int, int]) -> Tensor:
    """Share of each stride cell that the target covers: masks (M, H, W) bool -> (M, h, w) float32 in [0, 1].

    Of a cell that reaches beyond the image, the part inside counts; one wholly outside has no share.
    """
    rows = coverage(layer[0], cells[0], mask.shape[-2]).float().to(mask.device)
    columns = coverage(layer[1], cells[1], mask.shape[-1]).float().to(mask.device)
    area = rows.sum(0)[:, None] * columns.sum(0)
    return rows.T @ mask.float() @ columns / area.clamp(min=1e-6)


def mask_loss(attention: Sequence[Tensor], where: Geometry, attribute: Tensor, mask: Tensor) -> Tensor:
    """How far all maps are from the true masks: cross-entropy of each gate with the target's share of its cells, mean
    over cells, and of the last map with the same shares divided by their sum; summed over layers, mean over questions.

    ``attention`` (B, K, h, w) each, ``mask`` (B, K, H, W) bool. Supervised attention as in Liu et al., "Attention
    Correctness in Neural Image Captioning", AAAI 2017; here it is an upper bound only. A target outside all cells of
    the last map asks nothing of it.
    """
    asked = attribute >= 0 if attribute.ndim == 2 else (attribute >= 0).any(-1)
    total = mask.new_zeros((), dtype=attention[-1].dtype)
    for layer, every in enumerate(attention):
        map_ = every[asked]
        target = cells_of_target(mask[asked], where.fields[layer], (map_.shape[-2], map_.shape[-1])).to(map_.dtype)
        if layer < len(attention) - 1:
            cost = nn.functional.binary_cross_entropy(map_, target, reduction="none").mean((-2, -1))
        else:
            share = target / target.sum((-2, -1), keepdim=True).clamp(min=1e-6)
            cost = -share * map_.clamp(min=1e-12).log()
        total = total + cost.sum()
    return mean_of_all(total, asked.sum())


def objective(recipe: Recipe, model: nn.Module) -> Loss:
    """What the recipe minimises for this network.

    Raises ValueError where it charges for maps, for gates or, when asked for the loss, for masks that there are not.
    """
    if not recipe.gate_price and not recipe.mask_price:
        return answers_only
    if not isinstance(model, ProgressiveAttentionNetwork):
        kind = type(model).__name__
        raise ValueError(
            f"gate_price and mask_price are for networks with attention maps; {kind} has none: set both to 0"
        )
    if recipe.gate_price and len(model.attended) == 1:
        raise ValueError("gate_price is for networks with gates; attention at the last layer has none: set it to 0")
    where = geometry(model)

    def loss(prediction: Any, attribute: Tensor, mask: Tensor | None) -> Tensor:
        total = answer_loss(prediction.logit, attribute)
        if recipe.gate_price:
            total = total + recipe.gate_price * open_gates(prediction.attention[:-1], prediction.logit, attribute)
        if recipe.mask_price:
            if mask is None:
                raise ValueError("mask_price needs the targets' masks, and this data set has none; set it to 0")
            total = total + recipe.mask_price * mask_loss(prediction.attention, where, attribute, mask)
        return total

    return loss
