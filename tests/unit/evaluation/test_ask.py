"""Asking a network about a data set: every row once, with its own image; frozen stages computed once; devices."""

import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn
from torch.testing import assert_close

from progressive_attention import processes
from progressive_attention.data.images import Fit
from progressive_attention.data.questions import Batch, Labels, QuestionSet, batches
from progressive_attention.evaluation import ask
from progressive_attention.evaluation.ask import (
    Entrance,
    ahead,
    as_tensor,
    gather,
    loaded,
    pick_device,
    precision,
    predictions,
)
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import QuestionNetwork

CPU = torch.device("cpu")
ATTRIBUTES = 3


def questions(image: list[int], query: list[int], attribute: list[int], images: int) -> QuestionSet:
    """Small random pictures with these rows."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 5, 6, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(images)  # so that a picture can be told from another
    columns = (np.array(column, dtype=np.int64) for column in (image, query, attribute))
    return QuestionSet("small", pixels, *columns, tuple("0123"), tuple("abc"))


# Rows of an image are neither together nor in order; image 2 has none.
SET = questions([3, 0, 3, 1, 0, 3], [0, 1, 2, 3, 3, 1], [0, 1, 0, 1, 0, 1], 4)


class ByQuery(nn.Module):
    """Answers query modulo attributes, noting what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, image: torch.Tensor, query: torch.Tensor) -> SimpleNamespace:
        self.seen.append((image, query, self.training, torch.is_inference_mode_enabled()))
        return SimpleNamespace(logit=nn.functional.one_hot(query.clamp(min=0) % ATTRIBUTES, ATTRIBUTES).float())


class FromFiles:
    """The images of SET as if from files, of which some can't be read; notes who reads what."""

    def __init__(self, broken=()):
        self.shape, self.dtype, self.nbytes = SET.images.shape, SET.images.dtype, SET.images.nbytes
        self.broken, self.unreadable, self.asked, self.threads = set(broken), {}, [], set()

    def __len__(self):
        return len(SET.images)

    def __getitem__(self, images):
        self.asked.append(images.tolist())
        self.threads.add(threading.current_thread())
        self.unreadable |= {i: "broken" for i in images.tolist() if i in self.broken}
        return np.where(np.isin(images, list(self.broken))[:, None, None, None], 0, SET.images[images]).astype(np.uint8)

    def read(self, images, places):
        return self[images] // 2 + np.array([place.x for place in places], np.uint8)[:, None, None, None]


def test_as_tensor_divides_by_255_and_keeps_channels_last_in_memory():
    tensor = as_tensor(SET.images, CPU)
    assert tensor.shape == (4, 3, 5, 6)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    for n, y, x, c in np.ndindex(*SET.images.shape):
        assert tensor[n, c, y, x] == np.float32(SET.images[n, y, x, c]) / np.float32(255)
    assert_close(as_tensor(SET.images[:, :, ::-1], CPU), tensor.flip(-1))
    frozen = SET.images.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(as_tensor(frozen, CPU), tensor)


def of_images(numbers):
    nothing = np.full((len(numbers), 1), -1)
    return Batch(np.array(numbers, np.int64), nothing, nothing, nothing)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_row_is_asked_once_with_its_own_image(batch):
    model, rows, done = ByQuery(), [], []
    for asked, prediction in predictions(model, SET, CPU, batch=batch, progress=lambda *of: done.append(of)):
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
    assert done == ([(2, 6), (3, 6), (6, 6)] if batch == 1 else [(6, 6)])


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(training):
    model = ByQuery().train(training)
    list(predictions(model, SET, CPU))
    assert model.training is training
    loop = predictions(model, SET, CPU, batch=1)
    next(loop)
    assert not model.training
    loop.close()
    assert model.training is training
    model.forward = lambda image, query: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(predictions(model, SET, CPU))
    assert model.training is training


@pytest.mark.parametrize("theirs", [[], [(np.array([2]), {"a": np.array([8])})]])
def test_rows_are_gathered_in_their_places(monkeypatch, theirs):
    monkeypatch.setattr(ask, "gathered", lambda mine: [mine, theirs])  # another process's
    parts = [(np.array([3, 0]), {"a": np.array([5, 6]), "b": np.ones((2, 2))}), (np.array([1]), {"a": np.array([7])})]
    found = gather(4, iter(parts))
    assert_array_equal(found["read"], [True, True, bool(theirs), True])
    assert_array_equal(found["a"], [6, 7, 8 if theirs else np.nan, 5])
    assert_array_equal(found["b"], [[1, 1], [np.nan] * 2, [np.nan] * 2, [1, 1]])


