"""Suites of `pan bench` beside the training step: rendering, loading, latency, time to accuracy.

Their arithmetic is checked with made-up seconds, what they time with tiny sizes; no test asks how long anything took.
"""

import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from progressive_attention import Predictor
from progressive_attention.bench import accuracy, latency, rendering
from progressive_attention.bench.children import Finished, run_child
from progressive_attention.cli import build_parser
from progressive_attention.config import STYLES
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FileImages
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.saved import weights

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
MEBIBYTE = 2**20


def silent(text: str) -> None:
    assert text


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """Nothing is left in the system's temporary folder, nor read from the user's cache."""
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("PAN_CACHE", str(scratch / "cache"))
    yield
    assert not [path for path in scratch.iterdir() if path.name.startswith(("tmp", "cache"))]


# Rendering and loading


@pytest.fixture
def two_seconds(monkeypatch):
    """Every job runs once and is told to have taken 2, 4, 6, ... seconds, by its place among them."""

    def run(jobs, rounds, warmup=2):
        for job in jobs.values():
            job()
        return {name: [2.0 * i] * rounds for i, name in enumerate(jobs, 1)}

    monkeypatch.setattr(rendering, "interleaved", run)


def test_render_records_are_scenes_by_seconds(two_seconds):
    records = list(rendering.render_records(False, CPU, silent, scenes=3))
    count = joblib.cpu_count()
    assert [one.what for one in records] == [
        f"rendering {style}, {by}" for style in STYLES for by in ("one process", f"{count} processes")
    ]
    for one, every in zip(records[::2], records[1::2], strict=True):
        assert (one.unit, one.value, one.threads, one.repeats, one.ratio) == ("scenes/s", 3 / 2, 1, 5, None)
        assert (every.value, every.threads, every.against, every.ratio) == (3 / 4, count, "one process", 2 / 4)
        assert one.suite == every.suite == "render"


def test_rendered_renders_that_many_scenes_and_leaves_nothing(monkeypatch):
    made = []

    def watched(*args, cache_dir, **options):
        assert list(cache_dir.iterdir()) == []
        made.append(synthetic(*args, cache_dir=cache_dir, **options))
        return made[-1]

    monkeypatch.setattr(rendering, "synthetic", watched)
    rendering.rendered("mbg", 4, 1)
    assert (made[0].name, len(made[0].images)) == ("mbg/train", 4)


def test_load_records(two_seconds):
    records = list(rendering.load_records(True, CPU, silent, scenes=5))
    photographs, arrays, whole = records[:4], records[4:6], records[6]
    # decoded in full is the fourth of five jobs
    assert [(one.unit, one.value) for one in photographs] == [("images/s", 64 / t) for t in (2, 4, 6, 10)]
    assert [one.ratio for one in photographs] == [None, 8 / 4, None, None]
    assert all(one.what.startswith("JPEGs of 480 x 360 px fitted into 224 px, ") for one in photographs)
    assert [one.value for one in arrays] == [5 / 2, 5 / 4]
    assert (whole.what, whole.unit, whole.value, whole.repeats) == (
        *("evaluation of mref-pan on 5 scenes with all maps", "s"),
        *(2.0, 1),
    )
    assert {one.suite for one in records} == {"load"}


def test_jpegs_are_of_their_size_and_real_photographs(tmp_path):
    names = rendering.write_jpegs(tmp_path, (48, 36), 170)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 170  # more than there are photographs: they come again
    for name in names[:3]:
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (48, 36))
            assert np.asarray(picture).std() > 5
    assert (
        (tmp_path / names[0]).read_bytes() == (tmp_path / names[159]).read_bytes() != (tmp_path / names[1]).read_bytes()
    )


def test_decoding_in_full_gives_what_loading_gives(tmp_path):
    names = rendering.write_jpegs(tmp_path, (300, 200), 4)  # too small for the decoder to give fewer pixels
    files = FileImages(ImageRoot(tmp_path), names, rendering.SIDE, np.zeros((4, 2), int))
    np.testing.assert_array_equal(rendering.decoded_in_full(tmp_path, names), files[np.arange(4)])


# Latency


class FakeChild:
    """Stands for `run_child`: keeps the commands, and tells 1, 2, 3, ... seconds and as many MiB."""

    def __init__(self, *outputs: str) -> None:
        self.commands: list[list[str]] = []
        self.outputs = outputs or ("",)

    def __call__(self, command, threads, environment=None):
        assert threads == torch.get_num_threads()
        self.commands.append(list(command))
        n = len(self.commands)
        return Finished(self.outputs[(n - 1) % len(self.outputs)], float(n), n * MEBIBYTE)


def test_start_records(monkeypatch):
    child = FakeChild()
    monkeypatch.setattr(latency, "run_child", child)
    seconds, memory = latency.start_records(4, CPU, silent)
    assert (seconds.unit, seconds.value, seconds.low, seconds.high, seconds.repeats) == ("s", 2.5, 1, 4, 4)
    assert (memory.unit, memory.value, memory.low, memory.high) == ("MiB", 2.5, 1, 4)
    for command in child.commands:
        assert command[:3] == [sys.executable, "-m", "progressive_attention"]
        arguments = build_parser().parse_args(command[3:])
        assert (arguments.command, arguments.weights, arguments.query) == ("predict", "mref-pan", ["7"])
        assert Path(arguments.images[0]).is_file()


