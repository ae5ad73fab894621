"""Every reader of files meets mutated files; planted faults of each kind are found.

``FUZZ_CASES=5000 pytest -n auto tests/robustness/test_fuzz.py`` tries as many cases of each reader; a case that fails
names its number, and ``FUZZ_START`` begins there.
"""

import os
import pickle
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.readers import READERS, Reader
from fuzz.watch import make_case, outcome_of

CASES, START = int(os.environ.get("FUZZ_CASES", 20)), int(os.environ.get("FUZZ_START", 0))
SEEDS = [{"data.json": b'{"a": [1, 2]}', "a.png": b"no picture"}]


@pytest.mark.parametrize("name", READERS)
def test_reader_takes_or_rejects_whatever_comes(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    seeds, counts = reader.seeds(), Counter[str]()
    assert outcome_of(reader, seeds[0], tmp_path / "home", "0") == "read", "the seed itself"
    for case in range(START, START + CASES * reader.share):
        outcome = outcome_of(reader, make_case(reader, seeds, name, case), tmp_path / "home", str(case))
        assert outcome in ("read", "rejected"), f"FUZZ_START={case}: {outcome}"
        counts[outcome] += 1
    print(f"{name}: {dict(counts)}")


def hangs(folder: Path, rng: random.Random) -> None:
    while True:
        try:
            len(str(folder))
        except Exception:  # what a reader takes for a damaged file must not end the clock
            continue


def writes_outside(folder: Path, rng: random.Random) -> None:
    (folder / ".." / "up.txt").write_text("up")


class Evil:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


def unpickles(folder: Path, rng: random.Random) -> None:
    pickle.loads(pickle.dumps(Evil()))


@pytest.mark.parametrize(
    "read, fault",
    [(hangs, "TooLong: more than"), (writes_outside, "outside: opened"), (unpickles, "outside: pickle.find_class")],
)
def test_planted_fault_is_found(read: Callable[[Path, random.Random], Any], fault: str, tmp_path: Path) -> None:
    reader = Reader(lambda: SEEDS, read)
    assert outcome_of(reader, SEEDS[0], tmp_path / "home", "0", 0.05 if read is hangs else 20.0).startswith(fault)
