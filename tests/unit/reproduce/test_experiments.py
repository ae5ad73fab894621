"""Experiments: what files say becomes jobs, and what they say wrongly is told with file, grid and key."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from progressive_attention.config import ALIASES, RECIPES, TARGETS
from progressive_attention.reproduce.experiments import FOLDER, Experiment, Grid, read_experiment

TUNED = """
title = "Table 1 with a tuned learning rate"

[[grid]]
models = ["san", "hattnet-ctx"]
datasets = ["mref", "mbg"]
seeds = [0, 1]
images = 300
epochs = 4
learning_rates = [0.01, 0.003]
tuning = { dataset = "mdist", images = 90, epochs = 2, seed = 7 }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted({name for names in TARGETS.values() for name in names}))
def test_what_ships_is_understood(name):
    experiment = read_experiment(FOLDER / f"{name}.toml")
    assert experiment.title
    jobs = experiment.jobs()
    assert len({job.name for job in jobs}) == len(jobs) > 0
    assert all(re.fullmatch(r"[\w.-]+", job.name) for job in jobs)


def test_every_file_that_ships_is_a_target():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {name for names in TARGETS.values() for name in names}


def test_all_targets_fit_into_one_folder():
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


def test_seeds_come_outermost():
    jobs = Grid(("san", "han"), ("mref", "mbg"), seeds=(0, 1)).jobs()
    got = [(job.seed, job.dataset, job.model) for job in jobs]
    assert got == [(s, d, m) for s in (0, 1) for d in ("mref", "mbg") for m in ("san", "han")]


def test_any_difference_gives_another_name():
    plain = Grid(("pan-soft-ctx",), ("mref",), variant="v")
    rates = {"learning_rates": (0.1, 0.2), "tuning": {"dataset": "mref", "images": 60, "epochs": 1, "seed": 0}}
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
        rates,
        {**rates, "learning_rates": (0.1, 0.3)},
        {**rates, "tuning": {**rates["tuning"], "seed": 1}},
    ]
    names = [replace(plain, **changes).jobs()[0].name for changes in ({}, *other)]
    assert len(set(names)) == len(names)


def test_what_else_makes_another_training_of_ones_own_data():
    (job,) = Grid(("san",), ("mref",)).jobs()
    own = {"folder": "mine", "content": "a"}
    names = [replace(job, **{**own, **changes}).name for changes in ({}, {"content": "b"}, {"backbone_weights": "w"})]
    assert len({job.name, *names}) == 4
    assert replace(job, **{**own, "folder": "elsewhere", "voc": "voc"}).name == names[0]  # the same training


def test_a_long_variant_is_cut_in_names_only():
    one, other = (Grid(("san",), ("mref",), variant="v" * 300 + end).jobs()[0].name for end in "ab")
    assert one != other
    assert len(one) < 200


def test_another_recipe_leaves_out_variants_of_the_old_one():
    rates = read_experiment(FOLDER / "rates.toml")
    assert {job.variant for job in rates.jobs()} == {"", "half the learning rate", "twice the learning rate"}
    jobs = rates.changed(recipe="paper").jobs()
    assert len(jobs) == 6
    assert {job.variant for job in jobs} == {""}
    halves = replace(rates, grids=rates.grids[1:2])
    with pytest.raises(ValueError, match="holds anything; its variants differ in what recipe paper brings"):
        halves.changed(recipe="paper")
    assert halves.changed(epochs=1).jobs()


def test_names_of_2016_are_those_of_2018():
    jobs = Grid(tuple(ALIASES), ("mref",)).jobs()
    assert [job.model for job in jobs] == list(ALIASES.values())
    assert jobs[0].name == Grid(("pan-soft",), ("mref",)).jobs()[0].name


def test_changes_reach_recipe_and_network():
    (job,) = Grid(
        **{"models": ("pan-hard",), "datasets": ("mref",), "variant": "both", "epochs": 5, "recipe": "paper"},
        **{"recipe_changes": {"gate_price": 2.0, "batch": 50}, "network_changes": {"attend_at": [2, 3]}},
    ).jobs()
    assert job.recipe == replace(RECIPES["paper"], gate_price=2.0, batch=50, epochs=5)
    assert job.network_changes == (("attend_at", (2, 3)),)
    assert job.recipe_changes == {"gate_price": 2.0}


