"""Synthetic sets: which rows a split holds, the same bytes from any number of workers, and a cache that never lies."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_sets import digest, noise_photographs

from progressive_attention.config import SPLITS, STYLES
from progressive_attention.data import synthetic as module
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.synthetic import SceneSource, synthetic, worker_source


def never(*_):
    raise AssertionError("rendered, though the cache holds it")


def folders(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("split, count", [("train", 12), ("validation", 4), ("test", 4)])
def test_paper_rows(tmp_path, style, split, count):
    source = SceneSource(style, split, seed=5)
    scenes = [source.scene(index) for index in range(count)]
    every = synthetic(style, split, queries="all", seed=5, images=12, cache_dir=tmp_path)
    one = synthetic(style, split, queries="one", seed=5, images=12, cache_dir=tmp_path)
    assert every.name == one.name == f"{style}/{split}"
    assert every.query_names == tuple("0123456789")
    assert every.attribute_names == COLOURS
    assert len(one) == len(every.images) == count
    np.testing.assert_array_equal(one.image, np.arange(count))
    np.testing.assert_array_equal(one.query, [scene.digits[scene.asked].number for scene in scenes])
    digits = [(index, k, digit) for index, scene in enumerate(scenes) for k, digit in enumerate(scene.digits)]
    assert len(every) == len(digits)
    masks = every.masks[np.arange(len(every))]
    for row, (index, k, digit) in enumerate(digits):
        image, owner = source.render(scenes[index])
        assert every.image[row] == index
        assert every.query[row] == digit.number
        assert every.attribute[row] == digit.colour
        assert every.scale[row] == digit.scale
        x0, y0, x1, y1 = every.box[row]
        assert (x0, y0, x1, y1) == (digit.x, digit.y, digit.x + digit.size, digit.y + digit.size)
        np.testing.assert_array_equal(masks[row], owner == k + 1)
        assert masks[row].sum() == masks[row, y0:y1, x0:x1].sum() > 0
        np.testing.assert_array_equal(every.images[index], image)
    asked = np.flatnonzero([k == scenes[index].asked for index, k, _ in digits])
    np.testing.assert_array_equal(one.masks[np.arange(count)], masks[asked])
    assert digest(synthetic(style, split, queries="rows", seed=5, images=12, cache_dir=tmp_path)) == digest(every)


def test_authors_rows(tmp_path):
    def rows(split, queries="rows"):
        return synthetic("mbg", split, protocol="authors", queries=queries, images=13, cache_dir=tmp_path)

    source = SceneSource("mbg", "test", "authors")
    scenes = [source.scene(index) for index in range(6)]
    numbers = [digit.number for scene in scenes for digit in scene.digits]
    images = [index for index, scene in enumerate(scenes) for _ in scene.digits]
    for split, part in (("train", slice(13)), ("validation", slice(13, 17)), ("test", slice(-4, None))):
        assert rows(split).name == f"mbg/{split}"
        np.testing.assert_array_equal(rows(split).query, numbers[part])
        np.testing.assert_array_equal(rows(split).image, images[part])
        assert digest(rows(split, "one")) == digest(rows(split))
    assert [folder.name[:9] for folder in folders(tmp_path)] == ["mbg-pool-"]
    assert {len(rows(split).images) for split in SPLITS} == {6}


@pytest.mark.parametrize("images", range(2, 12))
def test_authors_always_have_rows_enough(tmp_path, images):
    parts = [synthetic("mref", s, protocol="authors", images=images, cache_dir=tmp_path) for s in SPLITS]
    third = max(1, images // 3)
    assert [len(part) for part in parts] == [images, third, third]
    train, validation, test = ({(i, q) for i, q in zip(p.image, p.query, strict=True)} for p in parts)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_paper_splits_share_nothing():
    sources = [SceneSource("mbg", split) for split in SPLITS]
    photographs = [set(source.photographs.paths) for source in sources]
    assert len(set.union(*photographs)) == sum(map(len, photographs))
    assert len({source.scene(0) for source in sources}) == 3
    assert len({source.pool.images[0].tobytes() for source in sources}) == 3  # test_digits has the rest


def test_authors_share_one_pool_of_scenes():
    assert len({SceneSource("mbg", split, "authors").scene(3) for split in SPLITS}) == 1
    assert SceneSource("mref", "train", "authors").scene(3) != SceneSource("mref", "train").scene(3)


def test_a_scene_does_not_depend_on_how_many_there_are(tmp_path):
    few, many = (synthetic("mdist", "train", images=n, cache_dir=tmp_path) for n in (3, 6))
    np.testing.assert_array_equal(few.images, many.images[:3])


def test_uniform_true_positive_ratio(tmp_path):
    questions = synthetic("mref", "test", queries="all", images=900, cache_dir=tmp_path)
    assert 0.022 < questions.masks[np.arange(len(questions))].mean() < 0.025


# --- rendering --------------------------------------------------------------------------------------------------------


@pytest.fixture
def backgrounds(tmp_path_factory):
    return noise_photographs(tmp_path_factory.mktemp("backgrounds"))


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, monkeypatch, backgrounds):
    (backgrounds / "broken.png").touch()
    monkeypatch.setattr(module, "IN_PROCESS", 1)
    monkeypatch.setattr(module, "CHUNK", 9)
    files, calls = [], []
    for workers in (1, 2):
        with pytest.warns(UserWarning, match="skipped 1 unreadable"):
            synthetic(
                "mbg",
                "train",
                images=50,
                backgrounds=backgrounds,
                cache_dir=tmp_path / str(workers),
                workers=workers,
                progress=lambda *call: calls.append(call),
            )
        (folder,) = folders(tmp_path / str(workers))
        files.append([(path.name, sha256(path.read_bytes()).hexdigest()) for path in folders(folder)])
    assert files[0] == files[1]
    assert [name for name, _ in files[0]] == ["images.npy", "key.json", "owner.npy", "questions.npz"]
    for progress in (calls[:6], calls[6:]):
        assert len(progress) == 6
        assert progress[-1] == (50, 50)
        assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_workers_need_no_torch():
    code = "import sys, progressive_attention.data.synthetic; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_changed_photographs_stop_a_worker(backgrounds):
    source = SceneSource("mbg", "train", backgrounds=backgrounds)
    Image.new("RGB", (100, 100)).save(backgrounds / "0.png")
    with pytest.raises(ValueError, match="digits or photographs changed while rendering; start again"):
        worker_source(tuple(source.fingerprint), source.arguments)


def test_contact_sheet():
    source = SceneSource("mbg", "validation", seed=1)
    sheet = np.concatenate([source.render(source.scene(index))[0] for index in range(4)], axis=1)
    assert sheet.shape == (100, 400, 3)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"style": "mnist"}, "unknown style 'mnist'; known: mref, mdist, mbg"),
        ({"split": "val"}, "unknown split 'val'; known: train, validation, test"),
        ({"protocol": "fast"}, "unknown protocol 'fast'; known: paper, authors"),
        ({"queries": "some"}, "unknown queries 'some'; known: one, all, rows"),
        ({"seed": -1}, "seed must be >= 0 and at most 100,000,000, got -1"),
        ({"images": 0}, "images must be >= 1 for protocol 'paper', got 0"),
        ({"images": 1, "protocol": "authors"}, "images must be >= 2 for protocol 'authors', got 1"),
        ({"workers": 0}, "workers must be >= 1, got 0; None means one per processor"),
        ({"style": "mbg", "backgrounds": "/nowhere"}, "/nowhere: expected a folder of photographs"),
        ({"mnist_dir": "/nowhere"}, "/nowhere: expected train-images-idx3-ubyte"),
    ],
)
def test_errors(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**{"style": "mref", "split": "train", "cache_dir": tmp_path, **choices})
    assert folders(tmp_path) == []
