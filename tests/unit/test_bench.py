"""`make bench`: timing side by side and in fresh processes, records, the plain reading, growth, and a quick run."""

import dataclasses
import json
import os
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from benchmarks import bench, growth, steps, timing
from benchmarks.plain import AttentionFreeCNN, as_plain
from benchmarks.timing import Record, compared, elsewhere, interleaved, run_python, three_digits
from progressive_attention.network.build import from_config, model_config

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
SECONDS = st.floats(1e-6, 1e3)


# --- side by side -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds, warmup", [(1, 0), (4, 0), (3, 2)])
def test_each_round_calls_all_and_begins_with_the_next(monkeypatch, rounds, warmup):
    lengths, calls, now = {"a": 1.0, "b": 10.0, "c": 100.0}, [], [0.0]

    def work(name):
        calls.append(name)
        now[0] += lengths[name] * len(calls)  # a machine that slows down

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    seconds = interleaved({name: partial(work, name) for name in lengths}, rounds, warmup)
    assert "".join(calls) == ("abcbcacab" * 3)[: 3 * (rounds + warmup)]
    expected = {name: [] for name in lengths}
    for call, name in enumerate(calls, 1):
        if call > 3 * warmup:
            expected[name].append(lengths[name] * call)
    assert seconds == {name: pytest.approx(values) for name, values in expected.items()}


def counter(start):
    """A job that counts its calls, and names its process."""
    calls = []

    def job():
        calls.append(1)
        return start + len(calls), os.getpid()

    return job


def dying(code):
    """A job that ends its process."""
    return lambda: os._exit(code)


def test_a_job_elsewhere_is_built_once_and_lives_on():
    with elsewhere(counter, 10) as job:
        answers = [job() for _ in range(3)]
    assert [count for count, _ in answers] == [11, 12, 13]
    (process,) = {process for _, process in answers}
    assert process != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(ChildProcessError, match="has died"), elsewhere(dying, 3) as job:
        job()


def test_a_fresh_python_prints_and_reports_its_own_memory():
    code = "import sys; from benchmarks.timing import peak_memory; x = b'1' * 2**28; print(sys.argv[1], peak_memory())"
    (line,), seconds = run_python(code, "hello")
    word, memory = line.split()
    assert word == "hello"
    assert 256 < float(memory) < 4_000
    assert seconds > 0
    with pytest.raises(ChildProcessError, match="ended with code 3: why"):
        run_python("import sys; print('why', file=sys.stderr); sys.exit(3)")


# --- records ----------------------------------------------------------------------------------------------------------


def test_record_by_hand():
    ours, other = [0.2, 0.1, 0.4], [0.4, 0.5, 0.4]
    record = compared("step", "training", "ms a question", ours, other, "plain", scale=500, dtype="bfloat16", images=2)
    assert dataclasses.asdict(record) == {
        "suite": "step",
        "what": "training",
        "unit": "ms a question",
        "value": 100,
        "low": 50,
        "high": 200,
        "repeats": 3,
        "dtype": "bfloat16",
        "threads": torch.get_num_threads(),
        "against": "plain",
        "ratio": 2,
        "ratio_low": 1,
        "ratio_high": 5,
        "details": {"images": 2},
    }


def test_records_have_the_fields_of_the_committed_reports():
    for name in ("step", "quick"):
        report = json.loads((ROOT / f"benchmarks/measured/{name}.json").read_text())
        assert {field.name for field in dataclasses.fields(Record)} == set(report["records"][0])


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9), st.floats(1e-3, 1e6))
def test_records_are_medians_of_rounds(rounds, scale):
    ours, other = zip(*rounds, strict=True)
    time = compared("step", "x", "s", ours, other, "y", scale=scale)
    rate = compared("render", "x", "scenes/s", ours, scale=scale, threads=3)
    ratios = [b / a for a, b in rounds]
    assert (time.ratio_low, time.ratio, time.ratio_high) == pytest.approx(
        (min(ratios), float(np.median(ratios)), max(ratios))
    )
    assert time.value == pytest.approx(scale * float(np.median(ours)))
    assert (rate.low, rate.high) == pytest.approx((scale / max(ours), scale / min(ours)))
    assert rate.value == pytest.approx(statistics.median(scale / seconds for seconds in ours))
    assert (rate.against, rate.ratio, rate.threads) == (None, None, 3)


def test_three_digits():
    values = {0.1234: "0.123", 1.0: "1.00", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 99.96: "100"}
    assert {value: three_digits(value) for value in values} == values