def test_the_next_item_is_made_while_the_last_is_used():
    made = [threading.Event() for _ in range(4)]
    threads = set()

    def items():
        for i in range(3):
            threads.add(threading.current_thread())
            made[i].set()
            yield i

    found = []
    for i in ahead(items()):
        assert i == 2 or made[i + 1].wait(timeout=60)  # without being asked for
        assert not any(event.is_set() for event in made[i + 2 :])  # and no further one is
        found.append(i)
    assert found == [0, 1, 2]
    assert len(threads - {threading.main_thread()}) == len(threads) == 1
    assert list(ahead(iter([None, 0, []]))) == [None, 0, []]
    assert list(ahead(iter([]))) == []


def test_an_item_that_fails_does_so_in_its_turn_and_no_thread_stays():
    def items():
        yield 0
        yield 1
        raise ValueError("the third")

    found = ahead(items())
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(found)
    loop = ahead(iter(range(100)))
    assert next(loop) == 0
    loop.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def plan(size=2):
    groups = SET.groups(together=True)
    return batches(SET, groups, np.arange(len(groups)), size)


def test_pixels_in_memory_are_read_here_those_in_files_ahead():
    for images in (SET.images, FromFiles()):
        for (batch, pixels), expected in zip(loaded(Entrance(images, CPU), plan()), plan(), strict=True):
            assert_array_equal(batch.row, expected.row)
            assert_array_equal(pixels, SET.images[expected.image])
    assert images.asked == [[0, 1], [3]]
    assert threading.main_thread() not in images.threads


@pytest.mark.parametrize("broken", [[], [0], [3], [0, 1, 3]], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_is_asked_about_what_cannot_be_read(broken, batch):
    some = replace(SET, images=FromFiles(broken))
    asked = [
        (int(row), int(query))
        for batch, _ in predictions(ByQuery(), some, CPU, batch=batch)
        for row, query in zip(batch.row.flat, batch.query.flat, strict=True)
    ]
    assert [row for row, _ in asked if row >= 0] == [row for row in (1, 4, 3, 0, 2, 5) if SET.image[row] not in broken]
    assert all((row < 0) == (query < 0) for row, query in asked)


class Trunk(QuestionNetwork):
    """Whose first stages give ten times the pixels, counting how many."""

    def __init__(self, scale=10.0, dtype=torch.float32):
        nn.Module.__init__(self)
        self.scale, self.computed, self.dtype = scale, 0, dtype

    def trunk(self, image, stages):
        assert not torch.is_grad_enabled()
        self.computed += len(image)
        return (image * self.scale + stages).to(self.dtype)


def entered(entrance, batch):
    found = entrance(batch, entrance.read(batch))
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    return found


def behind(numbers, scale=10.0, skip=2):
    return as_tensor(SET.images[np.array(numbers)], CPU) * scale + skip


def assert_same(found, expected):
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("resident", [True, False])
def test_features_of_frozen_stages_are_computed_once(resident):
    model, images = Trunk(), FromFiles()
    entrance = Entrance(images, CPU, model, skip=2)
    if resident:  # as on a GPU
        entrance.resident = torch.from_numpy(SET.images)
    for numbers, computed in ([3, 0], 2), ([0, 3, 3], 2), ([1], 3), ([1, 2, 0], 6), ([2, 1, 0, 3, 0], 6):
        assert_same(entered(entrance, of_images(numbers)), behind(numbers).half().float())
        assert model.computed == computed
    assert images.asked == ([] if resident else [[3, 0], [1], [1, 2, 0]])


def test_features_stay_what_they_were_first():
    """A network's arithmetic may depend on who else is in the batch; a run that goes on may not."""
    model = Trunk()
    entrance = Entrance(SET.images, CPU, model, skip=2)
    first = entered(entrance, of_images([0, 1]))
    model.scale = 20.0
    late = of_images([1, 2])
    pixels = SET.images[late.image]  # read ahead, before image 1 was known
    assert_same(entrance(late, pixels), torch.cat([first[1:], behind([2], 20).half().float()]))
    assert_same(entered(entrance, of_images([2, 1, 0]))[1:], first.flip(0))


@pytest.mark.parametrize("spare, kept", [(0, True), (-1, False)])
def test_features_are_kept_where_there_is_room(monkeypatch, spare, kept):
    monkeypatch.setattr(ask, "KEEP_FEATURES", 4 * 3 * 5 * 6 * 2 + spare)
    model = Trunk()
    entrance = Entrance(SET.images, CPU, model, skip=2)
    for _ in range(2):
        assert_same(entered(entrance, of_images([2, 0])), behind([2, 0]).half().float() if kept else behind([2, 0]))
    assert model.computed == (2 if kept else 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_beyond_half_precision_stay_finite(dtype):
    entrance = Entrance(SET.images, CPU, Trunk(1e6, dtype), skip=2)
    for _ in range(2):
        found = entered(entrance, of_images([0]))
        assert_same(found, behind([0], 1e6).to(dtype).float().clamp(max=65504).half().float())
    assert found.max() == 65504


def test_features_of_moved_images_are_always_computed():
    model, images = Trunk(), FromFiles()
    entrance = Entrance(images, CPU, model, skip=2)
    entered(entrance, of_images([3, 1]))
    place = tuple(Fit(6, x, 0, 6, 5) for x in (1, 7))
    for places in (place, place[::-1]):
        batch = replace(of_images([3, 1]), place=places)
        pixels = images.read(batch.image, places)
        assert_same(entered(entrance, batch), as_tensor(pixels, CPU) * 10 + 2)
        assert_same(entered(Entrance(images, CPU), batch), as_tensor(pixels, CPU))
    assert_same(entered(entrance, of_images([1])), behind([1]).half().float())  # nothing mixed up
    assert model.computed == 6


@pytest.mark.parametrize("name", ["pan-hard-ctx", "san"])
def test_a_network_answers_the_same_from_kept_features(name):
    """Exactly, when asked again; to half precision, when compared with pixels."""
    torch.manual_seed(0)
    some = replace(SET, images=np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
    model = build_model(name, num_queries=4, num_attributes=3, backbone="conv-stack-padded", attend_at=(1, 2)).eval()
    entrance = Entrance(some.images, CPU, model, model.skippable)
    assert model.skippable == (3 if name == "san" else 2)
    plain, first, again = (
        torch.cat([p.logit.flatten(0, 1) for _, p in predictions(model, some, CPU, batch=4, entrance=way)])
        for way in (None, entrance, entrance)
    )
    assert_same(first, again)
    assert_close(first, plain, rtol=0, atol=2e-3)
    assert not torch.equal(first, plain)


LABELS = Labels(np.array([0, 2, 2, 3, 5, 6, 8]), np.array([0, 1, 2, 0, 1, 2, 1, 0]), np.ones(8, np.int8), 3)


class ByNumber(nn.Module):
    """Log-odds of each attribute by query, the same whatever the image."""

    def forward(self, image, query):
        odds = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.0, -2.0], [-0.5, 1.0, 1.0], [-1.5, -0.25, 0.25]])
        return SimpleNamespace(logit=odds[query.clamp(min=0)])


