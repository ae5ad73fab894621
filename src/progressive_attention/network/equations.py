"""The papers' equations, one short function each.

Legend: N images or rows, M rows (one row = one question about one image), C channels, H x W cells, A attributes.
Queries are ids (M,), or where they have vectors of their own those, (M, D): see ``query_layer``.
Equation numbers are those of the 2018 paper (PAN); shapes are channels-first.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from progressive_attention.network.sharing import AskEachQuestion


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


def attend(features: Tensor, attention: Tensor) -> Tensor:
    """Attended features, attention times features: (M, C, H, W), (M, H, W) -> (M, C, H, W). Eq. (1)."""
    return features * attention.unsqueeze(1).to(features.dtype)


def at_least_float32(values: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay: probabilities need the digits to sum to one."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def soft_pool(attended: Tensor, reduction: str = "sum") -> Tensor:
    """Attended feature: (M, C, H, W) -> (M, C, 1, 1). Eq. (4) sums; the 2016 code takes the ``"mean"``."""
    pooled = attended.sum((-2, -1), keepdim=True)
    return pooled if reduction == "sum" else pooled / (attended.shape[-2] * attended.shape[-1])


def marginalise(log_prob: Tensor, score: Tensor) -> Tensor:
    """Answer of hard attention, every location weighed by its probability: eq. (6) in log space.

    (M, A, H, W) log-probabilities of the answers at each location, eq. (5), and (M, H, W) scores -> (M, A).
    """
    log_alpha = score.flatten(-2).log_softmax(-1)
    return (log_prob.flatten(-2) + log_alpha.unsqueeze(1)).logsumexp(-1)


def marginalise_log_odds(log_odds: Tensor, score: Tensor) -> Tensor:
    """Eq. (6) for attributes that are each there or not: the log-odds of each one's marginal probability.

    (M, A, H, W) log-odds at each location and (M, H, W) scores -> (M, A). Both sides in log space: a probability that
    rounds to one would lose its odds.
    """
    return marginalise(logsigmoid(log_odds), score) - marginalise(logsigmoid(-log_odds), score)


def as_logit(output: Tensor, likelihood: str) -> Tensor:
    """A classifier's output (M, A, ...): of softmax the log-probabilities of eq. (5); of bernoulli log-odds."""
    output = at_least_float32(output)
    return output.log_softmax(1) if likelihood == "softmax" else output


def query_layer(num_queries: int, query_size: int, width: int) -> nn.Embedding | nn.Linear:
    """What a query brings to a layer: with ``query_size`` 0 a learnt vector of each id, (M,) -> (M, width); else a
    linear map of the query's own vector, (M, query_size) -> (M, width). Of one-hot vectors the two are the same.
    """
    if not query_size:
        return nn.Embedding(num_queries, width)
    layer = nn.Linear(query_size, width)
    start_queries(layer, std=1.0)  # as an embedding does
    return layer


def start_queries(layer: nn.Embedding | nn.Linear, mean: float = 0.0, std: float = 0.1) -> None:
    """Draw what queries bring at first from N(mean, std²), that of vectors of length one, too."""
    if isinstance(layer, nn.Linear):
        nn.init.constant_(layer.bias, mean)
        mean = 0.0
    nn.init.normal_(layer.weight, mean, std)


class AttentionScorer(nn.Module):
    """g_att of eqs. (2) and (7): a two-layer perceptron on [local context, query], giving one score a location.

    Seen over a whole map, its first layer on a (2δ+1)² neighbourhood is a convolution, and on a one-hot query the
    choice of a bias vector; so the part that reads the image is the same for all questions about it.
    """

    def __init__(
        self,
        channels: int,
        num_queries: int,
        hidden: int = 32,
        radius: int = 0,
        query_std: float = 0.1,
        query_size: int = 0,
    ) -> None:
        super().__init__()
        # No bias here: each query brings its own.
        self.context = nn.Conv2d(channels, hidden, 2 * radius + 1, padding=radius, bias=False)
        self.query = query_layer(num_queries, query_size, hidden)
        self.score = nn.Conv2d(hidden, 1, 1)
        start_queries(self.query, std=query_std)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """(M, C, H, W), queries (M,) or (M, D) -> score (M, H, W); with ``image`` (M,) the features are of N images."""
        hidden = self.context(features)
        if image is not None:
            hidden = AskEachQuestion.apply(hidden, image)
        hidden = hidden + self.query(query).to(hidden.dtype)[..., None, None]
        return at_least_float32(self.score(hidden.relu()).squeeze(1))


class ChannelPoolScorer(nn.Module):
    """The spatial gate of CBAM (Woo et al., ECCV 2018), asked a question: the query weighs each channel before they
    are pooled by mean and maximum; a 7 x 7 convolution of both gives the score. ``hidden``, ``radius`` and
    ``query_std`` do nothing.
    """

    def __init__(
        self,
        channels: int,
        num_queries: int,
        hidden: int = 32,
        radius: int = 0,
        query_std: float = 0.1,
        query_size: int = 0,
    ) -> None:
        super().__init__()
        self.query = query_layer(num_queries, query_size, channels)
        self.score = nn.Conv2d(2, 1, 7, padding=3)
        start_queries(self.query, mean=1.0)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """As AttentionScorer's."""
        if image is not None:
            features = AskEachQuestion.apply(features, image)
        weighed = features * self.query(query).to(features.dtype)[..., None, None]
        pooled = torch.cat([weighed.mean(1, keepdim=True), weighed.amax(1, keepdim=True)], 1)
        return at_least_float32(self.score(pooled).squeeze(1))


class DotProductScorer(nn.Module):
    """Scaled dot product of the query's vector and each location's key: at the last layer, cross-attention pooling
    with one head (Vaswani et al., NeurIPS 2017; its value projection is the classifier's). ``radius`` and
    ``query_std`` do nothing.
    """

    def __init__(
        self,
        channels: int,
        num_queries: int,
        hidden: int = 32,
        radius: int = 0,
        query_std: float = 0.1,
        query_size: int = 0,
    ) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, hidden, 1, bias=False)  # a softmax would not see it
        self.query = query_layer(num_queries, query_size, hidden)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """As AttentionScorer's."""
        key = self.key(features)
        if image is not None:
            key = AskEachQuestion.apply(key, image)
        score = (key * self.query(query).to(key.dtype)[..., None, None]).sum(1)
        return at_least_float32(score) / key.shape[1] ** 0.5


class QueryPrior(nn.Module):
    """The attended feature fused with the query once more, ReLU(W f + E[q]): "prior" of section 4.2.

    "A fully connected layer, which allows the network to reflect the conditional distribution of the attributes given
    the query". The paper tells neither its width nor its nonlinearity; without one, the query could only add the same
    to an attribute's odds whatever the image shows. Of hard attention every location's feature is fused.
    """

    def __init__(self, channels: int, units: int, num_queries: int, query_size: int = 0) -> None:
        super().__init__()
        self.feature = nn.Conv2d(channels, units, 1, bias=False)  # each query brings its own
        self.query = query_layer(num_queries, query_size, units)
        start_queries(self.query)

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """(M, C, H, W), queries (M,) or (M, D) -> (M, units, H, W) >= 0."""
        fused = self.feature(features)
        return (fused + self.query(query).to(fused.dtype)[..., None, None]).relu()


SCORERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": AttentionScorer,
    "cbam": ChannelPoolScorer,
    "dot": DotProductScorer,
}
CHOICES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": spatial_softmax, "sparsemax": sparsemax}
