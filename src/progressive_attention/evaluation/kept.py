"""An evaluation and its files: what a trained network is asked about, rows as Parquet, figures as JSON beside them.

The rows' file also says what it is of: the weights, the questions, and how these are loaded again.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet
from rich.console import Console

from progressive_attention.config import STYLES, checked
from progressive_attention.data.questions import ABSENT, Labels, QuestionSet, fingerprint_of
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.answers import askable
from progressive_attention.evaluation.evaluate import answers_to, evaluate_with_rows
from progressive_attention.files import read_json, replacing, write_text
from progressive_attention.processes import in_turn
from progressive_attention.progress import counting
from progressive_attention.saved import Trained, find, pretrained

ABOUT = b"progressive_attention"  # the key of the rows' file's notes
Measured = tuple[dict[str, Any], pa.Table]  # figures, and one row a question: ``evaluate_with_rows``
Source = dict[str, Any]  # the arguments of load_questions: data, split, protocol, seed, ...


def load_with_bar(console: Console, data: str, split: str | None, **options: Any) -> QuestionSet:
    """``load_questions`` with a bar while scenes are rendered, which one process of a machine does for all."""
    turn = in_turn() if data in STYLES else nullcontext()
    with turn, counting(console, f"rendering {data}", "scenes") as progress:
        return load_questions(data, split, progress=progress, **options)


def measure(
    trained: Trained, questions: QuestionSet, source: Mapping[str, Any], device: torch.device, console: Console
) -> Measured:
    """Ask all questions, which ``source`` gave, with a bar; where any number of attributes are true, load the training
    labels of ``source``, too, for what the query alone says. Raises ValueError as ``answers_to``.
    """
    answers_to(questions, trained)  # before the training's labels are read
    train = training_part(console, trained, source) if questions.likelihood == "bernoulli" else None
    with counting(console, f"asking {questions.name}", "questions") as progress:
        measured = evaluate_with_rows(trained, questions, device, train, progress=progress)
    warn_of_unreadable(questions, console)
    return measured


def training_part(console: Console, trained: Trained, source: Mapping[str, Any]) -> QuestionSet | None:
    """The training questions, for their labels; None, with a note, where the network knows no query or no attribute."""
    try:
        learnt = load_with_bar(console, **{**source, "split": "train"})
        labels = askable(learnt, trained)[0].attribute
        if isinstance(labels, Labels) and not (labels.value == 1).any():
            raise ValueError(f"{learnt.name} has no attribute that this network knows")
        return learnt
    except ValueError as error:
        console.print(f"no training labels, so no class-prior baseline: {error}")
        return None


def warn_of_unreadable(questions: QuestionSet, console: Console) -> None:
    """Say which images no process could use, if there are such."""
    unreadable: dict[int, str] = getattr(questions.images, "unreadable", {})  # at a pass's end those of all processes
    if unreadable:
        first = next(iter(unreadable.values()))
        console.print(f"{questions.name}: {len(unreadable)} images could not be used and were left out; first: {first}")


def home_of(given: str) -> Path:
    """Where files about a network go: into its run; of pretrained weights below runs/evaluate."""
    is_run = given not in pretrained() and Path(given).is_dir()
    return Path(given) if is_run else Path("runs/evaluate") / given


def rows_path(given: str, name: str) -> Path:
    """Where the rows of an evaluation on questions of this name go."""
    home = home_of(given)
    folder = home / "evaluation" if home == Path(given) else home
    return folder / f"{name.replace('.npz', '').replace('/', '-')}.parquet"


def name_of(data: str, split: str | None) -> str:
    """The name that ``load_questions`` gives its questions."""
    name = Path(data).resolve().name
    return name if name.endswith(".npz") and split is None else f"{name}/{split or 'test'}"


def data_of(given: str | None, about: Mapping[str, Any]) -> str:
    """What is asked about: ``--data``, else what the network was trained on; ValueError where that is unknown."""
    if given is None and about.get("data") not in STYLES:
        known = about.get("data") or "an unknown data set"
        raise ValueError(f"--data is missing, and these weights were trained on {known}; give it, e.g. a folder")
    return given or str(about["data"])


def source_of(about: Mapping[str, Any], data: str | None = None) -> Source:
    """The test questions of ``data``, else of what a network was trained on; without "data" where that is unknown.

    The synthetic sets' seed and size are the training's: with another seed, protocol ``authors`` would test on training
    scenes. Raises ValueError for what is no protocol, seed or size.
    """
    source: Source = {"split": None, "image_size": about["model"]["image_size"]}
    if data or about.get("data"):
        source["data"] = data or about["data"]
    if about.get("data") in STYLES and source["data"] in STYLES:
        kinds = {"protocol": str, "seed": int, "images": int}
        source |= {name: checked(f"{name} in config.json", about[name], kinds[name]) for name in kinds if name in about}
        source["absent"] = ABSENT in about["attribute_names"]
        if about.get("protocol") == "authors" and "images" in source:
            source["images"] *= 2  # of its one pool, half as many scenes as rows
    return source


def check_untrained(about: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Raises ValueError where a test could be on scenes of the training: those of protocol ``authors`` are one pool for
    each seed, in which the number of images says where training ends and testing begins.
    """
    learnt, name = source_of(about), source["data"]
    one_pool = source["protocol"] == learnt.get("protocol") == "authors" and name == learnt.get("data")
    if not one_pool or source["split"] == "train" or source["seed"] != learnt.get("seed", source["seed"]):
        return
    here, there = (each.get("images", 30_000) // 2 for each in (source, learnt))  # scenes of the pool
    if here != there:
        raise ValueError(
            f"this network learnt from a pool of {there} scenes of {name} with seed {source['seed']}, and of a pool of "
            f"{here} it may know the test scenes; leave out --images, or take another --seed"
        )


def check_rows(path: Path) -> None:
    """Raises ValueError where rows or their figures would replace anything but those of an evaluation."""
    figures, ours = path.with_suffix(".json"), False
    with suppress(OSError, pa.ArrowException):
        ours = ABOUT in (parquet.read_schema(path).metadata or {})
    if figures.name == "config.json" or (not ours and (path.exists() or figures.exists())):
        raise ValueError(f"{path} and {figures} would replace what is not of an evaluation; choose another --rows")


def fingerprint_of_weights(given: str) -> str:
    """A hash of a trained network's weights."""
    with (find(given) / "weights.safetensors").open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def write_measured(
    path: Path, measured: Measured, given: str, questions: QuestionSet, source: Mapping[str, Any]
) -> None:
    """Write the rows to ``path`` and their figures beside it as JSON, each whole or not at all."""
    figures, table = json.dumps(measured[0], indent=1) + "\n", measured[1]
    about = {
        "weights": fingerprint_of_weights(given),
        "questions": fingerprint_of(questions),
        "source": {name: str(value) if isinstance(value, Path) else value for name, value in source.items()},
        "columns": table.column_names,
        "figures": sha256(figures.encode()).hexdigest(),
    }
    notes = {**(table.schema.metadata or {}), ABOUT: json.dumps(about).encode()}
    with replacing(path) as temporary:
        parquet.write_table(table.replace_schema_metadata(notes), temporary, write_page_checksum=True)
    write_text(path.with_suffix(".json"), figures)


def read_notes(path: Path) -> dict[str, Any]:
    """What ``write_measured`` noted of rows: "weights", "questions", "source", ...; empty unless rows and figures are
    there as they were written.
    """
    try:
        schema, figures = parquet.read_schema(path), path.with_suffix(".json").read_bytes()
        notes = json.loads((schema.metadata or {})[ABOUT])
        if (notes["columns"], notes["figures"]) != (schema.names, sha256(figures).hexdigest()):
            return {}
        parquet.read_table(path, page_checksum_verification=True)
        if notes["source"].get("backgrounds"):
            notes["source"]["backgrounds"] = Path(notes["source"]["backgrounds"])
        return notes
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return {}


def read_measured(path: Path) -> Measured:
    """What ``write_measured`` wrote; raises ValueError where the figures are missing or broken."""
    return read_json(path.with_suffix(".json")), parquet.read_table(path)
