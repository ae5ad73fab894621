"""The command ``pan``: what can be asked for, and how errors are told. The work is in the modules of ``command_of``."""

import argparse
import gc
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from progressive_attention.bench import SUITES
from progressive_attention.commands.arguments import (
    device_option,
    epochs,
    out_file,
    out_folder,
    positive,
    price,
    scene_options,
    share,
    splits,
    up_to,
    word,
)
from progressive_attention.commands.data_options import add_data_command, documented
from progressive_attention.commands.reproduce_options import add_remeasure_command, add_reproduce_command
from progressive_attention.config import ALIASES, DEFAULT_MODEL, MODELS, RECIPES, SPLITS, STYLES

DATA_HELP = f"{', '.join(STYLES)}, a folder with a manifest, or an .npz file"
MORE_WORDS = "an .npz with vectors of words that the network was not trained with, by the same encoder"
VECTORS = "names (n,), vectors (n, D)"
MOST_SCENES = 400  # of a contact sheet, which takes 6 MB of memory for each
DISTRIBUTED = ("train", "evaluate")  # what several processes do together
NO_MEMORY = ("allocate memory", "out of memory", "not enough memory")  # torch's words, in RuntimeErrors of many kinds
WEIGHTS_HELP = "a shipped name (see `pan list`), a run's folder, or owner/name on the Hugging Face Hub"


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class ShowVersion(argparse.Action):
    """Looks the version up only when asked for: that costs more than the rest of a --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from progressive_attention import __version__

        print(f"progressive_attention {__version__}")
        parser.exit()


def build_parser() -> Parser:
    """All commands with their options."""
    parser = Parser(
        prog="pan", description="Ask an image about one object; get its attribute and the attention that led there."
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add = partial(documented, commands)

    render = add(
        "render",
        "draw a contact sheet of scenes with their questions and answers",
        "  pan render mbg --count 40 --out sheet.png\n  pan render mbg --backgrounds photos/ --out sheet.png",
    )
    render.add_argument("style", choices=STYLES)
    render.add_argument(
        "--count", type=up_to(MOST_SCENES), default=40, help=f"scenes to draw (default: 40, at most {MOST_SCENES:,})"
    )
    render.add_argument("--split", choices=SPLITS, default="test")
    sheet = Path("sheet.png")
    render.add_argument("--out", type=out_file(".png"), default=sheet, help="PNG to write (default: sheet.png)")
    scene_options(render)

    add_data_command(commands)

    train = add(
        "train",
        "train a network; the same command goes on after an interruption",
        "  pan train --data mref --out runs/mref\n"
        "  pan train --data mbg --model san --recipe paper --images 30000 --out runs/mbg-san\n"
        "  pan train --data my-folder --backbone vgg16 --backbone-weights vgg16.safetensors --prior --out runs/mine\n"
        "  pan train --data my-folder --text-queries --out runs/mine    # then ask it by any words\n"
        "  pan train --data my-folder --backbone resnet18 --freeze layer1 --augment crop --epochs 20 --out runs/mine",
    )
    train.add_argument("--data", type=word, required=True, help=DATA_HELP)
    train.add_argument("--model", choices=[*MODELS, *ALIASES], default=DEFAULT_MODEL, help=f"default: {DEFAULT_MODEL}")
    backbone_help = "conv-stack, conv-stack-padded, or a timm network (default: the model's)"
    train.add_argument("--backbone", metavar="NAME", help=backbone_help)
    train.add_argument(
        "--backbone-weights",
        metavar="FILE_OR_NAME",
        help="a .safetensors file, or timm's name, e.g. vgg16.tv_in1k (default: random)",
    )
    train.add_argument("--prior", action="store_true", help="show the query to the classifier, too")
    asked = train.add_mutually_exclusive_group()
    asked.add_argument("--text-queries", action="store_true", help="ask by a sentence encoder's vectors (extra text)")
    asked.add_argument("--query-embeddings", type=Path, metavar="FILE", help=f"ask by an .npz: {VECTORS}")
    train.add_argument("--freeze", metavar="STAGE", help="the backbone learns only behind this stage, e.g. pool3")
    train.add_argument("--image-size", type=positive, metavar="PX", help="side to which images are fitted")
    train.add_argument("--augment", choices=("none", "flip", "crop"), help="default: the recipe's, none")
    recipe_help = "default: fast, for a timm network photographs"
    train.add_argument("--recipe", choices=list(RECIPES), help=recipe_help)
    train.add_argument("--images", type=positive, help="training images of a synthetic set (default: 30000)")
    train.add_argument("--absent", action="store_true", help="of a synthetic set, ask about digits not there, too")
    train.add_argument("--epochs", type=positive, help="default: the recipe's")
    keep_help = "keep the weights of these epochs, too, e.g. 10,30,100: in RUN/epochs/10, ..."
    train.add_argument("--keep-epochs", type=epochs, default=[], metavar="N,...", help=keep_help)
    train.add_argument("--batch", type=positive, help="images (or rows) per step; default: the recipe's")
    train.add_argument("--lr", type=float, help="learning rate; default: the recipe's")
    train.add_argument("--gate-price", type=price, metavar="X", help="charge for open gates (default: the model's)")
    train.add_argument(
        "--mask-price", type=price, metavar="X", help="charge for maps unlike the true masks (default: the recipe's, 0)"
    )
    device_option(train)
    train.add_argument("--tensorboard", action="store_true", help="curves and attention pictures, in RUN/tensorboard")
    train.add_argument("--trackio", help=argparse.SUPPRESS)  # gone; train says what to use
    train.add_argument("--out", type=out_folder, required=True, metavar="RUN", help="folder of the run")
    scene_options(train)

    evaluate = add(
        "evaluate",
        "measure accuracy and attention of a trained network",
        "  pan evaluate --weights mref-pan --data mref\n"
        "  pan evaluate --weights runs/mine --data my-folder --json\n"
        "  pan evaluate --weights mref-san --data scenes.npz --json\n"
        "  pan evaluate --weights mref-pan-hard-ctx --faithfulness --limit 100",
    )
    evaluate.add_argument("--weights", type=word, required=True, metavar="NAME_OR_DIR", help=WEIGHTS_HELP)
    evaluate.add_argument("--data", type=word, help=DATA_HELP + " (default: what the network was trained on)")
    evaluate.add_argument(
        "--split", type=splits, metavar="SPLIT", help="default: test; all of an .npz; of a folder also train,validation"
    )
    evaluate.add_argument("--query-embeddings", type=Path, metavar="FILE", help=MORE_WORDS)
    evaluate.add_argument(
        "--faithfulness",
        action="store_true",
        help="also delete and insert what the maps show, and randomise weights: docs/faithfulness.md",
    )
    limit_help = "questions for --faithfulness, one an image (default: 1000)"
    evaluate.add_argument("--limit", type=positive, metavar="N", help=limit_help)
    rows_help = "FILE.parquet for one row per question; the figures go beside it as .json"
    evaluate.add_argument("--rows", type=out_file(".parquet"), metavar="FILE", help=rows_help)
    device_option(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON, shares in 0..1")
    scene_options(evaluate, trained=True)

    absence = add(
        "absence",
        "measure how well a network tells that what it is asked for is not there, and set the threshold",
        "  pan absence --weights mref-pan --data mref\n  pan absence --weights runs/mine --data my-folder --keep 0.99",
    )
    absence.add_argument("--weights", type=word, required=True, metavar="NAME_OR_DIR", help=WEIGHTS_HELP)
    absence.add_argument("--data", type=word, help=DATA_HELP + " (default: what the network was trained on)")
    keep_help = "share of questions about what is there that must keep their answer (default: 0.95)"
    absence.add_argument("--keep", type=share, default=0.95, metavar="SHARE", help=keep_help)
    device_option(absence)
    absence.add_argument("--json", action="store_true", help="print the figures as JSON, shares in 0..1")
    scene_options(absence, trained=True)

    predict = add(
        "predict",
        "ask a trained network about pictures",
        "  pan predict --weights mref-pan picture.png --query 7 --query 3\n"
        "  pan predict --weights runs/mine photo.jpg photos/ --query bird --json",
    )
    predict.add_argument("images", type=word, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    predict.add_argument("--weights", type=word, required=True, metavar="NAME_OR_DIR", help=WEIGHTS_HELP)
    predict.add_argument("--query", action="append", required=True, help="again for more: --query 7 --query 3")
    predict.add_argument("--query-embeddings", type=Path, metavar="FILE", help=MORE_WORDS)
    figures_help = "folder for the figures (default: runs/predict)"
    predict.add_argument("--out", type=out_folder, default=Path("runs/predict"), metavar="DIR", help=figures_help)
    device_option(predict)
    predict.add_argument("--json", action="store_true", help="print the answers as JSON")

    report = add(
        "report",
        "write one HTML page about a run: how it learnt, what it confuses, where it looks; evaluates it if need be",
        "  pan report runs/mref\n  pan report runs/mine --data my-folder --out mine.html\n  pan report mref-pan",
    )
    report.add_argument("run", type=word, metavar="RUN", help="a run's folder, or a shipped name (see `pan list`)")
    report.add_argument("--out", type=out_file(".html"), metavar="FILE", help="default: report.html in the run")
    report.add_argument("--data", type=word, help=DATA_HELP + " (default: what the run or its evaluation tells)")
    report.add_argument("--split", type=splits, metavar="SPLIT", help="default: test; all of an .npz")
    report.add_argument("--query-embeddings", type=Path, metavar="FILE", help=MORE_WORDS)
    device_option(report)

    export = add(
        "export",
        "write a trained network as one file for onnxruntime, torch or a browser, checked against the network",
        "  pan export --weights mref-pan --out mref.onnx\n"
        "  pan export --weights mref-pan --format web --out mref.html\n"
        "  pan export --weights runs/mine --format torch --out mine.pt2",
    )
    export.add_argument("--weights", type=word, required=True, metavar="NAME_OR_DIR", help=WEIGHTS_HELP)
    formats_help = "torch: torch.export's .pt2; web: a page that asks it in the browser, without a server"
    export.add_argument("--format", choices=("onnx", "torch", "web"), default="onnx", help=formats_help)
    export_file = out_file(".onnx", ".pt2", ".html")
    export.add_argument(
        "--out", type=export_file, required=True, metavar="FILE", help="FILE.onnx, .pt2 or .html to write"
    )

    serve = add(
        "serve",
        "a page in the browser: draw a scene or drop a picture, ask, see each layer's attention",
        "  pan serve\n  pan serve --weights mref-pan --weights runs/mine --port 8000",
    )
    weights_help = WEIGHTS_HELP + "; may be given several times (default: all that ship)"
    serve.add_argument("--weights", type=word, action="append", metavar="NAME_OR_DIR", help=weights_help)
    serve.add_argument("--port", type=positive, default=7860, help="default: 7860")
    serve.add_argument("--host", type=word, default="127.0.0.1", help="default: 127.0.0.1, so nobody else reaches it")
    device_option(serve)

    listing = add("list", "show models, trained weights and data sets", "  pan list\n  pan list --json")
    listing.add_argument("--json", action="store_true")

    quickstart = add(
        "quickstart",
        "ask a pretrained network, train a small one, compare it with pretrained ones, write a report",
        "  pan quickstart --out runs/quickstart",
    )
    quickstart_out = {"default": Path("runs/quickstart"), "help": "folder to write (default: runs/quickstart)"}
    quickstart.add_argument("--out", type=out_folder, metavar="DIR", **quickstart_out)
    device_option(quickstart)

    add_reproduce_command(commands)
    add_remeasure_command(commands)

    bench = add(
        "bench",
        "measure how fast training, answers, rendering and loading are here, beside what else there is",
        "  pan bench --quick --json bench.json\n  pan bench --suite step --json step.json\n\n"
        + "\n".join(["suites:", *(f"  {name:18s}{told}" for name, told in SUITES.items())]),
    )
    bench.add_argument("--suite", choices=[*SUITES, "all"], default="all", metavar="SUITE", help="default: all")
    bench.add_argument("--quick", action="store_true", help="under a minute: few figures of each, some suites left out")
    bench.add_argument(
        "--json", type=out_file(".json"), required=True, metavar="FILE", help="the report, written after each figure"
    )
    device_option(bench)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: its own exit code or 0, 2 with one line on what was wrong, 130 when interrupted.

    Of several processes the first one speaks; another only of what ends itself alone.
    """
    started, name = time.monotonic(), "pan"
    several = (os.environ.get("WORLD_SIZE") or "1") != "1"
    number = os.environ.get("RANK", "0") if several else "0"
    try:
        arguments = build_parser().parse_args(argv if argv is not None else sys.argv[1:] or ["--help"])
        name = f"pan {arguments.command}"
        arguments.started = started
        arguments.line = shlex.join(["pan", *(sys.argv[1:] if argv is None else argv)])
        if several:
            return among_processes(arguments)
        return command_of(arguments.command)(arguments) or 0
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if (text := one_line(error)) is None:
            raise
        if number != "0" and not isinstance(error, ConnectionError):
            time.sleep(2)  # an error of all is the first one's to tell: its end ends the others
        who = f"process {number}: " * (number != "0")
        print(f"{name}: error: {who}{text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if number == "0":
            print(f"{name}: stopped", file=sys.stderr)
        return 130


def among_processes(arguments: argparse.Namespace) -> int:
    """Run a command as one of the processes that torchrun has started; raises ValueError for what can't be shared."""
    if arguments.command not in DISTRIBUTED:
        raise ValueError(f"only {' and '.join(DISTRIBUTED)} can be shared by several processes; start it by pan alone")
    from progressive_attention.processes import joined

    import_torch()
    with joined():
        return command_of(arguments.command)(arguments) or 0


def command_of(name: str) -> Callable[[argparse.Namespace], int | None]:
    """What does the work; each imports only what it needs, and only now: --help and mistakes need next to nothing."""
    if name == "data":
        from progressive_attention.commands.data import data

        return data
    if name == "bench":
        from progressive_attention.bench.command import bench

        return bench
    if name in ("list", "render"):
        from progressive_attention.commands import show as show_commands

        return show_commands.COMMANDS[name]
    import_torch()
    if name == "predict":
        from progressive_attention.commands.predict import predict

        return predict
    if name == "report":
        from progressive_attention.commands.report import report

        return report
    if name == "export":
        from progressive_attention.commands.export import export_network

        return export_network
    if name == "serve":
        from progressive_attention.commands.serve import serve

        return serve
    if name == "absence":
        from progressive_attention.commands.absence import absence

        return absence
    from progressive_attention.commands.work import COMMANDS

    return COMMANDS[name]


def import_torch() -> None:
    """Import torch, never to be searched for garbage: all of it stays, and the end would take half a second longer."""
    if "torch" not in sys.modules:
        gc.disable()
        import_module("torch")
        gc.freeze()
        gc.enable()


def one_line(error: Exception) -> str | None:
    """What was wrong, without line breaks; None for a mistake of ours, whose traceback is wanted."""
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError | RuntimeError):
        return text
    if isinstance(error, RuntimeError) and not any(words in text for words in NO_MEMORY):
        return None
    what = text or "nothing tells for what"
    return f"not enough memory ({what}); free some, or train with a smaller --batch or --image-size"
