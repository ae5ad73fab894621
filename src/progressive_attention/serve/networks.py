"""The networks of the page: which there are, how pictures of strangers are read, and what is asked of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from progressive_attention.data.images import opened, to_rgb, upright
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import shipped
from progressive_attention.serve.panel import Asked

MOST_PIXELS = 16_000_000  # of a picture that is dropped: decoded it takes 64 MB, twice at most
LONGEST_QUERY = 100  # letters


class Networks:
    """Trained networks by name: those of ``given`` (pretrained names and runs' folders), or all pretrained ones.

    A run is named by its folder. Raises ValueError for weights that are missing or broken, and for two of one name.
    """

    def __init__(self, given: Sequence[str] = (), device: str | None = None) -> None:
        self.predictors: dict[str, Predictor] = {}
        for path in given or shipped():
            name = Path(path).resolve().name
            if name in self.predictors:
                raise ValueError(f"two networks are named {name!r}; give each once, or rename one's folder")
            self.predictors[name] = Predictor(path, device)

    @property
    def names(self) -> list[str]:
        """In the order given."""
        return list(self.predictors)

    def ask(self, picture: Path | None, query: Any, name: Any) -> Asked:
        """One question about an image file; raises ValueError for whatever can't be answered, with the reason."""
        if str(name) not in self.predictors:
            raise ValueError(f"unknown network {str(name)[:LONGEST_QUERY]!r}; known: {', '.join(self.names)}")
        if picture is None:
            raise ValueError("there is no picture; drop one, or draw a scene")
        predictor = self.predictors[str(name)]
        query = "" if query is None else str(query).strip()
        if not query or len(query) > LONGEST_QUERY:
            known = ", ".join(predictor.trained.query_names)
            raise ValueError(f"expected a query of 1 to {LONGEST_QUERY} letters; this network knows: {known}")
        with opened(picture, "the picture", MOST_PIXELS) as file:
            image = to_rgb(upright(file))
        answer = predictor.ask(image, query)
        return Asked(str(name), str(predictor.trained.about.get("data", "")), answer)


def uploaded(sent: Any, folder: Path) -> Path | None:
    """The file that a request names as ``{"path": ...}``, None for no picture.

    Raises ValueError unless it lies in ``folder``, links followed: a request may name any path.
    """
    if sent is None:
        return None
    path = Path(str(sent.get("path") or "") if isinstance(sent, dict) else "")
    try:
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            return path.resolve()
    except (OSError, ValueError):  # too long, or with a zero byte
        pass
    raise ValueError("expected a picture that was uploaded in the last hour; upload it, then ask")


def as_json(asked: Asked) -> dict[str, Any]:
    """What a script gets of an answer; point and box are in pixels of the picture, as in ``pan predict --json``."""
    answer = asked.answer
    return {
        "weights": asked.network,
        "query": answer.query,
        "attribute": answer.attribute,
        "probability": answer.probability,
        "probabilities": answer.probabilities,
        "likelihood": answer.likelihood,
        "presence": answer.presence,
        "found": answer.found,
        "point": answer.point,
        "box": answer.box(),
    }
