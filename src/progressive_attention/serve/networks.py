"""The networks of the page: which there are, how pictures of strangers are read, and what is asked of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from progressive_attention.data.images import Fit, opened, to_rgb, upright
from progressive_attention.predict.predictor import Answer, Predictor
from progressive_attention.saved import weights
from progressive_attention.serve.panel import Asked

MOST_PIXELS = 16_000_000  # of a picture that is dropped: decoded it takes 64 MB, twice at most
LONGEST_QUERY = 100  # letters


class Networks:
    """Trained networks by name: those of ``given`` (shipped names and runs' folders), or all that ship.

    A run is named by its folder. Raises ValueError for weights that are missing or broken, and for two of one name.
    """

    def __init__(self, given: Sequence[str] = (), device: str | None = None) -> None:
        self.predictors: dict[str, Predictor] = {}
        for one in given or weights.shipped():
            name = Path(one).resolve().name
            if name in self.predictors:
                raise ValueError(f"two networks are named {name!r}; give each once, or rename one's folder")
            self.predictors[name] = Predictor(one, device)

    @property
    def names(self) -> list[str]:
        """In the order given."""
        return list(self.predictors)

    def ask(self, picture: Path | None, query: Any, name: Any) -> Asked:
        """One question about an image file; raises ValueError for whatever can't be answered, saying why."""
        name = str(name)
        if name not in self.predictors:
            raise ValueError(f"unknown network {shortened(name)!r}; here there are: {', '.join(self.names)}")
        if picture is None:
            raise ValueError("there is no picture; drop one, or draw a scene")
        predictor = self.predictors[name]
        query = "" if query is None else str(query).strip()
        if not query or len(query) > LONGEST_QUERY:
            known = ", ".join(predictor.trained.query_names)
            raise ValueError(f"expected a query of 1 to {LONGEST_QUERY} letters; this network knows: {known}")
        answer = predictor.ask(read_picture(picture, predictor.side), query)
        return Asked(name, str(predictor.trained.about.get("data", "")), answer)


def uploaded(sent: Any, folder: Path) -> Path | None:
    """The file that a request names as ``{"path": ...}``, None for no picture.

    Raises ValueError unless it lies in ``folder``: Gradio looks only if the request marks the path as a file's.
    """
    if sent is None:
        return None
    path = str(sent.get("path") or "") if isinstance(sent, dict) else ""
    if not inside(path, folder):
        raise ValueError("expected a picture that was uploaded in the last hour; upload it, then ask")
    return Path(path).resolve()


def inside(path: str, folder: Path) -> bool:
    """Whether a stranger's path is that of a file in a folder, links followed."""
    try:
        real = Path(path).resolve()
        return real.is_relative_to(folder.resolve()) and real.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def read_picture(path: Path, side: int) -> np.ndarray:
    """An image file as the network sees it, (side, side, 3) uint8; what is large lives no longer than here.

    Raises ValueError for others, and by its header for one of too many pixels. A large JPEG is decoded no larger than
    need be.
    """
    with opened(path, "the picture", MOST_PIXELS) as file:
        picture = to_rgb(upright(file, side))
    return Fit.into(side, *picture.size).image(picture)


def as_json(asked: Asked) -> dict[str, Any]:
    """What a script gets of an answer."""
    answer: Answer = asked.answer
    return {
        "weights": asked.network,
        "query": answer.query,
        "attribute": answer.attribute,
        "probability": answer.probability,
        "probabilities": answer.probabilities,
        "likelihood": answer.likelihood,
        "presence": answer.presence,
        "found": answer.found,
    }


def shortened(text: str) -> str:
    """A stranger's word, not too long to be told back."""
    return text if len(text) <= LONGEST_QUERY else text[:LONGEST_QUERY] + "…"
