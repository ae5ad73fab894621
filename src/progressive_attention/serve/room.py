"""The folder of pictures stays small: the oldest make room."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER_BYTES = 2**30  # of all pictures together
SECONDS = 5.0  # between two looks
FORGOTTEN = 7200.0  # s; Gradio deletes pictures after an hour, but not what a broken upload left
BLOCK = 4096  # a file takes whole blocks, and one for its folder


@contextmanager
def kept_small(folder: Path) -> Iterator[None]:
    """While the block lasts, delete what is old or too much; what is there at the start, the page's own, stays."""
    own, stop = frozenset(folder.rglob("*")), threading.Event()

    def look() -> None:
        while not stop.wait(SECONDS):
            make_room(folder, own)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        stop.set()
        looking.join()


def make_room(folder: Path, own: frozenset[Path] = frozenset(), most: int = FOLDER_BYTES) -> None:
    """Delete files but ``own``, the oldest first, until they take at most ``most`` bytes and none is too old."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # Gradio may delete it meanwhile
            about = path.stat()
            if path.is_file() and path not in own:
                files.append((about.st_mtime, (about.st_size // BLOCK + 2) * BLOCK, path))
    total = sum(size for _, size, _ in files)
    for changed, size, path in sorted(files):
        if total <= most and time.time() - changed <= FORGOTTEN:
            break
        total -= size
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or the folder itself
            if path.parent != folder:
                path.parent.rmdir()
