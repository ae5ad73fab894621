"""The suites "step" and "inference": ours beside the plain reading, the attention-free CNN and the machine's limit.

Legend: N images, K questions about each.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import AttentionFreeCNN, PlainReading
from benchmarks.timing import Record, Watch, compared, elsewhere, interleaved, recorded, trained_in
from progressive_attention.config import RECIPES, ModelConfig
from progressive_attention.data.questions import Images, Labels, QuestionSet
from progressive_attention.evaluation.ask import keep_freed_memory
from progressive_attention.network.build import from_config, model_config
from progressive_attention.training.optimizers import make_optimizer, parameter_groups
from progressive_attention.training.setup import prepared

NAME, QUERIES, ATTRIBUTES = "pan-hard-ctx", 10, 5  # as on MREF
PLAIN = "plain reading of the paper, float32"
ALONE = f"{PLAIN}, in a process with the system's own memory settings"
FREE, LIMIT = "attention-free CNN", "limit of the machine's arithmetic"
Job = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What is measured side by side: N images of ``side`` pixels, with each number of questions in ``queries``."""

    side: int
    images: int
    queries: tuple[int, ...]
    training: bool  # or forward alone
    backbone: str = "conv-stack"
    rounds: int = 7
    alone: bool = False  # measure the plain reading in a process of its own, too

    @property
    def config(self) -> ModelConfig:
        """The network's."""
        return model_config(NAME, QUERIES, ATTRIBUTES, backbone=self.backbone, image_size=self.side)

    def title(self, network: str, queries: int = 0) -> str:
        """What a record measures."""
        work = "training step" if self.training else "inference"
        on = "" if self.backbone == "conv-stack" else f" on {self.backbone}"
        asked = f", K = {queries}" if queries else ""
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return f"{work}, {network}{on}{asked}, {images} of {self.side} px"


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


