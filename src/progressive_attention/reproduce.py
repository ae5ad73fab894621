"""``pan reproduce``: train all networks of an experiment, measure each, write tables, pages and figures.

All state is in one folder: ``runs/NAME`` for each job, with its checkpoint, log, best weights and at last result.json.
Any number of processes may work on it, here or later elsewhere: a job is held by a lock that dies with its process,
every finished epoch and every minute is saved, and the same command goes on where the last one was.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from progressive_attention import weights
from progressive_attention.config import SPLITS
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.synthetic import synthetic
from progressive_attention.evaluation import examples, summarise, with_curves
from progressive_attention.experiments import Job
from progressive_attention.files import read_json, write_json
from progressive_attention.machine import commit, hardware
from progressive_attention.metrics.attention import OverlapCurves
from progressive_attention.prepare import prepared
from progressive_attention.training import read_log

TELL_EVERY = 0.5  # seconds between messages of one job
WAIT = 1.0  # seconds until an idle worker looks again for a job whose learning rate others are choosing


@dataclass(frozen=True)
class Message:
    """News of a job: ``training``, ``measuring``, ``finished``, ``stopped`` (out of time) or ``failed``."""

    job: str
    kind: str
    share: float = 0.0  # of its steps, or of its test questions
    left: float = float("nan")  # seconds
    note: str = ""
    epoch: str = ""  # a line when an epoch has just ended


class TimeIsUp(Exception):
    """Raised inside a measurement when the time budget ends: it is short, and made again by the next call."""


def folder_of(job: Job, out: Path) -> Path:
    """Where a job's state is."""
    return out / "runs" / job.name


def is_done(job: Job, out: Path) -> bool:
    """Whether it is trained and measured."""
    return (folder_of(job, out) / "result.json").exists()


def settled(job: Job, out: Path) -> Job | None:
    """The job with its learning rate: that of the candidate which validates best (the lowest of equals).

    None while candidates are unfinished.
    """
    if not job.candidates:
        return job
    if not all(is_done(one, out) for one in job.candidates):
        return None
    scores = {one: read_json(folder_of(one, out) / "result.json")["validation_accuracy"] for one in job.candidates}
    best = max(scores, key=lambda one: (scores[one], -one.recipe.learning_rate))
    return replace(job, recipe=job.recipe.with_changes(learning_rate=best.recipe.learning_rate))


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """All jobs with their candidates before them, each once."""
    return list(dict.fromkeys(one for job in jobs for one in (*job.candidates, job)))


def questions(job: Job, split: str, progress: Callable[[int, int], None] | None = None) -> QuestionSet:
    """A split of the job's data set, from the cache if it was rendered before."""
    queries = job.recipe.queries if split == "train" else "one"
    options = {"protocol": job.protocol, "queries": queries, "seed": job.seed, "images": job.images}
    return synthetic(job.dataset, split, **options, progress=progress)


