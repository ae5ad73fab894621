"""Tables with their pictures inside: what Hugging Face's datasets reads and writes, it and we mean the same by it."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from progressive_attention.cli import main
from progressive_attention.data import hub_parquet
from progressive_attention.data.hub_parquet import export_parquet
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.parquet_files import in_words
from progressive_attention.data.rows import import_table
from progressive_attention.files import read_json

SPLITS = ("train", "validation", "test")


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of 4 images and 6 rows, with boxes and masks; one row has neither."""
    home = tmp_path / "set"
    home.mkdir()
    for i in range(4):
        noise(i).save(home / f"{i}.png")
        Image.fromarray(np.full((7, 9), i, np.uint8)).save(home / f"mask-{i}.png")
    rows = []
    for i in range(6):
        words = {"query": f"q{i % 3}", "attributes": ["red", "old"][: i % 3], "split": SPLITS[i % 4 // 2]}
        place = {"x0": i, "y0": 1.5, "x1": 8, "y1": 7, "mask": f"mask-{i % 4}.png"} if i else {}
        rows.append({"image": f"{i % 4}.png", **words, **place})
    (home / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def one_picture(folder: Path, rows: int, side: int) -> int:
    """A data set of one picture with many questions; returns the bytes of its file."""
    folder.mkdir()
    noise(0, side, side).save(folder / "a.png")
    lines = "".join(f"a.png,q{i},red,train\n" for i in range(rows))
    (folder / "manifest.csv").write_text("image,query,attribute,split\n" + lines)
    return (folder / "a.png").stat().st_size


def meaning(folder: Path) -> list[dict]:
    """A data set's rows, pictures as pixels, in any order."""
    manifest = read_manifest(folder)
    roots = {"image": manifest.images, "mask": manifest.masks}
    rows = manifest.table.select([n for n in manifest.table.column_names if n not in ("width", "height")]).to_pylist()
    for row in rows:
        for name, root in roots.items():
            if row.get(name):
                with root.open(row[name]) as file:
                    row[name] = np.asarray(Image.open(file)).tolist()
    return sorted(rows, key=repr)


# --- out --------------------------------------------------------------------------------------------------------------


def test_datasets_opens_what_is_exported(folder: Path, tmp_path: Path, datasets) -> None:
    assert export_parquet(folder, tmp_path / "out") == {"train": 4, "validation": 2}
    found = datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 4, "validation": 2}
    features = found["train"].features
    assert isinstance(features["image"], datasets.Image)
    assert isinstance(features["mask"], datasets.Image)
    assert features["attributes"].feature == datasets.Value("string")
    assert (features["x0"], features["query"]) == (datasets.Value("float32"), datasets.Value("string"))
    manifest = read_manifest(folder).rows_of("train")
    for row, stated in zip(found["train"], manifest.table.to_pylist(), strict=True):
        for name in ("image", "mask"):
            if stated[name] is None:
                assert row[name] is None
            else:
                expected = np.asarray(Image.open(folder / stated[name]))
                np.testing.assert_array_equal(np.asarray(row[name]), expected)


def test_exported_and_imported_again_it_is_the_same(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "export", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"{tmp_path / 'out'}: train.parquet 4 rows, validation.parquet 2 rows\n" in capsys.readouterr().out
    assert main(["data", "import", "parquet", str(tmp_path / "out"), "--out", str(tmp_path / "again")]) == 0
    assert read_json(tmp_path / "again/dataset.json")["images"] == "images"
    assert meaning(tmp_path / "again") == meaning(folder)
    for split in ("train", "validation"):
        ours, theirs = (from_folder(home, split, 16) for home in (folder, tmp_path / "again"))
        images = np.arange(len(ours.images))
        assert sorted(map(bytes, ours.images[images])) == sorted(map(bytes, theirs.images[images]))
    assert not list(tmp_path.glob(".*"))


def test_a_picture_with_many_questions_is_written_once_a_row_group(tmp_path: Path, monkeypatch) -> None:
    """Of few rows: Arrow can't read nested cells of 2 GiB, to which such a picture unfolds."""
    once = one_picture(tmp_path / "set", rows=50, side=200)
    export_parquet(tmp_path / "set", tmp_path / "out")
    assert once < (tmp_path / "out/train.parquet").stat().st_size < 1.2 * once
    monkeypatch.setattr(hub_parquet, "ROWS", 20)
    export_parquet(tmp_path / "set", tmp_path / "groups")
    with parquet.ParquetFile(tmp_path / "groups/train.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [20, 20, 10]
    import_table(tmp_path / "groups", tmp_path / "again")
    assert read_manifest(tmp_path / "again").table["query"].to_pylist() == [f"q{i}" for i in range(50)]


def test_an_export_is_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").write_text("secret")  # and of pictures only
    with pytest.raises(ValueError, match=r"3.png can't be read as an image"):
        export_parquet(folder, tmp_path / "out")
    (folder / "3.png").unlink()
    with pytest.raises(ValueError, match=r"3.png does not exist"):
        export_parquet(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(ValueError, match="is there already and not empty"):
        export_parquet(folder, folder)


# --- in ---------------------------------------------------------------------------------------------------------------


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


def test_files_of_one_folder_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "hub/train.parquet", ["a.png"])
    write(tmp_path / "hub/val.parquet", ["b.png"], scale=[1.0])
    with pytest.raises(ValueError, match=r"val.parquet has the columns .*'scale'.*, files before it"):
        import_table(tmp_path / "hub", tmp_path / "out")
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
