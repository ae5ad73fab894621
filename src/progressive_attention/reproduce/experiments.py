"""Experiments as declarative files: which networks are trained on what, how, from which seeds.

A file holds a title and ``[[grid]]`` tables of the fields of ``Grid`` (docs/reproduce.md); the package's own are
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
OF_DATA = {"num_queries", "num_attributes", "likelihood", "query_size", "query_encoder"}
OF_NETWORK = {field.name for field in fields(ModelConfig)} - OF_DATA


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
        """The recipe's fields that differ from the named recipe's, except for those that every result shows."""
        plain = asdict(recipe_for(self.model, self.recipe.name))
        shown = ("epochs", "batch", "learning_rate")
        return {key: value for key, value in asdict(self.recipe).items() if value != plain[key] and key not in shown}

    @property
    def description(self) -> dict[str, Any]:
        """What its result says of the training, as JSON gives it back."""
        words = {
            "model": self.model,
            "variant": self.variant,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "recipe": self.recipe.name,
            "queries_per_image": self.recipe.queries,
            "seed": self.seed,
            "images": self.images,
            "epochs": self.recipe.epochs,
            "learning_rate": self.recipe.learning_rate,
            "batch": self.recipe.batch,
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
        """What identifies its result in a table."""
        return cell_of(self.description)


class Grid(Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[grid]]`` of an experiment: every model on every set from every seed.

    The data set ``"data"`` is a folder that is named when the experiment is run (``Job.folder``), with all its images.
    ``variant`` is a short name for what ``recipe_changes`` (Recipe's fields) and ``network_changes`` (ModelConfig's)
    change. ``learning_rates`` is one, or the recipe's. Raises ValueError for what is not understood.
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
    learning_rates: Annotated[tuple[Above, ...], Meta(max_length=1)] = ()
    keep_epochs: tuple[Positive, ...] = ()

    def __post_init__(self) -> None:
        for what, values, known in (
            ("model", self.models, {**MODELS, **ALIASES}),
            ("data set", self.datasets, (*STYLES, USERS_OWN)),
            ("protocol", [self.protocol], PROTOCOLS),
            ("recipe", [self.recipe], RECIPES),
            ("field of recipe_changes", self.recipe_changes, tuple(sorted(OF_RECIPE))),
            ("field of network_changes", self.network_changes, tuple(sorted(OF_NETWORK))),
        ):
            for value in values:
                one_of(what, value, known)
        if self.images is not None and USERS_OWN in self.datasets:
            raise ValueError(f"all images of data set {USERS_OWN!r} are taken; leave out images")
        if "image_size" in self.network_changes and set(self.datasets) != {USERS_OWN}:
            raise ValueError(f"image_size can be chosen for data sets {USERS_OWN!r} only; scenes are drawn in one size")
        if (set(self.recipe_changes) - PLAIN or self.network_changes) and not self.variant:
            raise ValueError("changes need a variant: a short name that sets these runs apart from the plain ones")
        msgspec.structs.force_setattr(self, "models", tuple(ALIASES.get(name, name) for name in self.models))
        self.jobs()

    def jobs(self) -> list[Job]:
        """Its jobs: seeds outermost, so that every network has one seed before any has two."""
        return [self.job(*row) for row in product(self.seeds, self.datasets, self.models)]

    def job(self, seed: int, dataset: str, model: str) -> Job:
        """One of its jobs; raises ValueError for changes that the network can't have."""
        changes = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(self.network_changes.items())
        )
        rate = self.learning_rates[0] if self.learning_rates else None
        plain = recipe_for(model, self.recipe)
        recipe = plain.with_changes(epochs=self.epochs, learning_rate=rate, **self.recipe_changes)
        config = model_config(model, 10, 5, **dict(changes))
        if config.network != "pan" and (recipe.gate_price or recipe.mask_price):
            raise ValueError(f"gate_price and mask_price are for networks with attention maps; {model} has none")
        if recipe.gate_price and len(config.attend_at) == 1:
            raise ValueError(f"gate_price is for networks with gates; {model} attends at its last layer only")
        return Job(
            model,
            dataset,
            self.protocol,
            recipe,
            seed,
            images=IMAGES if self.images is None else self.images,
            variant=self.variant,
            network_changes=changes,
            keep_epochs=tuple(epoch for epoch in self.keep_epochs if epoch <= recipe.epochs),
        )


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
        self,
        models: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        backbone: str | None = None,
        **changes: Any,
    ) -> "Experiment":
        """The same experiment of these models and data sets only, with Grid's fields changed where not None.

        ``backbone`` is that of all networks on the user's own data. Another recipe brings its own optimiser, epochs and
        learning rate; a variant of nothing but these is left out. Raises ValueError for a model or data set that is not
        in it, and where nothing is left.
        """
        has = {name: None for grid in self.grids for name in grid.models}
        sets = {name: None for grid in self.grids for name in grid.datasets}
        models = [one_of("model of this experiment", ALIASES.get(name, name), has) for name in models or has]
        datasets = [one_of("data set of this experiment", name, sets) for name in datasets or sets]
        changes = {key: value for key, value in changes.items() if value is not None}
        grids = []
        for grid in self.grids:
            given = msgspec.structs.asdict(grid)
            given["models"] = [name for name in grid.models if name in models]
            given["datasets"] = [name for name in grid.datasets if name in datasets]
            if backbone is not None and USERS_OWN in grid.datasets:
                given["network_changes"] = {**grid.network_changes, "backbone": backbone}
            left = grid.recipe_changes
            if changes.get("recipe", grid.recipe) != grid.recipe:
                left = {name: value for name, value in left.items() if name not in TUNED}
                given |= {"epochs": None, "learning_rates": (), "recipe_changes": left}
                if grid.variant and not left and not grid.network_changes:
                    continue
            if given["models"] and given["datasets"]:
                grids.append(converted({**given, **changes}, Grid))
        if not grids:
            raise ValueError(
                f"no grid of this experiment has {', '.join(models)} on {', '.join(datasets)}, or its variants are of "
                "another recipe"
            )
        return Experiment(self.title, tuple(grids))


def converted(value: Any, kind: Any) -> Any:
    """Plain values as a Grid or an Experiment; raises ValueError that names the key."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(explained(error)) from error


def read_experiment(path: Path) -> Experiment:
    """The experiment of a file; raises ValueError that names file, grid and key for what is not understood."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; give an experiment's file, as docs/reproduce.md shows")
    try:
        return converted(tomllib.loads(path.read_text(encoding="utf-8")), Experiment)
    except (
        ValueError,
        RecursionError,
    ) as error:  # of TOML: numbers of 5000 digits, and lists in 1000 lists, among them
        raise ValueError(f"{path} is not understood: {error}") from error
