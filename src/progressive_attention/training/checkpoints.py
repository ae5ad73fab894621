"""Where a training stands, in one file: what it needs to go on exactly, and never a pickle."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from progressive_attention.config import ModelConfig, Recipe, checked
from progressive_attention.files import read_tensors, write_tensors
from progressive_attention.processes import from_first, is_first

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


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """A checkpoint's tensors and notes, None if there is no such file; raises ValueError if it is broken."""
    if not path.exists():
        return None
    try:
        return read_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}); delete it to start over, or choose another --out") from error


def read_note(path: Path, name: str, text: str) -> dict[str, Any]:
    """A checkpoint's note, a JSON object; raises ValueError for anything else."""
    try:
        return checked(name, json.loads(text), dict)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a broken note ({error}); delete it to start over") from error


def restore(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> State:
    """Load the checkpoint in ``out`` if there is one; raises ValueError if it is broken or of another run.

    Of several processes the first one reads it for all, who need not see its disk.
    """
    path = out / "checkpoint.safetensors"
    found = from_first(lambda: read_checkpoint(path))
    if found is None:
        return State()
    tensors, notes = found
    if not {"run", "state"} <= set(notes):
        raise ValueError(f"{path} is no checkpoint of a training; choose another --out, or delete it")
    counters, old = (read_note(path, name, notes[name]) for name in ("state", "run"))
    if set(counters) != {one.name for one in fields(State)}:
        raise ValueError(
            f"{path} is of another version of this library (it counts {', '.join(counters)}); "
            "go on with that version, delete it to start over, or choose another --out"
        )
    for one in fields(State):
        checked(f"{one.name} in {path}", counters[one.name], type(one.default))
    now = json.loads(json.dumps(identity))
    later = {one.name: one.default for one in (*fields(Recipe), *fields(ModelConfig)) if one.default is not MISSING}
    later[CONTENT] = now.get(CONTENT)  # which earlier versions did not note
    old = {**json.loads(json.dumps({key: later[key] for key in now if key in later})), **old}  # choices made later
    if different := [key for key in sorted({*old, *now}) if old.get(key) != now.get(key)]:
        told = [key for key in different if key != CONTENT] or different  # other data have other content
        changes = ", ".join(f"{key} {old.get(key)} there, {now.get(key)} now" for key in told)
        if told == [CONTENT]:
            changes += ": rows, words or pictures of the data differ"
        raise ValueError(f"{out} holds another run ({changes}); choose another --out, or delete it")
    try:
        model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model/")})
    except RuntimeError as error:  # a network that is not described in ``about``
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{out} holds another network's run ({reason}); choose another --out, or delete it") from error
    for name, parameter in model.named_parameters():
        prefix = f"optimizer/{name}/"
        for key, tensor in tensors.items():
            if key.startswith(prefix):
                expected = () if key.endswith("/step") else tuple(parameter.shape)
                if tuple(tensor.shape) != expected:
                    raise ValueError(
                        f"{path} holds {key} of shape {tuple(tensor.shape)}, expected {expected}; choose another "
                        "--out, or delete it"
                    )
                like = parameter if tensor.shape == parameter.shape else tensor
                value = tensor.to(parameter.device)
                optimizer.state[parameter][key[len(prefix) :]] = torch.empty_like(like, dtype=tensor.dtype).copy_(value)
    return State(**counters)
