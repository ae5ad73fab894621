"""The suite "step": training steps beside the plain reading, the attention-free CNN and the machine's limits.

The suite "inference" measures forward alone in the same way. Legend: N images, K questions about each.
"""

import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from progressive_attention.bench.jobs import NAME, Job, Setting, free_job, our_job, plain_job
from progressive_attention.bench.limits import Limits, floors, measured_limits, operations, parts_of
from progressive_attention.bench.measure import Record, compared, elsewhere, interleaved, skipped, spread
from progressive_attention.bench.plain import PlainReading
from progressive_attention.evaluation.ask import has_fast_bf16, keep_freed_memory

PLAIN = "plain reading of the paper, float32"
ALONE = f"{PLAIN}, in a process with the system's own memory settings"
FREE, QUESTION = "attention-free CNN", "ms a question"
LIMIT = "limit of the machine, layer by layer"
Watch = Callable[[str], None]


def step_records(quick: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """Milliseconds of a training step by answered question, over the whole grid; ``quick``: K = 1 and 7 alone."""
    yield from grid_records(settings(quick, True, device), precisions(device)[:1], device, watch)


def settings(quick: bool, training: bool, device: torch.device) -> list[Setting]:
    """The grid: questions an image, image sides, images a step, VGG-16. A GPU takes 16 times the images."""
    few, many, alone = (1, 7), 1 if device.type == "cpu" else 16, device.type == "cpu"
    if quick:
        return [Setting(100, 32 * many, few, training, rounds=5, alone=alone and training)]
    return [
        Setting(100, 32 * many, tuple(range(1, 10)), training, alone=alone),
        *(Setting(side, images * many, few, training) for side, images in ((200, 8), (400, 2), (800, 1))),
        *(Setting(100, images, few, training) for images in (1, 2, 8, 128, 512)),
        *(Setting(side, images * many, few, training, "vgg16", 3) for side, images in ((224, 2), (448, 1))),
    ]


def precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """What ours can be measured in, first what training takes: bfloat16 where that is fast. Evaluation takes either."""
    return (torch.bfloat16, torch.float32) if has_fast_bf16(device) else (torch.float32,)


def grid_records(
    grid: list[Setting], dtypes: tuple[torch.dtype, ...], device: torch.device, watch: Watch
) -> Iterator[Record]:
    """The machine's limits, then every setting."""
    keep_freed_memory()
    limits = {}
    for dtype in dtypes:
        watch(f"what the machine can do in {name_of(dtype)}")
        products, copies, limits[dtype] = measured_limits(device, dtype, 7)
        for what, unit, rates in (
            ("large matrix product", "GFLOP/s", products),
            ("large copy, read and written", "GB/s", copies),
        ):
            values = [each / 1e9 for each in rates]
            yield Record(
                suite_of(grid[0]), what, unit, *spread(values), len(values), name_of(dtype), torch.get_num_threads()
            )
    for setting in grid:
        watch(title(setting, NAME))
        yield from side_by_side(setting, limits, device)


def side_by_side(setting: Setting, limits: Mapping[torch.dtype, Limits], device: torch.device) -> Iterator[Record]:
    """One setting's records: all jobs in turn, then ours for every K beside each that it is compared with.

    The plain reading answers one question about every image, so K of its steps stand beside one of ours.
    """
    network, most = PlainReading(setting.config), memory(device)
    cases = [(dtype, k) for dtype in limits for k in setting.queries]
    with ExitStack() as processes:
        jobs: dict[Any, Job] = {(dtype, 0): free_job(setting, dtype, device) for dtype in limits}
        for dtype, k in cases:
            if network_bytes(setting, network, k, dtype) < most:
                jobs[dtype, k] = our_job(setting, k, dtype, device)
        if plain_bytes(setting, network) < most:
            jobs[PLAIN] = plain_job(setting, device)
            if setting.alone:
                jobs[ALONE] = processes.enter_context(elsewhere(plain_job, setting, device))
        seconds = interleaved(jobs, setting.rounds, warmup=1)
    for dtype, limit in limits.items():
        yield free_record(setting, network, dtype, limit, seconds[dtype, 0])
    for dtype, k in cases:
        if (dtype, k) in seconds:
            yield from our_records(setting, network, k, dtype, limits[dtype], seconds)
        else:
            need = network_bytes(setting, network, k, dtype)
            why = f"it takes about {need / 1e9:.0f} GB, and {most / 1e9:.0f} GB may be taken"
            what = title(setting, NAME, k)
            threads = torch.get_num_threads()
            yield skipped(suite_of(setting), what, QUESTION, why, dtype=name_of(dtype), threads=threads)


def our_records(
    setting: Setting,
    network: PlainReading,
    k: int,
    dtype: torch.dtype,
    limits: Limits,
    seconds: Mapping[Any, list[float]],
) -> Iterator[Record]:
    """Ours beside the plain reading, the attention-free CNN and the machine's limit; ``seconds`` a step by job."""
    ours, free, questions = seconds[dtype, k], seconds[dtype, 0], setting.images * k
    record = partial(
        *(compared, suite_of(setting), title(setting, NAME, k), QUESTION, ours),
        scale=1e3 / questions,
        dtype=name_of(dtype),
        threads=torch.get_num_threads(),
        questions_a_second=questions / statistics.median(ours),
    )
    for plain in (PLAIN, ALONE):
        if plain in seconds:
            yield record([k * each for each in seconds[plain]], plain)
    if PLAIN not in seconds:
        yield record(None, None, skipped=f"{PLAIN}: too large for this machine's memory")
    parts, trunk = (
        parts_of(network, setting.side, setting.images, m, dtype.itemsize, setting.training) for m in (questions, 0)
    )
    floor, told = floors(parts, limits, setting.training)
    yield record(
        *(free, f"{FREE}, {'one image a question' if k == 1 else 'images only'}"),
        times_as_long=statistics.median(one / other for one, other in zip(ours, free, strict=True)),
        times_the_operations=operations(parts, setting.training) / operations(trunk, setting.training),
        times_the_floor=floor / floors(trunk, limits, setting.training)[0],
    )
    yield record([floor] * len(ours), LIMIT, parts=told)


def free_record(
    setting: Setting, network: PlainReading, dtype: torch.dtype, limits: Limits, seconds: list[float]
) -> Record:
    """The attention-free CNN beside the machine's limit."""
    parts = parts_of(network, setting.side, setting.images, 0, dtype.itemsize, setting.training)
    floor, told = floors(parts, limits, setting.training)
    return compared(
        *(suite_of(setting), title(setting, FREE), "ms an image", seconds, [floor] * len(seconds), LIMIT),
        scale=1e3 / setting.images,
        dtype=name_of(dtype),
        threads=torch.get_num_threads(),
        parts=told,
    )


# --- names and memory -------------------------------------------------------------------------------------------------


def suite_of(setting: Setting) -> str:
    """The suite that a setting belongs to."""
    return "step" if setting.training else "inference"


def name_of(dtype: torch.dtype) -> str:
    """float32 of torch.float32."""
    return str(dtype).removeprefix("torch.")


def title(setting: Setting, network: str, queries: int = 0) -> str:
    """What a record measures, in words."""
    work = "training step" if setting.training else "inference"
    asked = f", K = {queries}" * bool(queries)
    on = f" on {setting.backbone}" * (setting.backbone != "conv-stack")
    images = f"{setting.images} image{'s' * (setting.images > 1)}"
    return f"{work}, {network}{on}{asked}, {images} of {setting.side} px"


def memory(device: torch.device) -> float:
    """Bytes that a measurement may take: four fifths of what a GPU has free, or of the machine's memory."""
    if device.type == "cuda":
        return 0.8 * torch.cuda.mem_get_info(device)[0]
    return 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def network_bytes(setting: Setting, network: PlainReading, queries: int, dtype: torch.dtype) -> float:
    """What a step takes, roughly: all that its layers read and write, forward."""
    questions = setting.images * queries
    return sum(part.bytes for part in parts_of(network, setting.side, setting.images, questions, dtype.itemsize, True))


def plain_bytes(setting: Setting, network: PlainReading) -> float:
    """The same of the plain reading, whose neighbourhoods exist three times: stacked, with the query, as gradients."""
    values = 0
    for part in parts_of(network, setting.side, setting.images, setting.images, 4, True):
        values += part.operations / (2 * setting.config.hidden) * part.name.endswith("context")
    return network_bytes(setting, network, 1, torch.float32) + 3 * 4 * values