def render(jobs: Sequence[Job], show: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Render all data sets of the jobs into the cache, before processes would do it beside each other."""
    for key in dict.fromkeys((job.dataset, job.protocol, job.seed, job.images) for job in jobs):
        job = next(one for one in jobs if (one.dataset, one.protocol, one.seed, one.images) == key)
        for split in SPLITS:
            with show(f"rendering {job.dataset}, {split}") as progress:
                questions(job, split, progress)


def trained(job: Job, out: Path, device: torch.device, until: float) -> Iterator[Message]:
    """Train a job to its end or to the end of time, telling how it goes."""
    name, recipe = job.name, job.recipe
    run = prepared(
        *(job.model, questions(job, "train"), questions(job, "validation"), recipe, folder_of(job, out)),
        **{"data": job.dataset, "protocol": job.protocol, "seed": job.seed, "device": device},
        changes=dict(job.network_changes),
    )
    started, first, told = time.monotonic(), None, 0.0
    yield Message(name, "training")
    for step in run:
        now = time.monotonic()
        first = step.step - 1 if first is None else first
        left = (now - started) / (step.step - first) * (step.steps - step.step)
        epoch = ""
        if step.record:
            accuracy, seconds = step.record["validation_accuracy"], step.record["train_seconds"]
            epoch = f"epoch {step.epoch}/{recipe.epochs}, validation accuracy {accuracy:.2%}, {seconds:.0f} s"
        if epoch or now - told > TELL_EVERY:
            told = now
            note = f"epoch {step.epoch}/{recipe.epochs} · loss {step.loss:.3f}"
            yield Message(name, "training", step.step / step.steps, left, note, epoch)
        if now > until and step.step < step.steps:
            run.close()  # saves
            yield Message(name, "stopped")
            return


def measured(job: Job, out: Path, device: torch.device, until: float, command: str) -> Iterator[Message]:
    """Ask a trained network all test questions and write the job's result.json."""
    folder = folder_of(job, out)
    log, best = read_log(folder / "log.jsonl"), read_json(folder / "config.json")["best"]
    result: dict[str, Any] = {"validation_accuracy": best["validation_accuracy"], "best_epoch": best["epoch"]}
    yield Message(job.name, "measuring")
    network = weights.load(folder, device)
    curves = OverlapCurves()

    def watch(done: int, total: int) -> None:
        if time.monotonic() > until:
            raise TimeIsUp

    try:
        table = examples(network, questions(job, "test"), device, overlap=curves, progress=watch)
    except TimeIsUp:
        yield Message(job.name, "stopped")
        return
    summary = with_curves(summarise(table), curves)
    result |= {
        **{"model": job.model, "variant": job.variant, "dataset": job.dataset, "protocol": job.protocol},
        **{"recipe": job.recipe.name, "queries_per_image": job.recipe.queries, "seed": job.seed},
        **{"images": job.images, "epochs": job.recipe.epochs, "learning_rate": job.recipe.learning_rate},
        **{"batch": job.recipe.batch, "recipe_changes": changes_of(job), "network_changes": dict(job.network_changes)},
        **summary,
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "seconds": round(sum(line["train_seconds"] + line["validation_seconds"] for line in log), 1),
        **{"hardware": hardware(device), "commit": commit(), "command": command, "torch": torch.__version__},
    }
    write_json(folder / "result.json", result)
    yield Message(job.name, "finished", 1.0, 0.0, f"test accuracy {summary['accuracy']:.2%}")


def changes_of(job: Job) -> dict[str, float]:
    """What the job's recipe charges beside the answers, where it does."""
    prices = {"gate_price": job.recipe.gate_price, "mask_price": job.recipe.mask_price}
    return {name: price for name, price in prices.items() if price}


def work(jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str) -> Iterator[Message]:
    """Do jobs, in order, that nobody else holds, until none is left that could be begun, or time is up.

    A job that fails is told and left out; nothing is lost of what it saved.
    """
    failed: set[str] = set()
    while time.monotonic() < until:
        waiting = False
        for job in in_order(jobs):
            if is_done(job, out) or job.name in failed:
                continue
            ready = settled(job, out)
            if ready is None:
                waiting = not any(one.name in failed for one in job.candidates)
                continue
            folder_of(job, out).mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(folder_of(job, out) / ".lock", timeout=0):
                    if not is_done(job, out):
                        yield from done(ready, out, device, until, command)
                break  # look from the top again: what waited may be ready
            except Timeout:
                continue
            except (ValueError, OSError) as error:
                failed.add(job.name)
                yield Message(job.name, "failed", note=" ".join(str(error).split()))
                break
        else:
            if not waiting:
                return
            time.sleep(WAIT)


def done(job: Job, out: Path, device: torch.device, until: float, command: str) -> Iterator[Message]:
    """Train and measure a job whose learning rate is settled and whose lock is held."""
    for message in trained(job, out, device, until):
        yield message
        if message.kind == "stopped":
            return
    yield from measured(job, out, device, until, command)


def results(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """What the finished jobs gave, in order; candidates are not among them."""
    return [read_json(folder_of(job, out) / "result.json") for job in jobs if is_done(job, out)]
