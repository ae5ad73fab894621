"""Synthetic sets: which rows a split has, and what is asked about digits that are not there."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered_sets import digest

from progressive_attention.config import SPLITS, STYLES
from progressive_attention.data.scene_cache import synthetic, with_absent
from progressive_attention.data.scenes import COLOURS, SceneSource


@pytest.mark.parametrize("style, split, count", [*zip(STYLES, SPLITS, (12, 4, 4), strict=True), ("mbg", "train", 12)])
def test_paper_rows(tmp_path, style, split, count):
    source = SceneSource(style, split, seed=5)
    scenes = [source.scene(index) for index in range(count)]
    every = synthetic(style, split, queries="all", seed=5, images=12, cache_dir=tmp_path)
    asked = synthetic(style, split, queries="one", seed=5, images=12, cache_dir=tmp_path)
    assert every.name == asked.name == f"{style}/{split}"
    assert every.query_names == tuple("0123456789")
    assert every.attribute_names == COLOURS
    assert len(asked) == len(every.images) == count
    np.testing.assert_array_equal(asked.image, np.arange(count))
    np.testing.assert_array_equal(asked.query, [scene.digits[scene.asked].number for scene in scenes])
    digits = [(index, k, digit) for index, scene in enumerate(scenes) for k, digit in enumerate(scene.digits)]
    assert len(every) == len(digits)
    masks = every.masks[np.arange(len(every))]
    for row, (index, k, digit) in enumerate(digits):
        image, owner = source.render(scenes[index])
        assert every.image[row] == index
        assert every.query[row] == digit.number
        assert every.attribute[row] == digit.colour
        assert every.scale[row] == digit.scale
        x0, y0, x1, y1 = every.box[row]
        assert (x0, y0, x1, y1) == (digit.x, digit.y, digit.x + digit.size, digit.y + digit.size)
        np.testing.assert_array_equal(masks[row], owner == k + 1)
        assert masks[row].sum() == masks[row, y0:y1, x0:x1].sum() > 0
        np.testing.assert_array_equal(every.images[index], image)
    rows = np.flatnonzero([k == scenes[index].asked for index, k, _ in digits])
    np.testing.assert_array_equal(asked.masks[np.arange(count)], masks[rows])
    assert digest(synthetic(style, split, queries="rows", seed=5, images=12, cache_dir=tmp_path)) == digest(every)


def test_authors_rows(tmp_path):
    def rows(split, queries="rows"):
        return synthetic("mbg", split, protocol="authors", queries=queries, images=13, cache_dir=tmp_path)

    source = SceneSource("mbg", "test", "authors")
    scenes = [source.scene(index) for index in range(6)]
    numbers = [digit.number for scene in scenes for digit in scene.digits]
    images = [index for index, scene in enumerate(scenes) for _ in scene.digits]
    for split, part in (("train", slice(13)), ("validation", slice(13, 17)), ("test", slice(-4, None))):
        assert rows(split).name == f"mbg/{split}"
        np.testing.assert_array_equal(rows(split).query, numbers[part])
        np.testing.assert_array_equal(rows(split).image, images[part])
        assert digest(rows(split, "one")) == digest(rows(split))
    assert [folder.name[:9] for folder in tmp_path.iterdir()] == ["mbg-pool-"]
    assert {len(rows(split).images) for split in SPLITS} == {6}


@pytest.mark.parametrize("images", [2, 3, 5, 11])
def test_authors_always_have_rows_enough(tmp_path, images):
    parts = [synthetic("mref", s, protocol="authors", images=images, cache_dir=tmp_path) for s in SPLITS]
    third = max(1, images // 3)
    assert [len(part) for part in parts] == [images, third, third]
    asked = [(i, q) for part in parts for i, q in zip(part.image.tolist(), part.query.tolist(), strict=True)]
    assert len(set(asked)) == len(asked)  # no question is in two splits


def test_paper_splits_share_nothing_and_those_of_the_authors_all():
    sources = [SceneSource("mbg", split) for split in SPLITS]
    photographs = [set(source.photographs.paths) for source in sources]
    assert len(set.union(*photographs)) == sum(map(len, photographs))
    assert len({source.scene(0) for source in sources}) == 3
    assert len({source.pool.images[0].tobytes() for source in sources}) == 3  # test_digits has the rest
    shared = {SceneSource("mbg", split, "authors").scene(3) for split in SPLITS}
    assert len(shared) == 1
    assert shared.isdisjoint(source.scene(3) for source in sources)


def columns_of(image, query):
    """As ``rows_of`` gives them, of digits that are nowhere in particular."""
    zeros = {name: np.zeros(len(image)) for name in ("attribute", "scale", "label")}
    box, asked = np.zeros((len(image), 4)), np.zeros(len(image), bool)
    return {"image": np.array(image), "query": np.array(query), "box": box, "asked": asked, **zeros}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 2, 3, 17]), st.integers(0, 8)), min_size=1, unique=True).map(sorted))
def test_what_is_missing_is_what_nobody_asks(pairs):
    both = with_absent(columns_of(*zip(*pairs, strict=True)))
    missing = [(i, q) for i in sorted({i for i, _ in pairs}) for q in range(10) if (i, q) not in pairs]
    assert [*zip(both["image"].tolist(), both["query"].tolist(), strict=True)] == pairs + missing
    asked = np.flatnonzero(both["asked"]) - len(pairs)
    assert [missing[row][0] for row in asked] == sorted({i for i, _ in pairs})  # one a scene
    for row in asked:
        scene = [q for i, q in missing if i == missing[row][0]]
        assert missing[row][1] == scene[missing[row][0] % len(scene)]


def test_each_missing_digit_is_as_likely():
    both = with_absent(columns_of(np.repeat(np.arange(60), 7), np.tile([0, 1, 2, 4, 5, 7, 8], 60)))
    assert Counter(both["query"][both["asked"]].tolist()) == {3: 20, 6: 20, 9: 20}


@pytest.mark.parametrize("queries", ["one", "all", "rows"])
def test_scenes_with_what_they_lack(tmp_path, queries):
    options = {"queries": queries, "images": 12, "cache_dir": tmp_path}
    plain, both = synthetic("mdist", "train", **options), synthetic("mdist", "train", absent=True, **options)
    there = len(plain)
    for column in ("image", "query", "attribute", "scale", "box"):
        np.testing.assert_array_equal(getattr(both, column)[:there], getattr(plain, column))
    np.testing.assert_array_equal(both.masks[np.arange(there)], plain.masks[np.arange(there)])
    assert both.attribute_names == (*COLOURS, "absent")
    more = both.rows(np.arange(there, len(both)))
    inside = [{digit.number for digit in SceneSource("mdist", "train").scene(i).digits} for i in range(12)]
    missing = [(i, q) for i in range(12) for q in range(10) if q not in inside[i]]
    asked = [*zip(more.image.tolist(), more.query.tolist(), strict=True)]
    assert set(asked) <= set(missing)
    assert [image for image, _ in asked] == [*range(12)] if queries == "one" else asked == missing
    assert set(more.attribute.tolist()) == {5}
    assert np.isnan(more.scale).all()
    assert np.isnan(more.box).all()
    assert not more.masks[np.arange(len(more))].any()
    assert both.words(there) == (str(asked[0][1]), ["absent"])


WRONG = [
    ({"style": "mnist"}, "unknown style 'mnist'; known: mref, mdist, mbg"),
    ({"split": "val"}, "unknown split 'val'; known: train, validation, test"),
    ({"protocol": "fast"}, "unknown protocol 'fast'; known: paper, authors"),
    ({"queries": "some"}, "unknown queries 'some'; known: one, all, rows"),
    ({"images": 0}, "images must be >= 1 for protocol 'paper', got 0"),
    ({"images": 1, "protocol": "authors"}, "images must be >= 2 for protocol 'authors', got 1"),
    ({"workers": 0}, "workers must be >= 1, got 0"),
    ({"style": "mbg", "backgrounds": "/nowhere"}, "/nowhere: expected a folder of photographs"),
]


@pytest.mark.parametrize("choices, message", WRONG)
def test_errors(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**{"style": "mref", "split": "train", "cache_dir": tmp_path, **choices})
    assert list(tmp_path.iterdir()) == []
