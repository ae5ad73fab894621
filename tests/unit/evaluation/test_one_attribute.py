"""Evaluation where one attribute is right: one row a question whatever the grouping, equal to asking one at a time."""

import copy
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation.answers import summarise
from progressive_attention.evaluation.attention import ATTENTION_COLUMNS, entropies
from progressive_attention.evaluation.evaluate import evaluate, examples
from progressive_attention.maps.pixel_maps import PIXEL_MAPS, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import (
    OverlapCurves,
    attention_entropy,
    pointing_game,
    true_positive_ratio,
    wilson_interval,
)
from progressive_attention.metrics.pointing import bounding_box, box_iou, highest_point, smallest_box
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import Prediction
from progressive_attention.saved import Trained

SIDE = 62  # four layers of 30, 14, 6 and 2 cells a side
QUERIES, ATTRIBUTES = ("7", "car", "dog", "cup"), ("red", "old", "wet")
CPU = torch.device("cpu")
MAPS = ("last", "accumulated", "activation", "flow")
WORDS = ("row", "image", "query", "attribute", "answer", "correct")
NUMBERS = ("probability", "probability_of_truth", "scale", *ATTENTION_COLUMNS)
OF_MAPS = [name for name in ATTENTION_COLUMNS if name != "tpr_uniform"]


@pytest.fixture(scope="module")
def trained():
    """Random weights, with running averages and queries such that questions get different answers."""
    torch.manual_seed(5)
    model = build_model("pan-hard-ctx", num_queries=4, num_attributes=3, image_size=SIDE)
    with torch.no_grad():
        for scorer in model.scorers.values():
            scorer.query.weight.mul_(10)
        for _ in range(10):
            model(torch.rand(8, 3, SIDE, SIDE), torch.arange(8)[:, None] % 4)
    return Trained(model.eval(), QUERIES, ATTRIBUTES, {})


@pytest.fixture(scope="module")
def questions():
    """Nine questions about five of six images, out of order; the last one's mask is empty."""
    rng = np.random.default_rng(2)
    masks = rng.random((9, SIDE, SIDE)) < rng.random((9, 1, 1))
    masks[-1] = False
    return QuestionSet(
        "own/test",
        rng.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8),
        np.array([3, 0, 3, 1, 5, 3, 0, 2, 2]),
        np.array([3, 0, 1, 1, 2, 0, 3, 2, 1]),
        np.array([0, 1, 2, 2, 0, 1, 2, 0, 1]),
        QUERIES,
        ATTRIBUTES,
        scale=np.array([0.5, 0.75, 1.0, np.nan, 2.25, 3.0, 2.5, 7.0, 1.5]),
        masks=masks,
    )


