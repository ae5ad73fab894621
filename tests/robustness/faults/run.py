"""Faults, injected into work of a second or two: ``python tests/robustness/faults/run.py --kills 50``.

After each fault no file is torn, the message says in one line what happened, and the same command leaves what the
undisturbed run leaves, and nothing else. Prints what was tried and what survived; exit code 1 if anything did not.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process with threads should not be forked
sys.path.insert(0, str(Path(__file__).parent))

import shutil

import children
import numpy as np
from children import Ended, after, disk, jump, kill_one_of, leavings, small_files, torn
from works import EVALUATION, LONG, SEVERAL, WORKS, Outcome, Work

YEARS = 10 * 365.25 * 24 * 3600
PAGE = 4096
MESSAGES = ("No space left", "no room", "Read-only", "Permission denied", "File too large", "os error")


class Fault(NamedTuple):
    """A fault to try: ``inject`` returns what did not survive, "" if all did."""

    kind: str
    name: str
    inject: Callable[[], str]


class Bench:
    """Where faults are tried: a folder, and what each work takes and leaves undisturbed, measured once."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.known: dict[str, tuple[Path, Outcome, float]] = {}
        self.number = 0
        self.mounting = False

    def fresh(self) -> Path:
        """A folder for one trial."""
        self.number += 1
        return self.folder / f"trial-{self.number}"

    def ready(self, work: Work, folder: Path) -> Path:
        """The folder with what ``work`` starts from."""
        folder.mkdir(exist_ok=True)
        finished = self.undisturbed(WORKS["training"])[0] if work.prepare is works_with_run else folder
        work.prepare(folder, finished)
        return folder

    def undisturbed(self, work: Work) -> tuple[Path, Outcome, float]:
        """The folder that an undisturbed run leaves, its outcome, and the seconds it took."""
        if work.name not in self.known:
            for _ in range(2):  # the first finds files and pages of memory cold
                folder = self.ready(work, self.fresh())
                ended = children.run(work, folder)
                assert ended.code == 0, f"{work.name} fails undisturbed: {ended.told}"
                assert [torn(folder), *leavings(folder)] == [""]
                expected = self.known[work.name][1] if work.name in self.known else work.outcome(folder)
                assert work.outcome(folder) == expected, f"{work.name} leaves something else each time"
                self.known[work.name] = folder, expected, ended.seconds
        return self.known[work.name]

    def recovered(self, work: Work, folder: Path) -> str:
        """Whether the same command now leaves what the undisturbed run left: "" or what is wrong."""
        if wrong := torn(folder):
            return wrong
        again = children.run(work, folder)
        if again.code:
            return f"the same command then ended with {again.code}: {again.told[-300:]}"
        if wrong := torn(folder) or ", ".join(leavings(folder)):
            return f"afterwards: {wrong}"
        expected, found = self.undisturbed(work)[1], work.outcome(folder)
        different = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        return f"other than undisturbed: {different}" if different else ""

    # --- faults -------------------------------------------------------------------------------------------------------

    def kill(self, work: Work, share: float) -> str:
        """SIGKILL after that share of the undisturbed run's time; earlier if it had ended by then."""
        for _ in range(20):
            folder = self.ready(work, self.fresh())
            ended = children.run(work, folder, after(share * self.undisturbed(work)[2], signal.SIGKILL))
            if ended.code == -signal.SIGKILL:
                return self.recovered(work, folder) or done(folder)
            shutil.rmtree(folder)
            share *= 0.9
        return "always ended before it could be killed"

    def interrupt(self, work: Work, share: float, times: int) -> str:
        """Ctrl-C; 130 and one line, or 0 where all was done."""
        folder = self.ready(work, self.fresh())
        ended = children.run(work, folder, after(share * self.undisturbed(work)[2], *[signal.SIGINT] * times))
        if ended.code not in (0, 130) or (ended.code and said(ended) != "stopped"):
            return f"ended with {ended.code}: {ended.told[-300:]}"
        return self.recovered(work, folder) or done(folder)

    def saved_by_ctrl_c(self, share: float) -> str:
        """Ctrl-C within an epoch of which nothing is saved yet: a checkpoint must be there."""
        folder = self.ready(LONG, self.fresh())
        ended = children.run(LONG, folder, after(share * self.undisturbed(LONG)[2], signal.SIGINT))
        if ended.code == 130 and not (folder / "run" / "checkpoint.safetensors").exists():
            return f"nothing was saved: {ended.told[-300:]}"
        return self.recovered(LONG, folder) or done(folder)

    def full_disk(self, work: Work, share: float) -> str:
        """Room for a share of what the work writes, then for all."""
        whole = self.undisturbed(work)[0]
        start = self.ready(work, self.fresh())
        before, all_of_it = used(start), used(whole)
        largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        shutil.rmtree(start)
        folder = self.fresh()
        room = before + int(share * (all_of_it - before) / PAGE) * PAGE
        with disk(folder, room, self.mounting) as change:
            self.ready(work, folder)
            sabotage = None if self.mounting else small_files(round(share * largest))
            ended = children.run(work, folder, sabotage=sabotage)
            if wrong := refused(ended):
                return wrong
            change("size=200m")
            return self.recovered(work, folder)

    def read_only(self, work: Work) -> str:
        """Nothing can be written, then all."""
        folder = self.fresh()
        with disk(folder, 200 << 20, self.mounting) as change:
            self.ready(work, folder)
            change("ro")
            ended = children.run(work, folder)
            change("rw")
            return refused(ended) or self.recovered(work, folder)

    def damaged(self, work: Work, pattern: str, how: str, at: float, remedy: bool) -> str:
        """Damage a finished run's file: it is noticed in a line that names it, or made anew.

        With ``remedy`` the file is deleted then, as the message says, and else put back.
        """
        folder = self.fresh()
        shutil.copytree(self.undisturbed(work)[0], folder)
        (path,) = folder.glob(pattern)
        whole = path.read_bytes()
        path.write_bytes(damage(whole, how, at))
        for left in ("run/log.jsonl", "run/report.html") if remedy else ():
            (folder / left).unlink(missing_ok=True)
        ended = children.run(work, folder)
        if ended.code == 2 and (path.name not in ended.told or len(errors(ended)) != 1):
            return f"not told in one line: {ended.told[-300:]}"
        if ended.code not in (0, 2):
            return f"ended with {ended.code}: {ended.told[-300:]}"
        if ended.code == 2:
            if remedy:
                path.unlink()
            else:
                path.write_bytes(whole)
        return self.recovered(work, folder) or done(folder)

    def dead_worker(self, work: Work, mark: str) -> str:
        """One of its processes is killed: the others finish, or it is told."""
        folder = self.ready(work, self.fresh())
        ended = children.run(work, folder, kill_one_of(mark))
        if ended.code not in (0, 2) or (ended.code and len(errors(ended)) != 1):
            return f"ended with {ended.code}: {ended.told[-300:]}"
        return self.recovered(work, folder) or done(folder)

    def clock(self, work: Work, seconds: float) -> str:
        """The clock jumps half way, and nothing comes of it."""
        folder = self.ready(work, self.fresh())
        ended = children.run(work, folder, sabotage=jump(seconds, self.undisturbed(work)[2] / 2))
        return f"ended with {ended.code}: {ended.told[-300:]}" if ended.code else self.recovered(work, folder)


