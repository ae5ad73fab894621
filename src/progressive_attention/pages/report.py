"""A report in one HTML file: how networks learnt, what they answer and confuse, and where they attend.

``pan report`` gathers one of a run (``run_results``), ``pan quickstart`` makes one of several networks. A section
appears where there is something to show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa

from progressive_attention.config import STYLES
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, label_rows
from progressive_attention.maps.shown_maps import COLOUR_MAP
from progressive_attention.pages import blocks as md
from progressive_attention.pages.answer_plots import Scene, attention_row, most_likely
from progressive_attention.pages.figures import OKABE_ITO, finish, new_figure, plot_axes, shortened
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
    "How well the questions of which an attribute is true are ranked before the others: 100 % is perfect; of few "
    "questions it is uncertain."
)
MOST_RANKED, MOST_CONFUSED = 24, 12  # attributes in the table, and in the figure
OTHERS = "others"
WIDTH = 640  # pixels: two such figures side by side on a desktop, one on a phone
LETTERS = 14  # of a name beside an axis
LOSS = "Mean over each epoch’s steps; it should fall, and level off at the end."
BEST = "Measured after each epoch; the weights of the best one are kept."
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


def render(report: Report) -> str:
    """The whole page, in HTML. The first network is the one that the training and its evaluation are shown of."""
    first = report.networks[0]
    parts: list[md.Block] = [md.line(headline(report.networks)), *learning(first)]
    if first.summary:
        parts += results(report)
    parts += [*per_attribute(first), *confused(first)]
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
        alone = [
            (f"attention entropy, layer {i}", percent(of), "") for i, of in enumerate(ours[0].get("entropy", []), 1)
        ]
        return [[*row] for row in label_rows(dict(ours[0])) + alone if row[1] != "–"]
    papers = published.TABLE_1.get(report.data, {})
    theirs = [papers.get(network.name) for network in report.networks]
    chance = f" (chance {papers['uniform'].accuracy:.0f} %)" if papers else ""
    ends = [[100 * end for end in summary["accuracy_ci95"]] for summary in ours]
    accuracy = [
        percent(summary["accuracy"]) + (f" ({row.accuracy:.2f} %)" if row else "")
        for summary, row in zip(ours, theirs, strict=True)
    ]
    rows = [["accuracy" + chance, *accuracy], ["95 % interval", *(f"{low:.1f} – {high:.1f}" for low, high in ends)]]
    by_scale = published.MBG_BY_SCALE if report.data == "mbg" else {}
    for i, (scale, count) in enumerate(ours[0]["count_by_scale"].items()):
        known = [percent(summary["accuracy_by_scale"][scale]) for summary in ours]
        bracket = [f" ({by_scale[each.name][i]:.1f} %)" if each.name in by_scale else "" for each in report.networks]
        label = f"accuracy, scale {scale} (n = {count:,})"
        rows.append(
            [label, *(share + theirs if count else share for share, theirs in zip(known, bracket, strict=True))]
        )
    for name in measured_maps(report):
        rows.append([f"TPR, {name} map", *(percent(summary[f"tpr_{name}"]) for summary in ours)])
    rows.append(["TPR, papers' own map", *(f"({row.tpr:.2f} %)" if row else "–" for row in theirs)])
    even = f" ({papers['uniform'].tpr:.2f} %)" if papers else ""
    rows.append(["TPR, uniform map", *(percent(summary["tpr_uniform"]) + even for summary in ours)])
    layers = [list(map(percent, summary.get("entropy", []))) for summary in ours]
    rows += [[f"attention entropy, layer {i}", *of] for i, of in enumerate(zip_longest(*layers, fillvalue="–"), 1)]
    return [row for row in rows if set(row[1:]) != {"–"}]


def measured_maps(report: Report) -> list[str]:
    """The maps whose true-positive ratios were measured of all the networks; those of older versions lack some."""
    known = [{*network.summary} for network in report.networks]
    return [name for name in MAPS if all(keys & {f"tpr_{name}", f"tpr_box_{name}"} for keys in known)]


def results(report: Report) -> list[md.Block]:
    """What was measured; where the papers used this data set, ours beside theirs."""
    first, rows = report.networks[0].summary, measures(report)
    ranking = "accuracy" not in first
    title = f"{title_of(report.data)}, {first['count']:,} test questions"
    header = ["", *(network.name for network in report.networks), *(["query alone"] if ranking else [])]
    parts: list[md.Block] = [md.heading(2, f"Measured: {title}"), md.table(header, rows)]
    if ranking:
        unread = first.get("unread")
        left_out = f" {unread:,} questions are left out, since their image can’t be read." if unread else ""
        parts.append(md.line(RANKING, left_out))
    if any("TPR" in row[0] or "true-positive" in row[0] for row in rows):
        meanings = [md.line(md.strong(name), ": ", MAPS[name]) for name in measured_maps(report)]
        parts += [md.line(RATIO, " " + BUDGET if report.data in published.TABLE_1 else ""), md.bullets(meanings)]
    return parts


def learning(network: Network) -> list[md.Block]:
    """Loss, validation score and time over epochs."""
    log = network.log
    if not log:
        return []
    key = next(name for name in VALIDATION_SCORES if name in log[-1])
    score, scores = VALIDATION_SCORES[key], [100 * epoch[key] for epoch in log]
    figures = []
    for title, label, values, best, caption in (
        ("Training loss", "mean loss of the epoch", [epoch["loss"] for epoch in log], None, LOSS),
        (score.replace("v", "V", 1), f"{score} [%]", scores, int(np.argmax(scores)), f"{BEST} {MEANING[key]}"),
    ):
        alt = f"{title} from {values[0]:.4g} (epoch 1) to {values[-1]:.4g} (epoch {len(values)})"
        figures.append(md.Figure(line_figure(title, label, values, best), alt, caption))
    train, validation = (sum(epoch[f"{part}_seconds"] for epoch in log) for part in ("train", "validation"))
    times = f"{len(log)} epochs: {duration(train)} of training, {duration(validation)} of validation."
    return [md.heading(2, "Learning"), md.line(times), *figures]


def line_figure(title: str, label: str, values: Sequence[float], best: int | None = None) -> bytes:
    """A curve over epochs 1, 2, ...; few points are drawn as such, and the point at the place ``best`` is marked."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(WIDTH, 400)
    axes = plot_axes(figure, (100, 44, 516, 280), title, "epoch", label)
    epochs = range(1, len(values) + 1)
    axes.plot(epochs, values, "-o" if len(values) <= 30 else "-", color=OKABE_ITO[0], markersize=5, linewidth=1.8)
    if best is not None:
        axes.plot([best + 1], [values[best]], "D", color=OKABE_ITO[1], markersize=8, mec="white")
        words = f"kept: {values[best]:.1f} at epoch {best + 1}"
        axes.text(0.97, 0.06, words, ha="right", color=OKABE_ITO[1], fontsize=9, transform=axes.transAxes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.margins(0.06, 0.12)
    return finish(figure)


def duration(seconds: float) -> str:
    """In words: "43 s", "39 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def per_attribute(network: Network) -> list[md.Block]:
    """Each attribute's AP beside that of the query alone, where several may be true: the most frequent ones."""
    by_attribute = network.summary.get("by_attribute", {})
    known = [(name, figures) for name, figures in by_attribute.items() if figures["ap"] is not None]
    shown = sorted(known, key=lambda pair: -pair[1]["count"])[:MOST_RANKED]
    if not shown:
        return []
    header = ["average precision of an attribute", "questions", network.name, "query alone"]
    rows = [[name, f"{of['count']:,}", percent(of["ap"]), percent(of["query_prior_ap"])] for name, of in shown]
    most = f" The {len(shown)} most frequent of {len(known):,} attributes." if len(known) > len(shown) else ""
    return [md.table(header, rows), md.line(PRECISION, most)]


def confused(network: Network) -> list[md.Block]:
    """Which attribute is taken for which, where exactly one is true."""
    if network.table is None or "correct" not in network.table.column_names:
        return []
    truth, answer = (network.table[name].to_pylist() for name in ("attribute", "answer"))
    names, rows = confusion(truth, answer, network.about["attribute_names"])
    wrong = rows * (1 - np.eye(len(names), dtype=np.int64))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    words = ", ".join(f"{names[y]} taken for {names[x]} ({wrong[y, x]:,})" for y, x in worst if wrong[y, x])
    caption = "Rows of questions by their truth, across the network’s answer; colour is the share of a row. "
    caption += f"Most often: {words}." if words else "Nothing is confused."
    if OTHERS in names:
        caption += f" All but the {len(names) - 1} most frequent attributes are taken together."
    return [md.Figure(confusion_figure(names, rows), f"Confusion: {words}", caption)]


def confusion(truth: Sequence[str], answer: Sequence[str], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The attributes that occur, in the order of ``names``, and how many rows of each truth (down) got each answer.

    The counts are (A, A). Of more than MOST_CONFUSED those with the most rows stand alone, all others are OTHERS.
    """
    truths, answers = list(truth), set(answer)
    rows = {name: truths.count(name) for name in names}
    used = [name for name in names if rows[name] or name in answers]
    if len(used) > MOST_CONFUSED:
        kept = set(sorted(used, key=lambda name: -rows[name])[: MOST_CONFUSED - 1])
        used = [*(name for name in used if name in kept), OTHERS]
    place = {name: used.index(name) if name in used else len(used) - 1 for name in names}
    count = np.zeros((len(used), len(used)), np.int64)
    np.add.at(count, ([place[name] for name in truths], [place[name] for name in answer]), 1)
    return used, count


def confusion_figure(names: Sequence[str], rows: np.ndarray) -> bytes:
    """Truth down, answer across; colour is the share of the truth's rows, figures are rows."""
    size = len(names)
    few = size <= 5  # names fit below their columns
    side = size * max(40, min(80, 486 // max(1, size)))
    figure = new_figure(WIDTH, side + (132 if few else 190))
    place = (130, 44, WIDTH - 154, side)
    axes = plot_axes(figure, place, "Which is taken for which", "the network’s answer", "truth")
    axes.grid(False)
    share = rows / np.maximum(rows.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for y, x in np.argwhere(rows):
        percent = f"{share[y, x]:.1%}".replace("%", " %") if share[y, x] >= 0.001 else "< 0.1 %"
        words = f"{rows[y, x]:,}" if size > 6 else f"{rows[y, x]:,}\n{percent}"
        colour = "black" if share[y, x] > 0.5 else "white"
        axes.text(x, y, words, ha="center", va="center", fontsize=8.5 if size <= 8 else 7.5, color=colour)
    shown = [shortened(name, LETTERS) for name in names]
    axes.set_xticks(range(size), shown, rotation=0 if few else 50, ha="center" if few else "right")
    axes.set_yticks(range(size), shown)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    axes.tick_params(labelsize=9 if size <= 8 else 8, length=0)
    axes.spines[:].set_visible(False)
    return finish(figure)


def judged(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Of each readable row whether the answer is right, and how sure it is: (R,) bool, (R,) float64.

    Where several attributes may be true, the answer is the most likely of them, and its log-odds say how sure it is.
    """
    if "correct" in rows.column_names:
        return rows["correct"].to_numpy(), rows["probability"].to_numpy()
    right = [top[0] in true for true, top in zip(rows["attributes"].to_pylist(), rows["top"].to_pylist(), strict=True)]
    return np.array(right, bool), np.array([odds[0] for odds in rows["log_odds"].to_pylist()], float)


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
    """The answer, right or wrong, and its probability; where several attributes may be true, the most likely."""
    words = []
    for attribute, probability in most_likely(answer):
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
