"""Exported files answer as their networks do, alone and in batches, and say what they are."""

import builtins
import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from tiny_models import PIXELS, build, sides
from torch.testing import assert_close

import progressive_attention
from progressive_attention.cli import main
from progressive_attention.config import MODELS
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.predict import export as module
from progressive_attention.predict.export import OneQuestion, export, largest_difference, random_questions
from progressive_attention.saved import Trained, describe, load

NAMES = tuple("abcde"), ("red", "große", "wet")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def trained(name: str, **changes) -> Trained:
    """A small network with its words."""
    model = build(name, **changes).eval()
    return Trained(model, *NAMES, describe(model.config, *NAMES))


def session_of(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(path, image: torch.Tensor, query: torch.Tensor) -> dict[str, torch.Tensor]:
    """All outputs of an .onnx file by name."""
    session = session_of(path)
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {"image": image.numpy(), "query": query.numpy()})
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


def asked_one_by_one(network: Trained, image: torch.Tensor, query: torch.Tensor) -> dict[str, torch.Tensor]:
    """The slow twin: each question by itself through the public model, in float64."""
    found: dict[str, list] = {}
    for one, word in zip(image.double(), query.tolist(), strict=True):
        prediction = network.model(one[None], torch.tensor([word]))
        each = {"log_prob": prediction.log_prob[0, 0]}
        for layer in range(len(prediction.attention)):
            each[f"attention_{layer + 1}"] = prediction.attention[layer][0, 0]
        maps = pixel_maps(prediction, geometry(network.model))
        shown = ["activation"] * (prediction.likelihood == "bernoulli") + ["flow", "accumulated"]
        each |= {f"attention_{name}": maps[name][0, 0] for name in shown if name in maps}
        for name, tensor in each.items():
            found.setdefault(name, []).append(tensor.detach().float())
    return {name: torch.stack(rows) for name, rows in found.items()}


# --- files and their networks -----------------------------------------------------------------------------------------

SHOWN = ("pan-hard-ctx", "stn-s", "concat")  # the others take the same ways


@pytest.fixture(scope="module")
def san(tmp_path_factory) -> tuple[Trained, Path]:
    """A small network of labels, and its file."""
    network, path = trained("san", likelihood="bernoulli"), tmp_path_factory.mktemp("export") / "deeper" / "it.onnx"
    assert 0 < export(network, path) <= 1e-4
    return network, path


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SHOWN else pytest.mark.slow) for n in MODELS])
def test_every_networks_file_answers_as_each_question_by_itself(name, tmp_path):
    network, path = trained(name), tmp_path / "it.onnx"
    export(network, path)
    image, query = random_questions(network.model, 7, seed=99)
    given = answers(path, image, query)
    assert_close(given, asked_one_by_one(network, image, query), **CLOSE)
    layers = [f"attention_{layer}" for layer in range(1, len(sides(name)) + 1)]
    maps = [] if name in ("film", "concat") else ["attention_accumulated"]
    maps = ["attention_flow", *maps] if layers else maps
    assert list(given) == ["log_prob", *layers, *maps]


@pytest.mark.parametrize("name", ["pan-hard-ctx", pytest.param("stn-m", marks=pytest.mark.slow)])
def test_torchs_file_answers_as_each_question_by_itself(name, tmp_path):
    network, path = trained(name), tmp_path / "it.pt2"
    assert export(network, path, "torch") <= 1e-4
    image, query = random_questions(network.model, 3, seed=99)
    words: dict = dict.fromkeys(module.notes(OneQuestion(network)), "")
    program = torch.export.load(path, extra_files=words)
    assert_close(program.module()(image, query), asked_one_by_one(network, image, query), **CLOSE)
    assert words == module.notes(OneQuestion(network))


def test_log_odds_beyond_what_float32_can_exponentiate(tmp_path):
    network = trained("pan-hard", likelihood="bernoulli")
    with torch.no_grad():
        network.model.classifier.bias.copy_(torch.tensor([-300.0, 0.0, 300.0]))
    assert export(network, tmp_path / "it.onnx") <= 1e-4
    image, query = random_questions(network.model, 2, seed=99)
    assert_close(answers(tmp_path / "it.onnx", image, query), asked_one_by_one(network, image, query), **CLOSE)


