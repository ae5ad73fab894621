"""Tables with their pictures inside, as Hugging Face's datasets writes them."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.parquet_files import in_words
from progressive_attention.data.rows import import_table


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The package, which asks no network and writes into the test's folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = pytest.importorskip("datasets", reason="the package datasets is not installed")
    package.disable_progress_bars()
    return package


def noise(seed: int, width: int = 9, height: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def test_what_datasets_writes_is_imported(tmp_path: Path, datasets) -> None:
    """Pictures, class labels, one word or a list, nothing where nothing is known."""
    kinds = datasets.ClassLabel(names=["cat", "dog"])
    words = datasets.ClassLabel(names=["red", "old", "wet"])
    features = {"image": datasets.Image(), "query": kinds, "attributes": datasets.List(words)}
    rows = {"image": [noise(0), noise(1), noise(0)], "query": [1, 0, 0], "attributes": [[0, 2], [], [1]]}
    written = datasets.Dataset.from_dict(
        {**rows, "split": ["train", "validation", "test"]},
        datasets.Features({**features, "split": datasets.Value("string")}),
    )
    written.to_parquet(tmp_path / "pets.parquet")
    import_table(tmp_path / "pets.parquet", tmp_path / "pets")
    table = read_manifest(tmp_path / "pets").table.to_pydict()
    assert table["query"] == ["dog", "cat", "cat"]
    assert table["attributes"] == [["red", "wet"], [], ["old"]]
    assert table["image"][0] == table["image"][2] != table["image"][1]  # one file for one picture
    assert len(list((tmp_path / "pets/images").iterdir())) == 2
    images = from_folder(tmp_path / "pets", "train", 9).images
    np.testing.assert_array_equal(images[np.array([0])][0][1:8], np.asarray(noise(0)))


def write(path: Path, images: list, **columns: list) -> None:
    """A table by hand, pictures as they are given."""
    path.parent.mkdir(exist_ok=True)
    count = len(images)
    words = {"query": [f"q{i}" for i in range(count)], "attribute": ["red"] * count}
    parquet.write_table(pa.table({"image": pa.array(images), **words, **columns}), path)


def test_a_folders_files_are_splits_by_name(tmp_path: Path) -> None:
    names = {"train-00000-of-00002": 0, "train-00001-of-00002": 1, "val": 2, "test_it": 3}
    for name, seed in names.items():
        cell = {"bytes": png(noise(seed)), "path": None} if seed else png(noise(seed))  # bytes alone are pictures, too
        write(tmp_path / f"hub/{name}.parquet", [cell])
    about = import_table(tmp_path / "hub", tmp_path / "out")
    assert about["counts"]["splits"] == {"train": 2, "validation": 1, "test": 1}
    assert about["counts"]["images"] == 4


def test_broken_and_missing_pictures_reject_their_rows(tmp_path: Path) -> None:
    good = {"bytes": png(noise(0)), "path": "../../a.png"}  # its name leads nowhere
    rows = [good, {"bytes": b"no picture", "path": "b.png"}, {"bytes": None, "path": None}, None]
    write(tmp_path / "it.parquet", [*rows, {"bytes": None, "path": "../it.parquet"}])
    about = import_table(tmp_path / "it.parquet", tmp_path / "out")
    assert about["rejected"] == {"no image": 2, "image unreadable": 1, "image outside": 1}
    assert about["counts"]["images"] == 1
    details = parquet.read_table(tmp_path / "out/rejected.parquet")["detail"].to_pylist()
    assert [detail.split(":")[0] for detail in details] == ["row 2", "row 3", "row 4", "row 5"]


PICTURE = {"bytes": png(noise(0)), "path": None}
REJECTED = [
    ([{"bytes": b"no picture", "path": "b.png"}], {}, {}, r"no row of .*/it\.parquet can be used: image unreadable: 1"),
    ([PICTURE], {"colour": ["red"]}, {}, "has an unknown column 'colour'"),
    ([PICTURE], {}, {"images": Path(".")}, "has its images inside; leave out --images"),
    ([{"bytes": "text", "path": "a.png"}], {}, {}, "a picture's bytes must be binary, got str"),
]


@pytest.mark.parametrize("images, columns, options, message", REJECTED)
def test_nothing_is_left_of_a_rejected_import(tmp_path: Path, images, columns, options, message) -> None:
    write(tmp_path / "it.parquet", images, **columns)
    with pytest.raises(ValueError, match=message):
        import_table(tmp_path / "it.parquet", tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["it.parquet"]


def test_files_of_one_folder_are_one_table(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "hub").mkdir(exist_ok=True)
        noise(0).save(tmp_path / "hub" / name)
    write(tmp_path / "hub/train.parquet", ["a.png"])
    write(tmp_path / "hub/val.parquet", ["b.png"], scale=[1.0])
    import_table(tmp_path / "hub", tmp_path / "both")
    assert read_manifest(tmp_path / "both").table["scale"].to_pylist() == [None, 1.0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty can't be read: it holds no .parquet files"):
        import_table(tmp_path / "empty", tmp_path / "out")
    cells = [pa.array([word]) for word in ("a.png", "cat", "red", "a.png")]
    twice = pa.Table.from_arrays(cells, ["image", "query", "attribute", "image"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"has the columns \[.*, expected each once"):
        import_table(tmp_path / "twice.parquet", tmp_path / "out")


CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}
IMAGE = {"bytes": {"dtype": "binary", "_type": "Value"}, "path": {"dtype": "string", "_type": "Value"}}


@pytest.mark.parametrize(
    "features, query",
    [
        (b"{", "1"),
        (b'{"info": {"features": {"query": 3}}}', "1"),
        ({"query": CLASSES, "image": IMAGE}, "dog"),  # a struct, described by its fields
        ({"query": CLASSES, "attribute": [{"dtype": "string", "_type": "Value"}]}, "dog"),
        ({"query": {**CLASSES, "names": 5}}, "1"),
    ],
)
def test_one_feature_that_we_do_not_know_hides_no_other(features: dict | bytes, query: str, tmp_path: Path) -> None:
    noise(0).save(tmp_path / "a.png")
    table = pa.table({"image": ["a.png"], "query": [1], "attribute": ["red"]})
    note = features if isinstance(features, bytes) else json.dumps({"info": {"features": features}})
    parquet.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "it.parquet")
    import_table(tmp_path / "it.parquet", tmp_path / "out")
    assert read_manifest(tmp_path / "out").table["query"].to_pylist() == [query]


def test_what_is_no_number_of_a_class() -> None:
    assert in_words([1, -1, None, 0, 2], ["old", "red"]) == ["red", None, None, "old", "2"]
