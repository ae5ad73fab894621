"""The work of ``pan reproduce``: train and measure the jobs of an experiment, in a folder that keeps all state.

``runs/NAME`` of each job holds its checkpoint, log, best weights and at last result.json. Any number of processes may
work on it, here or later elsewhere: a job is held by a lock that dies with its process, every finished epoch and
every minute is saved, and the same command goes on where the last one was.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import torch
from filelock import FileLock, Timeout

from progressive_attention.config import SPLITS
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.answers import summarise_labels
from progressive_attention.evaluation.evaluate import evaluate_with_rows
from progressive_attention.evaluation.kept import name_of, rows_path, write_measured
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, percent, score_of
from progressive_attention.files import read_json, write_json, write_text
from progressive_attention.progress import stopping
from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.machine import commit, hardware
from progressive_attention.reproduce.runs import CELL
from progressive_attention.saved import Trained, load
from progressive_attention.training.loop import read_log
from progressive_attention.training.setup import prepared

VOC_SPLITS = "train,validation"  # the papers' choice
VOC_FIGURES = ("count", "rows_with_unknown_query", "queries_not_asked", "queries_asked_as", "by_query")
RESULT, FAILURE = "result.json", "failed.txt"
WAIT = 1.0  # seconds until an idle worker looks again for a job that others hold


class News(NamedTuple):
    """Of a job: how far it is with ``what`` ("training"), as a share with a note; a line when something ended."""

    job: str
    what: str
    share: float = 0.0
    note: str = ""
    line: str = ""


Report = Callable[[News], None]
Progress = Callable[[int, int], None]  # (done, total)


class TimeIsUp(Exception):
    """The time budget has ended; what was being done is saved or short, and goes on at the next call."""


def folder_of(job: Job, out: Path) -> Path:
    """Where a job's state is."""
    return out / "runs" / job.name


def weights_of(name: str, out: Path) -> Path:
    """The folder of a run's trained weights: its state, or what is kept of it, which need not be there."""
    state = out / "runs" / name
    return state if (state / "weights.safetensors").exists() else out / "weights" / name


def is_done(job: Job, out: Path) -> bool:
    """Whether it is trained and measured, on the job's VOC, too."""
    path = folder_of(job, out) / RESULT
    return path.exists() and (not job.voc or read_result(path).get("voc_content") == job.voc_content)


def failure_of(job: Job, out: Path) -> str:
    """Why it failed at the last attempt; "" if it did not."""
    path = folder_of(job, out) / FAILURE
    return path.read_text(encoding="utf-8") if path.exists() and not is_done(job, out) else ""


def results(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """What the finished jobs gave, in order. Raises ValueError as ``read_result``."""
    return [read_result(folder_of(job, out) / RESULT) for job in jobs if is_done(job, out)]


def read_result(path: Path) -> dict[str, Any]:
    """A result.json; raises ValueError for one that does not say which run it is of."""
    result = read_json(path)
    if not isinstance(result, dict) or not {*CELL, "seconds"} <= result.keys():
        raise ValueError(f"{path} is no result of a run; remove it, and the same command measures that network again")
    return result


def questions(job: Job, split: str, progress: Progress | None = None) -> QuestionSet:
    """A split of the job's data set, from its folder, or from the cache if it was rendered before."""
    if job.folder:
        return from_folder(Path(job.folder), split, image_size(job))
    return synthetic(
        job.dataset,
        split,
        protocol=job.protocol,
        queries=job.recipe.queries if split == "train" else "one",
        seed=job.seed,
        images=job.images,
        progress=progress,
    )


def image_size(job: Job) -> int:
    """The side of the squares into which a folder's images are fitted."""
    return dict(job.network_changes).get("image_size", 224)


def render(jobs: Sequence[Job], until: float, show: Callable[[str], AbstractContextManager[Progress]]) -> None:
    """Render all data sets of the jobs into the cache, before processes would do it beside each other.

    ``show(title)`` gives what is called with (scenes done, all scenes). Raises TimeIsUp.
    """
    scenes: dict[tuple[Any, ...], Job] = {}
    for job in jobs:
        if not job.folder:
            scenes.setdefault((job.dataset, job.protocol, job.seed, job.images), job)
    for job in scenes.values():
        for split in SPLITS:
            in_time(until)
            with show(f"rendering {job.dataset}, {split}") as shown, warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"\d+ tasks .* have been cancelled")  # joblib's, when time is up
                questions(job, split, in_time_with(shown, until))


def in_time(until: float) -> None:
    """Raise TimeIsUp when it is."""
    if time.monotonic() > until:
        raise TimeIsUp


def in_time_with(show: Progress, until: float) -> Progress:
    """What shows progress, and raises TimeIsUp when time is up before all is done."""

    def progress(done: int, total: int) -> None:
        show(done, total)
        if done < total:
            in_time(until)

    return progress


def work(jobs: Sequence[Job], out: Path, device: torch.device, until: float, command: str, report: Report) -> None:
    """Do jobs, in order, that nobody else holds, until all are done, by whomever, or time is up.

    A job that fails is reported and left out; nothing is lost of what it saved.
    """
    with suppress(TimeIsUp):
        while left := [job for job in jobs if not is_done(job, out) and not failure_of(job, out)]:
            in_time(until)
            if not any(attempted(job, out, device, until, command, report) for job in left):
                time.sleep(min(WAIT, max(0.0, until - time.monotonic())))


