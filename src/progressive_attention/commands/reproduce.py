"""Train and measure the papers' networks (or ours), and write tables, figures and pages.

examples:
  pan reproduce table1 --out runs/table1
  pan reproduce table1 --models san,han --datasets mref --seeds 0,1 --time-budget 9m --out runs/table1
  pan reproduce all --plan --out runs/all
  pan reproduce table2 --data data/vg --backbone-weights vgg16.tv_in1k --out runs/table2
  pan reproduce table2 --data data/flickr --backbone efficientnet_lite0 --out runs/table2
  pan reproduce my-experiment.toml --out runs/mine
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from progressive_attention.commands import arguments as shared
from progressive_attention.config import DEFAULT_MODEL, PROTOCOLS, RECIPES, TARGETS

if TYPE_CHECKING:  # only to annotate: torch would delay --help
    from rich.console import Console
    from torch import device

    from progressive_attention.reproduce.experiments import Job

CHANGES = ("data", "backbone", "backbone_weights", "voc", "protocol", "recipe", "seeds", "images", "epochs")


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan reproduce``."""
    add = parser.add_argument
    add("target", type=shared.target, metavar="TARGET", help=f"{', '.join(TARGETS)}, or an experiment's file NAME.toml")
    add("--out", type=shared.out_folder, required=True, metavar="DIR", help="state, table1.json, pages and figures")
    add("--models", type=shared.words, help="only these, e.g. san,pan-hard-ctx")
    add("--datasets", type=shared.words, help="only these, e.g. mref,mbg")
    add("--data", type=Path, metavar="DIR", help="an imported data set, for table2 and its like")
    add("--backbone", metavar="NAME", help="for table2: a timm network for all rows (default: the experiment's)")
    weights = "for table2: a .safetensors file, timm's name, or a package (default: the package that has them, if any)"
    add("--backbone-weights", metavar="FILE_OR_NAME", help=weights)
    add("--voc", type=Path, metavar="DIR", help="for table2: imported VOC, to measure attention on")
    add("--protocol", choices=PROTOCOLS, help="default: the experiment's")
    add("--recipe", choices=list(RECIPES), help="default: the experiment's")
    add("--seeds", type=shared.seeds, help="e.g. 0,1,2 (default: the experiment's)")
    add("--images", type=shared.positive, help="training images (default: the experiment's)")
    add("--epochs", type=shared.positive, help="default: the experiment's")
    add("--time-budget", type=shared.duration, metavar="TIME", help="e.g. 9m, 90s, 2h: then stop, all saved")
    add("--processes", type=shared.positive, help="trainings at a time (default: one a core; 4 on a GPU)")
    add("--plan", action="store_true", help="only list the runs, done or to do")
    shared.add_shared(parser, "--device")


def run(arguments: argparse.Namespace) -> None:
    """Train and measure what is not done yet, then draw the pages; or list it."""
    from rich.console import Console

    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.network.backbone import BACKBONES
    from progressive_attention.reproduce import campaign

    device, console = pick_device(arguments.device), Console(stderr=True)
    changes = {name: getattr(arguments, name) for name in CHANGES}
    jobs = campaign.plan(arguments.target, arguments.models, arguments.datasets, **changes)
    without = [job for job in jobs if job.folder and not job.backbone_weights]
    backbones = {dict(job.network_changes).get("backbone", "conv-stack") for job in without}
    if random := ", ".join(sorted(backbones - {*BACKBONES})):
        campaign.print_plain(console, f"note: {random} starts from random weights; name others with --backbone-weights")
    if arguments.plan:
        for name, state in campaign.states(jobs, arguments.out):
            print(name, state)
        return
    seconds = arguments.time_budget
    seconds = seconds and max(0.0, seconds - (time.monotonic() - arguments.started))
    died = campaign.reproduce(jobs, arguments.out, device, arguments.line, console, seconds, arguments.processes)
    write_pages(arguments.target, jobs, arguments.out, device, console)
    if not campaign.check_end(jobs, arguments.out, died):
        print("time is up: all is saved, and the same command goes on")


def write_pages(target: str, jobs: "Sequence[Job]", out: Path, device: "device", console: "Console") -> None:
    """README.md and figures of all runs in ``out``; pictures of what the target's networks look at need their weights.

    Raises ValueError as ``read_table`` does, and for rows of which no mean can be taken.
    """
    from filelock import FileLock

    from progressive_attention.pages.gallery import draw_photographs, draw_scenes
    from progressive_attention.pages.table1 import write_results
    from progressive_attention.pages.table2 import write_label_results
    from progressive_attention.reproduce.campaign import FIGURE_6, print_plain, read_table, table_of
    from progressive_attention.reproduce.jobs import weights_of
    from progressive_attention.reproduce.runs import cell_of

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
