"""Evaluation's figures by hand: attention on the target, where some pixels do not count, and the summary of rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from numpy.testing import assert_allclose

from progressive_attention.evaluation.one_attribute import attention_scores, summarise
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.metrics.pointing import bounding_box

# --- attention on the target ------------------------------------------------------------------------------------------


def test_scores_of_attention_nowhere():
    """A map of zeros is no attention, or attention that lies outside the image and misses."""
    nothing = {"last": np.zeros((2, 3, 3))}
    masks = np.array([np.eye(3), np.zeros((3, 3))], bool)
    uniform = {"tpr_uniform": [1 / 3, np.nan]}
    for beyond, ratio in ((False, np.nan), (True, 0)):
        scores = attention_scores(nothing, masks, beyond=beyond, box=bounding_box(masks))
        expected = {"tpr_last": [ratio, np.nan], "tpr_clipped": [np.nan, np.nan], "pointing_last": [0, np.nan]}
        expected |= {"point_on_target": [0, np.nan], "box_iou": [0, np.nan]}
        assert scores.keys() == {**uniform, **expected}.keys()
        for name, values in {**uniform, **expected}.items():
            assert_allclose(scores[name], values, rtol=1e-15)


def test_void_pixels_count_neither_way():
    maps = {"last": np.array([[[0.5, 0.25], [0.125, 0.125]]])}
    masks = np.array([[[True, True], [False, False]]])
    void = np.array([[[True, False], [False, True]]])
    scores = attention_scores(maps, masks, beyond=False, void=void)
    np.testing.assert_allclose(scores["tpr_last"], [0.25 / 0.375])
    np.testing.assert_allclose(scores["tpr_uniform"], [0.5])
    beyond = attention_scores({"last": maps["last"] / 2}, masks, beyond=True, void=void)  # half lies outside the image
    np.testing.assert_allclose(beyond["tpr_last"], [0.125 / (1 - 0.3125)])
    np.testing.assert_allclose(beyond["tpr_clipped"], [0.25 / 0.375])


def test_void_pixels_by_hand():
    """All figures as if these pixels were not there."""
    maps = {"last": np.array([[[0.4, 0.3], [0.2, 0.1]]])}
    target = np.array([[[True, False], [True, False]]])
    void = np.array([[[False, False], [True, False]]])
    found = attention_scores(maps, target, beyond=False, void=void)
    assert found == {
        "tpr_uniform": pytest.approx([1 / 3]),
        "tpr_last": pytest.approx([0.4 / 0.8]),
        "pointing_last": [1],
        "tpr_clipped": pytest.approx([0.4 / 0.8]),
        "point_on_target": [1],
    }
    inside = attention_scores(maps, target, beyond=False)
    assert inside["tpr_last"] == pytest.approx([0.6])
    assert inside["tpr_uniform"] == pytest.approx([0.5])
    highest = attention_scores(maps, target, beyond=False, void=np.array([[[True, False], [False, False]]]))
    assert highest["tpr_last"] == pytest.approx([0.2 / 0.6])
    assert highest["pointing_last"] == [0]  # at what is highest of the rest


def test_void_pixels_beside_attention_outside_the_image():
    """A fifth of the attention lies outside; of the four fifths inside, a quarter is void."""
    maps = {"last": np.array([[[0.3, 0.2], [0.2, 0.1]]])}
    target = np.array([[[True, False], [False, False]]])
    void = np.array([[[False, True], [False, False]]])
    found = attention_scores(maps, target, beyond=True, void=void)
    assert found["tpr_last"] == pytest.approx([0.3 / 0.8])
    assert found["tpr_clipped"] == pytest.approx([0.3 / 0.6])
    assert found["tpr_uniform"] == pytest.approx([1 / 3])


@pytest.mark.parametrize("rounding", [0, 1e-7, -1e-7])
def test_attention_on_void_pixels_alone_is_none(rounding):
    """As of a transformer whose quadrilateral is one void pixel; float32 sums may miss one by a little."""
    maps = {"last": np.array([[[1 - rounding, 0], [0, 0]], [[0.5, 0.25], [0, 0]]])}
    target, void = np.array([[[False, True], [True, False]]] * 2), np.array([[[True, False], [False, False]]] * 2)
    found = attention_scores(maps, target, beyond=True, void=void)
    assert found["tpr_last"] == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert found["tpr_clipped"] == pytest.approx([np.nan, 1], nan_ok=True)
    assert found["pointing_last"].tolist() == [0, 1]
    assert found["tpr_uniform"] == pytest.approx([2 / 3, 2 / 3])


def test_the_answers_point_and_box_are_those_of_the_map_shown_first():
    """A ridge of 2 x 1 pixels holds most of the flow; its centre lies between them, in the right one."""
    flow = np.zeros((1, 3, 4))
    flow[0, 1] = [0, 0.48, 0.48, 0.04]
    maps = {"last": np.eye(3, 4)[None], "flow": flow}
    target, void = np.zeros((2, 1, 3, 4), bool)
    target[0, 1:, 2] = True
    found = attention_scores(maps, target, beyond=False, box=np.array([[2, 1, 9, 3.5]]))
    assert found["point_on_target"] == [1]
    assert found["box_iou"] == pytest.approx([1 / 5])  # [1, 1, 3, 2] and, inside the image, [2, 1, 4, 3]
    assert attention_scores({"last": maps["last"]}, target, beyond=False)["point_on_target"] == [0]
    assert "box_iou" not in attention_scores(maps, target, beyond=False)
    void[0, 1, 1] = True  # the point moves to the middle of what is left
    assert attention_scores(maps, target, beyond=False, void=void)["point_on_target"] == [1]


def test_a_point_on_a_void_pixel_is_left_out():
    ring = np.ones((1, 3, 3))
    ring[0, 1, 1] = 0.5
    target = np.ones((1, 3, 3), bool)
    void = ring < 1
    assert attention_scores({"flow": ring, "last": ring}, target, beyond=False)["point_on_target"] == [1]
    assert np.isnan(attention_scores({"flow": ring, "last": ring}, target, beyond=False, void=void)["point_on_target"])


def test_a_target_all_of_which_is_void_is_left_out():
    maps, target = {"last": np.full((2, 2, 2), 0.25)}, np.zeros((2, 2, 2), bool)
    target[:, 0] = True
    void = target.copy()
    void[1, 0, 0] = False
    for values in attention_scores(maps, target, beyond=False, void=void).values():
        assert np.isnan(values).tolist() == [True, False]


# --- the summary ------------------------------------------------------------------------------------------------------

SCALES = [0.49, 0.5, 0.999, 1.0, 2.4999, 2.5, 3.0, 3.001, None, 2.75]
CORRECT = [True, True, False, True, False, True, True, False, True, False]


def hand_table():
    columns = {"correct": CORRECT, "scale": pa.array(SCALES, pa.float64())}
    for name, values in {
        "tpr_last": [0.5, None, 1.0],
        "tpr_accumulated": [0.25, 0.75, None],
        "tpr_activation": [0, 0, 0],
        "tpr_flow": [1, None, 0.5],
        "tpr_uniform": [None] * 3,
        "tpr_clipped": [None, 0.875, None],
        "pointing_last": [1, 0, 0.5],
        "pointing_accumulated": [None, None, 0],
        "pointing_activation": [None] * 3,
        "pointing_flow": [0, 0, 1],
        "point_on_target": [1, None, 0],
        "box_iou": [0.25, 0.5, None],
    }.items():
        columns[name] = pa.array([*values, *[None] * 7], pa.float64())
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
        if count:
            assert_allclose(summary["accuracy_by_scale"][name], right / count)
        else:
            assert summary["accuracy_by_scale"][name] is None
            assert summary["accuracy_by_scale_ci95"][name] == [0, 1]
    ratios = [summary[f"tpr_{name}"] for name in ("last", "accumulated", "activation", "clipped")]
    assert_allclose(ratios, [0.75, 0.5, 0, 0.875])
    answers = [summary[name] for name in ("tpr_flow", "pointing_flow", "point_on_target", "box_iou")]
    assert_allclose(answers, [0.75, 1 / 3, 0.5, 0.375])
    assert (summary["pointing_last"], summary["pointing_accumulated"]) == (0.5, 0)
    assert summary["tpr_uniform"] is summary["pointing_activation"] is None
    assert summary["entropy"] == [0.5, None]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_parts_and_of_a_file(tmp_path):
    table = hand_table()
    expected = summarise(table)
    assert summarise(pa.concat_tables([table.slice(0, 4), table.slice(4, 0), table.slice(4)])) == expected
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert summarise(pyarrow.parquet.read_table(tmp_path / "rows.parquet")) == expected