def test_any_number_of_images(san):
    network, path = san
    given, found = session_of(path).get_inputs(), session_of(path).get_outputs()
    assert {one.name: one.shape for one in given} == {"image": ["batch", 3, PIXELS, PIXELS], "query": ["batch"]}
    maps = ["attention_activation", "attention_flow", "attention_accumulated"]  # the one shown first goes first
    assert [one.name for one in found] == ["log_prob", "attention_1", *maps]
    assert [one.shape for one in found] == [["batch", 3], ["batch", 2, 2], *[["batch", PIXELS, PIXELS]] * 3]
    image, query = random_questions(network.model, 33)
    assert_close(answers(path, image, query), asked_one_by_one(network, image, query), **CLOSE)


# --- what a file says of itself ---------------------------------------------------------------------------------------


def test_a_file_says_what_it_knows(san):
    path = san[1]
    assert [file.name for file in path.parent.iterdir()] == ["it.onnx"]
    said = {name: json.loads(value) for name, value in session_of(path).get_modelmeta().custom_metadata_map.items()}
    assert said == {
        "query_names": ["a", "b", "c", "d", "e"],
        "attribute_names": ["red", "große", "wet"],
        "image_size": PIXELS,
        "likelihood": "bernoulli",
        "version": progressive_attention.__version__,
    }


@pytest.mark.slow
@pytest.mark.parametrize("format", module.FORMATS)  # a page: as its zlib packs it
def test_the_same_network_gives_the_same_bytes_anywhere(format, tmp_path):
    ending = module.FORMATS[format][0]
    network, paths = trained("han"), [tmp_path / name / f"{name}{ending}" for name in ("one", "other")]
    for path in paths:
        export(network, path, format)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert not [name for name in (str(tmp_path), module.__file__) if name.encode() in first]


# --- the check --------------------------------------------------------------------------------------------------------


def spoiled(asked: OneQuestion, output: str, by):
    def run(image, query):
        found = asked(image, query)
        return {**found, output: by(found[output])}

    return run


@pytest.mark.parametrize("output", ["log_prob", "attention_2", "attention_flow", "attention_accumulated"])
def test_the_difference_is_that_of_the_worst_output(output):
    asked = OneQuestion(trained("pan-hard-ctx"))
    assert largest_difference(asked, asked) < 1e-6
    assert largest_difference(asked, spoiled(asked, output, lambda t: t * 1.5)) == pytest.approx(0.5, abs=1e-4)
    assert not largest_difference(asked, spoiled(asked, output, lambda t: t * float("nan"))) <= 1


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    def wrong(path):
        run = module.run_onnx(path)
        return lambda image, query: {name: tensor + 0.01 for name, tensor in run(image, query).items()}

    monkeypatch.setitem(module.FORMATS, "onnx", (".onnx", module.onnx_file, wrong))
    with pytest.raises(ValueError, match=r"what onnx makes of this network differs from it by .*nothing was written"):
        export(trained("san"), tmp_path / "it.onnx")
    assert not list(tmp_path.iterdir())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mref-san", pytest.param("mref-pan", marks=pytest.mark.slow)])
def test_the_command_writes_a_shipped_network(name, tmp_path, capsys):
    path = tmp_path / "mref.onnx"
    assert main(["export", "--weights", name, "--format", "onnx", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{path}: {name} for images (B, 3, 100, 100) and queries 0..9 (B,), {path.stat().st_size:,} bytes" in said
    difference = float(said.split("batches of 1 to 5: ")[1].split()[0])
    assert 0 < difference < 5e-5  # of mref-pan, whose gates close, 1.6e-4 by onnxruntime's own sigmoid
    image, query = random_questions(load(name).model, 2)
    assert answers(path, image, query)["log_prob"].shape == (2, 5)


@pytest.mark.parametrize(
    "format, name, told",
    [
        ("onnx", "it.pt2", "a file of format onnx must end in .onnx, got "),
        ("torch", "it", "a file of format torch must end in .pt2, got "),
        ("tflite", "it.tflite", "unknown format 'tflite'; known: onnx, torch, web"),
    ],
)
def test_formats_and_endings(format, name, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        export(trained("san"), tmp_path / name, format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == package:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=rf"{package} is not installed; pip install 'progressive-attention\[export\]'"):
        export(trained("san"), tmp_path / "it.onnx")
    assert not list(tmp_path.iterdir())