def test_candidates_are_shared_by_all_that_they_tune(tmp_path):
    jobs = read_experiment(written(tmp_path, TUNED)).jobs()
    assert len(jobs) == 8
    assert {"lrtuned" in job.name for job in jobs} == {True}
    candidates = {one for job in jobs for one in job.candidates}
    found = {(one.model, one.dataset, one.images, one.seed, one.recipe.epochs) for one in candidates}
    assert found == {(model, "mdist", 90, 7, 2) for model in ("san", "pan-soft-ctx")}
    assert all([one.recipe.learning_rate for one in job.candidates] == [0.003, 0.01] for job in jobs)
    assert all(one.model == job.model for job in jobs for one in job.candidates)


def test_tuning_is_never_larger_than_the_job(tmp_path):
    experiment = read_experiment(written(tmp_path, TUNED)).changed(images=60, epochs=1)
    assert {(one.images, one.recipe.epochs) for job in experiment.jobs() for one in job.candidates} == {(60, 1)}


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
    slower = [["classifier", 0.1]]
    slowed = Grid(("san",), ("mref",), recipe_changes={"module_rates": slower, "optimizer": "adamw", "batch": 8})
    assert slowed.jobs()[0].recipe.module_rates == (("classifier", 0.1),)
    assert Experiment("slowed", (slowed,)).changed(recipe="paper").jobs()[0].recipe == RECIPES["paper"]
    (job,) = Experiment("priced", (priced,)).changed(recipe="fast").jobs()
    assert (job.recipe.optimizer, job.recipe.epochs) == ("adamw", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["film"]}, "unknown model of this experiment 'film'; known: pan-hard-ctx, san"),
        ({"datasets": ["cifar"]}, "unknown data set of this experiment 'cifar'; known: mref, mdist, mbg"),
        ({"images": 29}, "images must be >= 30"),
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"seeds": [-1]}, "seed must be >= 0 and at most 100,000,000, got -1"),
    ],
)
def test_wrong_overrides_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        read_experiment(FOLDER / "table1.toml").changed(**changes)


def test_scenes_have_one_size():
    with pytest.raises(
        ValueError, match="image_size can be chosen for data sets .* only; scenes are drawn in one size"
    ):
        Grid(("san",), ("mref",), variant="large", network_changes={"image_size": 64})


def test_models_and_sets_that_never_meet_are_told():
    experiment = Experiment("two", (Grid(("san",), ("mref",)), Grid(("han",), ("mbg",))))
    with pytest.raises(ValueError, match="no grid of this experiment holds san on mbg"):
        experiment.changed(["san"], ["mbg"])


def test_two_rows_alike_are_told():
    fast, slow = Grid(("san",), ("mref",)), Grid(("san",), ("mref",), learning_rates=(0.001,))
    with pytest.raises(ValueError, match=r"lr0.001-s0 would be the same row .* another variant"):
        Experiment("rates", (fast, slow)).jobs()
    assert len(Experiment("rates", (fast, replace(slow, variant="slow"))).jobs()) == 2
    assert len(Experiment("twice", (fast, fast)).jobs()) == 1


