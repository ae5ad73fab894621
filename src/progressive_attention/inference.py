"""A model over images on a device: pixels to tensors, precision, and the loop over batches.

Legend: B images, K queries per image, H x W pixels.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from progressive_attention.data.questions import Batch, QuestionSet, batches
from progressive_attention.prediction import Prediction


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or a GPU where there is one, else the CPU; raises ValueError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} can't be used ({reason}); try cpu, cuda or cuda:0") from error
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware; a CPU without AVX512-BF16 or AMX only emulates it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)


def precision(device: torch.device, bf16: bool) -> AbstractContextManager:
    """bfloat16 autocast where asked for and fast, else plain float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and has_fast_bf16(device))


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of unmapping each.

    Otherwise every step maps and zeroes its tens of megabytes anew; measured on two cores (benchmarks/NOTES.md), a
    ReLU over 54 MB took 76 ms instead of 4. Elsewhere than on glibc this does nothing.
    """
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):
            return
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def as_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 pixels -> (B, 3, H, W) float32 in [0, 1]; in memory the channels stay last."""
    return as_floats(as_bytes(images, device))


def as_bytes(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 pixels as they are, views and read-only ones too, on the device."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device, non_blocking=True)


def as_floats(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 255


class Pixels:
    """A set's images as a network takes them, by number: on a GPU all of them live there, if half its free memory
    holds them, so that a batch costs no transfer."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        fits = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self.images = as_bytes(images, device) if fits else images
        self.device = device

    def __call__(self, image: np.ndarray) -> Tensor:
        """Numbers (B,) -> (B, 3, H, W) float32 in [0, 1], channels last in memory."""
        if isinstance(self.images, np.ndarray):
            return as_tensor(self.images[image], self.device)
        return as_floats(self.images[torch.from_numpy(image).to(self.device)])


@torch.inference_mode()
def predictions(
    model: nn.Module,
    questions: QuestionSet,
    device: torch.device,
    *,
    batch: int = 64,
    bf16: bool = False,
) -> Iterator[tuple[Batch, Prediction]]:
    """Ask all questions, those of one image together, in evaluation mode; the order of rows is the image order."""
    was_training = model.training
    model.eval()
    try:
        groups, pixels = questions.groups(together=True), Pixels(questions.images, device)
        for asked in batches(questions, groups, np.arange(len(groups)), batch):
            with precision(device, bf16):
                yield asked, model(pixels(asked.image), torch.from_numpy(asked.query).to(device))
    finally:
        model.train(was_training)


def accuracy(model: nn.Module, questions: QuestionSet, device: torch.device, *, bf16: bool = False) -> float:
    """Share of questions answered rightly, in [0, 1]."""
    right = 0
    for asked, prediction in predictions(model, questions, device, bf16=bf16):
        answer = prediction.logit.argmax(-1).cpu().numpy()
        right += int((answer == asked.attribute)[asked.row >= 0].sum())
    return right / len(questions)
