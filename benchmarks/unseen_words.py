"""Asked by text, how does a network do on words that it was not trained with? docs/text-queries.md has what it printed.

pan train --data mref --text-queries --model pan-hard-ctx --images 20000 --epochs 1 --batch 16 --lr 0.01 --out runs/one
python benchmarks/unseen_words.py train runs/many            # five wordings of each digit, two digits never asked for
python benchmarks/unseen_words.py digits runs/one runs/many  # all wordings of all digits, on the same test scenes
python benchmarks/unseen_words.py classes DATA --backbone-weights FILE --out runs/classes  # every class held out once

The first two trainings take 10 to 20 minutes on one core, the last command some minutes for each of its six networks.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progressive_attention import weights
from progressive_attention.config import RECIPES
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation import examples
from progressive_attention.files import write_json
from progressive_attention.label_evaluation import evaluate_labels
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.prepare import prepared
from progressive_attention.text_queries import SENTENCE_ENCODER, knowing, sentence_encoder, unit_vectors

CPU = torch.device("cpu")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEARNT = ("{numeral}", "{word}", "the number {numeral}", "digit {word}", "a {word}")
NEW = ("the digit {word}", "number {word}", "the {numeral}", "what colour is the {numeral}?", "that {word} over there")
HELD_OUT = (3, 7)
FOLDS = 4


def say(wording: str, digit: int) -> str:
    """A wording of a digit."""
    return wording.format(numeral=digit, word=NUMBERS[digit])


def reworded(questions: QuestionSet, wordings: Sequence[str], seed: int) -> QuestionSet:
    """Digits asked for by words, each time by a wording drawn at random; HELD_OUT are not asked for."""
    asked = questions.rows(~np.isin(questions.query, HELD_OUT))
    digits = [digit for digit in range(10) if digit not in HELD_OUT]
    place = np.array([digits.index(digit) if digit in digits else -1 for digit in range(10)])
    drawn = np.random.default_rng(seed).integers(len(wordings), size=len(asked))
    names = tuple(say(wording, digit) for digit, wording in product(digits, wordings))
    return replace(asked, query=place[asked.query] * len(wordings) + drawn, query_names=names)


def train(arguments: argparse.Namespace) -> None:
    """The network that learns LEARNT of all digits but HELD_OUT; the same command goes on after an interruption."""
    recipe = RECIPES["fast"].with_changes(epochs=1, batch=16, learning_rate=0.01)
    sets = [load_questions("mref", split, queries="all", images=20_000) for split in ("train", "validation")]
    learn(arguments.out, "pan-hard-ctx", *(reworded(one, LEARNT, 0) for one in sets), recipe, "mref", {})


def learn(
    out: Path,
    model: str,
    train: QuestionSet,
    validation: QuestionSet,
    recipe: Any,
    data: str,
    changes: dict[str, Any],
    text: bool = True,
    **options: Any,
) -> None:
    """One training, by text or by learnt vectors; a line now and then."""
    if text:
        options["query_vectors"] = unit_vectors(train.query_names, sentence_encoder())
        changes = {**changes, "query_encoder": SENTENCE_ENCODER}
    about = {"data": data, "protocol": "paper", "seed": 0, "device": CPU, "changes": changes}
    with closing(prepared(model, train, validation, recipe, out, **about, **options)) as run:
        for step in run:
            if step.record or not step.step % 100:
                print(out, f"step {step.step} of {step.steps}, loss {step.loss:.4f}", step.record or "", flush=True)


def digits(arguments: argparse.Namespace) -> None:
    """Accuracy of each wording, and of the digits that were held out, on 3,333 test scenes with one question each."""
    test = replace(load_questions("mref", "test", images=10_000), masks=None)
    every = load_questions("mref", "test", images=10_000, queries="all")
    held_out = np.isin(test.query, HELD_OUT)
    results: dict[str, Any] = {"scenes": len(test), "most frequent colour": {}}
    for name, rows in (("learnt digits", ~held_out), ("held-out digits", held_out)):
        results["most frequent colour"][name] = share(most_frequent(every, test.rows(rows)))
    for folder in arguments.runs:
        trained = knowing(weights.load(folder), [say(one, d) for one in (*LEARNT, *NEW) for d in range(10)])
        found = results[str(folder)] = {}
        for wording in (*LEARNT, *NEW):
            names = tuple(say(wording, digit) for digit in range(10))
            right = examples(trained, replace(test, query_names=names), CPU)["correct"].to_numpy(zero_copy_only=False)
            found[wording] = {"digits 3, 7": share(right[held_out]), "others": share(right[~held_out])}
            print(folder, f"{wording:32s}", {key: percent(value) for key, value in found[wording].items()}, flush=True)
    print("most frequent colour", {key: percent(value) for key, value in results["most frequent colour"].items()})
    if arguments.json:
        write_json(arguments.json, results)


def most_frequent(every: QuestionSet, asked: QuestionSet) -> np.ndarray:
    """How probably one is right who answers with the colour of most digits of the scene, ties drawn: (R,) in [0, 1]."""
    count = np.zeros((len(every.images), len(every.attribute_names)), np.int64)
    np.add.at(count, (every.image, every.attribute), 1)
    best = count[asked.image] == count[asked.image].max(1, keepdims=True)
    return best[np.arange(len(asked)), asked.attribute] / best.sum(1)


def share(right: Iterable[float]) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    values = np.asarray(right, float)
    return {
        "share": values.mean(),
        "ci95": list(wilson_interval(round(values.sum()), len(values))),
        "count": len(values),
    }


def percent(one: dict[str, Any]) -> str:
    """A share in words."""
    return f"{one['share']:.2%} ({one['ci95'][0]:.2%} to {one['ci95'][1]:.2%}) of {one['count']}"


def classes(arguments: argparse.Namespace) -> None:
    """HAN on frozen VGG-16: learnt vectors, text, and text with a quarter of the classes held out, in turns."""
    recipe = RECIPES["photographs"].with_changes(
        epochs=8, batch=16, learning_rate=0.003, schedule="one-cycle", module_rates=(("stages", 0.0),)
    )
    sets = [load_questions(arguments.data, split, image_size=128) for split in ("train", "validation", "test")]
    names = sets[0].query_names
    folds = [names[fold::FOLDS] for fold in range(FOLDS)]
    runs = {"learnt vectors": ((), False), "text": ((), True)}
    runs |= {f"text without {', '.join(fold)}": (fold, True) for fold in folds}
    tables: dict[str, Any] = {}
    results: dict[str, Any] = {"folds": folds}
    for i, (title, (fold, text)) in enumerate(runs.items()):
        out = arguments.out / f"run-{i}"
        kept = [of_classes(one, [name for name in names if name not in fold]) for one in sets[:2]]
        options = {"text": text, "backbone_weights": arguments.backbone_weights}
        learn(out, "han", *kept, recipe, Path(arguments.data).name, {"backbone": "vgg16"}, **options)
        trained = weights.load(out)
        if text:
            trained = knowing(trained, names)
        summary, tables[title] = evaluate_labels(trained, sets[2], kept[0], CPU)
        results[title] = {key: value for key, value in summary.items() if "by_query" not in key}
        if fold:
            unseen, _ = evaluate_labels(trained, of_classes(sets[2], list(fold)), None, CPU)
            results[title]["held out"] = {key: value for key, value in unseen.items() if "by_query" not in key}
            results[title]["same classes, by text"] = of_fold(arguments.out / "run-1", sets[2], fold, names)
            results[title]["no query"] = without_query(kept[0], of_classes(sets[2], list(fold)))
        write_json(arguments.out / "classes.json", results)
    test = sets[2]
    asked = np.array(test.query_names)[test.query]
    for title in ("learnt vectors", "text"):
        results[title]["pointing"] = {kind: share(pointed(tables[title], kind)) for kind in ("box", "mask")}
    unseen = {kind: np.full(len(test), np.nan) for kind in ("box", "mask")}
    for title, (fold, _) in runs.items():
        for kind in unseen if fold else ():
            rows = np.isin(asked, fold)
            unseen[kind][rows] = pointed(tables[title], kind)[rows]
    results["held out"] = {"pointing": {kind: share(values) for kind, values in unseen.items()}}
    write_json(arguments.out / "classes.json", results)
    print(json.dumps(results, indent=1))


def of_classes(questions: QuestionSet, names: Sequence[str]) -> QuestionSet:
    """Only questions about these classes, and only these words."""
    kept = questions.rows(np.isin(np.array(questions.query_names)[questions.query], names))
    place = np.array([list(names).index(name) if name in names else -1 for name in questions.query_names])
    return replace(kept, query=place[kept.query], query_names=tuple(names))


def pointed(table: Any, kind: str) -> np.ndarray:
    """Whether the last map's highest point lies in the target, (R,) 0 or 1."""
    return table[f"pointing_{kind}_last"].to_numpy()


