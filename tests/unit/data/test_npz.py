"""The user's own data in .npz files: names or ids, masks, scales, splits; bad ones say what is wrong."""

import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from progressive_attention.config import SPLITS
from progressive_attention.data.npz import from_npz
from progressive_attention.data.table import split_of

IMAGES = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
MINIMAL = {"images": IMAGES, "query": np.array([7, 10, 7]), "attribute": np.array([1, 0, 1])}
MINIMAL["attribute_names"] = np.array(["red", "old"])


def npz(tmp_path, **change):
    arrays = {name: array for name, array in {**MINIMAL, **change}.items() if array is not None}
    np.savez(tmp_path / "my.npz", **arrays)
    return tmp_path / "my.npz"


QUERIES = [
    ({}, ["7", "10", "7"], ("10", "7")),  # ids that are their own names
    ({"query": np.array(["car", "7", "car"])}, ["car", "7", "car"], ("7", "car")),
    ({"query": np.array([1, 0, 1]), "query_names": np.array(["car", "7", "dog"])}, ["7", "car", "7"], None),
    ({"query": np.array([0, 1, 0], np.uint8), "query_names": np.array([8, 9])}, ["8", "9", "8"], ("8", "9")),
]


@pytest.mark.parametrize("change, words, names", QUERIES)
def test_npz_queries(tmp_path, change, words, names):
    questions = from_npz(npz(tmp_path, **change))
    assert questions.name == "my.npz"
    assert questions.query_names == (names or ("car", "7", "dog"))
    assert [questions.query_names[i] for i in questions.query] == words
    assert questions.query.dtype == questions.attribute.dtype == np.int64
    assert_array_equal(questions.image, [0, 1, 2])
    assert_array_equal(questions.images, IMAGES)
    assert (questions.attribute_names, questions.attribute.tolist()) == (("red", "old"), [1, 0, 1])
    assert (questions.scale, questions.masks, questions.box) == (None, None, None)


def test_npz_attributes_by_name_masks_and_scales(tmp_path):
    mask = IMAGES[..., 0] % 5
    change = {"attribute": np.array(["old", "old", "red"]), "mask": mask, "scale": np.array([1, 2, 3])}
    questions = from_npz(npz(tmp_path, **change))
    assert_array_equal(questions.attribute, [1, 1, 0])
    assert_array_equal(questions.scale, [1.0, 2.0, 3.0])
    assert_array_equal(questions.masks[np.array([2, 0])], mask[[2, 0]] > 0)


def test_npz_splits(tmp_path):
    many = {"images": np.zeros((60, 2, 2, 3), np.uint8), "query": np.arange(60), "attribute": np.arange(60) % 2}
    path = npz(tmp_path, **many, scale=np.arange(60.0))
    parts = [from_npz(path, split) for split in SPLITS]
    rows = [part.scale.astype(int).tolist() for part in parts]
    assert sorted(np.concatenate(rows)) == list(range(60))
    assert rows == [[i for i in range(60) if split_of(str(i)) == split] for split in SPLITS]
    assert {part.query_names for part in parts} == {from_npz(path).query_names}
    with pytest.raises(ValueError, match="unknown split 'dev'; known: train, validation, test"):
        from_npz(path, "dev")
    with pytest.raises(ValueError, match=r"my\.npz has no images in split '\w+': 3 are too few to be split by hash"):
        [from_npz(npz(tmp_path), split) for split in SPLITS]


BAD_NPZ = [
    ({"attribute_names": None, "query": None}, r"lacks the arrays \['query', 'attribute_names'\]; it has \['attribute"),
    ({"images": IMAGES[..., 0]}, r"images must be \(N, H, W, 3\) uint8, got \(3, 4, 4\) uint8"),
    ({"images": IMAGES / 255}, r"images must be \(N, H, W, 3\) uint8, got \(3, 4, 4, 3\) float64"),
    (
        dict.fromkeys(("images", "query", "attribute"), np.uint8(1)),
        r"images must be \(N, H, W, 3\) uint8, got \(\) uint8",
    ),
    ({"query": np.arange(4)}, r"query must be \(3,\) beside images \(3, 4, 4, 3\), got \(4,\)"),
    ({"scale": np.ones(2)}, r"scale must be \(3,\) beside images .*got \(2,\)"),
    ({"scale": np.array(["a", "b", "c"])}, "scale must hold numbers, got <U1"),
    ({"mask": np.ones((3, 4, 5), bool)}, r"mask must be \(3, 4, 4\) beside images .*got \(3, 4, 5\)"),
    ({"attribute": np.array([0, 1, 2])}, r"attribute ids must be in 0\.\.1, got 0\.\.2"),
    ({"attribute": np.array([0, -1, 1])}, r"attribute ids must be in 0\.\.1, got -1\.\.1"),
    ({"attribute": np.array(["red", "new", "old"])}, r"unknown attribute in .*my\.npz 'new'; known: red, old"),
    ({"query": np.array([0.0, 1.0, 2.0])}, "query must hold integer ids or names, got float64"),
    ({"attribute_names": np.array(["red", "red"])}, r"attribute_names must be distinct names \(n,\), got <U3 \['red"),
    (
        {"query": np.array([7, "car", None], object)},
        r"can't be read as an \.npz of plain arrays \(it is something else, or holds Python objects\)",
    ),
    ({k: v[:0] for k, v in MINIMAL.items() if k != "attribute_names"}, r"images must be .* got \(0, 4, 4, 3\)"),
]


@pytest.mark.parametrize("change, message", BAD_NPZ, ids=[message[:24] for _, message in BAD_NPZ])
def test_bad_npz(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"(?s)(?=.*my\.npz).*" + message):
        from_npz(npz(tmp_path, **change))


@pytest.mark.parametrize(
    "name, kind, shape, reason",
    [
        ("images", "|u1", (10**9, 10**4, 10**4, 3), ""),
        ("attribute_names", "|S0", (10**13,), "attribute_names holds 10000000000000 elements of no bytes"),
    ],
)
def test_an_array_that_would_fill_the_memory(tmp_path, name, kind, shape, reason):
    """Its header says so; there are but a few bytes."""
    path = npz(tmp_path, **{name: None})
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(9))
    with pytest.raises(ValueError, match=rf"my\.npz can't be read as an \.npz of plain arrays \({reason}"):
        from_npz(path)


def test_broken_npz(tmp_path):
    path = npz(tmp_path)
    whole = path.read_bytes()
    np.savez_compressed(path, **MINIMAL)
    packed = bytearray(path.read_bytes())
    packed[150:170] = bytes(20)
    np.save(path.with_name("lone.npy"), IMAGES)
    for content in (whole[:-30], whole[:200], b"", b"no zip", packed, path.with_name("lone.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"my\.npz can't be read as an \.npz of plain arrays \("):
            from_npz(path)
    with pytest.raises(ValueError, match=r"gone\.npz does not exist; give the path of an \.npz file"):
        from_npz(tmp_path / "gone.npz")


def test_an_npz_with_what_is_no_character(tmp_path):
    """Numbers beyond Unicode's last, which NumPy keeps as words."""
    words = np.full(2, 0xFFFFFFFF, np.uint32).view("<U1")
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, query=words, attribute=words, attribute_names=words)
    with pytest.raises(ValueError, match=r"a.npz can't be read as an .npz of plain arrays"):
        from_npz(tmp_path / "a.npz")
