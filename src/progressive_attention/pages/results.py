"""The results page as plain blocks: tables, sentences and pictures whose every number comes from runs.

``blocks`` decides what is said; ``results_page`` turns the same blocks into Markdown and into HTML.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from progressive_attention.pages.results_tables import (
    BEATS,
    HEADLINE,
    NONE,
    Entry,
    Rows,
    Table,
    accuracy_table,
    even_map,
    in_order,
    label_of,
    margin_table,
    overlap_tables,
    ratio_table,
    scale_tables,
    study_table,
)
from progressive_attention.pages.shortfalls import Note, shortfalls
from progressive_attention.reproduce import published
from progressive_attention.reproduce.experiments import FOLDER, Job, read_experiment
from progressive_attention.reproduce.published import NAMES
from progressive_attention.reproduce.runs import ROWS, Budget, Cell, Run, cells

QUERIES = {
    "all": "every digit of an image asked",
    "one": "one digit an image asked",
    "rows": "every question an example of its own",
}
LEARNT_FROM = {
    "all": "These runs learn from every digit of an image; the papers ask one digit an image.",
    "one": "One question an image, as the 2018 paper says.",
    "rows": "Every question of an image is an example of its own, as in the authors' code of 2016.",
}
AT_ONCE = 5  # rows that a figure shows beside the papers': more have no place in its legend


class Heading(NamedTuple):
    """Level 1 is the page's title."""

    level: int
    text: str


class Paragraph(NamedTuple):
    """Plain text."""

    text: str


class Bullets(NamedTuple):
    """Sentences below each other."""

    items: Sequence[str]


class Picture(NamedTuple):
    """A PNG in the folder ``figures`` beside the pages."""

    name: str
    alt: str
    caption: str


Block = Heading | Paragraph | Bullets | Table | Picture


def blocks(runs: Sequence[Run], notes: Sequence[Note] = (), qualitative: Sequence[str] = ()) -> list[Block]:
    """All that the results pages say, in order; ``qualitative``: pictures of scenes. Raises ValueError for no runs."""
    if not runs:
        raise ValueError("there is no run to report; train some by 'pan reproduce'")
    found = cells(runs)
    parts: list[Block] = [Heading(1, "The papers' experiments, run again"), *reading(runs)]
    main = outside_study(found)
    for budget in dict.fromkeys(cell.budget for cell in main):
        parts += budget_section(budget, [cell for cell in main if cell.budget == budget], notes)
    if len(main) < len(found):
        parts += [Heading(2, "What each choice of protocol is worth"), Paragraph(STUDIED), study_table(study(found))]
    if qualitative:
        parts.append(Heading(2, "Where the networks look"))
        parts += [Picture(name, f"attention of several networks, {name}", SCENES) for name in qualitative]
    return [*parts, *runs_section(runs)]


SCALES = (
    "Bars are 95 % intervals, over seeds or, for one seed, of the test questions; the axis is logarithmic in the "
    "errors."
)
CURVES = (
    "Precision over recall of the flow map (of spatial transformers: their region) at each threshold, means over "
    "seeds; the marker has the best IoU."
)
OVERLAP = (
    "The map, thresholded, against the target's mask. Pointing: the map's highest pixel lies on the target. Clipped: "
    "of a spatial transformer's quadrilateral only the part inside the image counts. Answer: of the flow map (a "
    "transformer's region), how often the centre of its highest cell lies on the target, and the mean IoU of the box "
    "around nine tenths of it with the target's box."
)
STUDIED = (
    "One change at a time; points: accuracy beside the plain run of the same network. docs/protocols.md says what the "
    "changes are."
)
REMEASURED = (
    "{:,} of them were measured again from their weights, on: {}; remeasured.json lists every figure that changed."
)
SCENES = (
    "The target is outlined. (a) magnitude of the features before the gate, (b) behind it, each spread over the pixels "
    "that its cells see and rescaled to 0 to 1. Last column: above, the flow map over the image, "
    "where the answer came from; below, attended: the image lit by (b) of the last layer."
)


