"""The fuzzer: a few hundred cases of every reader, and that it finds each kind of fault where one was planted."""

import mmap
import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.cases import Bench, make_case, stored
from fuzz.edits import OUTSIDE
from fuzz.oracle import wrongly_read
from fuzz.pool import chunks, fuzz
from fuzz.readers import READERS, Reader
from fuzz.run import main

from progressive_attention.data.manifest import read_manifest
from progressive_attention.files import read_json

SEEDS = [{"data.json": b'{"a": [1, 2]}', "a.png": b"no picture"}]


def planted(read: Callable[[Path, random.Random], Any], seconds: float = 20.0, cases: int = 3) -> list[str]:
    """The faults that are found in a reader; a slow machine may need seconds to fill a gigabyte."""
    tally, findings = fuzz({"it": Reader(lambda: SEEDS, read)}, cases, 0, workers=1, seconds=seconds)
    assert tally["it"].total() == cases
    assert tally["it"]["fault"] == len(findings)
    return [finding.fault for finding in findings]


def key_error(folder: Path, rng: random.Random) -> None:
    {}["missing"]


def hangs(folder: Path, rng: random.Random) -> None:
    while True:
        try:
            len(str(folder))
        except Exception:  # what a reader takes for a damaged file must not end the clock
            continue


def eats(folder: Path, rng: random.Random) -> None:
    room = mmap.mmap(-1, 1200 * 2**20)  # of its own: an allocator may have as much left of an earlier test
    for _ in range(1200):
        room.write(bytes(2**20))


def eats_all(folder: Path, rng: random.Random) -> None:
    bytearray(2**40)


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


def dies(folder: Path, rng: random.Random) -> None:
    os._exit(7)


def is_silent(folder: Path, rng: random.Random) -> None:
    raise ValueError


@pytest.mark.parametrize(
    "read, told",
    [
        (key_error, "KeyError"),
        (hangs, "TooLong"),
        (eats, "memory: it grew by"),
        (eats_all, "MemoryError"),
        (writes_outside, "outside: opened"),
        (reads_secret, "outside: opened"),
        (unpickles, "outside: pickle.find_class"),
        (runs_data, "outside: code run"),
        (dies, "the process died, exit code 7"),
        (is_silent, "refused without a word"),
    ],
)
def test_planted_faults_are_found_in_every_case(read: Callable[[Path, random.Random], Any], told: str) -> None:
    cases = 1 if read is eats else 3
    faults = planted(read, seconds=1.0 if read is hangs else 20.0, cases=cases)
    assert len(faults) == cases
    assert all(fault.startswith(told) for fault in faults), faults


def test_what_waits_is_ended_by_the_clock() -> None:
    (fault,) = planted(lambda folder, rng: time.sleep(60), seconds=0.05, cases=1)
    assert fault.startswith("TooLong: it waits for ever")


def test_words_and_values_are_no_faults() -> None:
    assert planted(lambda folder, rng: read_json(folder / "data.json"), cases=50) == []


def test_a_label_that_is_silently_another_is_found(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,query,attribute,scale\na.png,07,red,1.5\nb.png,cat,old,\n")
    assert wrongly_read(read_manifest(tmp_path), tmp_path / "manifest.csv") is None
    for other, where in (
        ("image,query,attribute,scale\na.png,7,red,1.5\nb.png,cat,old,\n", "row 1, query: read '07', but '7'"),
        ("image,query,attribute,scale\na.png,07,red,1.5\nb.png,cat,old,2\n", "row 2, scale: read None, but '2'"),
        ("image,query,attribute,scale\na.png,07,red,1.5\n", "2 rows were read, 1 are there"),
    ):
        (tmp_path / "other.csv").write_text(other)
        assert (wrongly_read(read_manifest(tmp_path), tmp_path / "other.csv") or "").startswith(where)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_a_seed_as_it_is(name: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "home")
    seeds = READERS[name].seeds()
    outcomes = [bench.run(READERS[name], files, "0") for files in seeds]
    assert outcomes[0] == ("read", "")
    assert "fault" not in [outcome for outcome, _ in outcomes], outcomes


@pytest.mark.parametrize("cases", [1, 100, 100_000])
def test_no_fewer_cases_than_asked_for(cases: int) -> None:
    counts = dict.fromkeys(READERS, 0)
    for chunk in chunks(READERS, cases):
        assert chunk.start == counts[chunk.name]
        counts[chunk.name] = chunk.stop
    assert cases <= sum(counts.values()) < cases + len(READERS)
    assert min(counts.values()) >= 1


def test_one_seed_gives_one_set_of_cases() -> None:
    for name in ("coco", "experiment", "npz", "image-root", "checkpoint"):
        reader, seeds = READERS[name], READERS[name].seeds()
        many = [[make_case(reader, seeds, seed, name, case) for case in range(20)] for seed in (3, 3, 4)]
        assert many[0] == many[1] != many[2]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few hundred cases of all readers, none of them a fault."""
    assert main(["--cases", "400", "--seed", "5", "--workers", "2", "--findings", str(tmp_path / "found")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(READERS) + 1
    assert told[-1].startswith("fuzz: ")
    assert " 0 faults" in told[-1]
    assert not (tmp_path / "found").exists()


def test_findings_are_kept_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, "idx", Reader(lambda: SEEDS, key_error))
    assert main(["--cases", "2", "--reader", "idx", "--workers", "1", "--findings", str(tmp_path)]) == 1
    assert "2 faults" in capsys.readouterr().out
    kept = tmp_path / "idx-0-1.json"
    assert stored(kept).files == make_case(READERS["idx"], SEEDS, 0, "idx", 1)
    assert main(["--replay", str(kept)]) == 1
    assert "KeyError" in capsys.readouterr().out
    monkeypatch.setitem(READERS, "idx", Reader(lambda: SEEDS, is_silent))
    assert main(["--replay", str(kept)]) == 1
    monkeypatch.setitem(READERS, "idx", Reader(lambda: SEEDS, lambda folder, rng: None))
    assert main(["--replay", str(kept)]) == 0
