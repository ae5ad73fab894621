"""The first minutes: ask a pretrained network, train a small one, measure it beside pretrained ones, write a report.

Given seed and device the result is the same each time.
"""

import platform
import shlex
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from progressive_attention.commands.train import watch
from progressive_attention.config import recipe_for
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.answers import summarise
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.evaluation.evaluate import examples
from progressive_attention.files import write_json
from progressive_attention.pages.answer_plots import Scene, answer_figure, scene_of
from progressive_attention.pages.report import Network, Report, headline, percent, terminal_table, write_report
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.progress import counting
from progressive_attention.reproduce.machine import hardware, package_version
from progressive_attention.saved import Trained, load
from progressive_attention.training.setup import prepared

DATA, MODEL, SMALL = "mref", "pan", "small pan"
PRETRAINED = ("mref-pan", "mref-san")  # the first one is asked about the example
EXAMPLE = Path(__file__).parents[1] / "assets" / "examples" / "mref.png"  # test scene 1133 of seed 2026
EXAMPLE_QUERIES = ("7", "5", "0")
IMAGES = 10_000
# Short of time: one epoch, of more steps, each half as far.
RECIPE = recipe_for(MODEL, "fast").with_changes(epochs=1, batch=16, learning_rate=0.005)
TEST, VALIDATION = 1_000, 500  # scenes, one question each
SHOWN, SHOWN_WRONG = 8, 3  # test scenes in the report; of them chosen because the small network errs
CHOSEN = f"The first {SHOWN - SHOWN_WRONG} test scenes, then the next {SHOWN_WRONG} that the {SMALL} got wrong."


def quickstart(out: Path, seed: int = 0, device: str | None = None, console: Console | None = None) -> Path:
    """Run it all; returns the report's path.

    Writes into ``out``: report.html, quickstart.json (the figures), answers/*.png, and the run's folder ``pan``. An
    interrupted quickstart goes on where it was. Raises ValueError where a pretrained network is missing, or ``out``
    holds another training.
    """
    console = console or Console()
    where, out = pick_device(device), Path(out)
    answers = ask_pretrained(out, str(where), console)
    train(out / MODEL, seed, where, console)
    names = {SMALL: str(out / MODEL), **{name: name for name in PRETRAINED}}
    networks = {title: load(name, where) for title, name in names.items()}
    test = rendered("test", TEST, seed, console)
    tables = {title: examples(network, test, where) for title, network in networks.items()}
    rows = scenes_to_show(tables[SMALL]["correct"].to_numpy())
    report = Report(
        data=DATA,
        networks=[Network(title, summarise(tables[title]), training_facts(networks[title])) for title in names],
        facts=machine_facts(out, where),
        scenes=answered_scenes(names, test, rows, str(where)),
        chosen=CHOSEN,
        asked=PRETRAINED[0],
        asked_about=EXAMPLE.name,
        answers=answers,
    )
    write_report(out / "report.html", report)
    results = {network.name: {"training": network.training, "test": network.summary} for network in report.networks}
    write_json(out / "quickstart.json", {"seed": seed, "results": results})
    console.print(terminal_table(report), headline(report.networks), sep="\n")
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
    return out / "report.html"


def ask_pretrained(out: Path, device: str, console: Console) -> list[Answer]:
    """A pretrained network asked about the example picture, with a figure for each answer."""
    answers = Predictor(PRETRAINED[0], device).ask_all(EXAMPLE, list(EXAMPLE_QUERIES))
    for answer in answers:
        figure = out / "answers" / f"{EXAMPLE.stem}-{answer.query}.png"
        answer_figure(answer, figure)
        reply = f"{answer.query} -> {answer.attribute} ({percent(answer.probability)})"
        console.print(f"{PRETRAINED[0]} about {EXAMPLE.name}: {reply}  {figure}", soft_wrap=True, highlight=False)
    return answers


def rendered(split: str, scenes: int, seed: int, console: Console) -> QuestionSet:
    """The first scenes of a split, from the cache if they were rendered before."""
    training = split == "train"
    with counting(console, f"rendering {DATA}, {split}", "scenes") as progress:
        return synthetic(
            DATA,
            split,
            queries=RECIPE.queries if training else "one",
            seed=seed,
            images=scenes if training else 3 * scenes,
            progress=progress,
        )


def train(folder: Path, seed: int, device: torch.device, console: Console) -> None:
    """Train the small network, with a bar; the best epoch's weights are then in ``folder``."""
    steps = prepared(
        MODEL,
        rendered("train", IMAGES, seed, console),
        rendered("validation", VALIDATION, seed, console),
        RECIPE,
        folder,
        data=DATA,
        protocol="paper",
        seed=seed,
        device=device,
    )
    watch(steps, f"training a {SMALL}", RECIPE.epochs, console)


def training_facts(network: Trained) -> dict[str, str]:
    """How a network was trained, label -> text."""
    about = network.about
    recipe, best = about["recipe"], about["best"]
    seconds = about.get("seconds", best["train_seconds"])  # of a network that ships, all epochs
    return {
        "training images": f"{about['images']:,}",
        "epochs": str(recipe["epochs"]),
        "questions asked": f"{about['questions'] * recipe['epochs']:,}",
        "optimiser": f"{recipe['optimizer']}, rate up to {recipe['learning_rate']:g}, batch {recipe['batch']}",
        "training time": f"{seconds:.0f} s",
        "validation accuracy": percent(best["validation_accuracy"]),
    }


def machine_facts(out: Path, device: torch.device) -> dict[str, str]:
    """Hardware, command and versions, label -> text."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    return {
        "command": shlex.join(["pan", "quickstart", "--out", str(out)]),
        "test": f"{TEST:,} scenes that no network has seen, of digits none has seen, one question each",
        "hardware": hardware(device),
        "versions": f"progressive-attention {package_version()}, {versions}, Python {platform.python_version()}",
    }


def scenes_to_show(correct: np.ndarray) -> list[int]:
    """Rows for the report: the first ones, then the next that are wrong; if those are too few, just the next."""
    first = list(range(min(SHOWN - SHOWN_WRONG, len(correct))))
    later = np.arange(len(first), len(correct))
    by_error = later[np.argsort(correct[later], kind="stable")]
    return first + sorted(by_error[: SHOWN - len(first)].tolist())


def answered_scenes(names: dict[str, str], test: QuestionSet, rows: list[int], device: str) -> list[Scene]:
    """Every network's answers, with attention, to some test questions."""
    predictors = {title: Predictor(name, device) for title, name in names.items()}
    return [scene_of(test, row, predictors) for row in rows]
