"""What the commands of ``pan`` do that train and measure: options in, files and a few printed lines out."""

import argparse
import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from progressive_attention.commands.show import scene_arguments
from progressive_attention.config import STYLES, backbone_of, recipe_for
from progressive_attention.evaluation.ask import pick_device
from progressive_attention.evaluation.faithfulness import LIMIT, evaluate_faithfulness
from progressive_attention.evaluation.measured import (
    check_rows,
    check_untrained,
    data_of,
    load_with_bar,
    measure,
    rows_path,
    source_of,
    warn_of_unreadable,
    write_measured,
)
from progressive_attention.evaluation.summaries import faithfulness_tables, labels_table, score_of, summary_table
from progressive_attention.files import read_json
from progressive_attention.network.backbone import BACKBONES, build_backbone
from progressive_attention.network.timm_chain import check_known
from progressive_attention.pages.training_pictures import attention_pictures
from progressive_attention.predict.text_queries import (
    SENTENCE_ENCODER,
    check_reads_vectors,
    encoder_of,
    knowing,
    sentence_encoder,
    unit_vectors,
)
from progressive_attention.processes import is_first
from progressive_attention.progress import bars, counting, stopping
from progressive_attention.reproduce.jobs import failure_of, in_order, is_done
from progressive_attention.saved import weights
from progressive_attention.training.loop import Progress as Step
from progressive_attention.training.loop import check_kept
from progressive_attention.training.setup import prepared
from progressive_attention.training.tensorboard_log import TensorBoardLog


def train(arguments: argparse.Namespace) -> None:
    """Train until the recipe ends; an interrupted run goes on by the same command."""
    console = Console(stderr=True, quiet=not is_first())
    device = pick_device(arguments.device)
    arguments.backbone = arguments.backbone or backbone_of(arguments.model)
    photographs = arguments.backbone not in BACKBONES
    recipe = recipe_for(arguments.model, arguments.recipe or ("photographs" if photographs else "fast")).with_changes(
        **{"epochs": arguments.epochs, "batch": arguments.batch, "learning_rate": arguments.lr},
        **{"gate_price": arguments.gate_price, "mask_price": arguments.mask_price, "augment": arguments.augment},
    )
    check_kept(arguments.keep_epochs, recipe)
    if arguments.backbone_weights:
        build_backbone(
            arguments.backbone, arguments.backbone_weights
        )  # what is wrong with them is told before long work
    else:
        check_no_weights(arguments.backbone)
        recipe = replace(recipe, module_rates=())  # slow is only what has learnt before
    logs = step_logs(arguments)  # so is what is missing
    if arguments.freeze:
        recipe = recipe.with_changes(module_rates=(*recipe.module_rates, *frozen_until(arguments)))
    if arguments.data in STYLES and (arguments.image_size or recipe.augment != "none"):
        raise ValueError(f"{arguments.data} is drawn in its own size and anew; leave out --image-size and --augment")
    if arguments.absent and arguments.data not in STYLES:
        raise ValueError(
            f'--absent is for {", ".join(STYLES)}; in your own data, rows with the attribute "absent" do the same'
        )
    options = {**scene_arguments(arguments, data=arguments.data), "absent": arguments.absent}
    options["image_size"] = arguments.image_size or (224 if photographs else 100)
    train_set = load_with_bar(console, arguments.data, "train", queries=recipe.queries, **options)
    validation = load_with_bar(console, arguments.data, "validation", **options)
    changes = {"backbone": arguments.backbone, "prior": arguments.prior}
    vectors = None
    if arguments.text_queries or arguments.query_embeddings:
        encode = encoder_of(arguments.query_embeddings)
        changes["query_encoder"] = SENTENCE_ENCODER if encode is None else encode.source
        vectors = unit_vectors(train_set.query_names, encode or sentence_encoder())
    run = prepared(
        *(arguments.model, train_set, validation, recipe, arguments.out),
        data=arguments.data if arguments.data in STYLES else Path(arguments.data).name,
        **{"protocol": options["protocol"], "seed": options["seed"], "device": device},
        **{"changes": changes, "backbone_weights": arguments.backbone_weights, "query_vectors": vectors},
        keep_epochs=arguments.keep_epochs,
    )
    with ExitStack() as opened:
        for log in logs:
            opened.enter_context(log)
            log.pictures = attention_pictures(arguments.out, validation)
        watch(run, f"{arguments.model} on {train_set.name}", recipe.epochs, console, logs)
    for questions in (train_set, validation):
        warn_of_unreadable(questions, console)
    if not is_first():
        return
    best = read_json(arguments.out / "config.json")["best"]
    if arguments.tensorboard:
        print(f"curves: tensorboard --logdir {arguments.out / 'tensorboard'}")
    print(
        f"best {score_of(best)} at epoch {best['epoch']}; "
        f"weights, config.json and log.jsonl: {arguments.out}\n"
        f"next: pan evaluate --weights {arguments.out} --data {arguments.data}"
    )


def step_logs(arguments: argparse.Namespace) -> list[TensorBoardLog]:
    """Where ``--tensorboard`` wants points; only the first of several processes writes them."""
    if arguments.trackio:
        raise ValueError("--trackio is gone; use --tensorboard for curves, or read log.jsonl in the run's folder")
    return [TensorBoardLog(arguments.out / "tensorboard")] if arguments.tensorboard and is_first() else []


