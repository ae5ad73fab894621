"""The results page of ``pan reproduce``: a README with ours beside the papers' numbers, from table1.json alone."""

import math
from collections.abc import Sequence
from pathlib import Path

from progressive_attention.config import STYLES
from progressive_attention.files import write_text
from progressive_attention.pages.blocks import Block, Figure, Markdown, bullets, heading, line, markdown_page, table
from progressive_attention.pages.paper_figures import accuracy_by_scale_figure, precision_recall_figure
from progressive_attention.reproduce import published
from progressive_attention.reproduce.runs import Budget, Cell, Estimate, Run, cells, mean, place_of, title_of

NONE = "–"
CHANCE = 20.0  # per cent, of five colours
FIGURES = "figures"
QUERIES = {
    "all": "every digit of an image asked",
    "one": "one digit an image asked",
    "rows": "every question an example of its own",
}
READING = [
    "All figures are per cent, with the papers' in brackets; bold means above the paper's. The notation a ± b is the "
    "mean over seeds and half of its 95 % interval (Student's t); a number without ± comes from one seed. –: not run, "
    "or the network has no map.",
    "Attention is the true-positive ratio, the share of the attention that lies on the target. It is measured on the "
    "flow map; for spatial transformers, on the region they see. Last map: the ratio of the last layer's map alone. "
    "The paper does not say which map it measures.",
    "Uniform is chance and the even map. It is computed, not trained.",
    "The papers ask about one digit per image, and train on 30,000 images until 50 epochs bring no improvement. Runs "
    "with fewer images compare recipes and protocols; they are not meant to reach the papers' numbers.",
    "STN-M is still learning when its epochs end. As the paper reports, its views follow the question and not the "
    "image: they show later stages what was asked, and do not look at the target "
    "(docs/protocols.md, Spatial transformers).",
]
FIGURE_WORDS = (
    "Accuracy by the target's scale. Bars are 95 % intervals: over seeds or, for one seed, over the test questions "
    "(Wilson). The axis is logarithmic in the errors. Precision over recall shows the flow map at each threshold (for "
    "spatial transformers, their region), averaged over seeds. The marker shows the best IoU."
)
SCENES = (
    "Where networks look. The target is outlined. (a) is the magnitude of the features before the gate and (b) behind "
    "it. Each is spread over the pixels that its cells see and rescaled to 0 to 1. The last column shows the flow map "
    "over the image, and below it the image lit by (b) of the last layer."
)


def write_results(runs: Sequence[Run], folder: Path) -> None:
    """Draw the figures into ``folder``/figures, then write README.md. Raises ValueError for no runs."""
    page = results_page(runs, folder)
    for name, shown in figures_of(cells(runs)).items():
        accuracy_by_scale_figure(shown, folder / FIGURES / f"accuracy-by-scale-{name}.png")
        precision_recall_figure(shown, folder / FIGURES / f"precision-recall-{name}.png")
    write_text(folder / "README.md", page)


def results_page(runs: Sequence[Run], folder: Path) -> str:
    """The README of runs, with figures/qualitative-*.png as far as ``folder`` has them. Raises ValueError for no runs.

    First the papers' networks with the largest budget, then figures, then all other rows, a table for each budget.
    """
    if not runs:
        raise ValueError("there is no run to report; train some by 'pan reproduce'")
    every = cells(runs)
    main = [cell for cell in every if is_papers(cell)]
    main = [cell for cell in main if cell.budget == main[0].budget]
    others = [cell for cell in every if cell not in main]
    blocks: list[Block] = [heading(1, "The papers' experiments, run again")]
    if main:
        blocks += [line(in_words(main[0].budget)), results_table(main, uniform=True), bullets(READING)]
    blocks += [heading(2, "In figures"), line(FIGURE_WORDS)]
    for name, shown in figures_of(every).items():
        names = ", ".join(dict.fromkeys(row_name(cell) for cell in shown))
        blocks.append(Figure(f"{FIGURES}/accuracy-by-scale-{name}.png", f"accuracy by scale of {names}"))
        blocks.append(Figure(f"{FIGURES}/precision-recall-{name}.png", f"precision over recall of {names}"))
    if scenes := sorted((folder / FIGURES).glob("qualitative-*.png")):
        blocks.append(line(SCENES))
        blocks += [Figure(f"{FIGURES}/{path.name}", f"attention of networks, {path.stem}") for path in scenes]
    if others:
        blocks.append(heading(2, "Other rows, variants and budgets"))
    for budget in dict.fromkeys(cell.budget for cell in others):
        blocks += [line(in_words(budget)), results_table([cell for cell in others if cell.budget == budget])]
    return markdown_page([*blocks, *sources(runs)])


