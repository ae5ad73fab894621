"""What ``pan report`` works out, by hand: its examples, rates and sentences, and where data and rows lie."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from progressive_attention.config import RECIPES
from progressive_attention.evaluation.measured import name_of, read_notes, rows_path, source_of
from progressive_attention.pages.run_page import claim
from progressive_attention.pages.run_report import RunResults, duration, examples_of, judged, rates, target_of
from progressive_attention.training.optimizers import learning_rate


def test_examples_are_the_first_and_the_surest_wrong():
    right = np.array([True, False, True, True, True, False, False, True, *[False] * 8])
    sure = np.array([0.9, 0.99, 0.5, 0.6, 0.7, 0.3, 0.8, 1.0, *[0.4] * 7, 0.95])
    assert examples_of(right, sure) == ([0, 1, 2, 3], [15, 6, 8, 9, 10, 11])
    assert examples_of(right[:2], sure[:2]) == ([0, 1], [])
    assert examples_of(np.ones(9, bool), np.ones(9)) == ([0, 1, 2, 3], [])


def test_judged_by_the_likeliest_of_several_attributes():
    table = pa.table(
        {
            "attributes": [["red", "old"], ["red"], []],
            "top": [["old", "wet"], ["wet", "red"], ["red", "old"]],
            "log_odds": [[2.5, 1.0], [-0.5, -1.0], [0.25, 0.0]],
        }
    )
    right, sure = judged(table)
    assert right.tolist() == [True, False, False]
    assert sure.tolist() == [2.5, -0.5, 0.25]


def test_rates_are_those_of_the_steps_done():
    recipe = RECIPES["fast"].with_changes(epochs=4)
    x, y = rates([{"epoch": 1, "step": 10}, {"epoch": 2, "step": 20}], recipe)
    assert x == [(step + 1) / 10 for step in range(20)]
    assert y == [learning_rate(recipe, step, 40, 10) for step in range(20)]
    long, _ = rates([{"epoch": 3, "step": 3000}], recipe)
    assert (len(long), long[-1]) == (200, 3)


def test_target_is_the_mask_else_the_box(photograph_sets):
    from dataclasses import replace

    train, _ = photograph_sets
    mask, box = target_of(train, 0), target_of(replace(train, masks=None), 0)
    assert mask is not None
    assert mask.sum() == train.masks[np.array([0])][0].sum() > 0
    x0, y0, x1, y1 = train.box[0]
    assert box is not None
    assert box.sum() == (x1 - x0) * (y1 - y0)
    assert target_of(replace(train, masks=None, box=None), 0) is None


def test_source_is_the_trainings_own():
    about = {"data": "mbg", "protocol": "authors", "seed": 4, "images": 50, "model": {"image_size": 100}}
    about["attribute_names"] = ["red", "green"]
    expected = {"split": None, "image_size": 100, "data": "mbg", "protocol": "authors", "seed": 4, "images": 100}
    assert source_of(about) == {**expected, "absent": False}
    assert source_of({**about, "attribute_names": ["red", "absent"]}) == {**expected, "absent": True}
    assert source_of({**about, "data": "mine"}) == {"split": None, "image_size": 100, "data": "mine"}
    for name, wrong in {"protocol": 1, "seed": "x", "images": [3]}.items():
        with pytest.raises(ValueError, match=f"{name} in config.json must be"):
            source_of({**about, name: wrong})
    assert source_of({"model": {"image_size": 64}}) == {"split": None, "image_size": 64}


def test_names_of_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [name_of("mref", None), name_of("data/birds/", "validation"), name_of("x/scenes.npz", None)]
    assert names == ["mref/test", "birds/validation", "scenes.npz"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    assert [rows_path("run", name).as_posix() for name in names] == [
        "run/evaluation/mref-test.parquet",
        "run/evaluation/birds-validation.parquet",
        "run/evaluation/scenes.parquet",
    ]


def test_notes_of_other_files(tmp_path):
    path = tmp_path / "rows.parquet"
    assert read_notes(path) == {}
    path.with_suffix(".json").write_text("{}")
    path.write_text("no rows")
    assert read_notes(path) == {}
    pyarrow.parquet.write_table(pa.table({"row": [1]}), path)
    assert read_notes(path) == {}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89.4, "89 s"), (120, "2 min"), (2304, "38 min"), (9000, "2.5 h")]
)
def test_duration(seconds, told):
    assert duration(seconds) == told


def test_claim_of_labels_without_a_prior():
    found = RunResults("run", {"name": "san"}, [], "mine", {"count": 1234, "weighted_mean_ap": 0.5})
    assert claim(found, None) == "san ranks the attributes of 1,234 questions with a weighted mAP of 50.0 %."