def reading(runs: Sequence[Run]) -> list[Block]:
    """How to read the tables."""
    return [
        Paragraph(
            f"Every number of ours on this page is computed from the {len(runs):,} runs listed at its end. Shares are "
            f"in per cent. Papers: {published.SOURCE}; 2016: {published.SOURCE_2016}."
        ),
        Bullets(
            [
                "a ± b: mean over seeds and half of its 95 % interval (Student's t). a (b–c): one seed only, with the "
                "95 % interval of its test questions (Wilson), which knows nothing of other seeds.",
                f"{BEATS} and bold: above the papers' number. {NONE}: not run, or the network has no such map.",
                "TPR: share of the attention that lies on the target. last: the last layer's map; accumulated: product "
                "of all layers' attention at each pixel; activation: product of the attended features' magnitudes; "
                "flow: where the attended energy came from. The 2018 paper does not say which map it measures; we read "
                "2016's as the last.",
                "Uniform is chance and the even map: computed, not trained.",
            ]
        ),
    ]


def title(budget: Budget) -> str:
    """A budget in words."""
    return (
        f"{budget.images:,} images, {budget.recipe} recipe, {budget.protocol} protocol, "
        f"{QUERIES[budget.queries_per_image]}"
    )


def study(found: Sequence[Cell]) -> list[tuple[Job, Cell | None]]:
    """The jobs of the protocol study that ships, each with its runs, if there are any."""
    by_job = {(c.runs[0]["variant"], c.model, c.dataset, *c.budget, c.epochs): c for c in found}
    return [(job, by_job.get(job.cell[:-1])) for job in read_experiment(FOLDER / "protocols.toml").jobs()]


def outside_study(found: Sequence[Cell]) -> list[Cell]:
    """The cells that have no place in the protocol study's table, but for its plain runs: those stand in both."""
    changed = [cell for job, cell in study(found) if cell and job.variant]
    return [cell for cell in found if cell not in changed]


