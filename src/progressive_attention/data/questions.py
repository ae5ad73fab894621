"""Images with questions: the one form in which training, evaluation and prediction see any data set.

Legend: N images, R rows (one question each), A attributes, H x W pixels.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from progressive_attention.data.images import Fit

ABSENT = "absent"  # the attribute of questions about what is not in the image, in every data set that has them
SAMPLED = 16  # images whose pixels identify a set
Masks = Any  # gives the target masks of rows (n,) as (n, H, W) bool: an array, or a class below or in images
Images = Any  # gives images (n,) as (n, H, W, 3) uint8, with an array's shape, dtype and nbytes: an array or FileImages


@dataclass(frozen=True)
class Labels:
    """Any number of attributes a row, kept as what is known: of row r those from ``start[r]`` to ``start[r + 1]``.

    ``start`` (R + 1,) int64; ``attribute`` ids, each once a row, and ``value`` (1 is true, 0 is not), both (P,);
    ``unlisted`` is what the others are: 0, or -1 where they are unknown. ``labels[rows]`` gives (n, A) int8.
    """

    start: np.ndarray
    attribute: np.ndarray
    value: np.ndarray
    num_attributes: int
    unlisted: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(R, A)."""
        return len(self.start) - 1, self.num_attributes

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        some = self.rows(rows)
        labels = np.full(some.shape, self.unlisted, np.int8)
        labels[np.repeat(np.arange(len(rows)), np.diff(some.start)), some.attribute] = some.value
        return labels

    @property
    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each attribute, how many labels are true and how many are known: (A,) int64 each."""
        positive = np.bincount(self.attribute[self.value == 1], minlength=self.num_attributes)
        if self.unlisted == 0:
            return positive, np.full(self.num_attributes, len(self.start) - 1)
        return positive, np.bincount(self.attribute, minlength=self.num_attributes)

    def rows(self, rows: np.ndarray) -> "Labels":
        """The labels of only these rows, in this order."""
        counts = self.start[rows + 1] - self.start[rows]
        start = np.concatenate([[0], counts.cumsum()])
        place = np.arange(start[-1]) + np.repeat(self.start[rows] - start[:-1], counts)
        return replace(self, start=start, attribute=self.attribute[place], value=self.value[place])

    def where(self, kept: np.ndarray) -> "Labels":
        """Only what is kept of what is known, (P,) bool."""
        start = np.concatenate([[0], kept.cumsum()])[self.start]
        return replace(self, start=start, attribute=self.attribute[kept], value=self.value[kept])

    def in_ids(self, table: np.ndarray, num_attributes: int) -> "Labels":
        """The same labels with attribute i called ``table[i]`` of ``num_attributes``."""
        return replace(self, attribute=table[self.attribute], num_attributes=num_attributes)


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
class RowsOfMasks:
    """Some rows of another mask source."""

    masks: Masks
    chosen: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.masks[self.chosen[rows]]

    def read(self, rows: np.ndarray, fits: Iterable[Fit]) -> np.ndarray:
        """As that of masks in files."""
        return self.masks.read(self.chosen[rows], fits)


@dataclass(frozen=True)
class QuestionSet:
    """Questions about images, with their answers and, where known, masks, boxes and scales.

    ``images`` (N, H, W, 3) uint8, possibly a memory map or files; ``image``, ``query`` (R,) int64; ``attribute`` (R,)
    int64 where exactly one is true, else ``Labels``; ``scale`` (R,) float64, NaN where unknown; ``box`` (R, 4) x0 y0
    x1 y1 in pixels, half open, NaN where unknown; ``masks[rows]`` bool, and ``void[rows]`` bool for pixels that count
    neither as target nor as its surroundings. ``synonyms`` has other words for a query, the most likely first, for
    networks that don't know it. Raises ValueError for wrong shapes and for ids without a name.
    """

    name: str
    images: Images
    image: np.ndarray
    query: np.ndarray
    attribute: np.ndarray | Labels
    query_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    scale: np.ndarray | None = None
    box: np.ndarray | None = None
    masks: Masks | None = field(default=None, repr=False)
    void: Masks | None = field(default=None, repr=False)
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        images, rows = self.images, len(self.image)
        if len(images.shape) != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"{self.name}: images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
        limits = {"image": len(images), "query": len(self.query_names), "attribute": len(self.attribute_names)}
        for column, limit in limits.items():
            values = getattr(self, column)
            shape = (rows, limit) if isinstance(values, Labels) else (rows,)
            if values.shape != shape:
                raise ValueError(f"{self.name}: {column} must be {shape}, got {values.shape}")
            if rows and not isinstance(values, Labels) and not 0 <= values.min() <= values.max() < limit:
                got = f"{values.min()}..{values.max()}"
                raise ValueError(f"{self.name}: {column} ids must be in 0..{limit - 1}, got {got}")

    def __len__(self) -> int:
        return len(self.query)

    @property
    def likelihood(self) -> Literal["softmax", "bernoulli"]:
        """What an answer is: one of all attributes, or each by itself."""
        return "bernoulli" if isinstance(self.attribute, Labels) else "softmax"

    def words(self, row: int) -> tuple[str, list[str]]:
        """A row's query and the attributes that are true."""
        answer = self.attribute[np.array([row])][0]
        true = np.flatnonzero(answer == 1) if isinstance(self.attribute, Labels) else [answer]
        return self.query_names[self.query[row]], [self.attribute_names[i] for i in true]

    def rows(self, rows: np.ndarray) -> "QuestionSet":
        """The same images with only these questions, in this order; by row numbers or a (R,) bool array."""
        rows = np.arange(len(self))[rows]
        some: dict[str, Any] = {}
        for name in ("image", "query", "attribute", "scale", "box", "masks", "void"):
            if (values := getattr(self, name)) is not None:
                some[name] = chosen(values, rows)
        return replace(self, **some)

    def groups(self, together: bool) -> list[np.ndarray]:
        """Rows to ask in one go: all questions of an image together, or each row by itself."""
        if not together or not len(self):
            return list(np.arange(len(self))[:, None])
        order = np.argsort(self.image, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.image[order])) + 1)


