"""What several processes agree on, tried in one: who does what, sums and means, a name for each start, errors."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from progressive_attention import processes
from progressive_attention.cli import main
from progressive_attention.network.build import build_model
from progressive_attention.training.learner import synchronise_norms


@given(st.integers(0, 500), st.integers(1, 70), st.integers(1, 9))
def test_every_item_belongs_to_one_process(count, size, many):
    parts, shares = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "world", lambda: many)
        for number in range(many):
            patch.setattr(processes, "rank", lambda number=number: number)
            parts.append(processes.own_part(count, size))
            shares.append(processes.share(range(count)))
    assert [i for part in parts for i in part] == list(range(count))
    assert all(part.start % size == 0 for part in parts if part)  # so that batches are those of one process
    assert sorted(i for share in shares for i in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    batches = [-(-len(part) // size) for part in parts]
    assert max(batches) - min(batches) <= 1


def test_one_process_exchanges_nothing():
    assert (processes.rank(), processes.world(), processes.is_first()) == (0, 1, True)
    assert processes.gathered("mine") == ["mine"]
    assert processes.from_first(lambda: 3) == 3
    with processes.joined(), processes.in_turn():
        assert processes.group() is None
    values = torch.ones(2, requires_grad=True)
    assert processes.summed(values) is values
    processes.average([values])
    with pytest.raises(RuntimeError, match="a mistake"), processes.exchange():
        raise RuntimeError("a mistake")


@pytest.mark.parametrize("backbone, attend_at", [("conv-stack", (0, 1)), ("test_resnet", (0, 1))])
def test_synchronised_norms_keep_their_names_values_and_activations(backbone, attend_at):
    """Where they learn they need GPUs; where they don't, they answer as before."""
    torch.manual_seed(0)
    model = build_model("pan-hard", num_queries=3, num_attributes=2, backbone=backbone, attend_at=attend_at).eval()
    image, query = torch.rand(2, 3, 64, 64), torch.tensor([0, 2])
    before, names = model(image, query).logit, list(model.state_dict())
    parameters = {id(parameter) for parameter in model.parameters()}
    synchronise_norms(model)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert list(model.state_dict()) == names
    assert {id(parameter) for parameter in model.parameters()} == parameters
    torch.testing.assert_close(model(image, query).logit, before)


@pytest.mark.parametrize(
    "command, settings, expected",
    [
        (["list"], {}, "only train and evaluate can be shared by several processes"),
        (["evaluate", "--weights", "x"], {}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        *(
            (
                ["evaluate", "--weights", "x"],
                {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "PAN_TIMEOUT": text},
                f"PAN_TIMEOUT must be a number of seconds above zero, got '{text}'",
            )
            for text in ("soon", "0", "inf")
        ),
    ],
)
def test_what_can_not_be_shared(command, settings, expected, monkeypatch, capsys):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", **settings}.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    printed, errors = capsys.readouterr()
    assert (printed, errors.count("\n")) == ("", 1)
    assert expected in errors


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[/gloo/tcp/pair.cc:545] Connection closed by peer", r"Connection closed by peer"),
        ("NCCL error\nLast error:\nDuplicate GPU", "NCCL error Last error: Duplicate GPU"),
        ("Timed out.\nException raised from wait at x.cpp:3\nframe #0: 0x0", r"Timed out\."),
        ("", "RuntimeError"),
    ],
)
def test_a_failed_exchange_is_reported_with_torchs_reason_and_its_remedy(text, reason, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    expected = rf"processes failed \({reason}\); most likely one was lost.*start the job again"
    with pytest.raises(ConnectionError, match=expected), processes.exchange():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="out of memory"), processes.exchange():  # which is reported as such
        raise RuntimeError("CUDA out of memory")
    with pytest.raises(ConnectionError, match=r"SIGTERM.*--max-restarts 3"):
        processes.stopped(signal.SIGTERM, None)


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
        for many in (3, 3, 4, 2):  # the store keeps what was there before

            def start(number: int, many: int = many) -> str:
                time.sleep(0.03 * (number == 0))  # while others read what the last ones have left
                return processes.agreed(store, number, many, timedelta(seconds=60))

            agreed = list(threads.map(start, range(many)))
            assert len(set(agreed)) == 1
            names += agreed[:1]
    assert len(set(names)) == 4


def test_a_start_without_the_others_fails():
    store = Shelf()
    store.set("start/1", "of another start")
    store.set("seen/1", "of another start")
    with pytest.raises(RuntimeError, match="not all of 2 processes started within 0:00:00.2"):
        processes.agreed(store, 0, 2, timedelta(seconds=0.2))
