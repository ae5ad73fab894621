"""A report in one HTML file: how networks learnt, what they answer and confuse, how evenly and where they attend.

``pan report`` gathers one of a run (``run_results``), ``pan quickstart`` makes one of several networks. A section
appears where there is something to show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from progressive_attention.config import STYLES
from progressive_attention.evaluation.attention import entropies
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, label_rows
from progressive_attention.files import write_text
from progressive_attention.pages import blocks as md
from progressive_attention.pages import run_plots
from progressive_attention.pages.answer_plots import Scene, attention_row, likeliest
from progressive_attention.predict.predictor import Answer
from progressive_attention.reproduce import published

MAPS = {
    "flow": "where the answer came from: the last layer's probabilities, handed down through the gates to the first",
    "last": "the last layer's probabilities, each spread over its own cell of the image",
    "accumulated": "product of all layers' attention at each pixel",
    "activation": "product of the attended features' magnitudes, layer by layer",
}
READING = (
    "First comes the map of where the answer came from, with a ring around its highest point; then the gates, and the "
    "last layer’s choice. Each map is coloured from 0 (grey) to its own largest value (yellow). Hatched: no cell of "
    "that layer."
)
BUDGET = (
    "In brackets the papers' numbers. They trained on 30,000 images until 50 epochs brought no improvement (their 2016 "
    f"code: at most 300 epochs); what was done here stands at the end. Published values: {published.SOURCE}. They "
    "don’t say how the map they measured is made; here each of these is measured."
)
RATIO = "TPR, the true-positive ratio, is the share of the attention that lies on the asked object."
RANKING = (
    "Any number of attributes may be true of an object, and the network ranks them all. The query alone ranks by how "
    "often the training labels have each attribute of such an object: what any attention must beat. Average precision "
    "is PASCAL VOC’s unless stated otherwise."
)
PRECISION = (
    "How well the questions of which an attribute is true are ranked before the others: 100 % is perfect. In brackets "
    "the number of these questions; of few the figure is uncertain."
)
ENTROPY = (
    "Entropy of a layer’s map over its cells: 0 where all attention is on one cell, 100 % where it is the same "
    "everywhere. A gate’s values are divided by their sum first, so it shows how evenly the gate is open, not how far. "
    "Point: median of the questions; thick line: the middle half; thin line: 90 % of them."
)
LOSS = "Mean over each epoch’s steps; it should fall, and level off at the end."
BEST = "Measured after each epoch; the weights of the best one are kept."
TIME = "What an epoch’s training took, validation left out; a peak is a machine that was busy."
MEANING = {
    "validation_accuracy": "Accuracy is the share of questions answered correctly.",
    "validation_weighted_mean_ap": "mAP is the attributes’ average precision, weighted by their frequency.",
}


@dataclass
class Network:
    """One network's results: ``summary`` as ``evaluation.summarise`` gives it; ``training`` is label -> text.

    Of a run also config.json's content, the training's log, and an evaluation's readable rows, as far as they exist.
    """

    name: str
    summary: Mapping[str, Any]
    training: Mapping[str, str]
    about: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    table: pa.Table | None = None


@dataclass
class Report:
    """All that the report shows. ``data`` is the set's name; ``facts`` (hardware, command, versions) label -> text.

    ``scenes`` are test scenes with the networks' answers, ``chosen`` says how they were chosen. ``missing``: what
    the page lacks, a line each with why and what supplies it.
    """

    data: str
    networks: Sequence[Network]
    facts: dict[str, str]
    scenes: Sequence[Scene] = ()
    chosen: str = ""
    missing: list[str] = field(default_factory=list)


def write_report(path: Path, report: Report) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page, in HTML. The first network is the one that the training and its evaluation are shown of."""
    first = report.networks[0]
    parts: list[md.Block] = [md.line(headline(report.networks)), *learning(first)]
    if first.summary:
        parts += results(report)
    parts += [*per_attribute(first), *by_scale(report), *confused(first), *evenness(first)]
    parts += [*scenes(report), *facts(report)]
    return md.html_page(f"{first.name} on {title_of(report.data)}" if report.data else first.name, parts)


