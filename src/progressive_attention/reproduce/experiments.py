"""Experiments as declarative files: which networks are trained on what, how, from which seeds.

A file holds a title and ``[[grid]]`` tables of the fields of ``Grid`` (docs/reproduce.md); those that ship are
``experiments/NAME.toml``.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from progressive_attention.config import (
    ALIASES,
    LARGEST_SEED,
    MODELS,
    PROTOCOLS,
    RECIPES,
    STYLES,
    Above,
    ModelConfig,
    Positive,
    Recipe,
    one_of,
    recipe_for,
)
from progressive_attention.network.build import model_config
from progressive_attention.reproduce.runs import cell_of, explained, name_of

FOLDER = Path(__file__).parent / "experiments"
TUNED = {"batch", "optimizer", "module_rates"}  # what of a recipe is chosen with the learning rate, for each network
PLAIN = {"queries", *TUNED}  # what of a recipe a plain row may choose for itself; tables show the first
USERS_OWN = "data"  # the data set that is named when the experiment is run
IMAGES = 30_000
FEWEST = 30  # images: a third of them are tested
OF_RECIPE = {field.name for field in fields(Recipe)} - {"name", "epochs", "learning_rate"}
OF_NETWORK = {field.name for field in fields(ModelConfig)} - {"num_queries", "num_attributes"}
OF_NETWORK -= {"likelihood", "query_size", "query_encoder"}  # the data's


@dataclass(frozen=True)
class Job:
    """One network to be trained from one seed.

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
    folder: str = ""
    content: str = ""
    backbone_weights: str | None = None
    voc: str = ""
    voc_content: str = ""
    keep_epochs: tuple[int, ...] = field(default=(), compare=False)  # as in ``training``, which it does not change

    @property
    def recipe_changes(self) -> dict[str, Any]:
        """The recipe's fields that differ from the named recipe's, but for those that every result shows."""
        plain = asdict(recipe_for(self.model, self.recipe.name))
        shown = ("epochs", "batch", "learning_rate")
        return {key: value for key, value in asdict(self.recipe).items() if value != plain[key] and key not in shown}

    @property
    def description(self) -> dict[str, Any]:
        """What its result says of the training, as JSON gives it back."""
        recipe = self.recipe
        words = {
            "model": self.model,
            "variant": self.variant,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "recipe": recipe.name,
            "queries_per_image": recipe.queries,
            "seed": self.seed,
            "images": self.images,
            "epochs": recipe.epochs,
            "learning_rate": recipe.learning_rate,
            "batch": recipe.batch,
            "recipe_changes": self.recipe_changes,
            "network_changes": dict(self.network_changes),
        }
        if self.folder:
            words |= {"content": self.content, "backbone_weights": self.backbone_weights}
        return json.loads(json.dumps(words))

    @property
    def name(self) -> str:
        """The job in words that are a folder's name; no two trainings have the same."""
        return name_of(self.description)

    @property
    def cell(self) -> tuple[Any, ...]:
        """What tells its result from others of a table."""
        return cell_of(self.description)


