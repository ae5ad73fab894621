"""Runs: what is read is checked, what is averaged differs by the seed only, intervals are the textbook's."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, fake_table
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from progressive_attention.config import ALIASES, MODELS, STYLES
from progressive_attention.files import read_json
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.reproduce.published import NAMES, SCALE_BINS
from progressive_attention.reproduce.runs import (
    ALIKE,
    LATER,
    STUDENT,
    Budget,
    Cell,
    Estimate,
    cells,
    estimate,
    models_in_order,
    name_of,
    place_of,
    read_runs,
    title_of,
    write_runs,
)


def written(tmp_path, value):
    path = tmp_path / "table1.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def only(runs) -> Cell:
    (cell,) = cells(runs)
    return cell


def test_every_model_has_a_row_also_a_new_one(monkeypatch):
    assert models_in_order()[: len(NAMES)] == [*NAMES]
    monkeypatch.setitem(MODELS, "pan-late", {"title": "PAN, late", "attend_at": (2, 3)})
    monkeypatch.setitem(MODELS, "untitled", {})
    assert (title_of("pan-late"), title_of("untitled")) == ("PAN, late", "untitled")
    assert {*models_in_order()} == {*MODELS}
    assert place_of("untitled") == len(STYLES) + len(MODELS) - 1


def test_runs_come_back_as_they_were(tmp_path):
    runs, path = fake_table(), tmp_path / "table1.json"
    assert read_runs(written(tmp_path, runs)) == runs  # with the curves inside, as earlier versions wrote it
    write_runs(path, runs)
    assert "precision_recall" not in path.read_text(encoding="utf-8")
    assert read_runs(path) == runs
    with_maps = {name_of(run) for run in runs if run["precision_recall"]}
    assert {file.stem for file in (tmp_path / "curves").iterdir()} == with_maps
    assert len({name_of(run) for run in runs}) == len(runs)
    written_at = {file: file.stat().st_mtime_ns for file in (tmp_path / "curves").iterdir()}
    write_runs(path, runs)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "curves").iterdir()} == written_at


def test_broken_curves_are_named(tmp_path):
    run = fake_run()
    write_runs(tmp_path / "table1.json", [run])
    curves = tmp_path / "curves" / f"{name_of(run)}.json"
    curves.write_text('{"last": 3}')
    with pytest.raises(ValueError, match=rf"curves/{name_of(run)}\.json: precision_recall\[...\]: Expected `object"):
        read_runs(tmp_path / "table1.json")


def test_runs_from_before_the_flow_map_have_none_of_it():
    path = Path(__file__).parents[2] / "support" / "table1_without_flow.json"
    old, found = read_json(path), read_runs(path)
    assert found == old
    assert not {name for run in found for name in LATER if name in run}
    assert {cell.mean("tpr_flow") for cell in cells(found)} == {None}
    assert [cell.curve("flow") for cell in cells(found)] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "pann"}, r"unknown model 'pann'; known: .*pan-hard-ctx"),
        ({"dataset": "MREF"}, "dataset: Invalid enum value 'MREF'"),
        ({"seed": -1}, "seed: Expected `int` >= 0"),
        ({"epochs": True}, "epochs: Expected `int`, got `bool`"),
        ({"learning_rate": math.nan}, "learning_rate: Expected `float` >= 0"),
        ({"accuracy": 98.5}, "accuracy: Expected `float` <= 1.0; correct it, or remove the run"),
        ({"box_iou": "0.3"}, "box_iou: Expected `float | null`"),
        (
            {"accuracy_by_scale": {"0.5-1.0": 1.0}},
            "accuracy_by_scale and count_by_scale must be given for 0.5-1.0, 1.0",
        ),
        ({"count_by_scale": dict.fromkeys(SCALE_BINS, 0.5)}, r"count_by_scale\[...\]: Expected `int`"),
        ({"precision_recall": {"first": None}}, "key in precision_recall: Invalid enum value 'first'"),
        ({"precision_recall": {"last": {"threshold": [0.5]}}}, r"precision_recall\[...\]: Object missing required"),
    ],
)
def test_wrong_values_are_named(tmp_path, changes, message):
    path = written(tmp_path, [fake_run(), {**fake_run(), **changes}])
    with pytest.raises(ValueError, match=rf"table1\.json, run 1: .*{message}"):
        read_runs(path)


def test_missing_keys_are_named(tmp_path):
    for key in set(fake_run()) - {*LATER, "precision_recall"}:
        run = {name: value for name, value in fake_run().items() if name != key}
        with pytest.raises(ValueError, match=rf"run 0: Object missing required field `{key}`; correct it, or remove"):
            read_runs(written(tmp_path, [run]))


def test_other_files_are_rejected(tmp_path):
    for value in ({}, [], {"runs": []}):
        with pytest.raises(ValueError, match=r"table1\.json must hold a list of at least one run; 'pan reproduce'"):
            read_runs(written(tmp_path, value))
    with pytest.raises(ValueError, match=r"run 0: Expected `object`, got `int`"):
        read_runs(written(tmp_path, [3]))


def test_student_quantiles():
    degrees = np.arange(1, len(STUDENT) + 1)
    np.testing.assert_allclose(STUDENT, stats.t.ppf(0.975, degrees), atol=6e-4)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=31))
def test_interval_over_seeds_is_students(values):
    found = estimate(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5 or 1e-300
    )
    assert found is not None
    np.testing.assert_allclose([found.value, found.low, found.high], [np.mean(values), low, high], atol=3e-4)
    assert found.seeds == len(values)


def test_one_seed_has_the_interval_of_its_questions():
    assert estimate([0.9], 1000) == Estimate(0.9, *wilson_interval(900, 1000), 1)
    assert estimate([0.9]) == Estimate(0.9, None, None, 1)
    assert estimate([0.9, None], 1000) == estimate([0.9], 1000)


def test_nothing_known():
    assert estimate([], 10) is estimate([None, None], 10) is None


def test_runs_trained_differently_are_never_averaged():
    other = {
        "variant": "closing gates",
        "model": "san",
        "dataset": "mbg",
        "protocol": "authors",
        "recipe": "paper",
        "queries_per_image": "one",
        "images": 15_000,
        "epochs": 6,
    }
    for key, value in other.items():
        assert len(cells([fake_run(seed=0), fake_run(seed=1) | {key: value}])) == 2
    for key in ALIKE:
        with pytest.raises(ValueError, match=rf"x 12 epochs: {key} is \[1\], \[2\] for seeds \[0, 1\], and a mean"):
            cells([fake_run(seed=1, **{key: [2]}), fake_run(seed=0, **{key: [1]})])


def test_seeds_make_one_cell_in_any_order():
    runs = [fake_run(seed=seed) for seed in (2, 0, 1)]
    cell = only(runs)
    assert cell == only(runs[::-1])
    assert [run["seed"] for run in cell.runs] == [0, 1, 2]
    assert cell.budget == Budget("paper", "fast", "all", 30_000)
    assert (cell.epochs, cell.variant) == (12, "")
    assert cell.accuracy() == estimate([run["accuracy"] for run in cell.runs])


def test_the_longest_training_stands_for_the_model_and_shorter_ones_are_variants():
    runs = [fake_run(epochs=6), fake_run(epochs=12), fake_run("san", epochs=6), fake_run(epochs=3, variant="x")]
    found = {(cell.model, cell.variant): cell.epochs for cell in cells(runs)}
    rows = {("pan-hard-ctx", ""): 12, ("pan-hard-ctx", "6 epochs"): 6, ("san", ""): 6, ("pan-hard-ctx", "x"): 3}
    assert found == rows


def test_same_seed_twice_is_rejected():
    with pytest.raises(
        ValueError, match=r"mref pan-hard-ctx, 30,000 images x 12 epochs: seeds \[1, 1\] hold one twice"
    ):
        cells([fake_run(seed=1), fake_run(seed=1, learning_rate=0.001)])


def test_order_of_cells():
    found = cells(fake_table()[::-1])
    sizes = [cell.budget.images for cell in found]
    assert sizes == sorted(sizes, reverse=True)
    first = [cell for cell in found if cell.budget == found[0].budget and not cell.variant]
    assert list(dict.fromkeys(cell.model for cell in first)) == models_in_order()
    assert [cell.dataset for cell in first[:3]] == ["mref", "mdist", "mbg"]


def test_accuracy_of_one_scale():
    run = fake_run()
    share = run["accuracy_by_scale"]["2.5-3.0"]
    assert only([run]).accuracy("2.5-3.0") == Estimate(share, *wilson_interval(round(400 * share), 400), 1)
    none = {"accuracy_by_scale": {**run["accuracy_by_scale"], "2.5-3.0": None}}
    none["count_by_scale"] = {**run["count_by_scale"], "2.5-3.0": 0}
    second = fake_run(seed=1) | {"accuracy_by_scale": run["accuracy_by_scale"]}
    assert only([fake_run() | none, second]).accuracy("2.5-3.0") == only([run]).accuracy("2.5-3.0")
    empty = {scale: None for scale in SCALE_BINS}
    assert only([fake_run(accuracy_by_scale=empty)]).accuracy("2.5-3.0") is None


def test_curve_is_the_mean_at_each_threshold():
    runs = [fake_run(seed=seed) for seed in (0, 1)]
    found = only(runs).curve("last")
    assert found is not None
    assert found["precision"][0] is None
    for key in ("precision", "recall", "iou"):
        for i in range(1, 20):
            values = [run["precision_recall"]["last"][key][i] for run in runs]
            assert found[key][i] == pytest.approx(sum(values) / 2, abs=1e-15)
    assert only([fake_run("film")]).curve("last") is None


def test_curves_of_different_thresholds_are_rejected():
    other = fake_run(seed=1)
    other["precision_recall"]["last"]["threshold"] = [t / 2 for t in other["precision_recall"]["last"]["threshold"]]
    with pytest.raises(ValueError, match="curves have different thresholds; measure them again alike"):
        only([fake_run(), other]).curve("last")


def test_names_of_2016_become_those_of_2018(tmp_path):
    runs = [fake_run() | {"model": name} for name in ALIASES]
    assert [run["model"] for run in read_runs(written(tmp_path, runs))] == list(ALIASES.values())
