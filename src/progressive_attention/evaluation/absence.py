"""Is what was asked for there at all? Scores that tell, and the threshold below which the answer is "not found".

Softmax attention always points somewhere and a classifier always answers. But a network does not answer with the same
certainty, and its gates do not let the same through, when nothing in the picture is what it was asked for.

Legend: B images, K queries per image, H_l x W_l cells at layer l, A attributes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from progressive_attention.config import ModelConfig
from progressive_attention.data.questions import ABSENT
from progressive_attention.maps.pixel_maps import accumulated_map, as_values, normalised
from progressive_attention.maps.receptive_field import Geometry
from progressive_attention.network.question_network import Prediction
from progressive_attention.saved.weights import Trained

Score = Callable[[Prediction], Tensor]
"""A prediction -> (B, K), the higher, the surer that the asked object is there."""


def probability(prediction: Prediction) -> Tensor:
    """That of the likeliest attribute: (B, K) in [0, 1]. Hendrycks and Gimpel, ICLR 2017, against unknown inputs."""
    return prediction.log_prob.double().exp().amax(-1)


def certainty(prediction: Prediction) -> Tensor:
    """One minus the answer's entropy over log A: (B, K) in [0, 1]. Of a softmax over A >= 2 attributes."""
    log_prob = prediction.log_prob.double().log_softmax(-1)  # float32 sums to one not quite
    return 1 + (log_prob.exp() * log_prob).sum(-1) / math.log(log_prob.shape[-1])


def focus(prediction: Prediction) -> Tensor:
    """One minus the last map's entropy over that of the uniform map: (B, K) in [0, 1]; of a single cell 0."""
    share = normalised(prediction.attention[-1].double()).flatten(-2)
    if share.shape[-1] == 1:  # it has no choice
        return torch.zeros_like(share[..., 0])
    return 1 + (share * share.clamp(min=1e-30).log()).sum(-1) / math.log(share.shape[-1])


def peak(prediction: Prediction, where: Geometry) -> Tensor:
    """The largest share of the accumulated map that lies on one pixel: (B, K) in [0, 1]."""
    return accumulated_map(prediction, where).flatten(-2).amax(-1)


def openness(prediction: Prediction, where: Geometry) -> Tensor:
    """The product of all gates where the last map looks, weighed by it: (B, K) in [0, 1]."""
    shown = [as_values(a, f, where.image_size) for a, f in zip(prediction.attention, where.fields, strict=True)]
    return (normalised(shown[-1]) * torch.stack(shown[:-1]).prod(0)).flatten(-2).sum(-1)


def magnitude(prediction: Prediction) -> Tensor:
    """What the last map gathers: the sum over cells of α^L |f^L|, (B, K) >= 0, in units of the network's features.

    f^L is what all gates before have let through, so this is attention times what is left to attend to.
    """
    return (prediction.attention[-1].double() * prediction.magnitude[-1].double()).flatten(-2).sum(-1)


def not_absent(prediction: Prediction, absent: int) -> Tensor:
    """Log-odds that any answer but "absent", whose id is given, is right: (B, K), 0 where it is as likely as not."""
    if prediction.likelihood == "bernoulli":
        return -prediction.logit[..., absent].double()
    log_prob = prediction.log_prob.double()
    others = torch.cat([log_prob[..., :absent], log_prob[..., absent + 1 :]], -1).logsumexp(-1)
    return others - log_prob[..., absent]


def scores_of(config: ModelConfig, attribute_names: tuple[str, ...], where: Geometry) -> dict[str, Score]:
    """The scores that a network has, by name: those of maps if it has some; what it learnt."""
    found: dict[str, Score] = {"probability": probability}
    if config.likelihood == "softmax" and config.num_attributes > 1:
        found["certainty"] = certainty
    if config.network == "pan":
        found |= {"focus": focus, "peak": partial(peak, where=where), "magnitude": magnitude}
    if len(where.fields) > 1:
        found["openness"] = partial(openness, where=where)
    if ABSENT in attribute_names:
        found["not_absent"] = partial(not_absent, absent=attribute_names.index(ABSENT))
    return found


@dataclass(frozen=True)
class Detector:
    """Says "found" where the ``score`` called ``name`` is at least the ``threshold``."""

    name: str
    score: Score
    threshold: float

    def told(self, prediction: Prediction) -> list[list[tuple[float, bool]]]:
        """Of B images and K queries, the score and whether the object was found."""
        return [[(value, value >= self.threshold) for value in row] for row in self.score(prediction).tolist()]


def detector(trained: Trained, where: Geometry) -> Detector | None:
    """The one that ``pan absence`` wrote into config.json, None where it has not; raises ValueError for a wrong one."""
    entry = trained.about.get("absence")
    if entry is None:
        return None
    scores = scores_of(trained.model.config, trained.attribute_names, where)
    name, threshold = (entry.get(key) for key in ("score", "threshold")) if isinstance(entry, dict) else (None, None)
    if name not in scores or isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ValueError(
            f'"absence" in config.json must hold a score of {", ".join(scores)} and a number as threshold, got '
            f"{entry!r}; `pan absence` writes it anew"
        )
    return Detector(name, scores[name], float(threshold))