def percent(share: float | None) -> str:
    """A share in 0..1 as per cent, a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def title_of(data: str) -> str:
    """A data set's name in headings."""
    return data.upper() if data in STYLES else data


def headline(networks: Sequence[Network]) -> str:
    """What came out, in a sentence: the first network beside the others."""
    first, *others = networks
    if not first.summary:
        return "Not measured yet: what is missing for that stands below."
    count = f"{first.summary['count']:,}"
    if "accuracy" not in first.summary:
        reached, alone = (first.summary.get(f"{by}weighted_mean_ap") for by in ("", "query_prior_"))
        words = f"{first.name} ranks the attributes of {count} questions with a weighted mAP of {percent(reached)}"
        return f"{words}." if alone is None else f"{words}; the query alone reaches {percent(alone)}."
    reached = percent(first.summary["accuracy"])
    words = f"{first.name} answers {reached} of {count} new questions correctly"
    beside = " and ".join(f"{network.name} {percent(network.summary['accuracy'])}" for network in others)
    return f"{words}, {beside}." if beside else f"{words}."


def measures(report: Report) -> list[list[str]]:
    """Rows of the results table: a label, then of each network what was measured here, the papers' number in brackets.

    Rows that no network has are left out. Where several attributes may be true: of the network, and of the query alone.
    """
    ours = [network.summary for network in report.networks]
    if "accuracy" not in ours[0]:
        return [[*row] for row in label_rows(dict(ours[0])) if row[1] != "–"]
    papers = published.TABLE_1.get(report.data, {})
    theirs = [papers.get(network.name) for network in report.networks]
    chance = f" (chance {papers['uniform'].accuracy:.0f} %)" if papers else ""
    ends = [[100 * end for end in summary["accuracy_ci95"]] for summary in ours]
    accuracy = [
        percent(summary["accuracy"]) + (f" ({row.accuracy:.2f} %)" if row else "")
        for summary, row in zip(ours, theirs, strict=True)
    ]
    rows = [["accuracy" + chance, *accuracy], ["95 % interval", *(f"{low:.1f} – {high:.1f}" for low, high in ends)]]
    for name in measured_maps(report):
        rows.append([f"TPR, {name} map", *(percent(summary[f"tpr_{name}"]) for summary in ours)])
    rows.append(["TPR, papers' own map", *(f"({row.tpr:.2f} %)" if row else "–" for row in theirs)])
    even = f" ({papers['uniform'].tpr:.2f} %)" if papers else ""
    rows.append(["TPR, uniform map", *(percent(summary["tpr_uniform"]) + even for summary in ours)])
    return [row for row in rows if set(row[1:]) != {"–"}]


def measured_maps(report: Report) -> list[str]:
    """The maps whose true-positive ratios were measured of all the networks; those of older versions lack some."""
    known = [{*network.summary} for network in report.networks]
    return [name for name in MAPS if all(keys & {f"tpr_{name}", f"tpr_box_{name}"} for keys in known)]


def table_title(report: Report) -> str:
    """The set and the number of questions."""
    return f"{title_of(report.data)}, {report.networks[0].summary['count']:,} test questions"


def terminal_table(report: Report) -> Table:
    """Ours beside the papers', for the terminal."""
    shown = Table("measure", title=table_title(report), caption="in brackets the papers' numbers")
    for network in report.networks:
        shown.add_column(network.name, justify="right")
    for row in measures(report):
        shown.add_row(*row)
    return shown


def results(report: Report) -> list[md.Block]:
    """What was measured; where the papers used this data set, ours beside theirs."""
    first, rows = report.networks[0].summary, measures(report)
    ranking = "accuracy" not in first
    header = ["", *(network.name for network in report.networks), *(["query alone"] if ranking else [])]
    parts: list[md.Block] = [md.heading(2, f"Measured: {table_title(report)}"), md.table(header, rows)]
    if ranking:
        unread = first.get("unread")
        left_out = f" {unread:,} questions are left out, since their image can’t be read." if unread else ""
        parts.append(md.line(RANKING, left_out))
    if any("TPR" in row[0] or "true-positive" in row[0] for row in rows):
        meanings = [md.line(md.strong(name), ": ", MAPS[name]) for name in measured_maps(report)]
        parts += [md.line(RATIO, " " + BUDGET if report.data in published.TABLE_1 else ""), md.bullets(meanings)]
    return parts


