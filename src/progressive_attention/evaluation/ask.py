"""The one way to ask a network about a data set: pixels to tensors, precision, and the loop over batches.

Legend: B images, K queries per image, R rows (questions), H x W pixels.
"""

import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from progressive_attention.data.images import FileImages
from progressive_attention.data.questions import Batch, Images, QuestionSet, batches
from progressive_attention.network.question_network import Prediction, QuestionNetwork
from progressive_attention.processes import gathered, local_device, own_part, world

T = TypeVar("T")
Progress = Callable[[int, int], None]  # questions done, all questions
Part = tuple[np.ndarray, dict[str, np.ndarray]]  # rows (n,), and their values by name, (n, ...) each
KEEP_FEATURES = 4 * 2**30  # bytes of features of frozen stages that are kept
HALF = torch.finfo(torch.float16).max


def pick_device(name: str | None = None) -> torch.device:
    """The named device, else a GPU where there is one, else the CPU; each of several processes gets its own GPU.

    Raises ValueError for a device that can't compute.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        value = torch.empty(1, device=local_device(name))
        value.item()  # "meta" has none
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # else of mps a page
        raise ValueError(f"device {name!r} can't be used ({reason}); try cpu, cuda or cuda:0") from error
    if value.device.type == "cuda":
        torch.cuda.set_device(value.device)  # which NCCL asks for, and takes none without its number
    return value.device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware; a CPU without AVX512-BF16 or AMX only emulates it, slowly."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # the one that torch asks
            return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


def precision(device: torch.device, bf16: bool) -> AbstractContextManager:
    """bfloat16 autocast where asked for and fast, else plain float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and has_fast_bf16(device))


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks: else every step maps and zeroes tens of megabytes again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give any back


def as_tensor(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 pixels -> (B, 3, H, W) float32 in [0, 1]; in memory the channels stay last."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))  # views and read-only ones, too
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255


class Entrance:
    """What enters a network, batch by batch: pixels, or the features behind its frozen first stages.

    On a GPU all pixels live there, if half its free memory holds them, so that a batch costs no transfer. Features are
    computed once and kept, if KEEP_FEATURES bytes hold those of all images.
    """

    def __init__(self, images: Images, device: torch.device, model: nn.Module | None = None, skip: int = 0):
        self.images, self.device, self.model, self.skip = images, device, model, skip
        self.resident: Tensor | None = None
        self.features: Tensor | None = None
        self.known = np.zeros(len(images), bool)
        on_gpu = isinstance(images, np.ndarray) and device.type == "cuda"
        if on_gpu and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            self.resident = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device)

    def read(self, batch: Batch) -> np.ndarray | None:
        """A batch's pixels (B, H, W, 3) uint8, None where they need not be read; in any thread."""
        if batch.place is not None:
            return self.images.read(batch.image, batch.place)  # type: ignore[attr-defined] (only files are moved)
        return None if self.resident is not None or self.knows(batch) else self.images[batch.image]

    def end_pass(self) -> None:
        """In all processes, when each has read its own: raises ValueError where too many images were unreadable."""
        if isinstance(self.images, FileImages):
            self.images.end_pass()

    def knows(self, batch: Batch) -> bool:
        """Whether the features of all the batch's images are kept."""
        return batch.place is None and self.features is not None and bool(self.known[batch.image].all())

    def __call__(self, batch: Batch, pixels: np.ndarray | None) -> Tensor:
        """What ``read`` gave -> (B, 3, H, W) float32 in [0, 1], or features; channels last in memory."""
        at = torch.from_numpy(batch.image).to(self.device)
        if self.knows(batch):
            return self.features[at].float()  # type: ignore[index]
        entering = as_tensor(self.resident[at] if pixels is None else pixels, self.device)  # type: ignore[index]
        if not self.skip or not isinstance(self.model, QuestionNetwork):
            return entering
        with torch.no_grad():
            features = self.model.trunk(entering, self.skip)
        if batch.place is not None:
            return features
        if self.features is None:
            if math.prod(features.shape[1:]) * 2 * len(self.images) > KEEP_FEATURES:
                return features
            kept = {"dtype": torch.float16, "device": self.device, "memory_format": torch.channels_last}
            self.features = torch.empty(len(self.images), *features.shape[1:], **kept)
        new = torch.from_numpy(~self.known[batch.image]).to(self.device)
        self.features[at[new]] = features[new].float().clamp(-HALF, HALF).half()  # bfloat16 would round the bounds up
        self.known[batch.image] = True
        return self.features[at].float()  # the same values now and in every later epoch


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in another thread while the last is used."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def loaded(entrance: Entrance, plan: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """Batches with their images' pixels (see ``Entrance.read``), read ahead where they come from files.

    Of an image that can't be read nothing is asked.
    """
    unreadable: dict[int, str] = getattr(entrance.images, "unreadable", {})
    pairs = ((batch, entrance.read(batch)) for batch in plan)
    for batch, pixels in pairs if isinstance(entrance.images, np.ndarray) else ahead(pairs):
        yield batch.without(np.isin(batch.image, list(unreadable))) if unreadable else batch, pixels


def asked_once(
    entrance: Entrance, questions: QuestionSet, batch: int, progress: Progress | None = None
) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """All questions, those of one image together, ``batch`` images at a time, in the images' order; as ``loaded``.

    Of several processes each gets its own part of them, in the batches that a single one would get. ``progress`` gets
    the number of questions done and of all, estimated from this process's.
    """
    keep_freed_memory()
    groups, done = questions.groups(together=True), 0
    mine = np.array(own_part(len(groups), batch), np.int64)
    for asked, pixels in loaded(entrance, batches(questions, groups, mine, batch)):
        yield asked, pixels
        done = min(len(questions), done + int((asked.row >= 0).sum()) * world())
        if progress:
            progress(done, len(questions))
    entrance.end_pass()


@torch.inference_mode()
def predictions(
    model: nn.Module,
    questions: QuestionSet,
    device: torch.device,
    *,
    batch: int = 64,
    bf16: bool = False,
    entrance: Entrance | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Batch, Prediction]]:
    """Ask all questions in evaluation mode, as ``asked_once`` gives them.

    ``entrance`` is that of the questions' images, for a caller that asks the same ones again.
    """
    was_training = model.training
    model.eval()
    entrance = entrance or Entrance(questions.images, device)
    try:
        for asked, pixels in asked_once(entrance, questions, batch, progress):
            with precision(device, bf16):
                entering = entrance(asked, pixels)
                query = torch.from_numpy(asked.query)  # a GPU would have to be waited for to check it
                yield asked, model(entering, query, skip=entrance.skip) if entrance.skip else model(entering, query)
    finally:
        model.train(was_training)


def gather(count: int, parts: Iterable[Part]) -> dict[str, np.ndarray]:
    """Values of some rows, batch by batch, as columns (R, ...) float64 of ``count`` rows; NaN in rows without.

    "read" (R,) bool says which rows had some. Of several processes each has parts of its own, and all get the whole.
    """
    columns: dict[str, np.ndarray] = {"read": np.zeros(count, bool)}
    for rows, values in chain.from_iterable(gathered(list(parts))):
        columns["read"][rows] = True
        for name, value in values.items():
            if name not in columns:
                columns[name] = np.full((count, *value.shape[1:]), np.nan)
            columns[name][rows] = value
    return columns
