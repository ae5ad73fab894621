"""Evaluation: one row a question whatever the grouping, equal to asking one at a time; a summary by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation import evaluate, examples, summarise
from progressive_attention.metrics.attention import true_positive_ratio, wilson_interval
from progressive_attention.models import build_model
from progressive_attention.receptive_field import geometry, pixel_maps
from progressive_attention.weights import Trained

SIDE = 62  # four layers of 30, 14, 6 and 2 cells a side
QUERIES, ATTRIBUTES = ("7", "car", "dog", "cup"), ("red", "old", "wet")
CPU = torch.device("cpu")
WORDS = ("row", "image", "query", "attribute", "answer", "correct")
NUMBERS = (
    "probability",
    "probability_of_truth",
    "scale",
    "tpr_last",
    "tpr_accumulated",
    "tpr_activation",
    "tpr_uniform",
)


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
    image = np.array([3, 0, 3, 1, 5, 3, 0, 2, 2])
    masks = rng.random((9, SIDE, SIDE)) < rng.random((9, 1, 1))
    masks[-1] = False
    return QuestionSet(
        "own/test",
        rng.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8),
        image,
        np.array([3, 0, 1, 1, 2, 0, 3, 2, 1]),
        np.array([0, 1, 2, 2, 0, 1, 2, 0, 1]),
        QUERIES,
        ATTRIBUTES,
        scale=np.array([0.5, 0.75, 1.0, np.nan, 2.25, 3.0, 2.5, 7.0, 1.5]),
        masks=masks,
    )


def one_at_a_time(trained, questions):
    """The slow twin: each row alone, each figure by its definition."""
    rows, where = [], geometry(trained.model)
    for row in range(len(questions)):
        pixels = torch.from_numpy(questions.images[questions.image[row]] / 255).float().permute(2, 0, 1)
        with torch.no_grad():
            prediction = trained.model(pixels[None], torch.tensor([questions.query[row]]))
        probability = prediction.logit[0, 0].double().exp()
        answer, truth = int(probability.argmax()), int(questions.attribute[row])
        maps = {name: drawn[0, 0].numpy() for name, drawn in pixel_maps(prediction, where).items()}
        maps["uniform"] = np.ones((SIDE, SIDE))
        mask = questions.masks[np.array([row])]
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
            }
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_rows_are_those_of_one_at_a_time(trained, questions, batch):
    seen = []
    table = examples(trained, questions, CPU, batch=batch, progress=lambda done, total: seen.append((done, total)))
    twin = one_at_a_time(trained, questions)
    assert table.column_names == list(twin) == [*WORDS, *NUMBERS]
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
    assert seen[-1] == (9, 9)
    assert len(seen) == -(-5 // batch)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_other_words_order_same_rows(trained, questions):
    other = "cup", "pen", "car", "7", "dog"  # nobody asks for a pen, so that the network need not know it
    renamed = QuestionSet(
        "own/test",
        questions.images,
        questions.image,
        np.array([other.index(QUERIES[i]) for i in questions.query]),
        np.array([1, 2, 0])[questions.attribute],
        other,
        ("wet", "red", "old"),
        questions.scale,
        None,
        questions.masks,
    )
    assert examples(trained, renamed, CPU).to_pylist() == examples(trained, questions, CPU).to_pylist()


def test_order_of_rows_follows_the_questions(trained, questions):
    order = np.array([8, 3, 0, 5, 1, 7, 2, 6, 4])
    table = examples(trained, questions, CPU).take(order).drop_columns("row")
    shuffled = examples(trained, questions.rows(order), CPU).drop_columns("row")
    for name in table.column_names:
        if name in NUMBERS:
            assert_allclose(shuffled[name].to_numpy(), table[name].to_numpy(), rtol=2e-5)
        else:
            assert shuffled[name].to_pylist() == table[name].to_pylist()


def test_nothing_known_is_null(trained, questions):
    bare = QuestionSet(**{**vars(questions), "masks": None, "scale": None})
    table = examples(trained, bare, CPU)
    for name in NUMBERS[2:]:
        assert (table[name].type, table[name].null_count) == (pa.float64(), 9)
    assert table["probability"].to_pylist() == examples(trained, questions, CPU)["probability"].to_pylist()
    summary = summarise(table)
    assert [summary[f"tpr_{name}"] for name in ("last", "accumulated", "activation", "uniform")] == [None] * 4
    assert set(summary["accuracy_by_scale"].values()) == {None}
    json.dumps(summary, allow_nan=False)


def test_what_the_network_does_not_know(trained, questions):
    new = QuestionSet(**{**vars(questions), "query_names": ("7", "plane", "dog", "cup")})
    with pytest.raises(ValueError, match=r"own/test: unknown query \['plane'\]; this network knows: 7, car, dog, cup"):
        examples(trained, new, CPU)
    new = QuestionSet(**{**vars(questions), "attribute_names": ("red", "old", "new")})
    with pytest.raises(ValueError, match=r"own/test: unknown attribute \['new'\]; this network knows: red, old, wet"):
        evaluate(trained, new)
    small = QuestionSet(**{**vars(questions), "images": questions.images[:, :60]})
    with pytest.raises(ValueError, match="own/test: images are 62 x 60, this network takes 62 x 62; resize them"):
        examples(trained, small, CPU)


def test_no_rows(trained, questions):
    for rows in (np.zeros(0, np.int64), np.zeros(9, bool)):
        none = questions.rows(rows)
        table = examples(trained, none, CPU)
        assert table.schema == examples(trained, questions, CPU).schema
        summary = summarise(table)
        assert (summary["count"], summary["accuracy"], summary["accuracy_ci95"]) == (0, None, [0, 1])
        assert set(summary["count_by_scale"].values()) == {0}
        assert summary["tpr_last"] is None
        json.dumps(summary, allow_nan=False)


def test_mode_is_left_as_it_was(trained, questions):
    trained.model.train()
    try:
        in_training = examples(trained, questions, CPU)
        assert trained.model.training
    finally:
        trained.model.eval()
    assert in_training.equals(examples(trained, questions, CPU))  # no dropout, no batch statistics either way


# --- the summary ------------------------------------------------------------------------------------------------------

SCALES = [0.49, 0.5, 0.999, 1.0, 2.4999, 2.5, 3.0, 3.001, None, 2.75]
CORRECT = [True, True, False, True, False, True, True, False, True, False]


def hand_table():
    columns = {"correct": CORRECT, "scale": pa.array(SCALES, pa.float64())}
    for name, values in {
        "last": [0.5, None, 1.0],
        "accumulated": [0.25, 0.75, None],
        "activation": [0, 0, 0],
        "uniform": [None] * 3,
    }.items():
        columns[f"tpr_{name}"] = pa.array([*values, *[None] * 7], pa.float64())
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
        if count:
            assert_allclose(summary["accuracy_by_scale"][name], right / count)
        else:
            assert summary["accuracy_by_scale"][name] is None
            assert summary["accuracy_by_scale_ci95"][name] == [0, 1]
    ratios = [summary[f"tpr_{name}"] for name in ("last", "accumulated", "activation")]
    assert_allclose(ratios, [0.75, 0.5, 0])
    assert summary["tpr_uniform"] is None
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_parts_and_of_a_file(tmp_path):
    table = hand_table()
    expected = summarise(table)
    assert summarise(pa.concat_tables([table.slice(0, 4), table.slice(4, 0), table.slice(4)])) == expected
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert summarise(pyarrow.parquet.read_table(tmp_path / "rows.parquet")) == expected


def test_evaluate_summarises_examples(trained, questions):
    assert evaluate(trained, questions, "cpu", batch=3) == summarise(examples(trained, questions, CPU, batch=3))
