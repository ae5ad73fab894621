"""Measured figures as tables and words for a terminal."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from progressive_attention.evaluation.attention import MAPS
from progressive_attention.metrics.vaw import TOP

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
Rows = list[tuple[str, ...]]


def score_of(record: dict[str, Any]) -> str:
    """An epoch's validation score in words."""
    name = next(name for name in VALIDATION_SCORES if name in record)
    return f"{VALIDATION_SCORES[name]} {record[name]:.2%}"


def table_of(title: str, columns: Iterable[str], rows: Rows, caption: str | None = None) -> Table:
    """Rows of words, all but the first column's to the right."""
    table = Table(title=title, caption=caption)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=caption is not None)
    for row in rows:
        table.add_row(*row)
    return table


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """An evaluation's figures in per cent; where several attributes may be true, beside what the query alone says."""
    one_of = "accuracy" in summary
    columns = ("measure", "value") if one_of else ("measure", "network", "query alone")
    rows = answer_rows(summary) if one_of else label_rows(summary)
    rows += [(f"attention entropy, layer {i}", percent(value)) for i, value in enumerate(summary["entropy"], 1)]
    return table_of(title, columns, rows)


def answer_rows(summary: dict[str, Any]) -> Rows:
    """Measure and value: how many questions are answered rightly, and where the network looked."""
    low, high = summary["accuracy_ci95"]
    rows: Rows = [("questions", f"{summary['count']:,}")]
    rows.append(("accuracy", f"{percent(summary['accuracy'])} (95 %: {low:.2%} to {high:.2%})"))
    for name, value in summary["accuracy_by_scale"].items():
        rows.append((f"  scale {name}", f"{percent(value)} of {summary['count_by_scale'][name]:,}"))
    rows += [(f"true-positive ratio, {name} map", percent(summary[f"tpr_{name}"])) for name in MAPS]
    if summary["tpr_clipped"] != summary["tpr_last"]:
        rows.append(("true-positive ratio, last map inside the image", percent(summary["tpr_clipped"])))
    for name, curves in summary["precision_recall"].items():
        rows.append((f"pointing game, {name} map", percent(summary[f"pointing_{name}"])))
        best = f"{percent(curves['best_iou'])} from {curves['best_threshold']:.0%} of its maximum"
        rows.append((f"IoU, {name} map", best))
    rows.append(("point on the target", percent(summary["point_on_target"])))
    return [*rows, ("IoU of the boxes", percent(summary["box_iou"]))]


def label_rows(summary: dict[str, Any]) -> Rows:
    """Measure, network and query alone: the questions, how well they are ranked, and where the network looked."""
    rows: Rows = [("questions", f"{summary['count']:,}", "")]
    for name, what in LABEL_MEASURES.items():
        if len(summary["by_attribute"]) > TOP or not name.endswith("15"):  # of fewer, all are among the top
            rows.append((what, percent(summary[name]), percent(summary.get(f"query_prior_{name}"))))
    for target in ("box", "mask"):
        for name in MAPS:
            ratio = f"true-positive ratio, {name} map in the {target}"
            rows.append((ratio, percent(summary[f"tpr_{target}_{name}"]), ""))
        rows.append((f"point on the {target}", percent(summary[f"point_on_{target}"]), ""))
    return [*rows, ("IoU of the boxes", percent(summary["box_iou"]), "")]


def queries_table(summary: dict[str, Any], title: str) -> Table:
    """A row a query: how many questions, and the mean true-positive ratio of every map in the masks, else the boxes."""
    target = "box" if summary["tpr_mask_uniform"] is None else "mask"
    rows = [
        (query, f"{of_query['count']:,}", *(percent(of_query[f"tpr_{target}_{name}"]) for name in MAPS))
        for query, of_query in summary["by_query"].items()
    ]
    return table_of(f"{title}: true-positive ratio in the {target}", ("query", "asked", *MAPS), rows)


def words_asked(summary: dict[str, Any]) -> list[str]:
    """Lines that say which queries were asked by another word, and which not at all."""
    asked_as = [f"{query} as {word}" for query, word in summary.get("queries_asked_as", {}).items()]
    not_asked = [f"{query} ({count:,})" for query, count in summary.get("queries_not_asked", {}).items()]
    lines = {
        "asked by another word": asked_as,
        "asked by its text, never learnt": summary.get("queries_asked_by_text", []),
        "not asked, the network knows no word for it": not_asked,
    }
    return [f"{what}: {', '.join(queries)}" for what, queries in lines.items() if queries]


def faithfulness_tables(figures: dict[str, Any]) -> list[Table]:
    """The figures of ``evaluate_faithfulness``: areas under the curves by map, and rank correlations by depth."""
    caption = f"{figures['faithfulness_count']:,} questions, mean ± half of the 95 % interval"
    areas = {
        name: {f"{kind},\n{baseline}": leaf for baseline, kinds in of_map.items() for kind, leaf in kinds.items()}
        for name, of_map in figures["faithfulness"].items()
    }
    under = "area under the answer's probability, in per cent"
    alike = "rank correlation with the map of weights that are random down to"
    return [spread_table(under, areas, 100, 1, caption), spread_table(alike, figures["randomisation"], 1, 2, caption)]


def spread_table(title: str, figures: dict[str, Any], unit: float, digits: int, caption: str) -> Table:
    """A row a map: its {"mean", "low", "high"} by column, as mean and half of the interval."""
    rows: Rows = []
    for name, cells in figures.items():
        spread = [(cell["mean"] * unit, (cell["high"] - cell["mean"]) * unit) for cell in cells.values()]
        rows.append((name, *(f"{mean:.{digits}f}±{half:.{digits}f}" for mean, half in spread)))
    return table_of(title, ("map", *next(iter(figures.values()))), rows, caption)


def percent(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if value is None else f"{value:.2%}"
