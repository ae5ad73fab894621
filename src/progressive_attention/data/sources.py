"""``--data`` everywhere: a synthetic set's name, a folder with a manifest, or an .npz file."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from progressive_attention.config import PROTOCOLS, STYLES
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.npz import from_npz
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.scene_cache import synthetic


def load_questions(
    data: str | Path,
    split: str | None = None,
    *,
    protocol: str = PROTOCOLS[0],
    queries: str = "one",
    seed: int = 0,
    images: int | None = None,
    image_size: int = 100,
    absent: bool = False,
    backgrounds: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> QuestionSet:
    """One split of ``mref``, ``mdist`` or ``mbg`` (see ``synthetic``), of a manifest folder, or of an .npz.

    ``queries``, ``absent`` and ``images`` (30,000) concern the synthetic sets only: in the user's data every row is
    asked. Of a folder ``split`` may be several, ``"train,validation"``. Without ``split``: the test split of a set or
    folder, and the whole of an .npz. ``image_size`` is the side to which a folder's images are fitted. Raises
    ValueError naming what is known, and for what says how scenes are drawn where none are.
    """
    if data in STYLES:
        return synthetic(
            str(data),
            split or "test",
            protocol=protocol,
            queries=queries,
            seed=seed,
            images=30_000 if images is None else images,
            absent=absent,
            backgrounds=backgrounds,
            progress=progress,
        )
    path = Path(data)
    if not path.is_dir() and path.suffix != ".npz":
        known = f"{', '.join(STYLES)}, a folder with a manifest, or an .npz file"
        raise ValueError(f"unknown data {str(data)!r}; known: {known}")
    drawn = {"images": images is not None, "backgrounds": backgrounds is not None, "protocol": protocol != PROTOCOLS[0]}
    if any(drawn.values()):
        names = ", ".join(name for name, given in drawn.items() if given)
        raise ValueError(f"{names}: only for scenes that are drawn ({', '.join(STYLES)}), not for {data}; leave it out")
    return from_folder(path, split or "test", image_size) if path.is_dir() else from_npz(path, split)


def known_words(questions: QuestionSet, query_names: Collection[str]) -> dict[str, str]:
    """Query -> the word by which a network that knows ``query_names`` is asked for it: itself, or its first synonym.

    Queries without such a word are left out.
    """
    words = {}
    for query in questions.query_names:
        known = [word for word in (query, *questions.synonyms.get(query, ())) if word in query_names]
        if known:
            words[query] = known[0]
    return words


def unknown_queries(questions: QuestionSet, query_names: Collection[str]) -> list[str]:
    """The queries for which a network that knows ``query_names`` has no word."""
    words = known_words(questions, query_names)
    return [query for query in questions.query_names if query not in words]


def in_words_of(questions: QuestionSet, query_names: tuple[str, ...], attribute_names: tuple[str, ...]) -> QuestionSet:
    """The same questions with a trained network's ids; raises ValueError for words that it never learnt."""
    changes = {}
    for column, names in (("query", query_names), ("attribute", attribute_names)):
        ids, words = getattr(questions, column), getattr(questions, f"{column}_names")
        used = [words[i] for i in np.unique(ids.attribute if isinstance(ids, Labels) else ids)]
        if unknown := [word for word in used if word not in names]:
            raise ValueError(f"{questions.name}: unknown {column} {unknown}; this network knows: {', '.join(names)}")
        table = np.array([names.index(word) if word in names else -1 for word in words], np.int64)
        changes[column] = ids.in_ids(table, len(names)) if isinstance(ids, Labels) else table[ids]
        changes[f"{column}_names"] = names
    return replace(questions, **changes)
