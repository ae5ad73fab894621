"""How well each location fits a query: the scorers of attention, and the prior, which shows the query again at the end.

Legend: N images, M rows (one row = one question about one image), C channels, H x W cells. Queries are ids (M,), or,
where they have vectors of their own, those (M, D): see ``query_layer``.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from progressive_attention.network.equations import at_least_float32
from progressive_attention.network.question_network import for_each_question


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

    def __init__(self, channels: int, num_queries: int, hidden=32, radius=0, query_std=0.1, query_size=0) -> None:
        super().__init__()
        # No bias here: each query brings its own.
        self.context = nn.Conv2d(channels, hidden, 2 * radius + 1, padding=radius, bias=False)
        self.query = query_layer(num_queries, query_size, hidden)
        self.score = nn.Conv2d(hidden, 1, 1)
        start_queries(self.query, std=query_std)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """(M, C, H, W), queries (M,) or (M, D) -> score (M, H, W); with ``image`` (M,) the features are of N images."""
        hidden = for_each_question(self.context(features), image)
        hidden = hidden + self.query(query).to(hidden.dtype)[..., None, None]
        return at_least_float32(self.score(hidden.relu()).squeeze(1))


class ChannelPoolScorer(nn.Module):
    """The spatial gate of CBAM (Woo et al., ECCV 2018), asked a question: the query weighs each channel before they
    are pooled by mean and maximum; a 7 x 7 convolution of both gives the score. ``hidden``, ``radius`` and
    ``query_std`` do nothing.
    """

    def __init__(self, channels: int, num_queries: int, hidden=32, radius=0, query_std=0.1, query_size=0) -> None:
        super().__init__()
        self.query = query_layer(num_queries, query_size, channels)
        self.score = nn.Conv2d(2, 1, 7, padding=3)
        start_queries(self.query, mean=1.0)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """As AttentionScorer's."""
        features = for_each_question(features, image)
        weighed = features * self.query(query).to(features.dtype)[..., None, None]
        pooled = torch.cat([weighed.mean(1, keepdim=True), weighed.amax(1, keepdim=True)], 1)
        return at_least_float32(self.score(pooled).squeeze(1))


class DotProductScorer(nn.Module):
    """Scaled dot product of the query's vector and each location's key: at the last layer, cross-attention pooling
    with one head (Vaswani et al., NeurIPS 2017). ``radius`` and ``query_std`` do nothing.
    """

    def __init__(self, channels: int, num_queries: int, hidden=32, radius=0, query_std=0.1, query_size=0) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, hidden, 1, bias=False)  # a softmax would not see it
        self.query = query_layer(num_queries, query_size, hidden)

    def forward(self, features: Tensor, query: Tensor, image: Tensor | None = None) -> Tensor:
        """As AttentionScorer's."""
        key = for_each_question(self.key(features), image)
        score = (key * self.query(query).to(key.dtype)[..., None, None]).sum(1)
        return at_least_float32(score) / key.shape[1] ** 0.5


class QueryPrior(nn.Module):
    """The attended feature fused with the query once more, ReLU(W f + E[q]): "prior" of section 4.2.

    The paper gives neither its width nor its nonlinearity. Of hard attention every location's feature is fused.
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
