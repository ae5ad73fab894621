"""A trained network over questions: one row per question, then figures. Any grouping of the rows can be made later.

Legend: R rows (questions), L attended layers.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.answers import AnyOf, OneOf, askable
from progressive_attention.evaluation.ask import Part, gather, predictions
from progressive_attention.evaluation.attention import as_lists, columns_of, looked
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import OverlapCurves
from progressive_attention.processes import gathered
from progressive_attention.saved import Trained


def answers_to(questions: QuestionSet, trained: Trained) -> tuple[OneOf | AnyOf, dict[str, Any]]:
    """The questions in the network's words, to be answered, and what ``askable`` says of those left out.

    Raises ValueError for words that the network does not know, another kind of answers, or images of another size.
    """
    lost: dict[str, Any] = {}
    if isinstance(questions.attribute, Labels):
        questions, lost = askable(questions, trained)
    else:
        questions = in_words_of(questions, trained.query_names, trained.attribute_names)
    size, side = questions.images.shape[1:3], trained.model.config.image_size
    if size != (side, side):
        raise ValueError(
            f"{questions.name}: images are {size[1]} x {size[0]}, this network takes {side} x {side}; resize them"
        )
    return kind_of(questions), lost


def validation_score(
    model: nn.Module, questions: QuestionSet, device: torch.device, **options: Any
) -> tuple[str, float]:
    """What training keeps the best weights by, in [0, 1], and its name: accuracy, or the weighted mAP of labels.

    The questions are in the network's words; ``options`` are those of ``predictions``. Raises ValueError where no image
    can be read.
    """
    answers = kind_of(questions)
    for asked, prediction in predictions(model, questions, device, **options):
        real = asked.row >= 0
        answers.add(prediction.logit.double().cpu().numpy()[real], asked.attribute[real])
    return answers.score_name, answers.score()


def kind_of(questions: QuestionSet) -> OneOf | AnyOf:
    """The questions' answers, none of them taken in yet."""
    return AnyOf(questions) if isinstance(questions.attribute, Labels) else OneOf(questions)


def examples(trained: Trained, questions: QuestionSet, device: torch.device, **options: Any) -> pa.Table:
    """The table of ``rows_of`` the questions, with its options; raises ValueError as ``answers_to``."""
    return rows_of(trained, answers_to(questions, trained)[0], device, **options)[0]


def rows_of(
    trained: Trained, answers: OneOf | AnyOf, device: torch.device, batch: int | None = None, **options: Any
) -> tuple[pa.Table, OverlapCurves]:
    """Ask the questions of ``answers``, which takes all in, with options of ``predictions``: R rows in their order.

    Columns: row, ``answers.words``, those of ``attention.looked`` for each target, null where there is none or no such
    map, and entropy, a list of L numbers. Rows whose image can't be read are left out unless a column "read" says so.
    And the maps' precision, recall and IoU. Of several processes each asks its part; all get the whole of both, but
    each its own ``answers``.
    """
    questions, where, targets = answers.questions, geometry(trained.model), answers.targets()
    curves, overlap, nothing = OverlapCurves(), OverlapCurves(), np.zeros(0, np.int64)

    def parts() -> Iterator[Part]:
        layers, logits = np.zeros((0, len(where.fields))), np.zeros((0, len(questions.attribute_names)))
        yield nothing, {"entropy": layers, **answers.columns(logits, questions.attribute[nothing])}
        for asked, prediction in predictions(trained.model, questions, device, batch=batch or answers.batch, **options):
            real = asked.row >= 0
            logit, known = getattr(prediction, answers.reads).double().cpu().numpy()[real], asked.attribute[real]
            answers.add(logit, known)
            yield asked.row[real], answers.columns(logit, known) | looked(prediction, asked, where, targets, curves)

    numbers = gather(len(questions), parts())
    for each in gathered(curves):
        overlap.merge(each)
    unknown = np.full(len(questions), np.nan)
    columns = {"row": np.arange(len(questions)), **answers.words(numbers)}
    for name in chain.from_iterable(map(columns_of, answers.target_names)):
        columns[name] = pa.array(numbers.get(name, unknown), from_pandas=True)
    table = pa.table({**columns, "entropy": as_lists(numbers["entropy"])})
    return table if "read" in columns else table.filter(pa.array(numbers["read"])), overlap


def evaluate_with_rows(
    trained: Trained, questions: QuestionSet, device: torch.device, train: QuestionSet | None = None, **options: Any
) -> tuple[dict[str, Any], pa.Table]:
    """Everything measured, ``OneOf.figures`` or ``AnyOf.figures``, and the rows behind it.

    ``train`` gives the labels for what the query alone says; ``options`` are those of ``rows_of``. Raises ValueError
    as ``answers_to``.
    """
    answers, lost = answers_to(questions, trained)
    learnt = None if train is None else askable(train, trained)[0]  # what is wrong is reported before all are asked
    table, overlap = rows_of(trained, answers, device, **options)
    return answers.figures(table, overlap.summary(), learnt) | lost, table


def evaluate(
    trained: Trained, questions: QuestionSet, device: torch.device | str = "cpu", **options: Any
) -> dict[str, Any]:
    """The figures of ``evaluate_with_rows``; raises ValueError for what is no ``Trained``."""
    if not isinstance(trained, Trained):
        raise ValueError(
            "expected a trained network with the words it knows, saved.load(name_or_folder) or Trained(model, "
            f"query_names, attribute_names, about); got {type(trained).__name__}"
        )
    return evaluate_with_rows(trained, questions, torch.device(device), **options)[0]
