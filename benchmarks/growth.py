"""How time and memory grow with images, queries, attributes and pixels: one axis at a time over a factor of 30 or more.

Every point is measured in a process of its own, whose largest memory is its own. What is trained is PAN[H]+CTX by the
recipe `fast` on made-up questions about noise: neither time nor memory depends on what a picture shows.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.steps import made_up, noise, training_steps
from benchmarks.timing import Record, Watch, peak_memory, recorded, run_python, three_digits, trained_in
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scene_cache import synthetic

WARM_UP, TIMED = 2, 5  # training steps
END = 3  # points of an axis that its exponent is taken from
NOISE = 32.0  # MiB; the memory of equal processes differs by up to this
COLUMNS = 3  # of the figure


@dataclass(frozen=True)
class Point:
    """What a point trains on, and by how many images a step."""

    images: int = 0  # 0: as many as its steps need
    side: int = 100
    queries_an_image: int = 7
    vocabulary: int = 10
    attributes: int = 5
    likelihood: str = "softmax"
    batch: int = 16


class Axis(NamedTuple):
    """One field of Point with its values in ascending order, and what is measured along it: series -> (job, rest)."""

    title: str
    field: str
    values: tuple[int, ...]
    series: dict[str, tuple[str, Point]]


RENDERED = {"rendering by all cores": ("render", Point()), "an epoch of training": ("epoch", Point(batch=32))}
TABLE = {"until the first step": ("first_step", Point(side=50, batch=2))}
STEP = "a training step"
LIKELIHOODS = {name: ("step", Point(likelihood=name)) for name in ("softmax", "bernoulli")}
AXES = (
    Axis("images in a rendered set", "images", (300, 1_000, 3_000, 10_000, 30_000, 90_000), RENDERED),
    Axis("images in a table of questions", "images", (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000), TABLE),
    Axis("queries an image", "queries_an_image", (1, 2, 4, 8, 16, 32, 64), {STEP: ("step", Point(vocabulary=64))}),
    Axis("words in the query vocabulary", "vocabulary", (10, 100, 1_000, 10_000, 100_000), {STEP: ("step", Point())}),
    Axis("attributes", "attributes", (5, 50, 500, 2_000, 10_000), LIKELIHOODS),
    Axis("pixels on an image's side", "side", (50, 100, 200, 400, 800, 1_600), {STEP: ("step", Point(batch=1))}),
)


# --- in the fresh process: jobs that return seconds -------------------------------------------------------------------


def timed(point: Point, questions: QuestionSet, device: torch.device, count: int) -> list[float]:
    """Seconds of the first training steps, one after the other; the first one's include the planning of the epoch."""
    seconds = []
    with closing(training_steps(questions, point.batch, device)) as steps:
        for _ in range(count):
            started = time.perf_counter()
            next(steps)
            seconds.append(time.perf_counter() - started)
    return seconds


def asked(point: Point, images: Any) -> QuestionSet:
    """A point's questions about images."""
    return made_up(images, point.queries_an_image, point.vocabulary, point.attributes, point.likelihood)


def step(point: Point, folder: Path, device: torch.device) -> list[float]:
    """Training steps on images of noise."""
    images = noise(point.images or point.batch * (WARM_UP + TIMED + 1), point.side)
    return timed(point, asked(point, images), device, WARM_UP + TIMED)[WARM_UP:]


def first_step(point: Point, folder: Path, device: torch.device) -> list[float]:
    """Until the first step of an epoch over a table of questions is done; its images take no memory."""
    blank = np.broadcast_to(np.uint8(0), (point.images, point.side, point.side, 3))
    return timed(point, asked(point, blank), device, 1)


def render(point: Point, folder: Path, device: torch.device) -> list[float]:
    """Rendering a training set of MREF into the folder, with as many processes as there are processors."""
    started = time.perf_counter()
    synthetic("mref", "train", queries="all", images=point.images, cache_dir=folder)
    return [time.perf_counter() - started]


def epoch(point: Point, folder: Path, device: torch.device) -> list[float]:
    """An epoch over the set that ``render`` has left in the folder, by a few steps times their number."""
    questions = synthetic("mref", "train", queries="all", images=point.images, cache_dir=folder)
    some = timed(point, questions, device, WARM_UP + TIMED)[WARM_UP:]
    return [seconds * math.ceil(point.images / point.batch) for seconds in some]


JOBS: dict[str, Callable[[Point, Path, torch.device], list[float]]] = {
    "step": step,
    "first_step": first_step,
    "render": render,
    "epoch": epoch,
    "imports": lambda *_: [0.0],
}


def report(job: str, point: str, folder: str, device: str) -> None:
    """Do a job and print what it took: "time" [s] of each repetition, "memory" and, on a GPU, "GPU memory" [MiB]."""
    values = {"time": JOBS[job](Point(**json.loads(point)), Path(folder), torch.device(device))}
    values["memory"] = [peak_memory()]
    if torch.device(device).type == "cuda":
        values["GPU memory"] = [torch.cuda.max_memory_allocated() / 2**20]
    print(json.dumps(values))


# --- the suite --------------------------------------------------------------------------------------------------------


def measured(job: str, point: Point, folder: str, device: torch.device) -> dict[str, list[float]]:
    """What ``report`` prints in a fresh process."""
    code = "import sys; from benchmarks.growth import report; report(*sys.argv[1:])"
    lines, _ = run_python(code, job, json.dumps(asdict(point)), folder, str(device))
    return json.loads(lines[-1])


