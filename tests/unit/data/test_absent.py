"""Questions about what is not there: which there are, one an image, and the synthetic sets with them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered_sets import digest

from progressive_attention.data.absent import absent_questions, one_each
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.synthetic import SceneSource, synthetic


@given(st.lists(st.tuples(st.sampled_from([0, 2, 3, 7]), st.integers(0, 4)), min_size=1, unique=True))
def test_what_is_missing_is_what_nobody_asks(pairs):
    image, query = np.array(pairs).T
    expected = [(i, q) for i in sorted(set(image.tolist())) for q in range(5) if (i, q) not in pairs]
    assert [*zip(*(column.tolist() for column in absent_questions(image, query, 5)), strict=True)] == expected


def test_one_of_each_image_and_each_as_likely():
    image = np.repeat(np.arange(60), 3)
    rows = np.flatnonzero(one_each(image))
    assert image[rows].tolist() == [*range(60)]
    assert Counter((rows % 3).tolist()) == {0: 20, 1: 20, 2: 20}
    assert np.flatnonzero(one_each(np.array([4, 4, 4, 9, 11, 11]))).tolist() == [1, 3, 5]
    assert not len(one_each(np.zeros(0, np.int64)))


def numbers(style: str, split: str, count: int, protocol: str = "paper") -> list[set[int]]:
    """Of each scene, the digits that are in it."""
    source = SceneSource(style, split, protocol)
    return [{digit.number for digit in source.scene(index).digits} for index in range(count)]


@pytest.mark.parametrize("queries", ["one", "all", "rows"])
def test_scenes_with_what_they_lack(tmp_path, queries):
    options = {"queries": queries, "images": 12, "cache_dir": tmp_path}
    plain, both = synthetic("mdist", "train", **options), synthetic("mdist", "train", absent=True, **options)
    there = len(plain)
    assert digest(both.rows(np.arange(there))) != digest(plain)  # the names of attributes differ
    for column in ("image", "query", "attribute", "scale", "box"):
        np.testing.assert_array_equal(getattr(both, column)[:there], getattr(plain, column))
    np.testing.assert_array_equal(both.masks[np.arange(there)], plain.masks[np.arange(there)])
    assert both.attribute_names == (*COLOURS, "absent")
    more = both.rows(np.arange(there, len(both)))
    inside = numbers("mdist", "train", 12)
    missing = [(i, q) for i in range(12) for q in range(10) if q not in inside[i]]
    asked = [*zip(more.image.tolist(), more.query.tolist(), strict=True)]
    assert set(asked) <= set(missing)
    if queries == "one":
        assert [image for image, _ in asked] == [*range(12)]
    else:
        assert asked == missing
    assert set(more.attribute.tolist()) == {5}
    assert np.isnan(more.scale).all()
    assert np.isnan(more.box).all()
    assert not more.masks[np.arange(len(more))].any()
    assert both.words(there) == (str(asked[0][1]), ["absent"])


def test_authors_scenes_with_what_they_lack(tmp_path):
    inside = numbers("mref", "test", 6, "authors")
    for split in ("train", "validation", "test"):
        options = {"protocol": "authors", "images": 13, "cache_dir": tmp_path}
        plain, both = synthetic("mref", split, **options), synthetic("mref", split, absent=True, **options)
        np.testing.assert_array_equal(both.query[: len(plain)], plain.query)
        asked = [*zip(both.image[len(plain) :].tolist(), both.query[len(plain) :].tolist(), strict=True)]
        scenes = sorted(set(plain.image.tolist()))
        assert asked == [(i, q) for i in scenes for q in range(10) if q not in inside[i]]
