"""The tables of the results page, as text entries whose every number comes from runs, ours beside the papers'."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from progressive_attention.config import STYLES
from progressive_attention.reproduce import published
from progressive_attention.reproduce.experiments import Job
from progressive_attention.reproduce.published import SCALE_BINS, TABLE_1
from progressive_attention.reproduce.runs import MAPS, ROWS, Cell, Estimate, estimate, mean, place_of

BEATS = "▲"
NONE = "–"
CHANCE = 1 / 5  # of five colours
HEADLINE = "pan-hard-ctx"  # the papers' best, whose margin to SAN and HAN is told
Rows = Mapping[tuple[str, str], Mapping[str, Cell]]  # (model, variant) -> data set -> cell


class Entry(NamedTuple):
    """A table's cell: text, and whether it stands out."""

    text: str
    strong: bool = False
    code: bool = False


class Table(NamedTuple):
    """``groups``: texts over so many columns each, together as wide as ``head``; the first column holds the labels."""

    groups: Sequence[tuple[str, int]]
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]


def label_of(model: str, variant: str) -> Entry:
    """A row's first entry."""
    return Entry(ROWS[model] + (f", {variant}" if variant else ""))


def percent(found: Estimate | None) -> str:
    """A share with its interval, in per cent: "98.53 ± 0.21", or "98.53 (98.28–98.75)" for one seed."""
    if found is None:
        return NONE
    middle = f"{100 * found.value:.2f}"
    if found.low is None or found.high is None:
        return middle
    if found.seeds > 1:
        return f"{middle} ± {100 * (found.high - found.value):.2f}"
    return f"{middle} ({100 * found.low:.2f}–{100 * found.high:.2f})"


def points_above(found: Estimate, papers: float) -> float:
    """Ours minus the papers' number, both as printed."""
    return round(round(100 * found.value, 2) - papers, 2)


def beside(found: Estimate | None, papers: float | None) -> Entry:
    """Ours; marked where it is above the papers' number."""
    beats = found is not None and papers is not None and points_above(found, papers) > 0
    return Entry(percent(found) + f" {BEATS}" * beats, strong=beats)


def number(papers: float | None) -> Entry:
    """A number of the papers."""
    return Entry(NONE if papers is None else f"{papers:.2f}")


def papers_of(dataset: str, model: str, variant: str = "") -> tuple[float | None, float | None, float | None]:
    """The papers' accuracy, true-positive ratio and that of 2016; None where they have none."""
    if variant or model not in TABLE_1[dataset]:
        return None, None, None
    row = TABLE_1[dataset][model]
    return row.accuracy, row.tpr, published.STRENGTH_2016[dataset].get(model)


def accuracy_table(rows: Rows, chance: bool = False) -> Table:
    """Accuracy, epochs and number of seeds by data set; with ``chance`` as the papers' Table 1: with their numbers."""
    head = ["ours", "papers", "epochs", "seeds"] if chance else ["ours", "epochs", "seeds"]
    lines = []
    if chance:
        theirs = [number(papers_of(dataset, "uniform")[0]) for dataset in STYLES]
        lines.append(
            [
                Entry("Uniform"),
                *(e for one in theirs for e in (Entry(f"{100 * CHANCE:.2f}"), one, Entry(NONE), Entry(NONE))),
            ]
        )
    for (model, variant), sets in rows.items():
        line = [label_of(model, variant)]
        for dataset in STYLES:
            cell, theirs = sets.get(dataset), papers_of(dataset, model, variant)[0]
            line.append(beside(cell.accuracy(), theirs) if cell else Entry(f"{NONE} not run"))
            line += [number(theirs)] * chance
            line += [Entry(str(cell.epochs)), Entry(str(len(cell.runs)))] if cell else [Entry(NONE)] * 2
        lines.append(line)
    return Table([("", 1), *((name.upper(), len(head)) for name in STYLES)], ["model", *head * len(STYLES)], lines)


def ratio_table(rows: Rows, even: Mapping[str, float | None] | None = None) -> Table:
    """True-positive ratios of all maps; with the even map's ratio by data set also the papers' numbers."""
    head = [*MAPS, *(["papers", "2016"] if even else [])]
    lines = []
    if even:
        uniform = [Entry("Uniform")]
        for dataset in STYLES:
            share = even[dataset]
            ours = Entry(NONE if share is None else f"{100 * share:.2f}")
            uniform += [ours] * len(MAPS) + [number(theirs) for theirs in papers_of(dataset, "uniform")[1:]]
        lines.append(uniform)
    for (model, variant), sets in rows.items():
        line = [label_of(model, variant)]
        for dataset in STYLES:
            cell, theirs = sets.get(dataset), papers_of(dataset, model, variant)[1:]
            line += [beside(cell and cell.mean(f"tpr_{name}"), theirs[0]) for name in MAPS]
            line += [number(one) for one in theirs] if even else []
        lines.append(line)
    return Table([("", 1), *((name.upper(), len(head)) for name in STYLES)], ["model", *head * len(STYLES)], lines)


def even_map(found: Sequence[Cell]) -> dict[str, float | None]:
    """Mean ratio of the uniform map over all runs of a data set."""
    return {
        name: mean([r["tpr_uniform"] for cell in found if cell.dataset == name for r in cell.runs]) for name in STYLES
    }


