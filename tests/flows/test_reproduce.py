"""The work of pan reproduce: interrupted anywhere it ends the same, and no two workers do one job."""

import math
import re
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from tiny_jobs import CPU, do, jobs, pretend, result_of

from progressive_attention.files import read_json, write_text
from progressive_attention.network.build import from_config, model_config
from progressive_attention.reproduce import jobs as reproduce
from progressive_attention.reproduce.jobs import TimeIsUp, failure_of, folder_of, is_done, render
from progressive_attention.saved import describe, load, save
from progressive_attention.training.loop import read_log

(SAN,) = jobs("san")


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    """Scenes are rendered once for all of these tests."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


class Clock(SimpleNamespace):
    """A second passes whenever somebody looks."""

    def __init__(self):
        super().__init__(now=0.0)

    def monotonic(self):
        self.now += 1
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Interrupt(BaseException):
    pass


def interrupt_at(share: float):
    def report(news):
        if news.what == "training" and news.share >= share:
            raise Interrupt

    return report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """SAN's folder after an uninterrupted run, and all news of it."""
    news: list[reproduce.News] = []
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
        do([SAN], out, news.append)
    return out, news


def test_every_step_epoch_and_end_is_reported(finished):
    out, news = finished
    assert {one.job for one in news} == {SAN.name}
    assert list(dict.fromkeys(one.what for one in news)) == ["training", "measuring", "finished"]
    steps = [one for one in news if one.what == "training"]
    assert [one.share for one in steps] == [i / 8 for i in range(1, 9)]
    assert [bool(one.line) for one in steps] == [False, False, False, True] * 2
    assert steps[3].line.startswith("epoch 1/2, validation accuracy ")
    accuracy = read_json(folder_of(SAN, out) / "result.json")["accuracy"]
    assert news[-1].line == f"finished: test accuracy {accuracy:.2%}"


def test_result_says_how_it_was_made(finished):
    result = read_json(folder_of(SAN, finished[0]) / "result.json")
    assert result.items() >= SAN.description.items()
    assert (result["batch"], result["recipe_changes"], result["network_changes"]) == (8, {"bf16": False}, {})
    assert result["count"] == 10
    log = read_log(folder_of(SAN, finished[0]) / "log.jsonl")
    assert result["validation_accuracy"] == max(line["validation_accuracy"] for line in log)
    seconds = sum(line["train_seconds"] + line["validation_seconds"] for line in log)
    assert result["seconds"] == pytest.approx(seconds, abs=0.06)


def test_epochs_to_keep_are_kept(finished, tmp_path):
    (job,) = jobs("san", keep_epochs=(1,))
    do([job], tmp_path)
    assert result_of(job, tmp_path) == result_of(SAN, finished[0])
    kept = load(folder_of(job, tmp_path) / "epochs" / "1")
    assert kept.about["epoch"]["epoch"] == 1


def test_interrupted_after_every_other_step_it_ends_the_same(finished, tmp_path):
    log = folder_of(SAN, tmp_path) / "log.jsonl"
    for share, epochs in ((2 / 8, 0), (4 / 8, 1), (6 / 8, 1), (8 / 8, 2)):
        with pytest.raises(Interrupt):
            do([SAN], tmp_path, interrupt_at(share))
        assert len(read_log(log)) == epochs
    news: list[reproduce.News] = []
    do([SAN], tmp_path, news.append)
    assert "training" not in [one.what for one in news]
    assert result_of(SAN, tmp_path) == result_of(SAN, finished[0])
    news.clear()
    do([SAN], tmp_path, news.append)  # nothing is done twice
    assert news == []


def test_small_budgets_of_time_add_up(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "time", clock := Clock())
    calls = 0
    while not is_done(SAN, tmp_path):
        news: list[reproduce.News] = []
        until = clock.now + 6
        do([SAN], tmp_path, news.append, until)
        assert clock.now <= until + 2  # nothing was begun after it
        assert is_done(SAN, tmp_path) or news[-1].what == "stopped"
        calls += 1
    assert calls >= 3
    assert result_of(SAN, tmp_path) == result_of(SAN, finished[0])