def by_scale(report: Report) -> list[md.Block]:
    """Accuracy by scale, if scales are known."""
    first = report.networks[0].summary
    if not any(first.get("count_by_scale", {}).values()):
        return []
    series = []
    for network in report.networks:
        accuracy, interval = (network.summary[f"accuracy_by_scale{end}"] for end in ("", "_ci95"))
        theirs = published.accuracy_by_scale(report.data, network.name)
        series.append(run_plots.ScaleSeries(network.name, accuracy, interval, theirs))
    words = [
        f"{one.name}: " + ", ".join(f"scale {name} {percent(value)}" for name, value in one.accuracy.items())
        for one in series
    ]
    caption = "Bars are 95 % intervals; n is the number of test questions."
    if report.data in published.TABLE_1 and report.data != "mbg":
        caption += " By scale the papers publish MBG only; dashed is their accuracy over all scales."
    title = f"{title_of(report.data)}: accuracy by scale"
    return [md.Figure(run_plots.scale_curve(series, title, first["count_by_scale"]), "; ".join(words), caption)]


def learning(network: Network) -> list[md.Block]:
    """Loss, validation score and time over epochs."""
    log = network.log
    if not log:
        return []
    key = next(name for name in VALIDATION_SCORES if name in log[-1])
    score, scores = VALIDATION_SCORES[key], [100 * epoch[key] for epoch in log]
    train, validation = ([epoch[f"{part}_seconds"] for epoch in log] for part in ("train", "validation"))
    figures = []
    for title, label, values, best, caption in (
        ("Training loss", "mean loss of the epoch", [epoch["loss"] for epoch in log], None, LOSS),
        (score.replace("v", "V", 1), f"{score} [%]", scores, int(np.argmax(scores)), f"{BEST} {MEANING[key]}"),
        ("Time", "seconds of training", train, None, TIME),
    ):
        alt = f"{title} from {values[0]:.4g} (epoch 1) to {values[-1]:.4g} (epoch {len(values)})"
        figures.append(md.Figure(run_plots.line_figure(title, label, values, best), alt, caption))
    times = f"{len(log)} epochs: {duration(sum(train))} of training, {duration(sum(validation))} of validation."
    return [md.heading(2, "Learning"), md.line(times), *figures]


def duration(seconds: float) -> str:
    """In words: "43 s", "39 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def per_attribute(network: Network) -> list[md.Block]:
    """Each attribute's AP, where several may be true."""
    by_attribute = network.summary.get("by_attribute", {})
    ranked = run_plots.ranked_attributes(by_attribute)
    if not ranked:
        return []
    alt = "Average precision: " + "; ".join(f"{name} {percent(figures['ap'])}" for name, figures in ranked)
    known = sum(figures["ap"] is not None for figures in by_attribute.values())
    most = f" The {len(ranked)} most frequent of {known:,} attributes." if known > len(ranked) else ""
    return [md.Figure(run_plots.ap_figure(ranked), alt, PRECISION + most)]


def confused(network: Network) -> list[md.Block]:
    """Which attribute is taken for which, where exactly one is true."""
    if network.table is None or "correct" not in network.table.column_names:
        return []
    truth, answer = (network.table[name].to_pylist() for name in ("attribute", "answer"))
    names, rows = run_plots.confusion(truth, answer, network.about["attribute_names"])
    wrong = rows * (1 - np.eye(len(names), dtype=np.int64))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    words = ", ".join(f"{names[y]} taken for {names[x]} ({wrong[y, x]:,})" for y, x in worst if wrong[y, x])
    caption = "Rows of questions by their truth, across the network’s answer; colour is the share of a row. "
    caption += f"Most often: {words}." if words else "Nothing is confused."
    if run_plots.OTHERS in names:
        caption += f" All but the {len(names) - 1} most frequent attributes are taken together."
    return [md.Figure(run_plots.confusion_figure(names, rows), f"Confusion: {words}", caption)]


