"""How time and memory grow with images, queries, attributes and pixels: one axis at a time over a factor of 30 or more.

Every point is measured in a process of its own, whose largest memory is its own. What is trained is PAN[H]+CTX by the
recipe `fast` on made-up questions about noise: neither time nor memory depends on what a picture shows.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from progressive_attention.bench.children import run_child
from progressive_attention.bench.measure import Record, spread
from progressive_attention.config import RECIPES
from progressive_attention.data.questions import Images, Labels, QuestionSet
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.ask import has_fast_bf16
from progressive_attention.training.setup import prepared

WARM_UP, TIMED = 2, 5  # training steps
END = 3  # points of an axis that its exponent is taken from
NOISE = 32.0  # MiB; the memory of equal processes differs by up to this


@dataclass(frozen=True)
class Setting:
    """What a point trains on, and by how many images a step."""

    images: int = 0  # 0: as many as its steps need
    side: int = 100
    queries_an_image: int = 7
    vocabulary: int = 10
    attributes: int = 5
    likelihood: str = "softmax"
    batch: int = 16


class Axis(NamedTuple):
    """One field of Setting with its values in ascending order, and what is measured along it: series -> (job, rest)."""

    title: str
    field: str
    values: tuple[int, ...]
    series: dict[str, tuple[str, Setting]]


AXES = (
    Axis(
        "images in a rendered set",
        "images",
        (300, 1_000, 3_000, 10_000, 30_000, 90_000),
        {"rendering by all cores": ("render", Setting()), "an epoch of training": ("epoch", Setting(batch=32))},
    ),
    Axis(
        "images in a table of questions",
        "images",
        (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000),
        {"until the first step": ("first_step", Setting(side=50, batch=2))},
    ),
    Axis(
        "queries an image",
        "queries_an_image",
        (1, 2, 4, 8, 16, 32, 64),
        {"a training step": ("step", Setting(vocabulary=64))},
    ),
    Axis(
        "words in the query vocabulary",
        "vocabulary",
        (10, 100, 1_000, 10_000, 100_000),
        {"a training step": ("step", Setting())},
    ),
    Axis(
        "attributes",
        "attributes",
        (5, 50, 500, 2_000, 10_000),
        {name: ("step", Setting(likelihood=name)) for name in ("softmax", "bernoulli")},
    ),
    Axis(
        "pixels on an image's side",
        "side",
        (50, 100, 200, 400, 800, 1_600),
        {"a training step": ("step", Setting(batch=1))},
    ),
)


@dataclass(frozen=True)
class Blank:
    """Black images (N, S, S, 3) that need no memory: what remains is what is kept about them."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype = field(default=np.dtype(np.uint8))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), *self.shape[1:]), np.uint8)


def questions_of(setting: Setting, images: Images) -> QuestionSet:
    """Made-up questions about images: ids in turn, one attribute that holds."""
    n, k = len(images), setting.queries_an_image
    row = np.arange(n * k)
    attribute = row % setting.attributes
    queries, attributes = (tuple(map(str, range(count))) for count in (setting.vocabulary, setting.attributes))
    truth = attribute
    if setting.likelihood == "bernoulli":
        truth = Labels(np.arange(n * k + 1), attribute, np.ones(n * k, np.int8), setting.attributes)
    return QuestionSet("made-up", images, row // k, row % setting.vocabulary, truth, queries, attributes)


def steps(setting: Setting, questions: QuestionSet, folder: Path, device: torch.device, count: int) -> list[float]:
    """Seconds of the first training steps, one after the other; the first one's hold the planning of the epoch."""
    recipe = RECIPES["fast"].with_changes(batch=setting.batch, epochs=1)
    about = {"data": questions.name, "protocol": "paper", "seed": 0, "device": device}
    out = Path(tempfile.mkdtemp(dir=folder))
    run = prepared("pan-hard-ctx", questions, questions.rows(np.arange(2)), recipe, out, **about)
    seconds = []
    with closing(run):
        for _ in range(count):
            started = time.perf_counter()
            next(run)
            seconds.append(time.perf_counter() - started)
    return seconds


def step(setting: Setting, folder: Path, device: torch.device) -> list[float]:
    """Seconds of training steps on images of noise."""
    count = setting.images or setting.batch * (WARM_UP + TIMED + 1)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (count, setting.side, setting.side, 3), np.uint8)
    return steps(setting, questions_of(setting, noise), folder, device, WARM_UP + TIMED)[WARM_UP:]


def first_step(setting: Setting, folder: Path, device: torch.device) -> list[float]:
    """Seconds until the first step of an epoch over a table of questions is done; its images take no memory."""
    blank = Blank((setting.images, setting.side, setting.side, 3))
    return steps(setting, questions_of(setting, blank), folder, device, 1)


