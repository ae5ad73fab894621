"""The papers' equations, one short function each.

| equation of the 2018 paper (PAN) | here |
|---|---|
| (1) attended features | ``attend`` |
| (2) attention: gates, and the last layer's choice | ``gate``, ``spatial_softmax`` |
| (3) on through the CNN | the backbone's next stage: ``pan.ProgressiveAttentionNetwork.answer`` |
| (4) soft attention's feature | ``soft_pool`` |
| (5) an answer at each location | ``as_logit`` |
| (6) hard attention's answer | ``marginalise``, ``marginalise_log_odds`` |
| (7) the score, from local context | ``scorers.AttentionScorer`` |

Legend: M rows (one row = one question about one image), C channels, H x W cells, A attributes. Channels come first.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def attend(features: Tensor, attention: Tensor) -> Tensor:
    """Attended features, attention times features: (M, C, H, W), (M, H, W) -> (M, C, H, W). Eq. (1)."""
    return features * attention.unsqueeze(1).to(features.dtype)


def gate(score: Tensor) -> Tensor:
    """Pass or block each location by itself: (M, H, W) -> (M, H, W) in (0, 1). Eq. (2), l < L."""
    return score.sigmoid()


def spatial_softmax(score: Tensor) -> Tensor:
    """Choose among all locations: (M, H, W) -> (M, H, W), each map sums to one. Eq. (2), l = L."""
    return score.flatten(-2).softmax(-1).view_as(score)


def sparsemax(score: Tensor) -> Tensor:
    """Choose among all locations, most of them not at all: (M, H, W) -> (M, H, W), each map sums to one.

    The point of the simplex nearest to the scores. Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016.
    """
    flat = score.flatten(-2)
    flat = flat - flat.amax(-1, keepdim=True)  # changes nothing, but huge scores would swallow the one
    ordered = flat.sort(descending=True).values
    count = torch.arange(1, flat.shape[-1] + 1, device=flat.device)
    excess = ordered.cumsum(-1) - 1
    support = (count * ordered > excess).sum(-1, keepdim=True).clamp(min=1)  # none where scores are NaN
    threshold = excess.gather(-1, support - 1) / support
    return (flat - threshold).clamp(min=0).view_as(score)


def soft_pool(attended: Tensor, reduction: str = "sum") -> Tensor:
    """Attended feature: (M, C, H, W) -> (M, C, 1, 1). Eq. (4) sums; the 2016 code takes the ``"mean"``."""
    pooled = attended.sum((-2, -1), keepdim=True)
    return pooled if reduction == "sum" else pooled / (attended.shape[-2] * attended.shape[-1])


def as_logit(output: Tensor, likelihood: str) -> Tensor:
    """A classifier's output (M, A, ...): of softmax the log-probabilities of eq. (5); of bernoulli log-odds."""
    output = at_least_float32(output)
    return output.log_softmax(1) if likelihood == "softmax" else output


def marginalise(log_prob: Tensor, score: Tensor) -> Tensor:
    """Answer of hard attention, every location weighed by its probability: eq. (6) in log space.

    (M, A, H, W) log-probabilities of the answers at each location, eq. (5), and (M, H, W) scores -> (M, A).
    """
    log_alpha = score.flatten(-2).log_softmax(-1)
    return (log_prob.flatten(-2) + log_alpha.unsqueeze(1)).logsumexp(-1)


def marginalise_log_odds(log_odds: Tensor, score: Tensor) -> Tensor:
    """Eq. (6) for attributes that are each true or not: the log-odds of each one's marginal probability.

    (M, A, H, W) log-odds at each location and (M, H, W) scores -> (M, A).
    """
    return marginalise(logsigmoid(log_odds), score) - marginalise(logsigmoid(-log_odds), score)


def at_least_float32(values: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay: probabilities need the digits to sum to one."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": spatial_softmax, "sparsemax": sparsemax}
