"""The page of ``pan reproduce table2``: the papers' Table 2 from runs of real data, and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from progressive_attention.files import write_text
from progressive_attention.pages.results_tables import percent
from progressive_attention.reproduce.published import TABLE_2, TABLE_2_SOURCE, TABLE_2_VOC
from progressive_attention.reproduce.runs import ALIKE, ROWS, check_alike, estimate, place_of

PAPER_COLUMNS = {"attention only": "attention_only", "with prior": "with_prior"}
MEASURES = {
    "weighted_mean_ap": "weighted mAP",
    "tpr_box_last": "box, last map",
    "tpr_box_accumulated": "box, accumulated",
    "tpr_box_activation": "box, activation",
    "tpr_box_flow": "box, flow",
    "tpr_mask_last": "mask, last map",
    "tpr_mask_accumulated": "mask, accumulated",
    "tpr_mask_activation": "mask, activation",
    "tpr_mask_flow": "mask, flow",
}
FURTHER = {
    "mean_ap": "mAP",
    "weighted_mean_ap_all_point": "weighted mAP, all-point",
    "vaw_map": "VAW mAP",
    "vaw_ma": "VAW mA",
    "vaw_mr15": "VAW mR@15",
    "vaw_f1_15": "VAW F1@15",
}
VOC = {
    "voc_tpr_mask_last": "last map",
    "voc_tpr_mask_accumulated": "accumulated",
    "voc_tpr_mask_activation": "activation",
    "voc_tpr_mask_flow": "flow",
}
BUDGET = ("protocol", "recipe", "queries_per_image", "images", "epochs")  # told where rows of a table differ in it
Run = Mapping[str, Any]


def write_label_results(runs: Sequence[Run], folder: Path) -> None:
    """Write ``folder``/README.md; the figure figures/attributes.png is shown if it is there."""
    parts = ["# Attributes of photographs", INTRODUCTION]
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        of_set = [run for run in runs if run["dataset"] == dataset]
        parts += [f"## {dataset}", table(of_set, MEASURES, papers=True), table(of_set, FURTHER, papers=False)]
        if any("voc_count" in run for run in of_set):
            parts += ["### PASCAL VOC 2007, train and val", voc_table(of_set)]
        parts.append(how(of_set))
    if (folder / "figures" / "attributes.png").exists():
        parts += ["## What they attend to", FIGURE]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")


def table(runs: Sequence[Run], measures: Mapping[str, str], *, papers: bool) -> str:
    """Networks below each other, measures side by side, in per cent; mean and 95 % interval over seeds."""
    head = ["", *measures.values(), *["papers: weighted mAP", "papers: TPR (box)"] * papers]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    first = runs[0]
    prior = [number(first.get(f"query_prior_{name}")) for name in measures]
    lines.append(["query alone (class prior)", *prior, *["", ""] * papers])
    uniform = [number(first.get(name.rsplit("_", 1)[0] + "_uniform")) if "tpr_" in name else "" for name in measures]
    if any(uniform):
        lines.append(["uniform map", *uniform, *["", ""] * papers])
    for label, alike in rows_of(runs).items():
        cells = [percent(estimate([run.get(name) for run in alike])) for name in measures]
        theirs = TABLE_2.get(PAPER_COLUMNS.get(alike[0]["variant"], ""), {}).get(alike[0]["model"])
        told = ["–", "–"] if theirs is None else [f"{theirs.weighted_map:.2f}", f"{theirs.tpr:.2f}"]
        lines.append([label, *cells, *told * papers])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def voc_table(runs: Sequence[Run]) -> str:
    """True-positive ratios in VOC's masks, void pixels left out: overall, the papers', and of the last map by class."""
    known = [run for run in runs if "voc_count" in run]
    classes = sorted({name for run in known for name in run["voc_by_query"]})
    lines = [["", *VOC.values(), "papers", *classes]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    uniform = number(known[0]["voc_tpr_mask_uniform"])
    by_class = [number(known[0]["voc_by_query"].get(name, {}).get("tpr_mask_uniform")) for name in classes]
    lines.append(["uniform map", *[uniform] * len(VOC), "", *by_class])
    for label, alike in rows_of(known).items():
        overall = [percent(estimate([run.get(name) for run in alike])) for name in VOC]
        of_classes = [[run["voc_by_query"].get(name, {}).get("tpr_mask_last") for run in alike] for name in classes]
        theirs = TABLE_2_VOC.get(alike[0]["model"])
        told = "–" if theirs is None else f"{theirs:.2f}"
        lines.append([label, *overall, told, *[percent(estimate(one)) for one in of_classes]])
    left_out = known[0]["voc_rows_with_unknown_query"]
    told = f"\n\n{known[0]['voc_count']:,} questions; {left_out:,} more ask for classes that the networks never learnt."
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + told


def rows_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed only, by their row's label, in the papers' order: without prior first.

    Raises ValueError for a row whose runs were trained differently, or on different data.
    """
    told = [name for name in BUDGET if len({run[name] for run in runs}) > 1]
    rows: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run["variant"] == "with prior", run["variant"], place_of(run["model"]))):
        budget = [f"{name.replace('_', ' ')} {run[name]}" for name in told]
        rows.setdefault(", ".join([ROWS[run["model"]], run["variant"], *budget]), []).append(run)
    for label, alike in rows.items():
        check_alike(label, alike, (*ALIKE, "backbone_weights", "content"))
    return rows


def number(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{100 * value:.2f}"


def how(runs: Sequence[Run]) -> str:
    """Size, budget, machine and command of each run."""
    lines = ["| run | seed | images | epochs | batch | rate | network | recipe changes | seconds | hardware | commit |"]
    lines.append("|---" * 11 + "|")
    for run in runs:
        network = ", ".join(f"{name} {value}" for name, value in run["network_changes"].items())
        changes = ", ".join(f"{name} {value}" for name, value in run["recipe_changes"].items()) or "none"
        size = f"{run['images']:,} | {run['epochs']} | {run['batch']} | {run['learning_rate']:g}"
        made = f"{run['seconds']:,.0f} | {run['hardware']} | {run['commit']}"
        lines.append(
            f"| {ROWS[run['model']]}, {run['variant']} | {run['seed']} | {size} | {network} | {changes} | {made} |"
        )
    commands = "\n".join(dict.fromkeys(str(run["command"]) for run in runs))
    return "\n".join(lines) + f"\n\n```\n{commands}\n```"


INTRODUCTION = (
    "All in per cent. mAP is PASCAL VOC's (11 points unless said), weighted by the attributes' frequency in the test "
    "set; TPR is the true-positive ratio, attention inside the target's box (or mask) over all attention, of four "
    "maps; see docs/attention-maps.md and docs/ranking-metrics.md. One question is one object: its class is the query. "
    "The class prior predicts from the query alone, by the training labels' frequencies: what any attention must beat. "
    f"The papers' columns are {TABLE_2_SOURCE}: Visual Genome itself; they can be compared with ours only where ours "
    "are on it, too. The papers don't say which map their TPR is of."
)
FIGURE = (
    "![Test photographs, each with its question, attended image, maps and ranked attributes of every network]"
    "(figures/attributes.png)\n\n"
    "The first test questions, one an image. Of each network the photograph under the flow map (where the answer came "
    "from) and lit by the accumulated attention, each with the object's box; the last two maps, each the product with "
    "all before it; and the attributes it finds likeliest."
)