def of_fold(run: Path, test: QuestionSet, fold: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """What the network that learnt all classes reaches on those of a fold."""
    summary, _ = evaluate_labels(knowing(weights.load(run), names), of_classes(test, list(fold)), None, CPU)
    return {key: value for key, value in summary.items() if "by_query" not in key}


def without_query(train: QuestionSet, test: QuestionSet) -> dict[str, Any]:
    """The attributes' shares in training as the answer to everything."""
    from progressive_attention.metrics.ranking import RankingScores

    assert isinstance(train.attribute, Labels)
    holds, known = train.attribute.totals
    odds = np.log((holds + 0.5) / (known - holds + 0.5))
    scores = RankingScores(len(test.attribute_names))
    scores.add(np.tile(odds, (len(test), 1)), test.attribute[np.arange(len(test))])
    return {"weighted_mean_ap": scores.summary()["weighted_mean_ap"]}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("train")
    one.add_argument("out", type=Path)
    one = parts.add_parser("digits")
    one.add_argument("runs", type=Path, nargs="+")
    one.add_argument("--json", type=Path)
    one = parts.add_parser("classes")
    one.add_argument("data", type=Path)
    one.add_argument("--backbone-weights", required=True)
    one.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    {"train": train, "digits": digits, "classes": classes}[arguments.part](arguments)


if __name__ == "__main__":
    main()
