"""``pan serve`` in a process of its own, its memory and its folder watched."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
from free_port import free_port

import progressive_attention

MIB = 2**20


class Served:
    """A running page; ``folder`` holds its pictures, ``log`` what it told."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, networks: Sequence[str]) -> None:
        self.folder, self.port = folder / "pictures", free_port()
        self.folder.mkdir()
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "progressive_attention", "serve", "--port", str(self.port), "--device", "cpu"]
        for name in networks:
            command += ["--weights", name]
        ours = str(Path(progressive_attention.__file__).parents[1])
        environment = {**os.environ, "TMPDIR": str(self.folder), "PYTHONPATH": ours}
        with self.log.open("w") as told:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=told, text=True, env=environment, cwd=folder
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert f"http://{self.host}:{self.port}/" in line, self.log.read_text()
        self.first_memory = self.most_memory = self.memory
        self.most_disk = 0
        self.ended = threading.Event()
        self.watching = threading.Thread(target=self.watch, daemon=True)
        self.watching.start()

    @property
    def memory(self) -> int:
        """Resident bytes now."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def cpu(self) -> float:
        """Seconds of processor time until now."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def watch(self) -> None:
        """Note the most memory and disk, ten and one times a second, until it ends."""
        looks = 0
        while not self.ended.wait(0.1):
            looks += 1
            try:
                self.most_memory = max(self.most_memory, self.memory)
            except psutil.Error:
                return
            if looks % 10 == 0:
                self.most_disk = max(self.most_disk, self.disk)

    @property
    def disk(self) -> int:
        """Bytes of its folder now."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_size
                except OSError:  # gone meanwhile
                    continue
        return total

    def stop(self) -> int:
        """Ctrl-C, as it comes from a terminal; its exit code."""
        self.ended.set()
        self.watching.join()
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
