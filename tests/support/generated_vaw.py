"""Small files in the form of VAW's authors, and the images they are about."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
FILES = {"train_part1": 6, "train_part2": 6, "val": 4, "test": 6}  # images of each


def write_vaw(folder: Path, seed: int = 0) -> None:
    """``folder``/vaw with the four files, ``folder``/vg with VG_100K and VG_100K_2: a coloured square in each image.

    Of each instance its colour is known to be true, one other colour not to be, and nothing of the third.
    """
    rng = np.random.default_rng(seed)
    for name in ("vaw", "vg/VG_100K", "vg/VG_100K_2"):
        (folder / name).mkdir(parents=True)
    image = 100
    for file, many in FILES.items():
        entries = []
        for _ in range(many):
            image += 1
            left, top = (int(corner) for corner in rng.integers(2, 20, 2))
            true, absent = rng.permutation(list(COLOURS))[:2].tolist()
            pixels = np.full((48, 40, 3), 60, np.uint8)
            pixels[top : top + 16, left : left + 12] = COLOURS[true]
            Image.fromarray(pixels).save(folder / "vg" / f"VG_100K{'_2' * (image % 2)}" / f"{image}.jpg")
            corners = [[left, top], [left + 12.0, top], [left + 12.0, top + 16.0], [left, top + 16.0]]
            known = {"image_id": str(image), "instance_id": f"{image}001", "object_name": ("car", "box")[image % 2]}
            place = {"instance_bbox": [left, top, 12.0, 16.0], "instance_polygon": [corners] if image % 3 else None}
            entries.append({**known, **place, "positive_attributes": [true], "negative_attributes": [absent]})
        (folder / "vaw" / f"{file}.json").write_text(json.dumps(entries))
