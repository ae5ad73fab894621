"""What several processes agree on, tried in one: who does what, batch norms of all, a name for each start, errors."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import TRAIN

from progressive_attention import one_batch
from progressive_attention import processes as distributed
from progressive_attention.cli import main


def as_process(number: int, processes: int, patch: pytest.MonkeyPatch) -> None:
    for module in (distributed, one_batch):
        patch.setattr(module, "rank", lambda: number)
        patch.setattr(module, "world", lambda: processes)


@given(st.integers(0, 500), st.integers(1, 70), st.integers(1, 9))
def test_every_item_is_one_process_own(count, size, processes):
    parts, shares = [], []
    with pytest.MonkeyPatch.context() as patch:
        for number in range(processes):
            as_process(number, processes, patch)
            parts.append(distributed.own_part(count, size))
            shares.append(distributed.share(range(count)))
    assert [i for part in parts for i in part] == list(range(count))
    assert all(part.start % size == 0 for part in parts if part)  # so that batches are those of one process
    assert sorted(i for share in shares for i in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    batches = [-(-len(part) // size) for part in parts]
    assert max(batches) - min(batches) <= 1


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(sum), st.floats(-100, 100))
def test_moments_of_all_are_those_of_all_values(counts, offset):
    values = [torch.randn(n, 3, dtype=torch.float64) * (i + 1) + i + offset for i, n in enumerate(counts)]
    moments = [(v.sum(0) / max(1, len(v)), v.var(0, correction=0) if len(v) else torch.zeros(3)) for v in values]
    rows = [torch.cat([*m, torch.tensor([float(len(v))])]).double() for m, v in zip(moments, values, strict=True)]
    everything = torch.cat(values)
    with pytest.MonkeyPatch.context() as patch:
        for number, (own, v) in enumerate(zip(moments, values, strict=True)):
            as_process(number, len(counts), patch)
            others = torch.stack([row * (i != number) for i, row in enumerate(rows)])
            patch.setattr(one_batch, "summed", lambda mine, others=others: mine + others)
            mean, variance, count = one_batch.moments_of_all(own[0], own[1].double(), len(v))
            torch.testing.assert_close(mean, everything.mean(0), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(variance, everything.var(0, correction=0), rtol=1e-9, atol=1e-9)
            assert count == len(everything)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 4, 2), (7, 3)])
def test_batch_norm_is_torchs(affine, shape):
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) if affine else None for _ in range(2))
    outcomes = []
    for function in (torch.nn.functional.batch_norm, one_batch.batch_norm):
        mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        output = function(features, mean, variance, weight, bias, True, 0.3, 1e-3)
        learnt = [one for one in (features, weight, bias) if one is not None]
        outcomes.append([output, mean, variance, *torch.autograd.grad((output**3).sum(), learnt)])
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("own", [0, 1])
def test_a_lone_value_is_refused_by_all_processes(own, monkeypatch):
    as_process(0, 2, monkeypatch)
    others = torch.tensor([[0.0] * 7, [2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 1.0 - own]])
    monkeypatch.setattr(one_batch, "summed", lambda mine: mine + others)
    variance = torch.ones(3)
    with pytest.raises(ValueError, match="in training a batch norm needs two questions at a time, got 1; ask more"):
        one_batch.batch_norm(torch.randn(own, 3), torch.zeros(3), variance, training=True)
    assert variance.tolist() == [1, 1, 1]


def test_every_batch_norm_within_is_of_all(monkeypatch):
    norm, features = torch.nn.BatchNorm2d(3), torch.randn(2, 3, 4, 4)
    monkeypatch.setattr(one_batch, "batch_norm", lambda features, *args, **kwargs: features * 0)
    assert norm(features).any()
    with one_batch.norms_of_all():
        assert norm(features).any()  # there is one process
    monkeypatch.setattr(one_batch, "world", lambda: 2)
    with one_batch.norms_of_all():
        assert not norm(features).any()


def test_rows_that_others_know_are_filled_in(monkeypatch):
    theirs = np.array([0, 3]), [np.array([5, 6]), np.array([[1.0, 2.0], [3.0, 4.0]])]
    monkeypatch.setattr(distributed, "gathered", lambda own: [own, theirs])
    known, ids, pairs = np.array([False, True, False, False]), np.array([0, 9, 0, 0]), np.zeros((4, 2))
    distributed.merge_rows(known, ids, pairs)
    assert known.tolist() == [True, True, False, True]
    assert ids.tolist() == [5, 9, 0, 6]
    assert pairs.tolist() == [[1, 2], [0, 0], [0, 0], [3, 4]]


def test_alone_nothing_is_exchanged():
    assert (distributed.rank(), distributed.world(), distributed.is_first()) == (0, 1, True)
    assert distributed.gathered(TRAIN) == [TRAIN]
    assert distributed.from_first(lambda: 3) == 3
    with distributed.joined(), distributed.in_turn():
        assert distributed.group() is None
    values = torch.ones(2, requires_grad=True)
    assert one_batch.summed(values) is values


@pytest.mark.parametrize(
    "command, settings, expected",
    [
        (["list"], {}, "pan list: error: only train and evaluate can be shared by several processes; start it by pan"),
        (["evaluate", "--weights", "x"], {}, "WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT is not set; start"),
        (
            ["evaluate", "--weights", "x"],
            {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "PAN_TIMEOUT": "soon"},
            "PAN_TIMEOUT must be a number of seconds above zero, got 'soon'",
        ),
    ],
)
def test_what_can_not_be_shared(command, settings, expected, monkeypatch, capsys):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", **settings}.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    printed, told = capsys.readouterr()
    assert (printed, told.count("\n")) == ("", 1)
    assert expected in told


@pytest.mark.parametrize(
    "told, reason",
    [
        ("[/gloo/tcp/pair.cc:545] Connection closed by peer", r"Connection closed by peer"),
        ("NCCL error\nLast error:\nDuplicate GPU", "NCCL error Last error: Duplicate GPU"),
        ("Timed out.\nException raised from wait at x.cpp:3\nframe #0: 0x0", r"Timed out\."),
        ("", "RuntimeError"),
    ],
)
def test_a_failed_exchange_is_told_with_torchs_reason_and_its_remedy(told, reason):
    expected = rf"processes failed \({reason}\); most likely one was lost, killed .* of its own: start the job again"
    with pytest.raises(ConnectionError, match=expected), distributed.exchange():
        raise RuntimeError(told)


def test_sigterm_is_told_with_its_remedy():
    with pytest.raises(ConnectionError, match=r"stopped by SIGTERM.*--max-restarts 3"):
        distributed.stopped(signal.SIGTERM, None)


class Shelf(dict):
    """A store of the processes, as torch's: what is not there yet is waited for, by trying again."""

    def set(self, key: str, value: str | bytes) -> None:
        self[key] = value if isinstance(value, bytes) else value.encode()

    def get(self, key: str) -> bytes:  # type: ignore[override]
        until = time.monotonic() + 60
        while key not in self:
            assert time.monotonic() < until
            time.sleep(0.001)
        return self[key]


def test_each_start_agrees_on_a_name_of_its_own():
    store, names = Shelf(), []
    with ThreadPoolExecutor(4) as threads:
        for processes in (3, 3, 4, 2):  # the store keeps what was there before

            def start(number: int, processes: int = processes) -> str:
                time.sleep(0.03 * (number == 0))  # while others read what the last ones have left
                return distributed.agreed(store, number, processes, timedelta(seconds=60))

            found = list(threads.map(start, range(processes)))
            assert len(set(found)) == 1
            names += found[:1]
    assert len(set(names)) == 4


def test_who_starts_alone_is_told():
    store = Shelf()
    store.set("start/1", "of another start")
    store.set("seen/1", "of another start")
    with pytest.raises(RuntimeError, match="not all of 2 processes started within 0:00:00.2"):
        distributed.agreed(store, 0, 2, timedelta(seconds=0.2))
