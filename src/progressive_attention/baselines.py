"""What progressive attention is compared with, on the same backbone: spatial transformers, and no attention at all.

Legend: N images, M questions (one row each), C channels, H x W cells, A attributes.
"""

from torch import Tensor, nn

from progressive_attention.attention import AskEachQuestion, at_least_float32
from progressive_attention.backbones import Backbone, build_backbone
from progressive_attention.config import ModelConfig
from progressive_attention.prediction import Prediction, QuestionNetwork, staged
from progressive_attention.spatial_transformer import Localiser, transformed


class Baseline(QuestionNetwork):
    """A backbone's stages, a norm behind each but the last, and a classifier of the flattened last map.

    Flattened, so the size of the images is fixed: ``config.image_size``.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.attended = backbone.positions(config.attend_at)
        # The last norm stands before the classifier, as in ProgressiveAttentionNetwork.
        self.stages, self.norms = backbone.until(len(backbone.stages) - 1)
        self.sizes = backbone.map_sizes(config.image_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.flattened, config.num_attributes)

    @property
    def flattened(self) -> int:
        """Values of the last map."""
        channels, height, width = self.sizes[-1]
        return channels * height * width

    def classified(self, features: Tensor) -> Tensor:
        """Last features (M, C, H, W) -> log-probabilities (M, A)."""
        flat = self.dropout(self.norms[-1](features).flatten(1))
        return at_least_float32(self.classifier(flat)).log_softmax(1)

    def forward(self, image: Tensor, query: Tensor) -> Prediction:
        """As every network's, but for images of ``config.image_size`` only; else ValueError."""
        side = self.config.image_size
        if image.ndim == 4 and image.shape[1] == 3 and image.shape[2:] != (side, side):
            raise ValueError(
                f"this network takes images of {side} x {side} pixels, got {image.shape[2]} x {image.shape[3]}; "
                "resize them, or build it with another image_size"
            )
        return super().forward(image, query)


class ConcatenationNetwork(Baseline):
    """No attention: the last map and the query's vector side by side into a two-layer perceptron.

    The plainest way to ask an image: Zhou et al., "Simple Baseline for Visual Question Answering", 2015.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        width = 4 * config.hidden  # one vector must hold what the scorers say of many locations
        self.context = nn.Linear(self.flattened, width, bias=False)
        self.query = nn.Embedding(config.num_queries, width)
        self.classifier = nn.Linear(width, config.num_attributes)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor) -> Prediction:
        features = image
        for stage, norm in zip(self.stages, self.norms, strict=True):
            features = norm(staged(stage, features, image))
        shown = self.context(features.flatten(1))[of_image]
        hidden = (shown + self.query(question).to(shown.dtype)).relu()
        return Prediction(at_least_float32(self.classifier(self.dropout(hidden))).log_softmax(1), [], [])


class FiLMNetwork(Baseline):
    """No attention: the query scales and shifts every channel behind every stage's norm.

    Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        layers = [nn.Embedding(config.num_queries, 2 * channels) for channels in backbone.channels]
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.1)
        self.film = nn.ModuleList(layers)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor) -> Prediction:
        features = image
        for i, (stage, norm, film) in enumerate(zip(self.stages, self.norms, self.film, strict=True)):
            features = norm(staged(stage, features, image))
            if i == 0:
                features = AskEachQuestion.apply(features, of_image)
            scale, shift = film(question).to(features.dtype)[..., None, None].chunk(2, 1)
            features = ((1 + scale) * features + shift).relu()
        flat = self.dropout(features.flatten(1))
        return Prediction(at_least_float32(self.classifier(flat)).log_softmax(1), [], [])


class SpatialTransformerNetwork(Baseline):
    """A query-conditioned spatial transformer before each attended stage: of the first, STN-S; of all, STN-M.

    Each transformer's localisation network has the architecture of the stages that are still to come, weights of its
    own, and the query in its head as in the scorers. "Single" and "multi" as in Jaderberg et al., section 4.2.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.localisation = nn.ModuleDict()
        self.localisers = nn.ModuleDict()
        for i in self.attended:
            other = build_backbone(config.backbone)
            stages, norms = other.until(len(other.stages) - 1)
            self.localisation[str(i)] = nn.Sequential(
                *(layer for pair in list(zip(stages, norms, strict=True))[i:] for layer in pair), nn.Flatten()
            )
            self.localisers[str(i)] = Localiser(self.flattened, config.num_queries, config.hidden)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor) -> Prediction:
        features, shared = image, True  # (N, C, H, W) while shared by an image's questions, then (M, C, H, W)
        transforms: list[Tensor] = []
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if i in self.attended:
                shown = staged(self.localisation[str(i)], features, image)
                transforms.append(self.localisers[str(i)](shown, question, of_image if shared else None))
                if shared:
                    features, shared = AskEachQuestion.apply(features, of_image), False
                features = transformed(features, transforms[-1])
            features = staged(stage, features, image)
            if i < len(self.stages) - 1:
                features = norm(features)
        return Prediction(self.classified(features), [], [], tuple(transforms))
