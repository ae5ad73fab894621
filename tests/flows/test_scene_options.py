"""What says how scenes are drawn is refused where none are, by `pan` and in Python, and seeds have one bound."""

from pathlib import Path

import pytest
from own_folder import own_folder, scenes
from wrong_commands import error_of

from progressive_attention.cli import main
from progressive_attention.config import LARGEST_SEED
from progressive_attention.data.scene_cache import synthetic
from progressive_attention.data.scenes import SceneSource
from progressive_attention.data.sources import load_questions
from progressive_attention.evaluation.kept import source_of

__all__ = ["own_folder", "scenes"]  # fixtures


@pytest.mark.parametrize("option", [("--images", "30"), ("--protocol", "paper"), ("--backgrounds", "none")])
def test_options_of_scenes_with_data_of_ones_own(photograph_folder, scenes, capsys, option):
    asked = f"{option[0]} is about scenes that are drawn (mref, mdist, mbg), not about "
    train = "train", "--data", str(photograph_folder), "--out", "r"
    assert asked in error_of(capsys, *train, *option)
    assert asked in error_of(capsys, "evaluate", "--weights", "mref-san", "--data", str(scenes), *option)
    assert not Path("r").exists()


def test_a_training_on_data_of_ones_own_has_a_seed(photograph_folder, capsys):
    train = "train", "--data", str(photograph_folder), "--out", "r", "--seed", "3", "--epochs", "1", "--device", "cpu"
    assert main([*train, "--model", "san"]) == 0
    assert '"seed": 3' in Path("r/config.json").read_text()
    capsys.readouterr()
    assert "--seed is about" in error_of(
        capsys, "evaluate", "--weights", "r", "--data", str(photograph_folder), "--seed", "3"
    )


@pytest.mark.parametrize("given", [{"images": 4}, {"protocol": "authors"}, {"backgrounds": Path("none")}])
def test_how_scenes_are_drawn_in_python(photograph_folder, scenes, given):
    for data in photograph_folder, scenes:
        with pytest.raises(ValueError, match=f"^{next(iter(given))}: only for scenes that are drawn .*; leave it out$"):
            load_questions(data, "train", **given)


def test_a_network_of_scenes_takes_nothing_of_them_to_other_data(scenes):
    about = {"model": {"image_size": 100}, "data": "mref", "protocol": "authors", "seed": 3, "images": 30}
    about["attribute_names"] = ["red"]
    assert source_of(about)["images"] == 60
    assert source_of(about, "mbg")["protocol"] == "authors"
    assert source_of(about, str(scenes)) == {"split": None, "image_size": 100, "data": str(scenes)}


@pytest.mark.parametrize("images", [1.5, "30", True])
def test_images_are_a_whole_number(images):
    with pytest.raises(ValueError, match="images must be a whole number, got "):
        load_questions("mref", "train", images=images)


def test_backgrounds_are_for_mbg(capsys):
    told = "backgrounds are for mbg, got them for mref; leave --backgrounds out"
    given = "--backgrounds", "none"
    assert told in error_of(capsys, "render", "mref", *given)
    assert told in error_of(capsys, "train", "--data", "mref", "--out", "r", *given)
    assert told in error_of(capsys, "evaluate", "--weights", "mref-san", *given)
    assert not Path("r").exists()


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1])
def test_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match=f"seed must be >= 0 and at most 100,000,000, got {seed}"):
        SceneSource("mref", "test", seed=seed)


def test_largest_seed():
    assert len(synthetic("mref", "test", seed=LARGEST_SEED, images=6)) == 2
