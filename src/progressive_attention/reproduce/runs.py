"""Results of trained networks as plain JSON: read, checked, grouped into cells of a table, averaged over seeds.

A run is one network trained once from one seed: a dict of the keys of ``Figures``, shares in 0..1. A cell is all runs
that differ in their seed only, so that no average mixes what was trained differently.
"""

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from progressive_attention.config import ALIASES, MODELS, RECIPES, STYLES, Protocol, Queries, Style, one_of
from progressive_attention.files import read_json, write_json
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.reproduce.published import NAMES, SCALE_BINS

Run = dict[str, Any]

CELL = ("variant", "model", "dataset", "protocol", "recipe", "queries_per_image", "images", "epochs", "seed")
ALIKE = ("learning_rate", "batch", "recipe_changes", "network_changes")  # what all runs of a cell have in common
CURVES = "precision_recall"  # a run's key, and in a folder of results a file of its own
LONGEST_VARIANT = 100  # letters of it in a name
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; any table of it has them.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
STUDENT += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0, lt=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]
MaybeShare = Share | None  # None: no such map, or no such question


class Curve(msgspec.Struct):
    """Precision, recall and IoU of a map at each threshold, and the threshold of the best IoU."""

    threshold: list[Share]
    precision: list[MaybeShare]
    recall: list[MaybeShare]
    iou: list[MaybeShare]
    best_threshold: Share
    best_iou: MaybeShare


TEXTS = ("model", "variant", "recipe", "hardware", "commit", "command", "torch")
COUNTS = ("seed", "images", "epochs", "count", "parameters")
RATIOS = ("tpr_last", "tpr_accumulated", "tpr_activation", "tpr_uniform", "tpr_clipped")
RATIOS += ("pointing_last", "pointing_accumulated", "pointing_activation")
LATER = ("tpr_flow", "pointing_flow", "iou_last", "iou_accumulated", "iou_activation", "iou_flow")  # older runs lack
LATER += ("point_on_target", "box_iou")  # these, until they are measured again
Figures = msgspec.defstruct(  # what a run must hold, and in which range; it may hold more (docs/reproduce.md)
    "Figures",
    [
        ("dataset", Style),
        ("protocol", Protocol),
        ("queries_per_image", Queries),
        *((name, str) for name in TEXTS),
        *((name, Count) for name in COUNTS),
        *((name, Amount) for name in ("learning_rate", "seconds")),
        ("accuracy", Share),
        ("accuracy_by_scale", dict[str, MaybeShare]),
        ("count_by_scale", dict[str, Count]),
        *((name, MaybeShare) for name in RATIOS),
        *((name, MaybeShare, None) for name in LATER),
        (CURVES, dict[Literal["last", "accumulated", "activation", "flow"], Curve | None], {}),
    ],
)


class Budget(NamedTuple):
    """What a network was trained on, and how: only runs of one budget share a table."""

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
    """Runs that differ in their seed only, in the order of their seeds; ``variant`` "" is the plain recipe."""

    budget: Budget
    variant: str
    model: str
    dataset: str
    epochs: int
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """In words: "mref pan-hard-ctx, 30,000 images x 12 epochs"."""
        variant = f" ({self.variant})" if self.variant else ""
        return f"{self.dataset} {self.model}{variant}, {self.budget.images:,} images x {self.epochs} epochs"

    def accuracy(self, scale: str | None = None) -> Estimate | None:
        """Accuracy over all questions, or those of one scale bin; None where no question falls into it."""
        if scale is None:
            return estimate([run["accuracy"] for run in self.runs], self.runs[0]["count"])
        asked = max(run["count_by_scale"][scale] for run in self.runs)  # where only one seed has some: its number
        return estimate([run["accuracy_by_scale"][scale] for run in self.runs], asked)

    def mean(self, key: str) -> Estimate | None:
        """Mean of a figure such as ``tpr_flow``; None where no run has it."""
        return estimate([run.get(key) for run in self.runs])

    def curve(self, of_map: str) -> dict[str, list[float | None]] | None:
        """Precision, recall and IoU of one map, averaged over seeds threshold by threshold."""
        curves = [run[CURVES][of_map] for run in self.runs if run[CURVES].get(of_map)]
        if not curves:
            return None
        if any(curve["threshold"] != curves[0]["threshold"] for curve in curves):
            raise ValueError(f"{self.title}: the runs' curves have different thresholds; measure them again alike")
        names = ("precision", "recall", "iou")
        return {name: [mean(shares) for shares in zip(*(c[name] for c in curves), strict=True)] for name in names}


def models_in_order() -> list[str]:
    """All models as tables and legends list them: the papers' rows first."""
    return [*NAMES, *(name for name in MODELS if name not in NAMES)]


def place_of(name: str) -> int:
    """Place of a data set or a model in the order of all tables."""
    return [*STYLES, *models_in_order()].index(name)


