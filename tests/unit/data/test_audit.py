"""`audit` on small folders: a clean one gives no findings, and each fault gives the one that names it."""

import json
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from progressive_attention.config import SPLITS
from progressive_attention.data import checks
from progressive_attention.data.audit import SEVERITIES, audit, sizes, word_counts
from progressive_attention.data.checks import KINDS, RARE
from progressive_attention.data.rows import import_table

WIDTH, HEIGHT = 40, 20
SPLIT_OF = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2  # of image 0.png to 9.png


def write_clean(folder):
    """Ten images of noise; of each row 2 i + 1 asks about the bird (mask value 1), row 2 i + 2 about the car (2)."""
    rng = np.random.default_rng(0)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:8, 4:12], mask[10:18, 20:30] = 1, 2
    table = []
    for i, split in enumerate(SPLIT_OF):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(folder / f"{i}.png")
        Image.fromarray(mask).save(folder / f"mask{i}.png")
        common = {"image": f"{i}.png", "split": split, "mask": f"mask{i}.png", "width": WIDTH, "height": HEIGHT}
        bird = {"query": "bird", "attributes": ["red", "small"], "mask_value": 1, "x0": 4, "y0": 2, "x1": 12, "y1": 8}
        car = {"query": "car", "attributes": ["blue"], "mask_value": 2, "x0": 20, "y0": 10, "x1": 30, "y1": 18}
        table += [common | bird, common | car]
    return table


def write_rows(folder, table):
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


@pytest.fixture
def clean(tmp_path):
    return write_clean(tmp_path)


def kinds_of(report):
    return {
        finding["kind"]: [(item["subjects"], item["rows"]) for item in finding["items"]]
        for finding in report["findings"]
    }


def test_a_clean_folder_has_no_findings(tmp_path, clean):
    told = []
    report = audit(write_rows(tmp_path, clean), lambda done, total: told.append((done, total)))
    assert report["findings"] == []
    assert [report[name] for name in ("rows", "images", "masks", "errors", "warnings", "notes")] == [
        20,
        10,
        10,
        0,
        0,
        0,
    ]
    assert told == [(i, 20) for i in range(1, 21)]
    counts = {"queries": 2, "attributes": 3}
    assert report["splits"] == {
        "train": {"rows": 12, "usable": 12, "images": 6, **counts},
        "validation": {"rows": 4, "usable": 4, "images": 2, **counts},
        "test": {"rows": 4, "usable": 4, "images": 2, **counts},
    }
    each = {"train": 6, "validation": 2, "test": 2}
    assert report["words"] == {
        "query": {"bird": each, "car": each},
        "attribute": {"blue": each, "red": each, "small": each},
    }
    assert json.loads(json.dumps(report)) == report


def test_one_attribute_a_row_and_no_other_columns(tmp_path, clean):
    report = audit(write_rows(tmp_path, [{**bare(row), "attribute": row["query"]} for row in clean]))
    assert report["findings"] == []
    assert (report["masks"], report["words"]["query"]) == (0, report["words"]["attribute"])


def bare(row):
    return {name: row[name] for name in ("image", "split", "query")}


def change(row, **values):
    return lambda folder, table: table[row - 1].update(values)


def save(name, picture):
    return lambda folder, table: picture.save(folder / name)


def write(name, content):
    return lambda folder, table: (folder / name).write_bytes(content)


def cut(name):
    return lambda folder, table: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def link_out(folder, table):
    outside = folder.with_name("outside.png")
    (folder / "0.png").rename(outside)
    (folder / "0.png").symlink_to(outside)


def copy(name, other):
    return lambda folder, table: Image.open(folder / name).save(folder / other, pnginfo=None, compress_level=1)


def every(**values):
    return lambda folder, table: [row.update(values) for row in table]


def both(*changes):
    return lambda folder, table: [one(folder, table) for one in changes]


def append(**values):
    return lambda folder, table: table.append({**table[0], **values})


