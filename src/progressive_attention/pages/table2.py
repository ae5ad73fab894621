"""The page of ``pan reproduce table2``: the papers' Table 2 from runs on photographs, and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from progressive_attention.files import write_text
from progressive_attention.pages import blocks as md
from progressive_attention.pages.table1 import NONE, number
from progressive_attention.reproduce.published import TABLE_2, TABLE_2_SOURCE, TABLE_2_VOC
from progressive_attention.reproduce.runs import ALIKE, check_alike, estimate, mean, place_of, title_of

MAPS = {"last": "last map", "accumulated": "accumulated", "activation": "activation", "flow": "flow"}
MEASURES = {
    "weighted_mean_ap": "weighted mAP",
    **{f"tpr_box_{name}": f"box, {words}" for name, words in MAPS.items()},
    **{f"tpr_mask_{name}": f"mask, {words}" for name, words in MAPS.items()},
}
FURTHER = {
    "mean_ap": "mAP",
    "weighted_mean_ap_all_point": "weighted mAP, all-point",
    "vaw_map": "VAW mAP",
    "vaw_ma": "VAW mA",
    "vaw_mr15": "VAW mR@15",
    "vaw_f1_15": "VAW F1@15",
}
RATIOS, UNIFORM = {f"tpr_mask_{name}": words for name, words in MAPS.items()}, "tpr_mask_uniform"
VOC = {f"voc_{name}": words for name, words in RATIOS.items()}
HALVES = "The map with the highest ratio on train is chosen there; its ratio on val is the one to report."
BUDGET = ("protocol", "recipe", "queries_per_image", "images", "epochs")  # shown where rows of a table differ in it
INTRODUCTION = (
    "All in per cent. mAP is PASCAL VOC's (11 points unless stated otherwise), weighted by the attributes' frequency "
    "in the test set; TPR is the true-positive ratio, attention inside the target's box (or mask) over all attention, "
    "of four maps; see docs/attention-maps.md and docs/ranking-metrics.md. One question is one object: its class is "
    "the query. The class prior predicts from the query alone, by the training labels' frequencies: what any attention "
    f"must beat. The papers' columns are {TABLE_2_SOURCE}: Visual Genome itself; they can be compared with ours only "
    "where ours are on it, too. The papers don't say which map their TPR is of."
)
PHOTOGRAPHS = md.Figure(
    "figures/attributes.png",
    "Test photographs, each with its question, attended image, maps and ranked attributes of every network",
    "The first test questions, one an image. Of each network the photograph under the flow map (where the answer came "
    "from) and lit by the accumulated attention, each with the object's box; the last two maps, each the product with "
    "all before it; and the attributes it finds likeliest.",
)
Run = Mapping[str, Any]


def write_label_results(runs: Sequence[Run], folder: Path) -> None:
    """Write ``folder``/README.md; the figure figures/attributes.png is shown if it exists."""
    blocks: list[md.Block] = [md.heading(1, "Attributes of photographs"), md.line(INTRODUCTION)]
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        of_set = [run for run in runs if run["dataset"] == dataset]
        blocks += [md.heading(2, dataset), measures_table(of_set, MEASURES, papers=True)]
        blocks.append(measures_table(of_set, FURTHER, papers=False))
        if any("voc_count" in run for run in of_set):
            blocks += [md.heading(3, "PASCAL VOC 2007, train and val"), *voc_section(of_set)]
        blocks += how(of_set)
    if (folder / str(PHOTOGRAPHS.source)).exists():
        blocks += [md.heading(2, "What they attend to"), PHOTOGRAPHS]
    write_text(folder / "README.md", md.markdown_page(blocks))


def percent(shares: Iterable[float | None]) -> str:
    """Mean over seeds, in per cent."""
    return number(estimate([*shares]))


def measures_table(runs: Sequence[Run], measures: Mapping[str, str], *, papers: bool) -> md.Markdown:
    """Networks below each other, measures side by side, in per cent; mean and 95 % interval over seeds."""
    header, first = ["", *measures.values()], runs[0]
    rows = [["query alone (class prior)", *(percent([first.get(f"query_prior_{name}")]) for name in measures)]]
    if papers:
        header += ["papers: weighted mAP", "papers: TPR (box)"]
        even = [percent([first.get(f"{name.rsplit('_', 1)[0]}_uniform")]) if "tpr" in name else "" for name in measures]
        rows = [[*rows[0], "", ""], ["uniform map", *even, "", ""]]
    for label, alike in rows_of(runs).items():
        row = [label, *(percent(run.get(name) for run in alike) for name in measures)]
        if papers:
            theirs = TABLE_2.get(alike[0]["variant"], {}).get(alike[0]["model"])
            row += [f"{number:.2f}" for number in theirs] if theirs else [NONE, NONE]
        rows.append(row)
    return md.table(header, rows)


def voc_section(runs: Sequence[Run]) -> list[md.Block]:
    """True-positive ratios in VOC's masks, void pixels left out: of the four maps, beside the papers', and by class."""
    known = [run for run in runs if "voc_count" in run]
    first = known[0]
    rows = [["uniform map", *[percent([first["voc_tpr_mask_uniform"]])] * len(VOC), ""]]
    for label, alike in rows_of(known).items():
        theirs = TABLE_2_VOC.get(alike[0]["model"])
        row = [label, *(percent(run.get(name) for run in alike) for name in VOC)]
        row.append(NONE if theirs is None else f"{theirs:.2f}")
        rows.append(row)
    left_out = first["voc_rows_with_unknown_query"]
    words = f"{first['voc_count']:,} questions; {left_out:,} more ask for classes that the networks never learnt."
    blocks: list[md.Block] = [md.table(["", *VOC.values(), "papers"], rows), md.line(words)]
    for what, words_of in (("Not asked", "voc_queries_not_asked"), ("Asked by another word", "voc_queries_asked_as")):
        if named := first.get(words_of):
            blocks.append(md.line(f"{what}: {', '.join(f'{query} ({word})' for query, word in named.items())}."))
    if all("voc_halves" in run for run in known):
        blocks += [md.line(HALVES), halves_table(known)]
    for label, alike in rows_of(known).items():
        blocks += [md.heading(4, f"{label}, by class"), classes_table(alike)]
    return blocks


def halves_table(runs: Sequence[Run]) -> md.Markdown:
    """Of each network the map with the highest ratio on VOC's train half, and its ratio on either half."""
    rows = []
    for label, alike in rows_of(runs).items():
        halves = {split: [run["voc_halves"][split] for run in alike] for split in ("train", "validation")}
        means = {name: mean([half.get(name) for half in halves["train"]]) for name in RATIOS}
        best = max(means, key=lambda name: means[name] or 0)
        shown = [percent(half[name] for half in halves[split]) for split in halves for name in (best, UNIFORM)]
        rows.append([label, RATIOS[best], *shown])
    return md.table(["", "map", "train", "uniform map", "val", "uniform map"], rows)


