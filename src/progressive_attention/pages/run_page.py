"""The HTML page of one run, in the style and of the parts of ``report``."""

from html import escape

import numpy as np

from progressive_attention.evaluation.attention import entropies
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, label_rows
from progressive_attention.pages.report import (
    MAPS,
    Network,
    Report,
    curve_section,
    facts_section,
    headline,
    maps_list,
    numbers_table,
    page,
    percent,
    picture,
    results_section,
    scenes_section,
    title_of,
)
from progressive_attention.pages.run_plots import (
    MOST_CONFUSED,
    MOST_RANKED,
    WIDTH,
    Line,
    ap_figure,
    confusion,
    confusion_figure,
    entropy_figure,
    line_figure,
    ranked_attributes,
    training_lines,
)
from progressive_attention.pages.run_report import (
    Missing,
    RunResults,
    duration,
    judged,
    rates,
    recipe_of,
    score_key,
    training_facts,
)

STYLE = """
code { overflow-wrap: anywhere; } .labels tbody tr:first-child td { font-weight: 400; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem; }
.grid figure { display: flex; flex-direction: column-reverse; justify-content: flex-end; margin: .4rem 0 1rem; }
"""


def run_page(found: RunResults) -> str:
    """The whole page."""
    title = found.name + (f" on {title_of(found.data)}" if found.data else "")
    report = as_report(found)
    labels = found.figures is not None and "accuracy" not in found.figures
    parts = [
        f"<h1>{escape(title)}</h1>\n<p class='claim'>{escape(claim(found, report))}</p>",
        learning_section(found),
        labels_section(found) if labels else results_section(report) if found.figures else "",
        side_by_side(
            ap_section(found),
            curve_section(report, WIDTH) if found.figures else "",
            confusion_section(found),
            entropy_section(found),
        ),
        scenes_section(report),
        missing_section(found),
        facts_section(report),
    ]
    return page(title, parts, STYLE)


def side_by_side(*sections: str) -> str:
    """Sections of one figure each, two in a line where there is room."""
    return "<div class='grid'>\n" + "\n".join(f"<section>{one}</section>" for one in sections if one) + "\n</div>"


def as_report(found: RunResults) -> Report:
    """What the common sections need."""
    network = Network(found.name, found.figures or {}, training_facts(found))
    facts = {"run": found.given, **found.facts}
    return Report(found.data, [network], facts, found.scenes, found.chosen)


def claim(found: RunResults, report: Report) -> str:
    """What came out, in a sentence or two."""
    if found.figures is None:
        return "Not measured yet: what is missing for that is told below."
    if "accuracy" in found.figures:
        return headline(report.networks)
    reached, alone = (found.figures.get(f"{kind}weighted_mean_ap") for kind in ("", "query_prior_"))
    told = f"{found.name} ranks the attributes of {found.figures['count']:,} questions with a weighted mAP of "
    return told + percent(reached) + (f"; the query alone reaches {percent(alone)}." if alone is not None else ".")


def learning_section(found: RunResults) -> str:
    """Loss, validation score and learning rate over epochs."""
    if not found.log:
        return ""
    key, recipe = score_key(found.log), recipe_of(found.about)
    called = VALIDATION_SCORES[key]
    loss, score, seconds = training_lines(found.log, key, called)
    shown = [
        (loss, "Mean over each epoch’s steps; it should fall, and level off at the end."),
        (score, f"Measured after each epoch; the weights of the best one are kept. {MEANING[key]}"),
    ]
    if recipe:
        line = Line("Learning rate", "learning rate", *rates(found.log, recipe))
        told = f"What the recipe, {escape(recipe.name)}, gives each step; some modules may learn at a share of it."
        shown.append((line, told))
    shown.append((seconds, "What an epoch’s training took, validation left out; a peak is a machine that was busy."))
    figures = [picture(line_figure(line), alt_of(line), caption) for line, caption in shown]
    each = [sum(line[f"{part}_seconds"] for line in found.log) for part in ("train", "validation")]
    told = (
        f"{len(found.log)} epoch{'s' * (len(found.log) > 1)}: {duration(each[0])} of training, "
        f"{duration(each[1])} of validation."
    )
    return f"<h2>Learning</h2>\n<p class='soft'>{told}</p>\n<div class='grid'>\n" + "\n".join(figures) + "\n</div>"


MEANING = {
    "validation_accuracy": "Accuracy is the share of questions answered rightly.",
    "validation_weighted_mean_ap": "mAP is the attributes’ average precision, weighted by their frequency.",
}


def alt_of(line: Line) -> str:
    """A curve in words."""
    return f"{line.title} from {line.y[0]:.4g} (epoch {line.x[0]:.3g}) to {line.y[-1]:.4g} (epoch {line.x[-1]:.3g})"


def labels_section(found: RunResults) -> str:
    """How well attributes are ranked, beside the query alone, and true-positive ratios."""
    assert found.figures is not None
    lines = [
        (label, [cell.replace("%", " %") for cell in cells])
        for label, *cells in label_rows(found.figures)
        if cells[0] != "–"
    ]
    head = f"<tr><th></th><th scope='col'>{escape(found.name)}</th><th scope='col'>query alone</th></tr>"
    maps = [name for name in MAPS if f"tpr_box_{name}" in found.figures]
    unread = found.figures.get("unread")
    left_out = f" {unread:,} questions are left out, since their image can’t be read." if unread else ""
    return (
        f"<h2>Measured: {escape(title_of(found.data))}, {found.figures['count']:,} questions</h2>\n"
        + numbers_table(head, lines, "results labels")
        + "<p class='soft'>Any number of attributes may hold of an object, and the network ranks them all. The query "
        "alone ranks by how often the training labels have each attribute of such an object: what any attention must "
        f"beat. Average precision is PASCAL VOC’s unless said.{left_out}</p>\n"
        "<p class='soft'>The true-positive ratio is the share of the attention that lies on the asked object. It is "
        f"measured on these maps:</p>\n{maps_list(maps)}"
    )


