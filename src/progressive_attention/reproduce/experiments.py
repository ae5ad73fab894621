"""Experiments as declarative files: which networks are trained on what, how, from which seeds.

A file holds a title and ``[[grid]]`` tables of the fields of ``Grid`` (docs/reproduce.md); those that ship are
``experiments/NAME.toml``. With several ``learning_rates``, a network takes the one with which its tuning run, on the
set and seed of ``tuning``, validates best.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from progressive_attention.config import (
    ALIASES,
    MODELS,
    PROTOCOLS,
    RECIPES,
    STYLES,
    ModelConfig,
    Recipe,
    checked,
    checked_seed,
    one_of,
    recipe_for,
)
from progressive_attention.network.build import model_config

FOLDER = Path(__file__).parent / "experiments"
TUNED = {"batch", "optimizer", "module_rates"}  # what of a recipe is chosen with the learning rate, for each network
PLAIN = {"queries", *TUNED}  # what of a recipe a plain row may choose for itself; tables tell the first
USERS_OWN = "data"  # the data set that is named when the experiment is run
MOST = 100  # letters of a variant in a folder's name
FEWEST = 30  # images: a third of them are tested
TUNING = ("dataset", "images", "epochs", "seed")


@dataclass(frozen=True)
class Job:
    """One network to be trained from one seed; ``candidates`` are the tuning jobs that choose its learning rate.

    ``folder`` is the user's own data set's, "" for a synthetic one, ``content`` a digest of its table;
    ``backbone_weights`` as in ``build_backbone``; ``voc`` is the folder of another data set, on whose training and
    validation images attention is measured, too, ``voc_content`` a digest of that one's table.
    """

    model: str
    dataset: str
    protocol: str
    recipe: Recipe
    seed: int
    images: int
    variant: str = ""
    network_changes: tuple[tuple[str, Any], ...] = ()
    candidates: "tuple[Job, ...]" = ()
    folder: str = ""
    content: str = ""
    backbone_weights: str | None = None
    voc: str = ""
    voc_content: str = ""
    keep_epochs: tuple[int, ...] = field(default=(), compare=False)  # as in ``training``, which it does not change

    @property
    def recipe_changes(self) -> dict[str, Any]:
        """The recipe's fields that differ from the named recipe's, but for those that every result tells."""
        plain = asdict(recipe_for(self.model, self.recipe.name))
        told = ("epochs", "batch", "learning_rate")
        return {key: value for key, value in asdict(self.recipe).items() if value != plain[key] and key not in told}

    @property
    def name(self) -> str:
        """The job in words that are a folder's name; no two trainings have the same, whatever is chosen later."""
        recipe, words = self.recipe, "".join(one if one.isalnum() else " " for one in self.variant[:MOST]).split()
        rate = "tuned" if self.candidates else f"{recipe.learning_rate:g}"
        parts = [self.dataset, self.model, *words, self.protocol, recipe.name, f"{self.images}x{recipe.epochs}"]
        parts += [f"b{recipe.batch}", f"lr{rate}", f"s{self.seed}"]
        untold = [self.variant, self.recipe_changes, self.network_changes, [one.name for one in self.candidates]]
        untold += [self.content, self.backbone_weights] if self.folder else []
        if any(untold):
            parts.append(sha256(json.dumps(untold).encode()).hexdigest()[:6])
        return "-".join(parts)

    @property
    def told(self) -> dict[str, Any]:
        """What a result tells of the training beside its cell, as JSON gives it back; a rate that is tuned is not yet
        known.
        """
        recipe, own = self.recipe, {"content": self.content, "backbone_weights": self.backbone_weights}
        found = {
            **({} if self.candidates else {"learning_rate": recipe.learning_rate}),
            **{"batch": recipe.batch, "recipe_changes": self.recipe_changes},
            **{"network_changes": dict(self.network_changes), **(own if self.folder else {})},
        }
        return json.loads(json.dumps(found))

    @property
    def cell(self) -> tuple[Any, ...]:
        """What tells its result from others: the cell of ``runs.cells``, and the seed."""
        recipe = self.recipe
        size = self.images, recipe.epochs
        return self.variant, self.model, self.dataset, self.protocol, recipe.name, recipe.queries, *size, self.seed


