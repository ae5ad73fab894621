"""Files are whole or absent, whatever goes wrong while they are written."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from progressive_attention import files
from progressive_attention.files import read_json, read_tensors, replacing, temporary_for, write_json, write_tensors


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


def test_json_holds_a_list_of_numbers_on_one_line(tmp_path):
    value = {
        "text": "[\n 1,\n 2\n]",
        "curves": [[0.5, None, 1], []],
        "words": ["a [\n 1", "b"],
        "of": [{"a": [1, True]}],
    }
    write_json(tmp_path / "a.json", value)
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert "  [0.5, null, 1]," in lines
    assert '   "a": [1, true]' in lines
    assert read_json(tmp_path / "a.json") == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_comes_back_as_it_was(value):
    with TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", value)
        assert read_json(Path(folder) / "a.json") == value


BROKEN = {"empty": b"", "cut": b'{"a": 1', "no text": b"\xff\xfe", "deep": b"[" * 100_000, "long": b"9" * 5000}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.json is not valid JSON \(.*\); it may be truncated, write or fetch it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path, folder):
    path, user = tmp_path / "table[1].json", tmp_path / ".table[1].json.swp"
    user.touch()  # an editor's
    child = os.fork()
    if not child:
        with temporary_for(path, folder):
            os._exit(9)  # as a kill: nothing is taken away
    os.waitpid(child, 0)
    (left,) = set(tmp_path.iterdir()) - {user}
    assert left.is_dir() == folder
    with temporary_for(path, folder) as first, temporary_for(path, folder) as second:
        assert set(tmp_path.iterdir()) == {user, first, second}
        first.rename(path)
    assert set(tmp_path.iterdir()) == {user, path}


def test_a_flipped_bit_in_any_byte_of_tensors_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"none": torch.zeros(0, 2), "one": torch.tensor(3, dtype=torch.bfloat16), "two": torch.eye(2) > 0}
    write_tensors(path, tensors, {"state": "12"})
    content = path.read_bytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            found, notes = read_tensors(path)
        except (SafetensorError, OSError, ValueError):
            continue
        notes = {key: value for key, value in notes.items() if len(value) < 64}  # the digest under another name
        assert notes == {"state": "12"}
        assert {name: (t.shape, t.dtype, t.tolist()) for name, t in found.items()} == {
            name: (t.shape, t.dtype, t.tolist()) for name, t in tensors.items()
        }
