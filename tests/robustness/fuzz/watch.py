"""One case: a seed's folder with a mutation, read under limits of time and memory, and watched by an audit hook."""

import contextlib
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
from typing import Any

from fuzz.edits import OUTSIDE
from fuzz.mutate import mutated
from fuzz.readers import Reader

SECONDS, WALL = 2.0, 20.0  # of processor time, and by the clock, which other programs' work may stretch
MEMORY = 2**30  # bytes that the process may grow by
LINK = b"a link to "
RUNS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")


class TooLong(BaseException):
    """Not an Exception, which a reader may take for a damaged file."""


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
        elif event in CHANGES:
            for path in arguments[:2] if arguments[-1] == -1 else ():  # else below a folder that is open
                if isinstance(path, (str, bytes)) and not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
                    self.faults.append(f"{event} {path!r}")


WATCH = Watch()  # one for the process: an audit hook can't be taken away


def make_case(reader: Reader, seeds: list[dict[str, bytes]], name: str, case: int) -> dict[str, bytes]:
    """A seed with one file mutated, or an image that is a link; the same for the same reader and case."""
    rng = random.Random(f"{name} {case}")
    files = dict(rng.choice(seeds))
    images = [path for path in files if path.endswith((".png", ".jpg", ".zip")) and ".json" not in path]
    if reader.links and images and rng.random() < 0.05:
        goals = [f"{'../' * rng.randrange(4)}{OUTSIDE}", ".", "..", "a.png", "/"]
        files[rng.choice(images)] = LINK + rng.choice(goals).encode()
        return files
    data = [path for path in files if path not in images] or images
    path = rng.choice(data if rng.random() < 0.75 else list(files))
    files[path] = mutated(files[path], os.path.splitext(path)[1], rng, rng.choice(list(files.values())))
    return files


def write_case(folder: Path, files: Mapping[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
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

    before = [signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)]
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds * WALL / SECONDS)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before[0])
        signal.signal(signal.SIGALRM, before[1])
        signal.setitimer(signal.ITIMER_REAL, rest)  # pytest-timeout's own


def peak() -> int:
    """The most bytes that this process has held; ``ru_maxrss`` alone begins with what held the one that started it."""
    status = Path("/proc/self/status")
    held = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * (int(held[1]) if held else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def outcome_of(reader: Reader, files: Mapping[str, bytes], home: Path, seed: str, seconds: float = SECONDS) -> str:
    """What became of a case below ``home``: "read", "rejected", or what was wrong, in words."""
    folder, secret = home.resolve() / "case", home.resolve() / "secret" / "secret.png"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(b"secret")
    write_case(folder, files)
    before, outcome = peak(), "read"
    WATCH.faults.clear()
    WATCH.folder = str(folder)
    try:
        with limited(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder, random.Random(seed))
    except (ValueError, OSError) as error:
        outcome = "rejected" if str(error).strip() else "rejected without a word"
    except (Exception, TooLong) as error:
        outcome = f"{type(error).__name__}: {error!s:.300}\n{traceback.format_exc()[-3000:]}"
    finally:
        WATCH.folder = None
    if WATCH.faults:
        return f"outside: {WATCH.faults[0]}"
    if sorted(os.listdir(home)) != ["case", "secret"] or os.listdir(secret.parent) != ["secret.png"]:
        return f"outside: something was written beside the case's folder: {sorted(os.listdir(home))}"
    if (grown := peak() - before) > MEMORY:
        return f"memory: it grew by {grown / 2**20:.0f} MiB"
    return outcome
