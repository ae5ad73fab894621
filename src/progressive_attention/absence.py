"""Is what was asked for there at all? Scores that tell, measured, and the threshold below which it is "not found".

Softmax attention always points somewhere and a classifier always answers. But a network does not answer with the same
certainty, and its gates do not let the same through, when nothing in the picture is what it was asked for.

Legend: B images, K queries per image, H_l x W_l cells at layer l, A attributes, R rows (questions).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progressive_attention.config import ModelConfig
from progressive_attention.data.absent import ABSENT
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.inference import predictions
from progressive_attention.metrics.detection import auroc, auroc_interval, keeping_threshold
from progressive_attention.prediction import Prediction
from progressive_attention.receptive_field import Geometry, accumulated_map, as_values, geometry, normalised
from progressive_attention.weights import Trained

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
    """One minus the last map's entropy over that of the uniform map: (B, K) in [0, 1], of more cells than one."""
    share = normalised(prediction.attention[-1].double()).flatten(-2)
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


@dataclass(frozen=True)
class Scored:
    """All scores of some questions, of those whose image could be read.

    ``there`` (R,) bool; ``right`` (R,) bool, whether the attribute was told rightly, None where several may hold;
    ``scores`` (R,) float64 by name.
    """

    name: str
    there: np.ndarray
    right: np.ndarray | None
    scores: dict[str, np.ndarray]


def asks_absent(questions: QuestionSet) -> np.ndarray:
    """Which rows ask for what is not there: (R,) bool, those with the attribute "absent"."""
    attribute = questions.attribute
    if ABSENT not in questions.attribute_names:
        return np.zeros(len(questions), bool)
    absent = questions.attribute_names.index(ABSENT)
    if not isinstance(attribute, Labels):
        return attribute == absent
    row = np.repeat(np.arange(len(questions)), np.diff(attribute.start))
    told = np.zeros(len(questions), bool)
    told[row[(attribute.attribute == absent) & (attribute.value == 1)]] = True
    return told


def scored(
    trained: Trained,
    questions: QuestionSet,
    device: torch.device,
    *,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """Every score of every question. The network need not know the word "absent".

    Raises ValueError for queries that it does not know, images of another size, or where all or none are absent.
    """
    absent = asks_absent(questions)
    if absent.all() or not absent.any():
        raise ValueError(
            f'{questions.name}: expected rows with the attribute "absent" (asked for what is not there) and others, '
            f"got {absent.sum()} of {len(absent)}; see docs/absence.md"
        )
    size, side = questions.images.shape[1:3], trained.model.config.image_size
    if size != (side, side):
        raise ValueError(f"{questions.name}: images are {size[1]} x {size[0]}, this network takes {side} x {side}")
    # Only the words of queries must be known; ids of answers are compared as words, below.
    unanswered = replace(questions, attribute=np.zeros_like(questions.query), attribute_names=trained.attribute_names)
    asked = in_words_of(unanswered, trained.query_names, trained.attribute_names)
    wanted = scores_of(trained.model.config, trained.attribute_names, geometry(trained.model))
    scores = {name: np.full(len(asked), np.nan) for name in wanted}
    answer, read, done = np.zeros(len(asked), np.int64), np.zeros(len(asked), bool), 0
    for given, prediction in predictions(trained.model, asked, device, batch=batch):
        real = given.row >= 0
        rows = given.row[real]
        read[rows] = True
        answer[rows] = prediction.logit.argmax(-1).cpu().numpy()[real]
        for name, score in wanted.items():
            scores[name][rows] = score(prediction).cpu().numpy()[real]
        done += len(rows)
        if progress:
            progress(done, len(asked))
    right = None
    if not isinstance(questions.attribute, Labels):
        said = np.array(trained.attribute_names, object)[answer]
        right = (said == np.array(questions.attribute_names, object)[questions.attribute])[read]
    return Scored(questions.name, ~absent[read], right, {name: values[read] for name, values in scores.items()})


def told_apart(validation: Scored, test: Scored, keep: float = 0.95) -> dict[str, Any]:
    """Each score's figures on the test questions, at the threshold that keeps a share of the validation's present ones.

    ``score``, the one with the best AUROC on validation, and its figures; ``keep``; ``validation`` and ``test``, the
    names of the sets; ``present`` and ``absent``, test questions of either kind; ``accuracy`` of the present ones, None
    where several attributes may hold; ``scores``, by name: ``threshold``, ``validation_auroc``, ``auroc`` with
    ``auroc_ci95``, ``kept`` and ``told``, the shares of present questions found and of absent ones not, and
    ``accuracy_kept`` among the present ones found. Shares in [0, 1].
    """
    figures = {}
    for name, before in validation.scores.items():
        present = before[validation.there]
        of_validation = {"validation_auroc": auroc(present, before[~validation.there])}
        figures[name] = of_validation | figures_of(name, test, keeping_threshold(present, keep))
    best = max(figures, key=lambda name: figures[name]["validation_auroc"])
    there, right = test.there, test.right
    about = {"keep": keep, "validation": validation.name, "test": test.name}
    counts = {"present": int(there.sum()), "absent": int((~there).sum())}
    accuracy = None if right is None else float(right[there].mean())
    return {"score": best, **figures[best], **about, **counts, "accuracy": accuracy, "scores": figures}


def figures_of(name: str, test: Scored, threshold: float) -> dict[str, Any]:
    """One score's figures on some questions at a threshold, as ``told_apart`` tells."""
    score, found = test.scores[name], test.scores[name] >= threshold
    parts = score[test.there], score[~test.there]
    kept = found & test.there
    return {
        "threshold": threshold,
        "auroc": auroc(*parts),
        "auroc_ci95": list(auroc_interval(*parts)),
        "kept": float(found[test.there].mean()),
        "told": float((~found)[~test.there].mean()),
        "accuracy_kept": float(test.right[kept].mean()) if test.right is not None and kept.any() else None,
    }