IMAGE_0 = (["0.png"], [1, 2])
UNUSABLE = {"too many unusable images": [(["train"], [])]}  # one of six is more than 5 %
WORDS = {"attributes": ["red", "small", "rusty"]}
FAULTS = [
    (lambda folder, table: (folder / "0.png").unlink(), {"image file missing": [IMAGE_0], **UNUSABLE}),
    (cut("0.png"), {"image unreadable": [IMAGE_0], **UNUSABLE}),
    (link_out, {"image outside": [IMAGE_0], **UNUSABLE}),
    (
        save("0.png", Image.effect_noise((50, 30), 9)),
        {"image of another size": [IMAGE_0], "mask of another size": [(["mask0.png"], [1, 2])]},
    ),
    (change(1, width=None), {}),
    (change(1, x0=None, y0=None, x1=None, y1=None), {}),
    (lambda folder, table: (folder / "mask9.png").unlink(), {"mask file missing": [(["mask9.png"], [19, 20])]}),
    (save("mask9.png", Image.new("RGB", (WIDTH, HEIGHT))), {"mask unusable": [(["mask9.png"], [19, 20])]}),
    (change(20, mask="../mask9.png"), {"mask outside": [(["../mask9.png"], [20])]}),
    (save("mask9.png", Image.new("L", (20, 40), 1)), {"mask of another size": [(["mask9.png"], [19, 20])]}),
    (change(20, mask_value=3), {"mask without its target": [(["mask9.png"], [20])]}),
    (change(20, mask_value=None), {}),  # any pixel that is not zero
    (change(20, mask=None), {}),
    (every(mask_void=255), {}),  # void pixels need not be there
    (change(1, attributes=[]), {"none of the attributes": [(["0.png"], [1])]}),
    (change(1, attributes=[], absent=["red"]), {}),
    (every(attributes=[]), {"no attributes in any row": [([], [])]}),
    (append(attributes=["small", "red", "red"]), {"duplicate row": [(["0.png"], [1, 21])]}),
    (append(attributes=["red"]), {"same object, other attributes": [(["0.png"], [1, 21])]}),
    (append(attributes=["red"], x0=5), {}),  # another bird
    (change(1, split="test"), {"image in several splits": [IMAGE_0]}),
    (copy("0.png", "9.png"), {"same picture in several splits": [(["0.png", "9.png"], [1, 2, 19, 20])]}),
    (copy("0.png", "5.png"), {}),
    (change(17, **WORDS), {"attribute never in train": [(["rusty"], [])]}),
    (change(1, **WORDS), {"rare attribute": [(["rusty"], [])]}),
    (both(*(change(row, **WORDS) for row in (1, 3, 5, 7, 9))), {}),  # often enough
    (change(17, query="boat"), {"query never in train": [(["boat"], [])]}),
    (change(1, query="boat"), {"rare query": [(["boat"], [])]}),
    (lambda folder, table: table.__delitem__(slice(16, 20)), {"split without rows": [(["test"], [])]}),
    (lambda folder, table: table.__delitem__(slice(0, 12)), {"split without rows": [(["train"], [])]}),
]


@pytest.mark.parametrize("fault, expected", FAULTS, ids=[f"{i}-{'-'.join(e)[:30]}" for i, (_, e) in enumerate(FAULTS)])
def test_a_fault_gives_its_finding(tmp_path, fault, expected):
    (tmp_path / "set").mkdir()  # files outside of it stay this test's own
    table = write_clean(tmp_path / "set")
    fault(tmp_path / "set", table)
    report = audit(write_rows(tmp_path / "set", table))
    assert kinds_of(report) == expected
    wrong = {row for kind, items in expected.items() for _, its in items for row in its if KINDS[kind][0] == "error"}
    wrong |= {row for _, its in expected.get("duplicate row", ()) for row in its[1:]}  # asked once
    assert sum(split["usable"] for split in report["splits"].values()) == len(table) - len(wrong)
    for severity in SEVERITIES:
        assert report[f"{severity}s"] == sum(len(expected[kind]) for kind in expected if KINDS[kind][0] == severity)


