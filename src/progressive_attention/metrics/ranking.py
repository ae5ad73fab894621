"""How well attributes are ranked when several may hold: PASCAL VOC's AP, and all figures of many rows.

A label is 1 (positive), 0 (negative) or -1 (unknown, VOC's "difficult": left out, not a negative). A score is the
log-odds of an attribute, in float64: a float32 probability is 1.0 from log-odds of 16.6 on, and what is equal has no
order. Equal scores enter together, at one threshold, so that no order of the rows matters.
Legend: R rows (an object of an image each), A attributes, T distinct scores of positives.
"""

import tempfile
import weakref
from collections.abc import Callable
from io import BytesIO
from shutil import copyfileobj
from typing import IO, Any, NamedTuple

import numpy as np

from progressive_attention.metrics.vaw import LabelCounts, as_labelled, frequency_groups, label_counts

MEMORY = 2**27  # bytes of scores that stay in memory, before the file


class PrecisionRecall(NamedTuple):
    """Counts at each distinct score of a positive, from the highest down; all else follows from them.

    Thresholds between them would lose precision and win no recall. All APs are in [0, 1], NaN without positives.
    """

    true_positive: np.ndarray  # (T,) int64, rising: positives that score at least this; the last is all of them
    false_positive: np.ndarray  # (T,) int64: negatives that do

    @property
    def precision(self) -> np.ndarray:
        """(T,) in (0, 1]."""
        return self.true_positive / (self.true_positive + self.false_positive)

    @property
    def interpolated(self) -> np.ndarray:
        """The highest precision at this recall or any greater one: (T,) in (0, 1]. VOC's p_interp."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    @property
    def eleven_point_ap(self) -> float:
        """Mean interpolated precision at recalls 0, 0.1, ..., 1: VOC 2007. Everingham et al., IJCV 2010, 4.2."""
        if not len(self.true_positive):
            return np.nan
        # In whole numbers, since 3 * 0.1 > 0.3.
        reached = np.searchsorted(10 * self.true_positive, np.arange(11) * self.true_positive[-1])
        return float(self.interpolated[reached].mean())

    @property
    def all_point_ap(self) -> float:
        """Area under the interpolated precision over recall. VOC 2010 development kit, section 3.4.1, and later."""
        return self._area_under(self.interpolated)

    @property
    def average_precision(self) -> float:
        """Area under the precision as it is, Σ (R_t − R_{t−1}) P_t: scikit-learn's average_precision_score."""
        return self._area_under(self.precision)

    def _area_under(self, precision: np.ndarray) -> float:
        if not len(precision):
            return np.nan
        found = np.diff(self.true_positive, prepend=0)
        return float((found * precision).sum() / self.true_positive[-1])


def precision_recall(score: np.ndarray, label: np.ndarray) -> PrecisionRecall:
    """One attribute's curve: (R,) scores, (R,) labels 1, 0 or -1 -> counts, from which the APs follow.

    Of equal scores negatives come first (VOC's kit takes them as they lie). ValueError for other shapes, NaN, labels.
    """
    score, label = as_labelled(score, label, 1)
    return curve(score[label == 1], score[label == 0])


def curve(positive: np.ndarray, negative: np.ndarray) -> PrecisionRecall:
    """The scores of positives and those of negatives, without NaN, in any order and number -> counts."""
    threshold, tied = np.unique(positive, return_counts=True)
    rivals = np.sort(negative[negative >= positive.min(initial=np.inf)])
    at_least = len(rivals) - np.searchsorted(rivals, threshold)
    return PrecisionRecall(tied[::-1].cumsum(), at_least[::-1])


def mean_over_attributes(values: np.ndarray, frequency: np.ndarray | None = None) -> float:
    """Mean of (A,) values, NaN left out; NaN if none is left. Of APs it is the mAP.

    ``frequency`` (A,) >= 0, the attributes' positive labels in the test set, weights them as in PAN's table 2 (section
    4.2). Raises ValueError for other shapes, or frequencies below 0 or not finite.
    """
    values = np.asarray(values, np.float64)
    weight = np.ones(values.shape) if frequency is None else np.asarray(frequency, np.float64)
    if values.ndim != 1 or values.shape != weight.shape:
        raise ValueError(f"values and frequency must have one shape (A,), got {values.shape} and {weight.shape}")
    if not ((weight >= 0) & (weight < np.inf)).all():
        raise ValueError(f"frequency must be counts >= 0, got values from {weight.min()} to {weight.max()}")
    known = ~np.isnan(values)
    total = weight[known].sum()
    return float((weight * values)[known].sum() / total) if total else np.nan


