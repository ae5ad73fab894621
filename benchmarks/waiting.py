"""How long one waits: for one answer, from a command, an import or a loaded network; and for a trained network."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import progressive_attention
from benchmarks.timing import Record, Watch, recorded, run_pan, run_python, trained_in
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import load
from progressive_attention.training.loop import read_log

NETWORK = "mref-pan"
PICTURE = Path(progressive_attention.__file__).parent / "assets" / "examples" / "mref.png"
IMPORTS = """
import time, torch
began = time.perf_counter()
from progressive_attention import *
print(time.perf_counter() - began)
"""
TARGET, SEEDS, SCENES = 0.985, (0, 1, 2), 10_000  # on test scenes of MREF; the papers' best is 98.53 %
# The shortest training that gets there: small steps, and no image twice.
SPRINT = ("--images", "38000", "--epochs", "1", "--batch", "16", "--lr", "0.01")
PATH = "an empty process to the end of pan train on MREF, its rendering included"


def latency_records(quick: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """Cold start and largest memory of `pan predict`, time of our imports, warm answers."""
    starts, answers = (1, 20) if quick else (5, 200)
    yield from start_records(starts, device, watch)
    watch("timing imports")
    seconds = [float(run_python(IMPORTS)[0][0]) for _ in range(starts)]
    yield recorded("inference", "import of all public names, torch imported before", "s", seconds)
    watch("asking a network that is there already")
    yield from answer_records(answers, device)


def start_records(starts: int, device: torch.device, watch: Watch) -> Iterator[Record]:
    """Wall seconds of one question by `pan predict`, its figure drawn, and the process's largest memory [MiB].

    Torch's files are in the system's memory already: this process has imported it.
    """
    with tempfile.TemporaryDirectory() as folder:
        predict = ["predict", str(PICTURE), "--weights", NETWORK, "--query", "7", "--out", folder]
        runs = []
        for start in range(starts):
            watch(f"starting pan predict, {start + 1} of {starts}")
            runs.append(run_pan(*predict, "--device", str(device)))
    seconds, memory = zip(*runs, strict=True)
    what = "pan predict, one question and its figure in a fresh process"
    yield recorded("inference", f"{what}, start to end", "s", seconds)
    yield recorded("inference", f"{what}, largest memory", "MiB", memory, "float32")


def answer_records(answers: int, device: torch.device) -> Iterator[Record]:
    """`Predictor.ask` about one picture file [ms]: the median of five rounds' answers, and the 99th percentile.

    The median's spread is that of all answers, the percentile's that of the rounds.
    """
    predictor = Predictor(NETWORK, str(device))
    for _ in range(5):
        predictor.ask(PICTURE, "7")
    milliseconds = np.zeros((5, answers))
    for at in np.ndindex(milliseconds.shape):
        started = time.perf_counter()
        predictor.ask(PICTURE, "7")
        milliseconds[at] = 1e3 * (time.perf_counter() - started)
    what, every = "Predictor.ask, one question about a picture file", milliseconds.ravel().tolist()
    yield recorded("inference", f"{what}, median", "ms", every, "float32")
    late = np.quantile(milliseconds, 0.99, axis=1, method="inverted_cdf").tolist()
    value = float(np.quantile(every, 0.99, method="inverted_cdf"))
    record = recorded("inference", f"{what}, 99th percentile", "ms", late, "float32")
    yield replace(record, value=value, repeats=len(every))


def accuracy_records(device: torch.device, watch: Watch) -> Iterator[Record]:
    """From an empty process to the end of `pan train --data mref`: of each seed, and their median.

    What was reached on the test scenes is beside the seconds.
    """
    runs = []
    for i, seed in enumerate(SEEDS, 1):
        watch(f"training with seed {seed}, {i} of {len(SEEDS)}, nothing rendered before")
        runs.append(sprint(seed, device))
        yield runs[-1]
    shares, reached = [run.details["accuracy"] for run in runs], [run.details["reached"] for run in runs]
    yield recorded(
        "time-to-accuracy",
        f"{PATH}, median of {len(runs)} seeds; {sum(reached)} of them reach {TARGET:.1%}",
        "s",
        [run.value for run in runs],
        runs[0].dtype,
        target=TARGET,
        reached=all(reached),
        accuracy=statistics.median(shares),
        seeds=list(SEEDS),
    )


def sprint(seed: int, device: torch.device) -> Record:
    """One training in a fresh process without a rendered scene, from its start to its end; its test is not timed.

    The seed draws the scenes, too; those of the test show digits that no other split has.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train = ["train", "--data", "mref", "--model", "pan-hard-ctx", *SPRINT, "--seed", str(seed)]
        place = ["--device", str(device), "--out", str(out)]
        seconds, memory = run_pan(*train, *place, PAN_CACHE=str(Path(folder) / "cache"))
        epochs = read_log(out / "log.jsonl")
        questions = synthetic("mref", "test", seed=seed, images=3 * SCENES, cache_dir=Path(folder) / "test")
        _, share = validation_score(load(out, device).model, questions, device)
    return recorded(
        "time-to-accuracy",
        f"{PATH}, seed {seed}; test accuracy {share:.2%}",
        "s",
        [seconds],
        trained_in(device),
        command=" ".join(["pan", *train]),
        target=TARGET,
        reached=share >= TARGET,
        accuracy=share,
        accuracy_ci95=list(wilson_interval(round(share * len(questions)), len(questions))),
        test_questions=len(questions),
        seconds_in_steps=sum(epoch["train_seconds"] for epoch in epochs),
        seconds_of_validation=sum(epoch["validation_seconds"] for epoch in epochs),
        largest_memory_mib=memory,
    )
