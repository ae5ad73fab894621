"""Fuzz every reader of files: `python tests/robustness/fuzz/run.py --cases 100000`; docs/trust.md shows it.

Prints what was tried and what survived, by reader; exits 1 if there are findings, each kept for `--replay FILE`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz.cases import MEMORY, SECONDS, Bench, store, stored
from fuzz.pool import Tally, fuzz
from fuzz.readers import READERS


def parser() -> argparse.ArgumentParser:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--cases", type=int, default=100_000, help="how many, of all readers together (%(default)s)")
    told.add_argument("--seed", type=int, default=0, help="one seed gives one set of cases (%(default)s)")
    told.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long (when all is done)")
    told.add_argument("--reader", choices=READERS, action="append", help="only this one; may be repeated (all)")
    told.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at once (%(default)s)")
    told.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where they are kept (%(default)s)")
    told.add_argument("--replay", type=Path, help="run one finding again, in this process, and nothing else")
    return told


def replay(path: Path) -> int:
    """Run a finding again; 1 if it still is one."""
    finding = stored(path)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        bench = Bench(Path(home) / "home")
        outcome, told = bench.run(READERS[finding.reader], finding.files, f"{finding.seed} {finding.case}")
    print(f"{path.name}: {outcome} {told}")
    return int(outcome == "fault")


def progress(started: float):
    """Tells on one line, every ten seconds."""
    last = started

    def tell(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            done = sum((Counter(counts) for counts in tally.values()), Counter())
            print(
                f"{last - started:5.0f} s: {done.total():,} cases, {done['fault']} faults", file=sys.stderr, flush=True
            )

    return tell


def main(argv: list[str] | None = None) -> int:
    chosen = parser().parse_args(argv)
    if chosen.replay:
        return replay(chosen.replay)
    readers = {name: reader for name, reader in READERS.items() if not chosen.reader or name in chosen.reader}
    started = time.monotonic()
    tally, findings = fuzz(
        readers,
        chosen.cases,
        chosen.seed,
        workers=chosen.workers,
        seconds=SECONDS,
        until=started + chosen.seconds,
        tell=progress(started),
        found=lambda finding: print(f"{store(finding, chosen.findings)}: {finding.fault.strip().splitlines()[0]}"),
    )
    for name, counts in tally.items():
        outcomes = f"{counts['read']:6,} read, {counts['refused']:6,} refused, {counts['fault']} faults"
        print(f"{name:18} {counts.total():7,} cases: {outcomes}")
    done = sum((Counter(counts) for counts in tally.values()), Counter())
    print(
        f"fuzz: {done.total():,} cases of {len(tally)} readers, seed {chosen.seed}: {done['read']:,} read, "
        f"{done['refused']:,} refused in words, {len(findings)} faults; "
        f"limits {SECONDS:g} s and {MEMORY / 2**30:g} GiB; {time.monotonic() - started:.0f} s"
    )
    return int(bool(findings))


if __name__ == "__main__":
    raise SystemExit(main())
