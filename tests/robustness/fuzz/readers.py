"""Every reader of files that a user hands us, with its seeds, and what is done with what it reads.

``read`` gets a folder with a seed of which one file was mutated, and a generator for its own choices. It must return
or raise ValueError or OSError; it raises AssertionError where what was read is not what is written.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from fuzz import seeds
from fuzz.oracle import wrongly_read
from progressive_attention.data.backgrounds import Photographs
from progressive_attention.data.coco import import_coco
from progressive_attention.data.images import Fit, open_picture, opened, target, upright, upright_size
from progressive_attention.data.manifest import from_folder, read_folder, read_manifest
from progressive_attention.data.npz import from_npz
from progressive_attention.data.rows import import_table
from progressive_attention.data.visual_genome import import_visual_genome
from progressive_attention.data.voc import import_voc
from progressive_attention.network.build import ProgressiveAttentionNetwork
from progressive_attention.saved import load

Read = Callable[[Path, Random], Any]


class Reader(NamedTuple):
    """``share`` of all cases; ``links``: its images may become symbolic links, which must lead nowhere outside."""

    seeds: Callable[[], list[seeds.Files]]
    read: Read
    share: int = 1
    links: bool = False


def manifest(folder: Path, rng: Random) -> None:
    """Read, compare with the slow reader, and open the images of a split."""
    read = read_folder(folder)
    path = next(folder.glob("manifest.*"))
    if path.suffix != ".parquet" and (wrong := wrongly_read(read, path)):
        raise AssertionError(wrong)
    if rng.random() < 0.3:
        questions = from_folder(folder, rng.choice(("train", "test", "train,validation,test")), 8)
        rows = np.arange(len(questions))
        assert questions.images[questions.image].shape == (len(rows), 8, 8, 3)
        for masks in filter(None, (questions.masks, questions.void)):
            assert masks[rows].shape == (len(rows), 8, 8)


def reread(folder: Path) -> None:
    """What an importer wrote must be readable."""
    try:
        read_manifest(folder / "out")
    except ValueError as error:
        raise AssertionError(f"what was imported can't be read: {error}") from error


def table(folder: Path, rng: Random) -> None:
    import_table(next(folder.glob("table.*")), folder / "out")
    reread(folder)


def coco(folder: Path, rng: Random) -> None:
    import_coco(folder / "coco.json", folder, folder / "out")
    reread(folder)


def genome(folder: Path, rng: Random) -> None:
    import_visual_genome(folder, folder / "images", folder / "out", setting="all")
    reread(folder)


def voc(folder: Path, rng: Random) -> None:
    import_voc(folder, folder / "out")
    reread(folder)


def npz(folder: Path, rng: Random) -> None:
    questions = from_npz(folder / "scenes.npz", rng.choice((None, "train")))
    assert len(questions.query) == len(questions.attribute) == len(questions.image)
    assert questions.query.max(initial=0) < len(questions.query_names)


def network(folder: Path, rng: Random) -> None:
    """Load it, and ask it one question."""
    if rng.random() < 0.5:
        trained = load(folder)
        model, about = trained.model, trained.about
        assert all(isinstance(word, str) for word in (*trained.query_names, *trained.attribute_names))
    else:
        model = ProgressiveAttentionNetwork.from_pretrained(folder)
        about = model.about
    assert len(about["query_names"]) == 2
    if rng.random() < 0.1:
        with torch.inference_mode():
            model(torch.zeros(1, 3, 62, 62), torch.zeros(1, 1, dtype=torch.long))


def picture(folder: Path, rng: Random) -> None:
    path = next(folder.iterdir())
    with opened(path, path.name) as file:
        size, as_mask = upright_size(file), target(upright(file))
    as_image = open_picture(path)
    assert Fit.into(8, *size).image(as_image).shape == (8, 8, 3)
    assert Fit.into(8, *size).mask(as_mask).shape == (8, 8)


def backgrounds(folder: Path, rng: Random) -> None:
    found = Photographs("train", "authors", folder, side=8)
    for i in range(len(found)):
        assert found.load(i).ndim == 3


READERS: dict[str, Reader] = {
    **{f"manifest-{form}": Reader(partial(seeds.tables, form), manifest, 4, True) for form in seeds.FORMS},
    **{f"table-{form}": Reader(partial(seeds.tables, form, "table", False), table, 2, True) for form in seeds.FORMS},
    "hub-parquet": Reader(seeds.hub_parquet, table, 1),
    "coco": Reader(seeds.coco, coco, 2, True),
    "visual-genome": Reader(seeds.genome, genome, 2, True),
    "voc": Reader(seeds.voc, voc, 2, True),
    "npz": Reader(seeds.npz, npz, 4),
    "network": Reader(seeds.weights, network, 1),
    "picture": Reader(seeds.pictures, picture, 6),
    "backgrounds": Reader(lambda: [seeds.PICTURES], backgrounds, 1),
}
