"""``--data`` leads to the right reader, and questions change words without changing meaning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.data.manifest import from_folder
from progressive_attention.data.npz import from_npz
from progressive_attention.data.questions import QuestionSet
from progressive_attention.data.sources import in_words_of, load_questions


def same(one, other):
    """Two question sets hold the same."""
    assert (one.name, one.query_names, one.attribute_names) == (other.name, other.query_names, other.attribute_names)
    for column in ("images", "image", "query", "attribute", "scale", "box"):
        assert_array_equal(getattr(one, column), getattr(other, column))


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (6, 3), (9, 8, 7)).save(tmp_path / "a.png")
    rows = ["a.png,7,red,train", "a.png,8,old,train", "a.png,8,red,test"]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,query,attribute,split", *rows]))
    return tmp_path


def test_folders(folder):
    same(load_questions(str(folder)), from_folder(folder, "test", 100))
    train = load_questions(folder, "train", image_size=12, queries="one")
    same(train, from_folder(folder, "train", 12))
    assert len(train) == 2  # in the user's own data every row is asked


def test_npz(tmp_path):
    path = tmp_path / "scenes.npz"
    arrays = {"query": np.arange(40), "attribute": np.arange(40) % 2, "attribute_names": np.array(["red", "old"])}
    np.savez(path, images=np.zeros((40, 3, 3, 3), np.uint8), **arrays)
    assert len(load_questions(path)) == 40
    same(load_questions(str(path)), from_npz(path))
    same(load_questions(path, "train"), from_npz(path, "train"))


@pytest.mark.parametrize("data", ["mnist", "no/such/folder", "scenes.npy", ""])
def test_unknown_data(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes.npy").write_bytes(b"")
    message = rf"unknown data '{data}'; known: mref, mdist, mbg, a folder with a manifest, or an \.npz file"
    if not data:  # the empty path is the folder one stands in
        message = "holds 0 manifests, expected one of manifest.parquet, manifest.csv, manifest.jsonl"
    with pytest.raises(ValueError, match=message):
        load_questions(data)
    with pytest.raises(ValueError, match=r"gone\.npz does not exist"):
        load_questions("gone.npz")


WORDS = ("7", "car", "dog", "old", "red")


@st.composite
def questions_and_names(draw):
    """Questions that use some of their words, and a network's words that hold all used ones, in any order."""
    count = draw(st.integers(0, 8))
    ids = st.lists(st.integers(0, 2), min_size=count, max_size=count)
    query, attribute = np.array(draw(ids), np.int64), np.array(draw(ids), np.int64)
    own = [tuple(draw(st.permutations(WORDS))[:3]) for _ in range(2)]
    images = np.zeros((1, 2, 2, 3), np.uint8)
    questions = QuestionSet("q", images, np.zeros(count, np.int64), query, attribute, *own)
    names = []
    for used, words in zip((query, attribute), own, strict=True):
        known = [w for w in draw(st.permutations(WORDS)) if w in {words[i] for i in used} or draw(st.booleans())]
        names.append(tuple(known))
    return questions, *names


@settings(deadline=None)
@given(questions_and_names())
def test_other_ids_same_words(drawn):
    questions, query_names, attribute_names = drawn
    mapped = in_words_of(questions, query_names, attribute_names)
    assert (mapped.query_names, mapped.attribute_names) == (query_names, attribute_names)
    for column in ("query", "attribute"):
        before, after = [[getattr(q, f"{column}_names")[i] for i in getattr(q, column)] for q in (questions, mapped)]
        assert before == after
        assert getattr(mapped, column).dtype == np.int64
    assert mapped.images is questions.images
    same(in_words_of(mapped, questions.query_names, questions.attribute_names), questions)


def test_words_never_learnt():
    images, rows = np.zeros((1, 2, 2, 3), np.uint8), np.arange(3)
    questions = QuestionSet("q/test", images, rows * 0, rows, rows % 2, ("7", "car", "dog"), ("red", "old", "wet"))
    message = r"^q/test: unknown query \['car', 'dog'\]; this network knows: 7, cup$"
    with pytest.raises(ValueError, match=message):
        in_words_of(questions, ("7", "cup"), ("red", "old"))
    with pytest.raises(ValueError, match=r"^q/test: unknown attribute \['old'\]; this network knows: red, wet$"):
        in_words_of(questions, ("dog", "7", "car"), ("red", "wet"))
    in_words_of(questions, ("dog", "7", "car"), ("old", "red"))  # nothing is wet here
