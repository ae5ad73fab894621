"""The page of ``pan reproduce table2``: the papers' Table 2 from runs on photographs, and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from progressive_attention.files import write_text
from progressive_attention.pages import blocks as md
from progressive_attention.pages.table1 import NONE, number
from progressive_attention.reproduce.published import TABLE_2, TABLE_2_SOURCE, TABLE_2_VOC
from progressive_attention.reproduce.runs import ALIKE, check_alike, estimate, mean, place_of, title_of

MAPS = {"last": "last map", "accumulated": "accumulated", "activation": "activation", "flow": "flow"}
RANKING = {
    "weighted_mean_ap": "weighted mAP",
    "weighted_mean_ap_all_point": "weighted mAP, all-point",
    "mean_ap": "mAP",
    "mean_ap_all_point": "mAP, all-point",
}
RATIOS, UNIFORM = {f"tpr_mask_{name}": words for name, words in MAPS.items()}, "tpr_mask_uniform"
VOC = {f"voc_{name}": words for name, words in RATIOS.items()}
HALVES = "The map with the highest ratio on train is chosen there; its ratio on val is the one to report."
VAW = {
    f"vaw_{metric}{part and '_' + part}": part or title
    for metric, title in {"map": "mAP", "ma": "mA", "mr15": "mR@15", "f1_15": "F1@15"}.items()
    for part in ("", "head", "medium", "tail")
}
LOOKS = {  # of each target and map
    "tpr_{target}_{name}": "true-positive ratio",
    "pointing_{target}_{name}": "pointing game",
    "iou_{target}_{name}": "best IoU",
    "point_on_{target}_{name}": "point on it",
    "box_iou_{name}": "IoU of boxes",
}
TARGETS = {"box": "the object's box", "mask": "the object's mask"}
GROUPS = "VAW's metrics, over all attributes, and over those frequent in training (head), rarer, and rarest (tail):"
NO_ATTENTION, WITH_PRIOR = "no attention", "with prior"
PAIRS = (("pan-hard-ctx", "san"), ("pan", "san"))  # whose margin is shown
BUDGET = ("protocol", "recipe", "queries_per_image", "images", "epochs")  # shown where rows of a table differ in it
INTRODUCTION = (
    "All figures are per cent. The notation a ± b gives the mean over seeds and half of its 95 % interval (Student's "
    "t); a number without ± comes from one seed. Average precision is PASCAL VOC's, with 11 points unless stated "
    "otherwise; its mean is weighted by the attributes' frequency in the test set. The true-positive ratio is the "
    "share of the attention on the target; the first table shows it for the map that has the highest "
    "(docs/attention-maps.md). One question is one object, and its class is the query. Query alone answers with the "
    "training labels' frequencies, which any attention must beat. Pooled averages the same backbone's last features "
    "and adds the query; its map is Grad-CAM's. Both see the query where they answer, as networks with prior do. The "
    f"papers' columns are from {TABLE_2_SOURCE}. They measure Visual Genome, so compare them only with rows trained on "
    "it. The papers do not say which map they measure."
)
PHOTOGRAPHS = md.Figure(
    "figures/attributes.png",
    "Test photographs, each with its question, attended image, maps and ranked attributes of every network",
    "The first test questions, one per image. For each network: the photograph under the flow map and lit by the "
    "accumulated attention, both with the object's box; the last two maps, each multiplied by all before it; and the "
    "most likely attributes.",
)
Run = Mapping[str, Any]


def write_label_results(runs: Sequence[Run], folder: Path) -> None:
    """Write ``folder``/README.md; the figure figures/attributes.png is shown if it exists."""
    blocks: list[md.Block] = [md.heading(1, "Attributes of photographs"), md.line(INTRODUCTION)]
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        of_set = [run for run in runs if run["dataset"] == dataset]
        blocks += [md.heading(2, dataset), papers_table(of_set), *margins(of_set)]
        blocks += [md.heading(3, "Ranking"), measures_table(of_set, RANKING)]
        blocks += [md.line(GROUPS), measures_table(of_set, VAW)]
        for target, words in TARGETS.items():
            if any(run.get(f"tpr_{target}_uniform") is not None for run in of_set):
                blocks += [md.heading(3, f"Attention on {words}"), attention_table(of_set, target)]
        if any("voc_count" in run for run in of_set):
            blocks += [md.heading(3, "PASCAL VOC 2007, train and val"), *voc_section(of_set)]
        blocks += [md.heading(3, "Runs"), *how(of_set)]
    if (folder / str(PHOTOGRAPHS.source)).exists():
        blocks += [md.heading(2, "What they attend to"), PHOTOGRAPHS]
    write_text(folder / "README.md", md.markdown_page(blocks))


def percent(shares: Iterable[float | None]) -> str:
    """Mean over seeds, in per cent."""
    return number(estimate([*shares]))


def papers_table(runs: Sequence[Run]) -> md.Markdown:
    """The 2018 paper's Table 2: a network a row, weighted mAP and true-positive ratio without and with prior."""
    target, first = target_of(runs), runs[0]
    rows = [
        ["query alone", "", "", percent([first.get("query_prior_weighted_mean_ap")]), "", "", ""],
        ["uniform map", "", percent([first.get(f"tpr_{target}_uniform")]), "", "", "", ""],
    ]
    for network, halves in halves_of(runs).items():
        row, papers = [network], []
        for variant, theirs in TABLE_2.items():
            alike = halves.get(variant, [])
            row += [percent(run["weighted_mean_ap"] for run in alike), highest_ratio(alike, target)]
            known = theirs.get(next(iter(halves.values()))[0]["model"])
            papers.append(" / ".join(f"{number:.2f}" for number in known) if known else NONE)
        rows.append([*row, *papers])
    ours = [f"{variant}: {what}" for variant in TABLE_2 for what in ("weighted mAP", "ratio")]
    return md.table(["", *ours, *(f"papers, {variant}" for variant in TABLE_2)], rows)


