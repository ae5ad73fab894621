"""Results of trained networks as plain JSON: read, checked, grouped into cells of a table, averaged over seeds.

A run is one network trained once from one seed: a dict of the keys below, shares in 0..1. A cell is all runs that
differ in their seed only, so that no average mixes what was trained differently.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from progressive_attention.config import ALIASES, MODELS, PROTOCOLS, RECIPES, STYLES
from progressive_attention.files import read_json
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.reproduce.published import NAMES, SCALE_BINS

Run = dict[str, Any]

MAPS = ("last", "accumulated", "activation", "flow")
# Every model's title, the papers' first, in the order of all tables and legends.
ROWS = NAMES | {name: row["title"] for name, row in MODELS.items() if name not in NAMES}
KNOWN: dict[str, tuple[str, ...]] = {
    "model": (*MODELS, *ALIASES),
    "dataset": STYLES,
    "protocol": PROTOCOLS,
    "recipe": tuple(RECIPES),
    "queries_per_image": ("one", "all", "rows"),
}
TEXTS = ("variant", "hardware", "commit", "command", "torch")
COUNTS = ("seed", "images", "epochs", "count", "parameters")
AMOUNTS = ("learning_rate", "seconds")
SHARES = (
    "accuracy",
    "tpr_uniform",
    "tpr_clipped",
    *(f"{kind}_{name}" for kind in ("tpr", "pointing", "iou") for name in MAPS),
    "point_on_target",
    "box_iou",
)
# What runs of earlier versions lack, until they are measured again.
LATER = ("tpr_flow", "pointing_flow", *(f"iou_{name}" for name in MAPS), "point_on_target", "box_iou")
ALIKE = ("learning_rate", "batch", "recipe_changes", "network_changes")  # what all runs of a cell have in common
CURVE = ("precision", "recall", "iou")
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; any table of it has them.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Budget(NamedTuple):
    """What a network was trained on, and how: only runs of one budget stand in one table."""

    protocol: str
    recipe: str
    queries_per_image: str
    images: int


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval, None for the ends where one seed says nothing of the spread."""

    value: float
    low: float | None
    high: float | None
    seeds: int


class Cell(NamedTuple):
    """Runs that differ in their seed only, in the order of their seeds; ``variant`` "" is the plain recipe.

    Networks differ in how many epochs they need: of runs that differ in nothing else, the longest stand for the model,
    shorter ones are variants, named by their epochs.
    """

    budget: Budget
    variant: str
    model: str
    dataset: str
    epochs: int
    runs: tuple[Run, ...]

    def accuracy(self, scale: str | None = None) -> Estimate | None:
        """Accuracy over all questions, or those of one scale bin; None where no question falls into it."""
        if scale is None:
            return estimate([run["accuracy"] for run in self.runs], self.runs[0]["count"])
        shares = [run["accuracy_by_scale"][scale] for run in self.runs]
        asked = max(run["count_by_scale"][scale] for run in self.runs)  # where one seed alone has some: its own
        return estimate(shares, asked)

    def mean(self, key: str) -> Estimate | None:
        """Mean of ``tpr_...`` or ``pointing_...``; None where the model has no such map."""
        return estimate([run[key] for run in self.runs])

    def curve(self, of_map: str) -> dict[str, list[float | None]] | None:
        """Threshold, precision, recall and IoU of one map, averaged over seeds threshold by threshold."""
        curves = [run["precision_recall"][of_map] for run in self.runs if run["precision_recall"].get(of_map)]
        if not curves:
            return None
        if any(curve["threshold"] != curves[0]["threshold"] for curve in curves):
            raise ValueError(f"{title_of(self)}: the runs' curves have different thresholds; measure them again alike")
        means = {name: [mean(values) for values in zip(*(c[name] for c in curves), strict=True)] for name in CURVE}
        return {"threshold": curves[0]["threshold"], **means}


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the known values, None if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def estimate(values: Sequence[float | None], questions: int | None = None) -> Estimate | None:
    """Mean over seeds, with Student's interval from two seeds on; None if no value is known.

    One seed has Wilson's interval of a share of so many ``questions``, if given: it tells how well the test set
    measures this one network, nothing of other seeds.
    """
    known = [value for value in values if value is not None]
    middle = mean(known)
    if middle is None:
        return None
    if len(known) > 1:
        spread = math.sqrt(math.fsum((value - middle) ** 2 for value in known) / (len(known) - 1))
        half = STUDENT[min(len(known) - 1, len(STUDENT)) - 1] * spread / math.sqrt(len(known))
        return Estimate(middle, middle - half, middle + half, len(known))
    if questions is None:
        return Estimate(middle, None, None, 1)
    return Estimate(middle, *wilson_interval(round(middle * questions), questions), 1)


