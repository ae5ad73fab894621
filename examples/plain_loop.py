"""Your own training loop: the network is a module like any other, and gives its attention with its answers.

python examples/plain_loop.py --steps 300
"""

import argparse

import torch
from shapes import COLOURS, SHAPES, SIDE, Shapes
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from progressive_attention import build_model, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.modular import AttentionOverlap, PointingGame, TruePositiveRatio
from progressive_attention.training.objectives import answer_loss


def main(steps: int = 300, questions: int = 300) -> dict[str, float]:
    """Train, then measure on so many new pictures; returns what is printed."""
    torch.manual_seed(0)
    model = build_model("pan-hard-ctx", num_queries=len(SHAPES), num_attributes=len(COLOURS), image_size=SIDE)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003)
    model.train()
    for image, query, attribute, _ in DataLoader(Shapes(16 * steps, seed=0), batch_size=16):
        prediction = model(image, query)  # logit (B, K, A), and the attention of each layer (B, K, h, w)
        loss = answer_loss(prediction.logit, attribute)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    accuracy = MulticlassAccuracy(len(COLOURS), average="micro")
    looked = MetricCollection({"tpr": TruePositiveRatio(), "pointing": PointingGame(), "overlap": AttentionOverlap()})
    where = geometry(model)
    model.eval()
    with torch.inference_mode():
        for image, query, attribute, mask in DataLoader(Shapes(questions, seed=1), batch_size=50):
            prediction = model(image, query)
            accuracy.update(prediction.logit.flatten(0, 1), attribute.flatten())
            looked.update(pixel_maps(prediction, where)["activation"], mask)
    found = {"accuracy": accuracy.compute(), **looked.compute()}
    figures = {name: float(found[name]) for name in ("accuracy", "tpr", "pointing", "best_iou")}
    print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
