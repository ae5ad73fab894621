"""The work of pan reproduce: interrupted anywhere it ends the same, and no two workers do one job."""

import json
import math
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from tiny_jobs import CPU, do, jobs, pretend, result_of, tuned

from progressive_attention.files import read_json, write_text
from progressive_attention.network.build import from_config, model_config
from progressive_attention.reproduce import jobs as reproduce
from progressive_attention.reproduce.jobs import (
    Message,
    TimeIsUp,
    failure_of,
    folder_of,
    forget_failures,
    in_order,
    is_done,
    render,
)
from progressive_attention.saved import weights
from progressive_attention.training.loop import read_log

(SAN,) = jobs("san")


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    """Scenes are rendered once for all of these tests; every step is told."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
    monkeypatch.setattr(reproduce, "TELL_EVERY", 0.0)


class Clock(SimpleNamespace):
    """A second passes whenever somebody looks."""

    def __init__(self):
        super().__init__(now=0.0, waited=0.0)

    def monotonic(self):
        self.now += 1
        return self.now

    def sleep(self, seconds):
        self.waited += seconds
        self.now += seconds


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """SAN's folder after an uninterrupted run, and all that was told."""
    told: list[Message] = []
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
        patch.setattr(reproduce, "TELL_EVERY", 0.0)
        do([SAN], out, told.append)
    return out, told


def test_what_is_told(finished):
    out, told = finished
    assert {one.job for one in told} == {SAN.name}
    assert [kind for kind, _ in Counter(one.kind for one in told).items()] == ["training", "measuring", "finished"]
    steps = [one for one in told if one.kind == "training" and one.share]
    assert [one.share for one in steps] == [i / 8 for i in range(1, 9)]
    assert [bool(one.epoch) for one in steps] == [False, False, False, True] * 2
    assert steps[3].epoch.startswith("epoch 1/2, validation accuracy ")
    assert math.isnan(steps[0].left)
    assert all(one.left > 0 for one in steps[1:-1])
    assert steps[-1].left == 0
    accuracy = read_json(folder_of(SAN, out) / "result.json")["accuracy"]
    assert told[-1].note == f"test accuracy {accuracy:.2%}"


def test_result_says_how_it_was_made(finished):
    result = read_json(folder_of(SAN, finished[0]) / "result.json")
    cell = ("variant", "model", "dataset", "protocol", "recipe", "queries_per_image", "images", "epochs", "seed")
    assert tuple(result[key] for key in cell) == SAN.cell
    assert (result["batch"], result["recipe_changes"], result["network_changes"]) == (8, {"bf16": False}, {})
    assert result["count"] == 10
    log = read_log(folder_of(SAN, finished[0]) / "log.jsonl")
    assert result["validation_accuracy"] == max(line["validation_accuracy"] for line in log)
    assert result["seconds"] == pytest.approx(
        sum(line["train_seconds"] + line["validation_seconds"] for line in log), abs=0.06
    )


def test_epochs_to_keep_are_kept(finished, tmp_path):
    (job,) = jobs("san", keep_epochs=(1,))
    do([job], tmp_path)
    assert result_of(job, tmp_path) == result_of(SAN, finished[0])
    kept = weights.load(folder_of(job, tmp_path) / "epochs" / "1")
    assert kept.about["epoch"]["epoch"] == 1


def test_nothing_is_done_twice(finished):
    told: list[Message] = []
    do([SAN], finished[0], told.append)
    assert told == []


def test_interrupted_after_every_other_step_it_ends_the_same(finished, tmp_path):
    class Interrupt(BaseException):
        pass

    for call in range(1, 5):
        seen = 0

        def tell(message):
            nonlocal seen
            seen += message.share > 0
            if seen == 2:
                raise Interrupt

        with pytest.raises(Interrupt):
            do([SAN], tmp_path, tell)
        log = folder_of(SAN, tmp_path) / "log.jsonl"
        assert (call, len(read_log(log))) in {(1, 0), (2, 1), (3, 1), (4, 2)}
    told: list[Message] = []
    do([SAN], tmp_path, told.append)
    assert [one.kind for one in told] == ["training", "measuring", "measuring", "finished"]
    assert result_of(SAN, tmp_path) == result_of(SAN, finished[0])