@dataclass(frozen=True)
class Grid:
    """One ``[[grid]]`` of an experiment: every model on every set from every seed.

    The data set ``"data"`` is a folder that is named when the experiment is run (``Job.folder``), with all its images.
    ``variant`` is a short name for what ``recipe_changes`` (Recipe's fields) and ``network_changes`` (ModelConfig's)
    change. ``keep_epochs``: whose weights stay, of those that are trained. ``tuning``: the ``dataset``, ``images``,
    ``epochs`` and ``seed`` on which one of several ``learning_rates`` is chosen. Raises ValueError for what is not
    understood, before anything is trained.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    variant: str = ""
    protocol: str = PROTOCOLS[0]
    recipe: str = "fast"
    seeds: tuple[int, ...] = (0,)
    images: int = 30_000
    epochs: int | None = None
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    network_changes: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: tuple[float, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    keep_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = {"models": str, "datasets": str, "seeds": int, "learning_rates": float, "keep_epochs": int}
        for name, kind in kinds.items():
            values = checked(name, getattr(self, name), tuple)
            object.__setattr__(self, name, tuple(checked(f"each of {name}", one, kind) for one in values))
        if not self.models or not self.datasets or not self.seeds:
            raise ValueError("models, datasets and seeds must each hold at least one")
        for model in self.models:
            one_of("model", model, {**MODELS, **ALIASES})
        for dataset in self.datasets:
            one_of("data set", dataset, (*STYLES, USERS_OWN))
        if self.keep_epochs and min(self.keep_epochs) < 1:
            raise ValueError(f"keep_epochs are counted from 1, got {min(self.keep_epochs)}")
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("recipe", self.recipe, RECIPES)
        checked("variant", self.variant, str)
        self._check_sizes("", self.images, self.epochs, *self.seeds)
        self._check_changes("recipe_changes", RECIPES[self.recipe], ("name", "epochs", "learning_rate"))
        of_data = ("num_queries", "num_attributes", "likelihood", "query_size", "query_encoder")
        self._check_changes("network_changes", ModelConfig(1, 1), of_data)
        if "image_size" in self.network_changes and set(self.datasets) != {USERS_OWN}:
            raise ValueError(f"image_size can be chosen for data sets {USERS_OWN!r} only; scenes are drawn in one size")
        if (set(self.recipe_changes) - PLAIN or self.network_changes) and not self.variant:
            raise ValueError("changes need a variant: a short name that tells these runs from the plain ones")
        if len(self.learning_rates) > 1:
            own = USERS_OWN in self.datasets  # whose images are all taken
            if set(self.tuning) != {*TUNING} - ({"images"} if own else set()):
                wanted = ", ".join(name for name in TUNING if not own or name != "images")
                raise ValueError(f"learning_rates need tuning = {{ {wanted} }}, on which one is chosen")
            one_of("data set of tuning", self.tuning["dataset"], (USERS_OWN,) if own else STYLES)
            sizes = {"images": self.images, **self.tuning}
            self._check_sizes("tuning: ", *(sizes[name] for name in ("images", "epochs", "seed")))
        elif self.tuning:
            raise ValueError("tuning chooses between learning_rates: name at least two of them")

    def _check_sizes(self, where: str, images: int, epochs: int | None, *seeds: int) -> None:
        if checked(f"{where}images", images, int) < FEWEST:
            raise ValueError(f"{where}images must be >= {FEWEST}, so that ten can be tested, got {images}")
        if epochs is not None and checked(f"{where}epochs", epochs, int) < 1:
            raise ValueError(f"{where}epochs must be >= 1, got {epochs}")
        for seed in seeds:
            checked_seed(f"{where}seed", seed)

    def _check_changes(self, what: str, like: Recipe | ModelConfig, given_elsewhere: tuple[str, ...]) -> None:
        known = {name: value for name, value in asdict(like).items() if name not in given_elsewhere}
        for name, value in getattr(self, what).items():
            checked(f"{what}: {name}", value, type(known[one_of(f"field of {what}", name, known)]))

    def fitted_to_recipe(self) -> dict[str, Any]:
        """What must go, as it would be without, when another recipe is taken."""
        changes = {name: value for name, value in self.recipe_changes.items() if name not in TUNED}
        return {"epochs": None, "learning_rates": (), "tuning": {}, "recipe_changes": changes}

    def jobs(self) -> list[Job]:
        """Its jobs: seeds outermost, so that every network has one seed before any has two."""
        rates = self.learning_rates
        rate = rates[0] if len(rates) == 1 else None
        changes = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(self.network_changes.items())
        )
        found = []
        for seed, dataset, name in product(self.seeds, self.datasets, self.models):
            model = ALIASES.get(name, name)
            config = model_config(model, 10, 5, **dict(changes))
            recipe = recipe_for(model, self.recipe).with_changes(
                epochs=self.epochs, learning_rate=rate, **self.recipe_changes
            )
            if config.network != "pan" and (recipe.gate_price or recipe.mask_price):
                raise ValueError(f"gate_price and mask_price are for networks with attention maps; {name} has none")
            if recipe.gate_price and len(config.attend_at) == 1:
                raise ValueError(f"gate_price is for networks with gates; {name} attends at its last layer only")
            job = Job(model, dataset, self.protocol, recipe, seed, self.images, self.variant, changes)
            kept = tuple(epoch for epoch in self.keep_epochs if epoch <= recipe.epochs)
            found.append(replace(job, candidates=self.candidates(job), keep_epochs=kept))
        return found

    def candidates(self, job: Job) -> tuple[Job, ...]:
        """The tuning jobs that choose a job's rate, never larger than the job itself; none without a choice."""
        if len(self.learning_rates) < 2:
            return ()
        tuning = self.tuning
        epochs, images = min(tuning["epochs"], job.recipe.epochs), min(tuning.get("images", job.images), job.images)
        place = {"dataset": tuning["dataset"], "seed": tuning["seed"], "images": images}
        recipes = (job.recipe.with_changes(learning_rate=rate, epochs=epochs) for rate in sorted(self.learning_rates))
        return tuple(dict.fromkeys(replace(job, recipe=recipe, **place) for recipe in recipes))


