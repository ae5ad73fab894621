"""Work of a second or two goes on after a fault as if there had been none.

After each fault no file is torn, the message is one line, and the same command leaves what the undisturbed run leaves,
and nothing else. ``FAULTS=10 pytest tests/robustness/test_faults.py`` tries ten moments of each kind.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from children import Ended, after, leavings, run, small_files, torn
from works import WORKS, Outcome, Work

MOMENTS = int(os.environ.get("FAULTS", 1))
SHARES = [(i + 0.6) / MOMENTS for i in range(MOMENTS)] if MOMENTS > 1 else [0.6]
ROOM = ("No space left", "no room", "File too large", "os error")  # words of a full disk


class Bench:
    """Where faults are tried: a folder, and what each work takes and leaves undisturbed, measured once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.known: dict[str, tuple[Path, Outcome, float]] = {}

    def ready(self, work: Work) -> Path:
        """A new folder with what ``work`` starts from."""
        self.number += 1
        folder = self.folder / f"trial-{self.number}"
        folder.mkdir()
        needs_run = work.prepare is WORKS["report"].prepare
        work.prepare(folder, self.undisturbed(WORKS["training"])[0] if needs_run else folder)
        return folder

    def undisturbed(self, work: Work) -> tuple[Path, Outcome, float]:
        """The folder that an undisturbed run leaves, its outcome, and the seconds it took."""
        if work.name not in self.known:
            folder = self.ready(work)
            ended = run(work, folder)
            assert ended.code == 0, f"{work.name} fails undisturbed: {ended.output}"
            assert [torn(folder), *leavings(folder)] == [""]
            self.known[work.name] = folder, work.outcome(folder), ended.seconds
        return self.known[work.name]

    def disturb(self, work: Work, share: float, number: int) -> tuple[Path, Ended]:
        """Send a signal after that share of the undisturbed run's time; earlier if it had ended by then."""
        for _ in range(20):
            folder = self.ready(work)
            ended = run(work, folder, after(share * self.undisturbed(work)[2], number))
            if ended.code:
                return folder, ended
            share *= 0.9
        raise AssertionError("it always ended before it could be disturbed")

    def check_recovery(self, work: Work, folder: Path) -> None:
        """The same command now leaves what the undisturbed run left, and all files are whole before and after."""
        assert torn(folder) == ""
        again = run(work, folder)
        assert again.code == 0, again.output[-300:]
        assert [torn(folder), *leavings(folder)] == [""]
        assert work.outcome(folder) == self.undisturbed(work)[1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", WORKS)
def test_killed_work_goes_on(bench, name, share):
    folder, ended = bench.disturb(WORKS[name], share, signal.SIGKILL)
    assert ended.code == -signal.SIGKILL
    bench.check_recovery(WORKS[name], folder)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["training", "importing"])
def test_interrupted_work_says_so_and_goes_on(bench, name, share):
    folder, ended = bench.disturb(WORKS[name], share, signal.SIGINT)
    assert ended.code == 130, ended.output
    assert ended.output.rstrip().endswith(": stopped")
    bench.check_recovery(WORKS[name], folder)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ["training", "rendering", "importing"])
def test_full_disk_is_one_line_and_work_goes_on(bench, name, share):
    work = WORKS[name]
    whole, folder = bench.undisturbed(work)[0], bench.ready(work)
    written = [path for path in whole.rglob("*") if path.is_file() and not (folder / path.relative_to(whole)).exists()]
    largest = max(path.stat().st_size for path in written)
    ended = run(work, folder, sabotage=small_files(round(share * largest)))
    errors = [line for line in ended.output.splitlines() if line.startswith("pan ") and ": error: " in line]
    assert ended.code == 2
    assert len(errors) == 1
    assert any(word in errors[0] for word in ROOM), ended.output
    bench.check_recovery(work, folder)


@pytest.mark.parametrize("harm", ["cut", "flip"])
@pytest.mark.parametrize(
    ("name", "pattern", "remedy"),
    [
        ("training", "run/checkpoint.safetensors", ["run/log.jsonl"]),
        ("evaluation", "run/weights.safetensors", None),
        ("report", "run/evaluation/*.parquet", None),
        ("report", "run/evaluation/*.json", None),
        ("rendering", "cache/*/questions.npz", None),
    ],
)
def test_damaged_file_is_named_or_made_again(bench, tmp_path, name, pattern, remedy, harm):
    """With a ``remedy``, the file is deleted then, as the message says; else it is put back."""
    work, folder = WORKS[name], tmp_path / "trial"
    shutil.copytree(bench.undisturbed(work)[0], folder)
    (path,) = folder.glob(pattern)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + (b"" if harm == "cut" else bytes([whole[middle] ^ 4]) + whole[middle + 1 :]))
    for left in remedy or ():
        (folder / left).unlink(missing_ok=True)
    ended = run(work, folder)
    assert ended.code in (0, 2), ended.output
    if ended.code == 2:
        assert path.name in ended.output
        path.write_bytes(whole)
        if remedy:
            path.unlink()
    bench.check_recovery(work, folder)
