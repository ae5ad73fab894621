"""What each command of ``pan`` does: options in, files and a few printed lines out."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from progressive_attention import weights
from progressive_attention.config import ALIASES, MODELS, PROTOCOLS, RECIPES, STYLES
from progressive_attention.data.pictures import open_picture
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.sources import load_questions
from progressive_attention.data.synthetic import SceneSource
from progressive_attention.evaluation import MAPS, examples, summarise, with_curves
from progressive_attention.files import read_json, replacing, write_json
from progressive_attention.inference import pick_device
from progressive_attention.metrics.attention import OverlapCurves
from progressive_attention.predictor import Predictor
from progressive_attention.prepare import prepared
from progressive_attention.progress import bars, counting
from progressive_attention.reproduce import failure_of, in_order, is_done
from progressive_attention.training import Progress as Step

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def load_with_bar(console: Console, data: str, split: str | None, **options: Any) -> QuestionSet:
    """``load_questions`` with a bar while scenes are rendered."""
    with counting(console, f"rendering {data}", "scenes") as progress:
        return load_questions(data, split, progress=progress, **options)


def scene_arguments(arguments: argparse.Namespace, protocol: str | None = None) -> dict[str, Any]:
    """The options that all commands share about scenes."""
    given = {"mnist_dir": arguments.mnist_dir, "backgrounds": arguments.backgrounds, "seed": arguments.seed}
    return {**given, "protocol": arguments.protocol or protocol or PROTOCOLS[0]}


def render(arguments: argparse.Namespace) -> None:
    """A contact sheet of the first scenes of a split."""
    from progressive_attention.plots import contact_sheet

    options = scene_arguments(arguments)
    source = SceneSource(arguments.style, arguments.split, **options)
    images, captions = [], []
    for index in range(arguments.count):
        scene = source.scene(index)
        images.append(source.render(scene)[0])
        asked = scene.digits[scene.asked]
        captions.append(f"{asked.number}? {COLOURS[asked.colour]}")
    title = f"{arguments.style} · {arguments.split} split · protocol {options['protocol']} · seed {arguments.seed}"
    contact_sheet(images, captions, arguments.out, title)
    print(f"{arguments.count} scenes with question and answer: {arguments.out}")


def train(arguments: argparse.Namespace) -> None:
    """Train until the recipe ends; an interrupted run goes on by the same command."""
    console = Console(stderr=True)
    device = pick_device(arguments.device)
    recipe = RECIPES[arguments.recipe].with_changes(
        **{"epochs": arguments.epochs, "batch": arguments.batch, "learning_rate": arguments.lr},
        **{"gate_price": arguments.gate_price, "mask_price": arguments.mask_price},
    )
    options = scene_arguments(arguments)
    if arguments.images:
        options["images"] = arguments.images
    train_set = load_with_bar(console, arguments.data, "train", queries=recipe.queries, **options)
    validation = load_with_bar(console, arguments.data, "validation", **options)
    run = prepared(
        *(arguments.model, train_set, validation, recipe, arguments.out),
        data=arguments.data if arguments.data in STYLES else Path(arguments.data).name,
        **{"protocol": options["protocol"], "seed": arguments.seed, "device": device},
    )
    watch(run, f"{arguments.model} on {train_set.name}", recipe.epochs, console)
    best = read_json(arguments.out / "config.json")["best"]
    print(
        f"best validation accuracy {best['validation_accuracy']:.2%} at epoch {best['epoch']}; "
        f"weights, config.json and log.jsonl: {arguments.out}\n"
        f"next: pan evaluate --weights {arguments.out} --data {arguments.data}"
    )


def watch(run: Iterator[Step], title: str, epochs: int, console: Console) -> None:
    """Show a training as a bar, and each epoch as a line."""
    with bars(console) as progress:
        task = None
        for step in run:
            if task is None:  # only now, so that a refusal stays one line
                task = progress.add_task(title, total=step.steps, note="")
            rate = (progress.tasks[task].speed or 0) * step.questions
            note = f"epoch {step.epoch}/{epochs} · loss {step.loss:.4f} · {rate:,.0f} questions/s"
            progress.update(task, completed=step.step, note=note)
            if step.record:
                console.print(
                    f"epoch {step.epoch:3d}/{epochs}: loss {step.record['loss']:.4f}, "
                    f"validation accuracy {step.record['validation_accuracy']:.2%}, "
                    f"{step.record['train_seconds']:.0f} s"
                )


def evaluate(arguments: argparse.Namespace) -> None:
    """Accuracy and attention on a data set; one row per question beside it."""
    console = Console(stderr=True)
    device = pick_device(arguments.device)
    trained = weights.load(arguments.weights, device)
    data = arguments.data or trained.about.get("data")
    if not data:
        raise ValueError("--data is missing, and these weights don't say what they were trained on")
    options = scene_arguments(arguments, trained.about.get("protocol"))
    if arguments.images:
        options["images"] = arguments.images
    side = trained.model.config.image_size
    questions = load_with_bar(console, data, arguments.split, image_size=side, **options)
    overlap = OverlapCurves()
    with counting(console, f"asking {questions.name}", "questions") as progress:
        table = examples(trained, questions, device, progress=progress, overlap=overlap)
    summary = with_curves(summarise(table), overlap)
    rows = arguments.rows or rows_path(arguments.weights, questions.name)
    with replacing(rows) as temporary:
        parquet.write_table(table, temporary)
    write_json(rows.with_suffix(".json"), summary)
    if arguments.json:
        print(json.dumps(summary))
    else:
        Console().print(summary_table(summary, f"{arguments.weights} on {questions.name}"))
        print(f"one row per question: {rows}\nthese figures: {rows.with_suffix('.json')}")


def rows_path(given: str, name: str) -> Path:
    """Where an evaluation's rows go: into the run, or below runs/evaluate for shipped weights."""
    folder = weights.find(given)
    home = Path("runs/evaluate") / given if folder.parent == weights.SHIPPED else folder / "evaluation"
    return home / f"{name.replace('/', '-').removesuffix('.npz')}.parquet"


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """The figures of ``evaluation.evaluate`` in per cent."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("questions", f"{summary['count']:,}")
    low, high = summary["accuracy_ci95"]
    table.add_row("accuracy", f"{percent(summary['accuracy'])} (95 %: {low:.2%} to {high:.2%})")
    for name, value in summary["accuracy_by_scale"].items():
        table.add_row(f"  scale {name}", f"{percent(value)} of {summary['count_by_scale'][name]:,}")
    for name in MAPS:
        table.add_row(f"true-positive ratio, {name} map", percent(summary[f"tpr_{name}"]))
    if summary["tpr_clipped"] != summary["tpr_last"]:
        table.add_row("true-positive ratio, last map inside the image", percent(summary["tpr_clipped"]))
    for name, curves in summary["precision_recall"].items():
        table.add_row(f"pointing game, {name} map", percent(summary[f"pointing_{name}"]))
        best = f"{percent(curves['best_iou'])} from {curves['best_threshold']:.0%} of its maximum"
        table.add_row(f"IoU, {name} map", best)
    return table


def percent(value: float | None) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if value is None else f"{value:.2%}"


def pictures_of(paths: list[str]) -> list[Path]:
    """The files named, and the images of the folders named, sorted; raises ValueError for a folder without any."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if not inside:
                raise ValueError(f"no images in {path}; expected files ending in {', '.join(PICTURES)}")
            found += inside
        else:
            found.append(path)
    return found


