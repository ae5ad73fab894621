"""Measured figures as tables and words for a terminal."""

from typing import Any

from rich.table import Table

from progressive_attention.evaluation.attention import MAPS

VALIDATION_SCORES = {
    "validation_accuracy": "validation accuracy",
    "validation_weighted_mean_ap": "validation weighted mAP",
}
LABEL_MEASURES = {
    "weighted_mean_ap": "mAP weighted by frequency (VOC 11-point)",
    "mean_ap": "mAP (VOC 11-point)",
    "weighted_mean_ap_all_point": "mAP weighted by frequency (VOC all-point)",
    "mean_ap_all_point": "mAP (VOC all-point)",
    "vaw_map": "VAW mAP",
    "vaw_ma": "VAW mA",
    "vaw_mr15": "VAW mR@15",
    "vaw_f1_15": "VAW F1@15",
}


def score_of(record: dict[str, Any]) -> str:
    """An epoch's validation score in words."""
    name = next(name for name in VALIDATION_SCORES if name in record)
    return f"{VALIDATION_SCORES[name]} {record[name]:.2%}"


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """The figures of ``OneOf.figures`` in per cent."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("questions", f"{summary['count']:,}")
    low, high = summary["accuracy_ci95"]
    table.add_row("accuracy", f"{percent(summary['accuracy'])} (95 %: {low:.2%} to {high:.2%})")
    for name, value in summary["accuracy_by_scale"].items():
        table.add_row(f"  scale {name}", f"{percent(value)} of {summary['count_by_scale'][name]:,}")
    for name in MAPS:
        table.add_row(f"true-positive ratio, {name} map", percent(summary[f"tpr_{name}"]))
    if summary["tpr_clipped"] != summary["tpr_last"]:
        table.add_row("true-positive ratio, last map inside the image", percent(summary["tpr_clipped"]))
    for name, curves in summary["precision_recall"].items():
        table.add_row(f"pointing game, {name} map", percent(summary[f"pointing_{name}"]))
        best = f"{percent(curves['best_iou'])} from {curves['best_threshold']:.0%} of its maximum"
        table.add_row(f"IoU, {name} map", best)
    table.add_row("point on the target", percent(summary["point_on_target"]))
    table.add_row("IoU of the boxes", percent(summary["box_iou"]))
    for row in entropy_rows(summary):
        table.add_row(*row)
    return table


def labels_table(summary: dict[str, Any], title: str) -> Table:
    """The figures of ``AnyOf.figures`` in per cent, beside what the query alone says."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("network", justify="right")
    table.add_column("query alone", justify="right")
    for row in label_rows(summary):
        table.add_row(*row)
    for row in entropy_rows(summary):
        table.add_row(*row, "")
    return table


def label_rows(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Measure, network and query alone: the questions, how well they are ranked, and where the network looked."""
    rows = [("questions", f"{summary['count']:,}", "")]
    for name, what in LABEL_MEASURES.items():
        rows.append((what, percent(summary[name]), percent(summary.get(f"query_prior_{name}"))))
    for target in ("box", "mask"):
        for name in MAPS:
            ratio = f"true-positive ratio, {name} map in the {target}"
            rows.append((ratio, percent(summary[f"tpr_{target}_{name}"]), ""))
        rows.append((f"point on the {target}", percent(summary[f"point_on_{target}"]), ""))
    return [*rows, ("IoU of the boxes", percent(summary["box_iou"]), "")]


def entropy_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Each layer's mean entropy."""
    return [(f"attention entropy, layer {i}", percent(value)) for i, value in enumerate(summary["entropy"], 1)]


def faithfulness_tables(figures: dict[str, Any]) -> list[Table]:
    """The figures of ``evaluate_faithfulness``: areas under the curves by map, and rank correlations by depth."""
    questions = f"{figures['faithfulness_count']:,} questions, mean ± half of the 95 % interval"
    areas = Table(title="area under the answer's probability, in per cent", caption=questions)
    alike = Table(title="rank correlation with the map of weights that are random down to", caption=questions)
    areas.add_column("map", no_wrap=True)
    alike.add_column("map", no_wrap=True)
    for baseline, kinds in figures["faithfulness"]["random"].items():
        for kind in kinds:
            areas.add_column(f"{kind},\n{baseline}", justify="right", no_wrap=True)
    for name, of_map in figures["faithfulness"].items():
        areas.add_row(name, *(spread(leaf, 100, 1) for kinds in of_map.values() for leaf in kinds.values()))
    for depth in next(iter(figures["randomisation"].values())):
        alike.add_column(depth, justify="right", no_wrap=True)
    for name, depths in figures["randomisation"].items():
        alike.add_row(name, *(spread(leaf, 1, 2) for leaf in depths.values()))
    return [areas, alike]


def spread(figure: dict[str, float], unit: float, digits: int) -> str:
    """{"mean", "low", "high"} as mean and half of the interval."""
    return f"{figure['mean'] * unit:.{digits}f}±{(figure['high'] - figure['mean']) * unit:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if value is None else f"{value:.2%}"
