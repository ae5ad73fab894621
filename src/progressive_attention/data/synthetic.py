"""MREF, MDIST and MBG as QuestionSets: rendered once, in parallel, into a cache on disk.

Legend: N images, R rows (one digit, so one question each).
"""

import errno
import io
import json
import math
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import BrokenExecutor
from contextlib import closing, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from progressive_attention.config import PROTOCOLS, SPLITS, STYLES, checked, checked_seed, one_of
from progressive_attention.data.absent import ABSENT, with_absent
from progressive_attention.data.digits import load_digits, pools
from progressive_attention.data.photographs import Photographs
from progressive_attention.data.questions import OwnerMasks, QuestionSet
from progressive_attention.data.scenes import COLOURS, SIZE, Pool, Scene, render_scene, sample_scene
from progressive_attention.files import temporary_for

RENDERER = 1  # raise it whenever a pixel or a row changes
CHUNK = 250  # scenes a worker renders before it reports
IN_PROCESS = 500  # fewer scenes are not worth starting workers
PIXELS = {"images": (SIZE, SIZE, 3), "owner": (SIZE, SIZE)}
Progress = Callable[[int, int], None]


class SceneSource:
    """Scenes of one style, split and protocol: ``image, owner = source.render(source.scene(index))``.

    Protocol ``authors`` has one pool of scenes for every split. ``backgrounds`` (MBG only) replaces the embedded
    photographs, ``mnist_dir`` the embedded digits. ``fingerprint`` names digits and photographs.
    """

    def __init__(
        self,
        style: str,
        split: str,
        protocol: str = "paper",
        seed: int = 0,
        mnist_dir: Path | None = None,
        backgrounds: Path | None = None,
    ) -> None:
        self.style = one_of("style", style, STYLES)
        one_of("split", split, SPLITS)
        one_of("protocol", protocol, PROTOCOLS)
        checked_seed("seed", seed)
        if backgrounds and style != "mbg":
            raise ValueError(f"backgrounds are for mbg, got them for {style}; leave --backgrounds out")
        # workers may have another working directory
        folders = [folder and Path(folder).expanduser().resolve() for folder in (mnist_dir, backgrounds)]
        self.arguments = style, split, protocol, seed, *folders
        self.split = "pool" if protocol == "authors" else split
        self.key = seed, (*SPLITS, "pool").index(self.split)
        digits = load_digits(folders[0])
        self.pool = Pool(*pools(digits, protocol, split))
        self.photographs = Photographs(split, protocol, folders[1], SIZE) if style == "mbg" else None
        self.fingerprint = [digits.fingerprint, self.photographs.fingerprint if self.photographs else ""]

    def scene(self, index: int) -> Scene:
        """The scene of an index >= 0."""
        sizes = self.photographs.sizes if self.photographs else ()
        return sample_scene(self.style, (*self.key, index), self.pool, sizes)

    def render(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Image (100, 100, 3) uint8 and owner (100, 100) uint8."""
        return render_scene(scene, self.pool, self.photographs)


def synthetic(
    style: str,
    split: str,
    *,
    protocol: str = "paper",
    queries: str = "one",
    seed: int = 0,
    images: int = 30_000,
    absent: bool = False,
    mnist_dir: Path | None = None,
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
    the digits and photographs alone: not on ``workers``, and scene i not on ``images``. ``progress(done, total)`` is
    called while rendering. ``cache_dir`` defaults to the environment's PAN_CACHE, else ~/.cache/progressive_attention.
    """
    one_of("queries", queries, ("one", "all", "rows"))
    source = SceneSource(style, split, protocol, seed, mnist_dir, backgrounds)
    if checked("images", images, int) < (
        least := 2 if protocol == "authors" else 1
    ):  # five digits a scene are then always enough
        raise ValueError(f"images must be >= {least} for protocol {protocol!r}, got {images}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}; None means one per processor")
    third = max(1, images // 3)
    count = images // 2 if protocol == "authors" else images if split == "train" else third
    cache = Path(cache_dir or os.environ.get("PAN_CACHE") or "~/.cache/progressive_attention").expanduser()
    arrays = cached(source, count, cache, workers or joblib.cpu_count(), progress)
    digits, attributes = len(arrays["image"]), COLOURS
    if absent:
        arrays, attributes = arrays | with_absent(arrays, 10, len(COLOURS)), (*COLOURS, ABSENT)
    image, label = arrays["image"], arrays["label"]
    questions = QuestionSet(
        name=f"{style}/{split}",
        images=arrays["images"],
        image=image,
        query=arrays["query"],
        attribute=arrays["attribute"],
        query_names=tuple("0123456789"),
        attribute_names=attributes,
        scale=arrays["scale"],
        box=arrays["box"],
        masks=OwnerMasks(arrays["owner"], image, label),
    )
    if protocol == "authors":
        part = {"train": slice(images), "validation": slice(images, images + third), "test": slice(-third, None)}
        rows = np.arange(digits)[part[split]]
        missing = digits + np.flatnonzero(np.isin(image[digits:], image[rows]))
        return questions.rows(np.concatenate([rows, missing]))
    return questions.rows(np.flatnonzero(arrays["asked"])) if queries == "one" else questions


def cached(
    source: SceneSource, count: int, cache: Path, workers: int, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Arrays of the first ``count`` scenes: ``images`` and ``owner``, read-only memory maps, and those of `rows_of`."""
    style, _, protocol, seed, *_ = source.arguments
    spec = [RENDERER, style, source.split, protocol, seed, count, *source.fingerprint]
    key = sha256(json.dumps(spec).encode()).hexdigest()[:16]
    folder = cache / f"{style}-{source.split}-{key}"
    if folder.exists():
        try:
            return open_folder(folder, spec, count)
        except Exception as error:  # whatever it is, this is not what was written
            warnings.warn(f"{folder}: damaged ({error}); rendering it anew", stacklevel=3)
    try:
        with temporary_for(folder, folder=True) as temporary:
            render_folder(temporary, source, spec, count, workers, progress)
            return publish(temporary, folder, spec, count)
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise full(cache, count) from error
        raise
    except BrokenExecutor as error:
        raise OSError(
            "a process that rendered scenes was killed, often for want of memory; the same command renders them anew"
        ) from error


def open_folder(folder: Path, spec: list, count: int) -> dict[str, np.ndarray]:
    """The arrays of a rendered folder; raises an Exception unless it is whole and of this spec."""
    stated = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    if stated["spec"] != spec:
        raise ValueError(f"expected key.json of {spec}, got {stated['spec']}")
    for name, size in stated["bytes"].items():
        if (got := (folder / name).stat().st_size) != size:
            raise ValueError(f"expected {size} bytes in {name}, got {got}")
    content = (folder / "questions.npz").read_bytes()
    if (got := sha256(content).hexdigest()) != stated["questions"]:
        raise ValueError(f"expected sha256 {stated['questions']} of questions.npz, got {got}")
    with np.load(io.BytesIO(content), allow_pickle=False) as rows:
        arrays = dict(rows)
    for name, shape in PIXELS.items():
        arrays[name] = array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.shape != (count, *shape) or array.dtype != np.uint8:
            raise ValueError(f"expected {(count, *shape)} uint8 in {name}.npy, got {array.shape} {array.dtype}")
    for name, crc in stated.get("crc32", {}).items():  # caches of earlier versions have none
        if (got := checksum(folder / name)) != crc:
            raise ValueError(f"expected CRC-32 {crc} of {name}, got {got}")
    return arrays


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes, which knows every single flipped bit; a set of 30,000 scenes takes half a second."""
    crc = 0
    with path.open("rb") as file:
        while content := file.read(2**22):
            crc = zlib.crc32(content, crc)
    return crc


def publish(temporary: Path, folder: Path, spec: list, count: int) -> dict[str, np.ndarray]:
    """Rename a finished folder into place in one step, or use what another process has put there meanwhile."""
    while True:
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
        try:
            return open_folder(folder, spec, count)
        except Exception:
            if not temporary.exists():
                raise
            damaged = temporary.with_name(f"{temporary.name}-damaged")
            with suppress(FileNotFoundError):
                os.rename(folder, damaged)
            shutil.rmtree(damaged, ignore_errors=True)


def render_folder(
    folder: Path, source: SceneSource, spec: list, count: int, workers: int, progress: Progress | None
) -> None:
    """Render ``count`` scenes into an empty folder; key.json is written last."""
    folder.chmod(0o755)  # the cache may be shared
    if shutil.disk_usage(folder).free < needed(count):
        raise full(folder.parent, count)
    for name, shape in PIXELS.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (count, *shape))
    chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    rows = {}
    done = 0
    with closing(rendered(source, folder, chunks, workers if count >= IN_PROCESS else 1)) as results:
        for start, size, columns in results:
            rows[start] = columns
            done += size
            if progress:
                progress(done, count)
    columns: Any = {name: np.concatenate([rows[start][name] for start, _ in chunks]) for name in rows[0]}
    np.savez(folder / "questions.npz", **columns)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    stated = {"spec": spec, "bytes": sizes, "questions": sha256((folder / "questions.npz").read_bytes()).hexdigest()}
    stated["crc32"] = {f"{name}.npy": checksum(folder / f"{name}.npy") for name in PIXELS}
    (folder / "key.json").write_text(json.dumps(stated, indent=1), encoding="utf-8")


def rendered(
    source: SceneSource, folder: Path, chunks: list[tuple[int, int]], workers: int
) -> Generator[tuple[int, int, dict[str, np.ndarray]], None, None]:
    """Render chunks in any order, here or in worker processes: (start, scenes, columns) of each."""
    if workers == 1:
        yield from (render_chunk(source, folder, *chunk) for chunk in chunks)
    else:
        jobs = (joblib.delayed(worker_chunk)(source.fingerprint, source.arguments, folder, *chunk) for chunk in chunks)
        results: Any = joblib.Parallel(workers, return_as="generator_unordered")(jobs)
        yield from results


def worker_chunk(fingerprint: list[str], arguments: tuple, folder: Path, start: int, stop: int) -> tuple:
    """`render_chunk` in a worker, which opens digits and photographs once."""
    return render_chunk(worker_source(tuple(fingerprint), arguments), folder, start, stop)


@lru_cache(maxsize=1)
def worker_source(fingerprint: tuple[str, ...], arguments: tuple) -> SceneSource:
    """The source of these arguments; ValueError if its files have changed since the fingerprint was taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller has heard of skipped photographs already
        source = SceneSource(*arguments)
    if tuple(source.fingerprint) != fingerprint:
        raise ValueError("digits or photographs changed while rendering; start again")
    return source


def render_chunk(source: SceneSource, folder: Path, start: int, stop: int) -> tuple[int, int, dict[str, np.ndarray]]:
    """Render scenes start..stop-1 into the folder's files; (start, scenes, columns of their rows).

    Plain writes, not a memory map: on a full disk a map ends the process with SIGBUS, a write raises OSError.
    """
    scenes = [source.scene(index) for index in range(start, stop)]
    pixels = zip(*map(source.render, scenes), strict=True)
    for (name, shape), arrays in zip(PIXELS.items(), pixels, strict=True):
        path = folder / f"{name}.npy"
        offset = np.load(path, mmap_mode="r").offset
        with path.open("r+b") as file:
            file.seek(offset + start * math.prod(shape))
            file.write(np.stack(arrays).data)
    return start, stop - start, rows_of(scenes, start)


def rows_of(scenes: list[Scene], start: int) -> dict[str, np.ndarray]:
    """Columns (R,) of every digit in row order; ``box`` (R, 4), ``label`` its value in owner, ``asked`` bool."""
    rows = [(start + i, k, scene) for i, scene in enumerate(scenes) for k in range(len(scene.digits))]
    digits = [scene.digits[k] for _, k, scene in rows]
    return {
        "image": np.array([image for image, _, _ in rows], np.int64),
        "query": np.array([digit.number for digit in digits], np.int64),
        "attribute": np.array([digit.colour for digit in digits], np.int64),
        "scale": np.array([digit.scale for digit in digits], np.float64),
        "box": np.array([(d.x, d.y, d.x + d.size, d.y + d.size) for d in digits], np.int64),
        "label": np.array([k + 1 for _, k, _ in rows], np.uint8),
        "asked": np.array([k == scene.asked for _, k, scene in rows]),
    }


def needed(count: int) -> int:
    """Bytes of a rendered folder, rows included (at most 9 of about 60 bytes an image)."""
    return count * (sum(math.prod(shape) for shape in PIXELS.values()) + 600)


def full(cache: Path, count: int) -> OSError:
    """The error for a disk without room."""
    return OSError(
        errno.ENOSPC,
        f"{cache}: no room for {count} images, {needed(count)} bytes needed; free some, or choose another folder "
        "with cache_dir or the environment variable PAN_CACHE",
    )