# --- what ours is compared with ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_plain_reading_is_the_same_function(training):
    """In float64, each image asked three times; batch norm's statistics then are the same, too."""
    torch.manual_seed(0)
    model = from_config(model_config("pan-hard-ctx", 10, 5, dropout=0.0)).double().train(training)
    plain = as_plain(model).train(training)
    image, query = torch.rand(2, 3, 100, 100).double(), torch.randint(0, 10, (2, 3))
    log_prob = plain(image.repeat_interleave(3, 0), query.flatten())
    assert_close(model(image, query).log_prob.flatten(0, 1), log_prob)


def test_operations_by_hand():
    """The attention-free CNN: four 3 x 3 convolutions, and a classifier of the mean."""
    sides, channels = (98, 47, 21, 8), (3, 32, 32, 32)
    forward = sum(2 * side**2 * 9 * c * 32 for side, c in zip(sides, channels, strict=True)) + 2 * 32 * 5
    assert steps.operations(steps.Setting(100, 1, (1,), training=False), 0) == forward
    training = steps.operations(steps.Setting(100, 1, (1,), training=True), 0)
    assert training == 3 * forward - 2 * 98**2 * 9 * 3 * 32  # the image needs no gradient
    assert steps.operations(steps.Setting(100, 1, (1,), training=False), 7) > forward
    assert AttentionFreeCNN(model_config("pan-hard-ctx", 10, 5))(torch.rand(2, 3, 100, 100)).shape == (2, 5)


# --- growth -----------------------------------------------------------------------------------------------------------


def test_exponents_of_powers():
    line = [(at, 3 * at**1.5, 0, 0) for at in (1, 10, 100, 1000)]
    power, slopes = growth.exponent(line)
    assert power == pytest.approx(1.5)
    assert slopes == pytest.approx([1.5, 1.5])


def test_growth_is_measured_drawn_and_tabulated(monkeypatch, tmp_path):
    def measured(job, point, folder, device):
        return {"time": [2.0 * point.batch, 3.0 * point.batch], "memory": [100.0 + point.batch]}

    monkeypatch.setattr(growth, "measured", measured)
    axes = [growth.Axis("images a step", "batch", (7, 31, 127), {"a training step": ("step", growth.Point())})]
    records = list(growth.growth_records(CPU, print, axes))
    assert [record.unit for record in records] == ["s", "MiB"] * 3 + ["exponent"] * 2
    assert records[0].value == 17.5
    assert {record.value for record in records if record.unit == "MiB"} == {growth.NOISE, 111.0}
    assert records[-2].value == pytest.approx(1.0)
    assert "| images a step | a training step | 7 | 127 | 17.5 to 318 s | 1.00 |" in growth.growth_table(records)
    growth.draw_growth(records, "a machine", tmp_path / "growth.png")
    assert Image.open(tmp_path / "growth.png").width > 300


def test_the_table_of_docs_growth_is_its_reports():
    report = json.loads((ROOT / "docs/images/growth.json").read_text())
    records = [Record(**record) for record in report["records"]]
    assert growth.growth_table(records) in (ROOT / "benchmarks/growth.md").read_text()


@pytest.mark.slow
def test_a_point_of_growth_in_its_process(tmp_path):
    values = growth.measured("step", growth.Point(side=50, batch=2), str(tmp_path), CPU)
    assert len(values["time"]) == growth.TIMED
    assert values["memory"][0] > 100


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_quick_run(monkeypatch, tmp_path, capsys):
    small = [steps.Setting(50, 2, (1, 3), training=True, rounds=2, alone=False)]
    monkeypatch.setattr(steps, "settings", lambda *_: small)
    monkeypatch.setattr(steps, "machine_rates", lambda *_: ([2e9, 4e9], [1e9]))
    bench.main(["--suite", "step", "--quick", "--device", "cpu", "--json", str(tmp_path / "step.json")])
    report = json.loads((tmp_path / "step.json").read_text())
    assert {"hardware", "commit", "command", "torch", "date", "seconds"} == set(report["about"])
    assert [record["against"] for record in report["records"]] == [
        None,
        None,
        steps.LIMIT,
        *(steps.PLAIN, f"{steps.FREE}, one image a question", steps.LIMIT),
        *(steps.PLAIN, f"{steps.FREE}, images only", steps.LIMIT),
    ]
    assert all(record["value"] > 0 for record in report["records"])
    assert "training step, pan-hard-ctx, K = 3, 2 images of 50 px" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench.main(["--suite", "growth", "--quick", "--json", str(tmp_path / "growth.json")])
    assert "no quick form" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["inference", "render", "load"])
def test_quick_suites(tmp_path, suite):
    bench.main(["--suite", suite, "--quick", "--device", "cpu", "--json", str(tmp_path / "a.json")])
    records = json.loads((tmp_path / "a.json").read_text())["records"]
    assert {record["suite"] for record in records} == {suite}