def title_of(model: str) -> str:
    """A model's name in tables and figures."""
    return MODELS[model].get("title", model)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the known values, None if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def estimate(values: Sequence[float | None], questions: int | None = None) -> Estimate | None:
    """Mean over seeds, with Student's interval from two seeds on; None if no value is known.

    One seed has Wilson's interval of a share of so many ``questions``, if given: how well the test set measures this
    one network, nothing of other seeds.
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
    """Runs that differ in their seed only: largest budget first, plain runs before variants, in the models' order.

    Networks differ in how many epochs they need: of runs that differ in nothing else, the longest stand for the model,
    shorter ones are variants, named by their epochs. Raises ValueError as ``check_alike``.
    """
    groups: dict[tuple[tuple[Budget, str, str, str], int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        row = Budget(*(run[name] for name in Budget._fields)), run["variant"], run["model"], run["dataset"]
        groups.setdefault((row, run["epochs"]), []).append(run)
    table = []
    for (row, epochs), group in groups.items():
        budget, variant, model, dataset = row
        if epochs < max(other for same, other in groups if same == row):
            shorter = f"{epochs} epoch" + ("s" if epochs > 1 else "")
            variant = f"{variant}, {shorter}" if variant else shorter
        cell = Cell(budget, variant, model, dataset, epochs, tuple(group))
        check_alike(cell.title, group, ALIKE)
        table.append(cell)
    return sorted(table, key=lambda c: (-c.budget.images, c.budget, c.variant, place_of(c.model), place_of(c.dataset)))


def check_alike(title: str, runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Raises ValueError if runs, of which a mean is wanted, have a seed in common or differ in one of the keys."""
    seeds = [run["seed"] for run in runs]
    if len({*seeds}) < len(seeds):
        raise ValueError(f"{title}: seeds {seeds} hold one twice; keep one of them, or give them different variants")
    for key in keys:
        values = [run.get(key) for run in runs]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"{title}: {key} is {', '.join(map(str, values))} for seeds {seeds}, and a mean would mix them; train "
                "them alike, or give them different variants"
            )


def cell_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What identifies a run in a table."""
    return tuple(run[name] for name in CELL)


def name_of(run: Mapping[str, Any]) -> str:
    """A run in words that are the name of a file or folder; no two trainings have the same."""
    words = "".join(letter if letter.isalnum() else " " for letter in run["variant"][:LONGEST_VARIANT]).split()
    parts = [run["dataset"], run["model"], *words, run["protocol"], run["recipe"], f"{run['images']}x{run['epochs']}"]
    parts += [f"b{run.get('batch', '')}", f"lr{run['learning_rate']:g}", f"s{run['seed']}"]
    changes = [run.get("recipe_changes", {}), list(run.get("network_changes", {}).items())]
    further = [run["variant"], *changes, []]  # the last was for learning rates to choose from; names must stay
    further += [run["content"], run["backbone_weights"]] if "content" in run else []
    if any(further):
        parts.append(sha256(json.dumps(further).encode()).hexdigest()[:6])
    return "-".join(parts)


def read_runs(path: Path) -> list[Run]:
    """The runs of a ``table1.json``, with their curves from the folder ``curves`` beside it, or from the file itself.

    The 2016 names become the 2018 ones. Raises ValueError that names file, run and key for anything but runs.
    """
    runs = read_json(path)
    if not isinstance(runs, list) or not runs:
        raise ValueError(f"{path} must hold a list of at least one run; 'pan reproduce' writes it")
    for i, run in enumerate(runs):
        check_figures(run, f"{path}, run {i}")
        run["model"] = ALIASES.get(run["model"], run["model"])
        curves = curves_of(run, path.parent)
        if CURVES not in run:
            run[CURVES] = read_json(curves) if curves.exists() else {}
            check_figures(run, str(curves))
    return runs


def check_figures(run: Any, place: str) -> None:
    """Raises ValueError that names the place and the key for what is no run."""
    try:
        msgspec.convert(run, Figures)
        one_of("model", run["model"], {**MODELS, **ALIASES})
        one_of("recipe", run["recipe"], RECIPES)
        if not set(run["accuracy_by_scale"]) == set(run["count_by_scale"]) == set(SCALE_BINS):
            raise ValueError(f"accuracy_by_scale and count_by_scale must be given for {', '.join(SCALE_BINS)}")
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(
            f"{place}: {explained(error)}; correct it, or remove the run from the table, and 'pan reproduce' adds it"
        ) from error


def explained(error: Exception) -> str:
    """What is wrong where: "seeds[0]: Expected `int`, got `str`"."""
    reason, _, place = str(error).partition(" - at ")
    place = place.replace("`", "").replace("$.", "")
    return f"{place}: {reason}" if place else reason


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Write a ``table1.json``, and before it the curves of each run into a file of its own."""
    for run in runs:
        curves = curves_of(run, path.parent)
        if run[CURVES] and not (curves.exists() and read_json(curves) == run[CURVES]):
            write_json(curves, run[CURVES])
    write_json(path, [{key: value for key, value in run.items() if key != CURVES} for run in runs])


def curves_of(run: Run, folder: Path) -> Path:
    """Where a folder of results keeps a run's curves."""
    return folder / "curves" / f"{name_of(run)}.json"
