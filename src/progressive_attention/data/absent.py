"""Questions about what is not in the picture: which there are, and how a data set marks them.

Wherever a set has them, in a manifest too, their attribute is ``ABSENT``; a network that learns from them learns that
answer as any other. Legend: R rows (questions), Q queries.
"""

from collections.abc import Mapping

import numpy as np

ABSENT = "absent"
NOWHERE = 255  # as an owner map's value: that of no pixel


def absent_questions(image: np.ndarray, query: np.ndarray, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each image that is asked about, the queries 0..``queries`` - 1 that nothing in it answers to.

    ``image``, ``query`` (R,) int64, all that is there -> image and query (R',) int64, in this order.
    """
    asked, row = np.unique(image, return_inverse=True)
    there = np.zeros((len(asked), queries), bool)
    there[row, query] = True
    place, missing = np.nonzero(~there)
    return asked[place], missing


def one_each(image: np.ndarray) -> np.ndarray:
    """One row of each image: (R,) int64, sorted -> (R,) bool. Of n rows the image's number modulo n.

    A scene's number tells nothing of its digits, so each row is as likely as another, without a random draw.
    """
    number, first, rows = np.unique(image, return_index=True, return_counts=True)
    chosen = np.zeros(len(image), bool)
    chosen[first + number % rows] = True
    return chosen


def with_absent(columns: Mapping[str, np.ndarray], queries: int, attribute: int) -> dict[str, np.ndarray]:
    """The columns of all digits of some scenes (``synthetic.rows_of``), then those of the digits they lack.

    ``attribute`` is the id of ``ABSENT``; scale and box are NaN, the mask is empty; ``asked`` is one a scene.
    """
    image, query = absent_questions(columns["image"], columns["query"], queries)
    count = len(image)
    more = {
        "image": image,
        "query": query,
        "attribute": np.full(count, attribute),
        "scale": np.full(count, np.nan),
        "box": np.full((count, 4), np.nan),
        "label": np.full(count, NOWHERE, np.uint8),
        "asked": one_each(image),
    }
    return {name: np.concatenate([columns[name], values]) for name, values in more.items()}
