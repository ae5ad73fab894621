"""The metric classes are the pure functions, batch by batch, in collections and over processes; torchmetrics agrees."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close
from torchmetrics import MetricCollection

from progressive_attention.metrics.attention import OverlapCurves, pointing_game, true_positive_ratio
from progressive_attention.metrics.modular import AttentionOverlap, AttributeRanking, PointingGame, TruePositiveRatio
from progressive_attention.metrics.ranking import RankingScores

A = 4
CLASSES = (TruePositiveRatio, PointingGame, partial(PointingGame, 2.0), AttentionOverlap, partial(AttributeRanking, A))
every_class = pytest.mark.parametrize("make", CLASSES, ids=lambda make: str(getattr(make, "func", make).__name__))


def some_maps(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps and targets (R, 6, 5), the first target empty."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, 6, 5)) < 0.3
    mask[0] = False
    return torch.from_numpy(rng.random((rows, 6, 5))), torch.from_numpy(mask)


def some_scores(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds and labels (R, A), some unknown."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(rows, A))), torch.from_numpy(rng.integers(-1, 2, (rows, A)))


def given_to(metric, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return (some_scores if isinstance(metric, AttributeRanking) else some_maps)(rows, seed)


def exactly(found, expected) -> None:
    assert_close(found, expected, rtol=1e-12, atol=0, equal_nan=True)


def test_attention_by_the_pure_functions():
    attention, mask = some_maps(50)
    for metric, values in (
        (TruePositiveRatio(), true_positive_ratio(attention.numpy(), mask.numpy())),
        (PointingGame(), pointing_game(attention.numpy(), mask.numpy())),
        # In float32 this square root is too small for a neighbour across the corner.
        (PointingGame(math.sqrt(2)), pointing_game(attention.numpy(), mask.numpy(), math.sqrt(2))),
    ):
        for rows in torch.arange(50).split(7):
            metric.update(attention[rows], mask[rows])
        assert_allclose(float(metric.compute()), np.nanmean(values), rtol=1e-12)


def test_overlap_by_the_pure_function():
    attention, mask = some_maps(20)
    metric, curves = AttentionOverlap(), OverlapCurves()
    curves.add("it", attention.numpy(), mask.numpy())
    for rows in torch.arange(20).split(6):
        metric.update(attention[rows], mask[rows])
    expected = curves.summary()["it"]
    assert expected.pop("count") == 19
    assert metric.compute().keys() == expected.keys()
    for name, value in metric.compute().items():
        assert_allclose(value.numpy(), expected[name], rtol=1e-12)


@pytest.mark.parametrize("train_count", [None, torch.tensor([200, 50, 20, 10]), [200, 50, 20, 10]])
def test_ranking_by_the_pure_function(train_count):
    score, label = some_scores(60)
    metric, scores = AttributeRanking(A, train_count), RankingScores(A)
    scores.add(score.numpy(), label.numpy())
    for rows in torch.arange(60).split(7):
        metric.update(score[rows], label[rows])
    expected = scores.summary(None if train_count is None else np.asarray(train_count))
    assert {name: None if value.isnan() else float(value) for name, value in metric.compute().items()} == expected


@every_class
def test_forward_gives_the_batch_and_keeps_it(make):
    metric, whole, alone = make(), make(), make()
    first, second = given_to(metric, 9), given_to(metric, 5, seed=1)
    metric(*first)
    alone.update(*second)
    exactly(metric(*second), alone.compute())
    whole.update(*first)
    whole.update(*second)
    exactly(metric.compute(), whole.compute())


@every_class
def test_states_merge(make):
    parts, whole = [make(), make()], make()
    for seed, part in enumerate(parts):
        part.update(*given_to(part, 9, seed))
        whole.update(*given_to(part, 9, seed))
    parts[0].merge_state(parts[1])
    exactly(parts[0].compute(), whole.compute())


def test_a_collection_keeps_its_metrics_apart():
    """In the first batch all are 1, in the second they differ: states of equal values must not become one."""
    whole = torch.ones(2, 6, 5), torch.ones(2, 6, 5, dtype=torch.bool)
    corner = torch.zeros(2, 6, 5)
    corner[:, 0, 0] = 0.75
    corner[:, 5, 4] = 0.25
    near = torch.zeros(2, 6, 5, dtype=torch.bool)
    near[:, 0, 1] = True
    points = {"strict": PointingGame(), "lenient": PointingGame(1)}
    together = MetricCollection({"tpr": TruePositiveRatio(), **points, "overlap": AttentionOverlap()})
    for pair in (whole, (corner, near)):
        together.update(*pair)
    found = together.compute()
    assert (float(found["tpr"]), float(found["strict"]), float(found["lenient"])) == (0.5, 0.5, 1.0)
    assert_allclose(found["best_iou"], (1 + 1 / 30) / 2)  # at 0, where the whole image is marked
    assert found["precision"].shape == (101,)
    copies = together.clone(prefix="last_")
    copies.reset()
    copies.update(*whole)
    assert float(copies.compute()["last_tpr"]) == 1


def test_bad_labels_are_told_when_they_come():
    score, label = some_scores(3)
    with pytest.raises(ValueError, match="label must be 1 "):
        AttributeRanking(A).update(score, label + 2)
    with pytest.raises(ValueError, match=r"score must be \(..., 9\), got \(3, 4\)"):
        AttributeRanking(9).update(score, label)
    with pytest.raises(ValueError, match=r"both must have one shape \(..., A\), got \(3, 4\) and \(2, 4\)"):
        AttributeRanking(A).update(score, label[:2])


def one_process(rank: int, store: str) -> None:
    """Metrics of two processes, the second of which saw nothing, are those of one that saw all."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for seen in ((0,), (0, 1)):
        for make in CLASSES:
            metric, whole = make(), make()
            if rank in seen:
                metric.update(*given_to(metric, 9 + rank, seed=rank))
            for other in seen:
                whole.update(*given_to(whole, 9 + other, seed=other))
            found = metric.compute()
            with torch.no_grad():
                whole.sync_on_compute = False
                exactly(found, whole.compute())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_two_processes_measure_as_one(tmp_path):
    torch.multiprocessing.spawn(one_process, (str(tmp_path / "store"),), nprocs=2)
