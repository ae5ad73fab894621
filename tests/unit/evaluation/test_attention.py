"""Attention on the target by hand: maps of zeros, attention outside the image, and pixels that do not count."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from progressive_attention.evaluation.attention import attention_scores
from progressive_attention.metrics.pointing import bounding_box


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


def test_point_and_box_of_every_map_by_hand():
    """The last map has its maximum on the target of two pixels, the flow beside it: half of its box is the target's."""
    maps = {"last": np.array([[[0.25, 0.75, 0]]]), "flow": np.array([[[0, 0.25, 0.75]]])}
    target = np.array([[[True, True, False]]])
    found = attention_scores(maps, target, beyond=False, box=bounding_box(target), every_map=True)
    assert [found[f"point_on_target_{name}"] for name in maps] == [1, 0]
    assert [found[f"box_iou_{name}"] for name in maps] == pytest.approx([1, 1 / 3])
    assert (found["point_on_target"], found["box_iou"]) == (0, pytest.approx(1 / 3))
    plain = attention_scores(maps, target, beyond=False, box=bounding_box(target))
    assert plain.keys() == found.keys() - {
        f"{score}_{name}" for score in ("point_on_target", "box_iou") for name in maps
    }


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