def step_records(quick: bool, training: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """What the machine can do, then milliseconds by answered question over the grid; the whole wants 20 GB."""
    keep_freed_memory()
    suite, dtype = "step" if training else "inference", trained_in(device)
    watch(f"what the machine can do in {dtype}")
    products, copies = machine_rates(device, getattr(torch, dtype))
    yield recorded(suite, "large matrix product", "GFLOP/s", [rate / 1e9 for rate in products], dtype)
    yield recorded(suite, "large copy, read and written", "GB/s", [rate / 1e9 for rate in copies], dtype)
    for setting in settings(quick, training, device):
        watch(setting.title(NAME))
        yield from side_by_side(setting, suite, max(products), device)


def machine_rates(device: torch.device, dtype: torch.dtype, rounds: int = 7) -> tuple[list[float], list[float]]:
    """Operations a second of a large matrix product and bytes a second, read and written, of a large copy, by round."""
    side, length = (2048, 2**28) if device.type == "cpu" else (8192, 2**31)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(length // dtype.itemsize, device=device, dtype=dtype)
    target = torch.empty_like(source)
    jobs = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
    seconds = interleaved({name: finished(job, device) for name, job in jobs.items()}, rounds)
    return [2 * side**3 / each for each in seconds["product"]], [2 * source.nbytes / each for each in seconds["copy"]]


def side_by_side(setting: Setting, suite: str, rate: float, device: torch.device) -> Iterator[Record]:
    """One setting's records: all jobs in turn, then ours for every K beside each that it is compared with.

    The plain reading answers one question about every image, so K of its steps stand beside one of ours. The limit is
    what all convolutions and matrix products take at ``rate`` operations a second.
    """
    with ExitStack() as opened:
        jobs: dict[Any, Job] = {FREE: free_job(setting, device), PLAIN: plain_job(setting, device)}
        if setting.alone:
            jobs[ALONE] = opened.enter_context(elsewhere(plain_job, setting, device))
        for k in setting.queries:
            jobs[k] = opened.enter_context(closing(our_steps(setting, k, device))).__next__
        seconds = interleaved(jobs, setting.rounds, warmup=1)
    dtype, free = trained_in(device), operations(setting, 0)
    limit = [free / rate] * setting.rounds
    title = setting.title(FREE)
    yield compared(suite, title, "ms an image", seconds[FREE], limit, LIMIT, scale=1e3 / setting.images, dtype=dtype)
    for k in setting.queries:
        ours, needed, questions = seconds[k], operations(setting, k), setting.images * k
        record = partial(
            compared,
            suite,
            setting.title(NAME, k),
            "ms a question",
            ours,
            scale=1e3 / questions,
            dtype=dtype,
            questions_a_second=questions / statistics.median(ours),
        )
        for plain in (PLAIN, ALONE):
            if plain in seconds:
                yield record([k * each for each in seconds[plain]], plain)
        yield record(
            seconds[FREE],
            f"{FREE}, {'one image a question' if k == 1 else 'images only'}",
            times_as_long=statistics.median(mine / other for mine, other in zip(ours, seconds[FREE], strict=True)),
            times_the_operations=needed / free,
        )
        yield record([needed / rate] * setting.rounds, LIMIT, operations=needed)


# --- what is timed ----------------------------------------------------------------------------------------------------


def our_steps(setting: Setting, queries: int, device: torch.device) -> Iterator[Any]:
    """The package as it trains, K questions about every image in one step; or its network's forward alone."""
    steps = setting.rounds + 3
    if setting.training:
        pixels = noise(setting.images * steps, setting.side)
        yield from training_steps(made_up(pixels, queries), setting.images, device, setting.backbone)
        return
    torch.manual_seed(0)
    image, query, _ = batch(setting, queries, device)
    model = from_config(setting.config).to(device).to(memory_format=torch.channels_last).eval()
    forward = finished(lambda: model(image, query), device)
    while True:
        with torch.inference_mode(), autocast(device):
            yield forward()


def training_steps(
    questions: QuestionSet, size: int, device: torch.device, backbone: str = "conv-stack"
) -> Iterator[Any]:
    """The training of PAN[H]+CTX on questions, step by step, one epoch of it, in a folder that vanishes."""
    recipe = RECIPES["fast" if backbone == "conv-stack" else "photographs"].with_changes(batch=size, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        yield from prepared(
            NAME,
            questions,
            questions.rows(np.arange(2)),
            recipe,
            Path(folder) / "run",
            data=questions.name,
            protocol="paper",
            seed=0,
            device=device,
            changes={"backbone": backbone},
        )


def plain_job(setting: Setting, device: torch.device) -> Job:
    """The plain reading, one question about every image: float32, torch's default layout, RMSprop as in the paper."""
    torch.manual_seed(0)
    image, query, attribute = batch(setting, 1, device)
    image, model = image.contiguous(), PlainReading(setting.config).to(device)
    optimizer = torch.optim.RMSprop(model.parameters())
    return network_job(setting, model, lambda: model(image, query[:, 0]), attribute, optimizer)


def free_job(setting: Setting, device: torch.device) -> Job:
    """The attention-free CNN with all that makes ours fast: layout, precision, optimiser."""
    torch.manual_seed(0)
    image, _, attribute = batch(setting, 1, device)
    model = AttentionFreeCNN(setting.config).to(device).to(memory_format=torch.channels_last)
    recipe = RECIPES["fast" if setting.backbone == "conv-stack" else "photographs"]
    optimizer = make_optimizer(recipe, parameter_groups(recipe, model))

    def answer() -> Tensor:
        with autocast(device):
            return model(image)

    return network_job(setting, model, answer, attribute, optimizer)


def network_job(
    setting: Setting, model: nn.Module, answer: Job, attribute: Tensor, optimizer: torch.optim.Optimizer
) -> Job:
    """One training step, or forward alone, finished at the end."""
    model.train(setting.training)

    def learn() -> None:
        optimizer.zero_grad()
        nll_loss(answer(), attribute[:, 0]).backward()  # type: ignore[arg-type]
        optimizer.step()

    return finished(learn if setting.training else torch.inference_mode()(answer), attribute.device)


def finished(job: Job, device: torch.device) -> Job:
    """The job, which waits for a GPU to be done."""

    def wait() -> None:
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where that is fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=trained_in(device) == "bfloat16")


def operations(setting: Setting, queries: int) -> float:
    """Multiplications and additions of all convolutions and matrix products, forward, in training also backward.

    Of K questions about each image by ours; of no questions by the attention-free CNN.
    """
    cpu = torch.device("cpu")
    image, query, attribute = batch(setting, max(queries, 1), cpu)
    model: nn.Module = from_config(setting.config) if queries else AttentionFreeCNN(setting.config)
    model.train(setting.training)
    with FlopCounterMode(display=False) as counter:
        logit = model(image, query).logit if queries else model(image)
        if setting.training:
            nll_loss(logit.flatten(0, -2), attribute.flatten()).backward()
    return counter.get_total_flops()


# --- made-up data: no time depends on what they show ------------------------------------------------------------------


def noise(count: int, side: int) -> np.ndarray:
    """(count, side, side, 3) uint8."""
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (count, side, side, 3), np.uint8)


def batch(setting: Setting, queries: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, side, side) in [0, 1], channels last; query ids (N, K), attribute ids (N, K)."""
    pixels = torch.from_numpy(noise(setting.images, setting.side)).to(device)
    query = torch.arange(setting.images * queries).view(setting.images, queries) % QUERIES
    return pixels.permute(0, 3, 1, 2) / 255, query.to(device), query.to(device) % ATTRIBUTES


def made_up(
    images: Images, queries: int, vocabulary: int = QUERIES, attributes: int = ATTRIBUTES, likelihood: str = "softmax"
) -> QuestionSet:
    """K questions about each image: ids in turn, one attribute that is true."""
    row = np.arange(len(images) * queries)
    attribute = row % attributes
    truth: Any = attribute
    if likelihood == "bernoulli":
        truth = Labels(np.arange(len(row) + 1), attribute, np.ones(len(row), np.int8), attributes)
    words = tuple(map(str, range(vocabulary))), tuple(map(str, range(attributes)))
    return QuestionSet("made-up", images, row // queries, row % vocabulary, truth, *words)
