"""MREF, MDIST and MBG as QuestionSets: rendered once, in parallel, into a cache on disk.

Legend: N images, R rows (one digit, so one question each).
"""

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from progressive_attention.config import checked, one_of
from progressive_attention.data.questions import ABSENT, OwnerMasks, QuestionSet
from progressive_attention.data.scenes import COLOURS, SIZE, Scene, SceneSource
from progressive_attention.files import temporary_for

RENDERER = 1  # raise it whenever a pixel or a row changes
CHUNK = 250  # scenes a worker renders before it reports
IN_PROCESS = 500  # fewer scenes are not worth starting workers
PIXELS = {"images": (SIZE, SIZE, 3), "owner": (SIZE, SIZE)}
NOWHERE = 255  # as a value of owner maps: that of no pixel
Progress = Callable[[int, int], None]
Columns = dict[str, np.ndarray]


def synthetic(
    style: str,
    split: str,
    *,
    protocol: str = "paper",
    queries: str = "one",
    seed: int = 0,
    images: int = 30_000,
    absent: bool = False,
    backgrounds: Path | None = None,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> QuestionSet:
    """A split of MREF, MDIST or MBG; rendered on first use, then read from ``cache_dir`` as memory maps.

    ``paper``: ``images`` training images, a third as many for validation and for test; ``queries="one"`` keeps the
    asked digit of each scene, ``"all"`` and ``"rows"`` every digit. ``authors``: one pool of ``images // 2`` scenes,
    every digit a row; the first ``images`` rows train, the next ``images // 3`` validate, the last ``images // 3``
    test. With ``absent`` the digits that a scene lacks are asked about, too, after all others, and answered "absent":
    one a scene for ``paper`` with ``queries="one"``, else all. The pixels depend on style, split, protocol, seed and
    the photographs alone: not on ``workers``, and scene i not on ``images``. ``progress(done, total)`` is called while
    rendering. ``cache_dir`` defaults to the environment's PAN_CACHE, else ~/.cache/progressive_attention.
    """
    one_of("queries", queries, ("one", "all", "rows"))
    source = SceneSource(style, split, protocol, seed, backgrounds)
    least = 2 if protocol == "authors" else 1  # five digits a scene are then always enough
    if checked("images", images, int) < least:
        raise ValueError(f"images must be >= {least} for protocol {protocol!r}, got {images}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}; None means one per processor")
    third = max(1, images // 3)
    count = images // 2 if protocol == "authors" else images if split == "train" else third
    cache = Path(cache_dir or os.environ.get("PAN_CACHE") or "~/.cache/progressive_attention").expanduser()
    arrays = cached(source, count, cache, workers or joblib.cpu_count(), progress)
    digits, attributes = len(arrays["image"]), COLOURS
    if absent:
        arrays, attributes = arrays | with_absent(arrays), (*COLOURS, ABSENT)
    image = arrays["image"]
    questions = QuestionSet(
        name=f"{style}/{split}",
        query_names=tuple("0123456789"),
        attribute_names=attributes,
        images=arrays["images"],
        image=image,
        query=arrays["query"],
        attribute=arrays["attribute"],
        scale=arrays["scale"],
        box=arrays["box"],
        masks=OwnerMasks(arrays["owner"], image, arrays["label"]),
    )
    if protocol == "authors":
        part = {"train": slice(images), "validation": slice(images, images + third), "test": slice(-third, None)}
        rows = np.arange(digits)[part[split]]
        missing = digits + np.flatnonzero(np.isin(image[digits:], image[rows]))
        return questions.rows(np.concatenate([rows, missing]))
    return questions.rows(np.flatnonzero(arrays["asked"])) if queries == "one" else questions


def rows_of(scenes: list[Scene], start: int) -> Columns:
    """Columns (R,) of every digit in row order; ``box`` (R, 4), ``label`` its value in owner, ``asked`` bool."""
    rows = [(start + i, k, k == scene.asked, d) for i, scene in enumerate(scenes) for k, d in enumerate(scene.digits)]
    image, position, asked, digits = zip(*rows, strict=True)
    return {
        "image": np.array(image, np.int64),
        "query": np.array([digit.number for digit in digits], np.int64),
        "attribute": np.array([digit.colour for digit in digits], np.int64),
        "scale": np.array([digit.scale for digit in digits], np.float64),
        "box": np.array([(d.x, d.y, d.x + d.size, d.y + d.size) for d in digits], np.int64),
        "label": np.array(position, np.uint8) + np.uint8(1),
        "asked": np.array(asked),
    }


def with_absent(columns: Columns) -> Columns:
    """The columns of `rows_of`, then those of the digits that each scene lacks, in order; ``asked`` is one a scene.

    Their scale and box are NaN, their mask is empty. Of n missing digits the one with the scene's number modulo n is
    asked: that number says nothing about the digits, so each is as likely as another, without a random draw.
    """
    asked, scene = np.unique(columns["image"], return_inverse=True)
    missing = np.ones((len(asked), 10), bool)
    missing[scene, columns["query"]] = False
    count = missing.sum(1)
    place, query = np.nonzero(missing)
    position = np.arange(len(place)) - np.repeat(count.cumsum() - count, count)  # among its scene's missing digits
    absent = {
        "image": asked[place],
        "query": query,
        "attribute": np.full(len(place), len(COLOURS)),
        "scale": np.full(len(place), np.nan),
        "box": np.full((len(place), 4), np.nan),
        "label": np.full(len(place), NOWHERE, np.uint8),
        "asked": position == (asked % count)[place],
    }
    return {name: np.concatenate([columns[name], values]) for name, values in absent.items()}


def cached(source: SceneSource, count: int, cache: Path, workers: int, progress: Progress | None = None) -> Columns:
    """Arrays of the first ``count`` scenes: ``images`` and ``owner``, read-only memory maps, and those of `rows_of`."""
    style, _, protocol, seed, _ = source.arguments
    spec = [RENDERER, style, source.split, protocol, seed, count, *source.fingerprint]
    key = sha256(json.dumps(spec).encode()).hexdigest()[:16]
    folder = cache / f"{style}-{source.split}-{key}"
    if folder.exists():
        try:
            return open_folder(folder, spec)
        except Exception as error:  # whatever it is, this is not what was written
            warnings.warn(f"{folder}: damaged ({error}); rendering it again", stacklevel=3)
            shutil.rmtree(folder, ignore_errors=True)
    try:
        with temporary_for(folder, folder=True) as temporary:
            temporary.chmod(0o755)  # the cache may be shared
            render_folder(temporary, source, spec, count, workers, progress)
            with suppress(OSError):  # another process may have been faster, and what it rendered is the same
                os.rename(temporary, folder)
            return open_folder(folder, spec)
    except OSError as error:
        remedy = "free some space, or choose another folder with cache_dir or the environment variable PAN_CACHE"
        raise OSError(error.errno, f"{cache} can't be filled ({error.strerror}); {remedy}") from error
    except BrokenExecutor as error:
        message = "a process that rendered scenes was killed, often because memory ran out; start the command again"
        raise OSError(message) from error


def open_folder(folder: Path, spec: list) -> Columns:
    """The arrays of a rendered folder; raises an Exception unless it is whole and of this spec."""
    stated = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    if stated["spec"] != spec:
        raise ValueError(f"expected key.json of {spec}, got {stated['spec']}")
    with np.load(folder / "questions.npz", allow_pickle=False) as rows:  # checks a CRC-32 of each column
        arrays = dict(rows)
    return arrays | {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in PIXELS}


def render_folder(
    folder: Path, source: SceneSource, spec: list, count: int, workers: int, progress: Progress | None
) -> None:
    """Render ``count`` scenes into an empty folder, here or in worker processes; key.json is written last."""
    for name, shape in PIXELS.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (count, *shape))
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    rows: dict[range, Columns] = {}
    parallel = joblib.Parallel(workers if count >= IN_PROCESS else 1, return_as="generator_unordered")
    results: Any = parallel(joblib.delayed(render_chunk)(source, folder, chunk) for chunk in chunks)
    with closing(results):
        for chunk, columns in results:
            rows[chunk] = columns
            if progress:
                progress(sum(map(len, rows)), count)
    columns: Any = {name: np.concatenate([rows[chunk][name] for chunk in chunks]) for name in rows[chunks[0]]}
    np.savez(folder / "questions.npz", **columns)
    (folder / "key.json").write_text(json.dumps({"spec": spec}, indent=1), encoding="utf-8")


def render_chunk(source: SceneSource, folder: Path, chunk: range) -> tuple[range, Columns]:
    """Render some scenes into the folder's files; returns the columns of their rows.

    Plain writes, not a memory map: on a full disk a map ends the process with SIGBUS, a write raises OSError.
    """
    scenes = [source.scene(index) for index in chunk]
    pixels = zip(*map(source.render, scenes), strict=True)
    for (name, shape), arrays in zip(PIXELS.items(), pixels, strict=True):
        path = folder / f"{name}.npy"
        offset = np.load(path, mmap_mode="r").offset
        with path.open("r+b") as file:
            file.seek(offset + chunk.start * math.prod(shape))
            file.write(np.stack(arrays).data)
    return chunk, rows_of(scenes, chunk.start)
