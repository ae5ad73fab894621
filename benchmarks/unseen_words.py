"""Asked by text, how does a network do on words that it was not trained with? docs/text-queries.md has what it printed.

pan train --data mref --text-queries --model pan-hard-ctx --images 20000 --epochs 1 --batch 16 --lr 0.01 --out runs/one
python benchmarks/unseen_words.py train runs/many            # five wordings of each digit, two digits never asked for
python benchmarks/unseen_words.py digits runs/one runs/many  # all wordings of all digits, on the same test scenes
python benchmarks/unseen_words.py classes DATA --backbone-weights FILE --out runs/classes  # every class held out once

The first two trainings take 10 to 20 minutes on one core, the last command some minutes for each of its six networks.
"""

import argparse
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from progressive_attention.config import RECIPES, Recipe
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation import ask as inference
from progressive_attention.evaluation.ask import Entrance
from progressive_attention.evaluation.evaluate import answers_to, examples, rows_of
from progressive_attention.files import write_json
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.predict.text_queries import SENTENCE_ENCODER, knowing, sentence_encoder, unit_vectors
from progressive_attention.saved import weights
from progressive_attention.saved.weights import Trained
from progressive_attention.training import loop as training
from progressive_attention.training.setup import prepared

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
    learn(arguments.out, "pan-hard-ctx", *(reworded(one, LEARNT, 0) for one in sets), recipe, arguments)


def learn(
    out: Path,
    model: str,
    train: QuestionSet,
    validation: QuestionSet,
    recipe: Recipe,
    arguments: argparse.Namespace,
    text: bool = True,
) -> None:
    """One training, by text or by learnt vectors; a line now and then."""
    options: dict[str, Any] = {"data": "mref", "changes": {}}
    if model == "han":
        options = {"data": arguments.data.name, "changes": {"backbone": "vgg16"}}
        options["backbone_weights"] = arguments.backbone_weights
    if text:
        options["query_vectors"] = unit_vectors(train.query_names, sentence_encoder())
        options["changes"]["query_encoder"] = SENTENCE_ENCODER
    with closing(
        prepared(model, train, validation, recipe, out, protocol="paper", seed=0, device=CPU, **options)
    ) as run:
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
    kept: dict[int, Entrance] = {}

    def entrance(images: Any, device: torch.device, model: Any = None, skip: int = 0) -> Entrance:
        """One for each split: all networks have the same frozen stages, so the features are computed once."""
        if id(images) not in kept:
            like = next(iter(kept.values()), None)
            kept[id(images)] = Entrance(images, device, like.model if like else model, like.skip if like else skip)
        return kept[id(images)]

    with mock.patch.object(training, "Entrance", entrance), mock.patch.object(inference, "Entrance", entrance):
        all_classes(arguments)


def all_classes(arguments: argparse.Namespace) -> None:
    """The six networks of ``classes``, and what they do on the test objects: each is asked about in five ways."""
    recipe = RECIPES["photographs"].with_changes(
        epochs=8, batch=16, learning_rate=0.003, schedule="one-cycle", module_rates=(("stages", 0.0),)
    )
    train, validation, test = (
        load_questions(arguments.data, split, image_size=128) for split in ("train", "validation", "test")
    )
    names, results = train.query_names, {}
    found: dict[str, tuple[RankingScores, list[Any]]] = {}

    def ask(way: str, trained: Trained, questions: QuestionSet) -> None:
        scores, tables = found.setdefault(way, (RankingScores(len(questions.attribute_names)), []))
        answers = answers_to(questions, trained)[0]
        tables.append(rows_of(trained, answers, CPU))
        scores.merge(answers.scores)
        results[way] = summary_of(scores, tables)
        print(way, results[way], flush=True)

    for i, text in enumerate((False, True)):
        learn(arguments.out / f"run-{i}", "han", train, validation, recipe, arguments, text)
        ask("text" if text else "learnt vectors", weights.load(arguments.out / f"run-{i}"), test)
    for fold in range(FOLDS):
        held_out, out = names[fold::FOLDS], arguments.out / f"run-{fold + 2}"
        known = [name for name in names if name not in held_out]
        learn(out, "han", of_classes(train, known), of_classes(validation, known), recipe, arguments)
        unseen, trained = of_classes(test, held_out), knowing(weights.load(out), names)
        ask("held out", trained, unseen)
        ask("held out, asked by another class's word", trained, misnamed(test, unseen, known, fold))
        ask("learnt beside the held-out ones", trained, of_classes(test, known))
    write_json(arguments.out / "classes.json", results)


def of_classes(questions: QuestionSet, names: Sequence[str]) -> QuestionSet:
    """Only questions about these classes, and only these words."""
    kept = questions.rows(np.isin(np.array(questions.query_names)[questions.query], names))
    place = np.array([list(names).index(name) if name in names else -1 for name in questions.query_names])
    return replace(kept, query=place[kept.query], query_names=tuple(names))


def misnamed(every: QuestionSet, asked: QuestionSet, names: Sequence[str], seed: int) -> QuestionSet:
    """The same objects asked for by a word drawn from ``names`` of what is not in the picture."""
    there: dict[int, set[str]] = {}
    for image, query in zip(every.image, every.query, strict=True):
        there.setdefault(int(image), set()).add(every.query_names[query])
    rng = np.random.default_rng(seed)
    absent = [[i for i, name in enumerate(names) if name not in there[int(image)]] for image in asked.image]
    return replace(asked, query=np.array([rng.choice(words) for words in absent]), query_names=tuple(names))


def summary_of(scores: RankingScores, tables: list[Any]) -> dict[str, Any]:
    """Weighted mAP; of the last map the pointing game, and the mean true-positive ratio with its 95 % interval."""
    told: dict[str, Any] = {"weighted_mean_ap": scores.summary()["weighted_mean_ap"]}
    for kind in ("box", "mask"):
        values = {what: column(tables, f"{what}_{kind}_last") for what in ("tpr", "pointing")}
        half = 1.96 * values["tpr"].std(ddof=1) / len(values["tpr"]) ** 0.5
        mean = values["tpr"].mean()
        told[f"tpr_{kind}"] = {"mean": mean, "ci95": [mean - half, mean + half]}
        told[f"tpr_{kind}_uniform"] = column(tables, f"tpr_{kind}_uniform").mean()
        told[f"pointing_{kind}"] = share(values["pointing"])
    return told


def column(tables: list[Any], name: str) -> np.ndarray:
    """A column of several tables, without its gaps."""
    return np.concatenate([table[name].drop_null().to_numpy() for table in tables])


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
