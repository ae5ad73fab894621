"""The work of ``pan reproduce``: train and measure the jobs of an experiment, in a folder that keeps all state.

``runs/NAME`` of each job holds its checkpoint, log, best weights and at last result.json. Any number of processes may
work on it, here or later elsewhere: a job is held by a lock that dies with its process, every finished epoch and
every minute is saved, and the same command goes on where the last one was.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from progressive_attention.config import SPLITS
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.evaluate import evaluate_with_rows
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, percent, score_of
from progressive_attention.files import read_json, write_json, write_text
from progressive_attention.progress import stopping
from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.saved import weights
from progressive_attention.saved.weights import Trained
from progressive_attention.training.learner import Diverged
from progressive_attention.training.loop import read_log
from progressive_attention.training.setup import prepared

VOC_SPLITS = "train,validation"  # the papers' choice
VOC_FIGURES = ("count", "rows_with_unknown_query", "by_query")
CELL = ("variant", "model", "dataset", "protocol", "recipe", "queries_per_image", "images", "epochs", "seed")
RESULT, FAILURE, DIVERGED = "result.json", "failed.txt", "diverged.txt"
TELL_EVERY = 0.5  # seconds between messages of one job
WAIT = 1.0  # seconds until an idle worker looks again for a job that others hold


@dataclass(frozen=True)
class Message:
    """News of a job: ``training``, ``measuring``, ``finished``, ``stopped`` (out of time) or ``failed``.

    A worker without a job is ``waiting``.
    """

    job: str
    kind: str
    share: float = 0.0  # of its steps, or of the questions of one measurement
    left: float = math.nan  # seconds of that
    note: str = ""
    epoch: str = ""  # a line when an epoch has just ended


Tell = Callable[[Message], None]
Watch = Callable[[int, int], None]  # told (questions done, all questions)


class TimeIsUp(Exception):
    """The time budget has ended; what was being done is saved or short, and goes on at the next call."""


def folder_of(job: Job, out: Path) -> Path:
    """Where a job's state is."""
    return out / "runs" / job.name


def is_done(job: Job, out: Path) -> bool:
    """Whether it is trained and measured, on the job's VOC, too."""
    path = folder_of(job, out) / RESULT
    return path.exists() and (not job.voc or read_result(path).get("voc_content") == job.voc_content)


def failure_of(job: Job, out: Path) -> str:
    """Why it failed at the last attempt, or a candidate of it, or all of them diverged; "" if it did not."""
    if is_done(job, out):
        return ""
    for path in (folder_of(job, out) / name for name in (FAILURE, DIVERGED)):
        if path.exists():
            return path.read_text(encoding="utf-8")
    left = [one for one in job.candidates if not has_diverged(one, out)]
    if job.candidates and not left:
        return "training diverged with each of its learning rates; try lower ones"
    return next((f"its tuning {one.name} failed: {why}" for one in left if (why := failure_of(one, out))), "")


def has_diverged(job: Job, out: Path) -> bool:
    """Whether its training diverged. A candidate has thereby lost; that is no failure of the job it tunes."""
    return (folder_of(job, out) / DIVERGED).exists() and not is_done(job, out)


def failures(jobs: Sequence[Job], out: Path) -> dict[str, str]:
    """Why jobs and their candidates failed, by name, but for candidates that lost."""
    some = [job for job in in_order(jobs) if job in jobs or not has_diverged(job, out)]
    return {job.name: reason for job in some if (reason := failure_of(job, out))}


def forget_failures(jobs: Sequence[Job], out: Path) -> None:
    """Let what failed be tried again, but for candidates that lost."""
    for job in in_order(jobs):
        for name in (FAILURE, DIVERGED) if job in jobs else (FAILURE,):
            (folder_of(job, out) / name).unlink(missing_ok=True)