def test_import_records(monkeypatch):
    monkeypatch.setattr(latency, "run_child", FakeChild("2.0\n0.1\n0.2\n0.3\n0.4\n", "4.0\n0.3\n0.4\n0.5\n0.6\n"))
    records = list(latency.import_records(2))
    assert [one.value for one in records] == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert [(one.low, one.high) for one in records] == [(0.1, 0.3), (0.2, 0.4), (0.3, 0.5), (0.4, 0.6)]
    assert all(one.details["torch_seconds"] == [2.0, 4.0] for one in records)


def test_no_timed_import_finds_what_another_has_imported():
    """With modules of Python's own in place of torch and ours: each says how much of csv is there before it."""
    code = latency.TIMED_IMPORTS.replace("import torch", "import re").replace(
        "time.perf_counter()", "('csv' in sys.modules)"
    )
    output = run_child([sys.executable, "-c", code, "import csv", "import csv, json"], 1).output
    assert output.split() == ["0", "1", "1"]  # there after it, not before


@pytest.mark.parametrize("answers", [3, 40])
def test_answer_records(monkeypatch, answers):
    """Answers that take 0, 1, 2, 3, ... ms by a clock that only these move; five are to warm up."""
    now, step = [0.0], itertools.count()

    class Asked:
        def __init__(self, name, device):
            assert (name, device) == ("mref-pan", "cpu")

        def ask(self, picture, query):
            assert Path(picture).is_file()
            now[0] += next(step) / 1e3

    monkeypatch.setattr(latency, "Predictor", Asked)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    median, late = latency.answer_records(answers, CPU)
    took = list(range(5, 5 + 5 * answers))
    assert (median.value, median.low, median.high) == pytest.approx((np.median(took), took[0], took[-1]))
    slowest = [sum(one <= took[i] for one in took) / len(took) >= 0.99 for i in range(len(took))].index(True)
    assert late.value == pytest.approx(took[slowest])
    last = [took[answers * (turn + 1) - 1] for turn in range(5)]  # of fewer than 100 in order, the 99th percentile
    assert (late.low, late.high) == pytest.approx((last[0], last[-1]))
    assert median.repeats == late.repeats == 5 * answers


# Time to accuracy


def shipped_run(command, threads, environment=None):
    """Stands for a training: the shipped network is what it leaves."""
    arguments = build_parser().parse_args(command[3:])
    assert (arguments.command, arguments.data, arguments.model) == ("train", "mref", "pan-hard-ctx")
    assert environment is not None
    assert not Path(environment["PAN_CACHE"]).exists()  # nothing is rendered before
    shutil.copytree(weights.SHIPPED / "mref-pan", arguments.out)
    lines = [{"epoch": i, "train_seconds": 10.0 * i, "validation_seconds": 0.5} for i in (1, 2)]
    (arguments.out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Finished("", 100.0 + arguments.seed, 512 * MEBIBYTE)


@pytest.mark.parametrize("target", [0.5, 1.5])
def test_accuracy_records(monkeypatch, target):
    monkeypatch.setattr(accuracy, "run_child", shipped_run)
    monkeypatch.setattr(accuracy, "TARGET", target)
    *runs, median = accuracy.accuracy_records(False, CPU, silent, seeds=(3, 0, 8), scenes=6)
    assert [one.value for one in runs] == [103, 100, 108]
    assert (median.value, median.low, median.high, median.repeats, median.unit) == (103, 100, 108, 3, "s")
    assert f"{3 * (target < 1)} of them reach" in median.what
    for one, seed in zip(runs, (3, 0, 8), strict=True):
        right = answered_rightly(seed, 6)
        assert one.details["accuracy"] == right / 6
        assert one.details["accuracy_ci95"] == list(wilson_interval(right, 6))
        assert one.details["reached"] == (right / 6 >= target)
        assert (one.details["seconds_in_steps"], one.details["seconds_of_validation"]) == (30, 1)
        assert one.details["largest_memory_mib"] == 512
    assert median.details["reached"] == (target < 1)


def answered_rightly(seed: int, scenes: int) -> int:
    """One question after the other."""
    predictor = Predictor("mref-pan", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        questions = synthetic("mref", "test", seed=seed, images=3 * scenes, cache_dir=Path(folder))
        told = [questions.words(row) for row in range(len(questions))]
        images = np.array(questions.images)
    assert len(told) == scenes
    return sum(predictor.ask(images[i], query).attribute == truth for i, (query, (truth,)) in enumerate(told))


def test_time_to_accuracy_is_nothing_quick():
    assert list(accuracy.accuracy_records(True, CPU, silent)) == []


def test_the_sprint_is_a_command():
    options = build_parser().parse_args(["train", "--data", "mref", "--out", "run", *accuracy.SPRINT])
    assert (options.images, options.epochs) != (None, None)


# For real


@pytest.mark.slow
def test_suites_of_fresh_processes_run():
    """As they are, but for their sizes."""
    tiny = {"seeds": (0,), "options": ("--images", "20", "--epochs", "1"), "scenes": 4}
    found = [
        *latency.latency_records(True, CPU, silent, answers=2),
        *accuracy.accuracy_records(False, CPU, silent, **tiny),
    ]
    assert [one.suite for one in found] == ["inference"] * 8 + ["time-to-accuracy"] * 2
    assert all(one.value > 0 for one in found)
    json.dumps([dataclasses.asdict(one) for one in found], allow_nan=False)
