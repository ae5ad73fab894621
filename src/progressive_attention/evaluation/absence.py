"""Is what was asked for there at all? Scores of that, how well each separates, and the threshold for "not found".

Softmax attention always points somewhere and a classifier always answers. But a network does not answer with the same
certainty, and its gates do not let the same through, when nothing in the picture is what it was asked for.

Legend: B images, K queries per image, A attributes, R rows (questions). A score is a prediction -> (B, K) float64; the
higher, the surer that the asked object is there.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from progressive_attention.config import ModelConfig
from progressive_attention.data.questions import ABSENT, Labels, QuestionSet
from progressive_attention.evaluation.ask import Part, Progress, gather, predictions
from progressive_attention.maps.pixel_maps import accumulated_map, as_values, normalised
from progressive_attention.maps.receptive_field import Geometry, geometry
from progressive_attention.metrics.detection import auroc, auroc_interval, keeping_threshold
from progressive_attention.network.question_network import Prediction
from progressive_attention.saved import Trained

Score = Callable[[Prediction], Tensor]


def scores_of(config: ModelConfig, attribute_names: tuple[str, ...], where: Geometry) -> dict[str, Score]:
    """The scores that a network has, by name: of its answers, of its maps if it has some, and what it learnt.

    ``probability`` of the most likely attribute, in [0, 1] (Hendrycks and Gimpel, 2017). ``certainty``, one minus the
    answer's entropy over log A, and ``focus``, one minus the last map's over that of the uniform map, in [0, 1].
    ``peak``, the largest share of the accumulated map on one pixel. ``magnitude``, what the last map gathers: the sum
    over cells of α^L |f^L| >= 0, in units of the features, which hold what all gates before have let through.
    ``openness``, the product of all gates where the last map looks, weighed by it, in [0, 1]. ``not_absent``, the
    log-odds that any answer but "absent" is right.
    """

    def openness(prediction: Prediction) -> Tensor:
        shown = [as_values(a, f, where.image_size) for a, f in zip(prediction.attention, where.fields, strict=True)]
        return (normalised(shown[-1]) * torch.stack(shown[:-1]).prod(0)).flatten(-2).sum(-1)

    scores: dict[str, Score] = {"probability": lambda p: p.log_prob.double().exp().amax(-1)}
    if config.likelihood == "softmax" and config.num_attributes > 1:
        scores["certainty"] = lambda p: concentration(p.log_prob.double().softmax(-1))
    if where.fields:
        scores["focus"] = lambda p: concentration(normalised(p.attention[-1].double()).flatten(-2))
        scores["peak"] = lambda p: accumulated_map(p, where).flatten(-2).amax(-1)
        scores["magnitude"] = lambda p: (p.attention[-1].double() * p.magnitude[-1].double()).flatten(-2).sum(-1)
    if len(where.fields) > 1:
        scores["openness"] = openness
    if ABSENT in attribute_names:
        scores["not_absent"] = lambda p: not_absent(p, attribute_names.index(ABSENT))
    return scores


def concentration(share: Tensor) -> Tensor:
    """One minus the entropy of shares (..., N) over log N: (...) in [0, 1]; 0 of a single share."""
    if share.shape[-1] == 1:
        return torch.zeros_like(share[..., 0])
    return 1 + (share * share.clamp(min=1e-30).log()).sum(-1) / math.log(share.shape[-1])


def not_absent(prediction: Prediction, absent: int) -> Tensor:
    """Log-odds that any answer but "absent", whose id is given, is right: (B, K), 0 where it is as likely as not."""
    if prediction.likelihood == "bernoulli":
        return -prediction.logit[..., absent].double()
    log_prob = prediction.log_prob.double()
    others = torch.cat([log_prob[..., :absent], log_prob[..., absent + 1 :]], -1).logsumexp(-1)
    return others - log_prob[..., absent]


class Detector(NamedTuple):
    """Says "found" where the ``score`` called ``name`` is at least the ``threshold``."""

    name: str
    score: Score
    threshold: float


def detector(trained: Trained, where: Geometry) -> Detector | None:
    """The one that ``pan absence`` wrote into config.json, None without one; raises ValueError for a wrong one."""
    entry = trained.about.get("absence")
    if entry is None:
        return None
    scores = scores_of(trained.model.config, trained.attribute_names, where)
    name, threshold = (entry.get("score"), entry.get("threshold")) if isinstance(entry, dict) else (None, None)
    if name not in scores or isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ValueError(
            f'"absence" in config.json must hold a score of {", ".join(scores)} and a number as threshold, got '
            f"{entry!r}; `pan absence` writes it again"
        )
    return Detector(name, scores[name], float(threshold))


class Scored(NamedTuple):
    """All scores of the R questions whose image could be read."""

    name: str
    there: np.ndarray  # (R,) bool
    right: (
        np.ndarray | None
    )  # (R,) bool: the most likely attribute, "absent" aside, is right; None where several may be true
    scores: dict[str, np.ndarray]  # (R,) float64 by name


def asks_absent(questions: QuestionSet) -> np.ndarray:
    """Which rows ask for what is not there: (R,) bool, those with the attribute "absent"."""
    if ABSENT not in questions.attribute_names:
        return np.zeros(len(questions), bool)
    absent, attribute = questions.attribute_names.index(ABSENT), questions.attribute
    if not isinstance(attribute, Labels):
        return attribute == absent
    return np.diff(attribute.where((attribute.attribute == absent) & (attribute.value == 1)).start) > 0


def scored(trained: Trained, questions: QuestionSet, device: torch.device, progress: Progress | None = None) -> Scored:
    """Every score of every question. The network need not know the word "absent".

    Of several processes each asks its part, and all get the whole.
    Raises ValueError for queries that it does not know, images of another size, or where all or none are absent.
    """
    from progressive_attention.evaluation.evaluate import answers_to  # only now: predicting needs no pyarrow

    absent = asks_absent(questions)
    if absent.all() or not absent.any():
        raise ValueError(
            f'{questions.name}: expected rows with the attribute "absent" (asked for what is not there) and others, '
            f"got {absent.sum()} of {len(absent)}; see docs/absence.md"
        )
    # Only the words of queries must be known; ids of answers are compared as words, below.
    unanswered = replace(questions, attribute=np.zeros_like(questions.query), attribute_names=trained.attribute_names)
    asked = answers_to(unanswered, trained)[0].questions
    wanted = scores_of(trained.model.config, trained.attribute_names, geometry(trained.model))
    named = [i for i, name in enumerate(trained.attribute_names) if name != ABSENT]  # which, if it is there?

    def parts() -> Iterator[Part]:
        for given, prediction in predictions(trained.model, asked, device, progress=progress):
            values = {name: score(prediction) for name, score in wanted.items()}
            values["answer"] = prediction.logit[..., named].argmax(-1)
            real = given.row >= 0
            yield given.row[real], {name: value.cpu().numpy()[real] for name, value in values.items()}

    columns = gather(len(asked), parts())
    read, right = columns["read"], None
    if not isinstance(questions.attribute, Labels):
        answer = np.array(trained.attribute_names, object)[named][columns["answer"][read].astype(int)]
        right = answer == np.array(questions.attribute_names, object)[questions.attribute[read]]
    return Scored(questions.name, ~absent[read], right, {name: columns[name][read] for name in wanted})


def told_apart(validation: Scored, test: Scored, keep: float = 0.95) -> dict[str, Any]:
    """Each score's figures on the test questions, at the threshold that keeps a share of the validation's present ones.

    ``score``, the one with the best AUROC on validation, and its figures; ``keep``; ``validation`` and ``test``, the
    names of the sets; ``present`` and ``absent``, test questions of either kind; ``accuracy`` of the present ones, None
    where several attributes may be true; ``scores``, by name: ``validation_auroc`` and ``figures_of``.
    """
    figures = {}
    for name, before in validation.scores.items():
        present = before[validation.there]
        of_validation = {"validation_auroc": auroc(present, before[~validation.there])}
        figures[name] = of_validation | figures_of(name, test, keeping_threshold(present, keep))
    best = max(figures, key=lambda name: figures[name]["validation_auroc"])
    there = test.there
    return {
        "score": best,
        **figures[best],
        "keep": keep,
        "validation": validation.name,
        "test": test.name,
        "present": int(there.sum()),
        "absent": int((~there).sum()),
        "accuracy": None if test.right is None else float(test.right[there].mean()),
        "scores": figures,
    }


def figures_of(name: str, test: Scored, threshold: float) -> dict[str, Any]:
    """One score's figures on some questions at a threshold.

    ``threshold``; ``auroc`` with ``auroc_ci95``; ``kept`` and ``told``, the shares of present questions found and of
    absent ones not; ``accuracy_kept`` among the present ones found. Shares in [0, 1].
    """
    score, above = test.scores[name], test.scores[name] >= threshold
    parts = score[test.there], score[~test.there]
    kept = above & test.there
    return {
        "threshold": threshold,
        "auroc": auroc(*parts),
        "auroc_ci95": list(auroc_interval(*parts)),
        "kept": float(above[test.there].mean()),
        "told": float((~above)[~test.there].mean()),
        "accuracy_kept": float(test.right[kept].mean()) if test.right is not None and kept.any() else None,
    }
