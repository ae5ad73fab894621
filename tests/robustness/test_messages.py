"""What is said of common mistakes: what was wanted, what came, and what helps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wrong_commands import error_of

from progressive_attention import Predictor, build_model, evaluate, pixel_maps
from progressive_attention.cli import main
from progressive_attention.maps.receptive_field import geometry


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or writes elsewhere than in its own folder."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("image", "got"), [(torch.rand(3, 9, 9), "Tensor"), (b"a file", "bytes"), ([[1, 2]], "list")])
def test_a_picture_of_another_kind(image, got):
    with pytest.raises(ValueError, match=rf"a path, a PIL image, or an array \(H, W, 3\) uint8; got {got}$"):
        Predictor("mref-san", "cpu").ask(image, "7")


def test_a_network_without_its_words_is_not_evaluated():
    model = build_model("san", num_queries=10, num_attributes=5)
    with pytest.raises(ValueError, match=r"a trained network .*saved\.load\(.* or Trained\(.*; got \w+Network$"):
        evaluate(model, None)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("pan-hard", "san"), "4 attended layers and 0 transformers, this geometry 1 and 0"),
        (("stn-m", "stn-s"), "0 attended layers and 4 transformers, this geometry 0 and 1"),
    ],
)
def test_maps_by_another_networks_geometry(names, counts):
    asked, other = (build_model(name, num_queries=2, num_attributes=2).eval() for name in names)
    prediction = asked(torch.rand(1, 3, 100, 100), torch.tensor([[1]]))
    pixel_maps(prediction, geometry(asked))
    with pytest.raises(ValueError, match=rf"{counts}; take geometry\(model\) of the model that predicted"):
        pixel_maps(prediction, geometry(other))


def test_vectors_in_no_npz(capsys):
    Image.new("RGB", (9, 9)).save("mine.png")
    asked = "predict", "--weights", "mref-san", "mine.png", "--query", "7", "--query-embeddings", "mine.png"
    assert "mine.png can't be read as an .npz of plain arrays" in error_of(capsys, *asked)


@pytest.mark.filterwarnings("default")
def test_skipped_photographs_are_a_note(tmp_path, capsys):
    Path("photographs").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (120, 120, 3), np.uint8)).save(f"photographs/{i}.png")
    Path("photographs/broken.png").touch()
    assert main(["render", "mbg", "--count", "2", "--backgrounds", "photographs"]) == 0
    error = capsys.readouterr().err
    assert "photographs: skipped 1 unreadable" in error
    assert "Warning" not in error