def attempted(job: Job, out: Path, device: torch.device, until: float, command: str, report: Report) -> bool:
    """Do a job; False if others hold it. Raises TimeIsUp."""
    folder = folder_of(job, out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            try:
                if not is_done(job, out) and not failure_of(job, out):
                    train(job, out, device, until, report)
                    measure(job, out, device, until, command, report)
            except TimeIsUp:
                report(News(job.name, "stopped", line="stopped"))
                raise
            except (ValueError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's, of memory too
                reason = " ".join(str(error).split()) or type(error).__name__
                write_text(folder / FAILURE, reason)  # before the lock goes, so that no other worker tries in vain
                report(News(job.name, "failed", line=f"failed: {reason}"))
    except Timeout:
        return False
    return True


def train(job: Job, out: Path, device: torch.device, until: float, report: Report) -> None:
    """Train a job to its end. Raises TimeIsUp, all saved."""
    recipe = job.recipe
    run = prepared(
        job.model,
        questions(job, "train"),
        questions(job, "validation"),
        recipe,
        folder_of(job, out),
        data=job.dataset,
        protocol=job.protocol,
        seed=job.seed,
        device=device,
        changes=dict(job.network_changes),
        backbone_weights=job.backbone_weights,
        keep_epochs=job.keep_epochs,
    )
    log, started = read_log(folder_of(job, out) / "log.jsonl"), time.monotonic()
    validating = log[-1]["validation_seconds"] if log else None
    with stopping() as stop, closing(run):  # which saves
        for step in run:
            stop()
            note, line = f"epoch {step.epoch}/{recipe.epochs}", ""
            if step.record:
                validating = step.record["validation_seconds"]
                line = f"{note}, {score_of(step.record)}, {step.record['train_seconds']:.0f} s"
            report(News(job.name, "training", step.step / step.steps, f"{note} · loss {step.loss:.3f}", line))
            reserve = 0.0
            if (step.step + 1) % (step.steps // recipe.epochs) == 0:  # the next step ends the epoch, and validates:
                guess = (time.monotonic() - started) / 9  # a third as many images, forward alone
                reserve = guess if validating is None else validating
            if step.step < step.steps:
                in_time(until - reserve)


def measure(job: Job, out: Path, device: torch.device, until: float, command: str, report: Report) -> None:
    """Ask a trained network all test questions and write the job's result.json. Raises TimeIsUp."""
    folder = folder_of(job, out)
    log, best = read_log(folder / "log.jsonl"), read_json(folder / "config.json").get("best")
    if best is None:
        raise ValueError(f"{folder / 'config.json'} has no epoch; remove {folder}, and it is trained again")
    network = load(folder, device)
    progress = in_time_with(lambda done, total: report(News(job.name, "measuring", done / total)), until)
    result: dict[str, Any] = {
        **job.description,
        **{name: best[name] for name in VALIDATION_SCORES if name in best},
        "best_epoch": best["epoch"],
        **measured(job, network, device, progress, folder),
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "seconds": round(sum(line["train_seconds"] + line["validation_seconds"] for line in log), 1),
        "hardware": hardware(device),
        "commit": commit(),
        "command": command,
        "torch": torch.__version__,
    }
    write_json(folder / RESULT, result)
    name, key = ("weighted mAP", "weighted_mean_ap") if job.folder else ("accuracy", "accuracy")
    report(News(job.name, "finished", 1.0, line=f"finished: test {name} {percent(result[key])}"))


def measured(job: Job, network: Trained, device: torch.device, progress: Progress, folder: Path) -> dict[str, Any]:
    """The figures of the test questions; of the user's own data also those of attention in VOC's masks, named voc_...

    There the rows, and the figures by query and by attribute, are in the run's folder, in ``evaluation``.
    """
    test = questions(job, "test")
    train = questions(job, "train") if job.folder else None
    figures, rows = evaluate_with_rows(network, test, device, train, progress=progress)
    if job.folder:
        source = {"data": job.folder, "split": "test", "image_size": image_size(job)}
        path = rows_path(str(folder), name_of(job.folder, "test"))
        write_measured(path, (figures, rows), str(folder), test, source)
        figures = {name: value for name, value in figures.items() if name not in ("by_query", "by_attribute")}
    return figures | in_voc(job, network, device, progress) if job.voc else figures


def in_voc(job: Job, network: Trained, device: torch.device, progress: Progress) -> dict[str, Any]:
    """Attention in VOC's masks, as figures named voc_...; ``voc_halves`` has the means of train and of validation."""
    voc = from_folder(Path(job.voc), VOC_SPLITS, image_size(job))
    seen, rows = evaluate_with_rows(network, voc, device, progress=progress)
    figures: dict[str, Any] = {"voc": job.voc, "voc_content": job.voc_content}
    figures |= {f"voc_{name}": seen[name] for name in seen if name in VOC_FIGURES or name.startswith("tpr_mask_")}
    table, halves = read_manifest(Path(job.voc)).table, {}
    for split in VOC_SPLITS.split(","):
        images = table["image"].filter(pc.equal(table["split"], split)).unique()
        half = summarise_labels(rows.filter(pc.is_in(rows["image"], images)))
        halves[split] = {name: half[name] for name in half if name == "count" or name.startswith("tpr_mask_")}
    return figures | {"voc_halves": halves}
