"""Visual Genome's files become a data set, as by an import that goes object by object; its parts, and every reason."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from generated_genome import write_genome
from hand_genome import FILES, read
from hypothesis import given
from hypothesis import strategies as st

from progressive_attention.config import SPLITS
from progressive_attention.data.names import normalise, rare_plurals
from progressive_attention.data.visual_genome import REASONS, clip, find, import_visual_genome


def slow_import(folder, files, least, of_image=None):
    """What an import must give: rows, rejected rows, labels left out; one object at a time, one rare word at a time."""
    records, attributes, objects = (json.loads((folder / f"{file}.json").read_text()) for file in FILES)
    sizes = {r.get("image_id", r.get("id")): (r["width"], r["height"]) for r in records}
    drawn, into = {}, {}
    for item in objects:
        for o in item["objects"]:
            number = o.get("object_id", o.get("id"))
            drawn.setdefault((item.get("image_id", item.get("id")), number), o)
            for gone in o.get("merged_object_ids", []):
                into.setdefault(gone, number)
    ids = {number for _, number in drawn}
    groups, place = defaultdict(list), 0
    for item in attributes:
        where = item.get("image_id", item.get("id"))
        for e in item["attributes"]:
            stated = e.get("object_id", e.get("id"))
            number = stated if stated in ids else into.get(stated, stated)
            groups[where, number].append((stated != number, place, e))
            place += 1
    things = []
    for (where, number), entries in groups.items():
        _, place, leader = min(entries, key=lambda entry: entry[:2])
        source = drawn.get((where, number), leader)
        names = source.get("names") or leader.get("names") or leader.get("object_names") or [""]
        every = [a for _, _, e in sorted(entries, key=lambda entry: entry[1]) for a in e.get("attributes", [])]
        box = [source[side] for side in "xywh"]
        things.append((place, where, number, names[0], box, [a for a in map(normalise, every) if a]))
    things.sort(key=lambda thing: thing[0])

    seen = Counter(normalise(name) for _, _, _, name, _, _ in things if normalise(name))
    plurals = rare_plurals(seen)
    rows, rejected = [], []
    for _, where, number, name, (x, y, w, h), every in things:
        query = plurals.get(normalise(name), normalise(name)) or None
        wide, high = sizes[where]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, wide), min(y + h, high)
        against = {
            "image file missing": where not in files,
            "in no split": of_image is not None and where not in of_image,
            "no name": query is None,
            "no attributes": not every,
            "no box in the image": min(w, h) <= 0 or x1 <= x0 or y1 <= y0,
        }
        reason = next((reason for reason, true in against.items() if true), None)
        if reason:
            rejected.append((f"{where}.jpg", query, number, reason))
        else:
            rows.append(
                {
                    "image": f"{where}.jpg",
                    "query": query,
                    "attributes": list(dict.fromkeys(every)),
                    **dict(zip(("x0", "y0", "x1", "y1"), (x0, y0, x1, y1), strict=True)),
                    "width": wide,
                    "height": high,
                    "id": number,
                }
            )
    whole = rows
    while True:
        classes = Counter(row["query"] for row in rows)
        words = Counter(a for row in rows for a in row["attributes"])
        if min([*classes.values(), *words.values()], default=least) >= least:
            break
        rare = min({**words, **{("class", c): n for c, n in classes.items()}}.items(), key=lambda item: item[1])[0]
        rows = [{**row, "attributes": [a for a in row["attributes"] if a != rare]} for row in rows]
        rows = [row for row in rows if row["attributes"] and ("class", row["query"]) != rare]
    kept = {row["id"] for row in rows}
    for row in whole:
        if row["id"] not in kept:
            rarity = "attribute too rare" if row["query"] in classes else "class too rare"
            rejected.append((row["image"], row["query"], row["id"], rarity))
    return rows, rejected


@pytest.mark.parametrize("version", ["1", "1.2", "1.4"])
@pytest.mark.parametrize(("least", "names", "seed"), [(1, (25, 12), 0), (8, (25, 12), 1), (16, (14, 9), 2)])
def test_import_equals_one_that_goes_object_by_object(tmp_path, version, least, names, seed):
    numbers = {"images": 60, "objects": 9, "attributes": 0.9, "names": names, "mess": 0.06}
    write_genome(tmp_path, **numbers, version=version, seed=seed)
    ids = [r.get("image_id", r.get("id")) for r in json.loads((tmp_path / "image_data.json").read_text())]
    (tmp_path / "images").mkdir()
    for number in ids[3:]:
        (tmp_path / "images" / f"{number}.jpg").touch()
    of_image = {number: SPLITS[i % 3] for i, number in enumerate(ids[:-4])}
    (tmp_path / "parts.json").write_text(json.dumps({s: [i for i in of_image if of_image[i] == s] for s in SPLITS}))
    about = import_visual_genome(
        tmp_path, tmp_path / "images", tmp_path / "out", min_count=least, splits=tmp_path / "parts.json"
    )
    rows, rejected = read(tmp_path / "out")
    expected, refused = slow_import(tmp_path, set(ids[3:]), least, of_image)
    assert [row.pop("split") for row in rows] == [of_image[int(row["image"][:-4])] for row in expected]
    assert rows == expected
    assert Counter((r["image"], r["query"], r["id"], r["reason"]) for r in rejected) == Counter(refused)
    assert about["rejected"] == Counter(r["reason"] for r in rejected)
    by_hand = {"image not in image_data.json", "no name"}  # in test_visual_genome_by_hand.py
    assert least != 16 or set(about["rejected"]) == {*REASONS[1:]} - by_hand
    words = [a for row in rows for a in row["attributes"]]
    assert min(Counter(words).values()) >= least
    assert min(Counter(row["query"] for row in rows).values()) >= least
    counts = about["counts"]
    assert (counts["rows"], counts["labels"]) == (len(rows), len(words))
    assert (counts["classes"], counts["attributes"]) == (len({r["query"] for r in rows}), len(set(words)))
    assert counts["images"] == len({row["image"] for row in rows})
    assert sum(part["rows"] for part in counts["splits"].values()) == len(rows)


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9), max_size=20))
def test_find_is_index_or_minus_one(values, keys):
    place = find(np.array(values, np.int64), np.array(keys, np.int64))
    assert place.tolist() == [keys.index(v) if v in keys else -1 for v in values]


@given(*[st.integers(-20, 20)] * 2, *[st.integers(1, 30)] * 2)
def test_clipped_boxes_hold_the_pixels_that_are_in_the_image(x, y, w, h):
    wide, high = 12, 9
    (corners,), (clipped,) = clip(np.array([[x, y, w, h]], float), np.array([[wide, high]]))
    x0, y0, x1, y1 = corners.tolist()
    pixels = {(i, j) for i in range(x, x + w) for j in range(y, y + h) if 0 <= i < wide and 0 <= j < high}
    assert pixels == {(i, j) for i in range(int(x0), int(x1)) for j in range(int(y0), int(y1))}
    assert clipped == (len(pixels) < w * h)