def ap_section(found: RunResults) -> str:
    """Each attribute's AP, where several may hold."""
    ranked = ranked_attributes((found.figures or {}).get("by_attribute", {}))
    if not ranked:
        return ""
    aps = "; ".join(f"{name} {percent(figures['ap'])}" for name, figures in ranked)
    more = sum(one["ap"] is not None for one in (found.figures or {})["by_attribute"].values()) - len(ranked)
    caption = "How well the questions of which an attribute holds are ranked before the others: 100 % is perfect. "
    caption += "In brackets the questions of which it holds; an attribute that holds of few has an uncertain figure."
    if more:
        caption += f" The {MOST_RANKED} most frequent of {len(ranked) + more:,} attributes."
    return "<h2>Attribute by attribute</h2>\n" + picture(ap_figure(ranked), f"Average precision: {aps}", caption)


def confusion_section(found: RunResults) -> str:
    """Which attribute is taken for which, where exactly one holds."""
    if found.table is None or "correct" not in found.table.column_names:
        return ""
    truth, answer = (found.table[name].to_pylist() for name in ("attribute", "answer"))
    counted = confusion(truth, answer, found.about["attribute_names"])
    wrong = counted.rows * (1 - np.eye(len(counted.names), dtype=np.int64))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    names = counted.names
    told = ", ".join(f"{names[y]} taken for {names[x]} ({wrong[y, x]:,})" for y, x in worst if wrong[y, x])
    caption = "Rows of questions by their truth, across what the network said; colour is the share of a line. "
    caption += f"Most often: {escape(told)}." if told else "Nothing is confused."
    if "others" in names:
        caption += f" All but the {MOST_CONFUSED - 1} most frequent attributes are taken together."
    return "<h2>What is confused</h2>\n" + picture(confusion_figure(counted), f"Confusion: {told}", caption)


def entropy_section(found: RunResults) -> str:
    """How evenly each layer attends, right and wrong answers apart."""
    if found.table is None:
        return ""
    entropy, (right, _) = entropies(found.table), judged(found.table)
    if not entropy.shape[1]:
        return ""
    said = ("right", "wrong") if "correct" in found.table.column_names else ("likeliest holds", "doesn’t")
    groups = {said[0]: entropy[right], said[1]: entropy[~right]}
    kinds = [*["gate"] * (entropy.shape[1] - 1), found.about["model"].get("choice", "softmax")]
    medians = "; ".join(f"{name}: {medians_of(rows)}" for name, rows in groups.items() if len(rows))
    caption = (
        ("" if "correct" in found.table.column_names else "Questions whose likeliest attribute holds, and the others. ")
        + "Entropy of a layer’s map over its cells: 0 where all attention is on one cell, 100 % where it is the same "
        "everywhere. A gate’s values are divided by their sum first, so that it tells how evenly the gate is open, not "
        "how far. Point: median of the questions; thick line: the middle half; thin line: 90 % of them."
    )
    if none := int(np.isnan(entropy).any(1).sum()):
        caption += f" Left out: {none:,} questions with a layer wholly closed or of one cell, there."
    figure = picture(entropy_figure(groups, kinds), f"Median entropy, {medians}", caption)
    return "<h2>How evenly it attends</h2>\n" + figure


def medians_of(entropy: np.ndarray) -> str:
    """Each layer's median in words."""
    known = [layer[~np.isnan(layer)] for layer in entropy.T]
    return ", ".join(
        f"layer {i} {percent(float(np.median(layer)) if len(layer) else None)}" for i, layer in enumerate(known, 1)
    )


def missing_section(found: RunResults) -> str:
    """What the page lacks, why, and which command supplies it."""
    lines = []
    for one in [*found.missing, *untold(found)]:
        remedy = f" <code>{escape(one.remedy)}</code> supplies it." if one.remedy else ""
        lines.append(f"<li><b>{escape(one.what)}</b>: {escape(one.why)}.{remedy}</li>")
    return "<h2>Not in this report</h2>\n<ul>\n" + "\n".join(lines) + "\n</ul>" if lines else ""


def untold(found: RunResults) -> list[Missing]:
    """What could not be measured on these data, or of this network."""
    figures = found.figures or {}
    missing = []
    if "accuracy" in figures and not any(figures.get("count_by_scale", {}).values()):
        missing.append(
            Missing("accuracy by scale", "these questions have no scale; a column scale in the table tells it")
        )
    if figures and not any(figures.get(name) for name in figures if name.startswith("tpr_")):
        where = "mask" if "accuracy" in figures else "mask, or x0, y0, x1 and y1,"
        why = f"these questions don't tell where the object is; columns {where} in the table do"
        missing.append(Missing("true-positive ratios", why))
    if figures.get("entropy") == []:
        missing.append(Missing("entropy by layer", "this network has no attention maps"))
    return missing
