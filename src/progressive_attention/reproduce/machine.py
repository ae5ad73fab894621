"""Where results come from: hardware, versions and commit, for whoever wants to repeat them."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name, as far as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def hardware(device: torch.device, threads: int | None = None) -> str:
    """GPU if one is used, processor, cores, threads used (torch's own number unless given)."""
    threads = threads or torch.get_num_threads()
    text = f"{processor()}, {os.cpu_count()} cores seen, {threads} {'threads' if threads > 1 else 'thread'} used"
    return f"{torch.cuda.get_device_name(device)}; {text}" if device.type == "cuda" else text


def package_version() -> str:
    """The installed version; "unknown" where the code runs straight from a checkout."""
    try:
        return version("progressive-attention")
    except PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """The checkout's commit, marked where the package differs from it; the version where there is no checkout of it.

    For a copy of a checkout without its history the environment variable PAN_COMMIT names it.
    """
    if given := os.environ.get("PAN_COMMIT"):
        return given
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", __file__)  # a package installed in another's checkout is no part of it
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {package_version()}"
