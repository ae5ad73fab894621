"""What is said of common mistakes, in a line that names what was wanted, what came, and what helps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_scene_options import own_folder, scenes
from tiny_photographs import write_photographs
from wrong_commands import error_of

from progressive_attention.cli import build_parser, main
from progressive_attention.data.npz import from_npz
from progressive_attention.evaluation.evaluate import evaluate
from progressive_attention.maps.pixel_maps import pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.network.build import build_model
from progressive_attention.predict.predictor import Predictor

__all__ = ["own_folder", "scenes"]  # fixtures


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (torch.rand(3, 100, 100), r"Tensor \(3, 100, 100\)"),
        (b"the bytes of a file", "bytes"),
        (None, "NoneType"),
        ([[1, 2]], "list"),
    ],
    ids=["tensor", "bytes", "none", "list"],
)
def test_a_picture_of_another_kind(image, got):
    expected = rf"^an image must be a path, a PIL image, or an array \(H, W, 3\) uint8; got {got}$"
    with pytest.raises(ValueError, match=expected):
        Predictor("mref-san", "cpu").ask(image, "7")


def test_a_network_without_its_words_is_not_evaluated(scenes):
    model = build_model("san", num_queries=10, num_attributes=5)
    expected = r"^expected a trained network .*weights\.load\(name_or_folder\) or Trained\(.*; got \w+Network$"
    with pytest.raises(ValueError, match=expected):
        evaluate(model, from_npz(scenes))


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("pan-hard", "san"), "4 attended layers and 0 transformers, this geometry 1 and 0"),
        (("san", "pan-hard"), "1 attended layers and 0 transformers, this geometry 4 and 0"),
        (("stn-s", "san"), "0 attended layers and 1 transformers, this geometry 1 and 0"),
        (("stn-m", "stn-s"), "0 attended layers and 4 transformers, this geometry 0 and 1"),
    ],
)
def test_maps_by_another_networks_geometry(names, counts):
    asked, other = (build_model(name, num_queries=2, num_attributes=2).eval() for name in names)
    prediction = asked(torch.rand(1, 3, 100, 100), torch.tensor([[1]]))
    pixel_maps(prediction, geometry(asked))
    expected = rf"^the prediction has {counts}; take geometry\(model\) of the model that predicted$"
    with pytest.raises(ValueError, match=expected):
        pixel_maps(prediction, geometry(other))


def test_data_of_another_kind_is_told_once(tmp_path, capsys):
    write_photographs(tmp_path / "set", images=12, many=True)
    assert "holds bernoulli answers" in error_of(
        capsys, "evaluate", "--weights", "mref-san", "--data", "set", "--split", "train"
    )


def test_vectors_in_no_npz(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save("mine.png")
    asked = "predict", "--weights", "mref-san", "mine.png", "--query", "7", "--query-embeddings", "mine.png"
    told = "mine.png can't be read as an .npz of plain arrays (it is something else, or holds Python objects); "
    assert told + "numpy.savez writes one" in error_of(capsys, *asked)


@pytest.mark.filterwarnings("default")
def test_skipped_photographs_are_a_note(tmp_path, capsys):
    Path("photographs").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (120, 120, 3), np.uint8)).save(f"photographs/{i}.png")
    Path("photographs/broken.png").touch()
    assert main(["render", "mbg", "--count", "2", "--backgrounds", "photographs"]) == 0
    error = capsys.readouterr().err
    assert "photographs: skipped 1 unreadable; 20 photographs left\n" in error
    assert "Warning" not in error


def test_every_output_and_device_has_a_help():
    (commands,) = (action for action in build_parser()._actions if hasattr(action, "choices") and action.choices)
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.dest in ("out", "device", "rows"):
                assert action.help, (name, action.dest)
                assert action.required or "default: " in action.help or action.dest == "rows", (name, action.dest)
