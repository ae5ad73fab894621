"""Measure how well a network notices that an object is not there, and set its threshold.

examples:
  pan absence --weights mref-pan --data mref
  pan absence --weights runs/mine --data my-folder --keep 0.99
"""

import argparse
import json
from typing import Any

from progressive_attention.commands import arguments as shared


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan absence``."""
    shared.add_shared(parser, "--weights", "--data", "--device", "--json")
    keep_help = "share of questions about present objects that must keep their answer (default: 0.95)"
    parser.add_argument("--keep", type=shared.share, default=0.95, metavar="SHARE", help=keep_help)
    shared.scene_options(parser, trained=True)


def run(arguments: argparse.Namespace) -> None:
    """Choose score and threshold on validation questions, measure them on test questions, keep them with the weights.

    Pretrained networks stay as they are, and so do weights whose best score may be no better than a guess.
    """
    from rich.console import Console

    from progressive_attention.evaluation.absence import Scored, scored, told_apart
    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.evaluation.kept import check_untrained, data_of, load_with_bar, source_of
    from progressive_attention.files import write_json
    from progressive_attention.progress import counting
    from progressive_attention.saved import find, load, pretrained

    console, device = Console(stderr=True), pick_device(arguments.device)
    folder = find(arguments.weights)
    trained = load(folder, device)
    data = data_of(arguments.data, trained.about)
    options = {**shared.scene_arguments(arguments, source_of(trained.about, data), data), "absent": True}
    check_untrained(trained.about, {"data": data, "split": None, **options})
    options["image_size"] = trained.model.config.image_size

    def of(split: str) -> Scored:
        questions = load_with_bar(console, data, split, **options)
        with counting(console, f"asking {questions.name}", "questions") as progress:
            return scored(trained, questions, device, progress=progress)

    figures = told_apart(of("validation"), of("test"), arguments.keep)
    low, high = figures["auroc_ci95"]
    is_guess = low <= 0.5
    if is_guess:
        auroc = f"AUROC {figures['auroc']:.3f}, 95 % {low:.3f} to {high:.3f}"
        remedy = "so no threshold is kept; train longer, or measure on more questions"
        console.print(f"warning: {figures['score']} may be no better than a guess ({auroc}), {remedy}", soft_wrap=True)
    keep = not is_guess and folder.resolve() not in {path.resolve() for path in pretrained().values()}
    if keep:
        write_json(folder / "config.json", {**trained.about, "absence": figures})
    if arguments.json:
        print(json.dumps(figures))
        return
    print_table(figures, f"{arguments.weights}: is it there at all? {figures['test']}")
    print(f"best on validation: {figures['score']}, found from {figures['threshold']:.6g}")
    if keep:
        print(f"kept in {folder / 'config.json'}: `pan predict` and `pan export` now use it")


def print_table(figures: dict[str, Any], title: str) -> None:
    """``told_apart``'s figures in per cent, the chosen score first."""
    from rich.console import Console

    from progressive_attention.evaluation.summaries import percent, table_of

    caption = f"{figures['present']:,} questions about what is there, {figures['absent']:,} about what is not"
    if figures["accuracy"] is not None:
        caption += f"; {percent(figures['accuracy'])} of the former answered rightly"
    rows = []
    for name, row in sorted(figures["scores"].items(), key=lambda pair: -pair[1]["validation_auroc"]):
        low, high = row["auroc_ci95"]
        shares = (percent(row[key]) for key in ("told", "kept", "accuracy_kept"))
        rows.append((name, f"{row['auroc']:.4f} ({low:.4f} to {high:.4f})", *shares))
    columns = ("score", "AUROC (95 %)", "absent\ndetected", "present\nkept", "accuracy\nof kept")
    Console().print(table_of(title, columns, rows, caption))
