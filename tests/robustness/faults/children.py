"""Work in a child process that is forked, so that it starts at once, and ended as a fault wants it."""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyarrow import parquet
from safetensors import safe_open
from works import Work

PATIENCE = 120.0  # seconds after which a child hangs
HIDDEN = ".pan-"  # in the names of what is being written
Meddle = Callable[[int], None]  # given the child's process id


class Ended(NamedTuple):
    """A child's exit code (-9: killed), what it printed, and how long it took, in seconds."""

    code: int
    output: str
    seconds: float


def run(work: Work, folder: Path, meddle: Meddle | None = None, sabotage: Callable[[], None] | None = None) -> Ended:
    """``work`` in a child whose working directory is ``folder``; ``sabotage`` is called in it first."""
    output = folder.with_suffix(".output")
    sys.stdout.flush()
    begins, begun = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()  # its own children end with it, below
            where = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(where, 1)
            os.dup2(where, 2)
            sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  not pytest's
            os.chdir(folder)
            os.environ["PAN_CACHE"] = str(folder / "cache")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if sabotage:
                sabotage()
            os.write(begun, b"!")
            code = work.do()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # now it comes too late
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(begun)
    os.read(begins, 1)
    os.close(begins)
    started = time.monotonic()
    if meddle:
        meddle(child)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    seconds = time.monotonic() - started
    return Ended(os.waitstatus_to_exitcode(status), output.read_text(errors="replace"), seconds)


def after(seconds: float, *signals: int) -> Meddle:
    """Send signals, 20 ms apart, so long after the start."""

    def meddle(child: int) -> None:
        time.sleep(seconds)
        for i, number in enumerate(signals):
            time.sleep(0.02 * bool(i))
            os.kill(child, number)  # not yet waited for, so the id is still its own

    return meddle


def torn(folder: Path) -> str:
    """What is not whole among the files that a reader would open; "" if all is."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or HIDDEN in str(path.relative_to(folder)):
            continue
        try:
            check(path)
        except Exception as error:
            return f"{path.relative_to(folder)} is torn: {error}"
    return ""


def check(path: Path) -> None:
    """Raises whatever a torn file runs into."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    elif path.suffix == ".parquet":
        parquet.read_table(path)
    elif path.suffix in (".npy", ".npz"):
        found = np.load(path, allow_pickle=False)
        [found[name] for name in getattr(found, "files", ())]
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "no </html>"
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "no end"


def leavings(folder: Path) -> list[str]:
    """Temporary files and folders that are still there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if HIDDEN in path.name)


def small_files(size: int) -> Callable[[], None]:
    """No file larger than that: what a full disk does, without one."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