def results(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """What the finished jobs gave, in order; candidates are not among them. Raises ValueError as ``read_result``."""
    return [read_result(folder_of(job, out) / RESULT) for job in jobs if is_done(job, out)]


def read_result(path: Path) -> dict[str, Any]:
    """A result.json; raises ValueError for one that does not tell which run it is of."""
    found = read_json(path)
    if not isinstance(found, dict) or not {*CELL, "seconds"} <= found.keys():
        raise ValueError(f"{path} is no result of a run; remove it, and the same command measures that network again")
    return found


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """All jobs with their candidates before them, each once."""
    return list(dict.fromkeys(one for job in jobs for one in (*job.candidates, job)))


def settled(job: Job, out: Path) -> Job | None:
    """The job with its learning rate: that of the candidate which validates best (the lowest of equals).

    A candidate that diverged has lost. None while candidates are unfinished, and if all of them diverged.
    """
    if not job.candidates:
        return job
    if not all(is_done(one, out) or has_diverged(one, out) for one in job.candidates):
        return None
    found = [(best_score(one), -one["learning_rate"]) for one in results(job.candidates, out)]
    return replace(job, recipe=job.recipe.with_changes(learning_rate=-max(found)[1])) if found else None


def best_score(result: dict[str, Any]) -> float:
    """What a finished run reached in validation."""
    return next(result[name] for name in VALIDATION_SCORES if name in result)


def questions(job: Job, split: str, progress: Callable[[int, int], None] | None = None) -> QuestionSet:
    """A split of the job's data set, from its folder, or from the cache if it was rendered before."""
    if job.folder:
        return from_folder(Path(job.folder), split, image_size(job))
    queries = job.recipe.queries if split == "train" else "one"
    options = {"protocol": job.protocol, "queries": queries, "seed": job.seed, "images": job.images}
    return synthetic(job.dataset, split, **options, progress=progress)


def image_size(job: Job) -> int:
    """The side of the squares into which a folder's images are fitted."""
    return dict(job.network_changes).get("image_size", 224)


def render(jobs: Sequence[Job], until: float, show: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Render all data sets of the jobs into the cache, before processes would do it beside each other.

    ``show(title)`` gives what is told (scenes done, all scenes). Raises TimeIsUp.
    """
    of_set = {(job.dataset, job.protocol, job.seed, job.images): job for job in reversed(jobs) if not job.folder}
    for job in reversed(of_set.values()):
        for split in SPLITS:
            in_time(until)
            with show(f"rendering {job.dataset}, {split}") as tell, warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"\d+ tasks .* have been cancelled")  # joblib's, when time is up

                def progress(done: int, total: int, tell: Any = tell) -> None:
                    tell(done, total)
                    if done < total:
                        in_time(until)

                questions(job, split, progress)


def in_time(until: float) -> None:
    """Raise TimeIsUp when it is."""
    if time.monotonic() > until:
        raise TimeIsUp


def work(jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str, tell: Tell) -> None:
    """Do jobs, in order, that nobody else holds, until all are done, by whomever, or time is up.

    A job that fails is told and left out; nothing is lost of what it saved.
    """
    with suppress(TimeIsUp):
        while left := [job for job in in_order(jobs) if not is_done(job, out) and not failure_of(job, out)]:
            in_time(until)
            if not any(attempted(job, out, device, until, command, tell) for job in left):
                tell(Message("", "waiting"))
                time.sleep(min(WAIT, max(0.0, until - time.monotonic())))


def attempted(job: Job, out: Path, device: torch.device, until: float, command: str, tell: Tell) -> bool:
    """Do a job; False if others hold it, or are choosing its learning rate. Raises TimeIsUp."""
    folder = folder_of(job, out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            try:
                ready = settled(job, out)
                if ready is not None and not is_done(job, out) and not failure_of(job, out):
                    train(ready, out, device, until, tell)
                    measure(ready, out, device, until, command, tell)
                return ready is not None
            except TimeIsUp:
                tell(Message(job.name, "stopped"))
                raise
            except (ValueError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's, of memory too
                reason = " ".join(str(error).split()) or type(error).__name__
                mark = DIVERGED if isinstance(error, Diverged) else FAILURE
                write_text(folder / mark, reason)  # before the lock goes, so that no other worker tries in vain
                tell(Message(job.name, "failed", note=reason))
    except Timeout:
        return False
    return True


def train(job: Job, out: Path, device: torch.device, until: float, tell: Tell) -> None:
    """Train a job to its end, telling how it goes. Raises TimeIsUp, all saved."""
    name, recipe = job.name, job.recipe
    validation = questions(job, "validation")
    run = prepared(
        *(job.model, questions(job, "train"), validation, recipe, folder_of(job, out)),
        **{"data": job.dataset, "protocol": job.protocol, "seed": job.seed, "device": device},
        changes=dict(job.network_changes),
        backbone_weights=job.backbone_weights,
        keep_epochs=job.keep_epochs,
    )
    log = read_log(folder_of(job, out) / "log.jsonl")
    validating = log[-1]["validation_seconds"] if log else math.nan
    tell(Message(name, "training"))
    started, first, told = time.monotonic(), None, 0.0
    with stopping() as stop, closing(run):  # which saves
        for step in run:
            stop()
            now = time.monotonic()
            if first is None:
                started, first = now, step.step
            pace = (now - started) / max(1, step.step - first)
            epoch = ""
            if step.record:
                validating = step.record["validation_seconds"]
                score, seconds = score_of(step.record), step.record["train_seconds"]
                epoch = f"epoch {step.epoch}/{recipe.epochs}, {score}, {seconds:.0f} s"
            if epoch or now - told > TELL_EVERY:
                told = now
                left = pace * (step.steps - step.step) if step.step > first else math.nan
                note = f"epoch {step.epoch}/{recipe.epochs} · loss {step.loss:.3f}"
                tell(Message(name, "training", step.step / step.steps, left, note, epoch))
            ends_epoch = (step.step + 1) % (step.steps // recipe.epochs) == 0  # the next step: then it validates
            guess = pace * len(validation) / recipe.batch / 3  # as many images as in training, but forward alone
            reserve = guess if math.isnan(validating) else validating
            if step.step < step.steps:
                in_time(until - reserve if ends_epoch else until)


def measure(job: Job, out: Path, device: torch.device, until: float, command: str, tell: Tell) -> None:
    """Ask a trained network all test questions and write the job's result.json. Raises TimeIsUp."""
    folder = folder_of(job, out)
    log, best = read_log(folder / "log.jsonl"), read_json(folder / "config.json").get("best")
    if best is None:
        raise ValueError(f"{folder / 'config.json'} tells of no epoch; remove {folder}, and it is trained anew")
    tell(Message(job.name, "measuring"))
    network = weights.load(folder, device)

    def watch() -> Watch:
        started = told = time.monotonic()

        def each(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told > TELL_EVERY:
                told = now
                tell(Message(job.name, "measuring", done / total, (now - started) / done * (total - done)))
            if done < total:
                in_time(until)

        return each

    measured = measured_labels if job.folder else measured_answers
    result: dict[str, Any] = {
        **{"model": job.model, "variant": job.variant, "dataset": job.dataset, "protocol": job.protocol},
        **{"recipe": job.recipe.name, "queries_per_image": job.recipe.queries, "seed": job.seed},
        **{"images": job.images, "epochs": job.recipe.epochs, "learning_rate": job.recipe.learning_rate},
        **job.told,
        **{name: best[name] for name in VALIDATION_SCORES if name in best},
        "best_epoch": best["epoch"],
        **measured(job, network, device, watch),
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "seconds": round(sum(line["train_seconds"] + line["validation_seconds"] for line in log), 1),
        **{"hardware": hardware(device), "commit": commit(), "command": command, "torch": torch.__version__},
    }
    write_json(folder / RESULT, result)
    name, key = ("weighted mAP", "weighted_mean_ap") if job.folder else ("accuracy", "accuracy")
    score = f"{name} {percent(result[key])}"
    tell(Message(job.name, "finished", 1.0, 0.0, f"test {score}"))


def measured_answers(job: Job, network: Trained, device: torch.device, watch: Callable[[], Watch]) -> dict[str, Any]:
    """``OneOf.figures`` of the test scenes."""
    return evaluate_with_rows(network, questions(job, "test"), device, progress=watch())[0]


def measured_labels(job: Job, network: Trained, device: torch.device, watch: Callable[[], Watch]) -> dict[str, Any]:
    """``AnyOf.figures`` of a folder's test questions, and of attention in VOC's masks, named voc_...

    Each has its own ``watch()``, for its own pace.
    """
    test, train = questions(job, "test"), questions(job, "train")
    figures = evaluate_with_rows(network, test, device, train, progress=watch())[0]
    if job.voc:
        voc = from_folder(Path(job.voc), VOC_SPLITS, image_size(job))
        seen = evaluate_with_rows(network, voc, device, progress=watch())[0]
        figures |= {"voc": job.voc, "voc_content": job.voc_content}
        figures |= {f"voc_{name}": seen[name] for name in seen if name in VOC_FIGURES or name.startswith("tpr_mask_")}
    return figures