@dataclass(frozen=True)
class Experiment:
    """A title and grids, in the order in which they are trained."""

    title: str
    grids: tuple[Grid, ...]

    def jobs(self) -> list[Job]:
        """All jobs, each once, in order; those that only choose a learning rate are inside of others.

        Raises ValueError for jobs of one row of a table that differ in more than their seed.
        """
        found = list(dict.fromkeys(job for grid in self.grids for job in grid.jobs()))
        rows: dict[tuple[Any, ...], dict[Job, str]] = {}
        for job in found:
            rows.setdefault(job.cell[:-1], {}).setdefault(replace(job, seed=0), job.name)
        for names in rows.values():
            if len(names) > 1:
                told = ", ".join(names.values())
                raise ValueError(f"{told} would be the same row of a table; give one of their grids another variant")
        return found

    def changed(
        self, models: Sequence[str] | None = None, datasets: Sequence[str] | None = None, **changes: Any
    ) -> "Experiment":
        """The same experiment of these models and data sets only, with Grid's fields changed where not None.

        Another recipe brings its own optimiser, epochs and learning rate, where a grid had some; a variant of nothing
        but these is left out. Raises ValueError for a model or data set that is not in it, and where nothing is left.
        """
        in_2018 = {name: ALIASES.get(name, name) for grid in self.grids for name in grid.models}
        sets = dict.fromkeys(name for grid in self.grids for name in grid.datasets)
        wanted = {
            one_of("model of this experiment", ALIASES.get(name, name), tuple(in_2018.values()))
            for name in models or ()
        }
        for name in datasets or ():
            one_of("data set of this experiment", name, tuple(sets))
        given = {key: value for key, value in changes.items() if value is not None}
        grids = []
        for grid in self.grids:
            kept = [name for name in grid.models if not wanted or in_2018[name] in wanted]
            kept_sets = [name for name in grid.datasets if not datasets or name in datasets]
            if kept and kept_sets:
                own = {} if given.get("recipe", grid.recipe) == grid.recipe else grid.fitted_to_recipe()
                if own and grid.variant and not own["recipe_changes"] and not grid.network_changes:
                    continue  # it varied what goes with the recipe, such as its learning rate
                grids.append(replace(grid, **{**own, "models": tuple(kept), "datasets": tuple(kept_sets), **given}))
        if not grids:
            wanted = " on ".join(", ".join(names) for names in (models, datasets) if names)
            left = f"; its variants differ in what recipe {given['recipe']} brings" if "recipe" in given else ""
            raise ValueError(f"no grid of this experiment holds {wanted or 'anything'}{left}")
        return replace(self, grids=tuple(grids))


def read_experiment(path: Path) -> Experiment:
    """The experiment of a file; raises ValueError that names file, grid and key for what is not understood."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} does not exist; give the file of an experiment, as docs/reproduce.md tells"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of 5000 digits, and lists in 1000 lists, among them
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    tables = content.get("grid")
    if set(content) != {"title", "grid"} or not isinstance(tables, list) or not tables:
        raise ValueError(f"{path} must hold a title and at least one [[grid]], got {', '.join(content) or 'nothing'}")
    known = [one.name for one in fields(Grid)]
    grids = []
    for i, table in enumerate(tables, 1):
        try:
            for key in checked("it", table, dict):
                one_of("key", key, tuple(known))
            if missing := [key for key in ("models", "datasets") if key not in table]:
                raise ValueError(f"{' and '.join(missing)} must be given")
            if "images" in table and USERS_OWN in table["datasets"]:
                raise ValueError(f"all images of data set {USERS_OWN!r} are taken; leave out images")
            for key in ("recipe_changes", "network_changes", "tuning"):
                if not isinstance(table.get(key, {}), dict):
                    raise ValueError(f"{key} must be a table, like {key} = {{ name = value }}, got {table[key]!r}")
            grids.append(Grid(**table))
            grids[-1].jobs()
        except ValueError as error:
            raise ValueError(f"{path}, grid {i}: {error}") from error
    experiment = Experiment(str(content["title"]), tuple(grids))
    try:
        experiment.jobs()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return experiment
