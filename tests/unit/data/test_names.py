"""Names written one way, rare plurals, and the choice of what is frequent, against one that drops one at a time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progressive_attention.data.names import RARE_PLURAL, frequent, normalise, rare_plurals, singulars


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Traffic\t LIGHT \n", "traffic light"),
        ('"Stop!" ,', "stop"),
        ("“Stop” ‘red’", "stop” ‘red"),
        ("t.v.", "t.v"),  # inside it stays
        ("ＴＶ", "tv"),  # full width
        ("ﬁsh", "fish"),  # a ligature
        ("Caf\u0065\u0301", "café"),  # e and a combining accent
        ("Straße", "strasse"),
        ("red\u200b\u00ad car\u0007", "red car"),  # a zero-width space, a soft hyphen, a bell
        ("red\u00a0\u2003car", "red car"),  # blanks of other widths
        (" \u200b. ", ""),
    ],
)
def test_one_way_of_writing(raw, expected):
    assert normalise(raw) == expected


@given(st.text(max_size=12))
def test_normalising_twice_changes_nothing_more(text):
    once = normalise(text)
    assert normalise(once) == once == " ".join(once.split())
    assert "\0" not in once


def test_singulars():
    for plural, singular in {
        "cows": "cow",
        "berries": "berry",
        "fishes": "fish",
        "leaves": "leaf",
        "knives": "knife",
    }.items():
        assert singular in list(singulars(plural))
    assert [s for name in ("glass", "is", "", "s", "sheep") for s in singulars(name)] == []


def test_only_rare_plurals_are_read_as_singulars():
    seen = {"cow": 30, "cows": 3, "glass": 29, "glasses": 3, "trees": 10, "tree": 8, "citrus": 50, "buses": 1}
    assert rare_plurals(seen) == {"cows": "cow"}
    assert rare_plurals({**seen, "glass": RARE_PLURAL * 3}) == {"cows": "cow", "glasses": "glass"}
    # knives may be of knif or of knife: the frequent one counts; and one rare plural may lead to another
    assert rare_plurals({"knives": 1, "knif": 10, "knife": 20}) == {"knives": "knife"}
    assert rare_plurals({"fisheses": 1, "fishes": 10, "fish": 100}) == {"fisheses": "fish", "fishes": "fish"}


@given(st.dictionaries(st.text("aeisy", min_size=1, max_size=7), st.integers(1, 300), max_size=40))
def test_a_singular_is_a_name_of_the_file_and_much_more_frequent(seen):
    found = rare_plurals(seen)
    for plural, singular in found.items():
        assert seen[singular] >= RARE_PLURAL * seen[plural]
        assert singular not in found


def slow_choice(name, mentions, least):
    """One rare class or attribute is left out at a time, the last in the alphabet first, until none is rare."""
    pairs = {(row, attribute) for row, listed in enumerate(mentions) for attribute in listed}
    while True:
        classes = Counter(name[row] for row in {row for row, _ in pairs})
        attributes = Counter(attribute for _, attribute in pairs)
        rare = [("class", c) for c, n in classes.items() if n < least]
        rare += [("attribute", a) for a, n in attributes.items() if n < least]
        if not rare:
            return pairs
        kind, worst = max(rare)
        pairs = {(r, a) for r, a in pairs if (name[r] if kind == "class" else a) != worst}


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 4), max_size=4)), max_size=40), st.integers(1, 8))
def test_what_is_frequent_is_what_a_slow_choice_finds(objects, least):
    name = np.array([c for c, _ in objects], np.int64)
    owner = np.array([row for row, (_, listed) in enumerate(objects) for _ in listed], np.int64)
    mention = np.array([a for _, listed in objects for a in listed], np.int64)
    classes, stay = frequent(name, owner, mention, least)
    pairs = set(zip(owner[stay].tolist(), mention[stay].tolist(), strict=True))
    assert pairs == slow_choice(name.tolist(), [listed for _, listed in objects], least)
    assert set(np.flatnonzero(classes)) == {int(name[row]) for row, _ in pairs}


def test_a_class_may_fall_with_an_attribute():
    # Three cows, one of them only "spotted", which no other has: two cows are left, and less than three are rare.
    name, owner, mention = np.array([0, 0, 0, 1, 1, 1]), np.arange(6), np.array([0, 0, 1, 0, 0, 0])
    classes, stay = frequent(name, owner, mention, 3)
    assert (classes.tolist(), stay.tolist()) == ([False, True], [False, False, False, True, True, True])
    assert frequent(name, owner, mention, 2)[1].tolist() == [True, True, False, True, True, True]
