"""One run as a page: how it learnt, what it answers and confuses, how evenly it attends, where it looked.

Gathered from the run's folder and an evaluation, which is made where there is none. Nothing that is missing stops the
page: it says what, why, and which command supplies it.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console

from progressive_attention.config import Recipe
from progressive_attention.data.images import BoxMasks
from progressive_attention.data.questions import QuestionSet, fingerprint_of
from progressive_attention.evaluation.many_attributes import askable
from progressive_attention.evaluation.measured import (
    fingerprint_of_weights,
    load_with_bar,
    measure,
    name_of,
    read_measured,
    read_notes,
    rows_path,
    source_of,
    write_measured,
)
from progressive_attention.evaluation.summaries import VALIDATION_SCORES, score_of
from progressive_attention.files import read_json
from progressive_attention.pages.plots import Scene
from progressive_attention.predict.predictor import Predictor
from progressive_attention.predict.text_queries import Encode, knowing
from progressive_attention.reproduce.machine import package_version
from progressive_attention.saved import weights
from progressive_attention.saved.network_folder import read_config
from progressive_attention.training.loop import read_log
from progressive_attention.training.optimizers import learning_rate

FIRST, SUREST = 4, 6  # examples: the first questions, and the surest wrong answers


class Missing(NamedTuple):
    """What the page lacks, why, and the command that supplies it, "" for none."""

    what: str
    why: str
    remedy: str = ""


@dataclass
class RunResults:
    """All that is known of a run; ``figures`` are an evaluation's summary, ``table`` its readable rows, if known."""

    given: str
    about: dict[str, Any]
    log: list[dict[str, Any]]
    data: str  # the name of what it was measured on
    figures: dict[str, Any] | None = None
    table: pa.Table | None = None
    scenes: list[Scene] = field(default_factory=list)
    chosen: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The network's."""
        return self.about.get("name") or self.about["model"]["network"]


def gather(
    given: str, data: str | None, split: str | None, device: str, console: Console, encode: Encode | None = None
) -> RunResults:
    """All of a run's folder, or of shipped weights, with an evaluation read or made.

    ``data`` and ``split`` as in ``load_questions``, by default what the run tells; ``encode`` as in ``knowing``. Raises
    ValueError for what is no trained network, and for ``data`` that can't be used.
    """
    folder = weights.find(given)
    _, about = read_config(folder)
    trained_on = data or str(about.get("data") or "")
    found = RunResults(given, about, [], Path(trained_on).resolve().name if trained_on else "")
    add_log(found, folder / "log.jsonl")
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
    found.facts = {
        name: str(made) for name in ("command", "hardware", "commit") if (made := {**about, **result}.get(name))
    }
    add_measured(found, data, split, device, console, encode)
    if found.figures is None and (measured := result or about.get("test")):
        found.figures = measured
        found.facts["figures from"] = str(folder / ("result.json" if result else "config.json"))
    found.facts["page"] = f"progressive-attention {package_version()}, Python {platform.python_version()}"
    return found


def add_log(found: RunResults, path: Path) -> None:
    """Add the training's log, or that it is missing."""
    try:
        found.log = read_log(path)
        why = f"{path}, which training writes, is not there"
    except ValueError as error:
        why = f"{path} can't be read ({error})"
    if not found.log:
        found.missing.append(Missing("training curves", why))


def add_measured(
    found: RunResults, data: str | None, split: str | None, device: str, console: Console, encode: Encode | None
) -> None:
    """Add an evaluation's rows and figures, and examples; or what is missing for them."""
    ask_for_data = f"pan report {found.given} --data DATA"
    source = {**source_of(found.about, data), **({"split": split} if split else {})}
    if "data" not in source:
        why = "config.json doesn't say what the network was trained on"
        found.missing.append(Missing("an evaluation, and examples", why, ask_for_data))
        return
    path = rows_path(found.given, name_of(source["data"], source["split"]))
    notes = read_notes(path)
    source = {**notes.get("source", source), **({"data": data} if data else {})}
    measured = read_measured(path) if is_of(notes, found.given) else None
    predictor = None
    try:
        predictor = Predictor(found.given, device, encode)
        predictor.detector = None  # the rows tell of answers as they are, whatever is found
        questions = load_with_bar(console, **source)
        trained = predictor.trained
        if trained.model.query_vectors is not None:
            trained = knowing(trained, questions.query_names, encode)
        if measured is None or notes["questions"] != fingerprint_of(questions):
            measured = None  # rows of other questions are no rows of these
            measured = measure(trained, questions, source, predictor.device, console)
            write_measured(path, measured, found.given, questions, source)
        if questions.likelihood == "bernoulli":
            questions = askable(questions, trained)[0]
        add_examples(found, readable(measured.table), questions, predictor)
    except (ValueError, OSError) as error:
        if data:
            raise
        what = "examples" if measured else "an evaluation, and examples"
        found.missing.append(Missing(what, str(error), ask_for_data if predictor else ""))
    if measured is not None:
        found.table, found.figures = readable(measured.table), measured.figures
        found.facts["measured on"] = f"{name_of(source['data'], source['split'])}; one row per question: {path}"


