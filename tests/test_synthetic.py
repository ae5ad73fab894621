"""Synthetic sets: which rows a split holds, the same bytes from any number of workers, and a cache that never lies."""

import errno
import json
import os
import subprocess
import sys
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progressive_attention.config import SPLITS, STYLES
from progressive_attention.data import synthetic as module
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.scenes import COLOURS
from progressive_attention.data.synthetic import SceneSource, synthetic, worker_source

Usage = namedtuple("Usage", "total used free")


def digest(questions: QuestionSet) -> str:
    """One hash of all that a set holds."""
    columns = (questions.image, questions.query, questions.attribute, questions.scale, questions.box)
    masks = questions.masks[np.arange(len(questions))]
    return sha256(b"".join(array.tobytes() for array in (questions.images, *columns, masks))).hexdigest()


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
    folder = tmp_path_factory.mktemp("backgrounds")
    for i in range(12):
        noise = np.random.PCG64(i).random_raw(130 * 120 * 3).astype(np.uint8).reshape(130, 120, 3)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


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


# --- cache ------------------------------------------------------------------------------------------------------------


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
            (folder,) = [path for path in folders(tmp_path) if ".tmp" not in path.name]
            theirs.append(((folder / "images.npy").stat().st_ino, folder))

    ours = synthetic("mref", "train", images=3, cache_dir=tmp_path, progress=meanwhile)
    inode, folder = theirs[1]
    assert folders(tmp_path) == [folder]
    assert (folder / "images.npy").stat().st_ino == inode
    assert digest(ours) == digest(theirs[0])


def test_another_process_leaves_rubbish_meanwhile(tmp_path):
    def meanwhile(*_):
        (temporary,) = folders(tmp_path)
        folder = tmp_path / temporary.name.split(".")[0]
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


def test_leavings_of_a_killed_process_go_after_a_day(tmp_path):
    synthetic("mref", "train", images=3, cache_dir=tmp_path)
    (folder,) = folders(tmp_path)
    old, young = (tmp_path / f"{folder.name}.tmp-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.mkdir()
        (path / "images.npy").touch()
    os.utime(old, (1, 1))
    truncate(folder)
    with pytest.warns(UserWarning, match="rendering it anew"):
        synthetic("mref", "train", images=3, cache_dir=tmp_path)
    assert folders(tmp_path) == [folder, young]


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
    with pytest.raises(NotADirectoryError):
        synthetic("mref", "train", images=3, cache_dir=tmp_path / "file")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"style": "mnist"}, "unknown style 'mnist'; known: mref, mdist, mbg"),
        ({"split": "val"}, "unknown split 'val'; known: train, validation, test"),
        ({"protocol": "fast"}, "unknown protocol 'fast'; known: paper, authors"),
        ({"queries": "some"}, "unknown queries 'some'; known: one, all, rows"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
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