def test_a_job_with_another_voc_is_measured_again(tmp_path):
    on_voc = replace(SAN, voc="voc", voc_content="1f3a")
    pretend(SAN, tmp_path)
    assert is_done(SAN, tmp_path)
    assert not is_done(on_voc, tmp_path)
    pretend(SAN, tmp_path, voc="elsewhere/voc", voc_content="1f3a")
    assert is_done(on_voc, tmp_path)
    assert not is_done(replace(on_voc, voc_content="77c0"), tmp_path)  # imported again, otherwise
    write_text(folder_of(SAN, tmp_path) / "failed.txt", "Input/output error")  # while its end was reported
    assert failure_of(SAN, tmp_path) == ""


@pytest.mark.parametrize("content", ['{"model": "san"}', "{"])
def test_a_broken_result_is_named(tmp_path, content):
    pretend(SAN, tmp_path)
    write_text(path := folder_of(SAN, tmp_path) / "result.json", content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*"):
        reproduce.results([SAN], tmp_path)


def test_measurement_stops_in_time_and_leaves_no_result(tmp_path):
    (job,) = jobs("san", images=600)  # 200 test questions are more than one batch
    torch.manual_seed(0)
    model = from_config(model_config("san", 10, 5))
    about = describe(model.config, tuple("0123456789"), ("red", "green", "blue", "yellow", "white"))
    best = {"validation_accuracy": 0, "epoch": 1}
    save(folder_of(job, tmp_path), model.state_dict(), {**about, "best": best})
    with pytest.raises(TimeIsUp):
        reproduce.measure(job, tmp_path, CPU, time.monotonic(), "pan", lambda news: None)
    assert not is_done(job, tmp_path)
    news: list[reproduce.News] = []
    reproduce.measure(job, tmp_path, CPU, math.inf, "pan", news.append)
    assert [one.share for one in news] == [64 / 200, 128 / 200, 192 / 200, 1, 1]
    assert is_done(job, tmp_path)


def test_rendering_stops_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "empty"))
    titles, calls = [], []

    def show(title):
        titles.append(title)
        return nullcontext(lambda done, total: calls.append((done, total)))

    monkeypatch.setattr(reproduce, "time", clock := Clock())
    some = [*jobs("san", "han", images=480), *jobs("san", images=30)]
    with pytest.raises(TimeIsUp):
        render(some, clock.now + 1.5, show)
    assert (len(titles), len(calls)) == (1, 1)
    titles.clear()
    render(some, math.inf, show)
    assert titles == 2 * [f"rendering mref, {split}" for split in ("train", "validation", "test")]
    calls.clear()
    render(some, math.inf, show)
    assert not calls  # from the cache


def test_folder_goes_on_elsewhere(finished, tmp_path):
    with pytest.raises(Interrupt):
        do([SAN], tmp_path / "here", interrupt_at(3 / 8))
    with FileLock(folder_of(SAN, tmp_path / "here") / ".lock"):  # as if it still ran here
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        news: list[reproduce.News] = []
        do([SAN], tmp_path / "there", news.append)
    assert news[0].share == 4 / 8
    assert result_of(SAN, tmp_path / "there") == result_of(SAN, finished[0])


def test_failure_is_reported_and_the_others_finish(tmp_path):
    (bad,) = jobs("san", learning_rates=(1e30,), variant="far too fast")
    news: list[reproduce.News] = []
    do([bad, SAN], tmp_path, news.append)
    (failed,) = [one for one in news if one.what == "failed"]
    assert failed.job == bad.name
    assert "training diverged" in failed.line
    assert failed.line == f"failed: {failure_of(bad, tmp_path)}"
    assert is_done(SAN, tmp_path)
    news.clear()
    do([bad, SAN], tmp_path, news.append)  # another worker of the same call does not try again
    assert news == []


def test_no_epoch_ends_without_time_to_validate(tmp_path):
    with pytest.raises(Interrupt):
        do([SAN], tmp_path, interrupt_at(4 / 8))
    log = folder_of(SAN, tmp_path) / "log.jsonl"
    write_text(log, log.read_text().replace('"validation_seconds": ', '"validation_seconds": 10000'))
    news: list[reproduce.News] = []
    do([SAN], tmp_path, news.append, time.monotonic() + 5000)
    assert [one.what for one in news[-2:]] == ["training", "stopped"]
    assert news[-2].share == 7 / 8
    assert len(read_log(log)) == 1
