"""What a training reports, as curves and pictures for TensorBoard, beside the run's own log.jsonl."""

import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from progressive_attention.saved.model_card import VALIDATION
from progressive_attention.training.loop import Progress

Pictures = Callable[[int], Mapping[str, bytes]]
"""An epoch that has just ended, counted from 1 -> PNG files by tag."""


class TensorBoardLog:
    """Give it to ``fit`` as ``watch``: points of every step in ``folder``, and what ``pictures`` draws at epochs' ends.

    Tags: ``train/loss`` of each step, ``train/learning_rate``, ``train/questions_per_second``; at each epoch's end its
    mean loss, ``epoch/loss``, and its validation score, e.g. ``epoch/validation_accuracy``. TensorBoard forgets older
    points from the first step on that is written: an interrupted run may do steps again. Raises ValueError where
    TensorBoard is missing. A training that stops before its first step leaves nothing.
    """

    def __init__(self, folder: Path, pictures: Pictures | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            remedy = "pip install 'progressive-attention[tensorboard]'"
            raise ValueError(f"tensorboard is not installed; {remedy}") from error
        self.folder, self.pictures, self.open = folder, pictures, SummaryWriter
        self.writer: Any = None
        self.since: float | None = None  # when the last step ended, None where something else came between

    def __call__(self, progress: Progress) -> None:
        """Write a step's points."""
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=progress.step)
        record = progress.record or {}
        points = {"train/loss": progress.step_loss, "train/learning_rate": progress.learning_rate}
        if self.since is not None:
            points["train/questions_per_second"] = progress.questions / (time.perf_counter() - self.since)
        points |= {f"epoch/{name}": value for name, value in record.items() if name in ("loss", *VALIDATION)}
        for tag, value in points.items():
            if not math.isnan(value):  # of a step that asked nothing
                self.writer.add_scalar(tag, value, progress.step)
        drawn = self.pictures(progress.epoch) if record and self.pictures else {}
        for tag, picture in drawn.items():
            pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            self.writer.add_image(tag, pixels, progress.step, dataformats="HWC")
        self.writer.flush()
        self.since = None if record else time.perf_counter()  # a validation is no part of the next step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()
