"""Networks that are asked without attention, to compare with: concatenation, pooled or not, and FiLM.

Legend: N images, M questions (one row each), C channels, H x W cells, A attributes.
"""

import torch
from torch import Tensor, nn

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, staged
from progressive_attention.network.equations import at_least_float32
from progressive_attention.network.question_network import Baseline, Prediction, for_each_question
from progressive_attention.network.scorers import query_layer, start_queries


class ConcatenationNetwork(Baseline):
    """No attention: last map and query side by side into a perceptron (Zhou et al., "Simple Baseline for VQA").

    The network ``"pooled"`` takes the last map's mean over its cells, and its one map is ``grad_cam``, which has no
    part in the answer.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.pooled = config.network == "pooled"
        if self.pooled:
            self.attended = [len(self.stages) - 1]  # where Grad-CAM looks
        width = 4 * config.hidden  # one vector must hold what the scorers say of many locations
        self.context = nn.Linear(self.channels[-1] if self.pooled else self.flattened, width, bias=False)
        self.query = query_layer(config.num_queries, config.query_size, width)
        self.classifier = nn.Linear(width, config.num_attributes)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        features = image
        for stage, norm in zip(self.stages, self.norms, strict=True):
            features = norm(staged(stage, features, image))
        shown = self.context(features.mean((-2, -1)) if self.pooled else features.flatten(1))[of_image]
        hidden = (shown + self.query(question).to(shown.dtype)).relu()
        logit = self.classified(hidden)
        if not self.pooled:
            return Prediction(logit, [], [])
        gradient = ((hidden > 0) * self.classifier.weight[logit.argmax(1)]) @ self.context.weight
        magnitude = at_least_float32(torch.linalg.vector_norm(features, dim=1))
        return Prediction(logit, [grad_cam(for_each_question(features, of_image), gradient)], [magnitude[of_image]])


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Where pooled features speak for an answer: (M, C, H, W), d answer / d pooled (M, C) -> (M, H, W), of sum one.

    The positive part of the features weighed by their channels' gradients: Selvaraju et al., "Grad-CAM", ICCV 2017.
    Uniform where no cell speaks for the answer.
    """
    cells = at_least_float32(torch.einsum("mchw,mc->mhw", features, gradient.to(features.dtype))).relu()
    total, count = cells.sum((-2, -1), keepdim=True), cells.shape[-2] * cells.shape[-1]
    return torch.where(total > 0, cells / torch.where(total > 0, total, 1), 1 / count)


class FiLMNetwork(Baseline):
    """No attention: the query scales and shifts every channel behind every stage's norm (Perez et al., AAAI 2018)."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        sizes = config.num_queries, config.query_size
        layers = [query_layer(*sizes, 2 * channels) for channels in backbone.channels]
        for layer in layers:
            start_queries(layer)
        self.film = nn.ModuleList(layers)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        features = image
        for i, (stage, norm, film) in enumerate(zip(self.stages, self.norms, self.film, strict=True)):
            features = norm(staged(stage, features, image))
            if i == 0:
                features = for_each_question(features, of_image)
            scale, shift = film(question).to(features.dtype)[..., None, None].chunk(2, 1)
            features = ((1 + scale) * features + shift).relu()
        return Prediction(self.classified(features.flatten(1)), [], [])