GRID = 'title = "t"\n[[grid]]\nmodels = ["san"]\ndatasets = ["mref"]\n'
OWN = GRID.replace("mref", "data") + "learning_rates = [1, 2]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not valid TOML"),
        ("title = " + "[" * 2000, "is not valid TOML"),
        ("title = " + "9" * 5000, "is not valid TOML"),
        ('title = "t"\ngrid = [3]\n', "grid 1: it must be a table, got 3"),
        (GRID + "variant = 'v'\nnetwork_changes = { attend_at = [[0]] }\n", "attend_at must hold indices or names"),
        ("", r"must hold a title and at least one \[\[grid\]\], got nothing"),
        ('title = "t"\ngrid = 3\n', "must hold a title"),
        (GRID + "[other]\n", "must hold a title .* got title, grid, other"),
        ('title = "t"\n[[grid]]\nmodels = ["san"]\n', "grid 1: datasets must be given"),
        (GRID + "learning_rate = 0.1\n", "grid 1: unknown key 'learning_rate'; known: models, datasets"),
        (
            GRID + "[[grid]]\nmodels = ['pann']\ndatasets = ['mref']\n",
            "grid 2: unknown model 'pann'; known: pan, pan-soft",
        ),
        (GRID.replace('["san"]', '"san"'), "grid 1: models must be a list, got 'san'"),
        (GRID.replace('["san"]', "[]"), "grid 1: models, datasets and seeds must each hold at least one"),
        (GRID.replace('["mref"]', '["cifar"]'), "grid 1: unknown data set 'cifar'"),
        (GRID + "seeds = [0.5]\n", "grid 1: each of seeds must be a whole number, got 0.5"),
        (GRID + "seeds = [-1]\n", "grid 1: seed must be >= 0"),
        (GRID + "seeds = [100000000000000]\n", "grid 1: seed must be >= 0 and at most 100,000,000, got 1000000000000"),
        (GRID + "seeds = [1]\n" + GRID[GRID.index("[[") :] + "learning_rates = [1.0]\n", "the same row of a table"),
        (OWN + "images = 90\n", "grid 1: all images of data set 'data' are taken; leave out images"),
        (
            OWN + "tuning = { dataset = 'mref', images = 90, epochs = 1, seed = 0 }\n",
            "tuning = { dataset, epochs, seed",
        ),
        (
            OWN + "tuning = { dataset = 'mref', epochs = 1, seed = 0 }\n",
            "unknown data set of tuning 'mref'; known: data",
        ),
        (OWN + "tuning = { dataset = 'data', epochs = 1, seed = 0 }\n", None),
        (GRID + "learning_rates = [inf]\n", "grid 1: learning_rate must be > 0 and finite, got inf"),
        (GRID + "images = 'many'\n", "grid 1: images must be a whole number, got 'many'"),
        (GRID + "images = true\n", "grid 1: images must be a whole number, got True"),
        (GRID + "epochs = 0\n", "grid 1: epochs must be >= 1"),
        (GRID + "variant = 3\n", "grid 1: variant must be text"),
        (GRID + "protocol = 'ours'\n", "grid 1: unknown protocol 'ours'"),
        (GRID + "recipe = 'slow'\n", "grid 1: unknown recipe 'slow'"),
        (GRID + "learning_rates = ['low']\n", "grid 1: each of learning_rates must be a number, got 'low'"),
        (GRID + "keep_epochs = [0]\n", "grid 1: keep_epochs are counted from 1, got 0"),
        (GRID + "keep_epochs = 10\n", "grid 1: keep_epochs must be a list, got 10"),
        (GRID + "learning_rates = [-1.0]\n", "grid 1: learning_rate must be > 0"),
        (GRID + "learning_rates = [0.1, 0.2]\n", "grid 1: learning_rates need tuning = { dataset, images"),
        (GRID + "tuning = {}\nlearning_rates = [0.1]\n", None),
        (GRID + "tuning = { seed = 1 }\n", "grid 1: tuning chooses between learning_rates"),
        (
            GRID + "learning_rates = [1, 2]\ntuning = { dataset = 'mref', images = 9, epochs = 1, seed = 0 }\n",
            "grid 1: tuning: images must be >= 30",
        ),
        (
            GRID + "learning_rates = [1, 2]\ntuning = { dataset = 'x', images = 90, epochs = 1, seed = 0 }\n",
            "grid 1: unknown data set of tuning 'x'",
        ),
        (GRID + "recipe_changes = { clip = 8 }\n", "grid 1: changes need a variant"),
        (GRID + "recipe_changes = { batch = 8 }\n", None),
        (GRID + "recipe_changes = { queries = 'one' }\n", None),
        (GRID + "recipe_changes = 8\n", "grid 1: recipe_changes must be a table"),
        (
            GRID + "variant = 'v'\nrecipe_changes = { epochs = 8 }\n",
            "unknown field of recipe_changes 'epochs'; known: o",
        ),
        (GRID + "variant = 'v'\nrecipe_changes = { batch = 2.5 }\n", "recipe_changes: batch must be a whole number"),
        (GRID + "variant = 'v'\nrecipe_changes = { gate_price = -1 }\n", "grid 1: gate_price must be >= 0"),
        (GRID + "variant = 'v'\nnetwork_changes = { depth = 8 }\n", "unknown field of network_changes 'depth'"),
        (GRID + "variant = 'v'\nnetwork_changes = { radius = -1 }\n", "grid 1: radius must be >= 0"),
        (
            GRID.replace("san", "stn-s") + "variant = 'v'\nrecipe_changes = { mask_price = 1 }\n",
            "grid 1: gate_price and mask_price are for networks with attention maps; stn-s has none",
        ),
        (
            GRID + "variant = 'v'\nrecipe_changes = { gate_price = 1 }\n",
            "grid 1: gate_price is for networks with gates; san attends at its last layer only",
        ),
        (GRID + "[[grid]]\nmodels = ['san']\ndatasets = ['mref']\nlearning_rates = [1.0]\n", "the same row of a table"),
    ],
)
def test_wrong_files_are_told_with_their_place(tmp_path, text, message):
    path = written(tmp_path, text)
    if message is None:
        assert read_experiment(path).jobs()
        return
    with pytest.raises(ValueError, match=message) as error:
        read_experiment(path)
    assert str(error.value).startswith(str(path))


def test_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.toml does not exist; give the file of an exp"):
        read_experiment(tmp_path / "nowhere.toml")
