"""Several processes, by real torchrun: they take the steps that one takes, and give the same figures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import in_processes
import numpy as np
import pytest
import torch
from free_port import free_port
from safetensors.torch import load_file
from test_label_evaluation import trained_on
from tiny_photographs import SIDE, write_photographs
from tiny_photographs import about as photographs_about
from tiny_runs import results

from progressive_attention.data.manifest import from_folder
from progressive_attention.saved import network_folder
from progressive_attention.training.loop import read_log

HERE = Path(__file__).parents[1] / "support"
EVALUATE = ("-m", "progressive_attention", "evaluate", "--device", "cpu", "--json")


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def torchrun(*command: object, restarts: int = 0, **more: str) -> subprocess.CompletedProcess:
    """A command in two processes; ``more`` goes into their environment."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words = [*launcher, "--master-port", str(free_port()), "--max-restarts", str(restarts), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment(**more), timeout=300)


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
    assert "ConnectionError: an exchange between the job's processes failed (" in done.stderr
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
    data, out, port = tmp_path / "squares.npz", tmp_path / "run", str(free_port())
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
