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
from fuzz.oracle import wrongly_read
from fuzz.readers import READERS, Reader
from fuzz.watch import make_case, outcome_of

from progressive_attention.data.manifest import read_folder

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


def test_a_label_that_is_silently_another_is_found(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,query,attribute,scale\na.png,07,red,1.5\nb.png,cat,old,\n")
    assert wrongly_read(read_folder(tmp_path), tmp_path / "manifest.csv") is None
    for other, where in (
        ("image,query,attribute,scale\na.png,7,red,1.5\nb.png,cat,old,\n", "row 1, query: read '07', but '7'"),
        ("image,query,attribute,scale\na.png,07,red,1.5\nb.png,cat,old,2\n", "row 2, scale: read None, but '2'"),
        ("image,query,attribute,scale\na.png,07,red,1.5\n", "2 rows were read, 1 are there"),
    ):
        (tmp_path / "other.csv").write_text(other)
        assert (wrongly_read(read_folder(tmp_path), tmp_path / "other.csv") or "").startswith(where)
