"""A small data set of one's own, for the examples beside it: three shapes in a picture; what colour is the disc?"""

import torch
from torch import Tensor
from torch.utils.data import Dataset

SHAPES, COLOURS = ("square", "disc", "cross"), ("red", "green", "blue")
SIDE = 64  # pixels


def shape(name: str) -> Tensor:
    """A shape's pixels: (13, 13) bool."""
    y, x = torch.meshgrid(torch.arange(-6, 7), torch.arange(-6, 7), indexing="ij")
    drawn = {"square": x.abs() < 9, "disc": x**2 + y**2 <= 36, "cross": (x.abs() < 2) | (y.abs() < 2)}
    return drawn[name]


class Shapes(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Pictures with one question about each of their three shapes.

    Item i: image (3, S, S) float32 in [0, 1], query ids (3,), attribute ids (3,), masks (3, S, S) bool.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
        image = torch.rand(3, SIDE, SIDE, generator=random) * 0.3
        masks = torch.zeros(len(SHAPES), SIDE, SIDE, dtype=torch.bool)
        colour = torch.randint(len(COLOURS), (len(SHAPES),), generator=random)
        quarters = torch.randperm(4, generator=random)  # so that none covers another
        for query, name in enumerate(SHAPES):
            corner = torch.randint(4, 16, (2,), generator=random)
            y, x = (corner + torch.tensor([quarters[query] // 2, quarters[query] % 2]) * (SIDE // 2)).tolist()
            masks[query, y : y + 13, x : x + 13] = shape(name)
            image[:, masks[query]] = 0.1
            image[colour[query], masks[query]] = 0.9
        return image, torch.arange(len(SHAPES)), colour, masks