class AttributeScores(NamedTuple):
    """Each attribute's figures: (A,) float64 in [0, 1], NaN where there is nothing to measure."""

    eleven_point_ap: np.ndarray
    all_point_ap: np.ndarray
    average_precision: np.ndarray  # VAW's mAP is the mean of scikit-learn's
    counts: LabelCounts

    def summary(self, train_count: np.ndarray | None = None) -> dict[str, Any]:
        """Means over attributes, those without the labels they need left out; None where none is left.

        ``train_count`` (A,), the attributes' positive training labels, adds VAW's metrics of head, medium and tail.
        Raises ValueError where it has another shape.
        """
        frequency = self.counts.positive
        groups = {"": np.ones(len(frequency), np.bool_)}
        if train_count is not None:
            if np.shape(train_count) != frequency.shape:
                raise ValueError(f"train_count must have shape {frequency.shape}, got {np.shape(train_count)}")
            groups |= {f"_{name}": group for name, group in frequency_groups(train_count).items()}
        figures: dict[str, float] = {}
        for name, ap in (("mean_ap", self.eleven_point_ap), ("mean_ap_all_point", self.all_point_ap)):
            figures[name] = mean_over_attributes(ap)
            figures[f"weighted_{name}"] = mean_over_attributes(ap, frequency)
        for name, group in groups.items():
            counts = self.counts.of(group)
            figures[f"vaw_map{name}"] = mean_over_attributes(self.average_precision[group])
            figures[f"vaw_ma{name}"] = mean_over_attributes(counts.balanced_accuracy)
            figures[f"vaw_mr15{name}"] = mean_over_attributes(counts.recall_at_15)
            figures[f"vaw_f1_15{name}"] = counts.f1_at_15
        return {
            **{name: None if np.isnan(value) else value for name, value in figures.items()},
            "attributes_without_positives": int((frequency == 0).sum()),
            "attributes_without_negatives": int((self.counts.negative == 0).sum()),
        }


class RankingScores:
    """Scores of many rows, batch by batch: exact figures in bounded memory, the same to the last bit in any order.

    Every labelled score is kept, float64, in a temporary file that vanishes with the object.
    """

    def __init__(self, num_attributes: int) -> None:
        self.counts = LabelCounts(*np.zeros((len(LabelCounts._fields), num_attributes), np.int64))
        self.file = tempfile.SpooledTemporaryFile(MEMORY)  # noqa: SIM115 (it lives as long as this object)
        # Of each batch its first byte, and how many scores stand before each part, the positives attribute by attribute
        # and then the negatives, and in all: (2 A + 1,).
        self.blocks: list[tuple[int, np.ndarray]] = []
        weakref.finalize(self, self.file.close)

    @property
    def num_attributes(self) -> int:
        """A."""
        return len(self.counts.positive)

    def add(self, score: np.ndarray, label: np.ndarray) -> None:
        """Rows (R, A) of log-odds, labels (R, A) 1, 0 or -1; ValueError for others, OSError when the disk is full."""
        score, label = as_labelled(score, label, 2)
        if score.shape[1] != self.num_attributes:
            raise ValueError(f"score must have {self.num_attributes} attributes, got {score.shape[1]}")
        known = label.T == 1, label.T == 0
        ends = np.concatenate([[0], *(chosen.sum(1) for chosen in known)]).cumsum()
        start = self._append(BytesIO(b"".join(score.T[chosen].tobytes() for chosen in known)))
        self.blocks.append((start, ends))
        self.counts = self.counts.plus(label_counts(score, label))

    def merge(self, other: "RankingScores") -> None:
        """Take in the rows that another one has now; raises ValueError if it has other attributes."""
        if other.num_attributes != self.num_attributes:
            raise ValueError(f"both must have {self.num_attributes} attributes, got {other.num_attributes}")
        other.file.seek(0)
        shift = self._append(other.file)
        self.blocks += [(shift + start, ends) for start, ends in other.blocks]
        self.counts = self.counts.plus(other.counts)

    def per_attribute(self, everyones: Callable[[Any], list[Any]] = lambda ours: [ours]) -> AttributeScores:
        """Every attribute's figures; reads all scores, one attribute at a time.

        ``everyones`` turns what this process has into what all have (``processes.gathered``): then those of all rows.
        """
        counts = LabelCounts(*np.sum(everyones(self.counts), 0))
        aps = np.full((3, self.num_attributes), np.nan)
        for attribute in range(self.num_attributes):
            parts = everyones((self._scores(attribute), self._scores(self.num_attributes + attribute)))
            ranked = curve(*(np.concatenate(part) for part in zip(*parts, strict=True)))
            aps[:, attribute] = ranked.eleven_point_ap, ranked.all_point_ap, ranked.average_precision
        return AttributeScores(aps[0], aps[1], aps[2], counts)

    def summary(self, train_count: np.ndarray | None = None) -> dict[str, Any]:
        """``AttributeScores.summary`` of all rows so far."""
        return self.per_attribute().summary(train_count)

    def _append(self, scores: IO[bytes]) -> int:
        start = self.file.seek(0, 2)
        try:
            copyfileobj(scores, self.file)
            self.file.flush()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise OSError(f"{folder} can't hold the scores ({error}); free some space or set TMPDIR") from error
        return start

    def _scores(self, part: int) -> np.ndarray:
        parts = [np.zeros(0)]
        for start, ends in self.blocks:
            first, last = (int(end) for end in ends[part : part + 2])
            self.file.seek(start + 8 * first)
            parts.append(np.frombuffer(self.file.read(8 * (last - first)), count=last - first))
        return np.concatenate(parts)