def growth_records(device: torch.device, watch: Watch, axes: Sequence[Axis] = AXES) -> Iterator[Record]:
    """Seconds and largest memory [MiB] of every point, then of each series the exponents that they grow with.

    Memory is what comes on top of a process that has imported the same, at least NOISE.
    """
    (imports,) = measured("imports", Point(), "", device)["memory"]
    for axis in axes:
        records = []
        for at in axis.values:
            with tempfile.TemporaryDirectory() as folder:
                for series, (job, rest) in axis.series.items():
                    watch(f"{axis.title}: {at:,}, {series}")
                    point = replace(rest, **{axis.field: at})
                    values = measured(job, point, folder, device)
                    values["memory"] = [max(NOISE, memory - imports) for memory in values["memory"]]
                    for quantity, numbers in values.items():
                        records.append(
                            recorded(
                                "growth",
                                f"{axis.title}, {at:,}: {series}, {quantity}",
                                "s" if quantity == "time" else "MiB",
                                numbers,
                                trained_in(device),
                                axis=axis.title,
                                series=series,
                                quantity=quantity,
                                at=at,
                                setting=asdict(point),
                            )
                        )
                        yield records[-1]
        yield from exponents(records)


Line = list[tuple[float, float, float, float]]  # (at, median, smallest, largest), ascending


def lines_of(records: Sequence[Record]) -> dict[tuple[str, str, str], Line]:
    """The measured points by axis, series and quantity."""
    lines: dict[tuple[str, str, str], Line] = {}
    for record in records:
        if record.suite == "growth" and record.unit != "exponent":
            key = record.details["axis"], record.details["series"], record.details["quantity"]
            lines.setdefault(key, []).append((record.details["at"], record.value, record.low, record.high))
    return lines


def exponent(line: Line) -> tuple[float, list[float]]:
    """p of value = c * at^p, by least squares of the logarithms over the last END points, where what is constant hides
    least; and the slopes between two neighbours.
    """
    at, value = np.log([point[:2] for point in line[-END:]]).T
    return float(np.polyfit(at, value, 1)[0]), (np.diff(value) / np.diff(at)).tolist()


def exponents(records: Sequence[Record]) -> Iterator[Record]:
    """The exponent of each series and quantity; its spread is that of the slopes."""
    for (axis, series, quantity), line in lines_of(records).items():
        power, slopes = exponent(line)
        what = f"{axis}: {series}, exponent of its {quantity}"
        spread_of = recorded("growth", what, "exponent", slopes, records[0].dtype, axis=axis, series=series)
        details = {**spread_of.details, "quantity": quantity, "from": line[-END:][0][0], "to": line[-1][0]}
        yield replace(spread_of, value=power, repeats=min(END, len(line)), details=details)


def growth_table(records: Sequence[Record]) -> str:
    """The table of benchmarks/growth.md: of each series its ends, the time and memory there, and the exponents."""
    rows = ["| axis | measured | from | to | time | exponent | memory | exponent |"]
    rows.append("| --- | --- | --: | --: | --: | --: | --: | --: |")
    lines = lines_of(records)
    for (axis, series, quantity), line in lines.items():
        if quantity == "time":
            cells = [axis, series, f"{line[0][0]:,.0f}", f"{line[-1][0]:,.0f}"]
            for of, unit in ((line, "s"), (lines[axis, series, "memory"], "MiB")):
                cells += [f"{three_digits(of[0][1])} to {three_digits(of[-1][1])} {unit}", f"{exponent(of)[0]:.2f}"]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def draw_growth(records: Sequence[Record], hardware: str, path: Path) -> None:
    """Time and memory along each axis as PNG, both logarithmic; dotted: in proportion to the axis."""
    lines = lines_of(records)
    axes = list(dict.fromkeys(axis for axis, _, _ in lines))
    columns, bands = min(COLUMNS, len(axes)), math.ceil(len(axes) / COLUMNS)
    figure = Figure(figsize=(3.7 * columns, 5.4 * bands + 0.6), dpi=110, layout="constrained")
    figure.suptitle(
        f"PAN[H]+CTX in training: each axis by itself, each point a process of its own\n{hardware}", size=10
    )
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for i, axis in enumerate(axes):
        for k, (quantity, title) in enumerate((("time", "time [s]"), ("memory", "memory beyond the imports [MiB]"))):
            panel = panels[i // COLUMNS * 2 + k, i % COLUMNS]
            panel.set_visible(True)
            draw_panel(panel, {key[1]: line for key, line in lines.items() if (key[0], key[2]) == (axis, quantity)})
            panel.set_xlabel(axis, size=9)
            panel.set_title(title, size=9, loc="left")
    figure.savefig(path)


def draw_panel(panel: Any, lines: Mapping[str, Line]) -> None:
    """One quantity along one axis: medians, from smallest to largest, and a dotted line through the last as if ∝ n."""
    for marker, (series, line) in zip("os^D", lines.items(), strict=False):
        at, value, low, high = np.array(line).T
        name = f"{series}, ends ∝ n^{exponent(line)[0]:.2f}" if len(line) > 1 else series
        panel.errorbar(at, value, [value - low, high - value], label=name, marker=marker, markersize=5, capsize=2)
    ends = [line[-1][1] for line in lines.values()]
    panel.plot(at, max(ends) * at / at[-1], ":", color="#888888", label="as if ∝ n")
    panel.set(xscale="log", yscale="log")
    # Whole decades, and room for the legend above: else what hardly grows would look steep.
    bounds = [bound for line in lines.values() for point in line for bound in point[2:]]
    panel.set_ylim(10 ** math.floor(math.log10(min(bounds))), 10 ** (math.ceil(math.log10(1.01 * max(bounds))) + 1))
    panel.legend(fontsize=7.5, frameon=False, loc="upper left")
