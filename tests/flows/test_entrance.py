"""What enters a network batch by batch: read ahead, frozen stages computed once, and what can't be read left out."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from test_inference import CPU, SET, ByQuery, of_images
from torch import nn
from torch.testing import assert_close

from progressive_attention.data.images import Fit
from progressive_attention.data.questions import Labels, batches
from progressive_attention.evaluation import ask as inference
from progressive_attention.evaluation.ask import (
    Entrance,
    accuracy,
    ahead,
    as_tensor,
    loaded,
    predictions,
    ranking,
    validation_score,
)
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.network.build import build_model
from progressive_attention.network.question_network import QuestionNetwork

# --- reading ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_ahead_gives_the_same_items(count):
    assert list(ahead(iter(range(count)))) == list(range(count))
    assert list(ahead(iter([None, 0, []]))) == [None, 0, []]


def test_the_next_item_is_made_while_the_last_is_used():
    made = [threading.Event() for _ in range(4)]
    threads = []

    def items():
        for i in range(3):
            threads.append(threading.current_thread())
            made[i].set()
            yield i

    for i in ahead(items()):
        assert i == 2 or made[i + 1].wait(timeout=60)  # without being asked for
        assert not any(event.is_set() for event in made[i + 2 :])  # and no further one is
    assert threading.main_thread() not in threads
    assert len(set(threads)) == 1


def test_an_item_that_fails_does_so_in_its_turn():
    def items():
        yield 0
        yield 1
        raise ValueError("the third")

    found = ahead(items())
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(found)


def test_one_who_stops_early_leaves_no_thread():
    loop = ahead(iter(range(100)))
    assert next(loop) == 0
    loop.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


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


def plan(size=2):
    groups = SET.groups(together=True)
    return batches(SET, groups, np.arange(len(groups)), size)


def test_pixels_in_memory_are_read_here_those_in_files_ahead():
    for images in (SET.images, FromFiles()):
        found = list(loaded(Entrance(images, CPU), plan()))
        for (batch, pixels), expected in zip(found, plan(), strict=True):
            assert_array_equal(batch.row, expected.row)
            assert_array_equal(pixels, SET.images[expected.image])
    assert images.asked == [[0, 1], [3]]
    assert threading.main_thread() not in images.threads


@pytest.mark.parametrize("broken", [[], [0], [3], [0, 1], [0, 1, 3]], ids=str)
def test_nothing_is_asked_about_what_cannot_be_read(broken):
    batches = list(loaded(Entrance(FromFiles(broken), CPU), plan()))
    assert [batch.image.tolist() for batch, _ in batches] == [[0, 1], [3]]
    asked = [
        (int(row), int(query))
        for batch, _ in batches
        for row, query in zip(batch.row.flat, batch.query.flat, strict=True)
    ]
    assert [row for row, _ in asked if row >= 0] == [row for row in (1, 4, 3, 0, 2, 5) if SET.image[row] not in broken]
    assert all((row < 0) == (query < 0) for row, query in asked)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_what_cannot_be_read_is_not_measured(batch):
    """Image 3 holds rows 0, 2 and 5; of the others 1, 3 and 4 rows 1 and 4 are right."""
    broken = replace(SET, images=FromFiles([3]))
    assert accuracy(ByQuery(), broken, CPU, batch=batch) == pytest.approx(2 / 3)
    rows = [int(row) for asked, _ in predictions(ByQuery(), broken, CPU, batch=batch) for row in asked.row.flat]
    assert sorted(row for row in rows if row >= 0) == [1, 3, 4]


def test_where_nothing_can_be_read_nothing_is_measured():
    with pytest.raises(ValueError, match="none of its images can be read; 'pan data check' tells why"):
        accuracy(ByQuery(), replace(SET, images=FromFiles([0, 1, 3])), CPU)


# --- what frozen stages give ------------------------------------------------------------------------------------------


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


def test_features_of_frozen_stages_are_computed_once():
    model, images = Trunk(), FromFiles()
    entrance = Entrance(images, CPU, model, skip=2)
    for numbers, computed in ([3, 0], 2), ([0, 3, 3], 2), ([1], 3), ([1, 2, 0], 6), ([2, 1, 0, 3, 0], 6):
        found = entered(entrance, of_images(numbers))
        assert_close(found, behind(numbers).half().float(), rtol=0, atol=0)
        assert model.computed == computed
    assert images.asked == [[3, 0], [1], [1, 2, 0]]


def test_features_of_pixels_on_the_device_are_computed_once():
    model = Trunk()
    entrance = Entrance(SET.images, CPU, model, skip=2)
    entrance.resident = torch.from_numpy(SET.images)  # as on a GPU
    for numbers, computed in ([3, 0], 2), ([0, 3, 3], 2), ([1, 0], 4), ([0, 1, 3], 4):
        found = entered(entrance, of_images(numbers))
        assert_close(found, behind(numbers).half().float(), rtol=0, atol=0)
        assert model.computed == computed


def test_features_stay_what_they_were_first(monkeypatch):
    """A network's arithmetic may depend on who else is in the batch; a run that goes on may not."""
    model = Trunk()
    entrance = Entrance(SET.images, CPU, model, skip=2)
    first = entered(entrance, of_images([0, 1]))
    model.scale = 20.0
    late = of_images([1, 2])
    pixels = SET.images[late.image]  # read ahead, before image 1 was known
    assert_close(entrance(late, pixels), torch.cat([first[1:], behind([2], 20).half().float()]), rtol=0, atol=0)
    assert_close(entered(entrance, of_images([2, 1, 0]))[1:], first.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("spare, kept", [(0, True), (-1, False)])
def test_features_are_kept_where_there_is_room(monkeypatch, spare, kept):
    monkeypatch.setattr(inference, "KEEP_FEATURES", 4 * 3 * 5 * 6 * 2 + spare)
    model = Trunk()
    entrance = Entrance(SET.images, CPU, model, skip=2)
    for _ in range(2):
        found = entered(entrance, of_images([2, 0]))
        assert_close(found, behind([2, 0]).half().float() if kept else behind([2, 0]), rtol=0, atol=0)
    assert model.computed == (2 if kept else 4)
    assert (entrance.features is not None) is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_beyond_half_precision_stay_finite(dtype):
    entrance = Entrance(SET.images, CPU, Trunk(1e6, dtype), skip=2)
    for _ in range(2):
        found = entered(entrance, of_images([0]))
        assert_close(found, behind([0], 1e6).to(dtype).float().clamp(max=65504).half().float(), rtol=0, atol=0)
    assert found.max() == 65504


def test_features_of_moved_images_are_always_computed():
    model, images = Trunk(), FromFiles()
    entrance = Entrance(images, CPU, model, skip=2)
    entered(entrance, of_images([3, 1]))
    place = tuple(Fit(6, x, 0, 6, 5) for x in (1, 7))
    for places in (place, place[::-1]):
        batch = replace(of_images([3, 1]), place=places)
        pixels = images.read(batch.image, places)
        assert_close(entered(entrance, batch), as_tensor(pixels, CPU) * 10 + 2, rtol=0, atol=0)
    assert_close(entered(entrance, of_images([1])), behind([1]).half().float(), rtol=0, atol=0)  # nothing mixed up
    assert model.computed == 6


@pytest.mark.parametrize("model, skip", [(None, 0), (Trunk(), 0), (nn.Identity(), 2)])
def test_without_frozen_stages_pixels_enter(model, skip):
    entrance = Entrance(SET.images, CPU, model, skip)
    for _ in range(2):
        assert_close(entered(entrance, of_images([2, 0])), as_tensor(SET.images[[2, 0]], CPU), rtol=0, atol=0)
    moved = replace(of_images([2]), place=(Fit(6, 4, 0, 6, 5),))
    images = FromFiles()
    entrance = Entrance(images, CPU, model, skip)
    assert_close(entered(entrance, moved), as_tensor(images.read(moved.image, moved.place), CPU), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["pan-hard-ctx", "pan-soft", "san"])
def test_a_network_answers_the_same_from_kept_features(name):
    """Exactly, when asked again; to half precision, when compared with pixels."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    some = replace(SET, images=pixels)
    model = build_model(name, num_queries=4, num_attributes=3, backbone="conv-stack-padded", attend_at=(1, 2))
    model.eval()
    entrance = Entrance(pixels, CPU, model, model.skippable)
    assert model.skippable == (3 if name == "san" else 2)
    plain, first, again = (
        torch.cat([p.logit.flatten(0, 1) for _, p in predictions(model, some, CPU, batch=size, entrance=way)])
        for size, way in ((4, None), (4, entrance), (4, entrance))
    )
    assert_close(first, again, rtol=0, atol=0)
    assert_close(first, plain, rtol=0, atol=2e-3)
    assert not torch.equal(first, plain)


# --- what training keeps the best by ----------------------------------------------------------------------------------

LABELS = Labels(np.array([0, 2, 2, 3, 5, 6, 8]), np.array([0, 1, 2, 0, 1, 2, 1, 0]), np.ones(8, np.int8), 3)
MANY = replace(SET, attribute=LABELS)


class ByNumber(nn.Module):
    """Log-odds of each attribute by query, the same whatever the image."""

    def forward(self, image, query):
        odds = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.0, -2.0], [-0.5, 1.0, 1.0], [-1.5, -0.25, 0.25]])
        return SimpleNamespace(logit=odds[query.clamp(min=0)])


@pytest.mark.parametrize("broken", [[], [3]], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_rankings_are_of_all_that_can_be_read(broken, batch):
    some = replace(MANY, images=FromFiles(broken))
    expected = RankingScores(3)
    rows = np.array([row for row in range(6) if SET.image[row] not in broken])
    odds = ByNumber()(None, torch.from_numpy(SET.query[rows])).logit.double().numpy()
    expected.add(odds, LABELS[rows])
    assert ranking(ByNumber(), some, CPU, batch=batch).summary() == expected.summary()
    told = "validation_weighted_mean_ap", expected.summary()["weighted_mean_ap"]
    assert validation_score(ByNumber(), some, CPU, batch=batch) == told
    assert 0.3 < told[1] < 1


def test_scores_of_one_answer_and_of_none():
    assert validation_score(ByQuery(), SET, CPU) == ("validation_accuracy", pytest.approx(4 / 6))
    nothing = replace(SET, attribute=Labels(np.zeros(7, int), np.array([], int), np.array([], np.int8), 3))
    assert validation_score(ByNumber(), nothing, CPU) == ("validation_weighted_mean_ap", 0.0)
