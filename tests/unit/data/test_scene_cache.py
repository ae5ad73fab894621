"""The cache of rendered sets: it never lies, leaves nothing half-written, and stays valid from version to version."""

import errno
import json
import os
import signal
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from rendered_sets import digest, noise_photographs

from progressive_attention.data import scene_cache as module
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.data.scenes import SceneSource


def never(*_):
    raise AssertionError("rendered, though the cache holds it")


def folders(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


@pytest.fixture
def backgrounds(tmp_path_factory):
    return noise_photographs(tmp_path_factory.mktemp("backgrounds"))


def test_a_second_call_reads_what_the_first_or_an_earlier_version_wrote(tmp_path, monkeypatch):
    """Into a folder of this name, with a key.json that had more in it."""
    first = synthetic("mref", "train", images=3, cache_dir=tmp_path)
    (folder,) = folders(tmp_path)
    assert folder.name == "mref-train-79b286033a4ebed2"
    stated = json.loads((folder / "key.json").read_text())
    assert stated["spec"] == [1, "mref", "train", "paper", 0, 3, *SceneSource("mref", "train").fingerprint]
    (folder / "key.json").write_text(json.dumps({**stated, "crc32": {"questions.npz": 7}}))
    monkeypatch.setattr(module, "render_chunk", never)
    again = synthetic("mref", "train", images=3, cache_dir=str(tmp_path))
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert digest(again) == digest(first)


def test_all_that_determines_pixels_is_in_the_key(tmp_path, backgrounds, monkeypatch):
    def render(style="mref", split="test", **choices):
        before = set(folders(tmp_path))
        synthetic(style, split, **{"images": 3, "cache_dir": tmp_path, **choices})
        return len(set(folders(tmp_path)) - before)

    assert render() == 1
    assert render() == 0
    assert render(queries="all") == render(workers=2) == 0  # these change no pixel
    assert render(images=6) == render(seed=1) == render("mdist") == render(split="train") == 1
    assert render(protocol="authors") == 1
    assert render(protocol="authors", split="train") == 0
    assert render("mbg") == 1
    assert render("mbg", backgrounds=backgrounds) == 1
    assert render("mbg", backgrounds=backgrounds) == 0
    for i in range(12):
        (backgrounds / f"{i}.png").rename(backgrounds / f"{i}-renamed.png")
    assert render("mbg", backgrounds=backgrounds) == 1
    monkeypatch.setattr(module, "RENDERER", 0)
    assert render() == 1


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAN_CACHE", raising=False)
    synthetic("mref", "test", images=1)
    assert len(folders(tmp_path / "home" / ".cache" / "progressive_attention")) == 1
    monkeypatch.setenv("PAN_CACHE", "~/elsewhere")
    synthetic("mref", "test", images=1)
    assert len(folders(tmp_path / "home" / "elsewhere")) == 1


def flip_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 8
    path.write_bytes(content)


def another_spec(folder):
    path = folder / "key.json"
    path.write_text(path.read_text().replace("mref", "mbg"))


DAMAGE = {
    "cut": lambda folder: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-1]),
    "flipped row": lambda folder: flip_a_bit(folder / "questions.npz", 200),
    "another spec": another_spec,
    "not an object": lambda folder: (folder / "key.json").write_text("[]"),
    "no masks": lambda folder: (folder / "owner.npy").unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_rendered_again(tmp_path, kind):
    expected = digest(synthetic("mref", "train", images=3, cache_dir=tmp_path))
    (folder,) = folders(tmp_path)
    DAMAGE[kind](folder)
    with pytest.warns(UserWarning, match=r"damaged \(.*\); rendering it again"):
        assert digest(synthetic("mref", "train", images=3, cache_dir=tmp_path)) == expected
    assert folders(tmp_path) == [folder]
    assert digest(synthetic("mref", "train", images=3, cache_dir=tmp_path)) == expected  # without a warning


def test_another_process_wins_the_race(tmp_path):
    theirs = []

    def meanwhile(*_):
        if not theirs:
            theirs.append(None)
            theirs[0] = synthetic("mref", "train", images=3, cache_dir=tmp_path)
            (folder,) = [path for path in folders(tmp_path) if ".pan-" not in path.name]
            theirs.append(((folder / "images.npy").stat().st_ino, folder))

    ours = synthetic("mref", "train", images=3, cache_dir=tmp_path, progress=meanwhile)
    inode, folder = theirs[1]
    assert folders(tmp_path) == [folder]
    assert (folder / "images.npy").stat().st_ino == inode
    assert digest(ours) == digest(theirs[0])


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, monkeypatch, backgrounds):
    (backgrounds / "broken.png").touch()
    monkeypatch.setattr(module, "IN_PROCESS", 1)
    monkeypatch.setattr(module, "CHUNK", 9)
    files = []
    for workers in (1, 2):
        calls, cache = [], tmp_path / str(workers)
        options = {"images": 50, "backgrounds": backgrounds, "cache_dir": cache, "workers": workers}
        with pytest.warns(UserWarning, match="skipped 1 unreadable"):
            synthetic("mbg", "train", **options, progress=lambda *call, calls=calls: calls.append(call))
        (folder,) = folders(cache)
        files.append([(path.name, sha256(path.read_bytes()).hexdigest()) for path in folders(folder)])
        assert len(calls) == 6
        assert sorted(calls)[-1] == calls[-1] == (50, 50)
    assert files[0] == files[1]
    assert [name for name, _ in files[0]] == ["images.npy", "key.json", "owner.npy", "questions.npz"]


@pytest.mark.filterwarnings("ignore:.*tasks:UserWarning")  # joblib counts what it cancels
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(module, "IN_PROCESS", 1)
    monkeypatch.setattr(module, "CHUNK", 5)

    def interrupt(*_):
        assert len(folders(tmp_path)) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic("mref", "train", images=40, cache_dir=tmp_path, workers=workers, progress=interrupt)
    assert folders(tmp_path) == []


def test_a_broken_photograph_stops_rendering_and_leaves_nothing(tmp_path, backgrounds):
    for path in folders(backgrounds):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"png can't be read as an image"):
        synthetic("mbg", "train", images=9, cache_dir=tmp_path, backgrounds=backgrounds)
    assert folders(tmp_path) == []


def test_a_killed_worker_is_an_error(tmp_path, monkeypatch):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "IN_PROCESS", 1)
    monkeypatch.setattr(module, "render_chunk", die)
    with pytest.raises(OSError, match="a process that rendered scenes was killed, .* memory ran out"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path, workers=2)
    assert folders(tmp_path) == []


def test_a_disk_that_fails_while_rendering(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(module, "render_chunk", fail)
    with pytest.raises(OSError, match=r"the disk is full.*choose another folder with cache_dir or .* PAN_CACHE"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path)
    assert folders(tmp_path) == []