def test_accuracy_worked_by_hand():
    """Rows are answered query % 3 = 0 1 2 0 0 1, right are 0 1 0 1 0 1; image 3 holds rows 0, 2 and 5."""
    assert validation_score(ByQuery(), SET, CPU) == ("validation_accuracy", pytest.approx(4 / 6, abs=1e-15))
    assert validation_score(ByQuery(), SET.rows(np.array([0, 0, 2, 0])), CPU)[1] == 0.75  # a row asked more than once
    assert validation_score(ByQuery(), replace(SET, images=FromFiles([3])), CPU)[1] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="none of its images can be read"):
        validation_score(ByQuery(), replace(SET, images=FromFiles([0, 1, 3])), CPU)


@pytest.mark.parametrize("broken, batch", [([], 1), ([3], 64)])
def test_rankings_are_of_all_that_can_be_read(broken, batch):
    some = replace(SET, attribute=LABELS, images=FromFiles(broken))
    expected = RankingScores(3)
    rows = np.array([row for row in range(6) if SET.image[row] not in broken])
    expected.add(ByNumber()(None, torch.from_numpy(SET.query[rows])).logit.double().numpy(), LABELS[rows])
    name, found = validation_score(ByNumber(), some, CPU, batch=batch)
    assert name == "validation_weighted_mean_ap"
    assert 0.3 < found == expected.summary()["weighted_mean_ap"] < 1
    nothing = replace(SET, attribute=Labels(np.zeros(7, int), np.array([], int), np.array([], np.int8), 3))
    assert validation_score(ByNumber(), nothing, CPU)[1] == 0


def test_without_a_gpu_the_cpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "xla", "meta", "hpu"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=rf"device '{name}' can't be used \(.{{,250}}\); try cpu, cuda or cuda:0$"):
        pick_device(name)


def test_processes_of_one_machine_share_no_gpu(monkeypatch):
    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each process of a machine needs a GPU of its own.*'cuda:0'"):
        pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # one on each machine
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [processes.local_device(name) for name in ("cuda:1", "cuda", "cpu")] == ["cuda:1", "cuda:3", "cpu"]


@pytest.mark.parametrize("asked, fast", [(True, True), (True, False), (False, True)])
def test_bf16_only_where_asked_for_and_fast(monkeypatch, asked, fast):
    monkeypatch.setattr(ask, "has_fast_bf16", lambda device: fast)
    with precision(CPU, asked):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if asked and fast else torch.float32)
