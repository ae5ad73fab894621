"""Progressive Attention Networks: one class for PAN[S], PAN[H], both with local context, SAN and HAN.

Legend: B images, K queries per image, M questions in the batch (those of the B x K ids that are not -1),
C channels, H x W cells (H_l x W_l at layer l), A attributes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from progressive_attention import attention as att
from progressive_attention.backbones import Backbone, build_backbone
from progressive_attention.config import MODELS, ModelConfig, one_of


class Prediction(NamedTuple):
    """All that was computed, nothing stashed; zeros where the query was -1 (no question).

    ``attention``: sigmoid gates in (0, 1), then a softmax map that sums to one. ``magnitude``: L2 norm of the
    features before each gate. ``logit`` is the normalised log-probability of each attribute.
    """

    logit: Tensor  # (B, K, A)
    attention: list[Tensor]  # one per attended layer, (B, K, H_l, W_l)
    magnitude: list[Tensor]  # same shapes

    @property
    def log_prob(self) -> Tensor:
        """(B, K, A) log-probabilities, each row's exponentials sum to one."""
        return self.logit


class ProgressiveAttentionNetwork(nn.Module):
    """A CNN with query-conditioned attention on several of its layers (PAN, 2018, section 3).

    SAN and HAN are this network attending at its last layer only. All that comes before the first gate, and the
    part of the first scorer that reads the image, is computed once per image, whatever the number of questions.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        attended = [backbone.index(stage) for stage in config.attend_at]
        if attended != sorted(set(attended)):
            raise ValueError(f"attend_at must name stages in order, each once; got {config.attend_at}")
        self.config = config
        self.last = attended[-1]
        self.stages = nn.ModuleList(list(backbone.stages)[: self.last + 1])
        channels = backbone.channels
        # The last norm stands before the classifier: on the pooled feature, or on each location's.
        self.norms = nn.ModuleList(backbone.norm(channels[i]) for i in range(self.last + 1))
        self.scorers = nn.ModuleDict(
            {
                str(i): att.AttentionScorer(
                    channels[i], config.num_queries, config.hidden, config.radius if i != self.last else 0
                )
                for i in attended
            }
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(channels[self.last], config.num_attributes, 1)

    def forward(self, image: Tensor, query: Tensor) -> Prediction:
        """Images (B, 3, H, W) in [0, 1], query ids (B,) or (B, K), -1 for no question -> Prediction with K kept.

        Raises ValueError for other shapes, ids outside -1..num_queries-1, or images too small for the network.
        """
        query = self._checked(image, query)
        asked = query >= 0
        with_question = asked.any(1)
        if not with_question.all():  # else the others would be computed for nothing, and count in a batch norm
            image = image[with_question]
        of_image = asked[with_question].nonzero()[:, 0]  # (M,) the image that each question is about
        question = query[asked]  # (M,)
        attention: list[Tensor] = []
        magnitude: list[Tensor] = []
        features, shared = image, True  # (B, C, H, W) while shared by an image's questions, then (M, C, H, W)
        score = image.new_empty(0)
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            features = self._staged(stage, features, image)
            if str(i) in self.scorers:
                norms = att.at_least_float32(torch.linalg.vector_norm(features, dim=1))
                magnitude.append(norms[of_image] if shared else norms)
                score = self.scorers[str(i)](features, question, of_image if shared else None)
                if shared:
                    features, shared = att.AskEachQuestion.apply(features, of_image), False
                attention.append(att.spatial_softmax(score) if i == self.last else att.gate(score))
                if i < self.last:
                    features = att.attend(features, attention[-1])
            if i < self.last:
                features = norm(features)
        logit = self._answer(features, attention[-1], score)
        return Prediction(
            spread(logit, asked), [spread(a, asked) for a in attention], [spread(m, asked) for m in magnitude]
        )

    def _answer(self, features: Tensor, attention: Tensor, score: Tensor) -> Tensor:
        """Features before the last gate (M, C, H, W), map and score (M, H, W) -> log-probabilities (M, A)."""
        if self.config.pooling == "soft":
            features = att.soft_pool(att.attend(features, attention), self.config.soft_reduction)
        answer = self.classifier(self.dropout(self.norms[-1](features)))
        log_prob = att.at_least_float32(answer).log_softmax(1)  # eq. (5)
        return log_prob[..., 0, 0] if self.config.pooling == "soft" else att.marginalise(log_prob, score)

    @staticmethod
    def _staged(stage: nn.Module, features: Tensor, image: Tensor) -> Tensor:
        """One stage's output; raises ValueError where an image is too small to reach its end."""
        try:
            return stage(features)
        except RuntimeError as error:
            if "input size" not in str(error):  # how torch's convolutions and poolings complain of too few pixels
                raise
            raise ValueError(
                f"image is too small for this network: got {image.shape[2]} x {image.shape[3]} pixels, of which "
                f"{features.shape[2]} x {features.shape[3]} cells are left before a stage that needs more; "
                "enlarge it, or attend at an earlier stage"
            ) from error

    def _checked(self, image: Tensor, query: Tensor) -> Tensor:
        """The query as (B, K) int64."""
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(
                f"image must be (B, 3, H, W) of floats in [0, 1], got {tuple(image.shape)} {image.dtype}; "
                "uint8 pixels (B, H, W, 3) become that by .permute(0, 3, 1, 2) / 255"
            )
        if query.ndim not in (1, 2) or len(query) != len(image) or query.is_floating_point():
            raise ValueError(
                f"query must be integer ids (B,) or (B, K) for B = {len(image)} images, "
                f"got {tuple(query.shape)} {query.dtype}"
            )
        known = self.config.num_queries
        if query.numel():
            least, most = int(query.min()), int(query.max())
            if not -1 <= least <= most < known:
                raise ValueError(f"query ids must be in 0..{known - 1}, or -1 for no question; got {least}..{most}")
        return query.long() if query.ndim == 2 else query.long()[:, None]


