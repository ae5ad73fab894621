"""What progressive attention is compared with, on the same backbone: spatial transformers, and no attention at all.

Legend: N images, M questions (one row each), C channels, H x W cells, A attributes.
"""

from copy import deepcopy

from torch import Tensor, nn

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import Backbone, build_backbone, staged
from progressive_attention.network.equations import QueryPrior, as_logit, query_layer, start_queries
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.network.sharing import AskEachQuestion
from progressive_attention.network.spatial_transformer import Localiser, transformed


class Baseline(QuestionNetwork):
    """A backbone's stages, a norm behind each but the last, and a classifier of the flattened last map.

    Flattened, so the size of the images is fixed: ``config.image_size``.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone, last=len(backbone.stages) - 1)
        self.sizes = backbone.map_sizes(config.image_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.flattened, config.num_attributes)

    @property
    def flattened(self) -> int:
        """Values of the last map."""
        channels, height, width = self.sizes[-1]
        return channels * height * width

    def classified(self, flat: Tensor) -> Tensor:
        """What is to be classified (M, D) -> logit (M, A)."""
        return as_logit(self.classifier(self.dropout(flat)), self.config.likelihood)

    def check_image(self, image: Tensor, skip: int = 0) -> None:
        """As every network's, and ValueError for images of another size than ``config.image_size``."""
        super().check_image(image, skip)
        side = self.config.image_size
        height, width = self.sizes[skip - 1][1:] if skip else (side, side)
        if image.shape[2:] != (height, width):
            expected = f"images of {side} x {side} pixels"
            if skip:
                expected += f", of which {skip} stages leave {height} x {width} cells"
            raise ValueError(
                f"this network takes {expected}, got {image.shape[2]} x {image.shape[3]}; "
                "resize them, or build it with another image_size"
            )


class ConcatenationNetwork(Baseline):
    """No attention: the last map and the query's vector side by side into a two-layer perceptron.

    The plainest way to ask an image: Zhou et al., "Simple Baseline for Visual Question Answering", 2015.
    """

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
    """No attention: the query scales and shifts every channel behind every stage's norm.

    Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
    """

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
                features = AskEachQuestion.apply(features, of_image)
            scale, shift = film(question).to(features.dtype)[..., None, None].chunk(2, 1)
            features = ((1 + scale) * features + shift).relu()
        return Prediction(self.classified(features.flatten(1)), [], [])


class SpatialTransformerNetwork(Baseline):
    """A query-conditioned spatial transformer before each attended stage: of the first, STN-S; of all, STN-M.

    Each transformer's localisation network has the architecture of the stages that are still to come, weights of its
    own, and the query in its head as in the scorers. "Single" and "multi" as in Jaderberg et al., section 4.2; on a
    pretrained backbone its weights start as the backbone's, as in their section 4.3. The prior fuses the flattened last
    map into as many units as that has channels. Raises ValueError for a backbone that is not ``config.backbone``'s.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.skippable = self.attended[0]
        self.localisation = nn.ModuleDict()
        self.localisers = nn.ModuleDict()
        for i in self.attended:
            other = deepcopy(backbone) if backbone.pretrained else build_backbone(config.backbone)
            if (other.names, other.channels) != (backbone.names, backbone.channels):
                raise ValueError(
                    f"the backbone has stages {backbone.names} of {backbone.channels} channels, and the localisation "
                    f"networks would be {config.backbone!r} with {other.names} of {other.channels}; put what builds "
                    "yours into backbones.BACKBONES, and its name into the configuration"
                )
            stages, norms = other.until(len(other.stages) - 1)
            self.localisation[str(i)] = nn.Sequential(
                *(layer for pair in list(zip(stages, norms, strict=True))[i:] for layer in pair), nn.Flatten()
            )
            self.localisers[str(i)] = Localiser(*(self.flattened, config.num_queries, config.hidden, config.query_size))
        self.prior = None
        if config.prior:
            units = self.channels[-1]
            self.prior = QueryPrior(self.flattened, units, config.num_queries, config.query_size)
            self.classifier = nn.Linear(units, config.num_attributes)

    def answer(self, image: Tensor, question: Tensor, of_image: Tensor, skip: int) -> Prediction:
        features = self.run_trunk(image, skip, self.skippable)  # (N, C, H, W), soon (M, C, H, W)
        transforms: list[Tensor] = []
        for i in range(self.attended[0], len(self.stages)):
            if i in self.attended:
                shared = i == self.attended[0]  # by all questions about an image
                shown = staged(self.localisation[str(i)], features, image)
                transforms.append(self.localisers[str(i)](shown, question, of_image if shared else None))
                if shared:
                    features = AskEachQuestion.apply(features, of_image)
                features = transformed(features, transforms[-1])
            features = self.norms[i](staged(self.stages[i], features, image))
        flat = features.flatten(1)
        if self.prior is not None:
            flat = self.prior(flat[..., None, None], question).flatten(1)
        return Prediction(self.classified(flat), [], [], tuple(transforms))
