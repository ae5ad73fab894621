"""Which questions a network is measured on, and where the rows and figures of that go."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from progressive_attention.evaluation.kept import name_of, read_notes, rows_path, source_of


def test_source_is_the_trainings_own():
    about = {"data": "mbg", "protocol": "authors", "seed": 4, "images": 50, "model": {"image_size": 100}}
    about["attribute_names"] = ["red", "green"]
    expected = {"split": None, "image_size": 100, "data": "mbg", "protocol": "authors", "seed": 4, "images": 100}
    assert source_of(about) == {**expected, "absent": False}
    assert source_of({**about, "attribute_names": ["red", "absent"]}) == {**expected, "absent": True}
    assert source_of({**about, "data": "mine"}) == {"split": None, "image_size": 100, "data": "mine"}
    for name, wrong in {"protocol": 1, "seed": "x", "images": [3]}.items():
        with pytest.raises(ValueError, match=f"{name} in config.json must be"):
            source_of({**about, name: wrong})
    assert source_of({"model": {"image_size": 64}}) == {"split": None, "image_size": 64}


def test_names_of_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [name_of("mref", None), name_of("data/birds/", "validation"), name_of("x/scenes.npz", None)]
    assert names == ["mref/test", "birds/validation", "scenes.npz"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    assert [rows_path("run", name).as_posix() for name in names] == [
        "run/evaluation/mref-test.parquet",
        "run/evaluation/birds-validation.parquet",
        "run/evaluation/scenes.parquet",
    ]


def test_notes_of_other_files(tmp_path):
    path = tmp_path / "rows.parquet"
    assert read_notes(path) == {}
    path.with_suffix(".json").write_text("{}")
    path.write_text("no rows")
    assert read_notes(path) == {}
    pyarrow.parquet.write_table(pa.table({"row": [1]}), path)
    assert read_notes(path) == {}
