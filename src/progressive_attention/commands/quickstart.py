"""Ask a pretrained network, train a small one, compare it with pretrained ones, write a report.

examples:
  pan quickstart --out runs/quickstart
"""

import argparse
import shlex
from pathlib import Path
from types import ModuleType

from progressive_attention.commands import arguments as shared
from progressive_attention.commands import predict, train

SMALL, PRETRAINED = "small pan", ("mref-pan", "mref-san")  # the first of these is asked about the example
EXAMPLE = Path(__file__).parents[1] / "assets" / "examples" / "mref.png"  # test scene 1133 of seed 2026
QUERIES = ("7", "5", "0")
TRAINING = {"images": 10_000, "epochs": 1, "batch": 16, "lr": 0.005}  # short of time: one epoch of more, shorter steps
TEST = 1_000  # scenes, one question each


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan quickstart``."""
    default = Path("runs/quickstart")
    parser.add_argument("--out", type=shared.out_folder, default=default, metavar="DIR", help=f"default: {default}")
    shared.add_shared(parser, "--device")


def run(arguments: argparse.Namespace) -> None:
    """Write answers/*.png, the run's folder ``pan``, report.html and quickstart.json (the figures) into ``--out``.

    Given the device the result is the same each time; an interrupted quickstart goes on where it was. Raises ValueError
    where a pretrained network is missing, or the folder holds another training.
    """
    from progressive_attention.evaluation.ask import pick_device

    out, device = arguments.out, ["--device", str(pick_device(arguments.device))]
    asked = [word for query in QUERIES for word in ("--query", query)]
    call(predict, str(EXAMPLE), "--weights", PRETRAINED[0], *asked, "--out", str(out / "answers"), *device)
    options = [word for name, value in TRAINING.items() for word in (f"--{name}", str(value))]
    call(train, "--data", "mref", *options, "--out", str(out / "pan"), *device)
    compare(out, device[1], arguments.line)


def call(command: ModuleType, *words: str) -> None:
    """Show a command and run it as if it were typed."""
    name = command.__name__.rpartition(".")[2]
    print(f"$ pan {name} {shlex.join(words)}", flush=True)
    parser = shared.Parser(prog=f"pan {name}")
    command.add_options(parser)
    command.run(parser.parse_args(words))


def compare(out: Path, device: str, line: str) -> None:
    """Measure the network of ``out / "pan"`` beside pretrained ones, and write and print the figures; ``line`` is the
    command.
    """
    from rich.console import Console

    from progressive_attention.evaluation.answers import summarise
    from progressive_attention.evaluation.evaluate import examples
    from progressive_attention.evaluation.kept import load_with_bar
    from progressive_attention.files import write_json, write_text
    from progressive_attention.pages.report import Network, Report, headline, render
    from progressive_attention.pages.run_results import examples as scenes_of
    from progressive_attention.pages.run_results import training_facts
    from progressive_attention.predict.predictor import Predictor
    from progressive_attention.reproduce.machine import commit, hardware

    test = load_with_bar(Console(stderr=True), "mref", "test", images=3 * TEST)
    names = {SMALL: out / "pan", **{name: name for name in PRETRAINED}}
    predictors = {name: Predictor(weights, device) for name, weights in names.items()}
    networks, tables = [], {}
    for name, predictor in predictors.items():
        tables[name] = examples(predictor.trained, test, predictor.device)
        networks.append(Network(name, summarise(tables[name]), training_facts(predictor.trained.about, [])))
    chosen, why = scenes_of(tables[SMALL], test, predictors[SMALL], SMALL)
    scenes = []
    for scene in chosen:
        answers = {name: predictor.ask(scene.image, scene.query) for name, predictor in predictors.items()}
        scenes.append(scene._replace(answers=answers))
    facts = {"command": line, "hardware": hardware(predictors[SMALL].device), "commit": commit()}
    report = Report(data="mref", networks=networks, facts=facts, scenes=scenes, chosen=why)
    write_text(out / "report.html", render(report))
    results = {network.name: {"training": network.training, "test": network.summary} for network in networks}
    write_json(out / "quickstart.json", {"seed": 0, "results": results})
    print(f"{headline(networks)}\nreport: {out / 'report.html'}")
