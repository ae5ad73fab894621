"""One case: a seed's folder with a mutation, read under limits of time and memory, and watched by an audit hook."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.edits import OUTSIDE
from fuzz.mutate import mutated
from fuzz.readers import Reader

SECONDS, WALL = 2.0, 20.0  # of processor time, and by the clock, which other programs' work may stretch
MEMORY = 2**30  # bytes that a worker may grow by
ADDRESSES = 4 * 2**30  # bytes of addresses, which no worker gets above what it has: a belt beside the brace
LINK = b"a link to "
RUNS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")


class TooLong(BaseException):
    """Not an Exception, which a reader may take for a damaged file."""


class Finding(NamedTuple):
    """What went wrong, with all that it takes to do it again."""

    reader: str
    seed: int
    case: int
    fault: str
    files: dict[str, bytes]


def importing() -> bool:
    """Whether a module is being imported: many make classes out of strings."""
    frame = sys._getframe(2)
    while frame := frame.f_back:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            return True
    return False


class Watch:
    """Notes what no data may make us do: run code, write outside of a folder, open what is secret."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.faults: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in RUNS:
            self.faults.append(f"{event} {arguments!r:.200}")
        elif event == "exec" and arguments[0].co_filename in ("<string>", "<unknown>") and not importing():
            self.faults.append(f"code run: {arguments[0]!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path, writes = os.fsdecode(arguments[0]), arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            full = os.path.realpath(path) if "\0" not in path else path
            if "/secret/" in full or (writes and not full.startswith(self.folder) and full != os.devnull):
                self.faults.append(f"opened {full!r}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"):
            for path in arguments[:2] if arguments[-1] == -1 else ():  # else below a folder that is open
                if isinstance(path, (str, bytes)) and not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
                    self.faults.append(f"{event} {path!r}")


def make_case(reader: Reader, seeds: list[dict[str, bytes]], seed: int, name: str, case: int) -> dict[str, bytes]:
    """A seed with one file mutated, or an image that is a link; the same for the same seed, reader and case."""
    rng = random.Random(f"{seed} {name} {case}")
    files = dict(rng.choice(seeds))
    images = [path for path in files if path.endswith((".png", ".jpg", ".zip")) and ".json" not in path]
    if reader.links and images and rng.random() < 0.05:
        files[rng.choice(images)] = (
            LINK + rng.choice([f"{'../' * rng.randrange(4)}{OUTSIDE}", ".", "..", "a.png", "/"]).encode()
        )
        return files
    data = [path for path in files if path not in images] or images
    path = rng.choice(data if rng.random() < 0.75 else list(files))
    files[path] = mutated(files[path], os.path.splitext(path)[1], rng, rng.choice(list(files.values())))
    return files


def write_case(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith(LINK):
            path.symlink_to(content.removeprefix(LINK).decode())
        else:
            path.write_bytes(content)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLong after so much processor time, or ten times as much by the clock."""

    def stop(signum: int, frame: Any) -> None:
        raise TooLong(f"more than {seconds:g} s of processor time" if signum == signal.SIGPROF else "it waits for ever")

    for kind in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(kind, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WALL / SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def peak() -> int:
    """The most bytes that this process has held; ``ru_maxrss`` alone begins with what held the one that started it."""
    status = Path("/proc/self/status")
    held = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * (int(held[1]) if held else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


class Bench:
    """A place to run cases in: a temporary folder with what is secret beside it, and the watch."""

    def __init__(self, home: Path, seconds: float = SECONDS) -> None:
        self.home, self.seconds, self.watch = home.resolve(), seconds, Watch()
        self.folder = self.home / "case"
        (self.home / "secret").mkdir(parents=True)
        secret = self.home / "secret" / "secret.png"
        secret.write_bytes(b"secret")
        self.start = peak()

    def run(self, reader: Reader, files: Mapping[str, bytes], choices: str) -> tuple[str, str]:
        """What became of a case, "read", "refused" or "fault", and in words what was wrong."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write_case(self.folder, files)
        self.watch.faults.clear()
        self.watch.folder = str(self.folder)
        outcome, told = "read", ""
        try:
            with limited(self.seconds), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(self.folder, random.Random(choices))
        except (ValueError, OSError) as error:
            outcome, told = "refused", str(error)
        except (Exception, TooLong) as error:
            outcome, told = "fault", f"{type(error).__name__}: {error!s:.300}\n{traceback.format_exc()[-3000:]}"
        finally:
            self.watch.folder = None
        if self.watch.faults:
            return "fault", f"outside: {self.watch.faults[0]}"
        if sorted(os.listdir(self.home)) != ["case", "secret"] or os.listdir(self.home / "secret") != ["secret.png"]:
            return "fault", f"outside: something was written beside the case's folder: {sorted(os.listdir(self.home))}"
        if peak() - self.start > MEMORY:
            return "fault", f"memory: it grew by {(peak() - self.start) / 2**20:.0f} MiB"
        if outcome == "refused" and not told.strip():
            return "fault", "refused without a word"
        return outcome, told


def limit_memory() -> None:
    """No more addresses than ADDRESSES above what this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def store(finding: Finding, folder: Path) -> Path:
    """Keep a finding's input: a JSON that ``--replay`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.reader}-{finding.seed}-{finding.case}.json"
    files = {name: content.hex() for name, content in finding.files.items()}
    path.write_text(json.dumps({**finding._asdict(), "files": files}, indent=1))
    return path


def stored(path: Path) -> Finding:
    told = json.loads(path.read_text())
    return Finding(**{**told, "files": {name: bytes.fromhex(content) for name, content in told["files"].items()}})
