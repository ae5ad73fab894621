"""Progressive Attention Networks: one class for PAN[S] and PAN[H], with local context or without, SAN and HAN.

Legend: N images, M questions (one row each), C channels, H x W cells (H_l x W_l at layer l), A attributes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from progressive_attention.config import ModelConfig
from progressive_attention.network import equations as eq
from progressive_attention.network.backbone import Backbone, staged
from progressive_attention.network.question_network import Prediction, QuestionNetwork, for_each_question
from progressive_attention.network.scorers import SCORERS, QueryPrior


class ProgressiveAttentionNetwork(QuestionNetwork):
    """A CNN with query-conditioned attention on several of its layers (PAN, 2018, section 3).

    SAN and HAN are this network attending at its last layer only. All before the first gate, and the part of the first
    scorer that reads the image, is computed once per image. ``about`` is the content of config.json with which a
    network was loaded or last saved, None until then.
    """

    about: dict[str, Any] | None = None
    about_digest: str = ""  # of the weights that ``about`` describes

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone, last=backbone.positions(config.attend_at)[-1])
        self.last = self.attended[-1]
        self.skippable = self.attended[0] + 1  # what is attended to first is still the same for all questions
        channels = self.channels
        self.scorers = nn.ModuleDict()
        for i in self.attended:
            radius = config.radius if i != self.last else 0
            sizes = channels[i], config.num_queries, config.hidden, radius, backbone.query_std, config.query_size
            self.scorers[str(i)] = SCORERS[config.scorer](*sizes)
        self.head_norms = nn.ModuleDict({str(i): backbone.head_norm(channels[i]) for i in self.attended})
        self.choose = eq.CHOICES[config.choice]
        last = channels[self.last]
        self.prior = QueryPrior(last, last, config.num_queries, config.query_size) if config.prior else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(last, config.num_attributes, 1)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        attention: list[Tensor] = []
        magnitude: list[Tensor] = []
        features = self.run_trunk(image, skip, self.skippable)  # (N, C, H, W), from the first gate on (M, C, H, W)
        score = image.new_empty(0)
        for i in range(self.attended[0], self.last + 1):
            if i > self.attended[0]:
                features = staged(self.stages[i], self.norms[i - 1](features), image)  # eq. (3)
            if i not in self.attended:
                continue
            # By several questions about an image; an export knows no len.
            shared = i == self.attended[0] and of_image.shape[0] > features.shape[0]
            read = self.head_norms[str(i)](features)
            score = self.scorers[str(i)](read, question, of_image if shared else None)
            norm = eq.at_least_float32(torch.linalg.vector_norm(features, dim=1))
            magnitude.append(norm[of_image] if shared else norm)
            attention.append(self.choose(score) if i == self.last else eq.gate(score))  # eq. (2)
            if shared:
                features = for_each_question(features, of_image)
            if i < self.last or self.config.pooling == "soft":
                features = eq.attend(features, attention[-1])  # eq. (1)
        return Prediction(self._classified(features, score, question), attention, magnitude)

    def _classified(self, features: Tensor, score: Tensor, question: Tensor) -> Tensor:
        """Features (M, C, H, W), of soft attention attended; scores (M, H, W), queries -> logit (M, A)."""
        soft, likelihood = self.config.pooling == "soft", self.config.likelihood
        if soft:
            features = eq.soft_pool(features, self.config.soft_reduction)
        features = self.norms[-1](features)  # of the pooled feature, or of each location's
        if self.prior is not None:
            features = self.prior(features, question)
        logit = eq.as_logit(self.classifier(self.dropout(features)), likelihood)
        if soft:
            return logit[..., 0, 0]
        return (eq.marginalise if likelihood == "softmax" else eq.marginalise_log_odds)(logit, score)

    # ``saved.hub`` does the work of these three. It builds on the networks, so they import it when they are called.

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, **download: Any) -> Self:
        """A trained network in evaluation mode: by a shipped name, a folder, or a repository ``owner/name`` of the Hub.

        The keywords are those of ``huggingface_hub.snapshot_download``. Raises ValueError where there is no network, it
        is broken, or of another kind.
        """
        from progressive_attention.saved import hub

        return hub.load_pretrained(cls, name_or_folder, **download)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        query_names: Sequence[str] | None = None,
        attribute_names: Sequence[str] | None = None,
        results: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        """Write README.md (``model_card``), weights.safetensors and config.json.

        The names are needed once, of a newly built network. ``results``, from ``evaluate``, and ``name`` (default: the
        folder's) go into the card. What a network came with is written again, but nothing that was measured of other
        weights. Raises ValueError for names that are missing or don't fit.
        """
        from progressive_attention.saved import hub

        hub.save_pretrained(self, Path(folder), query_names, attribute_names, results, name)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a network of progressive_attention",
        **saved: Any,
    ) -> str:
        """Upload what ``save_pretrained`` writes, given ``saved``, to ``owner/name``: its address, or ValueError."""
        from progressive_attention.saved import hub

        return hub.push_to_hub(self, repository, private, token, revision, commit_message, saved)
