"""What every network gives back, and how questions about images become rows: the base classes of all of them.

Legend: B images, K queries per image, M questions in the batch (those of the B x K ids that are not -1),
N images with a question, H x W cells (H_l x W_l at layer l), A attributes, T transformers.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, staged
from progressive_attention.network.equations import as_logit


class Prediction(NamedTuple):
    """All that was computed; zeros where the query was -1 (no question).

    ``logit``: log-probabilities of the attributes (``likelihood`` softmax), or log-odds of each (bernoulli).
    ``attention``: gates in [0, 1], then a map that sums to one (of ``pooled`` Grad-CAM's); empty for networks without.
    ``magnitude``: L2 norm of the features at each map, before its gate. ``transform``: of each spatial transformer,
    from output to input coordinates, -1 to 1 over the map that it samples.
    """

    logit: Tensor  # (B, K, A)
    attention: list[Tensor]  # one per attended layer, (B, K, H_l, W_l)
    magnitude: list[Tensor]  # same shapes
    transform: tuple[Tensor, ...] = ()  # T x (B, K, 2, 3)
    likelihood: str = "softmax"

    def rearranged(self, by: Callable[[Tensor], Tensor], likelihood: str) -> "Prediction":
        """The same, each tensor passed through ``by``."""
        attention, magnitude = ([by(each) for each in layers] for layers in (self.attention, self.magnitude))
        return Prediction(by(self.logit), attention, magnitude, tuple(map(by, self.transform)), likelihood)

    @property
    def log_prob(self) -> Tensor:
        """(B, K, A) log-probabilities; of softmax, each row's exponentials sum to one."""
        return self.logit if self.likelihood == "softmax" else logsigmoid(self.logit)


def for_each_question(shared: Tensor, image: Tensor | None) -> Tensor:
    """``shared[image]``: (N, C, H, W), each question's image (M,) -> (M, C, H, W); None changes nothing.

    Channels last, its gradient too; by indexing, either would be copied through another layout.
    """
    if image is None:
        return shared
    return shared.permute(0, 2, 3, 1).index_select(0, image).permute(0, 3, 1, 2)


class QuestionNetwork(nn.Module):
    """A network that answers questions about images, on a backbone's stages up to ``last``; a subclass adds ``answer``.

    ``attended``: positions of its attended stages. No question reaches what its first ``skippable`` stages give, so
    that can be kept (``trunk``). ``query_vectors`` (num_queries, D): what its queries are asked by where the config has
    a ``query_size`` D; they belong to the weights, and never learn.
    """

    skippable: int = 0
    query_vectors: Tensor | None

    def __init__(self, config: ModelConfig, backbone: Backbone, last: int) -> None:
        super().__init__()
        self.config = config
        self.attended = backbone.positions(config.attend_at)
        # The last norm stands before the classifier, not behind its stage.
        self.stages, self.norms = backbone.until(last)
        self.channels = backbone.channels
        vectors = torch.zeros(config.num_queries, config.query_size) if config.query_size else None
        self.register_buffer("query_vectors", vectors)

    def forward(self, image: Tensor, query: Tensor, skip: int = 0) -> Prediction:
        """Images (B, 3, H, W) in [0, 1], query ids (B,) or (B, K), -1 for no question -> Prediction with K kept.

        With ``skip`` = n, ``image`` is what ``trunk(image, n)`` gave, (B, C, H, W). The query may be on the CPU while
        all else is on a GPU, which is then not waited for. Raises ValueError for other shapes, ids outside
        -1..num_queries-1, images too small for the network, or more stages than ``skippable``.
        """
        self.check_skip(skip)
        self.check_image(image, skip)
        query, device = checked_query(query, len(image), self.config.num_queries), image.device
        image = image.contiguous(memory_format=torch.channels_last)  # as the weights are: convolutions are faster so
        asked = query >= 0
        with_question = asked.any(1)
        if not with_question.all():  # else the others would be computed for nothing, and count in a batch norm
            image = image[with_question.nonzero()[:, 0].to(device)]
        of_image = asked[with_question].nonzero()[:, 0]  # (M,) the image that each question is about, sorted
        rows = self.answer(image, self.question(query[asked].to(device)), of_image.to(device), skip)
        place = asked.flatten().nonzero()[:, 0].to(device)
        return rows.rearranged(partial(spread, place=place, shape=asked.shape), self.config.likelihood)

    def train(self, mode: bool = True) -> Self:
        """As any module's; the batch norms of a pretrained backbone keep what they know of pixels all the same."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "keeps_statistics", False):
                module.eval()
        return self

    def question(self, query: Tensor) -> Tensor:
        """What the layers are asked: ids (M,) themselves, or their vectors (M, D)."""
        return query if self.query_vectors is None else self.query_vectors[query]

    def asked_by(self, vectors: Tensor) -> Self:
        """The same network and weights, asked by these vectors (n, query_size), ids 0..n-1; else ValueError."""
        if self.query_vectors is None or vectors.ndim != 2 or vectors.shape[1] != self.config.query_size:
            raise ValueError(
                f"query vectors must be (n, query_size), got {tuple(vectors.shape)} for query_size "
                f"{self.config.query_size} (0: this network learns its own)"
            )
        shared = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        other = deepcopy(self, shared)
        other.query_vectors = vectors.to(self.query_vectors)
        other.config = replace(self.config, num_queries=len(vectors))
        return other

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        """Images (N, 3, H, W), ``question``'s (M, ...), the image of each (M,) -> Prediction of M rows, no K."""
        raise NotImplementedError

    def trunk(self, image: Tensor, stages: int) -> Tensor:
        """Images (B, 3, H, W) behind the first ``stages`` stages and their norms, (B, C, H, W), for ``forward``."""
        self.check_image(image)
        self.check_skip(stages)
        return self.run_trunk(image.contiguous(memory_format=torch.channels_last), 0, stages)

    def run_trunk(self, features: Tensor, start: int, end: int) -> Tensor:
        """Stages ``start`` to ``end`` - 1, all of them skippable: (N, C, H, W) -> (N, C', H', W')."""
        given = features
        for i in range(start, end):
            features = staged(self.stages[i], features, given)
            if i < self.attended[0]:  # the norm of an attended stage stands behind its gate
                features = self.norms[i](features)
        return features

    def check_skip(self, skip: int) -> None:
        """Raises ValueError for more stages than a question leaves alone."""
        if not 0 <= skip <= self.skippable:
            raise ValueError(
                f"of this network at most {self.skippable} stages can be skipped, got {skip}; what the others give "
                "depends on the question"
            )

    def check_image(self, image: Tensor, skip: int = 0) -> None:
        """Raises ValueError for what can't be images, or features behind ``skip`` stages."""
        channels = self.channels[skip - 1] if skip else 3
        if image.ndim != 4 or image.shape[1] != channels or not image.is_floating_point():
            expected = f"features behind {skip} stages must be (B, {channels}, H, W) of floats"
            remedy = f"trunk(image, {skip}) gives them"
            if not skip:
                expected = "image must be (B, 3, H, W) of floats in [0, 1]"
                remedy = "uint8 pixels (B, H, W, 3) become that by .permute(0, 3, 1, 2) / 255"
            raise ValueError(f"{expected}, got {tuple(image.shape)} {image.dtype}; {remedy}")


class Baseline(QuestionNetwork):
    """All of a backbone's stages, and a classifier of the flattened last map; so images have ``config.image_size``."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone, last=len(backbone.stages) - 1)
        self.sizes = backbone.map_sizes(config.image_size)
        channels, height, width = self.sizes[-1]
        self.flattened = channels * height * width  # values of the last map
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.flattened, config.num_attributes)

    def classified(self, flat: Tensor) -> Tensor:
        """What is to be classified (M, D) -> logit (M, A)."""
        return as_logit(self.classifier(self.dropout(flat)), self.config.likelihood)

    def check_image(self, image: Tensor, skip: int = 0) -> None:
        """As every network's, and ValueError for images of another size than ``config.image_size``."""
        super().check_image(image, skip)
        side = self.config.image_size
        height, width = self.sizes[skip - 1][1:] if skip else (side, side)
        if image.shape[2:] != (height, width):
            behind = f", of which {skip} stages leave {height} x {width} cells" if skip else ""
            raise ValueError(
                f"this network takes images of {side} x {side} pixels{behind}, got {image.shape[2]} x "
                f"{image.shape[3]}; resize them, or build it with another image_size"
            )


def checked_query(query: Tensor, images: int, known: int) -> Tensor:
    """The query as (B, K) int64; raises ValueError for what no network of ``known`` queries takes."""
    if query.ndim not in (1, 2) or len(query) != images or query.is_floating_point():
        raise ValueError(
            f"query must be integer ids (B,) or (B, K) for B = {images} images, got {tuple(query.shape)} {query.dtype}"
        )
    if query.numel():
        least, most = int(query.min()), int(query.max())
        if not -1 <= least <= most < known:
            raise ValueError(f"query ids must be in 0..{known - 1}, or -1 for no question; got {least}..{most}")
    return query.long() if query.ndim == 2 else query.long()[:, None]


def spread(rows: Tensor, place: Tensor, shape: torch.Size) -> Tensor:
    """(M, ...) rows to their places (M,) among (B, K, ...), ``shape`` being (B, K); zeros where nothing was asked."""
    if len(rows) < shape.numel():
        rows = rows.new_zeros(shape.numel(), *rows.shape[1:]).index_copy(0, place, rows)
    return rows.unflatten(0, shape)