def answer_scores(shown, mask):
    """Whether the point lies on the mask, and the IoU of the boxes as sets of pixels; nothing of an empty mask."""
    if not mask.any():
        return {"point_on_target": np.nan, "box_iou": np.nan}
    x, y = highest_point(shown[None])[0]
    boxes, (rows, columns) = np.zeros((2, SIDE, SIDE), bool), np.nonzero(mask)
    x0, y0, x1, y1 = smallest_box(shown[None])[0].astype(int)
    boxes[0, y0:y1, x0:x1] = boxes[1, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return {"point_on_target": float(mask[int(y), int(x)]), "box_iou": boxes.all(0).sum() / boxes.any(0).sum()}


def one_at_a_time(trained, questions, curves=None):
    """The slow twin: each row alone, each figure by its definition; ``curves`` takes in each map."""
    rows, where = [], geometry(trained.model)
    for row in range(len(questions)):
        pixels = torch.from_numpy(questions.images[questions.image[row]] / 255).float().permute(2, 0, 1)
        with torch.no_grad():
            prediction = trained.model(pixels[None], torch.tensor([questions.query[row]]))
        probability = prediction.logit[0, 0].double().exp()
        answer, truth = int(probability.argmax()), int(questions.attribute[row])
        maps = {name: drawn[0, 0].numpy() for name, drawn in pixel_maps(prediction, where).items()}
        mask = questions.masks[np.array([row])]
        pointing = {f"pointing_{name}": pointing_game(drawn[None], mask)[0] for name, drawn in maps.items()}
        for name, drawn in maps.items() if curves else ():
            curves.add(name, drawn[None], mask)
        answer_of = answer_scores(maps["flow"], mask[0])
        maps |= {"uniform": np.ones((SIDE, SIDE)), "clipped": maps["last"]}
        ratios = {f"tpr_{name}": true_positive_ratio(drawn[None], mask)[0] for name, drawn in maps.items()}
        rows.append(
            {
                "row": row,
                "image": questions.image[row],
                "query": QUERIES[questions.query[row]],
                "attribute": ATTRIBUTES[truth],
                "answer": ATTRIBUTES[answer],
                "correct": answer == truth,
                "probability": float(probability[answer]),
                "probability_of_truth": float(probability[truth]),
                "scale": questions.scale[row],
                **ratios,
                **pointing,
                **answer_of,
                "entropy": [float(attention_entropy(layer[0].numpy())[0]) for layer in prediction.attention],
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_rows_are_those_of_one_at_a_time(trained, questions, batch):
    table, twin = examples(trained, questions, CPU, batch=batch), one_at_a_time(trained, questions)
    assert table.column_names == list(twin) == [*WORDS, *NUMBERS, "entropy"]
    assert NUMBERS[3:10] == (*(f"tpr_{name}" for name in (*MAPS, "uniform", "clipped")), "pointing_last")
    assert len(set(twin["answer"])) > 1  # else the test would see little
    assert len(set(twin["correct"])) == 2
    for name in WORDS:
        assert table[name].to_pylist() == twin[name]
    for name in NUMBERS:
        assert table[name].type == pa.float64()
        expected = np.array(twin[name])
        assert_array_equal(table[name].is_null().to_numpy(), np.isnan(expected))
        assert_allclose(table[name].to_numpy(), expected, rtol=2e-5)
    assert table["tpr_uniform"].null_count == table["tpr_last"].null_count == 1
    assert table["entropy"].type == pa.list_(pa.float64())
    assert entropies(table).shape == (9, 4)
    assert_allclose(table["entropy"].to_pylist(), twin["entropy"], rtol=2e-5)
    assert_allclose(summarise(table)["entropy"], np.mean(twin["entropy"], 0), rtol=2e-5)


def ask_alone(model, monkeypatch):
    """Let the model answer each question in a pass of its own, whatever the batch: the same to the last bit.

    A pixel may lie right at a threshold, where the last bit decides.
    """
    together = model.forward

    def forward(image, query):
        query = query.view(len(image), -1)
        image = image.clone(memory_format=torch.contiguous_format)  # another layout, another order of sums
        rows = [
            [together(image[b : b + 1], query[b : b + 1, k : k + 1]) for k in range(query.shape[1])]
            for b in range(len(query))
        ]

        def joined(values):
            return torch.cat([torch.cat([values(one) for one in row], 1) for row in rows])

        layers = range(len(rows[0][0].attention))
        return Prediction(
            joined(lambda one: one.logit),
            [joined(lambda one, i=i: one.attention[i]) for i in layers],
            [joined(lambda one, i=i: one.magnitude[i]) for i in layers],
        )

    monkeypatch.setattr(model, "forward", forward)


@pytest.mark.parametrize("batch", [1, 64])
def test_curves_are_those_of_one_at_a_time(trained, questions, batch, monkeypatch):
    ask_alone(trained.model, monkeypatch)
    curves = OverlapCurves()
    one_at_a_time(trained, questions, curves)
    expected = curves.summary()
    figures = evaluate(trained, questions, batch=batch)
    found = figures["precision_recall"]
    assert list(found) == list(expected) == list(MAPS)
    for name, ours in found.items():
        assert figures[f"iou_{name}"] == ours["best_iou"]
        assert ours.keys() == expected[name].keys()
        for key, values in ours.items():
            assert_allclose(values, expected[name][key], rtol=1e-9)
        assert ours["count"] == 8  # of nine, one mask is empty
    summary = summarise(examples(trained, questions, CPU, batch=batch))
    assert {name: figures[name] for name in summary} == summary


def by_name(name):
    """A network of the same words, its weights random."""
    torch.manual_seed(1)
    model = build_model(name, num_queries=4, num_attributes=3, image_size=SIDE)
    return Trained(model.eval(), QUERIES, ATTRIBUTES, {})


def test_spatial_transformer_may_look_outside(questions):
    trained = by_name("stn-s")
    with torch.no_grad():  # its region is the image, moved to the right by a quarter of its width: 15.5 px
        trained.model.localisers["0"].affine.bias[2] = 0.5
    table = examples(trained, questions, CPU)
    seen = np.zeros((SIDE, SIDE))
    seen[:, 16:], seen[:, 15] = 1, 0.5
    inside = np.where(questions.masks[:], seen, 0).sum((1, 2))[:-1]
    assert_allclose(table["tpr_last"].to_numpy()[:-1], inside / SIDE**2, rtol=1e-5)
    assert_allclose(table["tpr_clipped"].to_numpy()[:-1], inside / (0.75 * SIDE**2), rtol=1e-5)
    assert_allclose(table["pointing_last"].to_numpy()[:-1], questions.masks[:-1, :, 16:].mean((1, 2)), rtol=1e-12)
    assert_array_equal(table["point_on_target"].to_numpy()[:-1], questions.masks[:-1, 31, 39])
    held = np.array([[16, 0, SIDE, 57]] * 8)  # 0.9 of 62 rows of 46.5 pixels are 56.4 rows of the 46 whole ones
    assert_allclose(table["box_iou"].to_numpy()[:-1], box_iou(held, bounding_box(questions.masks[:-1])))
    for kind in ("tpr", "pointing"):
        assert table[f"{kind}_accumulated"].equals(table[f"{kind}_last"])
        assert table[f"{kind}_activation"].null_count == table[f"{kind}_flow"].null_count == 9
    summary = evaluate(trained, questions)
    for kind in ("tpr", "pointing", "iou"):
        assert summary[f"{kind}_activation"] is summary[f"{kind}_flow"] is None
    assert list(summary["precision_recall"]) == ["last", "accumulated"]
    json.dumps(summary, allow_nan=False)


def test_closed_gates_are_no_attention(trained, questions):
    closed = replace(trained, model=copy.deepcopy(trained.model))
    with torch.no_grad():
        next(iter(closed.model.scorers.values())).score.bias.fill_(-1e4)
    table = examples(closed, questions, CPU)
    for name in ("accumulated", "activation"):
        assert table[f"tpr_{name}"].null_count == 9
        assert table[f"pointing_{name}"].to_pylist() == [0] * 8 + [None]
    assert table["tpr_last"].null_count == table["tpr_flow"].null_count == 1  # what no energy came from is spread
    assert {layers[0] for layers in table["entropy"].to_pylist()} == {None}
    first, *others = summarise(table)["entropy"]
    assert first is None
    assert all(0 < value <= 1 for value in others)


def test_a_network_without_attention(trained, questions):
    other = by_name("film")
    table, with_attention = examples(other, questions, CPU), examples(trained, questions, CPU)
    assert table.schema == with_attention.schema
    assert [table[column].null_count for column in OF_MAPS] == [9] * len(OF_MAPS)
    assert table["tpr_uniform"].equals(with_attention["tpr_uniform"])
    summary = evaluate(other, questions)
    assert [summary[column] for column in OF_MAPS] == [None] * len(OF_MAPS)
    assert summary["precision_recall"] == {}
    assert (table["entropy"].to_pylist(), summary["entropy"]) == ([[]] * 9, [])
    json.dumps(summary, allow_nan=False)


def test_other_words_order_same_rows(trained, questions):
    other = "cup", "pen", "car", "7", "dog"  # nobody asks for a pen, so that the network need not know it
    renamed = replace(
        questions,
        query=np.array([other.index(QUERIES[i]) for i in questions.query]),
        attribute=np.array([1, 2, 0])[questions.attribute],
        query_names=other,
        attribute_names=("wet", "red", "old"),
    )
    assert examples(trained, renamed, CPU).to_pylist() == examples(trained, questions, CPU).to_pylist()


def test_nothing_known_is_null(trained, questions):
    bare = replace(questions, masks=None, scale=None)
    table = examples(trained, bare, CPU)
    for name in NUMBERS[2:]:
        assert (table[name].type, table[name].null_count) == (pa.float64(), 9)
    assert table["probability"].to_pylist() == examples(trained, questions, CPU)["probability"].to_pylist()
    figures = evaluate(trained, bare)
    assert {figures[name] for name in NUMBERS[3:]} == {None}
    assert figures["precision_recall"] == {}
    assert {figures[f"iou_{name}"] for name in PIXEL_MAPS} == {None}
    assert set(figures["accuracy_by_scale"].values()) == {None}
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query_names": ("7", "plane", "dog", "cup")}, r"unknown query \['plane'\].*: 7, car, dog, cup"),
        ({"attribute_names": ("red", "old", "new")}, r"unknown attribute \['new'\].*: red, old, wet"),
        ({"images": np.zeros((6, 60, SIDE, 3), np.uint8)}, "images are 62 x 60, .*62 x 62; resize them"),
    ],
)
def test_what_the_network_does_not_know(trained, questions, change, message):
    with pytest.raises(ValueError, match=f"own/test: {message}"):
        evaluate(trained, replace(questions, **change))


def test_no_rows(trained, questions):
    for rows in (np.zeros(0, np.int64), np.zeros(9, bool)):
        table = examples(trained, questions.rows(rows), CPU)
        assert table.schema == examples(trained, questions, CPU).schema
        summary = summarise(table)
        assert (summary["count"], summary["accuracy"], summary["accuracy_ci95"]) == (0, None, [0, 1])
        assert set(summary["count_by_scale"].values()) == {0}
        assert summary["tpr_last"] is None
        json.dumps(summary, allow_nan=False)


SCALES = [0.49, 0.5, 0.999, 1.0, 2.4999, 2.5, 3.0, 3.001, None, 2.75]
CORRECT = [True, True, False, True, False, True, True, False, True, False]


def hand_table():
    columns = {"correct": CORRECT, "scale": pa.array(SCALES, pa.float64())}
    known = {
        "tpr_last": [0.5, None, 1.0],
        "tpr_activation": [0, 0, 0],
        "pointing_last": [1, 0, 0.5],
        "pointing_accumulated": [None, None, 0],
        "box_iou": [0.25, 0.5, None],
    }
    for name in ATTENTION_COLUMNS:
        columns[name] = pa.array([*known.get(name, [None] * 3), *[None] * 7], pa.float64())
    columns["entropy"] = pa.array([[0.25, None], [0.75, None], *[[None, None]] * 8], pa.list_(pa.float64()))
    return pa.table(columns)


def test_summary_by_hand():
    summary = summarise(hand_table())
    assert summary["count"] == 10
    assert_allclose(summary["accuracy"], 0.6)
    assert_allclose(summary["accuracy_ci95"], wilson_interval(6, 10))
    bins = {"0.5-1.0": (1, 2), "1.0-1.5": (1, 1), "1.5-2.0": (0, 0), "2.0-2.5": (0, 1), "2.5-3.0": (2, 3)}
    assert summary["count_by_scale"] == {name: count for name, (_, count) in bins.items()}
    for name, (right, count) in bins.items():
        assert_allclose(summary["accuracy_by_scale_ci95"][name], wilson_interval(right, count))
        assert summary["accuracy_by_scale"][name] == (pytest.approx(right / count) if count else None)
    means = {"tpr_last": 0.75, "tpr_activation": 0, "pointing_last": 0.5, "pointing_accumulated": 0, "box_iou": 0.375}
    assert {name: summary[name] for name in ATTENTION_COLUMNS} == {**dict.fromkeys(ATTENTION_COLUMNS), **means}
    assert summary["entropy"] == [0.5, None]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
