"""`pan bench`: timing side by side, records, the report, the command and its table."""

import json
import math
import os
import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_jobs import counter, dying
from hypothesis import given
from hypothesis import strategies as st

from progressive_attention.bench import NEVER_QUICK, SUITES, measure
from progressive_attention.bench.command import RECORDS, table_of
from progressive_attention.bench.measure import (
    Record,
    compared,
    elsewhere,
    interleaved,
    origin,
    percentile,
    skipped,
    three_digits,
    write_report,
)
from progressive_attention.cli import main
from progressive_attention.reproduce.machine import commit, hardware

CPU = torch.device("cpu")
COMMON = {"dtype": "bfloat16", "threads": 2}
SECONDS = st.floats(1e-6, 1e3)


# --- side by side -----------------------------------------------------------------------------------------------------


class Clock:
    """A clock that jobs move."""

    def __init__(self):
        self.now = 0.0
        self.done = []

    def job(self, name, seconds):
        def work():
            self.done.append(name)
            self.now += seconds * len(self.done)  # a machine that slows down

        return work


@pytest.mark.parametrize("rounds, warmup", [(1, 0), (4, 0), (3, 2)])
def test_each_round_calls_all_and_begins_with_the_next(monkeypatch, rounds, warmup):
    clock = Clock()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    lengths = {"a": 1.0, "b": 10.0, "c": 100.0}
    found = interleaved({name: clock.job(name, length) for name, length in lengths.items()}, rounds, warmup)
    assert "".join(clock.done) == ("abcbcacab" * 3)[: 3 * (rounds + warmup)]
    expected = {name: [] for name in lengths}
    for call, name in enumerate(clock.done, 1):
        if call > 3 * warmup:
            expected[name].append(lengths[name] * call)
    assert found == {name: pytest.approx(values) for name, values in expected.items()}
    assert {len(values) for values in found.values()} == {rounds}


@pytest.mark.parametrize("jobs, rounds", [({}, 3), ({"a": print}, 0)])
def test_nothing_to_time_is_refused(jobs, rounds):
    with pytest.raises(ValueError, match=r"expected at least one job and one round, got \d jobs and \d rounds"):
        interleaved(jobs, rounds)


def test_a_job_elsewhere_is_built_once_and_lives_on():
    with elsewhere(counter, 10) as job:
        told = [job() for _ in range(3)]
    assert [count for count, _ in told] == [11, 12, 13]
    (process,) = {process for _, process in told}
    assert process != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_job_elsewhere_that_dies_is_told():
    with (
        pytest.raises(ChildProcessError, match="the process that was to be measured has died; is there enough memory"),
        elsewhere(dying, 3) as job,
    ):
        job()


# --- records ----------------------------------------------------------------------------------------------------------


def test_record_by_hand():
    record = compared(
        *("step", "training", "ms a question", [0.2, 0.1, 0.4], [0.4, 0.5, 0.4], "plain"), scale=500, **COMMON, images=2
    )
    assert asdict(record) == {
        **{"suite": "step", "what": "training", "unit": "ms a question", "repeats": 3, "against": "plain", **COMMON},
        **{"value": 100, "low": 50, "high": 200, "ratio": 2, "ratio_low": 1, "ratio_high": 5},
        "details": {"images": 2},
    }


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9), st.floats(1e-3, 1e6))
def test_records_are_medians_of_rounds(rounds, scale):
    ours, other = zip(*rounds, strict=True)
    time = compared("step", "x", "s", ours, other, "y", scale=scale, **COMMON)
    rate = compared("render", "x", "scenes/s", ours, None, None, scale=scale, **COMMON)
    ordered = sorted(b / a for a, b in rounds)
    half = len(rounds) // 2
    middle = ordered[half] if len(rounds) % 2 else (ordered[half - 1] + ordered[half]) / 2
    assert (time.ratio_low, time.ratio, time.ratio_high) == pytest.approx((ordered[0], middle, ordered[-1]))
    assert (time.low, time.value, time.high) == pytest.approx(
        (scale * min(ours), scale * float(np.median(ours)), scale * max(ours))
    )
    assert (rate.low, rate.high) == pytest.approx((scale / max(ours), scale / min(ours)))
    assert rate.value == pytest.approx(statistics.median(scale / one for one in ours))
    assert (rate.against, rate.ratio, rate.ratio_low, rate.ratio_high) == (None,) * 4


@pytest.mark.parametrize("ours, other", [([], None), ([], []), ([1.0, 2.0], [1.0])])
def test_rounds_must_match(ours, other):
    with pytest.raises(ValueError, match=r"x: expected as many rounds of both, at least one; got \d and \d"):
        compared("step", "x", "s", ours, other, "y", scale=1, **COMMON)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_percentile_is_the_nearest_rank(values, share):
    assert percentile(values, share) == np.quantile(values, share, method="inverted_cdf")


def test_what_was_skipped_has_no_figure():
    record = skipped("step", "x", "s", "too large", **COMMON, needed=7)
    assert (record.value, record.low, record.high, record.ratio, record.repeats) == (None, None, None, None, 0)
    assert record.details == {"skipped": "too large", "needed": 7}


# --- the report -------------------------------------------------------------------------------------------------------

FIRST = compared("step", "training", "s", [1.0, 3.0, 2.0], [2.0, 3.0, 8.0], "plain", scale=1, **COMMON)
SECOND = skipped("step", "training of much", "s", "too large", **COMMON)


