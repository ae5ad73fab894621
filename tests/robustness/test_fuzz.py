"""Every reader of files meets mutated files; planted faults of each kind are found.

``FUZZ_CASES=5000 pytest -n auto tests/robustness/test_fuzz.py`` tries as many cases of each reader; a case that fails
names its number, and ``FUZZ_START`` begins there.
"""

import os
import pickle
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.edits import OUTSIDE
from fuzz.oracle import wrongly_read
from fuzz.readers import READERS, Reader
from fuzz.watch import make_case, outcome_of

from progressive_attention.data.manifest import read_folder
from progressive_attention.files import read_json

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


def planted(read: Callable[[Path, random.Random], Any], home: Path, seconds: float = 20.0) -> str:
    return outcome_of(Reader(lambda: SEEDS, read), SEEDS[0], home, "0", seconds)


def key_error(folder: Path, rng: random.Random) -> None:
    {}["missing"]


def hangs(folder: Path, rng: random.Random) -> None:
    while True:
        try:
            len(str(folder))
        except Exception:  # what a reader takes for a damaged file must not end the clock
            continue


def waits(folder: Path, rng: random.Random) -> None:
    time.sleep(60)


def writes_outside(folder: Path, rng: random.Random) -> None:
    (folder / ".." / "up.txt").write_text("up")


def reads_secret(folder: Path, rng: random.Random) -> None:
    (folder / OUTSIDE).read_bytes()


class Evil:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


def unpickles(folder: Path, rng: random.Random) -> None:
    pickle.loads(pickle.dumps(Evil()))


def runs_data(folder: Path, rng: random.Random) -> None:
    exec("a = 1")


def is_silent(folder: Path, rng: random.Random) -> None:
    raise ValueError


@pytest.mark.parametrize(
    "read, fault",
    [
        (key_error, "KeyError"),
        (hangs, "TooLong: more than"),
        (waits, "TooLong: it waits"),
        (writes_outside, "outside: opened"),
        (reads_secret, "outside: opened"),
        (unpickles, "outside: pickle.find_class"),
        (runs_data, "outside: code run"),
        (is_silent, "rejected without a word"),
    ],
)
def test_planted_fault_is_found(read: Callable[[Path, random.Random], Any], fault: str, tmp_path: Path) -> None:
    assert planted(read, tmp_path / "home", seconds=0.05 if read in (hangs, waits) else 20.0).startswith(fault)


def test_words_are_no_fault(tmp_path: Path) -> None:
    assert planted(lambda folder, rng: read_json(folder / "data.json"), tmp_path / "home") == "read"


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
