"""What `make coverage` measured, a row for each group of modules: `python tools/coverage_table.py build/coverage.json`.

Reads the JSON of coverage.py; lines are its statements, branches the ways on from an `if`, a loop or a `match`.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

PACKAGE = "progressive_attention/"
REST = "figures, pages, the other commands"
GROUPS = {  # the folders and modules of each; what is in none of them is the rest
    "data": ("data",),
    "networks": (
        *("config", "sharing", "attention", "backbones", "prediction", "spatial_transformer", "baselines", "models"),
        *("backbone_weights", "receptive_field", "image_maps", "text_queries"),
    ),
    "metrics": ("metrics",),
    "training": (
        *("one_batch", "objectives", "optimizers", "checkpoints", "training", "absence", "distributed"),
        *("prepare", "files"),
    ),
    "evaluation and prediction": (
        *(
            "inference",
            "evaluation",
            "label_evaluation",
            "absence_evaluation",
            "faithfulness",
            "summaries",
            "measured",
            "predictor",
        ),
        *("faithfulness_evaluation", "weights", "network_folder", "hub", "export"),
    ),
    "reproduction": (
        *("experiments", "runs", "reproduce", "board", "campaign", "published", "results", "results_tables"),
        *("results_page", "shortfalls", "label_results", "gallery"),
    ),
    "serve": ("serve",),
    "bench": ("bench",),
    REST: (),
}
COUNTS = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def group_of(file: str) -> str:
    """The group of a source file, by its folder or module below the package."""
    part = file.rpartition(PACKAGE)[2].split("/")[0].removesuffix(".py")
    return next((group for group, parts in GROUPS.items() if part in parts), REST)


def share(covered: int, whole: int) -> str:
    """Of how many, and per cent rounded down: only what is whole says 100."""
    return f"{covered} of {whole}, {1000 * covered // whole / 10:.1f} %" if whole else "none"


def table(files: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of the ``files`` in coverage.py's JSON, with a row for their sum."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for file, found in files.items():
        for row in (group_of(file), "all"):
            sums[row] = [old + found["summary"][count] for old, count in zip(sums[row], COUNTS, strict=True)]
    rows = [
        f"| {name} | {share(*sums[name][:2])} | {share(*sums[name][2:])} |" for name in (*GROUPS, "all") if name in sums
    ]
    return "\n".join(["| modules | lines | branches |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())["files"]))