def chosen(values: Any, rows: np.ndarray) -> Any:
    """Some rows of a column, of labels, or of masks, which are not read yet."""
    if isinstance(values, Labels):
        return values.rows(rows)
    return values[rows] if isinstance(values, np.ndarray) and values.ndim < 3 else RowsOfMasks(values, rows)


def fingerprint_of(questions: QuestionSet) -> str:
    """A hash of rows, words and image names, the same everywhere.

    Images in memory have no names: of those the pixels of at most SAMPLED, evenly spaced.
    """
    answers, images = questions.attribute, questions.images
    labels = [answers.start, answers.attribute, answers.value] if isinstance(answers, Labels) else [answers]
    places = [values for values in (questions.scale, questions.box) if values is not None]
    pixels = [images[:: -(-len(images) // SAMPLED) or 1]] if isinstance(images, np.ndarray) else []
    digest = sha256()
    for values in (questions.image, questions.query, *labels, *places, *pixels):
        digest.update(np.ascontiguousarray(values).tobytes())
    paths = getattr(images, "paths", None)
    words = [questions.query_names, questions.attribute_names, None if paths is None else list(paths)]
    digest.update(json.dumps(words).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Batch:
    """B images with up to K questions each; -1 where an image has fewer than K."""

    image: np.ndarray  # (B,) int64, which images of the set
    query: np.ndarray  # (B, K) int64
    attribute: np.ndarray  # (B, K) int64; or of labels (B, K, A) int8, -1 = unknown, too
    row: np.ndarray  # (B, K) int64
    place: tuple[Fit, ...] | None = None  # of augmented images: where each of the B lies

    def without(self, images: np.ndarray) -> "Batch":
        """The same, with nothing asked about some of its images, (B,) bool."""
        columns = {name: getattr(self, name).copy() for name in ("query", "attribute", "row")}
        for values in columns.values():
            values[images] = -1
        return replace(self, **columns)


def make_batch(questions: QuestionSet, groups: Sequence[np.ndarray]) -> Batch:
    """Put groups of rows (each of one image) side by side, padded with -1; of no groups a batch of no images."""
    row = np.full((len(groups), max(map(len, groups), default=1)), -1)
    for i, group in enumerate(groups):
        row[i, : len(group)] = group
    asked = row >= 0
    if isinstance(questions.attribute, Labels):
        attribute = np.full((*row.shape, questions.attribute.num_attributes), -1, np.int8)
        attribute[asked] = questions.attribute[row[asked]]
    else:
        attribute = np.where(asked, questions.attribute[row], -1)
    return Batch(questions.image[row[:, 0]], np.where(asked, questions.query[row], -1), attribute, row)


def batches(questions: QuestionSet, groups: Sequence[np.ndarray], order: np.ndarray, size: int) -> Iterator[Batch]:
    """Batches of ``size`` groups in the given order; the last one may be smaller."""
    for start in range(0, len(order), size):
        yield make_batch(questions, [groups[i] for i in order[start : start + size]])