def judged(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Of each readable row whether the answer is right, and how sure it is: (R,) bool, (R,) float64.

    Where several attributes may be true, the answer is the likeliest of them, and its log-odds say how sure it is.
    """
    if "correct" in rows.column_names:
        return rows["correct"].to_numpy(), rows["probability"].to_numpy()
    right = [top[0] in true for true, top in zip(rows["attributes"].to_pylist(), rows["top"].to_pylist(), strict=True)]
    return np.array(right, bool), np.array([odds[0] for odds in rows["log_odds"].to_pylist()], float)


def evenness(network: Network) -> list[md.Block]:
    """How evenly each layer attends, right and wrong answers apart."""
    rows = network.table
    entropy = None if rows is None else entropies(rows)
    if rows is None or entropy is None or not entropy.shape[1]:
        return []
    right, single = judged(rows)[0], "correct" in rows.column_names
    names = ("right", "wrong") if single else ("likeliest is true", "is not")
    groups = {names[0]: entropy[right], names[1]: entropy[~right]}
    kinds = [*["gate"] * (entropy.shape[1] - 1), network.about["model"].get("choice", "softmax")]
    medians = "; ".join(f"{name}: {medians_of(values)}" for name, values in groups.items() if len(values))
    caption = ENTROPY if single else f"Questions whose likeliest attribute is true, and the others. {ENTROPY}"
    if none := int(np.isnan(entropy).any(1).sum()):
        caption += f" Left out: {none:,} questions with a layer wholly closed or of one cell, there."
    return [md.Figure(run_plots.entropy_figure(groups, kinds), f"Median entropy, {medians}", caption)]


def medians_of(entropy: np.ndarray) -> str:
    """Each layer's median in words."""
    medians = run_plots.quantiles(entropy)[run_plots.SHARES.index(0.5)]
    words = [percent(None if np.isnan(median) else median) for median in medians]
    return ", ".join(f"layer {i} {median}" for i, median in enumerate(words, 1))


def scenes(report: Report) -> list[md.Block]:
    """Test scenes with every layer's attention, right and wrong answers marked."""
    figures = []
    for i, scene in enumerate(report.scenes, 1):
        asked = f"What colour is the {scene.query}?" if report.data in STYLES else f"{scene.query}: what is it like?"
        question = f"{i}. {asked} {', '.join(scene.truth).capitalize() or 'Nothing that is listed'}."
        replies = [md.line(name, ": ", verdict(answer, scene)) for name, answer in scene.answers.items()]
        caption = md.line(question, " ", md.Markdown("; ".join(replies)))
        figures.append(md.Figure(attention_row(scene), f"Attention for: {question}", caption))
    outlined = "The target is outlined. " if any(scene.mask is not None for scene in report.scenes) else ""
    title = "Where the networks look" if len(report.networks) > 1 else "Where the network looks"
    return [md.heading(2, title), md.line(outlined, READING, " ", report.chosen), *figures] if figures else []


def verdict(answer: Answer, scene: Scene) -> md.Markdown:
    """The answer, right or wrong, and its probability; where several attributes may be true, the likeliest."""
    words = []
    for attribute, probability in likeliest(answer):
        right = attribute in scene.truth
        mark = md.strong(f"{attribute} ✓ right") if right else md.emphasis(f"{attribute} ✗ wrong")
        words.append(md.line(mark, f" ({percent(probability)})"))
    return md.Markdown(", ".join(words))


def facts(report: Report) -> list[md.Block]:
    """What the page lacks; and what was trained and where, so that it can be done again."""
    labels = dict.fromkeys(label for network in report.networks for label in network.training)
    rows = [[label, *(network.training.get(label, "–") for network in report.networks)] for label in labels]
    lacks = [md.heading(2, "Not in this report"), md.bullets(report.missing)] if report.missing else []
    return [
        *lacks,
        md.heading(2, "What was trained here"),
        md.table(["", *(network.name for network in report.networks)], rows),
        md.bullets(md.line(md.strong(label), ": ", text) for label, text in report.facts.items()),
    ]