works_with_run = WORKS["report"].prepare


def done(folder: Path) -> str:
    """Nothing is wrong: the folder can go."""
    shutil.rmtree(folder)
    return ""


def used(folder: Path) -> int:
    """Bytes of a folder on a disk that gives whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def errors(ended: Ended) -> list[str]:
    """The lines that tell an error."""
    return [line for line in ended.told.splitlines() if line.startswith("pan ") and ": error: " in line]


def said(ended: Ended) -> str:
    """What the last line says after the command's name."""
    return ended.told.rstrip().rpartition("\n")[2].partition(": ")[2]


def refused(ended: Ended) -> str:
    """Whether a disk's fault was told in one line and exit code 2: "" or what came instead."""
    lines = errors(ended)
    told = ended.code == 2 and len(lines) == 1 and any(word in lines[0] for word in MESSAGES)
    return "" if told and "Traceback" not in ended.told else f"ended with {ended.code}: {ended.told[-400:]}"


def damage(content: bytes, how: str, at: float) -> bytes:
    """``cut`` or ``flip`` (a bit) at a share of the content."""
    place = int(at * len(content))
    if how == "cut":
        return content[:place]
    flipped = bytearray(content)
    flipped[place] ^= 1 << int(at * 1e6) % 8
    return bytes(flipped)


