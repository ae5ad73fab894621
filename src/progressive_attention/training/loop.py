"""Train any network that answers questions about images; this file knows nothing of attention.

A run is a folder: log.jsonl, checkpoint.safetensors to go on from, the best epoch's weights.safetensors and
config.json, and in epochs/N those of each epoch N that is to be kept. Every step is a function of (state, seed, step
number), so a killed run goes on exactly. Several processes (``processes``) share the images of every step.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from progressive_attention.config import Recipe
from progressive_attention.data.images import FileImages
from progressive_attention.data.questions import Batch, QuestionSet, fingerprint_of, make_batch
from progressive_attention.evaluation.ask import Entrance, keep_freed_memory, loaded
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.files import read_json, write_text
from progressive_attention.processes import is_first, rank, share, summed
from progressive_attention.saved import save
from progressive_attention.training.checkpoints import CONTENT, restore, save_checkpoint
from progressive_attention.training.learner import Learner
from progressive_attention.training.objectives import Loss, answers_only
from progressive_attention.training.optimizers import learning_rate

SAVE_EVERY = 60.0  # seconds between checkpoints inside an epoch: what a kill may cost


@dataclass(frozen=True)
class Progress:
    """What a watcher may show; ``record`` is the log's line when an epoch has just ended."""

    step: int
    steps: int
    epoch: int  # counted from 1
    loss: float  # mean over this epoch so far
    questions: int  # asked in this step
    step_loss: float  # of this step alone, NaN if it asked nothing
    learning_rate: float  # the recipe's, before a module's own factor
    record: dict[str, Any] | None = None


def training(
    model: nn.Module,
    train: QuestionSet,
    validation: QuestionSet,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    loss: Loss = answers_only,
    keep_epochs: Collection[int] = (),
) -> Generator[Progress, None, None]:
    """Train step by step, yielding after each; ``fit`` runs it to the end.

    ``about`` goes into config.json (see ``saved.describe``), ``loss`` is what the recipe minimises
    (``objectives.objective``). The weights of ``keep_epochs``, counted from 1, stay in ``out``/epochs/N; epochs that
    were over before they were named are not trained again for it. If ``out`` holds a checkpoint of the same run, it
    goes on from there; of another run: ValueError. ValueError too for an epoch to keep that the recipe lacks, when the
    loss is no longer finite, or nothing is asked. Closing the generator saves where it stands.
    """
    check_kept(keep_epochs, recipe)
    for questions in (train, validation):
        if not len(questions):
            raise ValueError(f"{questions.name} holds no questions; training needs some to learn from and to validate")
    keep_freed_memory()
    run = Run(Learner(model, recipe, loss, torch.device(device)), train, validation, out, about, seed, keep_epochs)
    while run.state.step < run.steps and not run.state.stopped:
        yield from run.epoch()


def fit(
    model: nn.Module,
    train: QuestionSet,
    validation: QuestionSet,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    loss: Loss = answers_only,
    keep_epochs: Collection[int] = (),
    watch: Callable[[Progress], object] | None = None,
) -> dict[str, Any]:
    """``training`` to its end, with ``watch`` called after each step; returns the best epoch's config.json."""
    out = Path(out)
    run = training(
        model, train, validation, recipe, out, about, seed=seed, device=device, loss=loss, keep_epochs=keep_epochs
    )
    with closing(run):  # now, not when an error's traceback lets go of it
        for progress in run:
            if watch:
                watch(progress)
    return read_json(out / "config.json")


