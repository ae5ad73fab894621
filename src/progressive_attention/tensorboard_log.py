"""What a training tells its watcher, as curves and pictures for TensorBoard, beside the run's own log.jsonl."""

import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from progressive_attention.data.questions import QuestionSet
from progressive_attention.files import read_json
from progressive_attention.model_card import VALIDATION
from progressive_attention.plots import answer_figure
from progressive_attention.predictor import Predictor
from progressive_attention.training import Progress

Pictures = Callable[[int], Mapping[str, bytes]]


def summary_writer() -> Callable[[str], Any]:
    """TensorBoard's writer, as torch has it; raises ValueError where TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard is not installed; pip install 'progressive-attention[tensorboard]'") from error
    return SummaryWriter


class TensorBoardLog:
    """Give it to ``fit`` as ``watch``; every step becomes points in ``folder``, each written once.

    Tags: ``train/loss`` of each step, ``train/learning_rate``, ``train/questions_per_second``; at each epoch's end its
    mean loss, ``epoch/loss``, and its validation score, e.g. ``epoch/validation_accuracy``. ``pictures`` gives PNG
    files by tag for an epoch that has just ended (``attention_pictures``).

    An interrupted run may do steps again: these are the same steps, so what ``folder`` has of them stays. Of a run that
    starts anew nothing older stays there. Raises ValueError where TensorBoard is missing.
    """

    def __init__(self, folder: Path, pictures: Pictures | None = None) -> None:
        self.folder, self.pictures, self.open = folder, pictures, summary_writer()
        self.writer: Any = None
        self.written = -1  # the last step that the folder has
        self.since: float | None = None  # when the last step ended, None where something else came between

    def __call__(self, progress: Progress) -> None:
        """Write a step's points, if the folder has not got them, and let them reach the disk."""
        if self.writer is None:
            self.written = self.begin(progress.step)
            self.writer = self.open(str(self.folder))  # only now: a training that is refused leaves nothing
        now = time.perf_counter()
        points = {"train/loss": progress.step_loss, "train/learning_rate": progress.learning_rate}
        if self.since is not None:
            points["train/questions_per_second"] = progress.questions / (now - self.since)
        record = progress.record or {}
        points |= {f"epoch/{name}": value for name, value in record.items() if name in ("loss", *VALIDATION)}
        if progress.step > self.written:
            for tag, value in points.items():
                if not math.isnan(value):
                    self.writer.add_scalar(tag, value, progress.step)
            for tag, picture in (self.pictures(progress.epoch) if record and self.pictures else {}).items():
                pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
                self.writer.add_image(tag, pixels, progress.step, dataformats="HWC")
            self.writer.flush()
            self.written = progress.step
        self.since = None if record else time.perf_counter()  # a validation is no part of the next step

    def begin(self, step: int) -> int:
        """The last step in the folder, -1 if there is none; of a run that begins at ``step`` 1 all is taken away."""
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        last = -1
        for path in sorted(self.folder.glob("events.out.tfevents.*")):
            if step == 1:
                path.unlink()
            else:
                last = max(last, *(event.step for event in EventFileLoader(str(path)).Load()), -1)
        return last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()


def attention_pictures(run: Path, questions: QuestionSet, count: int = 3) -> Pictures:
    """What draws, after an epoch that is the best so far, the network's answers about ``count`` images.

    It is asked the first question of each.
    """
    _, rows = np.unique(questions.image, return_index=True)

    def drawn(epoch: int) -> dict[str, bytes]:
        if read_json(run / "config.json")["best"]["epoch"] != epoch:
            return {}
        predictor = Predictor(run, "cpu")
        answers = [
            predictor.ask(questions.images[questions.image[row : row + 1]][0], questions.words(row)[0])
            for row in rows[:count].tolist()
        ]
        return {f"attention/{number}": answer_figure(answer) for number, answer in enumerate(answers, 1)}

    return drawn
