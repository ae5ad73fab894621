"""Qualitative figures of pan reproduce: of networks that differ in nothing else, as many as are there."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_jobs import CPU, jobs

from progressive_attention.network.build import from_config, model_config
from progressive_attention.pages import gallery
from progressive_attention.pages.gallery import SCENES, alike, draw_scenes, looked
from progressive_attention.reproduce.experiments import Grid
from progressive_attention.reproduce.jobs import folder_of, questions
from progressive_attention.saved import describe, load, save

COLOURS = ("red", "green", "blue", "yellow", "white")


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


def plain(*models, dataset="mref", seed=0, images=30, **changes):
    return Grid(models, (dataset,), seeds=(seed,), images=images, **changes).jobs()


def untrained(job, out):
    torch.manual_seed(0)
    model = from_config(model_config(job.model, 10, 5))
    save(folder_of(job, out), model.state_dict(), describe(model.config, tuple("0123456789"), COLOURS))


def names(some):
    return [job.model for job in some]


def test_networks_stand_in_the_order_of_the_tables_and_variants_are_left_out():
    assert names(alike(plain("pan-hard-ctx", "han", "pan-soft", "san"))) == ["san", "han", "pan-soft", "pan-hard-ctx"]
    assert alike(jobs("san", "han")) == alike([]) == []


def test_most_images_win_then_most_networks_then_the_first_seed():
    """Of a network its longest run stands: networks differ in the epochs that they need."""
    large = plain("san", images=60)
    assert alike([*plain("san", "han"), *large]) == large
    (han,), (short, san) = plain("han", epochs=2), [job for epochs in (3, 9) for job in plain("san", epochs=epochs)]
    assert alike([san, short, han]) == alike([short, san, han]) == [san, han]
    first, second, third = plain("san"), plain("san", "han", seed=1), plain("san", "han", seed=2)
    assert alike([*first, *third, *second]) == second
    assert alike([*plain("san", protocol="authors"), *second]) == second


def test_figures_of_what_is_there(tmp_path, monkeypatch):
    shown = {}
    draw = gallery.qualitative_figure
    monkeypatch.setattr(gallery, "qualitative_figure", lambda e, path: shown.update({path.stem: e}) or draw(e, path))
    some = [*plain("pan-hard-ctx", "san"), *plain("han", dataset="mbg")]
    for job in some:
        untrained(job, tmp_path)
    draw_scenes(some, tmp_path, CPU)
    found = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert found == ["qualitative-mbg.png", "qualitative-mref.png"]
    assert np.asarray(Image.open(tmp_path / "figures/qualitative-mref.png")).std() > 10
    examples = shown["qualitative-mref"]
    assert len(examples) == SCENES
    test = questions(some[0], "test")
    for row, example in enumerate(examples):
        assert list(example.answers) == ["SAN", "PAN[H]+CTX"]
        assert [len(look.after) for look in example.answers.values()] == [1, 4]
        np.testing.assert_array_equal(example.image, test.images[test.image[row]])
        assert [*example.truth] == [COLOURS[test.attribute[row]]]
        assert example.mask.sum() > 0
    assert [list(example.answers) for example in shown["qualitative-mbg"]] == [["HAN"]] * SCENES


def test_gated_features_are_the_features_times_the_gate(tmp_path):
    """Of a network whose gates are all one half, what is behind each gate is half of what is before it."""
    (job,) = plain("pan-soft")
    untrained(job, tmp_path)
    trained = load(folder_of(job, tmp_path))
    for scorer in trained.model.scorers.values():
        for parameter in scorer.parameters():
            torch.nn.init.zeros_(parameter)
    for look in looked(trained, questions(job, "test"), CPU):
        for before, after in zip(look.before[:-1], look.after[:-1], strict=True):
            assert before.shape == (100, 100)
            np.testing.assert_allclose(after, before / 2)
        np.testing.assert_allclose(look.after[-1], look.before[-1] / 16)
        assert look.answer in COLOURS