def halves_of(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by network, then by half of the papers' table; what has no attention is beside those with a prior."""
    networks: dict[str, dict[str, list[Run]]] = {}
    shown = budget_shown(runs)
    for alike in rows_of(runs).values():
        first = alike[0]
        half = WITH_PRIOR if first["variant"] == NO_ATTENTION else first["variant"]
        if half in TABLE_2:
            network = ", ".join([title_of(first["model"]), *budget_words(first, shown)])
            networks.setdefault(network, {})[half] = alike
    return networks


def highest_ratio(runs: Sequence[Run], target: str) -> str:
    """The true-positive ratio of the map with the highest mean over these runs, and which map it is."""
    means = {name: mean([run.get(f"tpr_{target}_{name}") for run in runs]) for name in MAPS}
    known = {name: value for name, value in means.items() if value is not None}
    if not known:
        return NONE
    best = max(known, key=known.__getitem__)
    return f"{percent(run.get(f'tpr_{target}_{best}') for run in runs)} ({MAPS[best]})"


def margins(runs: Sequence[Run]) -> list[md.Block]:
    """By how much PAN is above SAN, paired by seed; nothing where no seed has both."""
    target = target_of(runs)
    ratios = {f"tpr_{target}_{name}": f"ratio, {words}" for name, words in MAPS.items()}
    measures = {"weighted_mean_ap": "weighted mAP", "mean_ap": "mAP", **ratios}
    rows = []
    for (label, ours), (beside, theirs) in permutations(rows_of(runs).items(), 2):
        alike = ours[0]["variant"] == theirs[0]["variant"]
        pairs = [(a, b) for a in ours for b in theirs if a["seed"] == b["seed"]]
        if alike and pairs and (ours[0]["model"], theirs[0]["model"]) in PAIRS:
            means = [percent(difference(a, b, key) for a, b in pairs) for key in measures]
            by_seed = [percent([difference(a, b, "weighted_mean_ap")]) for a, b in pairs]
            rows.append([f"{label} − {beside}", *means, ", ".join(by_seed)])
    table = md.table(["margin, paired by seed", *measures.values(), "weighted mAP by seed"], rows)
    return [table] if rows else []


def difference(one: Run, other: Run, key: str) -> float | None:
    """Of a figure of two runs; None where either has none."""
    values = one.get(key), other.get(key)
    return None if None in values else one[key] - other[key]


def target_of(runs: Sequence[Run]) -> str:
    """What attention is measured against first: boxes, or masks where there are none."""
    return "box" if any(run.get("tpr_box_uniform") is not None for run in runs) else "mask"


def measures_table(runs: Sequence[Run], measures: Mapping[str, str]) -> md.Markdown:
    """Networks below each other, measures side by side, in per cent, as far as there are any; means over seeds."""
    measures = {name: words for name, words in measures.items() if any(run.get(name) is not None for run in runs)}
    rows = [["query alone", *(percent([runs[0].get(f"query_prior_{name}")]) for name in measures)]]
    for label, alike in rows_of(runs).items():
        rows.append([label, *(percent(run.get(name) for run in alike) for name in measures)])
    return md.table(["", *measures.values()], rows)


def attention_table(runs: Sequence[Run], target: str) -> md.Markdown:
    """Each network's maps against the boxes or masks; maps that are the same share a row. As far as there are any."""
    measures = {
        key: words
        for key, words in LOOKS.items()
        if any(run.get(key.format(target=target, name=name)) is not None for run in runs for name in MAPS)
    }
    uniform = percent([runs[0].get(f"tpr_{target}_uniform")])
    rows = [["uniform map", "", uniform, *[""] * (len(measures) - 1)]]
    for label, alike in rows_of(runs).items():
        maps: dict[tuple[str, ...], list[str]] = {}
        for name, words in MAPS.items():
            keys = [key.format(target=target, name=name) for key in measures]
            maps.setdefault(tuple(percent(run.get(key) for run in alike) for key in keys), []).append(words)
        rows += [[label, ", ".join(words), *shown] for shown, words in maps.items() if {*shown} != {NONE}]
    return md.table(["", "map", *measures.values()], rows)


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
    words = f"{first['voc_count']:,} questions. {left_out:,} more ask for classes that the networks never learnt."
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
    shown = budget_shown(runs)
    rows: dict[str, list[Run]] = {}
    for run in sorted(runs, key=place_in_table):
        label = ", ".join([title_of(run["model"]), run["variant"], *budget_words(run, shown)])
        rows.setdefault(label, []).append(run)
    for label, alike in rows.items():
        check_alike(label, alike, (*ALIKE, "backbone_weights", "content"))
    return rows


def place_in_table(run: Run) -> tuple[Any, ...]:
    """Without attention first, then without prior, then with it; in the models' order."""
    variant = run["variant"]
    return variant == WITH_PRIOR, variant != NO_ATTENTION, variant, place_of(run["model"])


def budget_shown(runs: Sequence[Run]) -> list[str]:
    """What of BUDGET some of the runs differ in."""
    return [name for name in BUDGET if len({run[name] for run in runs}) > 1]


def budget_words(run: Run, shown: Sequence[str]) -> list[str]:
    """That of a run in words."""
    return [f"{name.replace('_', ' ')} {run[name]}" for name in shown]


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