def predict(arguments: argparse.Namespace) -> None:
    """Answer each query about each picture, one figure each."""
    from progressive_attention.plots import answer_figure

    predictor = Predictor(arguments.weights, arguments.device)
    results = []
    for path in pictures_of(arguments.images):
        picture = open_picture(path)
        side = predictor.side
        if picture.size != (side, side):
            size = f"{picture.width} x {picture.height}"
            print(f"note: {path} is {size} px; fitted into {side} x {side}, its shape kept", file=sys.stderr)
        for answer in predictor.ask_all(picture, arguments.query):
            figure = arguments.out / f"{path.stem}-{answer.query.replace('/', '_')}.png"
            answer_figure(answer, figure)
            probabilities = {name: round(p, 6) for name, p in answer.probabilities.items()}
            results.append(
                {
                    "image": str(path),
                    "query": answer.query,
                    "answer": answer.attribute,
                    "probability": answer.probability,
                    "probabilities": probabilities,
                    "figure": str(figure),
                }
            )
            if not arguments.json:
                others = ", ".join(f"{name} {p:.1%}" for name, p in sorted(probabilities.items(), key=lambda x: -x[1]))
                print(f"{path}  {answer.query} -> {answer.attribute}  ({others})  {figure}")
    if arguments.json:
        print(json.dumps(results))


def listing() -> dict[str, Any]:
    """What this installation knows."""
    shipped = {}
    for name in weights.shipped():
        about = read_json(weights.SHIPPED / name / "config.json")
        shipped[name] = {"model": about.get("name"), "data": about.get("data"), "test": about.get("test")}
    return {
        "models": list(MODELS),
        "aliases": ALIASES,
        "weights": shipped,
        "data": {
            "mref": "coloured digits on black",
            "mdist": "coloured digits over distractors",
            "mbg": "coloured digits over photographs",
        },
        "protocols": list(PROTOCOLS),
        "recipes": list(RECIPES),
    }


def show_list(arguments: argparse.Namespace) -> None:
    """Models, weights and data sets."""
    known = listing()
    if arguments.json:
        print(json.dumps(known))
        return
    print("models:   " + ", ".join(known["models"]))
    print("          " + ", ".join(f"{old} ({name}'s name of 2016)" for old, name in known["aliases"].items()))
    print("data:     " + ", ".join(f"{name} ({what})" for name, what in known["data"].items()))
    print("          or a folder with a manifest, or an .npz file")
    print("recipes:  " + ", ".join(known["recipes"]) + "; protocols: " + ", ".join(known["protocols"]))
    print("weights:")
    for name, card in known["weights"].items():
        accuracy = (card["test"] or {}).get("accuracy")
        print(f"  {name:22s} {card['model']} on {card['data']}, test accuracy {percent(accuracy)}")


def quickstart(arguments: argparse.Namespace) -> None:
    """The first five minutes."""
    from progressive_attention.quickstart import quickstart as run

    run(arguments.out, minutes=arguments.minutes, device=arguments.device)


def reproduce(arguments: argparse.Namespace) -> None:
    """An experiment of the papers, or one of ours."""
    from progressive_attention import campaign

    device = pick_device(arguments.device)
    changes = {name: getattr(arguments, name) for name in ("protocol", "recipe", "seeds", "images", "epochs")}
    jobs = campaign.plan(arguments.target, arguments.models, arguments.datasets, **changes)
    if arguments.plan:
        for job in in_order(jobs):
            print(job.name, "done" if is_done(job, arguments.out) else failure_of(job, arguments.out) or "to do")
        return
    budget = arguments.time_budget
    seconds = budget and max(0.0, budget - (time.monotonic() - arguments.started))
    options = {"seconds": seconds, "processes": arguments.processes}
    if not campaign.reproduce(arguments.target, jobs, arguments.out, device, arguments.line, **options):
        print("time is up: all is saved, and the same command goes on")


COMMANDS = {
    "render": render,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "list": show_list,
    "quickstart": quickstart,
    "reproduce": reproduce,
}
