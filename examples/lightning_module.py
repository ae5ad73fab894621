"""The network in Lightning: its trainer, its loggers, its checkpoints; attention metrics logged like any other.

pip install lightning
python examples/lightning_module.py --steps 300
"""

import argparse

import lightning
import torch
from shapes import COLOURS, SHAPES, SIDE, Shapes
from torch import Tensor
from torch.utils.data import DataLoader

from progressive_attention import build_model, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.modular import PointingGame, TruePositiveRatio
from progressive_attention.training.objectives import answer_loss

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # image, query, attribute, mask


class AttentionModule(lightning.LightningModule):
    """A network that answers, with its loss and what is measured of it."""

    def __init__(self, name: str = "pan-hard-ctx", rate: float = 0.003) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rate = rate
        self.network = build_model(name, num_queries=len(SHAPES), num_attributes=len(COLOURS), image_size=SIDE)
        self.where = geometry(self.network)
        self.tpr, self.pointing = TruePositiveRatio(), PointingGame()

    def training_step(self, batch: Batch) -> Tensor:
        image, query, attribute, _ = batch
        loss = answer_loss(self.network(image, query).logit, attribute)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Batch) -> None:
        image, query, attribute, mask = batch
        prediction = self.network(image, query)
        self.log("accuracy", (prediction.logit.argmax(-1) == attribute).float().mean())
        attention = pixel_maps(prediction, self.where)["activation"]
        for name, metric in (("tpr", self.tpr), ("pointing", self.pointing)):
            metric.update(attention, mask)
            self.log(name, metric)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.rate)


def main(steps: int = 300, questions: int = 300, **options: object) -> dict[str, float]:
    """Train, then measure on so many new pictures; ``options`` are the Trainer's."""
    lightning.seed_everything(0)
    trainer = lightning.Trainer(max_steps=steps, **options)
    module = AttentionModule()
    trainer.fit(module, DataLoader(Shapes(16 * steps, seed=0), batch_size=16))
    return dict(trainer.validate(module, DataLoader(Shapes(questions, seed=1), batch_size=50))[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