def test_small_budgets_of_time_add_up(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "time", clock := Clock())
    calls = 0
    while not is_done(SAN, tmp_path):
        told: list[Message] = []
        until = clock.now + 6
        do([SAN], tmp_path, told.append, until)
        assert clock.now <= until + 2  # nothing was begun after it
        assert is_done(SAN, tmp_path) or told[-1].kind == "stopped"
        calls += 1
    assert calls >= 3
    assert result_of(SAN, tmp_path) == result_of(SAN, finished[0])


def test_no_epoch_ends_without_time_to_validate(tmp_path):
    def until_first_epoch(message):
        if message.epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do([SAN], tmp_path, until_first_epoch)
    log = folder_of(SAN, tmp_path) / "log.jsonl"
    write_text(log, log.read_text().replace('"validation_seconds": ', '"validation_seconds": 10000'))
    told: list[Message] = []
    do([SAN], tmp_path, told.append, time.monotonic() + 5000)
    assert [one.kind for one in told[-2:]] == ["training", "stopped"]
    assert told[-2].share == 7 / 8
    assert len(read_log(log)) == 1


def test_time_is_kept_for_the_first_validation_too(tmp_path, monkeypatch):
    """Nothing is known of it yet; a third of what as many images take in training is guessed."""
    given = []
    monkeypatch.setattr(reproduce, "in_time", given.append)
    reproduce.train(SAN, tmp_path, CPU, 1e6, lambda message: None)
    assert [until < 1e6 for until in given] == [False, False, True, False, False, False, True]


def test_time_can_be_up_while_voc_is_measured(monkeypatch):
    asked = []

    def evaluate(network, test, device, train=None, *, progress):
        progress(1, 2)
        asked.append(test)
        return {}, None

    def watch():
        return lambda done, total: reproduce.in_time(-math.inf if asked else math.inf)

    monkeypatch.setattr(reproduce, "evaluate_with_rows", evaluate)
    monkeypatch.setattr(reproduce, "questions", lambda job, split: split)
    monkeypatch.setattr(reproduce, "from_folder", lambda folder, split, side: "voc")
    with pytest.raises(reproduce.TimeIsUp):
        reproduce.measured_labels(replace(SAN, voc="voc"), None, CPU, watch)
    assert asked == ["test"]


def test_a_job_that_is_done_did_not_fail(tmp_path):
    """Say, when nobody listened any more while its end was told."""
    pretend(SAN, tmp_path)
    write_text(folder_of(SAN, tmp_path) / "failed.txt", "Input/output error")
    assert failure_of(SAN, tmp_path) == ""


def test_a_job_with_another_voc_is_measured_again(tmp_path):
    on_voc = replace(SAN, voc="voc", voc_content="1f3a")
    pretend(SAN, tmp_path)
    assert is_done(SAN, tmp_path)
    assert not is_done(on_voc, tmp_path)
    pretend(SAN, tmp_path, voc="elsewhere/voc", voc_content="1f3a")
    assert is_done(on_voc, tmp_path)
    assert not is_done(replace(on_voc, voc_content="77c0"), tmp_path)  # imported again, otherwise


