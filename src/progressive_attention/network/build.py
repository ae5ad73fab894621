"""Progressive Attention Networks: one class for PAN[S], PAN[H], with local context or not, SAN, HAN; models by name.

Legend: N images, M questions (one row each), C channels, H x W cells (H_l x W_l at layer l), A attributes.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from progressive_attention.config import ALIASES, MODELS, ModelConfig, backbone_of, one_of
from progressive_attention.network import equations as att
from progressive_attention.network.backbone import Backbone, build_backbone, is_vgg, outline, staged, usual_stages
from progressive_attention.network.baselines import ConcatenationNetwork, FiLMNetwork, SpatialTransformerNetwork
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.network.sharing import AskEachQuestion, gated_stage, shares_convolution
from progressive_attention.one_batch import LONE
from progressive_attention.processes import world
from progressive_attention.saved.hub import HubMixin


class ProgressiveAttentionNetwork(HubMixin, QuestionNetwork):
    """A CNN with query-conditioned attention on several of its layers (PAN, 2018, section 3).

    SAN and HAN are this network attending at its last layer only. All that comes before the first gate, and the
    part of the first scorer that reads the image, is computed once per image, whatever the number of questions.
    """

    network = "pan"

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone, last=backbone.positions(config.attend_at)[-1])
        self.last = self.attended[-1]
        self.skippable = self.attended[0] + 1  # what is attended to first is still the same for all questions
        channels = self.channels
        self.scorers = nn.ModuleDict(
            {
                str(i): att.SCORERS[config.scorer](
                    channels[i],
                    config.num_queries,
                    config.hidden,
                    config.radius if i != self.last else 0,
                    backbone.query_std,
                    config.query_size,
                )
                for i in self.attended
            }
        )
        self.head_norms = nn.ModuleDict({str(i): backbone.head_norm(channels[i]) for i in self.attended})
        self.choose = att.CHOICES[config.choice]
        last = channels[self.last]
        sizes = config.num_queries, config.query_size
        self.prior = att.QueryPrior(last, last, *sizes) if config.prior else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(last, config.num_attributes, 1)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        attention: list[Tensor] = []
        magnitude: list[Tensor] = []
        features = self.run_trunk(image, skip, self.skippable)  # (N, C, H, W), soon (M, C, H, W)
        score = image.new_empty(0)
        for i in range(self.attended[0], self.last + 1):
            # By several questions about an image; an export knows no len.
            shared = i == self.attended[0] and of_image.shape[0] > features.shape[0]
            if i in self.attended:
                norms = att.at_least_float32(torch.linalg.vector_norm(features, dim=1))
                magnitude.append(norms[of_image] if shared else norms)
                read = self.head_norms[str(i)](features)
                score = self.scorers[str(i)](read, question, of_image if shared else None)
                attention.append(self.choose(score) if i == self.last else att.gate(score))
            if i < self.last:
                gates = attention[-1] if i in self.attended else None
                features = self._next_stage(i, features, gates, of_image if shared else None, image)
            elif shared:
                features = AskEachQuestion.apply(features, of_image)
        return Prediction(self._classified(features, attention[-1], score, question), attention, magnitude)

    def _next_stage(
        self, i: int, features: Tensor, gates: Tensor | None, of_image: Tensor | None, given: Tensor
    ) -> Tensor:
        """Gate and norm behind stage i, and stage i + 1; with ``of_image`` the features are those of N images."""
        stage, norm = self.stages[i + 1], self.norms[i]
        if gates is not None and of_image is not None:
            if shares_convolution(stage, norm, features, len(of_image)):
                return staged(partial(gated_stage, stage, norm, attention=gates, image=of_image), features, given)
            features = AskEachQuestion.apply(features, of_image)
        if gates is not None:
            features = att.attend(features, gates)
        return staged(stage, norm(features), given)

    def _classified(self, features: Tensor, attention: Tensor, score: Tensor, question: Tensor) -> Tensor:
        """Features before the last gate (M, C, H, W), map and score (M, H, W), queries -> logit (M, A)."""
        soft, likelihood = self.config.pooling == "soft", self.config.likelihood
        if soft:
            features = att.soft_pool(att.attend(features, attention), self.config.soft_reduction)
        norm = self.norms[-1]
        if (
            self.training
            and features.numel() == features.shape[1]
            and isinstance(norm, nn.BatchNorm2d)
            and world() == 1  # else the norm knows how many there are
        ):
            raise ValueError(LONE)
        features = norm(features)  # of the pooled feature, or of each location's
        if self.prior is not None:
            features = self.prior(features, question)
        logit = att.as_logit(self.classifier(self.dropout(features)), likelihood)
        if soft:
            return logit[..., 0, 0]
        return (att.marginalise if likelihood == "softmax" else att.marginalise_log_odds)(logit, score)


NETWORKS = {
    "pan": ProgressiveAttentionNetwork,
    "stn": SpatialTransformerNetwork,
    "film": FiLMNetwork,
    "concat": ConcatenationNetwork,
}


def model_config(name: str, num_queries: int, num_attributes: int, **changes: object) -> ModelConfig:
    """The configuration of a named model (``MODELS``, ``ALIASES``) on its own backbone, or on another by changes.

    Its own is the papers' ConvStack, of ``pan`` the same with padded convolutions.

    A change ``attend_at`` names the stages of PAN; SAN, HAN and cross-attention take the last of them, STN-S the
    first. Unless told they are the backbone's ``usual_stages``, and local context has δ = 2 on a VGG, else 1 (2018,
    section 4). Raises ValueError.
    """
    name = ALIASES.get(name, name)
    row = dict(MODELS[one_of("model", name, {**MODELS, **ALIASES})])
    only = row.pop("only", None)
    row.pop("gate_price", None)  # the recipe's: config.recipe_for
    row.pop("title", None)
    backbone = str(changes.get("backbone", backbone_of(name)))
    if "radius" in row and is_vgg(backbone):
        row["radius"] = 2
    options: dict[str, Any] = {**row, **changes}
    if "attend_at" not in options:
        options["attend_at"] = usual_stages(backbone)
    config = ModelConfig(num_queries, num_attributes, **options)
    if only is None:
        return config
    if len(config.attend_at) > 1 and "attend_at" in changes:  # else the networks themselves check it
        outline(backbone).positions(config.attend_at)
    return replace(config, attend_at=config.attend_at[-1:] if only == "last" else config.attend_at[:1])


def build_model(
    name: str,
    *,
    num_queries: int,
    num_attributes: int,
    backbone_weights: str | Path | None = None,
    query_vectors: Tensor | None = None,
    **changes: object,
) -> QuestionNetwork:
    """A model by name, e.g. ``build_model("pan", num_queries=10, num_attributes=5)``.

    ``changes`` are ModelConfig's fields, e.g. ``backbone="vgg16", attend_at=("pool3", "pool4", "pool5"), radius=2``;
    ``backbone_weights`` as in ``build_backbone``. ``query_vectors`` (num_queries, D) are what queries are asked by, if
    given; they never learn. Raises ValueError.
    """
    if query_vectors is None and changes.get("query_size"):
        raise ValueError(
            f"query_size {changes['query_size']} needs query_vectors (num_queries, query_size); give these"
        )
    if query_vectors is not None:
        changes["query_size"] = query_vectors.shape[-1]
    return from_config(model_config(name, num_queries, num_attributes, **changes), backbone_weights, query_vectors)


def from_config(
    config: ModelConfig, backbone_weights: str | Path | None = None, query_vectors: Tensor | None = None
) -> QuestionNetwork:
    """The network that a config describes, with fresh weights from torch's global generator.

    Its backbone's are pretrained where ``backbone_weights`` names them, as in ``build_backbone``. ``query_vectors``
    (num_queries, query_size) are zeros unless given, to be loaded with the weights. Raises ValueError.
    """
    network = NETWORKS[config.network](config, build_backbone(config.backbone, backbone_weights))
    if query_vectors is None:
        return network
    if len(query_vectors) != config.num_queries:
        raise ValueError(f"expected a vector for each of {config.num_queries} queries, got {len(query_vectors)}")
    return network.asked_by(query_vectors)
