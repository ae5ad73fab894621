"""An imported data set on disk: what is written is read back, whole or not at all, and moves with its images."""

import itertools
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from progressive_attention.data import table as module
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.table import BOX, REJECTED, SCHEMA, as_table, conform, write_dataset
from progressive_attention.files import read_json

FILES = ["dataset.json", "manifest.parquet", "rejected.parquet"]
ROWS = {
    "image": ["a.png", "b.png", "a.png"],
    "query": ["car", "dog", "07"],
    "attributes": [["red", "old"], [], ["red"]],
    "absent": [["wet"], None, []],
    "split": ["train", "test", "train"],
    "x0": [0.5, None, 1],
    "y0": [0, None, 2],
    "x1": [3, None, 7.25],
    "y1": [4, None, 8],
    "width": [8, 8, 8],
    "height": [8, None, 8],
    "id": [2**60, None, 3],
}
REFUSED = {
    "image": ["c.png", None, "d.png", "e.png"],
    "query": ["cup", None, None, "car"],
    "id": [1, None, 2, None],
    "reason": ["no image", "bad", "no image", "no image"],
    "detail": ["c.png", "line 3", "", "e"],
}


def rows(columns=None):
    return as_table(ROWS if columns is None else columns, SCHEMA)


def refused(columns=None):
    return as_table(REFUSED if columns is None else columns, REJECTED)


NONE = {name: [] for name in REJECTED.names}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in {"a": (9, 8, 7), "b": (1, 2, 3)}.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


def write(out, images, **changes):
    given = {"source": "test", "images": images, "masks": None, **changes}
    return write_dataset(out, rows(), refused(), **given)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_data_sets_folder(tmp_path, images):
    out = tmp_path / "deep" / "set"
    told = write(out, images, settings={"min_count": 3}, mended={"boxes": 2})
    assert names(out) == FILES
    assert names(out.parent) == ["set"]
    assert told == read_json(out / "dataset.json")
    assert told == {
        "format": 1,
        "source": "test",
        "images": str(images),
        "masks": None,
        "settings": {"min_count": 3},
        "mended": {"boxes": 2},
        "rows": 3,
        "rejected": {"no image": 3, "bad": 1},
    }
    assert list(told["rejected"]) == ["no image", "bad"]  # the most frequent first
    assert oct(out.stat().st_mode & 0o777) == "0o755"  # as any folder, though it was a temporary one
    assert parquet.read_table(out / "rejected.parquet").to_pydict() == REFUSED


def test_it_is_read_back_the_same(tmp_path, images):
    write(tmp_path / "set", images)
    manifest = read_manifest(tmp_path / "set")
    assert manifest.table.to_pydict() == ROWS
    assert manifest.table.schema == pa.schema([field for field in SCHEMA if field.name in ROWS])
    assert (manifest.name, manifest.images.root, manifest.masks.root) == ("set", images, tmp_path / "set")
    assert manifest.about["rows"] == 3


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter(str.strip)
lists = st.lists(words, max_size=3)
floats = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)
whole = st.none() | st.integers(0, 2**31 - 1)
ANY = {
    "image": words,
    "query": words,
    "attributes": lists,
    "absent": st.none() | lists,
    "split": st.sampled_from(["train", "validation", "test"]),
    **dict.fromkeys(BOX, floats),
    "mask": st.none() | words,
    "mask_value": whole,
    "mask_void": whole,
    "width": whole,
    "height": whole,
    "scale": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "id": st.none() | st.integers(-(2**63), 2**63 - 1),
}
numbers = itertools.count()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.fixed_dictionaries(ANY), min_size=1, max_size=6))
def test_any_rows_are_read_back_the_same(tmp_path, some):
    columns = {name: [row[name] for row in some] for name in ANY}
    out = tmp_path / str(next(numbers))
    write_dataset(out, rows(columns), refused(NONE), source="test", images=tmp_path, masks=None)
    assert read_manifest(out).table.to_pydict() == columns


def test_columns_are_put_in_order_and_into_their_types():
    given = pa.table({"id": pa.array([1], pa.int8()), "query": ["car"], "image": ["a.png"], "x0": pa.array([1.5])})
    assert conform(given, SCHEMA).schema == pa.schema([SCHEMA.field(name) for name in ("image", "query", "x0", "id")])
    with pytest.raises(AssertionError, match="colour"):
        conform(given.append_column("colour", [["red"]]), SCHEMA)