@pytest.mark.parametrize("content", ["{}", "[]", '{"model": "san"}', "{"])
def test_a_broken_result_is_named(tmp_path, content):
    pretend(SAN, tmp_path)
    write_text(path := folder_of(SAN, tmp_path) / "result.json", content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*"):
        reproduce.results([SAN], tmp_path)


def test_a_network_without_an_epoch_is_told(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "state")
    folder = folder_of(SAN, tmp_path / "state")
    about = read_json(folder / "config.json")
    write_text(folder / "config.json", json.dumps({key: about[key] for key in about if key != "best"}))
    with pytest.raises(ValueError, match=r"config.json tells of no epoch; remove .*, and it is trained anew"):
        reproduce.measure(SAN, tmp_path / "state", CPU, math.inf, "pan", lambda message: None)


def test_out_of_time_nothing_is_begun(tmp_path):
    told: list[Message] = []
    do([SAN], tmp_path, told.append, time.monotonic() - 1)
    assert told == []
    assert not list(tmp_path.iterdir())
    with pytest.raises(TimeIsUp):
        render([SAN], time.monotonic() - 1, lambda title: pytest.fail(title))


def test_measurement_stops_in_time_and_leaves_no_result(tmp_path):
    (job,) = jobs("san", images=600)  # 200 test questions are more than one batch
    torch.manual_seed(0)
    model = from_config(model_config("san", 10, 5))
    about = weights.describe(model.config, tuple("0123456789"), ("red", "green", "blue", "yellow", "white"))
    weights.save(
        folder_of(job, tmp_path), model.state_dict(), {**about, "best": {"validation_accuracy": 0, "epoch": 1}}
    )
    with pytest.raises(TimeIsUp):
        reproduce.measure(job, tmp_path, CPU, time.monotonic(), "pan", lambda message: None)
    assert not is_done(job, tmp_path)
    told: list[Message] = []
    reproduce.measure(job, tmp_path, CPU, math.inf, "pan", told.append)
    assert [one.share for one in told] == [0, 64 / 200, 128 / 200, 192 / 200, 1, 1]
    assert is_done(job, tmp_path)


def test_rendering_stops_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "empty"))
    shown = []

    class Show:
        def __init__(self, title):
            shown.append(title)

        def __enter__(self):
            return lambda done, total: shown.append((done, total))

        def __exit__(self, *stop):
            return None

    monkeypatch.setattr(reproduce, "time", clock := Clock())
    some = [*jobs("san", "han", images=480), *jobs("san", images=30)]
    with pytest.raises(TimeIsUp):
        render(some, clock.now + 1.5, Show)
    assert len(shown) == 2  # a title, and the first of several calls
    shown.clear()
    render(some, math.inf, Show)
    assert [one for one in shown if isinstance(one, str)] == 2 * [
        f"rendering mref, {split}" for split in ("train", "validation", "test")
    ]
    shown.clear()
    render(some, math.inf, Show)
    assert not [one for one in shown if not isinstance(one, str)]  # from the cache


def test_folder_goes_on_elsewhere(finished, tmp_path):
    def at_step_3(message):
        if message.share == 3 / 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do([SAN], tmp_path / "here", at_step_3)
    with FileLock(folder_of(SAN, tmp_path / "here") / ".lock"):  # as if it still ran here
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        told: list[Message] = []
        do([SAN], tmp_path / "there", told.append)
    assert min(one.share for one in told if one.share) == 4 / 8
    assert result_of(SAN, tmp_path / "there") == result_of(SAN, finished[0])


def test_failure_is_told_and_the_others_finish(tmp_path):
    (bad,) = jobs("san", learning_rates=(1e30,), variant="far too fast")
    told: list[Message] = []
    do([bad, SAN], tmp_path, told.append)
    (failed,) = [one for one in told if one.kind == "failed"]
    assert failed.job == bad.name
    assert "training diverged" in failed.note
    assert failure_of(bad, tmp_path) == failed.note
    assert is_done(SAN, tmp_path)
    told.clear()
    do([bad, SAN], tmp_path, told.append)  # another worker of the same call does not try again
    assert told == []
    forget_failures([bad, SAN], tmp_path)  # the next call does
    assert failure_of(bad, tmp_path) == ""


def test_workers_share_and_do_nothing_twice(tmp_path, monkeypatch):
    """Threads with made-up trainings: tests/flows/test_campaign.py has whole processes."""
    begun: list[tuple[str, str]] = []

    def train(job, out, *rest):
        begun.append((job.name, threading.current_thread().name))
        time.sleep(0.05)

    monkeypatch.setattr(reproduce, "WAIT", 0.01)
    monkeypatch.setattr(reproduce, "train", train)
    monkeypatch.setattr(reproduce, "measure", lambda job, out, *rest: pretend(job, out, validation_accuracy=0.5))
    some = [*tuned("san", "han", seeds=(0, 1)), *jobs("concat", "film")]
    workers = [threading.Thread(target=do, args=(some, tmp_path)) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert sorted(name for name, _ in begun) == sorted(job.name for job in in_order(some))
    assert len({thread for _, thread in begun}) == 4


def test_worker_waits_for_what_others_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "WAIT", 0.01)
    told: list[Message] = []
    lock = FileLock(folder_of(SAN, tmp_path) / ".lock")
    folder_of(SAN, tmp_path).mkdir(parents=True)

    def tell(message):
        told.append(message)
        if len(told) == 3:
            lock.release()  # the other one was killed

    lock.acquire()
    do([SAN], tmp_path, tell)
    assert [one.kind for one in told[:4]] == ["waiting", "waiting", "waiting", "training"]
    assert is_done(SAN, tmp_path)
