"""The report of one run: from its folder and an evaluation, which is made where there is none.

Nothing that is missing stops the page: it says what, why, and which command supplies it.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from progressive_attention.data.questions import QuestionSet, fingerprint_of
from progressive_attention.data.sources import unknown_queries
from progressive_attention.evaluation.answers import askable
from progressive_attention.evaluation.kept import (
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
from progressive_attention.evaluation.summaries import score_of
from progressive_attention.files import read_json
from progressive_attention.pages.answer_plots import Scene, scene_of
from progressive_attention.pages.report import Network, Report, duration, judged
from progressive_attention.predict.predictor import Predictor
from progressive_attention.predict.text_queries import Encode, knowing
from progressive_attention.reproduce.machine import package_version
from progressive_attention.saved import find
from progressive_attention.saved.network_folder import read_config
from progressive_attention.training.loop import read_log

FIRST, SUREST = 4, 6  # examples: the first questions, and the surest wrong answers


def gather(
    given: str, data: str | None, split: str | None, device: str, console: Console, encode: Encode | None = None
) -> Report:
    """All of a run's folder, or of pretrained weights, with an evaluation read or made.

    ``data`` and ``split`` as in ``load_questions``, by default those of the run; ``encode`` as in ``knowing``. Raises
    ValueError for what is no trained network, and for ``data`` that can't be used.
    """
    folder = find(given)
    _, about = read_config(folder)
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
    try:
        log, why = read_log(folder / "log.jsonl"), f"{folder / 'log.jsonl'}, which training writes, does not exist"
    except ValueError as error:
        log, why = [], str(error)
    missing = [] if log else [f"training curves: {why}"]
    network = Network(about.get("name") or about["model"]["network"], {}, training_facts(about, log), about, log)
    known, trained_on = {**about, **result}, data or str(about.get("data") or "")
    facts = {"run": given, **{key: str(known[key]) for key in ("command", "hardware", "commit") if known.get(key)}}
    report = Report(Path(trained_on).resolve().name if trained_on else "", [network], facts, missing=missing)
    add_measured(report, given, data, split, device, console, encode)
    if not network.summary and (figures := result or about.get("test")):
        network.summary = figures
        facts["figures from"] = str(folder / ("result.json" if result else "config.json"))
    facts["page"] = f"progressive-attention {package_version()}, Python {platform.python_version()}"
    missing += unmeasured(network.summary)
    return report


def unmeasured(figures: Mapping[str, Any]) -> list[str]:
    """What could not be measured on these data, or of this network."""
    missing = []
    if "accuracy" in figures and not any(figures.get("count_by_scale", {}).values()):
        missing.append("accuracy by scale: these questions have no scale; add a column scale to the table")
    if figures and not any(figures[name] for name in figures if name.startswith("tpr_")):
        columns = "mask" if "accuracy" in figures else "mask, or x0, y0, x1 and y1,"
        missing.append(
            f"true-positive ratios: these questions don't say where the object is; add columns {columns} to the table"
        )
    return missing


def add_measured(
    report: Report,
    given: str,
    data: str | None,
    split: str | None,
    device: str,
    console: Console,
    encode: Encode | None,
) -> None:
    """Add an evaluation's rows and figures, and examples; or what is missing for them."""
    (network,), remedy = report.networks, f"'pan report {given} --data DATA' supplies it"
    source = {**source_of(dict(network.about), data), **({"split": split} if split else {})}
    if "data" not in source:
        why = "config.json doesn't say what the network was trained on"
        report.missing.append(f"an evaluation, and examples: {why}; {remedy}")
        return
    path = rows_path(given, name_of(source["data"], source["split"]))
    notes = read_notes(path)
    source = {**notes.get("source", source), **({"data": data} if data else {})}
    measured = read_measured(path) if is_of(notes, given) else None
    predictor = None
    try:
        predictor = Predictor(given, device, encode)
        predictor.detector = None  # the rows hold answers as they are, whatever is found
        questions = load_with_bar(console, **source)
        trained = predictor.trained
        if trained.model.query_vectors is not None:
            trained = knowing(trained, unknown_queries(questions, trained.query_names), encode)
        if measured is None or notes["questions"] != fingerprint_of(questions):
            measured = None  # rows of other questions are no rows of these
            measured = measure(trained, questions, source, predictor.device, console)
            write_measured(path, measured, given, questions, source)
        if questions.likelihood == "bernoulli":
            questions = askable(questions, trained)[0]
        report.scenes, report.chosen = examples(readable(measured[1]), questions, predictor, network.name)
    except (ValueError, OSError) as error:
        if data:
            raise
        what = "examples" if measured else "an evaluation, and examples"
        report.missing.append(f"{what}: {error}" + (f"; {remedy}" if predictor else ""))
    if measured is not None:
        network.summary, network.table = measured[0], readable(measured[1])
        report.facts["measured on"] = f"{name_of(source['data'], source['split'])}; one row per question: {path}"


def is_of(notes: Mapping[str, Any], given: str) -> bool:
    """Whether noted rows are those of this network, as far as its weights are there to compare."""
    here = (find(given) / "weights.safetensors").exists()
    return bool(notes) and (not here or notes["weights"] == fingerprint_of_weights(given))


def readable(table: pa.Table) -> pa.Table:
    """The rows whose image could be read."""
    return table.filter(table["read"]) if "read" in table.column_names else table


def examples(rows: pa.Table, questions: QuestionSet, predictor: Predictor, name: str) -> tuple[list[Scene], str]:
    """Some of the readable rows' questions with the network's answers and attention, and how they were chosen."""
    right, sure = judged(rows)
    first, later = range(min(FIRST, len(right))), np.flatnonzero(~right[FIRST:]) + FIRST
    wrong = later[np.argsort(-sure[later], kind="stable")][:SUREST].tolist()
    scenes = [scene_of(questions, row, {name: predictor}) for row in rows["row"].to_numpy()[[*first, *wrong]].tolist()]
    kind = "answers" if "correct" in rows.column_names else "answers (the most likely attribute is not true)"
    of_wrong = f", then the {len(wrong)} surest of {int((~right).sum()):,} wrong {kind}" if wrong else ""
    return scenes, f"The first {len(first)} questions{of_wrong}. On a narrow screen the rows scroll sideways."


def training_facts(about: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the network was trained, label -> text, as far as the run says."""
    facts = {f"training {name}": f"{about[name]:,}" for name in ("images", "questions") if name in about}
    if recipe := about.get("recipe"):
        facts["epochs"] = f"{log[-1]['epoch']} of {recipe['epochs']}" if log else str(recipe["epochs"])
        unit = "rows" if recipe["queries"] == "rows" else "images"
        facts["recipe"] = f"{recipe['name']}, {recipe['batch']} {unit} a step"
        facts["optimiser"] = f"{recipe['optimizer']}, rate up to {recipe['learning_rate']:g}, {recipe['schedule']}"
        prices = {name: recipe[name] for name in ("gate_price", "mask_price") if recipe.get(name)}
        facts |= {name.replace("_", " "): f"{value:g}" for name, value in prices.items()}
    if log:
        facts["training time"] = duration(sum(epoch["train_seconds"] + epoch["validation_seconds"] for epoch in log))
    if best := about.get("best"):
        facts["best epoch"] = f"{best['epoch']}: {score_of(best)}"
    return facts | {name: str(about[name]) for name in ("protocol", "seed") if name in about}