def cells(runs: Sequence[Run]) -> list[Cell]:
    """Group runs that differ in their seed only: largest budget first, then plain runs before variants, then as ROWS.

    Raises ValueError for a cell that holds one seed twice, or runs that were trained differently.
    """
    groups: dict[tuple[Budget, str, str, str, int], list[Run]] = {}
    longest: dict[tuple[Budget, str, str, str], int] = {}
    for run in runs:
        row = Budget(*(run[name] for name in Budget._fields)), run["variant"], run["model"], run["dataset"]
        longest[row] = max(run["epochs"], longest.get(row, 0))
        groups.setdefault((*row, run["epochs"]), []).append(run)
    found = []
    for (budget, variant, model, dataset, epochs), group in groups.items():
        if epochs < longest[budget, variant, model, dataset]:
            variant = ", ".join(filter(None, [variant, f"{epochs} epoch" + "s" * (epochs > 1)]))
        ordered = tuple(sorted(group, key=lambda run: run["seed"]))
        found.append(Cell(budget, variant, model, dataset, epochs, ordered))
    for cell in found:
        seeds = [run["seed"] for run in cell.runs]
        if len(set(seeds)) < len(seeds):
            raise ValueError(
                f"{title_of(cell)}: seeds {seeds} hold one twice, which would make the interval too narrow; "
                "keep one of them, or tell them apart by their variant"
            )
        check_alike(title_of(cell), cell.runs, ALIKE)
    return sorted(
        found,
        key=lambda cell: (
            *(-cell.budget.images, cell.budget),
            *(cell.variant, place_of(cell.model), place_of(cell.dataset)),
        ),
    )


def check_alike(title: str, runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Raises ValueError if runs, of which a mean is wanted, differ in one of the keys."""
    for key in keys:
        values = [run.get(key) for run in runs]
        if any(value != values[0] for value in values):
            seeds = [run["seed"] for run in runs]
            raise ValueError(
                f"{title}: {key} is {', '.join(map(str, values))} for seeds {seeds}, and a mean would mix them; train "
                "them alike, or tell them apart by their variant"
            )


def place_of(name: str) -> int:
    """Place of a data set or a model in the order of all tables."""
    return [*STYLES, *ROWS].index(name)


def title_of(cell: Cell) -> str:
    """A cell in words: "mref pan-hard-ctx, 30,000 images x 12 epochs"."""
    variant = f" ({cell.variant})" if cell.variant else ""
    return f"{cell.dataset} {cell.model}{variant}, {cell.budget.images:,} images x {cell.epochs} epochs"


def read_runs(path: Path) -> list[Run]:
    """The runs of a ``table1.json``; raises ValueError that names file, run and key for anything but that.

    The 2016 names become the 2018 ones.
    """
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise ValueError(f"{path} must hold a list of at least one run; 'pan reproduce' writes it")
    return [checked(run, f"{path}, run {i}") for i, run in enumerate(found)]


def checked(run: Any, place: str) -> Run:
    """The run itself if every key is there and in range; else ValueError that names ``place``.

    What it lacks of ``LATER`` becomes None.
    """
    if not isinstance(run, dict):
        raise ValueError(f"{place}: expected an object of results, got {run!r}; remove it")
    run = run | {name: None for name in LATER if name not in run}
    wanted = (*KNOWN, *TEXTS, *COUNTS, *AMOUNTS, *SHARES, "accuracy_by_scale", "count_by_scale", "precision_recall")
    if missing := [name for name in wanted if name not in run]:
        raise ValueError(
            f"{place} lacks {', '.join(missing)}; remove it from the file, and 'pan reproduce' adds it again"
        )

    def expect(right: bool, key: str, wanted: str, value: Any) -> None:
        if not right:
            raise ValueError(f"{place}: {key} must be {wanted}, got {value!r}; correct it or run that network again")

    for key, known in KNOWN.items():
        expect(run[key] in known, key, f"one of {', '.join(known)}", run[key])
    for key in TEXTS:
        expect(isinstance(run[key], str), key, "text", run[key])
    for key in COUNTS:
        expect(is_count(run[key]), key, "a whole number >= 0", run[key])
    for key in AMOUNTS:
        expect(is_number(run[key]) and run[key] >= 0, key, "a number >= 0", run[key])
    for key in SHARES:
        expect(is_share(run[key], key != "accuracy"), key, "a share in 0..1 (null: no such map)", run[key])
    for key, right, of in (
        ("accuracy_by_scale", is_share, "shares in 0..1 or null"),
        ("count_by_scale", is_count, "whole numbers >= 0"),
    ):
        by_scale = isinstance(run[key], dict) and set(run[key]) == set(SCALE_BINS)
        expect(by_scale and all(map(right, run[key].values())), key, f"{of} for {', '.join(SCALE_BINS)}", run[key])
    curves = run["precision_recall"]
    expect(isinstance(curves, dict) and set(curves) <= set(MAPS), "precision_recall", f"by map {MAPS}", curves)
    for name, curve in curves.items():
        expect(curve is None or is_curve(curve), f"precision_recall of {name}", "columns of one length", curve)
    return {**run, "model": ALIASES.get(run["model"], run["model"])}


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether it is a whole number >= 0."""
    return is_number(value) and isinstance(value, int) and value >= 0


def is_share(value: Any, or_none: bool = True) -> bool:
    """Whether it is a number in [0, 1], or None where that is allowed."""
    return (or_none and value is None) or (is_number(value) and 0 <= value <= 1)


def is_curve(curve: Any) -> bool:
    """Whether it is a precision-recall curve: columns of one length, and a best IoU among its thresholds."""
    if not isinstance(curve, dict):
        return False
    columns: list[Any] = [curve.get(name) for name in ("threshold", *CURVE)]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return False
    numbers = [*columns[0], curve.get("best_threshold")]
    shares = [value for column in (*columns[1:], [curve.get("best_iou")]) for value in column]
    return all(map(is_number, numbers)) and all(map(is_share, shares))
