"""What ``pan reproduce`` writes after a campaign: pages and figures of all that stands in a folder's table."""

from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock
from rich.console import Console

from progressive_attention.config import DEFAULT_MODEL
from progressive_attention.pages.gallery import draw_photographs, draw_scenes
from progressive_attention.pages.table1 import write_results
from progressive_attention.pages.table2 import write_label_results
from progressive_attention.reproduce.campaign import FIGURE_6, print_plain, read_table, table_of
from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.jobs import weights_of
from progressive_attention.reproduce.runs import cell_of


def write_campaign_pages(target: str, jobs: Sequence[Job], out: Path, device: torch.device, console: Console) -> None:
    """README.md and figures of the runs in ``out``; pictures of what the target's networks look at need their weights.

    Raises ValueError as ``read_table`` does, and for rows of which no mean can be taken.
    """
    table = table_of(jobs[0], out)
    runs = read_table(table)
    if not runs:
        console.print("no run is finished yet")
        return
    done = {cell_of(run) for run in runs}
    pictured = [job for job in jobs if job.cell in done and weights_of(job.name, out).exists()]
    with FileLock(out / ".pages.lock"):
        if jobs[0].folder:
            draw_photographs(pictured, out, device)
            write_label_results(runs, out)
        else:
            if target == "all":
                pictured = [job for job in pictured if job.model in (*FIGURE_6, DEFAULT_MODEL)]
            if target in ("figure6", "all"):
                draw_scenes(pictured, out, device)
            write_results(runs, out)
    print_plain(console, f"runs finished: {len(runs)}; see {table}, {out / 'README.md'}, {out / 'figures'}")
