"""Where results come from: hardware in words, and a commit only where it is the package's own."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from progressive_attention.reproduce import machine

CPU = torch.device("cpu")
VERSION = f"version {version('progressive-attention')}"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder src/package that machine.py is told to stand in, outside any checkout."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.delenv("PAN_COMMIT", raising=False)
    folder = tmp_path / "checkout" / "src" / "package" / "reproduce"
    folder.mkdir(parents=True)
    (folder / "machine.py").write_text("one = 1\n")
    monkeypatch.setattr(machine, "__file__", str(folder / "machine.py"))
    return folder


@pytest.fixture
def checkout(package):
    """The checkout around it, all committed."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    top = package.parents[2]
    (top / "README.md").write_text("hello\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", "first")
    return top


def test_a_copy_is_told_its_commit(package, monkeypatch):
    monkeypatch.setenv("PAN_COMMIT", "0123456789ab")
    assert machine.commit() == "0123456789ab"


def test_code_that_is_not_installed_has_no_version(package, monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", missing)
    assert machine.commit() == "version unknown"


def test_commit_of_a_clean_checkout(checkout, package):
    found = machine.commit()
    assert re.fullmatch("[0-9a-f]{12}", found)
    assert git(checkout, "rev-parse", "HEAD").startswith(found)
    (checkout / "README.md").write_text("changed, but no code\n")
    (package / "scratch.txt").write_text("new, but not committed\n")
    assert machine.commit() == found


@pytest.mark.parametrize("staged", [False, True])
def test_commit_tells_of_changes(checkout, package, staged):
    clean = machine.commit()
    (package / "machine.py").write_text("one = 2\n")
    if staged:
        git(checkout, "add", ".")
    assert machine.commit() == clean + " with changes"
    git(checkout, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-a", "-m", "second")
    assert re.fullmatch("[0-9a-f]{12}", machine.commit())
    assert machine.commit() != clean


def test_no_checkout_gives_the_version(package):
    assert machine.commit() == VERSION


def test_no_git_gives_the_version(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == VERSION


def test_another_projects_checkout_is_not_ours(checkout, package, monkeypatch):
    """Installed into a virtual environment inside some project, say."""
    installed = checkout / ".venv" / "package"
    shutil.copytree(package, installed)
    monkeypatch.setattr(machine, "__file__", str(installed / "machine.py"))
    assert machine.commit() == VERSION


def test_a_checkout_without_a_commit_gives_the_version(package):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(package, "init", "--quiet")
    git(package, "add", ".")
    assert machine.commit() == VERSION


@pytest.mark.parametrize("threads, told", [(1, "1 thread used"), (3, "3 threads used")])
def test_hardware_names_processor_cores_and_threads(threads, told):
    assert machine.hardware(CPU, threads) == f"{machine.processor()}, {os.cpu_count()} cores seen, {told}"


def test_hardware_counts_torchs_threads_and_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    on_cpu = machine.hardware(CPU)
    assert on_cpu.endswith("7 threads used")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A GPU, number {device.index}")
    assert machine.hardware(torch.device("cuda:1")) == f"A GPU, number 1; {on_cpu}"


def test_processor(monkeypatch):
    assert re.search(r"\w", machine.processor())
    told = "processor\t: 0\nmodel name\t: Some CPU: fast @ 2 GHz\nflags\t: fpu\nmodel name\t: Another\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: told)
    assert machine.processor() == "Some CPU: fast @ 2 GHz"


@pytest.mark.parametrize("names, expected", [(("Apple M9", "arm64"), "Apple M9"), (("", "arm64"), "arm64")])
def test_processor_where_the_system_tells_less(monkeypatch, names, expected):
    def missing(self, **_):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    for function, name in zip(("processor", "machine"), names, strict=True):
        monkeypatch.setattr(platform, function, lambda name=name: name)
    assert machine.processor() == expected
