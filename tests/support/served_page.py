"""The demo page, served by ``pan serve`` in a process of its own, that the tests by browser and by script share."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from free_port import free_port
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "src/progressive_attention/assets/examples/mref.png"
NETWORKS = ("mref-pan", "mref-san")
WAIT = 60_000  # ms; machines may be busy


class Served(NamedTuple):
    """A running page, its process, and the folder of its pictures."""

    address: str
    process: subprocess.Popen
    folder: Path


def started(folder: Path, *arguments: str) -> Served:
    """``pan serve`` once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "progressive_attention", "serve", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in line
    return Served(f"http://127.0.0.1:{port}/", process, folder)


@contextmanager
def two_networks(folder: Path) -> Iterator[Served]:
    """A page with ``NETWORKS``, until those who ask it are done."""
    page = started(folder, "--weights", NETWORKS[0], "--weights", NETWORKS[1])
    try:
        yield page
    finally:
        page.process.kill()
        page.process.wait()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "png")
    return buffer.getvalue()