def is_papers(cell: Cell) -> bool:
    """Whether the papers have such a row."""
    return cell.model in published.NAMES and not cell.variant


def row_name(cell: Cell) -> str:
    """The model's name, and the variant if it is not plain."""
    return title_of(cell.model) + (f", {cell.variant}" if cell.variant else "")


def in_words(budget: Budget) -> str:
    """A budget in words."""
    size = f"{budget.images:,} images, {budget.recipe} recipe, {budget.protocol} protocol"
    return f"{size}, {QUERIES[budget.queries_per_image]}:"


def figures_of(every: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The plain cells of each figure, by the end of its name: of the largest budget the papers' rows, and others."""
    figures: dict[str, list[Cell]] = {}
    plain = [cell for cell in every if not cell.variant]
    for cell in plain:
        if cell.budget == plain[0].budget:
            name = "-".join(map(str, cell.budget)) + ("" if is_papers(cell) else "-others")
            figures.setdefault(name, []).append(cell)
    return figures


def rows_of(shown: Sequence[Cell]) -> list[dict[str, Cell]]:
    """Cells of one budget by row and data set, in the tables' order, a model's variants below it."""
    rows: dict[tuple[int, str], dict[str, Cell]] = {}
    for cell in shown:
        rows.setdefault((place_of(cell.model), cell.variant), {})[cell.dataset] = cell
    return [rows[key] for key in sorted(rows)]


def number(found: Estimate | None) -> str:
    """A share in per cent, over several seeds with half of its interval: "98.53 ± 0.21"."""
    if found is None:
        return NONE
    middle = f"{100 * found.value:.2f}"
    if found.seeds < 2 or found.high is None:
        return middle
    return f"{middle} ± {100 * (found.high - found.value):.2f}"


def beside(found: Estimate | None, papers: float | None) -> str:
    """Ours, bold where it is above the papers' number as printed; and theirs in brackets."""
    if papers is None:
        return number(found)
    above = found is not None and round(100 * found.value, 2) > papers
    return Markdown(f"**{number(found)}** ({papers:.2f})" if above else f"{number(found)} ({papers:.2f})")


def results_table(shown: Sequence[Cell], *, uniform: bool = False) -> Markdown:
    """Accuracy and attention by data set, of one budget, beside the papers' numbers; seeds and epochs of each row."""
    rows = []
    for sets in rows_of(shown):
        seeds, epochs = {len(cell.runs) for cell in sets.values()}, {cell.epochs for cell in sets.values()}
        row = [row_name(next(iter(sets.values()))), "×".join("/".join(map(str, sorted(n))) for n in (seeds, epochs))]
        for name in STYLES:
            cell = sets.get(name)
            theirs = published.TABLE_1[name].get(cell.model) if cell and is_papers(cell) else None
            row.append(beside(cell and cell.accuracy(), theirs and theirs.accuracy))
            last = cell and cell.mean("tpr_last")
            row += [beside((cell and cell.mean("tpr_flow")) or last, theirs and theirs.tpr), number(last)]
        rows.append(row)
    if uniform:
        rows.append(uniform_row(shown))
    columns = [f"{name.upper()} {what}" for name in STYLES for what in ("accuracy", "attention", "last map")]
    return table(["network", "seeds×epochs", *columns], rows)


def uniform_row(shown: Sequence[Cell]) -> list[str]:
    """Chance, and the mean ratio of the uniform map over all runs of a data set."""
    row = ["Uniform", NONE]
    for name in STYLES:
        theirs = published.TABLE_1[name]["uniform"]
        even = mean([run["tpr_uniform"] for cell in shown if cell.dataset == name for run in cell.runs])
        ours = NONE if even is None else f"{100 * even:.2f}"
        row += [f"{CHANCE:.2f} ({theirs.accuracy:.2f})", f"{ours} ({theirs.tpr:.2f})", ""]
    return row


def sources(runs: Sequence[Run]) -> list[Block]:
    """Where the numbers come from."""
    hours = math.fsum(run["seconds"] for run in runs) / 3600
    machines = "; ".join(sorted({run["hardware"] for run in runs}))
    words = (
        f"{len(runs):,} runs took {hours:.1f} hours in all. Machines: {machines}. The file table1.json has the "
        "command, commit, seed and cost of each run, and all its figures: accuracy by scale, every map's ratio, IoU "
        f"and pointing. Papers: {published.SOURCE}."
    )
    again = [run["measured"]["hardware"] for run in runs if "measured" in run]
    if again:
        words += f" {len(again):,} were measured again from their weights. Machines: {'; '.join(sorted(set(again)))}."
    return [heading(2, "Where the numbers come from"), line(words)]
