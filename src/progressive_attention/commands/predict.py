"""Ask a trained network about pictures.

examples:
  pan predict --weights mref-pan picture.png --query 7 --query 3
  pan predict --weights runs/mine photo.jpg photos/ --query bird --json
"""

import argparse
import json
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progressive_attention.commands import arguments as shared

if TYPE_CHECKING:  # only to annotate: torch would delay --help
    from progressive_attention.evaluation.absence import Detector
    from progressive_attention.predict.predictor import Answer

SHOWN = 8  # attributes that are printed, the most likely; --json gives all


def add_options(parser: shared.Parser) -> None:
    """The options of ``pan predict``."""
    add = parser.add_argument
    add("images", type=shared.word, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    shared.add_shared(parser, "--weights", "--query-embeddings", "--device", "--json")
    add("--query", action="append", required=True, help="what to ask about; repeat for more: --query 7 --query 3")
    figures_help = "folder for the figures (default: runs/predict)"
    add("--out", type=shared.out_folder, default=Path("runs/predict"), metavar="DIR", help=figures_help)


def run(arguments: argparse.Namespace) -> int:
    """Answer each query about each picture, with a figure each; returns 2 if a picture can't be read, else 0."""
    from progressive_attention.data.images import open_picture
    from progressive_attention.pages.answer_plots import answer_figure
    from progressive_attention.predict.predictor import Predictor
    from progressive_attention.predict.text_queries import encoder_of

    predictor = Predictor(arguments.weights, arguments.device, encoder_of(arguments.query_embeddings))
    records, taken, code = [], set(), 0
    for path in pictures_of(arguments.images):
        try:
            picture = open_picture(path)
        except ValueError as error:  # one of many; the others' answers are wanted
            print(f"pan predict: error: {error}", file=sys.stderr)
            code = 2
            continue
        answers, side = predictor.ask_all(picture, arguments.query), predictor.side
        if picture.size != (side, side):
            size = f"{picture.width} x {picture.height}"
            print(f"note: {path} is {size} px; fitted into {side} x {side}, its shape kept", file=sys.stderr)
        for answer in answers:
            figure = free(arguments.out / f"{path.stem}-{answer.query.replace('/', '_')}.png", taken)
            answer_figure(answer, figure)
            records.append(record(path, answer, figure))
            if not arguments.json:
                others = ", ".join(f"{name} {p:.1%}" for name, p in answer.ranked[:SHOWN])
                print(f"{path}  {answer.query} -> {reply(answer, predictor.detector)}  ({others})  {figure}")
    if arguments.json:
        print(json.dumps(records))
    return code


def record(path: Path, answer: "Answer", figure: Path) -> dict[str, Any]:
    """An answer as JSON."""
    return {
        "image": str(path),
        "query": answer.query,
        "answer": answer.attribute,
        "probability": answer.probability,
        "probabilities": {name: round(p, 6) for name, p in answer.probabilities.items()},
        "presence": answer.presence,
        "found": answer.found,
        "point": answer.point,
        "box": answer.box(),
        "figure": str(figure),
    }


def pictures_of(paths: list[str]) -> list[Path]:
    """The named files, and the images of the named folders, sorted; raises ValueError for a folder without any."""
    from progressive_attention.data.image_root import SUFFIXES

    pictures: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"no images in {path}; expected files ending in {', '.join(SUFFIXES)}")
        pictures += inside
    return pictures


def free(path: Path, taken: set[Path]) -> Path:
    """The path, or one with -2, -3, ... behind its name where that is taken; from now on it is taken."""
    names = chain([path], (path.with_stem(f"{path.stem}-{number}") for number in count(2)))
    unused = next(name for name in names if name not in taken)
    taken.add(unused)
    return unused


def reply(answer: "Answer", detector: "Detector | None") -> str:
    """The attribute and the pixel where the object is, if known; or that it was not found, by which score."""
    text = answer.attribute
    if detector is not None and not answer.found:
        below = f"{detector.name} {answer.presence:.4g}, found from {detector.threshold:.4g}"
        text = f"not found [{below}]; if it were there: {text}"
    if answer.point is None or answer.denied:
        return text
    x, y = answer.point
    return f"{text} at ({x:.0f}, {y:.0f})"
