"""The cache of rendered sets: it never lies, and leaves nothing half-written."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from rendered_sets import digest, noise_photographs

from progressive_attention.data import synthetic as module
from progressive_attention.data.synthetic import synthetic
from progressive_attention.files import temporary_for

Usage = namedtuple("Usage", "total used free")


def never(*_):
    raise AssertionError("rendered, though the cache holds it")


def folders(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


@pytest.fixture
def backgrounds(tmp_path_factory):
    return noise_photographs(tmp_path_factory.mktemp("backgrounds"))


def test_second_call_reads(tmp_path, monkeypatch):
    first = synthetic("mref", "train", images=3, cache_dir=tmp_path)
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


def truncate(folder):
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def corrupt_rows(folder):
    path = folder / "questions.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)


def another_shape(folder):
    np.save(folder / "owner.npy", np.zeros((100, 3, 100), np.uint8))


def flip_a_bit(folder):
    path = folder / "images.npy"
    content = bytearray(path.read_bytes())
    content[40_000] ^= 8
    path.write_bytes(content)


def another_spec(folder):
    path = folder / "key.json"
    path.write_text(path.read_text().replace("mref", "mbg"))


def not_json(folder):
    (folder / "key.json").write_text("{")


def no_sizes(folder):
    spec = json.loads((folder / "key.json").read_text())["spec"]
    (folder / "key.json").write_text(json.dumps({"spec": spec}))


DAMAGE = {
    truncate: "expected 90128 bytes in images.npy, got 90127",
    corrupt_rows: "expected sha256 [0-9a-f]{64} of questions.npz, got [0-9a-f]{64}",
    another_shape: r"expected \(3, 100, 100\) uint8 in owner.npy, got \(100, 3, 100\) uint8",
    flip_a_bit: "expected CRC-32 [0-9]+ of images.npy, got [0-9]+",
    another_spec: r"expected key.json of \[1, 'mref', .* got \[1, 'mbg'",
    not_json: "Expecting property name",
    no_sizes: "'bytes'",
    lambda folder: (folder / "key.json").write_text("[]"): "list indices",
    lambda folder: (folder / "key.json").unlink(): "No such file",
    lambda folder: (folder / "owner.npy").unlink(): "No such file",
}


@pytest.mark.parametrize("damage, reason", DAMAGE.items())
def test_a_damaged_folder_is_rendered_anew(tmp_path, damage, reason):
    expected = digest(synthetic("mref", "train", images=3, cache_dir=tmp_path))
    (folder,) = folders(tmp_path)
    damage(folder)
    with pytest.warns(UserWarning, match=rf"damaged \(.*{reason}.*\); rendering it anew"):
        assert digest(synthetic("mref", "train", images=3, cache_dir=tmp_path)) == expected
    assert folders(tmp_path) == [folder]
    assert digest(synthetic("mref", "train", images=3, cache_dir=tmp_path)) == expected


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


def test_another_process_leaves_rubbish_meanwhile(tmp_path):
    def meanwhile(*_):
        (temporary,) = folders(tmp_path)
        folder = tmp_path / temporary.name.split(".")[1]
        folder.mkdir()
        (folder / "rubbish").touch()

    synthetic("mref", "train", images=3, cache_dir=tmp_path, progress=meanwhile)
    (folder,) = folders(tmp_path)
    assert len(folders(folder)) == 4


def test_two_processes_at_once(tmp_path):
    code = (
        "from progressive_attention.data.synthetic import synthetic\n"
        f"print(int(synthetic('mdist', 'train', images=60, cache_dir={str(tmp_path)!r}).images.sum()))"
    )
    command, env = [sys.executable, "-c", code], {"PYTHONPATH": ":".join(sys.path)}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert results[0] == results[1]
    assert results[0][1] == b""
    assert len(folders(tmp_path)) == 1


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


@pytest.mark.filterwarnings("ignore:.*tasks:UserWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_photograph_stops_rendering_and_leaves_nothing(tmp_path, monkeypatch, backgrounds, workers):
    monkeypatch.setattr(module, "IN_PROCESS", 1)
    for path in folders(backgrounds):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="png: expected a whole image, got .*; replace it or remove it"):
        synthetic("mbg", "train", images=9, cache_dir=tmp_path, backgrounds=backgrounds, workers=workers)
    assert folders(tmp_path) == []


def test_a_killed_worker_is_told(tmp_path, monkeypatch):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "IN_PROCESS", 1)
    monkeypatch.setattr(module, "worker_chunk", die)
    with pytest.raises(OSError, match="a process that rendered scenes was killed, .*; the same command renders them"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path, workers=2)
    assert folders(tmp_path) == []


def test_leavings_of_a_killed_process_go_with_the_next_rendering(tmp_path):
    synthetic("mref", "train", images=3, cache_dir=tmp_path)
    (folder,) = folders(tmp_path)
    left = tmp_path / f".{folder.name}.pan-killed"
    left.mkdir()
    (left / "images.npy").touch()
    truncate(folder)
    with temporary_for(folder, folder=True) as alive:  # of another process, say
        with pytest.warns(UserWarning, match="rendering it anew"):
            synthetic("mref", "train", images=3, cache_dir=tmp_path)
        assert folders(tmp_path) == sorted([folder, alive])


FULL = r"no room for 3 images, 121800 bytes needed; free some, or choose another folder with cache_dir or .* PAN_CACHE"


def test_a_full_disk_is_noticed_before_rendering(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "render_chunk", never)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(10, 10, 121_799))
    with pytest.raises(OSError, match=FULL) as caught:
        synthetic("mref", "train", images=3, cache_dir=tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert folders(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_rendering(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, "full")

    monkeypatch.setattr(module, "render_chunk", fail)
    with pytest.raises(OSError, match=FULL):
        synthetic("mref", "train", images=3, cache_dir=tmp_path)
    assert folders(tmp_path) == []


def test_other_failures_pass_unchanged(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(module, "render_chunk", fail)
    with pytest.raises(OSError, match="the disk is dying"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path)
    assert folders(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path / "file")
