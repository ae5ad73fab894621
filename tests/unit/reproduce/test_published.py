"""The papers' figures are complete, and those of an independent transcription."""

import json
from pathlib import Path

import pytest

from progressive_attention.config import MODELS, STYLES
from progressive_attention.reproduce import published

THEIRS = json.loads((Path(__file__).parents[2] / "support" / "published_results.json").read_text(encoding="utf-8"))


def test_every_row_is_there():
    assert set(published.NAMES) < set(MODELS)
    for style in STYLES:
        assert list(published.TABLE_1[style]) == ["uniform", *published.NAMES]
    assert list(published.MBG_BY_SCALE) == list(published.NAMES)


@pytest.mark.parametrize("style", STYLES)
def test_table_1_is_the_papers(style):
    i = 2 * STYLES.index(style)
    assert THEIRS["table1"]["columns"][i : i + 2] == [f"{style}_acc", f"{style}_tpr"]
    theirs = {name: row[i : i + 2] for name, row in THEIRS["table1"].items() if name != "columns"}
    assert {name: list(row) for name, row in published.TABLE_1[style].items()} == theirs


def test_scale_table_is_the_papers():
    theirs = dict(THEIRS["table1_mbg_accuracy_by_scale"])
    assert tuple(theirs.pop("bins")) == published.SCALE_BINS
    assert {name: list(row) for name, row in published.MBG_BY_SCALE.items()} == theirs
