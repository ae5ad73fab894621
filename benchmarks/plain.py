"""What our networks are compared with: the paper read literally, and the same CNN with no attention at all.

Legend: M questions (one row each), C channels, H x W cells, Q queries, A attributes.
Equation numbers are those of the 2018 paper.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_attention.config import ModelConfig
from progressive_attention.network.backbone import build_backbone
from progressive_attention.network.pan import ProgressiveAttentionNetwork
from progressive_attention.network.scorers import AttentionScorer


def paper_stages(channels: int = 32, depth: int = 4) -> nn.ModuleList:
    """The papers' CNN in the text's order: 3x3 convolution, ReLU, 2x2 max pooling, four times."""
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(channels if i else 3, channels, 3), nn.ReLU(), nn.MaxPool2d(2)) for i in range(depth)
    )


class PlainScorer(nn.Module):
    """g_att of eqs. (2) and (7) word by word: the neighbourhood of every location is stacked, the query, one-hot, is
    concatenated to it, and a two-layer perceptron gives the score.
    """

    def __init__(self, channels: int, num_queries: int, hidden: int, radius: int) -> None:
        super().__init__()
        self.num_queries, self.radius = num_queries, radius
        # No bias here: a one-hot query brings its own.
        self.first = nn.Linear(channels * (2 * radius + 1) ** 2 + num_queries, hidden, bias=False)
        self.second = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """(M, C, H, W), query ids (M,) -> score (M, H, W)."""
        near = F.unfold(features, 2 * self.radius + 1, padding=self.radius).transpose(1, 2)  # (M, HW, C (2δ+1)²)
        asked = F.one_hot(query, self.num_queries).to(near.dtype)[:, None].expand(-1, near.shape[1], -1)
        hidden = self.first(torch.cat([near, asked], 2)).relu()
        return self.second(hidden).view(len(features), *features.shape[2:])


class PlainReading(nn.Module):
    """PAN[H] as one writes it down from the text: one row a question, its image included; nothing is shared.

    The same function as ``ProgressiveAttentionNetwork`` of that config, where in training all images of a batch are
    asked equally often (else its batch norms beside a timm backbone, which see each image once, differ).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert (config.network, config.scorer, config.choice) == ("pan", "mlp", "softmax"), config
        assert (config.pooling, config.likelihood, config.prior) == ("hard", "softmax", False), config
        backbone = build_backbone(config.backbone)
        self.attended = backbone.positions(config.attend_at)
        self.last = self.attended[-1]
        stages, self.norms = backbone.until(self.last)
        self.stages = paper_stages()[: self.last + 1] if config.backbone == "conv-stack" else stages
        channels = backbone.channels
        self.scorers, self.head_norms = nn.ModuleDict(), nn.ModuleDict()
        for i in self.attended:
            radius = config.radius if i < self.last else 0
            self.scorers[str(i)] = PlainScorer(channels[i], config.num_queries, config.hidden, radius)
            self.head_norms[str(i)] = backbone.head_norm(channels[i])
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels[self.last], config.num_attributes)

    def forward(self, image: Tensor, query: Tensor) -> Tensor:
        """Images (M, 3, H, W) in [0, 1], query ids (M,) -> log-probabilities (M, A)."""
        features, score = image, image
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            features = stage(features)
            if i in self.attended:
                score = self.scorers[str(i)](self.head_norms[str(i)](features), query)
                if i < self.last:
                    features = features * score.sigmoid()[:, None]  # eqs. (1) and (2)
            features = norm(features)
        each = self.classifier(self.dropout(features).flatten(2).transpose(1, 2)).softmax(2)  # (M, HW, A), eq. (5)
        attention = score.flatten(1).softmax(1)  # (M, HW)
        return (attention[:, :, None] * each).sum(1).log()  # eq. (6)


@torch.no_grad()
def as_plain(model: ProgressiveAttentionNetwork) -> PlainReading:
    """The plain reading with the weights of ours, on its device and of its dtype, in torch's default layout."""
    weight = model.classifier.weight
    plain = PlainReading(model.config).to(weight.device, weight.dtype)
    for part in ("stages", "norms", "head_norms"):
        getattr(plain, part).load_state_dict(getattr(model, part).state_dict())
    for i, scorer in plain.scorers.items():
        ours = model.scorers[i]
        assert isinstance(scorer, PlainScorer)
        assert isinstance(ours, AttentionScorer)
        scorer.first.weight.copy_(torch.cat([ours.context.weight.flatten(1), ours.query.weight.T], 1))
        scorer.second.load_state_dict({"weight": ours.score.weight.flatten(1), "bias": ours.score.bias})
    plain.classifier.load_state_dict({"weight": weight.flatten(1), "bias": model.classifier.bias})
    return plain


class AttentionFreeCNN(nn.Module):
    """What attention costs is measured against it: the same trunk, average pooling, a linear classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        backbone = build_backbone(config.backbone)
        last = backbone.positions(config.attend_at)[-1]
        self.stages, self.norms = backbone.until(last)
        self.classifier = nn.Linear(backbone.channels[last], config.num_attributes)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> log-probabilities (N, A), float32 at least."""
        features = image
        for stage, norm in zip(self.stages, self.norms, strict=True):
            features = norm(stage(features))
        logit = self.classifier(features.mean((2, 3)))
        return logit.to(torch.promote_types(logit.dtype, torch.float32)).log_softmax(1)