def spread(rows: Tensor, asked: Tensor) -> Tensor:
    """(M, ...) rows back to their places (B, K, ...), zeros where nothing was asked."""
    if len(rows) == asked.numel():
        return rows.unflatten(0, asked.shape)
    return rows.new_zeros((*asked.shape, *rows.shape[1:])).masked_scatter(
        asked.view(*asked.shape, *[1] * (rows.ndim - 1)), rows
    )


def model_config(name: str, num_queries: int, num_attributes: int, **changes: object) -> ModelConfig:
    """The configuration of a named model (``MODELS``) on the papers' ConvStack, or on another backbone by changes.

    A change ``attend_at`` names the stages of PAN; SAN and HAN take the last of them. Raises ValueError.
    """
    one_of("model", name, MODELS)
    row = dict(MODELS[name])
    last_only = row.pop("last_only", False)
    config = ModelConfig(num_queries, num_attributes, **{**row, **changes})  # type: ignore[arg-type]
    if not last_only:
        return config
    return ModelConfig(num_queries, num_attributes, **{**row, **changes, "attend_at": config.attend_at[-1:]})  # type: ignore[arg-type]


def build_model(name: str, *, num_queries: int, num_attributes: int, **changes: object) -> ProgressiveAttentionNetwork:
    """A model by name, e.g. ``build_model("pan-hard-ctx", num_queries=10, num_attributes=5)``.

    ``changes`` are ModelConfig's fields, e.g. ``backbone="vgg16", attend_at=("pool3", "pool4", "pool5"), radius=2``.
    """
    return from_config(model_config(name, num_queries, num_attributes, **changes))


def from_config(config: ModelConfig) -> ProgressiveAttentionNetwork:
    """The network that a config describes, with fresh weights from torch's global generator."""
    return ProgressiveAttentionNetwork(config, build_backbone(config.backbone))