def figures_of(found: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each figure, by the end of its name: a budget's rows of the papers, and others beside the best.

    A variant stands beside the plain runs of its model. Of the others a figure shows ``AT_ONCE`` at most.
    """
    figures: dict[str, list[Cell]] = {}
    found = outside_study(found)
    for budget in dict.fromkeys(cell.budget for cell in found):
        here = [cell for cell in found if cell.budget == budget]
        name = "-".join(map(str, budget))
        papers = [cell for cell in here if cell.model in NAMES and not cell.variant]
        figures[name] = papers
        others = [cell for cell in here if cell not in papers]
        rows = sorted({(list(ROWS).index(cell.model), cell.variant) for cell in others})
        for start in range(0, len(rows), AT_ONCE):
            at_once = rows[start : start + AT_ONCE]
            shown = [cell for cell in others if (list(ROWS).index(cell.model), cell.variant) in at_once]
            changed = {cell.model for cell in shown if cell.variant}
            beside = [cell for cell in papers if cell.model in {HEADLINE, *changed}]
            figures[f"{name}-others" + (f"-{start // AT_ONCE + 1}" if start else "")] = beside + shown
    return {name: shown for name, shown in figures.items() if shown}


def budget_section(budget: Budget, found: Sequence[Cell], notes: Sequence[Note]) -> list[Block]:
    """All tables of one budget."""
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in found:
        rows.setdefault((cell.model, cell.variant), {})[cell.dataset] = cell
    papers = {(model, ""): rows.get((model, ""), {}) for model in NAMES}
    others = {(model, ""): rows[model, ""] for model in ROWS if model not in NAMES and (model, "") in rows}
    parts: list[Block] = [Heading(2, title(budget)), Paragraph(LEARNT_FROM[budget.queries_per_image])]
    if any(papers.values()):
        parts += [Heading(3, "Accuracy, beside the papers'"), accuracy_table(papers, chance=True)]
        parts += [Paragraph("Margins of accuracy, in points:"), margin_table(papers)]
        parts += [Heading(3, "True-positive ratio, beside the papers'"), ratio_table(papers, even_map(found))]
        if short := shortfalls(papers, budget.images, notes):
            parts.append(Heading(3, "Where we fall short of the papers"))
        for note, sentences in short.items():
            parts += [*([Paragraph(note)] if note else []), Bullets(sentences)]
    if others:
        parts += [Heading(3, "Rows that the papers lack"), *both_tables(others)]
    if variants := beside_plain(rows):
        parts += [Heading(3, "Variants, beside the plain run"), *both_tables(variants)]
    parts += [Heading(3, "Accuracy by the target's scale"), Paragraph("n: test questions.")]
    for dataset, table in scale_tables(rows).items():
        parts += [Heading(4, dataset.upper()), table]
    for name, shown in figures_of(found).items():
        parts.append(Picture(f"accuracy-by-scale-{name}", f"accuracy by scale of {names_in(shown)}", SCALES))
    parts += [Heading(3, "Overlap with the target, and pointing"), Paragraph(OVERLAP)]
    for dataset, table in overlap_tables(rows).items():
        parts += [Heading(4, dataset.upper()), table]
    for name, shown in figures_of(found).items():
        parts.append(Picture(f"precision-recall-{name}", f"precision over recall of {names_in(shown)}", CURVES))
    return parts


def both_tables(rows: Rows) -> list[Block]:
    """Accuracy and true-positive ratio of rows that the papers lack."""
    return [Paragraph("Accuracy:"), accuracy_table(rows), Paragraph("True-positive ratio:"), ratio_table(rows)]


def names_in(shown: Sequence[Cell]) -> str:
    """The rows of a figure, for those who do not see it."""
    return ", ".join(dict.fromkeys(label_of(cell.model, cell.variant).text for cell in shown))


def beside_plain(rows: Rows) -> Rows:
    """Each changed recipe below the plain run of the same model and budget."""
    changed = {model for model, variant in rows if variant}
    plain: Rows = {(model, ""): {} for model in changed}
    return in_order({**plain, **{key: sets for key, sets in rows.items() if key[0] in changed}})


def runs_section(runs: Sequence[Run]) -> list[Block]:
    """Every run with its cost, hardware, version and command."""
    ordered = [(cell, run) for cell in cells(runs) for run in cell.runs]
    lines = []
    for cell, run in ordered:
        size = f"{cell.budget.images:,} × {cell.epochs:,}"
        recipe = f"{cell.budget.recipe}, {cell.budget.queries_per_image}; {cell.budget.protocol} protocol"
        measured = (f"{run['count']:,}", f"{100 * run['accuracy']:.2f}", f"{run['parameters']:,}")
        texts = (cell.dataset.upper(), size, recipe, str(run["seed"]), f"{run['learning_rate']:g}", *measured)
        made = (f"{run['seconds'] / 60:.1f} min", run["hardware"], run["torch"])
        row = [label_of(cell.model, cell.variant), *map(Entry, (*texts, *made))]
        lines.append([*row, Entry(run["commit"], code=True), Entry(run["command"], code=True)])
    head = ["model", "set", "images × epochs", "recipe, queries", "seed", "rate", "questions", "accuracy", "parameters"]
    hours = math.fsum(run["seconds"] for run in runs) / 3600
    machines = sorted({run["hardware"] for run in runs})
    again = [run["measured"]["hardware"] for run in runs if "measured" in run]
    return [
        Heading(2, "Every run"),
        Paragraph(f"{len(runs):,} runs took {hours:.1f} hours together, on: {'; '.join(machines)}."),
        *([Paragraph(REMEASURED.format(len(again), "; ".join(sorted(set(again)))))] if again else []),
        Table([], [*head, "time", "hardware", "torch", "commit", "command"], lines),
    ]
