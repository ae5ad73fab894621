"""How well each score of ``absence`` tells what is there from what is not, and at which threshold.

Legend: R rows (questions).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from progressive_attention.data.questions import ABSENT, Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.absence import scores_of
from progressive_attention.evaluation.ask import predictions
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.detection import auroc, auroc_interval, keeping_threshold
from progressive_attention.processes import merge_rows, world
from progressive_attention.saved.weights import Trained


@dataclass(frozen=True)
class Scored:
    """All scores of some questions, of those whose image could be read.

    ``there`` (R,) bool; ``right`` (R,) bool, whether the likeliest attribute but "absent" is right, None where several
    may hold;
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

    Of several processes each asks its part, and all have the whole.
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
    named = [i for i, name in enumerate(trained.attribute_names) if name != ABSENT]  # which, if it is there?
    scores = {name: np.full(len(asked), np.nan) for name in wanted}
    answer, read, done = np.zeros(len(asked), np.int64), np.zeros(len(asked), bool), 0
    for given, prediction in predictions(trained.model, asked, device, batch=batch):
        real = given.row >= 0
        rows = given.row[real]
        read[rows] = True
        answer[rows] = prediction.logit[..., named].argmax(-1).cpu().numpy()[real]
        for name, score in wanted.items():
            scores[name][rows] = score(prediction).cpu().numpy()[real]
        done = min(len(asked), done + len(rows) * world())
        if progress:
            progress(done, len(asked))
    merge_rows(read, answer, *scores.values())
    right = None
    if not isinstance(questions.attribute, Labels):
        said = np.array(trained.attribute_names, object)[named][answer]
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