def test_report_holds_all_and_where_it_comes_from(tmp_path):
    path = tmp_path / "new" / "bench.json"
    about = origin("pan bench --json x", CPU, 12.34)
    for records in ([FIRST], [FIRST, SECOND]):  # the second in place of the first
        write_report(path, records, about)
        assert json.loads(path.read_text()) == {"about": about, "records": [asdict(one) for one in records]}
    assert [one.name for one in path.parent.iterdir()] == ["bench.json"]
    assert about.items() >= {"command": "pan bench --json x", "seconds": 12.3, "torch": torch.__version__}.items()
    assert (about["hardware"], about["commit"]) == (hardware(CPU), commit())
    assert about["date"].endswith("+00:00")


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "bench.json"
    write_report(path, [FIRST], {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_report(path, [SECOND], {"unwritable": object()})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["bench.json"]


# --- the command ------------------------------------------------------------------------------------------------------


def fake_suite(*records, then=None):
    """A suite that measures nothing; ``then`` is raised at its end."""

    def suite(quick, device, watch):
        watch("something")
        yield from records
        if then is not None:
            raise then

    return suite


@pytest.fixture
def fakes(monkeypatch):
    """Each suite gives one record of its own name."""
    for name in SUITES:
        details = {"axis": "images", "series": "a step", "quantity": "time", "at": 10}
        record = Record(name, f"all of {name}", "s", 1.0, 1.0, 1.0, 1, "-", 2, details=details)
        monkeypatch.setitem(RECORDS, name, (fake_suite(record),))


def suites_in(path):
    return [record["suite"] for record in json.loads(Path(path).read_text())["records"]]


def test_every_suite_has_its_records():
    assert list(RECORDS) == list(SUITES)
    assert set(NEVER_QUICK) < set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_one_suite(fakes, tmp_path, name):
    path = tmp_path / "one.json"
    assert main(["bench", "--suite", name, "--device", "cpu", "--json", str(path)]) == 0
    assert suites_in(path) == [name]
    assert path.with_suffix(".png").exists() == (name == "growth")


def test_all_suites_tell_where_they_are(fakes, tmp_path, capsys):
    path = tmp_path / "all.json"
    assert main(["bench", "--device", "cpu", "--json", str(path)]) == 0
    assert suites_in(path) == list(SUITES)
    about = json.loads(path.read_text())["about"]
    assert about["command"] == f"pan bench --device cpu --json {path}"
    assert about["hardware"] == hardware(CPU)
    out = capsys.readouterr().out
    assert f"all figures, and what was measured where: {path}" in out
    assert "left out" not in out
    assert all(f"all of {name}" in out for name in SUITES)


def test_quick_leaves_out_what_takes_long_and_says_so(fakes, tmp_path, capsys):
    path = tmp_path / "quick.json"
    assert main(["bench", "--quick", "--device", "cpu", "--json", str(path)]) == 0
    assert suites_in(path) == [name for name in SUITES if name not in NEVER_QUICK]
    assert f"left out because they have no quick form: {', '.join(NEVER_QUICK)}" in capsys.readouterr().out


@pytest.mark.parametrize("name", NEVER_QUICK)
def test_what_takes_long_has_no_quick_form(fakes, tmp_path, capsys, name):
    assert main(["bench", "--suite", name, "--quick", "--json", str(tmp_path / "x.json")]) == 2
    assert f"--suite {name} has no quick form; leave --quick out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interruption_loses_no_record(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(RECORDS, "step", (fake_suite(FIRST, SECOND, then=KeyboardInterrupt()),))
    path = tmp_path / "bench.json"
    assert main(["bench", "--suite", "step", "--device", "cpu", "--json", str(path)]) == 130
    assert [record["what"] for record in json.loads(path.read_text())["records"]] == [FIRST.what, SECOND.what]
    assert "stopped" in capsys.readouterr().err


def test_a_report_needs_a_file(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--json", str(tmp_path)])
    assert f"--json: expected a file, and {tmp_path} is a folder; add a name" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--json", "x", "--suite", "speed"]])
def test_bad_arguments_are_told(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *arguments])
    assert "pan bench: error:" in capsys.readouterr().err


# --- the table --------------------------------------------------------------------------------------------------------


def test_table_shows_figures_with_their_spread():
    columns = [list(column.cells) for column in table_of([FIRST, FIRST, SECOND]).columns]
    assert columns == [
        ["training, bfloat16", "", "training of much, bfloat16"],  # what is the same is told once
        ["2.00 (1.00 to 3.00) s", "", "skipped"],
        ["2.00 (1.00 to 4.00)", "2.00 (1.00 to 4.00)", ""],
        ["plain", "plain", "too large"],
    ]


@given(st.floats(1e-6, 1e6))
def test_three_digits_are_right_to_half_a_percent(value):
    shown = three_digits(value)
    assert math.isclose(float(shown.replace(",", "")), value, rel_tol=0.005)
    assert len(shown.split("e")[0].replace(",", "").lstrip("0.").replace(".", "")) >= 3


@pytest.mark.parametrize(
    "value, shown",
    [
        (0, "0.00"),
        (0.01234, "0.0123"),
        (9.996, "10.0"),
        (99.96, "100"),
        (12.34, "12.3"),
        (123.4, "123"),
        (98765.4, "98,765"),
    ],
)
def test_three_digits_by_hand(value, shown):
    assert three_digits(value) == shown


@pytest.mark.slow
def test_quick_measures_the_steps_that_count(tmp_path):
    path = tmp_path / "quick.json"
    assert main(["bench", "--quick", "--json", str(path)]) == 0
    records = [record for record in json.loads(path.read_text())["records"] if record["suite"] == "step"]
    compared_with = {(k, record["against"]) for record in records for k in (1, 7) if f"K = {k}," in record["what"]}
    assert len(compared_with) >= 6
    assert all(record["ratio"] > 0 for record in records if record["against"])
