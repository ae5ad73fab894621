"""Made-up annotations in Visual Genome's forms, of any size and version, with the mess that crowds make."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SYLLABLES = [a + b for a in "bdfgklmnprtvz" for b in ("a", "e", "i", "o", "u", "an", "el", "ir", "os")]
STYLES = (str, str.title, str.upper, lambda name: f" {name}", lambda name: f"{name}. ", lambda name: f"{name}s")


def word(number: int) -> str:
    """A word of two to five syllables, a different one for each number; none ends in an s before 13,000."""
    number += len(SYLLABLES)
    syllables = []
    while number:
        number, place = divmod(number, len(SYLLABLES))
        syllables.append(SYLLABLES[place])
    return "".join(syllables)


def zipf(rng: np.random.Generator, words: int, size: int) -> np.ndarray:
    """Ranks from 0, the r-th with a chance of about 1 / (r + 2)."""
    chance = 1 / np.arange(2, words + 2)
    return np.searchsorted(np.cumsum(chance / chance.sum()), rng.random(size)).clip(0, words - 1)


def write_genome(
    folder: Path,
    *,
    images: int,
    objects: float = 35.2,
    attributes: float = 0.74,
    names: tuple[int, int] = (80_000, 60_000),
    mess: float = 0.02,
    version: str = "1.4",
    seed: int = 0,
) -> dict[str, int]:
    """Write image_data.json, attributes.json and objects.json; the defaults are Visual Genome's own numbers.

    ``objects`` an image and ``attributes`` an object on average, ``names`` of classes and of attributes that occur;
    every kind of ``mess`` falls on that share of objects. One seed gives one genome in all versions, but that "1.4"
    merges objects. Returns how many images, objects and mentions there are.
    """
    rng = np.random.default_rng(seed)
    many = rng.poisson(objects, images)
    total = int(many.sum())
    # Half of the objects have no attributes, as in Visual Genome; the others share the mentions.
    listed = np.where(rng.random(total) < 0.5, 0, 1 + rng.poisson(max(2 * attributes - 1, 0), total))
    name = zipf(rng, names[0], total).tolist()
    mention = zipf(rng, names[1], int(listed.sum())).tolist()
    size = rng.integers(300, 800, (images, 2))
    ids = rng.choice(np.arange(1, 25 * images + 1), images, replace=False)
    corner = rng.random((total, 2)) * 0.9
    extent = np.minimum(rng.lognormal(-1.5, 0.8, (total, 2)), 1 - corner)
    box = np.concatenate([corner, extent], 1) * np.repeat(np.concatenate([size, size], 1), many, 0)
    box = np.maximum(box.astype(np.int64), 1)
    odd, goes, outside, empty, repeated, blank, nameless, hollow = (rng.random((8, total)) < mess).tolist()
    style = rng.integers(0, len(STYLES), total).tolist()
    start = np.concatenate([[0], np.cumsum(listed)]).tolist()
    old = version == "1"
    image_key, object_key, names_key = ("id", "id", "object_names") if old else ("image_id", "object_id", "names")

    def entry(i: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The i-th object as attributes.json and objects.json have it."""
        x, y, w, h = box[i].tolist()
        raw = [STYLES[style[i]](word(name[i])) if odd[i] else word(name[i])]
        words = [f"{word(m)}y" for m in mention[start[i] : start[i + 1]]]
        words += [w.upper() for w in words[:1]] * repeated[i] + [" "] * blank[i]
        place = {"x": x - 40 * outside[i], "y": y, "w": 0 if empty[i] else w, "h": h}
        one = {object_key: 1_000_000 + i, **place, **({} if old else {"synsets": [f"{word(name[i])}.n.01"]})}
        attributes = {"attributes": words} if words or hollow[i] else {}
        return {**one, names_key: [] if nameless[i] else raw, **attributes}, {**one, "names": raw}

    first = 0
    paths = {file: (folder / f"{file}.json").open("w") for file in ("image_data", "attributes", "objects")}
    try:
        for k in range(images):
            entries = [entry(i) for i in range(first, first + int(many[k]))]
            first += int(many[k])
            drawn = [b for _, b in entries]
            if version == "1.4":
                drawn = merge(drawn, goes[first - len(entries) : first])
            image = int(ids[k])
            url = f"https://pictures.example/VG_100K{'_2' * (image % 2)}/{image}.jpg"
            wide, high = size[k].tolist()
            record = {
                image_key: image,
                "url": url,
                "width": wide,
                "height": high,
                "coco_id": None,
                "flickr_id": 7 * image,
            }
            for file, item in (
                ("image_data", record),
                ("attributes", {image_key: image, "attributes": [a for a, _ in entries]}),
                ("objects", {image_key: image, "objects": drawn}),
            ):
                paths[file].write(("[" if k == 0 else ", ") + json.dumps(item))
    finally:
        for stream in paths.values():
            stream.write("]" if images else "[]")
            stream.close()
    return {"images": images, "objects": total, "mentions": int(listed.sum())}


def merge(drawn: list[dict[str, Any]], which: list[bool]) -> list[dict[str, Any]]:
    """objects.json as v1.4 has it: some objects are gone, merged into the one before them that stays."""
    kept: list[dict[str, Any]] = []
    for one, goes in zip(drawn, which, strict=True):
        if goes and kept:
            kept[-1]["merged_object_ids"].append(one["object_id"])
        else:
            kept.append({**one, "merged_object_ids": []})
    return kept
