"""The suite "growth" of `pan bench`, and its page: made-up measurements by hand, real ones as small as they go."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from progressive_attention.bench import growth, growth_page
from progressive_attention.bench.children import Finished
from progressive_attention.bench.growth import AXES, Axis, Blank, Setting
from progressive_attention.bench.measure import Record

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def silent(text: str) -> None:
    assert text


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.title)
def test_axes_span_a_factor_of_thirty(axis):
    assert list(axis.values) == sorted(set(axis.values))
    assert axis.values[-1] >= 30 * axis.values[0]
    assert len(axis.values) >= 5
    assert axis.field in {field.name for field in dataclasses.fields(Setting)}
    assert {job for job, _ in axis.series.values()} <= set(growth.JOBS)


@given(
    images=st.integers(1, 4),
    each=st.integers(1, 5),
    vocabulary=st.integers(1, 6),
    attributes=st.integers(1, 6),
    likelihood=st.sampled_from(["softmax", "bernoulli"]),
)
def test_made_up_questions(images, each, vocabulary, attributes, likelihood):
    setting = Setting(0, 7, each, vocabulary, attributes, likelihood)
    questions = growth.questions_of(setting, Blank((images, 7, 7, 3)))
    assert (len(questions.images), len(questions)) == (images, images * each)
    assert (len(questions.query_names), len(questions.attribute_names)) == (vocabulary, attributes)
    assert questions.likelihood == likelihood
    row = 0
    for image in range(images):
        for _ in range(each):
            assert questions.image[row] == image
            assert questions.query[row] == row % vocabulary
            assert questions.words(row)[1] == [str(row % attributes)]
            row += 1


def test_blank_images_are_black_and_need_no_memory():
    blank = Blank((10**9, 50, 50, 3))
    assert (len(blank), blank.nbytes) == (10**9, 7500 * 10**9)
    pixels = blank[np.array([3, 10**9 - 1])]
    assert (pixels.shape, pixels.dtype, pixels.any()) == ((2, 50, 50, 3), np.uint8, False)


TINY = Setting(side=46, queries_an_image=2, batch=1)


def test_jobs_share_a_folder(tmp_path, capsys):
    """All series of a point follow each other there; the epoch finds what was rendered."""

    def seconds(job: str, **changes) -> list[float]:
        setting = dataclasses.replace(TINY, images=9, **changes)
        growth.main(job, json.dumps(dataclasses.asdict(setting)), str(tmp_path), "cpu")
        found = json.loads(capsys.readouterr().out)
        assert found.keys() == {"time"}
        return found["time"]

    assert len(seconds("render")) == 1
    assert len(seconds("epoch")) == len(seconds("step")) == len(seconds("step", likelihood="bernoulli")) == growth.TIMED
    assert len(seconds("first_step")) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_epoch_is_as_many_steps_as_it_has(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "steps", lambda *args: [9.0, 9.0, 0.5, 0.25, 1.0])
    assert growth.epoch(Setting(images=7, batch=3), tmp_path, CPU) == [1.5, 0.75, 3.0]  # three steps: 3 + 3 + 1


TIMES = Axis("widgets", "batch", (1, 10, 100, 1000), {"made": ("step", Setting()), "sold": ("step", Setting())})


def fake_measured(job, setting, folder, device):
    """Time as the batch's root, memory its square on top of 500 MiB."""
    if job == "imports":
        return {"memory": [500.0], "time": [0.0]}
    n = setting.batch
    return {"memory": [500.0 + n**2 * 0.032], "time": [2 * n**0.5, n**0.5, 3 * n**0.5]}


@pytest.fixture
def report(monkeypatch):
    """A report of one made-up axis."""
    monkeypatch.setattr(growth, "measured", fake_measured)
    records = list(growth.growth_records(False, CPU, silent, axes=(TIMES,)))
    return {"about": {"hardware": "A machine, 1 core"}, "records": [dataclasses.asdict(one) for one in records]}


def test_growth_records(report):
    points = [one for one in report["records"] if one["unit"] != "exponent"]
    assert len(points) == 4 * 2 * 2
    for one in points:
        n, quantity = one["details"]["at"], one["details"]["quantity"]
        middle, low, high = (2, 1, 3) if quantity == "time" else (max(32, n**2 * 0.032),) * 3
        scale = n**0.5 if quantity == "time" else 1
        assert (one["value"], one["low"], one["high"]) == pytest.approx((middle * scale, low * scale, high * scale))
        assert one["details"]["setting"]["batch"] == n
        assert one["unit"] == ("s" if quantity == "time" else "MiB")


