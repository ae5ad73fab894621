"""One job in several processes, as torchrun starts it: who this one is, what its share is, what all have together.

Alone, a process is number 0 of 1. What goes between processes is pickled: they are one job's, and trust each other.
"""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PATIENCE = 600.0  # seconds after which a silent process counts as lost; PAN_TIMEOUT in the environment replaces it
AGAIN = "start the job again; a training goes on from its checkpoint, by itself with torchrun --max-restarts 3"


def several() -> bool:
    """Whether torchrun (or whoever else sets its environment) has started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def group() -> Any:
    """``torch.distributed`` where processes have joined, else None."""
    module = sys.modules.get("torch.distributed")  # without torch nobody has joined
    return module if module is not None and module.is_available() and module.is_initialized() else None


def rank() -> int:
    """This process's number, from 0."""
    return group().get_rank() if group() else 0


def world() -> int:
    """Number of processes."""
    return group().get_world_size() if group() else 1


def is_first() -> bool:
    """Whether this process is the one that prints, and writes files."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the job's processes for a while: gloo for what is in memory, NCCL for what is on a GPU.

    Raises ValueError for an environment that is not torchrun's, and ConnectionError when another process is lost.
    """
    if not several():
        yield
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE is set, but {', '.join(missing)} is not set; start by torchrun, or unset it")
    patience = read_patience()
    signal.signal(signal.SIGTERM, stopped)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with exchange():
        store, number, processes = next(rendezvous("env://", timeout=patience))
        start = distributed.PrefixStore(agreed(store, number, processes, patience), store)  # type: ignore[attr-defined]
        distributed.init_process_group(backend, None, patience, processes, number, start)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # one error is enough
        raise
    distributed.destroy_process_group()  # after an error the others may not be there to agree


def read_patience() -> timedelta:
    """``PAN_TIMEOUT`` of the environment, PATIENCE if it is not set; raises ValueError for what is no time."""
    text = os.environ.get("PAN_TIMEOUT", str(PATIENCE))
    with suppress(ValueError, OverflowError):
        if (seconds := float(text)) > 0:
            return timedelta(seconds=seconds)
    raise ValueError(f"PAN_TIMEOUT must be a number of seconds above zero, got {text!r}")


def agreed(store: Any, number: int, processes: int, patience: timedelta) -> str:
    """A name that the processes of this very start have agreed on, once each knows that each other knows all of them.

    torchrun keeps its store when it starts all again, so processes would wait there for those that are gone; its
    counts of restarts differ between machines.
    """
    store.set(f"start/{number}", uuid4().hex)
    until = time.monotonic() + patience.total_seconds()
    while time.monotonic() < until:
        everyone = b" ".join(store.get(f"start/{i}") for i in range(processes))
        store.set(f"seen/{number}", everyone)
        if all(store.get(f"seen/{i}") == everyone for i in range(processes)):
            return sha256(everyone).hexdigest()
        time.sleep(0.05)
    raise RuntimeError(f"not all of {processes} processes started within {patience}")


def stopped(*_: object) -> NoReturn:
    """What SIGTERM does: torchrun sends it to all that are left when one has ended."""
    raise ConnectionError(f"stopped by SIGTERM: another process of the job has ended, or the job was ended; {AGAIN}")


@contextmanager
def exchange() -> Iterator[None]:
    """Around every exchange: raises ConnectionError where it fails, with torch's reason and the likely cause."""
    try:
        yield
    except RuntimeError as error:
        if not several() or "memory" in str(error):  # of a backward pass, within which gradients are exchanged
            raise
        text = str(error).partition("Exception raised from ")[0] or type(error).__name__  # without a trace in C++
        reason = re.sub(r"^\[\S+:\d+\] ", "", " ".join(text.split()))  # nor the place in gloo's source
        likely = "most likely one was lost, killed or stopped by an error of its own"
        raise ConnectionError(
            f"an exchange between the job's processes failed ({reason}); {likely}: {AGAIN}"
        ) from error


def local_device(name: str) -> str:
    """The device of that name for this process: of "cuda" the GPU of its number; ValueError for a shared one."""
    if name.startswith("cuda:") and world() > 1 and os.environ.get("LOCAL_WORLD_SIZE", "1") != "1":
        raise ValueError(f"each process of a machine needs a GPU of its own, but {name!r} is one for all; say cuda")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and several() else name


def share(items: T) -> T:
    """Every world-th item, from the rank-th on: shares differ by one at most."""
    return items[rank() :: world()]  # type: ignore[index]


def own_part(count: int, size: int) -> range:
    """This process's part of ``count`` items worked on ``size`` at a time: whole batches, the same for any number."""
    batches = -(-count // size)
    first, last = (-(-batches * i // world()) * size for i in (rank(), rank() + 1))
    return range(min(first, count), min(last, count))


def gathered(value: T) -> list[T]:
    """What every process has, in the order of their numbers; in every process."""
    if group() is None:
        return [value]
    values: list[Any] = [None] * world()
    with exchange():
        group().all_gather_object(values, value)
    return values


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    return gathered(make() if is_first() else None)[0]  # type: ignore[return-value]


def summed(values: "Tensor") -> "Tensor":
    """Sum over processes of values of one shape; no gradient goes through it."""
    if group() is None:
        return values
    total = values.detach().clone()
    with exchange():
        group().all_reduce(total)
    return total


def average(tensors: "Sequence[Tensor]") -> None:
    """Give each process the mean over processes of these tensors of one type, in place, by one exchange."""
    if world() == 1 or not tensors:
        return
    import torch

    mean = summed(torch.cat([tensor.flatten() for tensor in tensors])) / world()
    for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


@contextmanager
def in_turn() -> Iterator[None]:
    """One process of this machine after another: what the first one makes, a cache say, the others find made."""
    from filelock import FileLock

    lock = FileLock(Path(tempfile.gettempdir()) / f"pan-{os.getppid()}.lock")  # they have one parent
    with lock if several() else nullcontext():
        yield
