"""How long one waits for one answer: from the command line, from an import, from a network that is there already."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import progressive_attention
from progressive_attention.bench.children import run_child
from progressive_attention.bench.measure import Record, percentile, spread
from progressive_attention.predict.predictor import Predictor

NETWORK = "mref-pan"
PICTURE = Path(progressive_attention.__file__).parent / "assets" / "examples" / "mref.png"
IMPORTS = {
    "import progressive_attention": "import progressive_attention",
    "import of all public names": "from progressive_attention import *",
    "imports of pan predict": "from progressive_attention.cli import command_of; command_of('predict')",
    "imports of pan train": "from progressive_attention.cli import command_of; command_of('train')",
}
# Torch first; then each of ours in a copy of that process, so that none finds what another has imported.
TIMED_IMPORTS = """
import os, sys, time
began = time.perf_counter()
import torch
print(time.perf_counter() - began, flush=True)
for statement in sys.argv[1:]:
    if not os.fork():
        began = time.perf_counter()
        exec(statement)
        print(time.perf_counter() - began, flush=True)
        os._exit(0)
    os.wait()
"""


def latency_records(
    quick: bool,
    device: torch.device,
    watch: Callable[[str], None],
    *,
    starts: int | None = None,
    answers: int | None = None,
) -> Iterator[Record]:
    """Cold start and largest memory of `pan predict`, time of our imports, warm answers.

    ``starts`` of each process: 5, quick 1. ``answers`` in each of five rounds: 200, quick 20.
    """
    starts, answers = starts or (1 if quick else 5), answers or (20 if quick else 200)
    yield from start_records(starts, device, watch)
    watch("timing imports")
    yield from import_records(starts)
    watch("asking a network that is there already")
    yield from answer_records(answers, device)


def start_records(starts: int, device: torch.device, watch: Callable[[str], None]) -> Iterator[Record]:
    """Wall seconds of one question by `pan predict`, its figure drawn, and the process's largest memory [MiB].

    Torch's files are in the system's memory already: whoever measures has imported it.
    """
    children = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "progressive_attention", "predict", str(PICTURE), "--weights", NETWORK]
        command += ["--query", "7", "--out", folder, "--device", str(device)]
        for start in range(starts):
            watch(f"starting pan predict, {start + 1} of {starts}")
            children.append(run_child(command, torch.get_num_threads()))
    what = "pan predict, one question and its figure in a fresh process"
    yield record(f"{what}, start to end", "s", [child.seconds for child in children])
    yield record(f"{what}, largest memory", "MiB", [child.peak / 2**20 for child in children])


def import_records(starts: int) -> Iterator[Record]:
    """Wall seconds of our imports in a process which has imported torch already; torch's beside them."""
    command = [sys.executable, "-c", TIMED_IMPORTS, *IMPORTS.values()]
    outputs = [run_child(command, torch.get_num_threads()).output for _ in range(starts)]
    torchs, *ours = zip(*(map(float, output.split()) for output in outputs), strict=True)
    for name, seconds in zip(IMPORTS, ours, strict=True):
        yield record(f"{name}, torch imported before", "s", seconds, torch_seconds=list(torchs))


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
    yield record("Predictor.ask, one question about a picture file, median", "ms", milliseconds.ravel().tolist())
    late = [percentile(one.tolist(), 0.99) for one in milliseconds]
    of_all = percentile(milliseconds.ravel().tolist(), 0.99)
    what = "Predictor.ask, one question about a picture file, 99th percentile"
    yield Record(
        "inference", what, "ms", of_all, min(late), max(late), milliseconds.size, "float32", torch.get_num_threads()
    )


def record(what: str, unit: str, values: Any, **details: Any) -> Record:
    """A record of the suite "inference" that compares with nothing."""
    dtype = "float32" if unit != "s" else "-"
    return Record(
        "inference", what, unit, *spread(values), len(values), dtype, torch.get_num_threads(), details=details
    )
