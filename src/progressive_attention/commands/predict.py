"""What ``pan predict`` does; alone in its file, so that an answer need not wait for what only training needs."""

import argparse
import json
import sys
from pathlib import Path

from progressive_attention.data.image_root import SUFFIXES
from progressive_attention.data.images import open_picture
from progressive_attention.evaluation.absence import Detector
from progressive_attention.pages.plots import answer_figure
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.predict.text_queries import encoder_of

SHOWN = 8  # attributes that are printed, the likeliest; --json gives all


def pictures_of(paths: list[str]) -> list[Path]:
    """The files named, and the images of the folders named, sorted; raises ValueError for a folder without any."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"no images in {path}; expected files ending in {', '.join(SUFFIXES)}")
            found += inside
        else:
            found.append(path)
    return found


def free(path: Path, taken: set[Path]) -> Path:
    """The path, or one with -2, -3, ... behind its name where that is taken; from now on it is."""
    found, number = path, 1
    while found in taken:
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    taken.add(found)
    return found


def said(answer: Answer, detector: Detector | None) -> str:
    """The attribute; or that the object was not found, by which score, and what the attribute would be."""
    if detector is None or answer.found:
        return answer.attribute
    below = f"{detector.name} {answer.presence:.4g}, found from {detector.threshold:.4g}"
    return f"not found [{below}]; if it were there: {answer.attribute}"


def place(answer: Answer) -> str:
    """Where the object is, in pixels of the picture; empty where that is unknown, or it was not found."""
    if answer.point is None or answer.denied:
        return ""
    x, y = answer.point
    return f" at ({x:.0f}, {y:.0f})"


def predict(arguments: argparse.Namespace) -> int:
    """Answer each query about each picture, one figure each; 2 if there are pictures that can't be read, else 0."""
    predictor = Predictor(arguments.weights, arguments.device, encoder_of(arguments.query_embeddings))
    results, taken, code = [], set(), 0
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
            probabilities = {name: round(p, 6) for name, p in answer.probabilities.items()}
            results.append(
                {
                    "image": str(path),
                    "query": answer.query,
                    "answer": answer.attribute,
                    "probability": answer.probability,
                    "probabilities": probabilities,
                    "presence": answer.presence,
                    "found": answer.found,
                    "point": answer.point,
                    "box": answer.box(),
                    "figure": str(figure),
                }
            )
            if not arguments.json:
                others = ", ".join(f"{name} {p:.1%}" for name, p in answer.ranked[:SHOWN])
                words = f"{said(answer, predictor.detector)}{place(answer)}"
                print(f"{path}  {answer.query} -> {words}  ({others})  {figure}")
    if arguments.json:
        print(json.dumps(results))
    return code
