"""Images with questions: the one form in which training, evaluation and prediction see any data set.

Legend: N images, R rows (one question each), H x W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np


class Masks(Protocol):
    """Anything that gives the target masks of some rows: an (R, H, W) bool array, a memory map, or owner maps."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """(n,) row indices -> (n, H, W) bool."""
        ...


@dataclass(frozen=True)
class OwnerMasks:
    """Masks of objects that never overlap, kept as one map an image: which object owns a pixel (0 = none).

    ``owner`` (N, H, W) uint8; ``image`` (R,) the row's image; ``label`` (R,) the row's value in that map.
    """

    owner: np.ndarray
    image: np.ndarray
    label: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.owner[self.image[rows]] == self.label[rows][:, None, None]


@dataclass(frozen=True)
class QuestionSet:
    """Questions about images, with their answers and, where known, masks, boxes and scales.

    ``images`` (N, H, W, 3) uint8, possibly a memory map; ``image``, ``query``, ``attribute`` (R,) int64;
    ``scale`` (R,) float64, NaN where unknown; ``box`` (R, 4) x0 y0 x1 y1 in pixels, half open; ``masks[rows]`` bool.
    """

    name: str
    images: np.ndarray
    image: np.ndarray
    query: np.ndarray
    attribute: np.ndarray
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    scale: np.ndarray | None = None
    box: np.ndarray | None = None
    masks: Masks | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        images = self.images
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"{self.name}: images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
        limits = {"image": len(images), "query": len(self.query_names), "attribute": len(self.attribute_names)}
        for column, limit in limits.items():
            values = getattr(self, column)
            if values.shape != self.image.shape or values.ndim != 1:
                raise ValueError(f"{self.name}: {column} must be ({len(self.image)},), got {values.shape}")
            if len(values) and not 0 <= values.min() <= values.max() < limit:
                raise ValueError(
                    f"{self.name}: {column} ids must be in 0..{limit - 1}, got {values.min()}..{values.max()}"
                )

    def __len__(self) -> int:
        return len(self.query)

    def rows(self, rows: np.ndarray) -> "QuestionSet":
        """The same images with only these questions, in this order; by row numbers or a (R,) bool array."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            image=self.image[rows],
            query=self.query[rows],
            attribute=self.attribute[rows],
            scale=None if self.scale is None else self.scale[rows],
            box=None if self.box is None else self.box[rows],
            masks=None if self.masks is None else RowsOfMasks(self.masks, rows),
        )

    def groups(self, together: bool) -> list[np.ndarray]:
        """Rows to ask in one go: all questions of an image together, or each row alone."""
        if not together:
            return list(np.arange(len(self))[:, None])
        order = np.argsort(self.image, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.image[order])) + 1) if len(order) else []


@dataclass(frozen=True)
class RowsOfMasks:
    """Some rows of another mask source."""

    masks: Masks
    chosen: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.masks[self.chosen[rows]]


@dataclass(frozen=True)
class Batch:
    """B images with up to K questions each; ``row`` (B, K) is -1 where an image has fewer than K questions."""

    image: np.ndarray  # (B,) int64, which images of the set
    query: np.ndarray  # (B, K) int64, -1 = no question
    attribute: np.ndarray  # (B, K) int64, -1 = no question
    row: np.ndarray  # (B, K) int64, -1 = no question


def make_batch(questions: QuestionSet, groups: list[np.ndarray]) -> Batch:
    """Put groups of rows (each of one image) side by side, padded with -1."""
    row = np.full((len(groups), max(map(len, groups))), -1)
    for i, group in enumerate(groups):
        row[i, : len(group)] = group
    image = questions.image[row[:, 0]]
    asked = row >= 0
    return Batch(image, np.where(asked, questions.query[row], -1), np.where(asked, questions.attribute[row], -1), row)


def batches(questions: QuestionSet, groups: list[np.ndarray], order: np.ndarray, size: int) -> Iterator[Batch]:
    """Batches of ``size`` groups in the given order; the last one may be smaller."""
    for start in range(0, len(order), size):
        yield make_batch(questions, [groups[i] for i in order[start : start + size]])
