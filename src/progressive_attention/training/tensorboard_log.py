"""What a training tells its watcher, as curves and pictures for TensorBoard, beside the run's own log.jsonl."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from progressive_attention.data.questions import QuestionSet
from progressive_attention.files import read_json
from progressive_attention.pages.plots import answer_figure
from progressive_attention.predict.predictor import Predictor
from progressive_attention.training.loop import Progress
from progressive_attention.training.step_log import StepLog

Pictures = Callable[[int], Mapping[str, bytes]]


def summary_writer() -> Callable[[str], Any]:
    """TensorBoard's writer, as torch has it; raises ValueError where TensorBoard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard is not installed; pip install 'progressive-attention[tensorboard]'") from error
    return SummaryWriter


class TensorBoardLog(StepLog):
    """Points and pictures in ``folder``; ``pictures`` gives PNG files by tag for an epoch that has just ended
    (``attention_pictures``). Raises ValueError where TensorBoard is missing.
    """

    def __init__(self, folder: Path, pictures: Pictures | None = None) -> None:
        super().__init__()
        self.folder, self.pictures, self.open = folder, pictures, summary_writer()
        self.writer: Any = None

    def write(self, points: Mapping[str, float], progress: Progress) -> None:
        if self.writer is None:
            self.writer = self.open(str(self.folder))
        for tag, value in points.items():
            self.writer.add_scalar(tag, value, progress.step)
        drawn = self.pictures(progress.epoch) if progress.record and self.pictures else {}
        for tag, picture in drawn.items():
            pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            self.writer.add_image(tag, pixels, progress.step, dataformats="HWC")
        self.writer.flush()

    def begin(self, step: int) -> int:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        last = -1
        for path in sorted(self.folder.glob("events.out.tfevents.*")):
            if step == 1:
                path.unlink()
            else:
                last = max(last, *(event.step for event in EventFileLoader(str(path)).Load()), -1)
        return last

    def close(self) -> None:
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
