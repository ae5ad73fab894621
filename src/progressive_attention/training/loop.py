"""Train any network that answers questions about images; this file knows nothing of attention.

A run is a folder: log.jsonl, checkpoint.safetensors to go on from, the best epoch's weights.safetensors and
config.json, and in epochs/N those of each epoch N that is to be kept. Every step is a function of (state, seed, step
number), so a killed run goes on exactly. Several processes (``distributed``) share the images of every step, and take
the step that one would.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Generator, Iterable
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
from progressive_attention.evaluation.ask import Entrance, keep_freed_memory, loaded, precision, validation_score
from progressive_attention.files import read_json, write_text
from progressive_attention.network.question_network import QuestionNetwork
from progressive_attention.one_batch import norms_of_all, sum_gradients, summed
from progressive_attention.processes import is_first, rank, share
from progressive_attention.saved import weights
from progressive_attention.training.checkpoints import CONTENT, State, restore, save_checkpoint
from progressive_attention.training.objectives import Loss, answers_only
from progressive_attention.training.optimizers import Muon

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


class Diverged(ValueError):
    """A loss or a gradient's norm is no finite number, before the step it would spoil."""


def learning_rate(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """The recipe's rate at a step counted from 0. One-cycle: up in a fifth of the run, down by a cosine to nothing; a
    run of a single step takes it whole.
    """
    if recipe.schedule == "step":
        late = step // steps_per_epoch - recipe.decay_start
        return recipe.learning_rate * (recipe.decay ** (late // recipe.decay_every + 1) if late >= 0 else 1.0)
    if steps == 1:
        return recipe.learning_rate
    at = (step + 1) / steps
    if at < 0.2:
        return recipe.learning_rate * at / 0.2
    return recipe.learning_rate * (1 + math.cos(math.pi * (at - 0.2) / 0.8)) / 2


def parameter_groups(recipe: Recipe, model: nn.Module) -> list[dict[str, Any]]:
    """The parameters that learn, those with one factor on their learning rate together; the others are frozen.

    Raises ValueError for a rate of what the network has not, but for "localisation", which spatial transformers alone
    have: a recipe is for any network.
    """
    modules = dict(model.named_modules())
    for name, _ in recipe.module_rates:
        if name not in {*modules, *dict(model.named_parameters()), "localisation"}:
            known = ", ".join(one for one in modules if one and one.count(".") < 2)
            raise ValueError(f"module_rates names {name!r}, which {type(model).__name__} has not; it has {known}")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if factor := recipe.rate_factor(name):
            groups.setdefault(factor, []).append(parameter)
        parameter.requires_grad_(factor > 0)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules none of whose parameters learn: their batch norms keep their averages."""
    owners = [module for module in model.modules() if any(True for _ in module.parameters())]
    return [module for module in owners if not any(p.requires_grad for p in module.parameters())]


def frozen_stages(model: nn.Module) -> int:
    """How many first stages never change, nor depend on the question: their output can be computed once."""
    if not isinstance(model, QuestionNetwork):
        return 0
    first = model.attended[0]
    trunk = [(model.stages[i], *[model.norms[i]] * (i < first)) for i in range(model.skippable)]  # as in run_trunk
    changing = [any(p.requires_grad for part in parts for p in part.parameters()) for parts in trunk]
    return changing.index(True) if True in changing else len(changing)


def make_optimizer(recipe: Recipe, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """The recipe's optimiser for parameters, or groups of them; their rate is set at every step."""
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "muon":
        return Muon(parameters, recipe.learning_rate, recipe.weight_decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def order_in_epoch(groups: int, recipe: Recipe, seed: int, epoch: int) -> list[np.ndarray]:
    """Which of so many groups of rows are asked in each step of an epoch, shuffled by (seed, epoch).

    By raw integers, whose stream NumPy keeps for ever, as it does not that of ``Generator.permutation``.
    Sizes differ by one at most: a last batch of one lone question would break batch norm, so the remainder is spread.
    """
    order = np.argsort(np.random.PCG64([seed, epoch]).random_raw(groups), kind="stable")
    return np.array_split(order, math.ceil(groups / recipe.batch))


def check_kept(epochs: Collection[int], recipe: Recipe) -> None:
    """Raises ValueError for an epoch, counted from 1, that the recipe lacks."""
    if lacking := [epoch for epoch in epochs if not 1 <= epoch <= recipe.epochs]:
        raise ValueError(f"epochs to keep must be among the {recipe.epochs} of the training, got {lacking[0]}")


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

    ``about`` goes into config.json (see ``weights.describe``), ``loss`` is what the recipe minimises
    (``objectives.objective``). The weights of ``keep_epochs``, counted from 1, stay in ``out``/epochs/N; epochs that
    were over before they were named are not trained again for it. If ``out`` holds a checkpoint of the same run, it
    goes on from there; of another run: ValueError. ValueError too for an epoch to keep that the recipe lacks, when the
    loss is no longer finite, or nothing is asked. Closing the generator saves where it stands.
    """
    check_kept(keep_epochs, recipe)
    for questions in (train, validation):
        if not len(questions):
            raise ValueError(f"{questions.name} holds no questions; training needs some to learn from and to validate")
    device = torch.device(device)
    keep_freed_memory()
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, parameter_groups(recipe, model))
    frozen, skip = frozen_modules(model), frozen_stages(model)
    groups = train.groups(together=recipe.queries == "all")
    per_epoch = math.ceil(len(groups) / recipe.batch)
    steps = per_epoch * recipe.epochs
    sizes = {"questions": len(train), "validation questions": len(validation)}
    content = " ".join(fingerprint_of(questions)[:12] for questions in (train, validation))
    identity = {**asdict(recipe), "seed": seed, "data": train.name, **sizes, **about.get("model", {}), CONTENT: content}
    state = restore(out, model, optimizer, identity)
    entrance, to_validate = (Entrance(data.images, device, model, skip) for data in (train, validation))
    about = {**about, "recipe": asdict(recipe), "seed": seed}
    saved, asked, now, rate = time.monotonic(), 0, math.nan, 0.0
    while state.step < steps and not state.stopped:
        epoch, first = divmod(state.step, per_epoch)
        order = order_in_epoch(len(groups), recipe, seed, epoch)[first:]
        asked_now = ([groups[i] for i in share(step)] for step in order)
        started = time.monotonic()
        for batch, pixels in loaded(entrance, (moved(train, rows, recipe, seed, epoch) for rows in asked_now)):
            model.train()
            for module in frozen:
                module.eval()
            # For dropout, other values in each process; set at each step, so that resuming needs no state.
            torch.manual_seed(seed * 1_000_003 + state.step + (rank() << 48))
            rate, now = learning_rate(recipe, state.step, steps, per_epoch), math.nan
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * rate
            asked, images = summed(torch.tensor([(batch.query >= 0).sum(), len(batch.image)])).tolist()
            if asked >= min(2, images):  # else its images can't be read, but for one: no batch for a norm
                with precision(device, recipe.bf16), norms_of_all():
                    entering, query = entrance(batch, pixels), torch.from_numpy(batch.query)
                    prediction = model(entering, query, skip=skip) if skip else model(entering, query)
                mask = masks_of(train, batch, device) if recipe.mask_price else None
                value = loss(prediction, torch.from_numpy(batch.attribute).to(device), mask)
                optimizer.zero_grad()
                value.backward()
                value = sum_gradients(model, value)
                norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                now = finite(value, norm, state.step, out)
                state.epoch_loss += now
                optimizer.step()
            state.step += 1
            state.epoch_seconds += time.monotonic() - started
            done = (state.step - 1) % per_epoch + 1
            if done == per_epoch:
                break
            if time.monotonic() - saved > SAVE_EVERY:
                save_checkpoint(out, model, optimizer, state, identity)
                saved = time.monotonic()
            try:
                yield Progress(state.step, steps, epoch + 1, state.epoch_loss / done, asked, now, rate)
            except GeneratorExit:
                save_checkpoint(out, model, optimizer, state, identity)
                raise
            started = time.monotonic()
        entrance.end_pass()
        record = end_epoch(model, validation, to_validate, recipe, out, about, state, epoch, per_epoch)
        if epoch + 1 in keep_epochs and is_first():
            weights.save(out / "epochs" / str(epoch + 1), model.state_dict(), {**about, "epoch": record})
        save_checkpoint(out, model, optimizer, state, identity)
        saved = time.monotonic()
        yield Progress(state.step, steps, epoch + 1, record["loss"], asked, now, rate, record)


def moved(questions: QuestionSet, groups: list[np.ndarray], recipe: Recipe, seed: int, epoch: int) -> Batch:
    """The groups as a batch, its images in the places that the recipe's augmentation gives them."""
    batch = make_batch(questions, groups)
    if recipe.augment == "none":
        return batch
    if not isinstance(questions.images, FileImages):
        raise ValueError(f"augment={recipe.augment!r} needs images in files; for {questions.name} set it to 'none'")
    return replace(batch, place=questions.images.places(batch.image, recipe.augment, seed, epoch))


def fit(*args: Any, watch: Callable[[Progress], None] | None = None, **kwargs: Any) -> dict[str, Any]:
    """``training`` to its end, telling ``watch`` after each step; returns the best epoch's config.json."""
    with closing(training(*args, **kwargs)) as run:  # now, not when an error's traceback lets go of it
        for progress in run:
            if watch:
                watch(progress)
    out = kwargs.get("out") or args[4]
    return read_json(Path(out) / "config.json")


def end_epoch(
    model: nn.Module,
    validation: QuestionSet,
    entrance: Entrance,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    state: State,
    epoch: int,
    per_epoch: int,
) -> dict[str, Any]:
    """Validate, keep the weights if they are the best so far, log, and decide whether to stop."""
    started = time.monotonic()
    what, score = validation_score(model, validation, entrance.device, bf16=recipe.bf16, entrance=entrance)
    record = {
        "epoch": epoch + 1,
        "step": state.step,
        "loss": state.epoch_loss / per_epoch,
        what: score,
        "train_seconds": round(state.epoch_seconds, 3),
        "validation_seconds": round(time.monotonic() - started, 3),
    }
    if score > state.best_score:
        state.best_score, state.best_epoch = score, epoch
        if is_first():
            weights.save(out, model.state_dict(), {**about, "best": record})
    state.stopped = 0 < recipe.patience <= epoch - state.best_epoch
    state.epoch_loss = state.epoch_seconds = 0.0
    if not is_first():
        return record
    log = out / "log.jsonl"
    kept = [line for line in read_log(log) if line["epoch"] <= epoch]  # a kill may come between log and checkpoint
    write_text(log, "".join(json.dumps(line) + "\n" for line in [*kept, record]))
    return record


def read_log(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run so far, in order; empty if there is no log. Raises ValueError for a broken one."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except ValueError as error:
        raise ValueError(f"{path} is broken: {error}; remove it, the training goes on without what it told") from error


def finite(loss: Tensor, norm: Tensor, step: int, out: Path) -> float:
    """The loss as a number; raises Diverged, before a bad step reaches the weights, if it or the norm is none.

    Both are fetched at once: each fetch makes a GPU wait.
    """
    numbers = torch.stack([loss.float(), norm.float()]).tolist()
    for what, number in zip(("loss", "gradient's norm"), numbers, strict=True):
        if not math.isfinite(number):
            raise Diverged(
                f"the {what} is {number} at step {step}: training diverged; try a lower learning rate (pan train "
                f"--lr, or an experiment's learning_rates). What was saved before in {out} is unharmed"
            )
    return numbers[0]


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
