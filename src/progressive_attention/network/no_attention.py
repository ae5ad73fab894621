"""Networks that are asked without attention, to compare with: concatenation and FiLM.

Legend: N images, M questions (one row each), C channels, A attributes.
"""

from torch import Tensor, nn

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, staged
from progressive_attention.network.question_network import Baseline, Prediction, for_each_question
from progressive_attention.network.scorers import query_layer, start_queries


class ConcatenationNetwork(Baseline):
    """No attention: last map and query side by side into a perceptron (Zhou et al., "Simple Baseline for VQA")."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        width = 4 * config.hidden  # one vector must hold what the scorers say of many locations
        self.context = nn.Linear(self.flattened, width, bias=False)
        self.query = query_layer(config.num_queries, config.query_size, width)
        self.classifier = nn.Linear(width, config.num_attributes)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        features = image
        for stage, norm in zip(self.stages, self.norms, strict=True):
            features = norm(staged(stage, features, image))
        shown = self.context(features.flatten(1))[of_image]
        hidden = (shown + self.query(question).to(shown.dtype)).relu()
        return Prediction(self.classified(hidden), [], [])


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
