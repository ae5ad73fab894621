"""The slow, obvious twins of networks: the papers' text, one question after the other."""

from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.question_network import Prediction
from progressive_attention.network.scorers import AttentionScorer, ChannelPoolScorer


def slow_forward(model: ProgressiveAttentionNetwork, image: torch.Tensor, query: torch.Tensor) -> Prediction:
    """The 2018 paper's section 3 in evaluation mode, one question after the other; no convolutions, no sharing."""

    def cells(features: torch.Tensor, size: int, stride: int = 1, padding: int = 0) -> torch.Tensor:
        """(C, H, W) -> (H', W', C, size²): each location's neighbourhood."""
        side = (features.shape[-1] + 2 * padding - size) // stride + 1
        return F.unfold(features[None], size, padding=padding, stride=stride).view(len(features), size**2, side, side)

    def linear(layer: nn.Conv2d, stacked: torch.Tensor) -> torch.Tensor:
        """A layer of a perceptron at every location: (C, n, H, W) -> (D, H, W)."""
        answer = torch.einsum("dcn,cnij->dij", layer.weight.flatten(2), stacked)
        return answer if layer.bias is None else answer + layer.bias[:, None, None]

    def asked_by(layer: nn.Module, question: int) -> torch.Tensor:
        """What a query brings: (D,)."""
        if model.query_vectors is None:
            return layer.weight[question]
        return (layer.weight * model.query_vectors[question]).sum(1) + layer.bias

    def score_of(scorer: nn.Module, features: torch.Tensor, question: int, size: int) -> torch.Tensor:
        """(C, H, W) -> (H, W)."""
        asked = asked_by(scorer.query, question)[:, None, None]
        if isinstance(scorer, AttentionScorer):
            assert scorer.context.weight.shape[-1] == size
            around = linear(scorer.context, cells(features, size, padding=size // 2))  # F_ij, eq. (7)
            return linear(scorer.score, (around + asked).relu()[:, None])[0]
        if isinstance(scorer, ChannelPoolScorer):
            pooled = torch.stack([(features * asked).mean(0), (features * asked).max(0).values])
            return linear(scorer.score, cells(pooled, 7, padding=3))[0]
        return (linear(scorer.key, features[:, None]) * asked).sum(0) / 2  # the square root of 4

    def chosen(score: torch.Tensor) -> torch.Tensor:
        """Softmax, or the nearest point of the simplex: the threshold that leaves a sum of one, halving its range."""
        if model.config.choice == "softmax":
            return score.flatten().softmax(0).view_as(score)
        low, high = score.max() - 1, score.max()
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (score - middle).clamp(min=0).sum() > 1 else (low, middle)
        return (score - low).clamp(min=0)

    def normalise(norm: nn.BatchNorm2d, features: torch.Tensor) -> torch.Tensor:
        mean, variance, scale, shift = (
            values[:, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (features - mean) / (variance + 0.01).sqrt() * scale + shift

    logits, maps, magnitudes = [], {}, {}
    for b, k in product(*map(range, query.shape)):
        features = image[b]
        for layer, stage in enumerate(model.stages):
            border = [stage[0].padding[0]] * 4
            features = linear(stage[0], cells(F.pad(features, border), 3)).relu()  # g_CNN, eq. (3)
            features = cells(features, 2, stride=2).amax(1)
            if str(layer) in model.scorers:
                size = 2 * model.config.radius + 1 if layer < 3 else 1
                score = score_of(model.scorers[str(layer)], features, int(query[b, k]), size)
                alpha = chosen(score) if layer == 3 else score.sigmoid()  # eq. (2)
                maps.setdefault(layer, []).append(alpha)
                magnitudes.setdefault(layer, []).append(features.square().sum(0).sqrt())
                if layer < 3:
                    features = features * alpha  # eq. (1)
            if layer < 3:
                features = normalise(model.norms[layer], features)
        if model.config.pooling == "soft":
            features = (features * alpha).sum((1, 2), keepdim=True)  # eq. (4)
        features = normalise(model.norms[3], features)
        if model.config.prior:  # fused with the query once more
            asked = asked_by(model.prior.query, query[b, k])[:, None, None]
            features = (linear(model.prior.feature, features[:, None]) + asked).clamp(min=0)
        answers = linear(model.classifier, features[:, None])
        answers = answers.softmax(0) if model.config.likelihood == "softmax" else answers.sigmoid()  # eq. (5)
        weight = alpha if model.config.pooling == "hard" else torch.ones(1, 1, dtype=alpha.dtype)
        answer = (answers * weight).sum((1, 2))  # eq. (6)
        logits.append(answer.log() if model.config.likelihood == "softmax" else (answer / (1 - answer)).log())
    return Prediction(
        torch.stack(logits).view(*query.shape, -1),
        [torch.stack(found).unflatten(0, query.shape) for found in maps.values()],
        [torch.stack(found).unflatten(0, query.shape) for found in magnitudes.values()],
    )


def slow_sample(features: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Eqs. (1) and (5) of Jaderberg et al., one row: a sum over all cells, triangles around the point sampled."""
    _, height, width = features.shape
    sampled = torch.empty_like(features)
    for i, j in product(range(height), range(width)):
        x, y = transform @ torch.tensor([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1], dtype=torch.float64)
        row, column = ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2  # from edge -1..1 to cells
        by_row = (1 - (row - torch.arange(height)).abs()).clamp(min=0)
        by_column = (1 - (column - torch.arange(width)).abs()).clamp(min=0)
        sampled[:, i, j] = features.flatten(1) @ torch.outer(by_row, by_column).flatten()
    return sampled