def classes_table(runs: Sequence[Run]) -> md.Markdown:
    """The ratios of one network's maps by class, mean over its seeds."""
    rows = []
    for query, first in runs[0]["voc_by_query"].items():
        of_query = [run["voc_by_query"][query] for run in runs]
        shown = [percent(each.get(name) for each in of_query) for name in (UNIFORM, *RATIOS)]
        rows.append([query, f"{first['count']:,}", *shown])
    return md.table(["class", "questions", "uniform map", *RATIOS.values()], rows)


def rows_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed only, by their row's label, in the papers' order: without prior first.

    Raises ValueError for a row whose runs were trained differently, or on different data.
    """
    shown = [name for name in BUDGET if len({run[name] for run in runs}) > 1]
    rows: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run["variant"] == "with prior", run["variant"], place_of(run["model"]))):
        budget = [f"{name.replace('_', ' ')} {run[name]}" for name in shown]
        rows.setdefault(", ".join([title_of(run["model"]), run["variant"], *budget]), []).append(run)
    for label, alike in rows.items():
        check_alike(label, alike, (*ALIKE, "backbone_weights", "content"))
    return rows


def how(runs: Sequence[Run]) -> list[md.Block]:
    """Size, budget, machine and command of each run."""
    header = ["run", "seed", "images", "epochs", "batch", "rate", "network", "recipe changes", "seconds", "hardware"]
    rows = []
    for run in runs:
        row = [
            f"{title_of(run['model'])}, {run['variant']}",
            str(run["seed"]),
            f"{run['images']:,}",
            str(run["epochs"]),
        ]
        row += [str(run["batch"]), f"{run['learning_rate']:g}"]
        for part in ("network_changes", "recipe_changes"):
            row.append(", ".join(f"{name} {value}" for name, value in run[part].items()) or "none")
        rows.append([*row, f"{run['seconds']:,.0f}", run["hardware"], run["commit"]])
    commands = dict.fromkeys(str(run["command"]) for run in runs)
    return [md.table([*header, "commit"], rows), md.bullets(md.code(command) for command in commands)]
