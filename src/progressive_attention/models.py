"""Progressive Attention Networks: one class for PAN[S], PAN[H], with local context or not, SAN, HAN; models by name.

Legend: N images, M questions (one row each), C channels, H x W cells (H_l x W_l at layer l), A attributes.
"""

import torch
from torch import Tensor, nn

from progressive_attention import attention as att
from progressive_attention.backbones import Backbone, build_backbone
from progressive_attention.baselines import ConcatenationNetwork, FiLMNetwork, SpatialTransformerNetwork
from progressive_attention.config import ALIASES, MODELS, ModelConfig, one_of
from progressive_attention.prediction import Prediction, QuestionNetwork, staged


class ProgressiveAttentionNetwork(QuestionNetwork):
    """A CNN with query-conditioned attention on several of its layers (PAN, 2018, section 3).

    SAN and HAN are this network attending at its last layer only. All that comes before the first gate, and the
    part of the first scorer that reads the image, is computed once per image, whatever the number of questions.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        attended = backbone.positions(config.attend_at)
        self.config = config
        self.last = attended[-1]
        # The last norm stands before the classifier: on the pooled feature, or on each location's.
        self.stages, self.norms = backbone.until(self.last)
        channels = backbone.channels
        self.scorers = nn.ModuleDict(
            {
                str(i): att.SCORERS[config.scorer](
                    channels[i], config.num_queries, config.hidden, config.radius if i != self.last else 0
                )
                for i in attended
            }
        )
        self.choose = att.CHOICES[config.choice]
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(channels[self.last], config.num_attributes, 1)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor) -> Prediction:
        attention: list[Tensor] = []
        magnitude: list[Tensor] = []
        features, shared = image, True  # (N, C, H, W) while shared by an image's questions, then (M, C, H, W)
        score = image.new_empty(0)
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            features = staged(stage, features, image)
            if str(i) in self.scorers:
                norms = att.at_least_float32(torch.linalg.vector_norm(features, dim=1))
                magnitude.append(norms[of_image] if shared else norms)
                score = self.scorers[str(i)](features, question, of_image if shared else None)
                if shared:
                    features, shared = att.AskEachQuestion.apply(features, of_image), False
                attention.append(self.choose(score) if i == self.last else att.gate(score))
                if i < self.last:
                    features = att.attend(features, attention[-1])
            if i < self.last:
                features = norm(features)
        return Prediction(self._classified(features, attention[-1], score), attention, magnitude)

    def _classified(self, features: Tensor, attention: Tensor, score: Tensor) -> Tensor:
        """Features before the last gate (M, C, H, W), map and score (M, H, W) -> log-probabilities (M, A)."""
        if self.config.pooling == "soft":
            features = att.soft_pool(att.attend(features, attention), self.config.soft_reduction)
        answer = self.classifier(self.dropout(self.norms[-1](features)))
        log_prob = att.at_least_float32(answer).log_softmax(1)  # eq. (5)
        return log_prob[..., 0, 0] if self.config.pooling == "soft" else att.marginalise(log_prob, score)


NETWORKS = {
    "pan": ProgressiveAttentionNetwork,
    "stn": SpatialTransformerNetwork,
    "film": FiLMNetwork,
    "concat": ConcatenationNetwork,
}


def model_config(name: str, num_queries: int, num_attributes: int, **changes: object) -> ModelConfig:
    """The configuration of a named model (``MODELS``, ``ALIASES``) on the papers' ConvStack, or on another by changes.

    A change ``attend_at`` names the stages of PAN; SAN, HAN and cross-attention take the last of them, STN-S the
    first. Raises ValueError.
    """
    name = ALIASES.get(name, name)
    row = dict(MODELS[one_of("model", name, {**MODELS, **ALIASES})])
    only = row.pop("only", None)
    config = ModelConfig(num_queries, num_attributes, **{**row, **changes})  # type: ignore[arg-type]
    if only is None:
        return config
    stages = config.attend_at[-1:] if only == "last" else config.attend_at[:1]
    return ModelConfig(num_queries, num_attributes, **{**row, **changes, "attend_at": stages})  # type: ignore[arg-type]


def build_model(name: str, *, num_queries: int, num_attributes: int, **changes: object) -> QuestionNetwork:
    """A model by name, e.g. ``build_model("pan-hard-ctx", num_queries=10, num_attributes=5)``.

    ``changes`` are ModelConfig's fields, e.g. ``backbone="vgg16", attend_at=("pool3", "pool4", "pool5"), radius=2``.
    """
    return from_config(model_config(name, num_queries, num_attributes, **changes))


def from_config(config: ModelConfig) -> QuestionNetwork:
    """The network that a config describes, with fresh weights from torch's global generator."""
    return NETWORKS[config.network](config, build_backbone(config.backbone))