def margin_table(papers: Rows) -> Table:
    """By how many points of accuracy the papers' best model leads SAN and HAN, ours and theirs."""
    lines = []
    for other in ("san", "han"):
        line = [Entry(f"{ROWS[HEADLINE]} − {ROWS[other]}")]
        for dataset in STYLES:
            ours = [
                cell and cell.accuracy() for cell in (papers[model, ""].get(dataset) for model in (HEADLINE, other))
            ]
            theirs = TABLE_1[dataset][HEADLINE].accuracy - TABLE_1[dataset][other].accuracy
            lead = 100 * (ours[0].value - ours[1].value) if ours[0] and ours[1] else None
            beats = lead is not None and round(lead, 2) > round(theirs, 2)
            line += [
                Entry(NONE if lead is None else f"{lead:+.2f}" + f" {BEATS}" * beats, beats),
                Entry(f"{theirs:+.2f}"),
            ]
        lines.append(line)
    groups = [("", 1), *((name.upper(), 2) for name in STYLES)]
    return Table(groups, ["margin", *["ours", "papers"] * len(STYLES)], lines)


def scale_tables(rows: Rows) -> dict[str, Table]:
    """Accuracy by the target's scale, by data set as far as it was run; the papers publish MBG's."""
    tables = {}
    for dataset in STYLES:
        here = {key: sets[dataset] for key, sets in in_order(rows).items() if dataset in sets}
        if not here:
            continue
        papers = dataset == "mbg"
        groups, lines = [("", 1)], []
        for scale in SCALE_BINS:
            counts = sorted({run["count_by_scale"][scale] for cell in here.values() for run in cell.runs})
            groups.append((f"{scale.replace('-', '–')} (n = {' or '.join(f'{n:,}' for n in counts)})", 1 + papers))
        for (model, variant), cell in here.items():
            theirs = published.MBG_BY_SCALE.get(model) if papers and not variant else None
            line = [label_of(model, variant)]
            for k, scale in enumerate(SCALE_BINS):
                line.append(beside(cell.accuracy(scale), theirs and theirs[k]))
                line += [Entry(f"{theirs[k]:.1f}" if theirs else NONE)] * papers
            lines.append(line)
        head = ["model", *(["ours", "papers"] if papers else ["ours"]) * len(SCALE_BINS)]
        tables[dataset] = Table(groups, head, lines)
    return tables


def overlap_tables(rows: Rows) -> dict[str, Table]:
    """Best IoU with its precision and recall, pointing, spatial transformers' clipped ratio, and how well the answer's
    point and box lie, by data set.
    """
    tables = {}
    for dataset in STYLES:
        lines = []
        for (model, variant), sets in in_order(rows).items():
            if cell := sets.get(dataset):
                overlaps = [Entry(overlap(cell, name)) for name in MAPS]
                pointing = [Entry(percent(cell.mean(f"pointing_{name}"))) for name in MAPS]
                others = [Entry(percent(cell.mean(key))) for key in ("tpr_clipped", "point_on_target", "box_iou")]
                lines.append([label_of(model, variant), *overlaps, *pointing, *others])
        if lines:
            maps = len(MAPS)
            groups = [("", 1), ("best IoU (precision / recall there)", maps), ("pointing", maps), ("TPR", 1)]
            head = ["model", *MAPS, *MAPS, "clipped", "point", "box IoU"]
            tables[dataset] = Table([*groups, ("answer", 2)], head, lines)
    return tables


def overlap(cell: Cell, name: str) -> str:
    """Mean over seeds of the best IoU, and of precision and recall at each seed's best threshold."""
    found = [run["precision_recall"][name] for run in cell.runs if run["precision_recall"].get(name)]
    if not found:
        return NONE
    at = [min(range(len(c["threshold"])), key=lambda i: abs(c["threshold"][i] - c["best_threshold"])) for c in found]
    best = percent(estimate([c["best_iou"] for c in found]))
    shares = [mean([c[kind][i] for c, i in zip(found, at, strict=True)]) for kind in ("precision", "recall")]
    return best + " (" + " / ".join(NONE if share is None else f"{100 * share:.1f}" for share in shares) + ")"


def study_table(study: Sequence[tuple[Job, Cell | None]]) -> Table:
    """One row for each job of a study, its accuracy beside that of the plain job of the same network and set."""
    plain = {(job.model, job.dataset): cell.accuracy() for job, cell in study if cell and not job.variant}
    lines = []
    for job, cell in study:
        size = f"{job.images:,} × {job.recipe.epochs:,}"
        line = [label_of(job.model, job.variant), Entry(job.dataset.upper()), Entry(size)]
        ours, base = cell and cell.accuracy(), plain.get((job.model, job.dataset))
        lead = f"{100 * (ours.value - base.value):+.2f}" if ours and base and job.variant else NONE
        count = f"{cell.runs[0]['count']:,}" if cell else NONE
        found = [percent(ours) if cell else f"{NONE} not run", lead, str(len(cell.runs)) if cell else NONE, count]
        ratios = [percent(cell and cell.mean(f"tpr_{name}")) for name in MAPS]
        lines.append([*line, *map(Entry, [*found, *ratios])])
    head = ["model", "set", "images × epochs", "accuracy", "points", "seeds", "questions"]
    return Table([("", len(head)), ("TPR", len(MAPS))], [*head, *MAPS], lines)


def in_order(rows: Rows) -> Rows:
    """Rows in the tables' order, a model's variants below it."""
    return {key: rows[key] for key in sorted(rows, key=lambda key: (place_of(key[0]), key[1]))}