class Grid(Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[grid]]`` of an experiment: every model on every set from every seed.

    The data set ``"data"`` is a folder that is named when the experiment is run (``Job.folder``), with all its images.
    ``variant`` is a short name for what ``recipe_changes`` (Recipe's fields) and ``network_changes`` (ModelConfig's)
    change. ``learning_rates`` is one, or the recipe's. ``keep_epochs``: whose weights stay, of those that are trained.
    Raises ValueError for what is not understood, before anything is trained.
    """

    models: Annotated[tuple[str, ...], Meta(min_length=1)]
    datasets: Annotated[tuple[str, ...], Meta(min_length=1)]
    variant: str = ""
    protocol: str = PROTOCOLS[0]
    recipe: str = "fast"
    seeds: Annotated[tuple[Annotated[int, Meta(ge=0, le=LARGEST_SEED)], ...], Meta(min_length=1)] = (0,)
    images: Annotated[int, Meta(ge=FEWEST)] | None = None
    epochs: Positive | None = None
    recipe_changes: dict[str, Any] = {}
    network_changes: dict[str, Any] = {}
    learning_rates: tuple[Above, ...] = ()
    keep_epochs: tuple[Positive, ...] = ()
    tuning: Any = None  # of earlier versions

    def __post_init__(self) -> None:
        if len(self.learning_rates) > 1 or self.tuning:
            raise ValueError(
                f"learning rates are no longer chosen between, got learning_rates = {list(self.learning_rates)}; write "
                "a grid for each rate, with a variant of its own, as experiments/rates.toml does"
            )
        for model in self.models:
            one_of("model", model, {**MODELS, **ALIASES})
        for dataset in self.datasets:
            one_of("data set", dataset, (*STYLES, USERS_OWN))
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("recipe", self.recipe, RECIPES)
        for name in self.recipe_changes:
            one_of("field of recipe_changes", name, tuple(sorted(OF_RECIPE)))
        for name in self.network_changes:
            one_of("field of network_changes", name, tuple(sorted(OF_NETWORK)))
        if self.images is not None and USERS_OWN in self.datasets:
            raise ValueError(f"all images of data set {USERS_OWN!r} are taken; leave out images")
        if "image_size" in self.network_changes and set(self.datasets) != {USERS_OWN}:
            raise ValueError(f"image_size can be chosen for data sets {USERS_OWN!r} only; scenes are drawn in one size")
        if (set(self.recipe_changes) - PLAIN or self.network_changes) and not self.variant:
            raise ValueError("changes need a variant: a short name that tells these runs from the plain ones")
        self.jobs()

    def jobs(self) -> list[Job]:
        """Its jobs: seeds outermost, so that every network has one seed before any has two."""
        changes = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(self.network_changes.items())
        )
        rate = self.learning_rates[0] if self.learning_rates else None
        jobs = []
        for seed, dataset, name in product(self.seeds, self.datasets, self.models):
            model = ALIASES.get(name, name)
            recipe = recipe_for(model, self.recipe)
            recipe = recipe.with_changes(epochs=self.epochs, learning_rate=rate, **self.recipe_changes)
            check_prices(recipe, model_config(model, 10, 5, **dict(changes)), name)
            kept = tuple(epoch for epoch in self.keep_epochs if epoch <= recipe.epochs)
            images = IMAGES if self.images is None else self.images
            jobs.append(
                Job(model, dataset, self.protocol, recipe, seed, images, self.variant, changes, keep_epochs=kept)
            )
        return jobs

    def narrowed(self, models: Sequence[str], datasets: Sequence[str], changes: dict[str, Any]) -> "Grid | None":
        """With these of its models (2018 names) and data sets and with changed fields; None where nothing is left.

        Another recipe brings its own optimiser, epochs and learning rate; a variant of nothing but these is left out.
        """
        given = msgspec.structs.asdict(self)
        given["models"] = [name for name in self.models if ALIASES.get(name, name) in models]
        given["datasets"] = [name for name in self.datasets if name in datasets]
        if changes.get("recipe", self.recipe) != self.recipe:
            left = {name: value for name, value in self.recipe_changes.items() if name not in TUNED}
            given |= {"epochs": None, "learning_rates": (), "recipe_changes": left}
            if self.variant and not left and not self.network_changes:
                return None
        if not given["models"] or not given["datasets"]:
            return None
        try:
            return msgspec.convert({**given, **changes}, Grid)
        except msgspec.ValidationError as error:
            raise ValueError(explained(error)) from error


def check_prices(recipe: Recipe, config: ModelConfig, name: str) -> None:
    """Raises ValueError for a price on what a network lacks."""
    if config.network != "pan" and (recipe.gate_price or recipe.mask_price):
        raise ValueError(f"gate_price and mask_price are for networks with attention maps; {name} has none")
    if recipe.gate_price and len(config.attend_at) == 1:
        raise ValueError(f"gate_price is for networks with gates; {name} attends at its last layer only")


class Experiment(Struct, frozen=True, forbid_unknown_fields=True):
    """A title and grids, in the order in which they are trained."""

    title: str
    grids: Annotated[tuple[Grid, ...], Meta(min_length=1)] = msgspec.field(name="grid")

    def __post_init__(self) -> None:
        self.jobs()

    def jobs(self) -> list[Job]:
        """All jobs, each once, in order.

        Raises ValueError for jobs of one row of a table that differ in more than their seed.
        """
        jobs = list(dict.fromkeys(job for grid in self.grids for job in grid.jobs()))
        rows: dict[tuple[Any, ...], dict[Job, str]] = {}
        for job in jobs:
            rows.setdefault(job.cell[:-1], {}).setdefault(replace(job, seed=0), job.name)
        for alike in rows.values():
            if len(alike) > 1:
                names = ", ".join(alike.values())
                raise ValueError(f"{names} would be the same row of a table; give one of their grids another variant")
        return jobs

    def changed(
        self, models: Sequence[str] | None = None, datasets: Sequence[str] | None = None, **changes: Any
    ) -> "Experiment":
        """The same experiment of these models and data sets only, with Grid's fields changed where not None.

        Raises ValueError for a model or data set that is not in it, and where nothing is left.
        """
        has = tuple(dict.fromkeys(ALIASES.get(name, name) for grid in self.grids for name in grid.models))
        sets = tuple(dict.fromkeys(name for grid in self.grids for name in grid.datasets))
        models = [one_of("model of this experiment", ALIASES.get(name, name), has) for name in models or has]
        datasets = [one_of("data set of this experiment", name, sets) for name in datasets or sets]
        changes = {key: value for key, value in changes.items() if value is not None}
        grids = tuple(filter(None, (grid.narrowed(models, datasets, changes) for grid in self.grids)))
        if not grids:
            recipe = (
                f", or its variants differ in what recipe {changes['recipe']} brings" if "recipe" in changes else ""
            )
            raise ValueError(f"no grid of this experiment has {', '.join(models)} on {', '.join(datasets)}{recipe}")
        return Experiment(self.title, grids)


def read_experiment(path: Path) -> Experiment:
    """The experiment of a file; raises ValueError that names file, grid and key for what is not understood."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Experiment)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give an experiment's file, as docs/reproduce.md shows") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {explained(error)}") from error
    except (ValueError, RecursionError) as error:  # numbers of 5000 digits, and lists in 1000 lists, among them
        raise ValueError(f"{path} is not valid TOML: {error}") from error
