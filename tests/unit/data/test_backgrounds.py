"""Background photographs: the pack's splits, a user's folder, and whatever may lie in one."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progressive_attention.config import SPLITS
from progressive_attention.data import backgrounds as module
from progressive_attention.data import images
from progressive_attention.data.backgrounds import PACK, Photographs, hashed_split


def write_photographs(folder: Path, count: int = 20, size: tuple[int, int] = (120, 110)) -> Path:
    """Photographs of noise in nested folders, all formats in turn."""
    suffixes = (".jpg", ".PNG", ".webp", ".bmp", ".jpeg")
    for i in range(count):
        path = folder / f"walk {i % 3}" / f"photo-{i}{suffixes[i % 5]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.PCG64(i).random_raw(size[0] * size[1] * 3).astype(np.uint8)
        Image.fromarray(noise.reshape(size[1], size[0], 3)).save(path)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_photographs(tmp_path / "mine")


def names(photographs: Photographs) -> set[str]:
    return {path.name for path in photographs.paths}


def test_pack_splits_are_disjoint_and_complete():
    splits = {split: Photographs(split) for split in SPLITS}
    assert {split: len(photographs) for split, photographs in splits.items()} == {
        "train": 95,
        "validation": 32,
        "test": 32,
    }
    union = set.union(*map(names, splits.values()))
    assert union == {path.name for path in PACK.glob("*.jpg")}
    assert len(union) == 159
    assert len({photographs.fingerprint for photographs in splits.values()}) == 3
    assert splits["test"].fingerprint == Photographs("test").fingerprint


def test_authors_pool_all():
    pools = [Photographs(split, "authors") for split in SPLITS]
    assert all(len(pool) == 159 and pool.paths == pools[0].paths for pool in pools)
    assert len({pool.fingerprint for pool in pools}) == 1


def test_folder_is_read_recursively_in_every_format(folder, monkeypatch):
    photographs = Photographs("train", "authors", folder)
    assert len(photographs) == 20
    assert photographs.sizes == [(110, 120)] * 20
    assert photographs.paths == sorted(photographs.paths, key=lambda path: path.relative_to(folder).as_posix())
    bmp = photographs.paths.index(folder / "walk 0" / "photo-3.bmp")
    expected = np.random.PCG64(3).random_raw(120 * 110 * 3).astype(np.uint8).reshape(110, 120, 3)
    np.testing.assert_array_equal(photographs.load(bmp), expected)
    assert photographs.load(bmp) is photographs.load(bmp)
    monkeypatch.setattr(module, "CACHE_BYTES", 5 * 120 * 110 * 3 + 7)
    assert Photographs("train", "authors", folder).load.cache_info().maxsize == 5


def test_folder_splits_are_disjoint_and_stay_when_it_grows(folder):
    before = {split: names(Photographs(split, folder=folder)) for split in SPLITS}
    assert sum(map(len, before.values())) == len(set.union(*before.values())) == 20
    fixed = [hashed_split(name) for name in ("a.png", "b/c.jpg", "Übung.webp", "d.bmp", "e.jpeg")]
    assert fixed == ["train", "train", "train", "validation", "train"]  # in every release
    shares = Counter(hashed_split(f"photo-{i}.jpg") for i in range(20_000))
    np.testing.assert_allclose([shares[split] / 20_000 for split in SPLITS], [0.6, 0.2, 0.2], atol=0.01)
    write_photographs(folder, 30)
    for split in SPLITS:
        assert before[split] <= names(Photographs(split, folder=folder))


def test_fingerprint_of_a_folder(folder):
    first = Photographs("train", "authors", folder).fingerprint
    assert Photographs("train", "authors", folder).fingerprint == first
    path = folder / "walk 0" / "photo-3.bmp"
    os.utime(path, ns=(1, 1))
    touched = Photographs("train", "authors", folder).fingerprint
    path.rename(path.with_name("other.bmp"))
    renamed = Photographs("train", "authors", folder).fingerprint
    assert len({first, touched, renamed}) == 3


def test_unusable_photographs_are_counted_and_skipped(folder, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 22_000)
    Image.new("RGB", (99, 150)).save(folder / "narrow.png")
    Image.new("RGB", (150, 99)).save(folder / "low.jpg")
    Image.new("RGB", (100, 100)).save(folder / "exact.png")
    Image.new("RGB", (150, 150)).save(folder / "large.png")
    Image.new("RGB", (250, 250)).save(folder / "huge.png")
    (folder / "text.jpg").write_text("no photograph")
    (folder / "empty.webp").touch()
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")  # would be waited for
    (folder / "notes.txt").write_text("not looked at")
    expected = "mine: skipped 8 unreadable or smaller than 100 x 100 pixels; 21 photographs left"
    with pytest.warns(UserWarning, match=expected) as caught:
        photographs = Photographs("train", "authors", folder)
    assert len(caught) == 1
    assert len(photographs) == 21


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="nowhere: expected a folder of photographs, got no such folder; check --back"):
        Photographs("train", folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected photographs \(.jpg, .*\), got 0 .*; check --backgrounds"):
        Photographs("train", folder=tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").touch()
    with pytest.raises(ValueError, match="got 2 unreadable or smaller than 100 x 100 pixels; check --backgrounds"):
        Photographs("train", folder=tmp_path)


def test_every_split_needs_a_photograph(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    only = hashed_split("a.png")
    others = ", ".join(split for split in SPLITS if split != only)
    with pytest.raises(ValueError, match=f"for every split, got 1 in all and none for {others}; add some"):
        Photographs(only, folder=tmp_path)


def test_a_broken_photograph_is_named_when_it_is_loaded(folder):
    path = folder / "walk 0" / "photo-0.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    photographs = Photographs("train", "authors", folder)
    with pytest.raises(ValueError, match=r"photo-0.jpg can't be read as an image"):
        photographs.load(photographs.paths.index(path))
