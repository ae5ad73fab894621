"""Where results come from: hardware in words, and a commit only where it is the package's own."""

import os
import re
import shutil
import subprocess
from importlib.metadata import version
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
    """The folder src/package/reproduce in which machine.py seems to stand, outside any checkout."""
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
    top = package.parents[2]
    (top / "README.md").write_text("hello\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", "first")
    return top


def test_without_a_checkout_of_its_own_code_it_is_the_version(package, monkeypatch):
    assert machine.commit() == VERSION
    git(package, "init", "--quiet")
    git(package, "add", ".")
    assert machine.commit() == VERSION  # of a checkout without a commit
    monkeypatch.setenv("PAN_COMMIT", "0123456789ab")
    assert machine.commit() == "0123456789ab"  # a copy is given its commit


@pytest.mark.parametrize("staged", [False, True])
def test_commit_of_a_checkout_clean_and_changed(checkout, package, staged):
    clean = machine.commit()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    assert git(checkout, "rev-parse", "HEAD").startswith(clean)
    (checkout / "README.md").write_text("changed, but no code\n")
    (package / "scratch.txt").write_text("new, but not committed\n")
    assert machine.commit() == clean
    (package / "machine.py").write_text("one = 2\n")
    if staged:
        git(checkout, "add", ".")
    assert machine.commit() == clean + " with changes"


def test_no_git_and_another_projects_checkout_give_the_version(checkout, package, monkeypatch):
    """Installed into a virtual environment inside some project, say."""
    installed = checkout / ".venv" / "package"
    shutil.copytree(package, installed)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "__file__", str(installed / "machine.py"))
        assert machine.commit() == VERSION
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == VERSION


def test_hardware_names_processor_cores_threads_and_gpu(monkeypatch):
    of_cpu = f"{machine.processor()}, {os.cpu_count()} cores seen"
    assert machine.hardware(CPU, 1) == f"{of_cpu}, 1 thread used"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert machine.hardware(CPU) == f"{of_cpu}, 7 threads used"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A GPU, number {device.index}")
    assert machine.hardware(torch.device("cuda:1")) == f"A GPU, number 1; {of_cpu}, 7 threads used"