def test_every_kind_has_a_fault_here_and_errors_come_first():
    tested = {kind for _, expected in FAULTS for kind in expected}
    others = {"image changed since its import"}  # below
    others |= {"no image", "no query", "no attributes", "unknown split", "contradiction"}  # in test_rules
    others |= {"empty box", "box outside the image", "box reaching out of its image", "incomplete box"}
    assert set(KINDS) - tested == others
    order = [SEVERITIES.index(severity) for severity, _ in KINDS.values()]
    assert order == sorted(order)


def test_details_say_what_is_there(tmp_path, clean):
    clean[0] |= {"width": 41, "x0": 39, "x1": 50}
    clean[1]["attributes"] = ["odd"]
    clean[19]["mask_value"] = 9
    (tmp_path / "3.png").unlink()
    details = {f["kind"]: f["items"][0]["detail"] for f in audit(write_rows(tmp_path, clean))["findings"]}
    assert details["image of another size"] == "41 x 20 pixels in the table, 40 x 20 in the file"
    assert details["box reaching out of its image"] == "box (39.0, 2.0, 50.0, 8.0) in an image of 40 x 20"
    assert details["mask without its target"] == "no pixel of it is 9"
    assert details["too many unusable images"] == "1 of 6 images (17%), expected at most 5%"
    assert details["rare attribute"] == "train 1"
    assert "3.png" in details["image file missing"]


def test_a_picture_that_changed_after_its_import(tmp_path, clean):
    import_table(write_rows(tmp_path, clean) / "manifest.jsonl", tmp_path / "set")
    Image.effect_noise((WIDTH + 1, HEIGHT), 9).save(tmp_path / "0.png")
    changed = {"image changed since its import": [IMAGE_0], "mask of another size": [(["mask0.png"], [1, 2])]}
    assert kinds_of(audit(tmp_path / "set")) == {**changed, **UNUSABLE}


def test_no_box_is_judged_where_the_size_is_unknown(tmp_path, clean):
    (tmp_path / "0.png").unlink()
    clean[0] |= {"x0": 60, "x1": 70}
    assert kinds_of(audit(write_rows(tmp_path, clean))) == {"image file missing": [IMAGE_0], **UNUSABLE}


@pytest.fixture
def random_table():
    rng = np.random.default_rng(1)
    words = np.array(["red", "old", "big", "new"])
    lists = [rng.choice(words, rng.integers(0, 4)).tolist() for _ in range(300)]
    return pa.table(
        {
            "image": rng.choice(["a", "b", "c"], 300).tolist(),
            "query": rng.choice(["x", "y"], 300).tolist(),
            "attributes": pa.array(lists, pa.list_(pa.string())),
            "split": rng.choice(SPLITS, 300).tolist(),
            "x0": [None if x == 2 else float(x) for x in rng.integers(0, 3, 300)],
        }
    )


def test_disagreements(random_table):
    table = random_table.drop_columns(["x0"]).slice(0, 40)
    objects = {}
    for row, cells in enumerate(table.to_pylist()):
        objects.setdefault((cells["image"], cells["query"]), {}).setdefault(frozenset(cells["attributes"]), []).append(
            row
        )
    expected = [sorted(chain(*answers.values())) for answers in objects.values() if len(answers) > 1]
    assert sorted(finding.rows for finding in checks.disagreements(table)) == sorted(expected)
    assert len(expected) > 3


def test_counts(random_table):
    counts = {}
    for row in random_table.to_pylist():
        for word in set(row["attributes"]):
            counts.setdefault(word, dict.fromkeys(SPLITS, 0))[row["split"]] += 1
    assert word_counts(random_table, "attributes") == counts
    assert list(word_counts(random_table, "attributes")) == sorted(counts)
    for split, size in sizes(random_table).items():
        table = [row for row in random_table.to_pylist() if row["split"] == split]
        assert size == {
            "rows": len(table),
            "images": len({row["image"] for row in table}),
            "queries": len({row["query"] for row in table}),
            "attributes": len({word for row in table for word in row["attributes"]}),
        }
    assert RARE == 5  # as the remedies say