@dataclass
class Run:
    """A training and where it stands: ``state`` counts its steps, ``steps`` is how many the recipe has."""

    learner: Learner
    train: QuestionSet
    validation: QuestionSet
    out: Path
    about: dict[str, Any]
    seed: int
    keep_epochs: Collection[int]

    def __post_init__(self) -> None:
        learner, recipe, train, validation = self.learner, self.learner.recipe, self.train, self.validation
        self.recipe = recipe
        self.groups = train.groups(together=recipe.queries == "all")
        self.per_epoch = math.ceil(len(self.groups) / recipe.batch)
        self.steps = self.per_epoch * recipe.epochs
        self.identity = {
            **asdict(recipe),
            "seed": self.seed,
            "data": train.name,
            "questions": len(train),
            "validation questions": len(validation),
            **self.about.get("model", {}),
            CONTENT: " ".join(fingerprint_of(questions)[:12] for questions in (train, validation)),
        }
        self.state = restore(self.out, learner.model, learner.optimizer, self.identity)
        self.entrance = Entrance(train.images, learner.device, learner.model, learner.skip)
        self.validating = Entrance(validation.images, learner.device, learner.model, learner.skip)
        self.saved_at = time.monotonic()

    def epoch(self) -> Generator[Progress, None, None]:
        """What is left of the epoch, step by step; saves at its end, every SAVE_EVERY seconds, and when closed."""
        epoch, first = divmod(self.state.step, self.per_epoch)
        order = order_in_epoch(len(self.groups), self.recipe, self.seed, epoch)[first:]
        shares = ([self.groups[i] for i in share(step)] for step in order)
        plan = (moved(self.train, groups, self.recipe, self.seed, epoch) for groups in shares)
        started = time.monotonic()
        for batch, pixels in loaded(self.entrance, plan):
            progress = self.step(batch, pixels)
            self.state.epoch_seconds += time.monotonic() - started
            if self.state.step % self.per_epoch == 0:
                self.entrance.end_pass()
                record = self.end_epoch(epoch)
                self.save()
                yield replace(progress, record=record)
                return
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                self.save()
            try:
                yield progress
            except GeneratorExit:
                self.save()
                raise
            started = time.monotonic()

    def step(self, batch: Batch, pixels: np.ndarray | None) -> Progress:
        """One step on this process's share of its images."""
        state = self.state
        # For dropout, other values in each process; set at each step, so that resuming needs no state.
        torch.manual_seed(self.seed * 1_000_003 + state.step + (rank() << 48))
        rate, loss = learning_rate(self.recipe, state.step, self.steps, self.per_epoch), math.nan
        asked, images = summed(torch.tensor([(batch.query >= 0).sum(), len(batch.image)])).tolist()
        if asked >= min(2, images):  # else its images can't be read, except for one: no batch for a norm
            mask = masks_of(self.train, batch, self.learner.device) if self.recipe.mask_price else None
            loss = self.learner.step(self.entrance, batch, pixels, mask, rate, state.step)
            state.epoch_loss += loss
        epoch, done = divmod(state.step, self.per_epoch)
        state.step += 1
        return Progress(state.step, self.steps, epoch + 1, state.epoch_loss / (done + 1), asked, loss, rate)

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate, keep the weights if they are the best so far, log, and decide whether to stop."""
        state, model = self.state, self.learner.model
        started = time.monotonic()
        name, score = validation_score(
            model, self.validation, self.learner.device, bf16=self.recipe.bf16, entrance=self.validating
        )
        record = {
            "epoch": epoch + 1,
            "step": state.step,
            "loss": state.epoch_loss / self.per_epoch,
            name: score,
            "train_seconds": round(state.epoch_seconds, 3),
            "validation_seconds": round(time.monotonic() - started, 3),
        }
        best = score > state.best_score
        if best:
            state.best_score, state.best_epoch = score, epoch
        state.stopped = 0 < self.recipe.patience <= epoch - state.best_epoch
        state.epoch_loss = state.epoch_seconds = 0.0
        if is_first():
            about = {**self.about, "recipe": asdict(self.recipe), "seed": self.seed}
            if best:
                save(self.out, model.state_dict(), {**about, "best": record})
            if epoch + 1 in self.keep_epochs:
                save(self.out / "epochs" / str(epoch + 1), model.state_dict(), {**about, "epoch": record})
            log = self.out / "log.jsonl"
            kept = [line for line in read_log(log) if line["epoch"] <= epoch]  # a kill may come before the checkpoint
            write_text(log, "".join(json.dumps(line) + "\n" for line in [*kept, record]))
        return record

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.out, self.learner.model, self.learner.optimizer, self.state, self.identity)
        self.saved_at = time.monotonic()


def check_kept(epochs: Collection[int], recipe: Recipe) -> None:
    """Raises ValueError for an epoch, counted from 1, that the recipe lacks."""
    if lacking := [epoch for epoch in epochs if not 1 <= epoch <= recipe.epochs]:
        raise ValueError(f"epochs to keep must be among the {recipe.epochs} of the training, got {lacking[0]}")


def order_in_epoch(groups: int, recipe: Recipe, seed: int, epoch: int) -> list[np.ndarray]:
    """Which of so many groups of rows are asked in each step of an epoch, shuffled by (seed, epoch).

    By raw integers, whose stream NumPy keeps for ever. Sizes differ by one at most: one question breaks batch norm.
    """
    order = np.argsort(np.random.PCG64([seed, epoch]).random_raw(groups), kind="stable")
    return np.array_split(order, math.ceil(groups / recipe.batch))


def moved(questions: QuestionSet, groups: list[np.ndarray], recipe: Recipe, seed: int, epoch: int) -> Batch:
    """The groups as a batch, its images in the places that the recipe's augmentation gives them."""
    batch = make_batch(questions, groups)
    if recipe.augment == "none":
        return batch
    if not isinstance(questions.images, FileImages):
        raise ValueError(f"augment={recipe.augment!r} needs images in files; for {questions.name} set it to 'none'")
    return replace(batch, place=questions.images.places(batch.image, recipe.augment, seed, epoch))


def masks_of(questions: QuestionSet, batch: Batch, device: torch.device) -> Tensor | None:
    """A batch's target masks (B, K, H, W) bool, none where nothing is asked; None if the set has no masks.

    Those of augmented images lie where their images do.
    """
    if questions.masks is None:
        return None
    asked = batch.row >= 0
    mask = np.zeros((*batch.row.shape, *questions.images.shape[1:3]), bool)
    if batch.place is None:
        mask[asked] = questions.masks[batch.row[asked]]
    else:
        places = [batch.place[image] for image in asked.nonzero()[0]]
        mask[asked] = questions.masks.read(batch.row[asked], places)  # type: ignore[attr-defined] (masks in files)
    return torch.from_numpy(mask).to(device)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run so far, in order; empty if there is no log. Raises ValueError for a broken one."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except ValueError as error:
        raise ValueError(f"{path} is broken: {error}; remove it, the training goes on without what it held") from error
