"""The suites "render" and "load": scenes rendered, images loaded, and a whole evaluation, maps and metrics included."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Record, Watch, compared, interleaved
from progressive_attention.config import STYLES
from progressive_attention.data.backgrounds import Photographs
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FileImages, Fit, open_picture
from progressive_attention.data.npz import from_npz
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.evaluation.evaluate import evaluate
from progressive_attention.saved import load

NETWORK = "mref-pan"
SIDE = 224  # pixels to which photographs are fitted
PHOTOGRAPHS = (480, 360), (1920, 1440)  # as in Visual Genome; as a camera makes them
BATCH = 32


def render_records(quick: bool, watch: Watch) -> Iterator[Record]:
    """Scenes per second of each style, into an empty cache on disk: by one process, and by one for each processor."""
    count, rounds, processes = 500 if quick else 3_000, 1 if quick else 5, joblib.cpu_count()
    joblib.Parallel(processes)(joblib.delayed(rendered)("mref", 1, 1) for _ in range(processes))  # starts them
    for style in STYLES:
        watch(f"rendering {count:,} scenes of {style}")
        jobs = {"one": partial(rendered, style, count, 1), "all": partial(rendered, style, count, processes)}
        seconds = interleaved(jobs, rounds, warmup=0)
        record = partial(compared, "render", unit="scenes/s", scale=count, scenes=count)
        yield record(f"rendering {style}, one process", ours=seconds["one"], threads=1)
        yield record(
            f"rendering {style}, {processes} processes",
            ours=seconds["all"],
            other=seconds["one"],
            against="one process",
            threads=processes,
        )


def rendered(style: str, count: int, workers: int) -> None:
    """Scenes of a style in a cache that was empty and is deleted again."""
    with tempfile.TemporaryDirectory() as folder:
        synthetic(style, "train", images=count, cache_dir=Path(folder), workers=workers)


def load_records(quick: bool, device: torch.device, watch: Watch) -> Iterator[Record]:
    """Images per second from each kind of source, then the seconds of an evaluation with all maps."""
    count, rounds = 300 if quick else 10_000, 2 if quick else 5
    for size in PHOTOGRAPHS[: 1 if quick else None]:
        watch(f"decoding photographs of {size[0]} x {size[1]} px")
        yield from photograph_records(size, 64 if quick else 256, rounds)
    with tempfile.TemporaryDirectory() as folder:
        watch(f"rendering, then loading {count:,} scenes")
        questions = synthetic("mref", "test", images=3 * count, cache_dir=Path(folder))
        np.savez(
            Path(folder) / "scenes.npz",
            images=np.asarray(questions.images),
            query=questions.query,
            attribute=np.asarray(questions.attribute),
            attribute_names=np.array(questions.attribute_names),
        )
        order = np.random.Generator(np.random.PCG64(0)).permutation(count)
        batches = np.split(order, range(BATCH, count, BATCH))
        jobs = {
            f"from the rendered cache, batches of {BATCH} in any order": lambda: [questions.images[b] for b in batches],
            "from an .npz, all of it": lambda: from_npz(Path(folder) / "scenes.npz"),
        }
        for name, ours in interleaved(jobs, rounds, warmup=1).items():
            what = f"scenes of 100 px {name}"
            yield compared("load", what, "images/s", ours, scale=count, dtype="uint8", threads=1)
        watch(f"evaluating {NETWORK} on {count:,} scenes")
        trained = load(NETWORK, device)
        evaluate(trained, questions.rows(np.arange(min(64, count))), device)  # to warm up
        (ours,) = interleaved({0: lambda: evaluate(trained, questions, device)}, 1 if quick else 3, 0).values()
        what = f"evaluation of {NETWORK} on {count:,} scenes with all maps"
        yield compared("load", what, "s", ours, scale=1, dtype="float32", scenes=count)


def photograph_records(size: tuple[int, int], count: int, rounds: int) -> Iterator[Record]:
    """Images per second of ``count`` JPEGs of a size (width, height), in threads: headers, pixels, and from memory."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), size, count)
        root, unknown, everything = ImageRoot(folder), np.zeros((count, 2), int), np.arange(count)
        files = FileImages(root, paths, SIDE, unknown)
        moved = files.places(everything, "crop", 0, 0)
        jobs = {
            "headers": lambda: FileImages(root, paths, SIDE, unknown),
            "decoded": lambda: files.read(everything, files.fits),
            "decoded and augmented": lambda: files.read(everything, moved),
            "decoded in full": lambda: decoded_in_full(Path(folder), paths),
            "from memory": lambda: files[everything],
        }
        seconds = interleaved(jobs, rounds, warmup=1)
    in_full, threads = seconds.pop("decoded in full"), os.cpu_count() or 1
    for name, ours in seconds.items():
        other, against = (in_full, "decoding every pixel, then scaling") if name == "decoded" else (None, None)
        what = f"JPEGs of {size[0]} x {size[1]} px fitted into {SIDE} px, {name}"
        yield compared("load", what, "images/s", ours, other, against, scale=count, dtype="uint8", threads=threads)


def write_jpegs(folder: Path, size: tuple[int, int], count: int) -> list[str]:
    """Write the shipped photographs in turn, scaled to a size (width, height), as JPEGs of quality 90; their names."""
    shipped = Photographs("train", protocol="authors")
    names = [f"{i}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        Image.fromarray(shipped.load(i % len(shipped))).resize(size).save(folder / name, quality=90)
    return names


def decoded_in_full(folder: Path, paths: list[str]) -> list[np.ndarray]:
    """What ``FileImages.read`` gives, without asking the decoder for fewer pixels: (SIDE, SIDE, 3) uint8 each."""

    def decode(path: str) -> np.ndarray:
        picture = open_picture(folder / path)
        return Fit.into(SIDE, *picture.size).image(picture)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(decode, paths))
