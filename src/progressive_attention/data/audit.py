"""An account of a data set's folder: ``pan data check``. Every image is decoded as training would, every mask once."""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from progressive_attention.config import SPLITS
from progressive_attention.data import findings
from progressive_attention.data.findings import KINDS, Counts, Item, Pictures, Pixels, Values, answer_column, flat
from progressive_attention.data.images import labelled, target, to_rgb
from progressive_attention.data.manifest import Manifest, find_manifest, read_manifest
from progressive_attention.data.rows import attempt, look

SEVERITIES = ("error", "warning", "note")
CHUNK = 512  # files under way at a time
BAND = 64  # lines of pixels hashed at a time: a copy of all would double what a large image takes
Progress = Callable[[int, int], None]


def audit(folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """All that is found in a folder, ready for JSON; ``progress`` is told (files opened, files to open).

    "findings", errors first: kind, severity, remedy, and items (``findings.Item``). "splits": rows of each, "usable"
    ones (no error is about them), images, queries and attributes. "words": the rows of each query and attribute by
    split. "errors", "warnings", "notes": how many items there are. Raises ValueError as ``read_manifest`` does.
    """
    manifest = read_manifest(folder)
    table = manifest.table
    images = table["image"].combine_chunks().dictionary_encode()
    paths = images.dictionary.to_pylist()
    wanted = wanted_values(manifest)
    asked = asked_values(manifest, wanted)
    read_image, read_mask = partial(look, manifest.images, "image", decoded), partial(mask_values, manifest, asked)
    jobs = [*(partial(read_image, path) for path in paths), *(partial(read_mask, path) for path in asked)]
    opened = in_chunks(jobs, progress)
    pictures = Pictures(paths, images.indices.to_numpy().astype(np.int64), opened[: len(paths)])
    masks = dict(zip(asked, opened[len(paths) :], strict=True))
    words = {"query": word_counts(table, "query"), "attribute": word_counts(table, answer_column(table))}

    found: dict[str, list[Item]] = {kind: [] for kind in KINDS}
    for kind, item in chain(
        findings.image_faults(manifest, pictures),
        findings.box_faults(manifest, pictures),
        findings.mask_faults(manifest, pictures, masks, wanted),
        findings.label_faults(table),
        findings.repeats(table),
        findings.leaks(table, pictures),
        findings.empty_splits(table),
        *(findings.word_faults(kind, counts) for kind, counts in words.items()),
    ):
        found[kind].append(item)
    return {
        "folder": str(folder),
        "table": str(find_manifest(folder)),
        "source": manifest.about.get("source"),
        "rows": len(table),
        "images": len(paths),
        "masks": len(asked),
        "splits": with_usable(table, found),
        "words": words,
        "findings": [
            {"kind": kind, "severity": severity, "remedy": remedy, "items": [i._asdict() for i in found[kind]]}
            for kind, (severity, remedy) in KINDS.items()
            if found[kind]
        ],
        **{f"{s}s": sum(len(found[kind]) for kind in KINDS if KINDS[kind][0] == s) for s in SEVERITIES},
    }


def with_usable(table: pa.Table, found: Mapping[str, list[Item]]) -> dict[str, dict[str, int]]:
    """``sizes``, and how many rows of each split no error is about."""
    usable = np.ones(len(table), bool)
    for kind, (severity, _) in KINDS.items():
        if severity == "error":
            usable[[row - 1 for item in found[kind] for row in item.rows]] = False
    counts = np.bincount(findings.split_codes(table)[usable], minlength=len(SPLITS)).tolist()
    rows = sizes(table).items()
    return {
        split: {"rows": size.pop("rows"), "usable": n, **size} for n, (split, size) in zip(counts, rows, strict=True)
    }


def sizes(table: pa.Table) -> dict[str, dict[str, int]]:
    """How many rows, and distinct images, queries and attributes, each split has."""
    found = {}
    for split in SPLITS:
        rows = table.filter(pc.equal(table["split"], split))
        columns = {"images": rows["image"], "queries": rows["query"], "attributes": flat(rows[answer_column(rows)])[1]}
        found[split] = {
            "rows": len(rows),
            **{name: pc.count_distinct(cells).as_py() for name, cells in columns.items()},
        }
    return found


def word_counts(table: pa.Table, column: str) -> Counts:
    """How many rows of each split have a word of a column, words in order; what is no word is left out."""
    row, words = flat(table[column])
    once = pa.table({"row": row, "word": words}).group_by(["row", "word"]).aggregate([])
    once = once.filter(pc.not_equal(pc.utf8_trim_whitespace(once["word"]), ""))
    counted = once.append_column("split", table["split"].take(once["row"])).group_by(["word", "split"])
    found: Counts = {}
    for group in counted.aggregate([([], "count_all")]).sort_by("word").to_pylist():
        found.setdefault(group["word"], dict.fromkeys(SPLITS, 0))[group["split"]] = group["count_all"]
    return found


# --- files ------------------------------------------------------------------------------------------------------------


def in_chunks(jobs: Sequence[Callable[[], Any]], progress: Progress | None) -> list[Any]:
    """What each job returns, or the Refused of one that refuses; in threads, with a limited number under way."""
    done: list[Any] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(jobs), CHUNK):
            for result in threads.map(attempt, jobs[start : start + CHUNK]):
                done.append(result)
                if progress:
                    progress(len(done), len(jobs))
    return done


def decoded(picture: Image.Image) -> Pixels:
    """An image's size and pixels, all of them."""
    upright = to_rgb(ImageOps.exif_transpose(picture))
    digest = blake2b(repr(upright.size).encode(), digest_size=16)
    for top in range(0, upright.height, BAND):
        digest.update(upright.crop((0, top, upright.width, min(top + BAND, upright.height))).tobytes())
    return Pixels(upright.size, digest.digest())


def wanted_values(manifest: Manifest) -> list[int | None]:
    """(R,) the value of each row's target in its mask, None where it is all that is not zero."""
    return [int(value) if value >= 0 else None for value in manifest.numbers("mask_value", missing=-1)[:, 0].tolist()]


def asked_values(manifest: Manifest, wanted: list[int | None]) -> dict[str, set[int | None]]:
    """Mask file -> all values that rows want of it; those of void pixels too, which need not be there."""
    asked: dict[str, set[int | None]] = defaultdict(set)
    if "mask" in manifest.table.column_names:
        void = manifest.numbers("mask_void", missing=-1)[:, 0].tolist()
        for path, *values in zip(manifest.table["mask"].to_pylist(), wanted, void, strict=True):
            if path is not None:
                asked[path].update(value for value in values if value is None or value >= 0)
    return dict(asked)


def mask_values(manifest: Manifest, asked: Mapping[str, set[int | None]], path: str) -> Values:
    """Which of the values asked for a mask's file has; raises Refusal for one that can't be used."""

    def read(picture: Image.Image) -> Values:
        upright = ImageOps.exif_transpose(picture)
        numbers = asked[path] - {None}
        present = numbers & set(np.unique(np.asarray(labelled(upright))).tolist()) if numbers else set()
        nonzero = {None} if None in asked[path] and target(upright).getbbox() else set()
        return Values(upright.size, frozenset(present | nonzero))

    return look(manifest.masks, "mask", read, path)
