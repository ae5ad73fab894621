"""Where a training stands, in one file: what it needs to go on exactly, and never a pickle."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from progressive_attention.files import read_tensors, write_tensors
from progressive_attention.processes import from_first, is_first

REMEDY = "choose another --out, or delete it"
CONTENT = "content"  # of a run's identity: the digests of its questions


@dataclass
class State:
    """Where a run stands, beside weights and optimiser; seconds are those of training steps."""

    step: int = 0
    epoch_loss: float = 0.0  # summed over the steps of the running epoch
    epoch_seconds: float = 0.0
    best_score: float = -1.0
    best_epoch: int = -1
    stopped: bool = False


def save_checkpoint(
    out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State, identity: dict[str, Any]
) -> None:
    """One file with weights, optimiser state and counters, so that it can't be half new; by the first process."""
    if not is_first():
        return
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    notes = {"state": json.dumps(asdict(state)), "run": json.dumps(identity)}
    write_tensors(out / "checkpoint.safetensors", tensors, notes)


def restore(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> State:
    """Load the checkpoint in ``out`` if there is one; raises ValueError if it is broken or of another run.

    Of several processes the first one reads it for all, who need not see its disk.
    """
    path = out / "checkpoint.safetensors"
    checkpoint = from_first(lambda: read_checkpoint(path))
    if checkpoint is None:
        return State()
    tensors, notes = checkpoint
    try:
        state = msgspec.json.decode(notes["state"], type=State)
        there = msgspec.json.decode(notes["run"], type=dict[str, Any])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no checkpoint of a training ({error}); {REMEDY}") from error
    check_same_run(out, there, json.loads(json.dumps(identity)))
    try:
        model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model/")})
    except RuntimeError as error:  # a network that is not described in ``about``
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{out} holds another network's run ({reason}); {REMEDY}") from error
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        owner, _, name = key.removeprefix("optimizer/").rpartition("/")
        if not key.startswith("optimizer/") or owner not in parameters:
            continue
        like = torch.empty(()) if name == "step" else parameters[owner]
        if value.shape != like.shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(like.shape)}"
            raise ValueError(f"{path} holds {key} of shape {shapes}; {REMEDY}")
        # In the parameter's memory layout, whatever that is.
        same_layout = torch.empty_like(like, dtype=value.dtype, device=parameters[owner].device)
        optimizer.state[parameters[owner]][name] = same_layout.copy_(value)
    return state


def identity_of(out: Path) -> dict[str, Any]:
    """What the run whose checkpoint is in ``out`` trains, and by which recipe; empty where there is none.

    Raises ValueError for a broken checkpoint, in all processes.
    """
    checkpoint = from_first(lambda: read_checkpoint(out / "checkpoint.safetensors"))
    return json.loads(checkpoint[1].get("run", "{}")) if checkpoint else {}


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """A checkpoint's tensors and notes, None if there is no such file; raises ValueError if it is broken."""
    try:
        return read_tensors(path) if path.exists() else None
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}); delete it to start over, or choose another --out") from error


def check_same_run(out: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError, naming what differs, where a checkpoint's identity is not that of the run now."""
    different = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
    # Other data have other content: that is named only where nothing else differs.
    changes = [f"{key} {there.get(key)} there, {now.get(key)} now" for key in different if key != CONTENT]
    if different:
        differences = ", ".join(changes) or "rows, words or pictures of the data differ"
        raise ValueError(f"{out} holds another run ({differences}); {REMEDY}")
