"""The networks of the page: which there are, how pictures of strangers are read, and what is asked of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from progressive_attention.data.images import opened, to_rgb, upright
from progressive_attention.predict.predictor import Predictor
from progressive_attention.saved import missing, pretrained
from progressive_attention.serve.panel import Asked

MOST_PIXELS = 16_000_000  # of a picture that is dropped: decoded it takes 64 MB, twice at most
LONGEST_QUERY = 100  # letters
KEYS = ("query", "attribute", "probability", "probabilities", "likelihood", "presence", "found", "point")


class Networks:
    """Trained networks by name: those of ``given`` (pretrained names and runs' folders), or all pretrained ones.

    Those that need what is not installed are left out of all. A run is named by its folder. Raises ValueError for
    weights that are missing or broken, and for two of one name.
    """

    def __init__(self, given: Sequence[str] = (), device: str | None = None) -> None:
        self.predictors: dict[str, Predictor] = {}
        for path in given or [name for name in pretrained() if not missing(name)]:
            name = Path(path).resolve().name
            if name in self.predictors:
                raise ValueError(f"two networks are named {name!r}; give each once, or rename one's folder")
            self.predictors[name] = Predictor(path, device)
        self.names = list(self.predictors)

    def words(self, name: str) -> tuple[str, ...]:
        """The queries that a network knows."""
        return self.predictors[name].trained.query_names

    def ask(self, sent: Any, folder: Path, query: Any, name: Any) -> Asked:
        """One question about a picture, ``sent`` as ``{"path": ...}``; raises ValueError for whatever can't be
        answered, with the reason, and for a picture that does not lie in ``folder``: a request may name any path.
        """
        name, query = str(name), "" if query is None else str(query).strip()
        if name not in self.predictors:
            raise ValueError(f"unknown network {name[:LONGEST_QUERY]!r}; known: {', '.join(self.names)}")
        if sent is None:
            raise ValueError("there is no picture; drop one, or draw a scene")
        predictor = self.predictors[name]
        if not query or len(query) > LONGEST_QUERY:
            known = ", ".join(self.words(name))
            raise ValueError(f"expected a query of 1 to {LONGEST_QUERY} letters; this network knows: {known}")
        with opened(uploaded(sent, folder), "the picture", MOST_PIXELS) as file:
            image = to_rgb(upright(file))
        return Asked(name, str(predictor.trained.about.get("data", "")), predictor.ask(image, query))


def uploaded(sent: Any, folder: Path) -> Path:
    """The file that a request names; raises ValueError unless it lies in ``folder``, links followed."""
    try:
        path = Path(str(sent["path"] or "")).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    except (TypeError, KeyError, OSError, ValueError):  # no path, too long, or with a zero byte
        pass
    raise ValueError("expected a picture that was uploaded in the last hour; upload it, then ask")


def as_json(asked: Asked) -> dict[str, Any]:
    """What a script gets of an answer; point and box are in pixels of the picture, as in ``pan predict --json``."""
    answer = {key: getattr(asked.answer, key) for key in KEYS}
    return {"weights": asked.network, **answer, "box": asked.answer.box()}
