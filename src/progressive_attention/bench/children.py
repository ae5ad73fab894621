"""A fresh process: what it printed, its wall seconds and its largest memory. Needs a Unix.

The system counts the memory of whoever starts a process as the new one's own (Linux: ``ru_maxrss`` outlives exec), and
a process that has imported torch is large. So this file is also the small script that stands between the two.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Finished(NamedTuple):
    """A process that has ended well; ``peak``: bytes in memory at its largest, or at that of its largest child."""

    output: str  # what it printed, standard error left out
    seconds: float  # of wall time, from its start to its end
    peak: int


def run_child(command: Sequence[str], threads: int, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end, torch's ``threads`` given to it; ``environment`` is added to ours.

    It is stopped, too, when this process is interrupted. Raises ChildProcessError with its last line of standard error
    if it fails.
    """
    launcher = [sys.executable, "-I", "-S", __file__, *command]
    given = {**os.environ, "OMP_NUM_THREADS": str(threads), **(environment or {})}
    process = subprocess.Popen(launcher, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate()
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    if process.returncode:
        reason = (errors.strip().splitlines() or ["it said nothing"])[-1]
        raise ChildProcessError(f"{' '.join(command)} ended with code {process.returncode}: {reason}")
    printed, _, measured = output.rstrip("\n").rpartition("\n")
    return Finished(printed, **json.loads(measured))


def launch(command: list[str]) -> int:
    """Run a command, print its seconds and peak as one line of JSON after what it prints; returns its exit code."""
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes there, KiB elsewhere
    print("\n" + json.dumps({"seconds": seconds, "peak": peak}), flush=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code  # as shells tell of a signal


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
