"""A model over images: pixels to tensors, every row once, and modes left as they were found."""

import ctypes
import sys
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from progressive_attention import processes as distributed
from progressive_attention.data.questions import Batch, QuestionSet
from progressive_attention.evaluation import ask as inference
from progressive_attention.evaluation.ask import (
    Entrance,
    accuracy,
    as_tensor,
    has_fast_bf16,
    keep_freed_memory,
    pick_device,
    precision,
    predictions,
)

CPU = torch.device("cpu")
QUERIES, ATTRIBUTES = 4, 3


def questions(image: list[int], query: list[int], attribute: list[int], images: int) -> QuestionSet:
    """Small random pictures with these rows."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 5, 6, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(images)  # so that a picture can be told from another
    columns = (np.array(column, dtype=np.int64) for column in (image, query, attribute))
    return QuestionSet("small", pixels, *columns, tuple("0123"), tuple("abc"))


class ByQuery(nn.Module):
    """Answers query modulo attributes, noting what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, image: torch.Tensor, query: torch.Tensor) -> SimpleNamespace:
        self.seen.append((image, query, self.training, torch.is_inference_mode_enabled()))
        return SimpleNamespace(logit=nn.functional.one_hot(query.clamp(min=0) % ATTRIBUTES, ATTRIBUTES).float())


# rows of an image are neither together nor in order, image 2 has none
SET = questions([3, 0, 3, 1, 0, 3], [0, 1, 2, 3, 3, 1], [0, 1, 0, 1, 0, 1], 4)


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_as_tensor_divides_by_255_and_keeps_channels_last_in_memory():
    tensor = as_tensor(SET.images, CPU)
    assert tensor.shape == (4, 3, 5, 6)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    for n, y, x, c in np.ndindex(*SET.images.shape):
        assert tensor[n, c, y, x] == np.float32(SET.images[n, y, x, c]) / np.float32(255)
    black, white = as_tensor(np.array([0, 255], np.uint8).repeat(3).reshape(2, 1, 1, 3), CPU).flatten(1)
    assert (black.tolist(), white.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_as_tensor_takes_views_and_read_only_pixels():
    mirrored = SET.images[:, :, ::-1]
    assert_close(as_tensor(mirrored, CPU), as_tensor(SET.images, CPU).flip(-1))
    frozen = SET.images.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(as_tensor(frozen, CPU), as_tensor(SET.images, CPU))


def of_images(numbers):
    nothing = np.full((len(numbers), 1), -1)
    return Batch(np.array(numbers, np.int64), nothing, nothing, nothing)


@pytest.mark.parametrize("numbers", [[0], [3, 1, 3]], ids=str)
def test_pixels_are_those_of_the_numbered_images(numbers):
    pixels, batch = Entrance(SET.images, CPU), of_images(numbers)
    found = pixels(batch, pixels.read(batch))
    assert found.shape == (len(numbers), 3, 5, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_close(found, as_tensor(SET.images[np.array(numbers, dtype=np.int64)], CPU), rtol=0, atol=0)
    assert pixels.images is SET.images  # a CPU needs no copy of its own


@pytest.mark.parametrize("free, resident", [(2, False), (2.01, True)])
def test_pixels_live_on_a_gpu_if_half_its_free_memory_holds_them(monkeypatch, free, resident):
    sizes = (int(free * SET.images.nbytes), 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: sizes)
    monkeypatch.setattr(inference, "as_bytes", lambda images, device: torch.from_numpy(images))
    pixels = Entrance(SET.images, torch.device("cuda"))
    assert (pixels.resident is not None) is resident
    assert (pixels.read(of_images([0])) is None) is resident


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_every_row_is_asked_once_with_its_own_image(batch):
    model, rows = ByQuery(), []
    for asked, prediction in predictions(model, SET, CPU, batch=batch):
        assert len(asked.image) <= batch
        assert prediction.logit.shape == (*asked.row.shape, ATTRIBUTES)
        for b, k in np.argwhere(asked.row >= 0):
            row = asked.row[b, k]
            assert asked.image[b] == SET.image[row]
            assert (asked.query[b, k], asked.attribute[b, k]) == (SET.query[row], SET.attribute[row])
            rows.append(int(row))
        assert (asked.query[asked.row < 0] == -1).all()
        image, query, training, inference_mode = model.seen[-1]
        assert_close(image, as_tensor(SET.images[asked.image], CPU))
        assert_close(query, torch.from_numpy(asked.query))
        assert (training, inference_mode) == (False, True)
        assert not torch.is_inference_mode_enabled()  # the caller's lines run in the caller's mode
    assert rows == [1, 4, 3, 0, 2, 5]  # image by image, each image's rows in order


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_at_the_end_and_when_left_early(training):
    model = ByQuery().train(training)
    list(predictions(model, SET, CPU))
    assert model.training is training
    loop = predictions(model, SET, CPU, batch=1)
    next(loop)
    assert not model.training
    loop.close()
    assert model.training is training


def test_the_mode_is_restored_when_the_model_fails():
    model = ByQuery().train()
    model.forward = lambda image, query: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(predictions(model, SET, CPU))
    assert model.training


def test_accuracy_worked_by_hand():
    # rows answered query % 3 = 0 1 2 0 0 1, right are 0 1 0 1 0 1: rows 0, 1, 4 and 5
    model = ByQuery().train()
    assert accuracy(model, SET, CPU) == pytest.approx(4 / 6, abs=1e-15)
    assert model.training
    assert accuracy(model, SET.rows(np.array([0, 1, 4, 5])), CPU) == 1.0
    assert accuracy(model, SET.rows(np.array([2, 3])), CPU) == 0.0
    assert accuracy(model, SET.rows(np.array([0, 0, 2, 0])), CPU) == 0.75  # a row may be asked more than once


# --- devices ----------------------------------------------------------------------------------------------------------


def test_pick_device():
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", [None, "cuda", "cuda:1"])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, name):
    """As torch with one does: a tensor tells its GPU's number, and ``set_device`` refuses a device without."""
    there = torch.device("cuda", 1 if name == "cuda:1" else 0)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda size, device: Mock(device=there))
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    assert pick_device(name) == there
    assert chosen == [there.index]


def test_without_a_gpu_the_cpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "xla", "meta", "hpu"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=rf"device '{name}' can't be used \(.{{,250}}\); try cpu, cuda or cuda:0$"):
        pick_device(name)