def faults(bench: Bench, kills: int) -> Iterator[Fault]:
    """All faults to try; moments are drawn one in each of as many equal parts of the undisturbed run."""
    works = list(WORKS.values())
    for i, work in enumerate(works):
        count = len(range(i, kills, len(works)))
        for share in (np.arange(count) + bench.rng.random(count)) / max(count, 1):
            yield Fault("kills", f"{work.name} at {share:.0%}", partial(bench.kill, work, share))
    for work in works:
        for share in 0.1, 0.5, 0.9:
            yield Fault("full disk", f"{work.name} at {share:.0%}", partial(bench.full_disk, work, share))
        yield Fault("read-only folder", work.name, partial(bench.read_only, work))
        for seconds in -YEARS, -3600.0, 3600.0, YEARS:
            yield Fault("clock jumps", f"{work.name} by {seconds:.0f} s", partial(bench.clock, work, seconds))
        for times, kind in (1, "Ctrl-C once"), (2, "Ctrl-C twice"):
            for share in (np.arange(4) + bench.rng.random(4)) / 4:
                yield Fault(kind, f"{work.name} at {share:.0%}", partial(bench.interrupt, work, share, times))
    for share in 0.6, 0.9:
        yield Fault("Ctrl-C saves", f"one long epoch at {share:.0%}", partial(bench.saved_by_ctrl_c, share))
    train, rendering, report = WORKS["training"], WORKS["rendering"], WORKS["report"]
    for work, pattern, remedy in (
        (train, "run/checkpoint.safetensors", True),
        (EVALUATION, "run/weights.safetensors", False),
        (report, "run/evaluation/*.parquet", False),
        (report, "run/evaluation/*.json", False),
        *((rendering, f"cache/*/{name}", False) for name in ("images.npy", "owner.npy", "questions.npz", "key.json")),
    ):
        for how, count in ("cut", 3), ("flip", 8):
            for at in (np.arange(count) + bench.rng.random(count)) / count:
                inject = partial(bench.damaged, work, pattern, how, at, remedy)
                kind = {"cut": "truncated files", "flip": "flipped bits"}[how]
                yield Fault(kind, f"{pattern} at {at:.2%}", inject)
    for work, mark in zip(SEVERAL.values(), ("spawn_main", "loky"), strict=True):
        yield Fault("killed workers", work.name, partial(bench.dead_worker, work, mark))


def main(argv: list[str] | None = None) -> int:
    """Try them all, telling what did not survive; 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs, spread over all works (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments and places (default: 0)")
    parser.add_argument("--only", metavar="NAME", help='faults whose kind begins so, e.g. kills, "full disk"')
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no fault after so long")
    arguments = parser.parse_args(argv)
    started, tried, survived, left = time.monotonic(), Counter(), Counter(), 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        bench = Bench(Path(folder), arguments.seed)
        bench.mounting = children.own_mounts()
        for kind, name, inject in faults(bench, arguments.kills):
            if not kind.startswith(arguments.only or ""):
                continue
            if time.monotonic() - started > arguments.seconds:
                left += 1
                continue
            wrong = inject()
            tried[kind] += 1
            survived[kind] += not wrong
            if wrong:
                print(f"NOT SURVIVED: {kind}, {name}: {wrong}", flush=True)
    for kind, count in tried.items():
        print(f"{kind:18s}{count:4d} tried {survived[kind]:4d} survived")
    late = f", {left} left out for want of time" if left else ""
    print(
        f"faults: {tried.total()} tried, {survived.total()} survived (seed {arguments.seed}, "
        f"{time.monotonic() - started:.0f} s{late})"
    )
    return int(survived != tried)


if __name__ == "__main__":
    sys.exit(main())
