"""Several processes, by real torchrun: together they take the steps that one would, and give the same figures."""

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
from in_processes import CASES, NORMED
from safetensors.torch import load_file
from tiny_photographs import SIDE, write_photographs
from tiny_photographs import about as photographs_about
from tiny_photographs import network as photograph_network
from tiny_runs import results
from torch import nn
from torchrun import LAUNCHER, assert_same_gradient, environment, finished, job, torchrun

from progressive_attention.data.manifest import from_folder
from progressive_attention.data.questions import make_batch
from progressive_attention.network.build import build_model
from progressive_attention.saved import network_folder
from progressive_attention.training.loop import order_in_epoch, read_log

pytestmark = pytest.mark.slow
EVALUATE = ["-m", "progressive_attention", "evaluate", "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    assert "Warning" not in finished(job("gradients", folder)).stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one(name, of_two, tmp_path):
    expected = in_processes.gradients(CASES[name], tmp_path)
    assert_same_gradient(load_file(of_two / f"{name}.safetensors"), expected)


@pytest.mark.parametrize("name", NORMED)
def test_batch_norms_see_their_own_process_and_average_what_they_learn(name, of_two):
    """By hand: each part's loss over the number of all questions, by itself; a single question is not normed."""
    case = NORMED[name]
    questions = case.questions()
    groups = questions.groups(together=True)
    (order,) = order_in_epoch(len(groups), case.recipe, 0, 0)
    model = case.network(fixed=False)
    learnt = []
    for part in (order[::2], order[1::2]):
        model.load_state_dict(case.network(fixed=False).state_dict())
        model.train()
        batch = make_batch(questions, [groups[i] for i in part])
        asked = batch.query >= 0
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(bool(asked.sum() > 1))
        if asked.any():
            image = torch.from_numpy(questions.images[batch.image]).permute(0, 3, 1, 2).float() / 255
            logit = model(image, torch.from_numpy(batch.query)).logit[torch.from_numpy(asked)]
            right = logit.gather(1, torch.from_numpy(batch.attribute[asked])[:, None])
            (-right.sum() / len(questions)).backward()
        learnt.append({key: value.clone() for key, value in model.named_buffers() if "running" in key})
    expected = {f"gradient of {key}": parameter.grad for key, parameter in model.named_parameters()}
    expected |= {key: (value + learnt[1][key]) / 2 for key, value in learnt[0].items()}
    assert_same_gradient(load_file(of_two / f"{name}.safetensors"), expected)


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


@pytest.mark.parametrize("name", ["squares", "begun"])
def test_a_whole_run_in_two_processes_is_that_of_one(name, wholes):
    one, two = (load_file(wholes / many / name / "checkpoint.safetensors") for many in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["photographs", "frozen"])
def test_labels_unreadable_images_and_frozen_stages(name, wholes):
    one, two = (read_log(wholes / many / name / "log.jsonl") for many in ("one", "two"))
    assert len(one) == len(two) == 3
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-3)
        assert theirs["step"] == mine["step"]
    score = "validation_weighted_mean_ap"
    assert two[0][score] == pytest.approx(one[0][score], rel=1e-6)


def test_a_killed_worker_costs_nothing_when_torchrun_starts_again(tmp_path):
    """With dropout, and batch norms that learn: the job of two processes goes on exactly."""
    finished(job("undisturbed", tmp_path / "undisturbed"))
    finished(job("killed", tmp_path / "killed", restarts=1))
    assert results(tmp_path / "killed" / "run") == results(tmp_path / "undisturbed" / "run")


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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker by /proc")
def test_a_killed_worker_ends_the_job_with_one_line(tmp_path):
    data, out, port = tmp_path / "squares.npz", tmp_path / "run", str(free_port())
    write_squares(data, 60)
    train = ["-m", "progressive_attention", "train", "--data", str(data), "--epochs", "1000", "--batch", "8"]
    words = [*LAUNCHER, "--master-port", port, *train, "--device", "cpu", "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as run:
        until = time.monotonic() + 120
        while not (out / "checkpoint.safetensors").exists():
            assert time.monotonic() < until
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.1)
        os.kill(worker(port, 1), signal.SIGKILL)
        printed, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert printed == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("pan train: error: ")]
    assert "--max-restarts 3" in line
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
    """The figures of ``pan evaluate``, of which one process and two print and write the same bytes."""
    outputs = []
    for many in ("one", "two"):
        rows = folder / many / "rows.parquet"
        words = [*EVALUATE, "--weights", str(weights), "--data", str(data), "--rows", str(rows)]
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


def test_two_processes_evaluate_to_the_last_digit(tmp_path):
    network = build_model("pan-soft-ctx", num_queries=2, num_attributes=3, hidden=4, image_size=62)
    about = network_folder.describe(network.config, ("left", "right"), ("red", "green", "blue"))
    network_folder.save(tmp_path / "network", network.state_dict(), about)
    write_squares(tmp_path / "squares.npz", 333)  # six batches, the last one small
    summary = evaluated_alike(tmp_path / "network", tmp_path / "squares.npz", tmp_path)
    assert summary["count"] == summary["precision_recall"]["last"]["count"] == 333


def test_two_processes_rank_labels_to_the_last_digit(tmp_path):
    write_photographs(tmp_path / "photographs", images=240, broken=(7, 100, 239))
    manifest = tmp_path / "photographs" / "manifest.jsonl"
    rows = [json.loads(line.replace('"validation"', '"test"')) for line in manifest.read_text().splitlines()]
    for row in rows:
        del row["width"], row["height"]  # each process reads the headers of its share
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = from_folder(tmp_path / "photographs", "train", SIDE)
    network = photograph_network(train)
    network_folder.save(tmp_path / "network", network.state_dict(), photographs_about(network, train))
    summary = evaluated_alike(tmp_path / "network", tmp_path / "photographs", tmp_path)
    assert summary["unread"] > 0
    assert min(summary["weighted_mean_ap"], summary["query_prior_weighted_mean_ap"]) > 0
