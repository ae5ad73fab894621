"""Several processes, by real torchrun: they take the steps that one takes, and give the same figures."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import in_processes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_label_evaluation import trained_on
from tiny_photographs import SIDE, write_photographs
from tiny_photographs import about as photographs_about
from tiny_runs import TRAIN, results

from progressive_attention import distributed, network_folder, one_batch
from progressive_attention.cli import main
from progressive_attention.data.manifest import from_folder
from progressive_attention.training import read_log

HERE = Path(__file__).parent
EVALUATE = ("-m", "progressive_attention", "evaluate", "--device", "cpu", "--json")


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def torchrun(*command: object, restarts: int = 0, **more: str) -> subprocess.CompletedProcess:
    """A command in two processes; ``more`` goes into their environment."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    words = [*launcher, "--max-restarts", str(restarts), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment(**more), timeout=300)


def free_port() -> str:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def job(name: str, folder: Path, **options) -> subprocess.CompletedProcess:
    return torchrun(HERE / "in_processes.py", name, folder, **options)


def finished(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    finished(job("gradients", folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", in_processes.CASES)
def test_two_processes_have_the_gradient_of_one(name, of_two, tmp_path):
    expected = in_processes.gradients(name, tmp_path)
    found = load_file(of_two / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    # The transformers' gradients reach 4,000 here: of what is above 1, the share counts.
    scale = max(1.0, *(float(value.abs().max()) for value in expected.values()))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10 * scale)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """What one process leaves, and what two do: of runs, one of which a single process has begun."""
    folder = tmp_path_factory.mktemp("wholes")
    write_photographs(folder / "photographs", images=30, broken=(4,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    in_processes.whole(folder / "one")
    for _, _ in zip(range(5), in_processes.squares(folder / "two" / "begun"), strict=False):
        pass
    finished(job("whole", folder / "two"))
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squares", "begun"])
def test_a_whole_run_in_two_processes_is_that_of_one(name, wholes):
    one, two = (load_file(wholes / many / name / "checkpoint.safetensors") for many in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name, rtol", [("photographs", 1e-3), ("frozen", 1e-3)])
def test_labels_unreadable_images_and_frozen_stages(name, rtol, wholes):
    one, two = (read_log(wholes / many / name / "log.jsonl") for many in ("one", "two"))
    assert len(one) == len(two) == 3
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=rtol)
        assert theirs["step"] == mine["step"]
    score = "validation_weighted_mean_ap"
    assert two[0][score] == pytest.approx(one[0][score], rel=1e-6)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_when_torchrun_starts_again(tmp_path):
    finished(job("undisturbed", tmp_path / "undisturbed"))
    finished(job("killed", tmp_path / "killed", restarts=1))
    assert results(tmp_path / "killed" / "run") == results(tmp_path / "undisturbed" / "run")


@pytest.mark.slow
def test_a_worker_that_hangs_ends_the_job(tmp_path):
    done = job("stopped", tmp_path, PAN_TIMEOUT="3")
    assert done.returncode == 1
    assert "ConnectionError: another process of the job was lost" in done.stderr
    assert "Timed out waiting 3000ms" in done.stderr


def worker(port: str, number: int) -> int | None:
    """Process id of the worker of this number in the job at this port, if it has started."""
    wanted = {f"RANK={number}", f"MASTER_PORT={port}"}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(path.read_bytes().decode(errors="replace").split("\0")):
                return int(path.parent.name)
        except OSError:  # it has ended, or is another user's
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker by /proc")
def test_a_killed_worker_ends_the_job_with_one_line(tmp_path):
    data, out, port = tmp_path / "squares.npz", tmp_path / "run", free_port()
    write_squares(data, 60)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    train = ["-m", "progressive_attention", "train", "--data", str(data), "--epochs", "1000", "--batch", "8"]
    words = [*launcher, *train, "--device", "cpu", "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as run:
        until = time.monotonic() + 120
        while not (out / "checkpoint.safetensors").exists():
            assert time.monotonic() < until
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.1)
        os.kill(worker(port, 1), signal.SIGKILL)
        printed, told = run.communicate(timeout=120)
    assert run.returncode == 1
    assert printed == ""
    (line,) = [line for line in told.splitlines() if line.startswith("pan train: error: ")]
    assert "the job" in line
    assert line.endswith("a training goes on from its last checkpoint; torchrun --max-restarts 3 does it itself")
    assert (out / "checkpoint.safetensors").exists()
    assert not list(out.glob(".*"))


def write_squares(path: Path, images: int) -> None:
    """Pictures of 62 px with one coloured square each, with masks, as an .npz."""
    rng = np.random.default_rng(0)
    query, attribute = rng.integers(0, 2, images), rng.integers(0, 3, images)
    pixels, mask = rng.integers(0, 40, (images, 62, 62, 3), dtype=np.uint8), np.zeros((images, 62, 62), bool)
    for i in range(images):
        pixels[i, 20:40, 5 + 30 * query[i] : 25 + 30 * query[i], attribute[i]] = 220
        mask[i, 20:40, 5 + 30 * query[i] : 25 + 30 * query[i]] = True
    names = {"query_names": np.array(["left", "right"]), "attribute_names": np.array(["red", "green", "blue"])}
    np.savez(path, images=pixels, query=query, attribute=attribute, mask=mask, scale=rng.random(images) * 3, **names)


def evaluated_alike(weights: Path, data: Path, folder: Path) -> dict:
    """The figures that one process and two print, and the rows they write, which must not differ in a byte."""
    outputs = []
    for many in ("one", "two"):
        words = [
            *EVALUATE,
            "--weights",
            str(weights),
            "--data",
            str(data),
            "--rows",
            str(folder / many / "rows.parquet"),
        ]
        if many == "one":
            command = [sys.executable, *words]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
        else:
            done = torchrun(*words)
        outputs.append(finished(done).stdout)
    assert outputs[1] == outputs[0]
    assert outputs[0].count("\n") == 1
    for name in ("rows.parquet", "rows.json"):
        assert (folder / "two" / name).read_bytes() == (folder / "one" / name).read_bytes()
    return json.loads(outputs[0])


@pytest.mark.slow
def test_two_processes_evaluate_to_the_last_digit(tmp_path):
    network = in_processes.tiny_models.build_model(
        "pan-soft-ctx", num_queries=2, num_attributes=3, hidden=4, image_size=62
    )
    names = ("left", "right"), ("red", "green", "blue")
    tensors, described = network.state_dict(), network_folder.describe(network.config, *names)
    network_folder.save(tmp_path / "network", tensors, described)
    write_squares(tmp_path / "squares.npz", 333)  # six batches, the last one small
    summary = evaluated_alike(tmp_path / "network", tmp_path / "squares.npz", tmp_path)
    assert summary["count"] == 333
    assert summary["precision_recall"]["last"]["count"] == 333


@pytest.mark.slow
def test_two_processes_rank_labels_to_the_last_digit(tmp_path):
    write_photographs(tmp_path / "photographs", images=240, broken=(7, 100, 239))
    manifest = tmp_path / "photographs" / "manifest.jsonl"
    rows = [json.loads(line.replace('"validation"', '"test"')) for line in manifest.read_text().splitlines()]
    for row in rows:
        del row["width"], row["height"]  # each process reads the headers of its share
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = from_folder(tmp_path / "photographs", "train", SIDE)
    network = trained_on(train).model
    network_folder.save(tmp_path / "network", network.state_dict(), photographs_about(network, train))
    summary = evaluated_alike(tmp_path / "network", tmp_path / "photographs", tmp_path)
    assert summary["unread"] > 0
    assert summary["weighted_mean_ap"] > 0
    assert summary["query_prior_weighted_mean_ap"] > 0


# What follows needs no second process.


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


def test_a_lost_process_is_told_with_its_remedy():
    with (
        pytest.raises(ConnectionError, match=r"was lost, killed .* \(Connection closed by peer\); start the job again"),
        distributed.exchange(),
    ):
        raise RuntimeError("[/gloo/tcp/pair.cc:545] Connection closed by peer. Look there.\nAnd more")
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
