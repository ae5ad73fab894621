"""Commands in two processes by real torchrun, for the tests of several processes and of several GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from free_port import free_port

HERE = Path(__file__).parent
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def torchrun(*command: object, restarts: int = 0, **more: str) -> subprocess.CompletedProcess:
    """A command in two processes; ``more`` goes into their environment."""
    words = [*LAUNCHER, "--master-port", str(free_port()), "--max-restarts", str(restarts), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment(**more), timeout=300)


def job(name: str, folder: Path, **options) -> subprocess.CompletedProcess:
    """One of ``in_processes.JOBS``."""
    return torchrun(HERE / "in_processes.py", name, folder, **options)


def finished(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def assert_same_gradient(values: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol=1e-10) -> None:
    """A transformer's gradients reach 4,000 here: of what is above 1, the share counts."""
    scale = max(1.0, *(float(value.abs().max()) for value in expected.values()))
    assert values.keys() >= expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(values[key], value, rtol=0, atol=atol * scale)
