"""What ``pan absence`` does."""

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from progressive_attention.commands.show import scene_arguments
from progressive_attention.evaluation.absence import Scored, scored, told_apart
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.evaluation.measured import check_untrained, data_of, load_with_bar, source_of
from progressive_attention.evaluation.summaries import percent
from progressive_attention.files import write_json
from progressive_attention.progress import counting
from progressive_attention.saved import weights


def absence(arguments: argparse.Namespace) -> None:
    """Choose score and threshold on validation questions, measure them on test questions, keep them with the weights.

    What ships stays as it is, and so do weights whose best score may be no better than a guess.
    """
    console = Console(stderr=True)
    device = pick_device(arguments.device)
    folder = weights.find(arguments.weights)
    trained = weights.load(folder, device)
    data = data_of(arguments.data, trained.about)
    options = {**scene_arguments(arguments, source_of(trained.about, data), data), "absent": True}
    check_untrained(trained.about, {"data": data, "split": None, **options})
    options["image_size"] = trained.model.config.image_size

    def of(split: str) -> Scored:
        questions = load_with_bar(console, data, split, **options)
        with counting(console, f"asking {questions.name}", "questions") as progress:
            return scored(trained, questions, device, progress=progress)

    found = told_apart(of("validation"), of("test"), arguments.keep)
    low, high = found["auroc_ci95"]
    guesses = low <= 0.5
    if guesses:
        console.print(
            f"warning: {found['score']} tells no better than a guess (AUROC {found['auroc']:.3f}, 95 % {low:.3f} to "
            f"{high:.3f}), so no threshold is kept; train longer, or measure on more questions",
            soft_wrap=True,
        )
    kept_in = None if guesses or folder.parent == weights.SHIPPED else folder
    if kept_in:
        write_json(kept_in / "config.json", {**trained.about, "absence": found})
    if arguments.json:
        print(json.dumps(found))
        return
    Console().print(absence_table(found, f"{arguments.weights}: is it there at all? {found['test']}"))
    print(f"best on validation: {found['score']}, found from {found['threshold']:.6g}")
    if kept_in:
        print(f"kept in {kept_in / 'config.json'}: `pan predict` and `pan export` now tell")


def absence_table(found: dict[str, Any], title: str) -> Table:
    """``told_apart``'s figures in per cent, the chosen score first."""
    asked = f"{found['present']:,} questions about what is there, {found['absent']:,} about what is not"
    accuracy = "" if found["accuracy"] is None else f"; {percent(found['accuracy'])} of the former answered rightly"
    table = Table(title=title, caption=asked + accuracy)
    table.add_column("score")
    table.add_column("AUROC (95 %)", justify="right", no_wrap=True)
    for name in ("absent\ntold", "present\nkept", "accuracy\nof kept"):
        table.add_column(name, justify="right")
    for name, figures in sorted(found["scores"].items(), key=lambda pair: -pair[1]["validation_auroc"]):
        low, high = figures["auroc_ci95"]
        shares = (percent(figures[key]) for key in ("told", "kept", "accuracy_kept"))
        table.add_row(name, f"{figures['auroc']:.4f} ({low:.4f} to {high:.4f})", *shares)
    return table
