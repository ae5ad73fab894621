"""A user's program, as strict type checkers must take it (test_typed_user.py); it is checked, never run."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchmetrics import MetricCollection

from progressive_attention import (
    Answer,
    Geometry,
    ModelConfig,
    Prediction,
    Predictor,
    ProgressiveAttentionNetwork,
    Recipe,
    __version__,
    build_model,
    evaluate,
    fit,
    load_questions,
    pixel_maps,
)
from progressive_attention.config import RECIPES
from progressive_attention.data.questions import QuestionSet
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import pointing_game, true_positive_ratio
from progressive_attention.metrics.modular import AttentionOverlap, AttributeRanking, PointingGame, TruePositiveRatio
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.predict.export import export
from progressive_attention.saved import describe, load
from progressive_attention.training.loop import Progress
from progressive_attention.training.objectives import answer_loss
from progressive_attention.training.tensorboard_log import TensorBoardLog


def ask(picture: str | Path | Image.Image) -> str:
    predictor = Predictor("mref-pan", device="cpu")
    answers: list[Answer] = predictor.ask_all(picture, ["7", "3"])
    best: tuple[str, float] = answers[0].ranked[0]
    largest: float = float(answers[0].maps["accumulated"].max()) + float(np.nanmax(answers[0].layers[0]))
    seen = answers[0].image.shape
    return f"{best[0]} {best[1]:.0%} {largest} {seen} {answers[0].probabilities['red']} {__version__}"


def learn(images: torch.Tensor, query: torch.Tensor, attribute: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    model = build_model("pan-hard-ctx", num_queries=10, num_attributes=5, image_size=100)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003)
    prediction: Prediction = model(images, query)
    loss = answer_loss(prediction.logit, attribute)
    loss.backward()  # pyright: ignore[reportUnknownMemberType] (torch's own, as the next)
    optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    where: Geometry = geometry(model)
    maps: dict[str, torch.Tensor] = pixel_maps(prediction, where)
    ratio, looked = TruePositiveRatio(), MetricCollection({"pointing": PointingGame(15), "overlap": AttentionOverlap()})
    ratio.update(maps["last"], mask)
    looked.update(maps["last"], mask)
    ranking = AttributeRanking(5)
    ranking.update(prediction.logit, attribute)
    shapes = [layer.shape for layer in prediction.attention]
    found = {
        "tpr": float(ratio.compute()),
        "layers": float(len(shapes)),
        "mean_ap": float(ranking.compute()["mean_ap"]),
    }
    ratio.reset()
    return found


def measure(attention: "np.ndarray[tuple[int, int, int], np.dtype[np.float64]]", target: torch.Tensor) -> float:
    mask = target.numpy()
    scores = RankingScores(3)
    summary = scores.summary()
    print(summary["mean_ap"])
    return float(true_positive_ratio(attention, mask).mean() + pointing_game(attention, mask).mean())


def train(out: Path) -> float:
    questions: QuestionSet = load_questions("mref", "train", images=90)
    recipe: Recipe = RECIPES["fast"]
    config = ModelConfig(len(questions.query_names), len(questions.attribute_names))
    model = ProgressiveAttentionNetwork.from_pretrained("mref-pan", local_files_only=True)
    about = describe(config, questions.query_names, questions.attribute_names)

    def watch(progress: Progress) -> None:
        print(progress.step, progress.loss, progress.learning_rate)

    fit(model, questions, questions, recipe, out, about, watch=watch)
    with TensorBoardLog(out / "tensorboard") as log:
        fit(model, questions, questions, recipe, out, about, seed=1, device="cpu", watch=log)
    trained = load(out)
    results = evaluate(trained, questions)
    model.save_pretrained(out / "shared", query_names=questions.query_names, results=results)
    print(model.push_to_hub("me/mref", private=True), export(trained, Path("mref.onnx")))
    accuracy: float = results["accuracy"]
    return accuracy
