"""A training's attention pictures, for TensorBoard to show beside its curves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from progressive_attention.data.questions import QuestionSet
from progressive_attention.files import read_json
from progressive_attention.pages.answer_plots import answer_figure
from progressive_attention.predict.predictor import Predictor


def attention_pictures(run: Path, questions: QuestionSet, count: int = 3) -> Callable[[int], dict[str, bytes]]:
    """What draws, after an epoch that is the best so far, the network's answers about ``count`` images, as PNG files.

    It is asked the first question of each. To be given to ``TensorBoardLog``.
    """
    _, rows = np.unique(questions.image, return_index=True)

    def draw(epoch: int) -> dict[str, bytes]:
        if read_json(run / "config.json")["best"]["epoch"] != epoch:
            return {}
        predictor = Predictor(run, "cpu")
        answers = [
            predictor.ask(questions.images[questions.image[row : row + 1]][0], questions.words(row)[0])
            for row in rows[:count].tolist()
        ]
        return {f"attention/{number}": answer_figure(answer) for number, answer in enumerate(answers, 1)}

    return draw