def test_a_set_without_rejected_rows(tmp_path, images):
    told = write_dataset(tmp_path / "set", rows(), refused(NONE), source="test", images=images, masks=None)
    assert told["rejected"] == {}
    assert parquet.read_table(tmp_path / "set" / "rejected.parquet").schema == REJECTED


# --- whole or not at all ----------------------------------------------------------------------------------------------


class Broken(Exception):
    """Nothing that anyone would catch."""


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_half_written(tmp_path, images, monkeypatch, call, there):
    """Failing at the first table, the second, or the last file."""
    out, calls = tmp_path / "sets" / "set", []
    if there:
        out.mkdir(parents=True)

    def failing(write):
        def wrapped(*args, **options):
            calls.append(1)
            write(*args, **options)
            if len(calls) == call:
                raise Broken

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(module.parquet, "write_table", failing(module.parquet.write_table))
        patch.setattr(module, "write_json", failing(module.write_json))
        with pytest.raises(Broken):
            write(out, images)
    assert len(calls) == call
    assert names(out.parent) == ["set"] * there
    assert not there or not names(out)
    write(out, images)  # and nothing is in the way of another try
    assert names(out) == FILES


def test_a_set_that_json_cannot_hold_leaves_nothing(tmp_path, images):
    with pytest.raises(TypeError):
        write(tmp_path / "sets" / "set", images, settings={"values": np.arange(3)})
    assert not names(tmp_path / "sets")


def test_an_empty_folder_is_taken(tmp_path, images):
    out = tmp_path / "set"
    out.mkdir()
    write(out, images)
    assert names(out) == FILES
    assert names(tmp_path) == ["images", "set"]


def test_a_link_to_an_empty_folder_is_taken(tmp_path, images):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    write(tmp_path / "set", images)
    assert names(tmp_path / "disk") == FILES
    assert (tmp_path / "set").is_symlink()


def test_the_folder_one_stands_in(tmp_path, images, monkeypatch):
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    write(module.Path("."), images)
    assert names(tmp_path / "set") == FILES
    assert names(tmp_path) == ["images", "set"]


@pytest.mark.parametrize("what", ["file", "folder", "hidden", "earlier"])
def test_nothing_is_replaced(tmp_path, images, what):
    out = tmp_path / "set"
    if what == "file":
        out.write_text("mine")
    elif what == "earlier":
        write(out, images)
    else:
        out.mkdir()
        (out / (".hidden" if what == "hidden" else "mine.txt")).write_text("mine")
    before = {path: path.read_bytes() for path in [out, *out.glob("*"), *out.glob(".*")] if path.is_file()}
    with pytest.raises(ValueError, match="set is there already and not empty; choose another --out, or delete it"):
        write(out, images)
    assert {path: path.read_bytes() for path in [out, *out.glob("*"), *out.glob(".*")] if path.is_file()} == before
    assert names(tmp_path) == ["images", "set"]


# --- where images are -------------------------------------------------------------------------------------------------


def test_a_set_with_its_images_can_be_moved(tmp_path, images):
    """Its images may come after it, as when they are unpacked there."""
    out = tmp_path / "set"
    told = write(out, out / "photos" / "2007", masks=out)
    assert (told["images"], told["masks"]) == ("photos/2007", ".")
    (out / "photos").mkdir()
    shutil.move(images, out / "photos" / "2007")
    for home in (out, tmp_path / "elsewhere"):
        if home != out:
            shutil.move(out, home)
        assert (from_folder(home, "train", 8).images[0] == (9, 8, 7)).all()
    assert read_manifest(tmp_path / "elsewhere").masks.root == tmp_path / "elsewhere"


def test_images_elsewhere_are_found_wherever_the_set_goes(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = write(module.Path("set"), module.Path("images"), masks=module.Path("set/../images"))
    assert (told["images"], told["masks"]) == (str(images), str(images))
    shutil.move("set", tmp_path / "deep")
    assert (from_folder(tmp_path / "deep", "test", 8).images[0] == (1, 2, 3)).all()


def test_a_longer_name_is_not_inside(tmp_path, images):
    (tmp_path / "sets").mkdir()
    assert write(tmp_path / "set", tmp_path / "sets")["images"] == str(tmp_path / "sets")


def test_json_keeps_names_of_any_language(tmp_path, images):
    told = write(tmp_path / "Straße", images, notes=["naïve 日本"])
    assert json.loads((tmp_path / "Straße" / "dataset.json").read_text(encoding="utf-8")) == told