def render(setting: Setting, folder: Path, device: torch.device) -> list[float]:
    """Seconds of rendering a training set of MREF into the folder, with as many processes as there are processors."""
    started = time.perf_counter()
    synthetic("mref", "train", queries="all", images=setting.images, cache_dir=folder / "cache")
    return [time.perf_counter() - started]


def epoch(setting: Setting, folder: Path, device: torch.device) -> list[float]:
    """Seconds of an epoch over the set that `render` has left in the folder, by a few steps times their number."""
    questions = synthetic("mref", "train", queries="all", images=setting.images, cache_dir=folder / "cache")
    some = steps(setting, questions, folder, device, WARM_UP + TIMED)[WARM_UP:]
    return [one * math.ceil(setting.images / setting.batch) for one in some]


JOBS = {"step": step, "first_step": first_step, "render": render, "epoch": epoch, "imports": lambda *_: [0.0]}


def growth_records(
    quick: bool, device: torch.device, watch: Callable[[str], None], *, axes: Sequence[Axis] = AXES
) -> Iterator[Record]:
    """Seconds and largest memory [MiB] of every point, then of each series the exponents that they grow with.

    Memory is what comes on top of a process that has imported the same, at least NOISE. Nothing when quick: two points
    a series would tell of no growth, and cost as much time as all other suites.
    """
    if quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        (imports,) = measured("imports", Setting(), Path(folder), device)["memory"]
    for axis in axes:
        found = []
        for at in axis.values:
            with tempfile.TemporaryDirectory() as folder:
                for series, (job, rest) in axis.series.items():
                    watch(f"{axis.title}: {at:,}, {series}")
                    setting = replace(rest, **{axis.field: at})
                    values = measured(job, setting, Path(folder), device)
                    values["memory"] = [max(NOISE, one - imports) for one in values["memory"]]
                    where = {"axis": axis.title, "series": series, "at": at, "setting": asdict(setting)}
                    found += [record(quantity, values[quantity], device, where) for quantity in values]
                    yield from found[-len(values) :]
        yield from exponents(found)


def record(quantity: str, values: list[float], device: torch.device, where: dict[str, Any]) -> Record:
    """One point's "time" [s] or memory [MiB]; ``where`` tells its axis, series, place and setting."""
    what = f"{where['axis']}, {where['at']:,}: {where['series']}, {quantity}"
    dtype = "bfloat16" if has_fast_bf16(device) else "float32"
    return Record(
        *("growth", what, "s" if quantity == "time" else "MiB", *spread(values), len(values)),
        *(dtype, torch.get_num_threads()),
        details={**where, "quantity": quantity},
    )


def exponents(found: Sequence[Record]) -> Iterator[Record]:
    """The exponent p of value = c * at^p of each series and quantity of one axis, its records in ascending order.

    Least squares of the logarithms over the last END points, where what is constant hides least; the spread is that of
    the slopes between two neighbours.
    """
    lines: dict[tuple[str, str], list[Record]] = {}
    for one in found:
        lines.setdefault((one.details["series"], one.details["quantity"]), []).append(one)
    for (series, quantity), line in lines.items():
        end, axis = line[-END:], line[0].details["axis"]
        at = np.log([one.details["at"] for one in end])
        value = np.log(np.array([one.value for one in end], float))
        slopes = (np.diff(value) / np.diff(at)).tolist()
        over = {"from": end[0].details["at"], "to": end[-1].details["at"]}
        yield Record(
            *("growth", f"{axis}: {series}, exponent of its {quantity}", "exponent"),
            *(float(np.polyfit(at, value, 1)[0]), min(slopes), max(slopes), len(end), line[0].dtype, line[0].threads),
            details={"axis": axis, "series": series, "quantity": quantity, **over},
        )


def measured(job: str, setting: Setting, folder: Path, device: torch.device) -> dict[str, list[float]]:
    """Run a job in a fresh process: "time" [s] of each repetition, "memory" [MiB], on a GPU its "GPU memory", too."""
    command = [sys.executable, "-m", __name__, job, json.dumps(asdict(setting)), str(folder), str(device)]
    child = run_child(command, torch.get_num_threads())
    return {"memory": [child.peak / 2**20], **json.loads(child.output.splitlines()[-1])}


def main(job: str, setting: str, folder: str, device: str) -> None:
    """In the fresh process: do a job and print what it took."""
    found = {"time": JOBS[job](Setting(**json.loads(setting)), Path(folder), torch.device(device))}
    if torch.device(device).type == "cuda":
        found["GPU memory"] = [torch.cuda.max_memory_allocated() / 2**20]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