def is_of(notes: Mapping[str, Any], given: str) -> bool:
    """Whether noted rows are those of this network, if its weights are there to tell."""
    here = (weights.find(given) / "weights.safetensors").exists()
    return bool(notes) and (not here or notes["weights"] == fingerprint_of_weights(given))


def readable(table: pa.Table) -> pa.Table:
    """The rows whose image could be read."""
    return table.filter(table["read"]) if "read" in table.column_names else table


def judged(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Of each readable row whether the answer is right, and how sure it is: (R,) bool, (R,) float64.

    Where several attributes may hold, the answer is the likeliest of them, and its log-odds tell how sure it is.
    """
    if "correct" in table.column_names:
        return table["correct"].to_numpy(), table["probability"].to_numpy()
    right = [top[0] in holds for holds, top in zip(*(table[c].to_pylist() for c in ("attributes", "top")), strict=True)]
    return np.array(right, bool), np.array([odds[0] for odds in table["log_odds"].to_pylist()], float)


def examples_of(right: np.ndarray, sure: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows to show: the first FIRST, and of the other wrong ones the SUREST surest, the surest first."""
    first = list(range(min(FIRST, len(right))))
    later = np.flatnonzero(~right[len(first) :]) + len(first)
    return first, later[np.argsort(-sure[later], kind="stable")][:SUREST].tolist()


def add_examples(found: RunResults, table: pa.Table, questions: QuestionSet, predictor: Predictor) -> None:
    """Add some of the questions, of which the rows are readable, with the network's answers and attention."""
    right, sure = judged(table)
    first, wrong = examples_of(right, sure)
    for row in table["row"].to_numpy()[[*first, *wrong]].tolist():
        query, truth = questions.words(row)
        image = np.array(questions.images[questions.image[row]])
        answer = predictor.ask(image, query)
        found.scenes.append(Scene(image, target_of(questions, row), query, truth, {found.name: answer}))
    kind = "answers" if "correct" in table.column_names else "answers (the likeliest attribute does not hold)"
    of_wrong = f", then the {len(wrong)} surest of {int((~right).sum()):,} wrong {kind}" if wrong else ""
    found.chosen = f"The first {len(first)} questions{of_wrong}. On a narrow screen the rows scroll sideways."


def target_of(questions: QuestionSet, row: int) -> np.ndarray | None:
    """The asked object's mask (H, W) bool, or that of its box; None where neither is known."""
    boxes = None if questions.box is None else BoxMasks(questions.box, questions.images.shape[1])
    masks = boxes if questions.masks is None else questions.masks
    return None if masks is None else masks[np.array([row])][0]


def recipe_of(about: Mapping[str, Any]) -> Recipe | None:
    """How it was trained, None where config.json does not tell."""
    try:
        return Recipe(**about["recipe"])
    except (KeyError, TypeError, ValueError):
        return None


def rates(log: Sequence[Mapping[str, Any]], recipe: Recipe) -> tuple[list[float], list[float]]:
    """Epochs done, and the learning rate there: of up to 200 steps of the run so far."""
    last = log[-1]
    per_epoch = last["step"] // last["epoch"]
    steps = np.unique(np.linspace(0, last["step"] - 1, 200).astype(int)).tolist()
    every = per_epoch * recipe.epochs
    return [(step + 1) / per_epoch for step in steps], [learning_rate(recipe, step, every, per_epoch) for step in steps]


def score_key(log: Sequence[Mapping[str, Any]]) -> str:
    """What validation measured."""
    return next(name for name in VALIDATION_SCORES if name in log[-1])


def training_facts(found: RunResults) -> dict[str, str]:
    """How the network was trained, label -> text, as far as the run tells."""
    about, log, recipe = found.about, found.log, recipe_of(found.about)
    facts = {f"training {name}": f"{about[name]:,}" for name in ("images", "questions") if name in about}
    if recipe:
        facts["epochs"] = f"{log[-1]['epoch']} of {recipe.epochs}" if log else str(recipe.epochs)
        facts["recipe"] = f"{recipe.name}, {recipe.batch} {'rows' if recipe.queries == 'rows' else 'images'} a step"
        facts["optimiser"] = f"{recipe.optimizer}, rate up to {recipe.learning_rate:g}, {recipe.schedule}"
        prices = {"gate price": recipe.gate_price, "mask price": recipe.mask_price}
        facts |= {name: f"{value:g}" for name, value in prices.items() if value}
    if log:
        facts["training time"] = duration(sum(line["train_seconds"] + line["validation_seconds"] for line in log))
    if best := about.get("best"):
        facts["best epoch"] = f"{best['epoch']}: {score_of(best)}"
    facts |= {name: str(about[name]) for name in ("protocol", "seed") if name in about}
    return facts


def duration(seconds: float) -> str:
    """In words: "43 s", "39 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
