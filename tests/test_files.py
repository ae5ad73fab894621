"""Files are whole or absent, whatever goes wrong while they are written."""

import errno
import os

import pytest

from progressive_attention import files
from progressive_attention.files import read_json, replacing, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_shows_the_new_file_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "deep" / "er" / "result.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # else the rename could cross file systems
        assert temporary.suffix == path.suffix
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["result.txt"]


def test_replacing_is_atomic_for_those_who_read(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # another file took the name; nobody sees half of each
    assert path.read_text() == "new"


def test_results_can_be_read_by_others(tmp_path):
    write_text(tmp_path / "result.txt", "shared")
    assert (tmp_path / "result.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_replacing_leaves_nothing_after_an_exception(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("where", ["fsync", "write"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "fsync":
        monkeypatch.setattr(files.os, "fsync", full)
    else:
        monkeypatch.setattr(files.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert names(tmp_path) == ["result.json"]


def test_json_comes_back_as_it_was(tmp_path):
    value = {"name": "gelb 黄", "numbers": [0.1, 1e-300, -3], "none": None, "yes": True}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


BROKEN = {"empty": b"", "cut": b'{"a": 1', "no text": b"\xff\xfe", "deep": b"[" * 100_000, "long": b"9" * 5000}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.json is not valid JSON \(.*\); it may be truncated, write or fetch it"):
        read_json(tmp_path / "a.json")


def test_missing_json_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"a.json does not exist"):
        read_json(tmp_path / "a.json")
