"""What the tests of synthetic sets and of their cache share."""

from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from progressive_attention.data.questions import QuestionSet


def digest(questions: QuestionSet) -> str:
    """One hash of all that a set holds."""
    columns = (questions.image, questions.query, questions.attribute, questions.scale, questions.box)
    masks = questions.masks[np.arange(len(questions))]
    return sha256(b"".join(array.tobytes() for array in (questions.images, *columns, masks))).hexdigest()


def noise_photographs(folder: Path) -> Path:
    """Twelve small photographs of noise."""
    for i in range(12):
        noise = np.random.PCG64(i).random_raw(130 * 120 * 3).astype(np.uint8).reshape(130, 120, 3)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder
