"""Experiments as declarative files: which networks are trained on what, how, from which seeds.

``experiments/NAME.toml`` holds a title and ``[[grid]]`` tables: ``models`` and ``datasets``, and optionally
``variant`` (a short name for what is changed), ``protocol``, ``recipe``, ``seeds``, ``images``, ``epochs``,
``recipe_changes`` and ``network_changes`` (fields of Recipe and ModelConfig), and ``learning_rates`` with ``tuning``
(dataset, images, epochs, seed): then each model takes the rate with which its tuning run validates best.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from progressive_attention.config import ALIASES, MODELS, PROTOCOLS, RECIPES, STYLES, Recipe, one_of
from progressive_attention.models import model_config

FOLDER = Path(__file__).parent / "experiments"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@dataclass(frozen=True)
class Job:
    """One network to be trained from one seed; ``candidates`` are the tuning jobs that choose its learning rate."""

    model: str
    dataset: str
    protocol: str
    recipe: Recipe
    seed: int
    images: int
    variant: str = ""
    network_changes: tuple[tuple[str, Any], ...] = ()
    candidates: "tuple[Job, ...]" = ()

    @property
    def name(self) -> str:
        """The job in words that are a folder's name; jobs that differ have different ones, whatever is chosen later."""
        recipe = self.recipe
        rate = "tuned" if self.candidates else f"{recipe.learning_rate:g}"
        parts = [self.dataset, self.model, *self.variant.split(), self.protocol, recipe.name]
        return "-".join([*parts, f"{self.images}x{recipe.epochs}", f"b{recipe.batch}", f"lr{rate}", f"s{self.seed}"])


@dataclass(frozen=True)
class Grid:
    """One ``[[grid]]`` of an experiment: every model on every set from every seed."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    variant: str = ""
    protocol: str = "paper"
    recipe: str = "fast"
    seeds: tuple[int, ...] = (0,)
    images: int = 30_000
    epochs: int | None = None
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    network_changes: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: tuple[float, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("models", "datasets", "seeds", "learning_rates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for model in self.models:
            one_of("model", model, {**MODELS, **ALIASES})
        for dataset in self.datasets:
            one_of("data set", dataset, STYLES)
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("recipe", self.recipe, RECIPES)
        if not self.models or not self.datasets or not self.seeds:
            raise ValueError("models, datasets and seeds must each name at least one")
        if self.images < 30:
            raise ValueError(f"images must be >= 30, so that ten can be tested, got {self.images}")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds must be >= 0, got {list(self.seeds)}")
        if len(self.learning_rates) > 1 and set(self.tuning) != {"dataset", "images", "epochs", "seed"}:
            raise ValueError("learning_rates need tuning = { dataset, images, epochs, seed }, on which they are chosen")

    def jobs(self) -> list[Job]:
        """Its jobs: seeds outermost, so that every network has one seed before any has two."""
        rates = self.learning_rates
        recipe = RECIPES[self.recipe].with_changes(
            epochs=self.epochs, learning_rate=rates[0] if len(rates) == 1 else None, **self.recipe_changes
        )
        changes = tuple(sorted(self.network_changes.items()))
        found = []
        for seed, dataset, model in product(self.seeds, self.datasets, self.models):
            model = ALIASES.get(model, model)
            model_config(model, 10, 5, **dict(changes))  # a wrong change is told before anything is trained
            job = Job(model, dataset, self.protocol, recipe, seed, self.images, self.variant, changes)
            found.append(replace(job, candidates=self.candidates(job)))
        return found

    def candidates(self, job: Job) -> tuple[Job, ...]:
        """The tuning jobs that choose a job's rate, never larger than the job itself; none without a choice."""
        if len(self.learning_rates) < 2:
            return ()
        tuning = self.tuning
        epochs, images = min(tuning["epochs"], job.recipe.epochs), min(tuning["images"], job.images)
        recipes = (job.recipe.with_changes(learning_rate=rate, epochs=epochs) for rate in self.learning_rates)
        given = {"dataset": one_of("data set", tuning["dataset"], STYLES), "seed": tuning["seed"], "images": images}
        return tuple(replace(job, recipe=recipe, **given) for recipe in recipes)


@dataclass(frozen=True)
class Experiment:
    """A title and grids, in the order in which they are trained."""

    title: str
    grids: tuple[Grid, ...]

    def jobs(self) -> list[Job]:
        """All jobs, each once, in order; those that only choose a learning rate are inside of others."""
        return list(dict.fromkeys(job for grid in self.grids for job in grid.jobs()))

    def changed(
        self, models: Sequence[str] | None = None, datasets: Sequence[str] | None = None, **changes: Any
    ) -> "Experiment":
        """The same experiment of these models and data sets only, with Grid's fields changed where not None.

        Raises ValueError for a model or data set that is not in it.
        """
        grids = []
        for what, wanted, known in (
            ("model", models, {ALIASES.get(name, name) for grid in self.grids for name in grid.models}),
            ("data set", datasets, {name for grid in self.grids for name in grid.datasets}),
        ):
            for name in wanted or ():
                one_of(what, ALIASES.get(name, name), tuple(sorted(known)))
        wanted = {ALIASES.get(name, name) for name in models or ()}
        for grid in self.grids:
            kept = [name for name in grid.models if not wanted or ALIASES.get(name, name) in wanted]
            sets = [name for name in grid.datasets if not datasets or name in datasets]
            if kept and sets:
                given = {key: value for key, value in changes.items() if value is not None}
                grids.append(replace(grid, models=tuple(kept), datasets=tuple(sets), **given))
        return replace(self, grids=tuple(grids))


def read_experiment(path: Path) -> Experiment:
    """The experiment of a file; raises ValueError that names file and key for what is not understood."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; experiments that ship: {', '.join(NAMES)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    known = {one.name for one in fields(Grid)}
    grids = []
    if set(content) != {"title", "grid"}:
        raise ValueError(f"{path} must hold a title and [[grid]] tables, got {sorted(content)}")
    for i, table in enumerate(content["grid"], 1):
        if unknown := sorted(set(table) - known):
            raise ValueError(f"{path}, grid {i}: unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        try:
            grids.append(Grid(**table))
            grids[-1].jobs()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, grid {i}: {error}") from error
    return Experiment(content["title"], tuple(grids))
