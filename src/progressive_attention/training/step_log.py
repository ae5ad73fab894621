"""What a training tells its watcher, as points by tag, each written once whatever interrupts the run."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from progressive_attention.saved.model_card import VALIDATION
from progressive_attention.training.loop import Progress


class StepLog(ABC):
    """Give it to ``fit`` as ``watch``; every step becomes points somewhere, which a subclass tells.

    Tags: ``train/loss`` of each step, ``train/learning_rate``, ``train/questions_per_second``; at each epoch's end its
    mean loss, ``epoch/loss``, and its validation score, e.g. ``epoch/validation_accuracy``.

    An interrupted run may do steps again: these are the same steps, so what is there of them stays. Of a run that
    starts anew nothing older stays. A training that is refused leaves nothing.
    """

    def __init__(self) -> None:
        self.written: int | None = None  # the last step that is there, None before the first one
        self.since: float | None = None  # when the last step ended, None where something else came between

    def __call__(self, progress: Progress) -> None:
        """Write a step's points, if they are not there yet."""
        if self.written is None:
            self.written = self.begin(progress.step)
        now = time.perf_counter()
        points = {"train/loss": progress.step_loss, "train/learning_rate": progress.learning_rate}
        if self.since is not None:
            points["train/questions_per_second"] = progress.questions / (now - self.since)
        record = progress.record or {}
        points |= {f"epoch/{name}": value for name, value in record.items() if name in ("loss", *VALIDATION)}
        if progress.step > self.written:
            self.write({tag: value for tag, value in points.items() if not math.isnan(value)}, progress)
            self.written = progress.step
        self.since = None if record else time.perf_counter()  # a validation is no part of the next step

    @abstractmethod
    def begin(self, step: int) -> int:
        """The last step that is there, -1 if there is none; of a run that begins at ``step`` 1 all is taken away."""

    @abstractmethod
    def write(self, points: Mapping[str, float], progress: Progress) -> None:
        """Write the points of a step."""

    @abstractmethod
    def close(self) -> None:
        """Let all that was written be there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