def test_processes_of_one_machine_share_no_gpu(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each process of a machine needs a GPU of its own, but 'cuda:0' is one for"):
        pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # one on each machine
    assert distributed.local_device("cuda:1") == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [distributed.local_device(name) for name in ("cuda", "cpu")] == ["cuda:3", "cpu"]


def test_each_gpu_is_asked_for_its_own_bf16(monkeypatch):
    current: list[torch.device] = []

    @contextmanager
    def on(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1].index == 1)
    assert [has_fast_bf16(torch.device("cuda", i)) for i in range(2)] == [False, True]


def test_fast_bf16_is_yes_or_no(monkeypatch):
    assert isinstance(has_fast_bf16(CPU), bool)
    assert has_fast_bf16(torch.device("meta")) is False
    for answers, expected in [((True, False), True), ((False, True), True), ((False, False), False)]:
        for probe, answer in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), answers, strict=True):
            monkeypatch.setattr(torch.cpu, probe, lambda answer=answer: answer, raising=False)
        assert has_fast_bf16(CPU) is expected
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert has_fast_bf16(CPU) is False


@pytest.mark.parametrize("asked, fast", [(True, True), (True, False), (False, True)])
def test_bf16_only_where_asked_for_and_fast(monkeypatch, asked, fast):
    monkeypatch.setattr(inference, "has_fast_bf16", lambda device: fast)
    with precision(CPU, asked):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if asked and fast else torch.float32)


def test_keeping_freed_memory_is_harmless_anywhere(monkeypatch):
    keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: 1 / 0)
    monkeypatch.setattr(sys, "platform", "win32")
    keep_freed_memory()