def check_no_weights(backbone: str) -> None:
    """Raises ValueError for a name of timm's weights, behind a dot, where none are loaded and all would be random."""
    name, dot, _ = backbone.partition(".")
    if dot and backbone not in BACKBONES:
        check_known(backbone)
        raise ValueError(
            f"--backbone {backbone} names weights, and only --backbone-weights loads them: add --backbone-weights "
            f"{backbone}, or let --backbone {name} start from random ones"
        )


def frozen_until(arguments: argparse.Namespace) -> list[tuple[str, float]]:
    """``--freeze STAGE`` as module rates: zero for the stages up to and with this one; ValueError naming those."""
    backbone, stage = build_backbone(arguments.backbone), arguments.freeze
    last = backbone.index(int(stage) if stage.isdecimal() else stage, "--freeze")
    return [(f"stages.{i}", 0.0) for i in range(last + 1)]


def watch(
    run: Generator[Step, None, None],
    title: str,
    epochs: int,
    console: Console,
    logs: Sequence[Callable[[Step], None]] = (),
) -> None:
    """Show a training as a bar, and each epoch as a line; ``logs`` are told of each step, too."""
    with stopping() as stop, closing(run), bars(console) as progress:
        task = None
        for step in run:
            stop()
            if task is None:  # only now, so that a refusal stays one line
                task = progress.add_task(title, total=step.steps, note="")
            speed = progress.tasks[task].speed  # steps a second, None at first
            rate = f" · {speed * step.questions:,.0f} questions/s" if speed else ""
            note = f"epoch {step.epoch}/{epochs} · loss {step.loss:.4f}{rate}"
            progress.update(task, completed=step.step, note=note)
            for log in logs:
                log(step)
            if step.record:
                console.print(
                    f"epoch {step.epoch:3d}/{epochs}: loss {step.record['loss']:.4f}, "
                    f"{score_of(step.record)}, "
                    f"{step.record['train_seconds']:.0f} s"
                )


def evaluate(arguments: argparse.Namespace) -> None:
    """Accuracy and attention on a data set; one row per question beside it."""
    console = Console(stderr=True, quiet=not is_first())
    device = pick_device(arguments.device)
    trained = weights.load(arguments.weights, device)
    data, encode = data_of(arguments.data, trained.about), encoder_of(arguments.query_embeddings)
    check_reads_vectors(trained, encode)
    if arguments.rows:
        check_rows(arguments.rows)
    if arguments.limit and not arguments.faithfulness:
        raise ValueError("--limit is the number of questions for --faithfulness; add that, or leave it out")
    options = scene_arguments(arguments, source_of(trained.about, data), data)
    options["image_size"] = trained.model.config.image_size
    source = {"data": data, "split": arguments.split, **options}
    check_untrained(trained.about, source)
    questions = load_with_bar(console, **source)
    if trained.model.query_vectors is not None:
        trained = knowing(trained, questions.query_names, encode)
    measured = measure(trained, questions, source, device, console)
    if arguments.faithfulness:
        with counting(console, f"deleting and inserting, {questions.name}", "questions") as progress:
            limit = arguments.limit or LIMIT
            options = {"limit": limit, "seed": source["seed"], "progress": progress}
            measured.figures.update(evaluate_faithfulness(trained, questions, device, **options))
    if not is_first():
        return
    rows = arguments.rows or rows_path(arguments.weights, questions.name)
    write_measured(rows, measured, arguments.weights, questions, source)
    if arguments.json:
        print(json.dumps(measured.figures))
    else:
        drawn = labels_table if questions.likelihood == "bernoulli" else summary_table
        Console().print(drawn(measured.figures, f"{arguments.weights} on {questions.name}"))
        if arguments.faithfulness:
            for table in faithfulness_tables(measured.figures):
                Console().print(table)
        print(f"one row per question: {rows}\nthese figures: {rows.with_suffix('.json')}")


def quickstart(arguments: argparse.Namespace) -> None:
    """The first five minutes."""
    from progressive_attention.commands.quickstart import quickstart as run

    run(arguments.out, device=arguments.device)


def reproduce(arguments: argparse.Namespace) -> None:
    """An experiment of the papers, or one of ours."""
    from progressive_attention.reproduce import campaign

    device = pick_device(arguments.device)
    changes = {name: getattr(arguments, name) for name in ("protocol", "recipe", "seeds", "images", "epochs")}
    own = {"data": arguments.data, "backbone_weights": arguments.backbone_weights, "voc": arguments.voc}
    jobs = campaign.plan(arguments.target, arguments.models, arguments.datasets, **own, **changes)
    if arguments.plan:
        for job in in_order(jobs):
            print(job.name, "done" if is_done(job, arguments.out) else failure_of(job, arguments.out) or "to do")
        return
    budget = arguments.time_budget
    seconds = budget and max(0.0, budget - (time.monotonic() - arguments.started))
    options = {"seconds": seconds, "processes": arguments.processes}
    if not campaign.reproduce(arguments.target, jobs, arguments.out, device, arguments.line, **options):
        print("time is up: all is saved, and the same command goes on")


def remeasure(arguments: argparse.Namespace) -> None:
    """The runs of an experiment again, from their weights."""
    from progressive_attention.reproduce.remeasure import remeasure as run

    run(arguments.out, pick_device(arguments.device), arguments.line, Console(stderr=True))


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "quickstart": quickstart,
    "reproduce": reproduce,
    "remeasure": remeasure,
}
