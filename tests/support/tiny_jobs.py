"""Jobs of seconds, and what they leave, that the tests of pan reproduce share."""

import math
from pathlib import Path
from typing import Any

import torch
from fake_runs import fake_run

from progressive_attention.files import read_json, write_json
from progressive_attention.reproduce.experiments import Grid, Job
from progressive_attention.reproduce.jobs import RESULT, folder_of, work

CPU = torch.device("cpu")


def jobs(*models: str, **changes: Any) -> list[Job]:
    """Networks of seven questions' four steps an epoch: 30 images, two epochs, batches of eight."""
    plain = {"images": 30, "epochs": 2, "variant": "tiny", "recipe_changes": {"batch": 8, "bf16": False}}
    return Grid(models, ("mref",), **{**plain, **changes}).jobs()


def pretend(job: Job, out: Path, **result: Any) -> None:
    """Leave a result as if the job had been done."""
    run = fake_run(job.model, job.dataset, job.seed)
    write_json(folder_of(job, out) / RESULT, {**run, **job.description, **result})


def result_of(job: Job, out: Path) -> dict[str, Any]:
    """All of a result that another run of the same job must give again."""
    result = read_json(folder_of(job, out) / RESULT)
    return {key: value for key, value in result.items() if key not in ("seconds", "commit")}


def do(some, out, report=lambda news: None, until=math.inf):
    """Work on them in this process."""
    work(some, out, CPU, until, "pan reproduce", report)