def test_exponents_are_those_of_the_end(report):
    """Over 10, 100 and 1,000: memory 32 (the noise), 320 and 32,000 MiB."""
    powers = {
        (one["details"]["series"], one["details"]["quantity"]): (one["value"], one["low"], one["high"])
        for one in report["records"]
        if one["unit"] == "exponent"
    }
    assert len(powers) == 4
    for series in ("made", "sold"):
        assert powers[series, "time"] == pytest.approx((0.5, 0.5, 0.5))
        assert powers[series, "memory"] == pytest.approx((1.5, 1.0, 2.0))


def test_growth_is_nothing_quick():
    assert list(growth.growth_records(True, CPU, silent)) == []


def test_a_point_is_measured_in_a_process_of_its_own(monkeypatch, tmp_path):
    command = []

    def run_child(given, threads):
        command.extend(given)
        assert threads == torch.get_num_threads()
        return Finished('a warning\n{"time": [0.5, 0.25]}', 9.0, 3 * 2**20)

    monkeypatch.setattr(growth, "run_child", run_child)
    assert growth.measured("step", TINY, tmp_path, CPU) == {"memory": [3.0], "time": [0.5, 0.25]}
    assert command[:4] == [sys.executable, "-m", "progressive_attention.bench.growth", "step"]
    assert (Setting(**json.loads(command[4])), command[5:]) == (TINY, [str(tmp_path), "cpu"])


def test_growth_table(report):
    told = growth_page.growth_table(report)
    assert told == (
        "| axis | measured | from | to | time | exponent | memory | exponent |\n"
        "| --- | --- | --: | --: | --: | --: | --: | --: |\n"
        "| widgets | made | 1 | 1,000 | 2.00 to 63.2 s | 0.50 | 32.0 to 32,000 MiB | 1.50 |\n"
        "| widgets | sold | 1 | 1,000 | 2.00 to 63.2 s | 0.50 | 32.0 to 32,000 MiB | 1.50 |\n"
    )


def test_a_report_that_was_interrupted_has_no_exponents(report):
    cut = {**report, "records": report["records"][:4]}
    assert "| made | 1 | 1 | 2.00 to 2.00 s | – | 32.0 to 32.0 MiB | – |" in growth_page.growth_table(cut)
    assert growth_page.growth_figure(cut).startswith(b"\x89PNG")


def test_other_suites_are_passed_over(report):
    other = dataclasses.asdict(Record("render", "rendering", "scenes/s", 1.0, 1.0, 1.0, 1, "-", 1))
    mixed = {**report, "records": [other, *report["records"], other]}
    assert growth_page.growth_table(mixed) == growth_page.growth_table(report)
    with pytest.raises(ValueError, match="records of the suite growth, got none; run pan bench --suite growth"):
        growth_page.growth_table({**report, "records": [other]})


def test_growth_figure(report, tmp_path):
    path = tmp_path / "growth.png"
    png = growth_page.growth_figure(report, path)
    assert path.read_bytes() == png == growth_page.growth_figure(report)
    axes = [
        {**one, "details": {**one["details"], "axis": f"axis {i} of $5"}} for i in range(4) for one in report["records"]
    ]
    with (
        Image.open(io.BytesIO(png)) as one,
        Image.open(io.BytesIO(growth_page.growth_figure({**report, "records": axes}))) as four,
    ):
        assert four.width > 2 * one.width
        assert four.height > 1.5 * one.height


def test_the_page_shows_the_report():
    """docs/growth.md holds the table that `growth_table` makes of docs/images/growth.json."""
    report = json.loads((ROOT / "docs/images/growth.json").read_text(encoding="utf-8"))
    assert growth_page.growth_table(report) in (ROOT / "docs/growth.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_growth_of_a_real_axis():
    axis = Axis("queries an image", "queries_an_image", (2, 4), {"a step": ("step", TINY)})
    records = list(growth.growth_records(False, CPU, silent, axes=(axis,)))
    assert [one.unit for one in records] == ["MiB", "s", "MiB", "s", "exponent", "exponent"]
    assert all(one.value is not None and one.value > 0 for one in records[:4])
    json.dumps([dataclasses.asdict(one) for one in records], allow_nan=False)
