"""Experiments: what files say becomes jobs, and what is wrong in them is named with file, grid and key."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from progressive_attention.config import RECIPES, TARGETS
from progressive_attention.reproduce.experiments import FOLDER, Experiment, Grid, read_experiment


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_ships_is_understood_and_fits_into_one_folder():
    names = {name for names in TARGETS.values() for name in names}
    assert {path.stem for path in FOLDER.glob("*.toml")} == names
    for name in names:
        jobs = read_experiment(FOLDER / f"{name}.toml").jobs()
        assert len({job.name for job in jobs}) == len(jobs) > 0
        assert all(re.fullmatch(r"[\w.-]+", job.name) for job in jobs)
    grids = [grid for name in TARGETS["all"] for grid in read_experiment(FOLDER / f"{name}.toml").grids]
    jobs = Experiment("all", tuple(grids)).jobs()
    assert len({job.name for job in jobs}) == len(jobs)


def test_table_1_has_eight_networks_on_three_sets():
    jobs = read_experiment(FOLDER / "table1.toml").jobs()
    assert len(jobs) == 24
    assert len({(job.model, job.dataset) for job in jobs}) == 24
    plain = {(job.variant, job.recipe.name, job.protocol, job.seed, job.images) for job in jobs}
    assert plain == {("", "fast", "paper", 0, 30_000)}


def test_names_of_plain_jobs_stay():
    """State on disk is found by them: a change would orphan what was trained before."""
    (job,) = Grid(("san",), ("mref",)).jobs()
    fast = RECIPES["fast"]
    assert job.name == f"mref-san-paper-fast-30000x{fast.epochs}-b{fast.batch}-lr{fast.learning_rate:g}-s0"


def test_kept_epochs_make_no_other_job():
    plain, kept = (Grid(("san",), ("mref",), epochs=30, keep_epochs=some).jobs()[0] for some in ((), (10, 30, 100)))
    assert kept.keep_epochs == (10, 30)  # the hundredth is not trained
    assert (kept, kept.name) == (plain, plain.name)


def test_any_difference_gives_another_name():
    plain = Grid(("pan-soft-ctx",), ("mref",), variant="v")
    other = [
        {"models": ("pan-soft",)},
        {"datasets": ("mbg",)},
        {"variant": "w"},
        {"protocol": "authors"},
        {"recipe": "paper"},
        {"seeds": (1,)},
        {"images": 31},
        {"epochs": 99},
        {"learning_rates": (0.5,)},
        {"recipe_changes": {"batch": 7}},
        {"recipe_changes": {"gate_price": 1.0}},
        {"recipe_changes": {"gate_price": 2.0}},
        {"recipe_changes": {"queries": "one"}},
        {"network_changes": {"hidden": 8}},
        {"network_changes": {"attend_at": [1, 3]}},
    ]
    names = [msgspec.structs.replace(plain, **changes).jobs()[0].name for changes in ({}, *other)]
    assert len(set(names)) == len(names)


def test_what_else_makes_another_training_of_ones_own_data():
    (job,) = Grid(("san",), ("mref",)).jobs()
    own = {"folder": "mine", "content": "a"}
    names = [replace(job, **{**own, **changes}).name for changes in ({}, {"content": "b"}, {"backbone_weights": "w"})]
    assert len({job.name, *names}) == 4
    assert replace(job, **{**own, "folder": "elsewhere", "voc": "voc"}).name == names[0]  # the same training


def test_a_long_variant_is_cut_in_names_only():
    first, second = (Grid(("san",), ("mref",), variant="v" * 300 + end).jobs()[0].name for end in "ab")
    assert first != second
    assert len(first) < 200


def test_another_recipe_leaves_out_variants_of_the_old_one():
    rates = read_experiment(FOLDER / "rates.toml")
    assert {job.variant for job in rates.jobs()} == {"", "half the learning rate", "twice the learning rate"}
    jobs = rates.changed(recipe="paper").jobs()
    assert len(jobs) == 6
    assert {job.variant for job in jobs} == {""}
    halves = Experiment("halves", rates.grids[1:2])
    with pytest.raises(ValueError, match="no grid of .*, or its variants are of another recipe"):
        halves.changed(recipe="paper")
    assert halves.changed(epochs=1).jobs()


def test_changes_reach_recipe_and_network():
    (job,) = Grid(
        models=("pan-hard",),
        datasets=("mref",),
        variant="both",
        epochs=5,
        recipe="paper",
        recipe_changes={"gate_price": 2.0, "batch": 50},
        network_changes={"attend_at": [2, 3]},
    ).jobs()
    assert job.recipe == replace(RECIPES["paper"], gate_price=2.0, batch=50, epochs=5)
    assert job.network_changes == (("attend_at", (2, 3)),)
    assert job.recipe_changes == {"gate_price": 2.0}


def test_changed_keeps_what_is_asked_for():
    whole = read_experiment(FOLDER / "table1.toml")
    jobs = whole.changed(["hattnet", "san"], ["mbg"], seeds=[0, 3], images=90, epochs=2, protocol=None).jobs()
    assert [(job.seed, job.model) for job in jobs] == [(0, "san"), (3, "san"), (0, "pan-soft"), (3, "pan-soft")]
    assert {(job.dataset, job.images, job.recipe.epochs, job.protocol) for job in jobs} == {("mbg", 90, 2, "paper")}
    assert whole.changed() == whole


def test_another_recipe_brings_its_own_optimiser_epochs_and_rate():
    jobs = read_experiment(FOLDER / "table1.toml").changed(recipe="paper").jobs()
    assert {job.recipe for job in jobs} == {RECIPES["paper"]}
    jobs = read_experiment(FOLDER / "table1.toml").changed(recipe="paper", epochs=7).jobs()
    assert {job.recipe for job in jobs} == {replace(RECIPES["paper"], epochs=7)}
    priced = Grid(
        ("pan-soft",), ("mref",), variant="v", epochs=2, recipe_changes={"gate_price": 1, "optimizer": "adamw"}
    )
    (job,) = Experiment("priced", (priced,)).changed(recipe="paper").jobs()
    assert job.recipe == replace(RECIPES["paper"], gate_price=1)
    (job,) = Experiment("priced", (priced,)).changed(recipe="fast").jobs()
    assert (job.recipe.optimizer, job.recipe.epochs) == ("adamw", 2)


def test_wrong_overrides_are_named():
    for changes, message in (
        ({"models": ["film"]}, "unknown model of this experiment 'film'; known: pan-hard-ctx, san"),
        ({"datasets": ["cifar"]}, "unknown data set of this experiment 'cifar'; known: mref, mdist, mbg"),
        ({"images": 29}, "images: Expected `int` >= 30"),
        ({"epochs": 0}, "epochs: Expected `int` >= 1"),
        ({"seeds": [-1]}, r"seeds\[0\]: Expected `int` >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            read_experiment(FOLDER / "table1.toml").changed(**changes)


def test_two_rows_alike_are_named():
    fast, slow = Grid(("san",), ("mref",)), Grid(("san",), ("mref",), learning_rates=(0.001,))
    with pytest.raises(ValueError, match=r"lr0.001-s0 would be the same row .* another variant"):
        Experiment("rates", (fast, slow)).jobs()
    assert len(Experiment("rates", (fast, msgspec.structs.replace(slow, variant="slow"))).jobs()) == 2
    assert len(Experiment("twice", (fast, fast)).jobs()) == 1


GRID = 'title = "t"\n[[grid]]\nmodels = ["san"]\ndatasets = ["mref"]\n'
OWN = GRID.replace("mref", "data")
STN = GRID.replace("san", "stn-s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not understood: Invalid value"),
        ("title = " + "[" * 2000, "is not understood"),
        ("title = " + "9" * 5000, "is not understood"),
        ("", "missing required field `title`"),
        ('title = "t"\ngrid = [3]\n', r"grid\[0\]: Expected `object`, got `int`"),
        (GRID + "[other]\n", "unknown field `other`"),
        ('title = "t"\n[[grid]]\nmodels = ["san"]\n', r"grid\[0\]: Object missing required field `datasets`"),
        (GRID + "learning_rate = 0.1\n", r"grid\[0\]: Object contains unknown field `learning_rate`"),
        (GRID + "[[grid]]\nmodels = ['pann']\ndatasets = ['mref']\n", r"grid\[1\]: unknown model 'pann'; known: pan, "),
        (GRID.replace('["san"]', '"san"'), r"grid\[0\]\.models: Expected `array`, got `str`"),
        (GRID.replace('["san"]', "[]"), r"grid\[0\]\.models: Expected `array` of length >= 1"),
        (GRID.replace('["mref"]', '["cifar"]'), r"grid\[0\]: unknown data set 'cifar'; known: mref"),
        (GRID + "seeds = [100000000000000]\n", r"grid\[0\]\.seeds\[0\]: Expected `int` <= 100000000"),
        (GRID + "seeds = [1]\n" + GRID[GRID.index("[[") :] + "learning_rates = [1.0]\n", "the same row of a table"),
        (OWN, None),
        (OWN + "images = 90\n", "all images of data set 'data' are taken; leave out images"),
        (GRID + "variant = 'v'\nnetwork_changes = { image_size = 64 }\n", "scenes are drawn in one size"),
        (GRID + "images = 29\n", r"grid\[0\]\.images: Expected `int` >= 30"),
        (GRID + "protocol = 'ours'\n", r"unknown protocol 'ours'; known: paper, authors"),
        (GRID + "recipe = 'slow'\n", "unknown recipe 'slow'"),
        (GRID + "learning_rates = [inf]\n", r"learning_rates\[0\]: Expected `float` < "),
        (GRID + "learning_rates = [0.1, 0.2]\n", r"learning_rates: Expected `array` of length <= 1"),
        (GRID + "recipe_changes = { clip = 8 }\n", "changes need a variant"),
        (GRID + "recipe_changes = { batch = 8, queries = 'one' }\n", None),
        (GRID + "variant = 'v'\nrecipe_changes = { epochs = 8 }\n", "unknown field of recipe_changes 'epochs'"),
        (GRID + "variant = 'v'\nrecipe_changes = { batch = 2.5 }\n", "batch must be a whole number, got 2.5"),
        (GRID + "variant = 'v'\nnetwork_changes = { depth = 8 }\n", "unknown field of network_changes 'depth'"),
        (GRID + "variant = 'v'\nnetwork_changes = { radius = -1 }\n", "radius must be >= 0, got -1"),
        (STN + "variant = 'v'\nrecipe_changes = { mask_price = 1 }\n", "networks with attention maps; stn-s has none"),
        (GRID + "variant = 'v'\nrecipe_changes = { gate_price = 1 }\n", "with gates; san attends at its last layer"),
    ],
)
def test_wrong_files_are_named_with_place_and_key(tmp_path, text, message):
    path = written(tmp_path, text)
    if message is None:
        assert read_experiment(path).jobs()
        return
    with pytest.raises(ValueError, match=message) as error:
        read_experiment(path)
    assert str(error.value).startswith(str(path))
